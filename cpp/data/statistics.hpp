// Sufficient statistics of complete two-level and single-level data.
//
// Everything is computed about an origin near the data and then centred, so that a large mean costs no
// digits; sums of squares are never differences of large numbers.
#pragma once

#include <Eigen/Dense>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "data/size_table.hpp"

namespace msem {

// One variable: a view of memory owned by the caller, `stride` counted in doubles.
struct Column {
  const double* data;
  std::ptrdiff_t stride;
  double operator[](std::ptrdiff_t row) const { return data[row * stride]; }
};

// Rows and the cluster of each: codes[i] in 0..nclusters-1, every code used at least once.
struct ClusteredRows {
  std::vector<Column> unit;     // p variables measured on units
  std::vector<Column> cluster;  // q variables measured on clusters
  const std::int64_t* codes;
  std::ptrdiff_t nrows;
  std::ptrdiff_t nclusters;
  const double* weights = nullptr;  // of the rows, positive: a row of weight 2 counts as two; none: 1
};

// Clusters in which a variable that should be constant within clusters is not.
struct Varying {
  std::ptrdiff_t count = 0;
  std::vector<std::int64_t> codes;  // the first few of them
};

struct ClusterArrays {
  Eigen::VectorXd sizes;   // J, sums of weights where rows have any
  Eigen::MatrixXd means;   // J x (p + q)
  Eigen::MatrixXd within;  // J x p(p+1)/2, lower triangle by columns
};

struct TwoLevelStatistics {
  Eigen::VectorXd sizes;         // S distinct cluster sizes, ascending
  Eigen::VectorXd counts;        // S clusters of each size
  RowMatrix means;               // S x (p + q)
  std::vector<double> scatter;   // S x (p + q) x (p + q), about the means
  Eigen::MatrixXd ssw;           // p x p, pooled within clusters
  std::vector<bool> constant;    // p: the same value throughout every cluster
  std::vector<Varying> varying;  // q
};

// Maximum likelihood covariance matrices of the variables measured on units over units, and of those measured
// on clusters over clusters.
struct TotalCov {
  Eigen::MatrixXd units, clusters;
};

// Of some variables, `unit` positions among the p and `cluster` among the q. means: S x (p + q); scatter:
// S matrices of (p + q) x (p + q), one after the other.
TotalCov total_cov(const Eigen::VectorXd& sizes, const Eigen::VectorXd& counts, const Eigen::MatrixXd& means,
                   const double* scatter, const Eigen::MatrixXd& ssw, const std::vector<Eigen::Index>& unit,
                   const std::vector<Eigen::Index>& cluster);

struct SimpleStatistics {
  Eigen::VectorXd mean;     // m
  Eigen::MatrixXd scatter;  // m x m, about the mean
};

// Throw std::invalid_argument when a code is out of range, a code of 0..J-1 does not occur, or a value is not
// finite.
TwoLevelStatistics two_level_statistics(const ClusteredRows& rows);
ClusterArrays cluster_arrays(const ClusteredRows& rows);
SimpleStatistics simple_statistics(const std::vector<Column>& columns, std::ptrdiff_t nrows,
                                   const double* weights = nullptr);

}  // namespace msem
