// Sampling weights of rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace msem {

// Their sum, in the same order wherever they are in memory.
double total_weight(const double* weights, std::ptrdiff_t nrows);

// What the weights of the rows of a cluster are scaled to add up to: as they are, the number of these rows,
// or (sum w)^2 / sum w^2.
enum class WeightScale { none, size, effective };

// codes of 0..nclusters-1, or null: all rows together. `counted`, or null: which rows count in their cluster.
// Throws std::invalid_argument when a code is out of range.
void scale_weights(const double* weights, std::ptrdiff_t nrows, const std::int64_t* codes,
                   std::ptrdiff_t nclusters, const bool* counted, WeightScale scale, double* out);

// Of those that are not missing.
struct WeightRange {
  std::ptrdiff_t known = 0;
  double least, greatest;  // infinite if there are none
};
WeightRange weight_range(const double* weights, std::ptrdiff_t nrows);

struct WeightTotals {
  double sum = 0, squares = 0;
};
// Of the products of two sets of weights, the second being that of the cluster of each row; null: of the
// first.
WeightTotals weight_totals(const double* weights, std::ptrdiff_t nrows, const double* of_clusters,
                           const std::int64_t* codes, std::ptrdiff_t nclusters);

}  // namespace msem
