// Random slopes of data with more than two levels, for Python: (level, covariate, mean, spread, levels where
// they stand), counted from 0.
#pragma once

#include <vector>

#include "bind/bind.hpp"
#include "data/random_slope.hpp"

namespace msem {

inline py::list slope_state(const std::vector<RandomSlope>& slopes) {
  py::list out;
  for (const RandomSlope& one : slopes)
    out.append(py::make_tuple(one.level, one.covariate, one.mean, one.spread, one.at));
  return out;
}

inline std::vector<RandomSlope> slopes_restored(const py::sequence& given) {
  std::vector<RandomSlope> out;
  for (const py::handle one : given) {
    const auto t = one.cast<py::tuple>();
    out.push_back({t[0].cast<Index>(), t[1].cast<Index>(), t[2].cast<double>(), t[3].cast<double>(),
                   t[4].cast<std::vector<Index>>()});
  }
  return out;
}

}  // namespace msem
