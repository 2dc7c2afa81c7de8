// Moments of what is measured on each level of nested and crossed data: what start values of random slopes,
// checks and comparisons of samples take.
#pragma once

#include "base/linalg.hpp"
#include "data/crossed.hpp"
#include "data/nested.hpp"

namespace msem {

// Of the variables measured on one level, over its units: units, or clusters, as often as they count. `pairs`
// has how many have both of two variables, and `cov` the covariances over these, about the means of all that
// have one; 0 where there are none.
struct MeasuredMoments {
  Vector mean;
  Matrix pairs, cov;
};
MeasuredMoments measured_moments(const NestedData& data, Index level);
MeasuredMoments measured_moments(const CrossedData& data, Index level);

// Products about the means of cells, summed over the cells as often as they count: p x p.
Matrix products_within_cells(const NestedData& data);

// The same about the means of the lowest clusters.
Matrix products_within_clusters(const NestedData& data);

// How many clusters of a level, from 1, have a value of both of two variables, in them or anywhere below: of
// the variables measured up to that level.
Matrix clusters_with_pairs(const NestedData& data, Index level);

}  // namespace msem
