// Clusters put together by their sizes, each counted so many times.
#pragma once

#include "base/linalg.hpp"

namespace msem {

struct CountedClusters {
  Vector sizes, counts;  // S, sizes ascending
  Matrix means;          // S x m
  Matrix scatter;        // m^2 x S, about the means
  Matrix ssw;            // p x p
};

// sizes: J; means: J x m; within: J x p(p+1)/2, lower triangles by column. Clusters of weight 0 count for
// nothing.
CountedClusters counted_clusters(ConstVectorRef sizes, ConstMatrixRef means, ConstMatrixRef within, Index p,
                                 const Vector& weights);

}  // namespace msem
