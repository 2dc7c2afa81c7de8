#include "data/counted_clusters.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace msem {

CountedClusters counted_clusters(ConstVectorRef sizes, ConstMatrixRef means, ConstMatrixRef within, Index p,
                                 const Vector& weights) {
  const Index total = sizes.size(), m = means.cols();
  if (means.rows() != total || within.rows() != total || within.cols() != p * (p + 1) / 2)
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  if (weights.size() != total || !(weights.array() >= 0).all() || !(weights.sum() > 0))
    throw std::invalid_argument("weights are numbers of at least 0, one for each cluster");
  std::vector<Index> order, first;
  for (Index j = 0; j < total; ++j) {
    if (weights[j] > 0) order.push_back(j);
  }
  const auto smaller = [&](Index a, Index b) { return sizes[a] < sizes[b]; };
  if (!std::is_sorted(order.begin(), order.end(), smaller))
    std::stable_sort(order.begin(), order.end(), smaller);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || smaller(order[i - 1], order[i])) first.push_back(static_cast<Index>(i));
  }
  const Index count = static_cast<Index>(first.size());
  first.push_back(static_cast<Index>(order.size()));
  CountedClusters out{Vector(count), Vector(count), Matrix(count, m), Matrix::Zero(m * m, count), Matrix()};
  for (Index s = 0; s < count; ++s) {
    const Index* members = order.data() + first[s];
    const Index number = first[s + 1] - first[s];
    out.sizes[s] = sizes[members[0]];
    if (number == 1) {  // as all are where weights make sizes differ
      out.counts[s] = weights[members[0]];
      out.means.row(s) = means.row(members[0]);
      continue;
    }
    Vector w(number);
    Matrix x(number, m);
    for (Index i = 0; i < number; ++i) {
      w[i] = weights[members[i]];
      x.row(i) = means.row(members[i]);
    }
    out.counts[s] = w.sum();
    const Vector first = x.row(0);  // about which equal values stay equal
    x.rowwise() -= first.transpose();
    const Vector shift = apply_transposed(x, w) / out.counts[s];
    out.means.row(s) = first + shift;
    x.rowwise() -= shift.transpose();
    slice(out.scatter, s, m, m) = weighted_cross(x, w, x);
  }
  const Matrix pooled = apply_transposed(within, weights).transpose();
  out.ssw = unpack_lower(pooled, 0, p);
  return out;
}

}  // namespace msem
