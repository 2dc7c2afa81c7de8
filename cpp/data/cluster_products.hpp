// Products of the statistics of single clusters, summed over the clusters of each size.
//
// The score of a cluster of size n is linear in t = (1, v, vech(v v'), vech(S)), v its vector of means and S
// its products within, whatever the model. So the sum of outer products of scores is L' (sum t t') L, with
// sums that are formed once for all models and parameters.
#pragma once

#include "base/linalg.hpp"
#include "data/statistics.hpp"

namespace msem {

struct ClusterProducts {
  Vector sizes;              // S distinct sizes, ascending
  std::vector<Matrix> sums;  // S matrices t t', summed
};

// v and S are taken about `origin` and in units of `scale`, both of length p + q. Each score counts as
// often as the weight of its cluster says, one for each; empty: once.
ClusterProducts cluster_products(ConstVectorRef sizes, ConstMatrixRef means, ConstMatrixRef within,
                                 const Vector& origin, const Vector& scale, const Vector& weights);

// The same from rows that come cluster by cluster, in the order of their codes, without weights; otherwise
// without sizes. Nothing is kept of the single clusters.
ClusterProducts products_of_rows(const ClusteredRows& rows, const Vector& origin, const Vector& scale);

// The same of rows of a single level as clusters of size one, each score as often as its row's weight says;
// weights may be null. `even`: without products of an odd number of values, see `FourthMoments`.
Matrix row_products(const std::vector<Column>& columns, Index nrows, const Vector& origin,
                    const Vector& scale, const double* weights, bool even = false);

}  // namespace msem
