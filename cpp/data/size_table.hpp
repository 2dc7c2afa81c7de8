// Clusters put together by their sizes: all that the likelihood of complete data needs of them.
#pragma once

#include <Eigen/Dense>
#include <vector>

#include "data/cluster_piece.hpp"

namespace msem {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct SizeTable {
  Eigen::VectorXd sizes;        // S distinct cluster sizes, ascending
  Eigen::VectorXd counts;       // S clusters of each size
  RowMatrix means;              // S x p, less the origin
  std::vector<double> scatter;  // S x p x p, about the means
};

// Of the clusters with these codes, which are reordered.
SizeTable size_table(const RunningClusters& clusters, std::vector<std::int64_t> codes);

}  // namespace msem
