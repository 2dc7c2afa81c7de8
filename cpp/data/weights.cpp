#include "data/weights.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

#include "base/lanes.hpp"

namespace msem {

using std::ptrdiff_t;

double total_weight(const double* weights, ptrdiff_t nrows) {
  Lanes sums = Lanes::Zero();
  ptrdiff_t i = 0;
  for (; i + kLanes <= nrows; i += kLanes) sums += Eigen::Map<const Lanes>(weights + i);
  double out = sums.sum();
  for (; i < nrows; ++i) out += weights[i];
  return out;
}

void scale_weights(const double* weights, ptrdiff_t nrows, const std::int64_t* codes, ptrdiff_t nclusters,
                   const bool* counted, WeightScale scale, double* out) {
  if (scale == WeightScale::none) {
    std::copy_n(weights, nrows, out);
    return;
  }
  std::vector<double> total(codes ? nclusters : 1), other(total.size());
  const bool size = scale == WeightScale::size;
  for (ptrdiff_t i = 0, end = 0; i < nrows; i = end) {  // rows of a cluster often follow each other
    const std::int64_t j = codes ? codes[i] : 0;
    if (j < 0 || j >= static_cast<ptrdiff_t>(total.size()))
      throw std::invalid_argument("cluster code out of range");
    end = codes ? i + 1 : nrows;
    while (end < nrows && codes[end] == j) ++end;
    if (size && !counted) {
      total[j] += total_weight(weights + i, end - i);
      other[j] += static_cast<double>(end - i);
      continue;
    }
    double sum = 0, rest = 0;
    for (ptrdiff_t k = i; k < end; ++k) {
      if (counted && !counted[k]) continue;
      sum += weights[k];
      rest += size ? 1.0 : weights[k] * weights[k];
    }
    total[j] += sum;
    other[j] += rest;
  }
  for (std::size_t j = 0; j < total.size(); ++j) {  // factors in place of totals
    const double wanted = size ? other[j] : total[j] * total[j] / other[j];
    total[j] = total[j] > 0 ? wanted / total[j] : 1.0;
  }
  for (ptrdiff_t i = 0; i < nrows; ++i) out[i] = weights[i] * total[codes ? codes[i] : 0];
}

WeightRange weight_range(const double* weights, ptrdiff_t nrows) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  const Eigen::Map<const Eigen::ArrayXd> all(weights, nrows);
  if (nrows > 0 && (all * 0.0).sum() == 0.0) return {nrows, all.minCoeff(), all.maxCoeff()};
  WeightRange out{0, kNone, -kNone};
  for (const double w : all) {
    if (w != w) continue;
    ++out.known;
    out.least = std::min(out.least, w);
    out.greatest = std::max(out.greatest, w);
  }
  return out;
}

WeightTotals weight_totals(const double* weights, ptrdiff_t nrows, const double* of_clusters,
                           const std::int64_t* codes, ptrdiff_t nclusters) {
  WeightTotals out;
  ptrdiff_t i = 0;
  if (weights && !of_clusters) {
    Lanes sum = Lanes::Zero(), squares = Lanes::Zero();
    for (; i + kLanes <= nrows; i += kLanes) {
      const Eigen::Map<const Lanes> w(weights + i);
      sum += w;
      squares += w * w;
    }
    out = {sum.sum(), squares.sum()};
  }
  for (; i < nrows; ++i) {
    double w = weights ? weights[i] : 1.0;
    if (of_clusters) {
      if (codes[i] < 0 || codes[i] >= nclusters) throw std::invalid_argument("cluster code out of range");
      w *= of_clusters[codes[i]];
    }
    out.sum += w;
    out.squares += w * w;
  }
  return out;
}

}  // namespace msem
