// Two-level data as random slopes need them. The units of a cluster that have the same outcomes observed form
// a cell (with complete data it is the cluster): of each the triangle R of the QR decomposition X = Q R of
// its covariates (1, x), and the rotated values Q'[y, f].
//
// A cell is then equivalent to the few units that are the rows of R, with the values of those rows; what is
// left of it, [y, f]'(I - Q Q')[y, f], says something about the residual covariances alone and is pooled over
// the cells of a pattern. Rows of data are not needed again.
//
// Invariants
//   * Outcomes come first, those at both levels before those within only, then fixed covariates of units.
//   * Values and cluster variables are about `origin`; R is that of the covariates as they are.
//   * Diagonals of R are positive; a column that depends on those before it within a cell adds no row.
//   * The cells of a cluster are ordered by pattern; values of outcomes that are not observed are 0.
//   Covariates and cluster variables are complete, a pattern may have no outcomes.
#pragma once

#include <vector>

#include "base/linalg.hpp"
#include "data/patterns.hpp"
#include "data/statistics.hpp"

namespace msem {

struct ReducedData {
  Index outcomes = 0, nboth = 0, fixed = 0, q = 0;
  std::vector<Index> covariate;  // of each slope: its column of R, from 1 on
  Vector origin;                 // outcomes, fixed covariates, cluster variables

  std::vector<Pattern> patterns;    // of observed outcomes
  std::vector<Index> first_cell;    // J + 1, where the cells of each cluster begin
  std::vector<Index> cell_pattern;  // cells
  std::vector<Index> cell_first;    // cells + 1, where the rows of each begin
  Vector cell_sizes;                // cells, units in each

  std::vector<Index> first;        // J + 1, where the rows of each cluster begin
  std::vector<Index> row_pattern;  // rows
  Matrix design;                   // (1 + covariates) x rows: R
  Matrix values;                   // (outcomes + fixed) x rows
  Matrix cluster_values;           // q x J
  Vector sizes, weight;            // J; weights are 1 unless clusters are resampled or have weights
  std::vector<Matrix> remainder;   // by pattern: pooled products beyond the rows, weighted

  Index nclusters() const { return sizes.size(); }
  Index nrows() const { return design.cols(); }
  Index ncells() const { return static_cast<Index>(cell_pattern.size()); }
  bool complete() const { return patterns.size() == 1 && static_cast<Index>(patterns[0].size()) == outcomes; }
  Index covariates() const { return design.rows() - 1; }
  Index nslopes() const { return static_cast<Index>(covariate.size()); }
  Index nvalues() const { return outcomes + fixed; }
  double nobs() const { return weight.dot(sizes); }
};

// `rows.unit` are the outcomes, NaN where there is none, and the fixed covariates; `slopes` the covariates
// with slopes. A row with a weight is itself times the root of that, since its log-density counts so often;
// sizes are sums of weights. `weights` of the clusters, or empty: 1. Throws std::invalid_argument when a code
// is out of range.
ReducedData reduced_data(const ClusteredRows& rows, const std::vector<Column>& slopes, Index nboth,
                         Index fixed, std::vector<Index> covariate, const Vector& weights);

// The same of complete clusters of which sizes, means and products about these are known, and the products
// beyond the rows of each. `slopes` are positions of the covariates with slopes among the variables of units;
// `weights` of the clusters, or empty: 1.
struct ReducedClusters {
  ReducedData data;
  Matrix products;
};
ReducedClusters reduced_clusters(const ClusterArrays& clusters, const std::vector<Index>& slopes, Index nboth,
                                 Index fixed, std::vector<Index> covariate, const Vector& weights);

// Products beyond the rows of every single cell, lower triangles by column: cells x elements. From the rows
// that the data were made of.
Matrix reduced_products(const ClusteredRows& rows, const std::vector<Column>& slopes,
                        const ReducedData& data);

// Other slopes of the same covariates.
ReducedData with_slopes(const ReducedData& data, std::vector<Index> covariate);

// Some of the variables: positions among the outcomes, fixed covariates (both counted together) and cluster
// variables.
ReducedData restrict_reduced(const ReducedData& data, const std::vector<Index>& outcomes, Index nboth,
                             const std::vector<Index>& fixed, const std::vector<Index>& cluster);

void require_products(const Matrix& products, const ReducedData& data);

// Each cluster as often as its weight says, and one of the clusters by itself.
ReducedData weighted(const ReducedData& data, const Matrix& products, const Vector& weights);
// The same without clusters of weight 0.
ReducedData resampled(const ReducedData& data, const Matrix& products, const Vector& weights);
ReducedData single_cluster(const ReducedData& data, const Matrix& products, Index cluster);

}  // namespace msem
