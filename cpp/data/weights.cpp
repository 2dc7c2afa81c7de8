#include "data/weights.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace msem {

using std::ptrdiff_t;

void scale_weights(const double* weights, ptrdiff_t nrows, const std::int64_t* codes, ptrdiff_t nclusters,
                   const bool* counted, WeightScale scale, double* out) {
  if (scale == WeightScale::none) {
    std::copy_n(weights, nrows, out);
    return;
  }
  std::vector<double> total(codes ? nclusters : 1), other(total.size());
  const bool size = scale == WeightScale::size;
  for (ptrdiff_t i = 0; i < nrows; ++i) {
    const std::int64_t j = codes ? codes[i] : 0;
    if (j < 0 || j >= static_cast<ptrdiff_t>(total.size()))
      throw std::invalid_argument("cluster code out of range");
    if (counted && !counted[i]) continue;
    total[j] += weights[i];
    other[j] += size ? 1.0 : weights[i] * weights[i];
  }
  for (std::size_t j = 0; j < total.size(); ++j) {  // factors in place of totals
    const double wanted = size ? other[j] : total[j] * total[j] / other[j];
    total[j] = total[j] > 0 ? wanted / total[j] : 1.0;
  }
  for (ptrdiff_t i = 0; i < nrows; ++i) out[i] = weights[i] * total[codes ? codes[i] : 0];
}

WeightTotals weight_totals(const double* weights, ptrdiff_t nrows, const double* of_clusters,
                           const std::int64_t* codes, ptrdiff_t nclusters) {
  WeightTotals out;
  for (ptrdiff_t i = 0; i < nrows; ++i) {
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
