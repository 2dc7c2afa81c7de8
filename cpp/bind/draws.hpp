// Statistics of samples as they come from Python.
#pragma once

#include "bind/bind.hpp"
#include "data/statistics.hpp"

namespace msem {

using ScatterArray = py::array_t<double, py::array::c_style | py::array::forcecast>;
// sizes, counts, means, scatter, ssw
// Statistics of several samples, one after the other: how many sizes each has, and their arrays.
using StackedTuple = std::tuple<std::vector<Eigen::Index>, Eigen::VectorXd, Eigen::VectorXd, RowMatrix,
                                ScatterArray, RowMatrix>;

inline std::vector<TwoLevelStatistics> stacked_statistics(const StackedTuple& given) {
  const auto& [lengths, sizes, counts, means, scatter, ssw] = given;
  const Eigen::Index m = means.cols(), p = ssw.cols(), samples = static_cast<Eigen::Index>(lengths.size());
  Eigen::Index total = 0;
  for (const Eigen::Index n : lengths) total += n < 0 ? sizes.size() + 1 : n;
  if (sizes.size() != total || counts.size() != total || means.rows() != total ||
      scatter.size() != total * m * m || ssw.rows() != samples * p)
    throw std::invalid_argument("stacked statistics have inconsistent shapes");
  std::vector<TwoLevelStatistics> out(samples);
  Eigen::Index first = 0;
  for (Eigen::Index r = 0; r < samples; ++r) {
    TwoLevelStatistics& one = out[r];
    const Eigen::Index n = lengths[r];
    one.sizes = sizes.segment(first, n);
    one.counts = counts.segment(first, n);
    one.means = means.middleRows(first, n);
    one.scatter.assign(scatter.data() + first * m * m, scatter.data() + (first + n) * m * m);
    one.ssw = ssw.middleRows(r * p, p);
    first += n;
  }
  return out;
}

}  // namespace msem
