// Statistics of samples as they come from Python.
#pragma once

#include "bind/bind.hpp"
#include "data/statistics.hpp"

namespace msem {

using ScatterArray = py::array_t<double, py::array::c_style | py::array::forcecast>;
// sizes, counts, means, scatter, ssw
using StatisticsTuple =
    std::tuple<Eigen::VectorXd, Eigen::VectorXd, RowMatrix, ScatterArray, Eigen::MatrixXd>;

inline TwoLevelStatistics statistics_of(const StatisticsTuple& given) {
  TwoLevelStatistics out;
  const ScatterArray& scatter = std::get<3>(given);
  out.sizes = std::get<0>(given);
  out.counts = std::get<1>(given);
  out.means = std::get<2>(given);
  out.scatter.assign(scatter.data(), scatter.data() + scatter.size());
  out.ssw = std::get<4>(given);
  return out;
}

}  // namespace msem
