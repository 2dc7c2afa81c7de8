// Sufficient statistics of two-level data with holes.
//
// Units of a cluster that have the same variables observed form a cell. The likelihood needs of the rows only
// the number of units and the means of each cell, and, for each pattern of observed variables, the products
// about the cell means summed over all clusters. Nothing is stored for single units.
//
// Invariants
//   * Unit-level variables come first, those at both levels before those within only. A single-level sample
//     has p = 0 and a cluster for every row.
//   * A unit without any observed variable is in no cell; a cluster may have no cell.
//   * Means and cluster variables are about `origin`, and zero where nothing is observed.
//   * The clusters keep the order of their codes, the cells of a cluster are ordered by pattern.
//   * Patterns are sorted: by the number of observed variables, most first, then by their positions.
#pragma once

#include <vector>

#include "base/linalg.hpp"
#include "data/patterns.hpp"
#include "data/statistics.hpp"

namespace msem {

struct IncompleteData {
  Index p = 0, nboth = 0, q = 0;
  Vector origin;  // p + q

  std::vector<Pattern> unit_patterns;  // R
  Vector pattern_rows;                 // R, units with each pattern, weighted
  std::vector<Matrix> scatter;         // R, observed x observed: products about the cell means, weighted

  std::vector<Index> first_cell;    // J + 1, where the cells of each cluster begin
  std::vector<Index> cell_pattern;  // cells
  Vector cell_rows;                 // cells, units in each, counted by their weights
  Matrix cell_means;                // p x cells

  std::vector<Pattern> cluster_patterns;  // T, of the cluster variables
  std::vector<Index> cluster_pattern;     // J
  Matrix cluster_values;                  // q x J
  Vector weight;                          // J, how often each cluster counts

  Index nclusters() const { return static_cast<Index>(cluster_pattern.size()); }
  Index ncells() const { return static_cast<Index>(cell_pattern.size()); }
  double nobs() const { return pattern_rows.sum(); }
};

// Pattern of every row among the distinct ones, -1 where nothing is observed.
struct RowPatterns {
  std::vector<Pattern> patterns;
  std::vector<std::int32_t> of_row;
};
RowPatterns row_patterns(const std::vector<Column>& columns, std::ptrdiff_t nrows);

// Cluster variables where some units of a cluster have a hole: the value that the others have.
struct ClusterValues {
  RowMatrix values;              // J x q, NaN where no unit has one
  std::vector<Varying> varying;  // q, clusters in which observed values differ
};

// NaN is a hole in a column. Cluster variables are taken from any unit that has them. Throw
// std::invalid_argument when a code is out of range. Clusters count as often as their weights say, if there
// are any.
IncompleteData incomplete_data(const ClusteredRows& rows, Index nboth,
                               const Vector* cluster_weights = nullptr);
ClusterValues cluster_values(const ClusteredRows& rows);

// How many units have two of the p unit-level variables observed, and how many clusters two of the p + q
// variables, each in some unit or as a cluster variable; weighted.
struct Coverage {
  Matrix units, clusters;
};
Coverage coverage(const IncompleteData& data);

// Number of observed values, their mean and variance, of all p + q variables.
struct ObservedMoments {
  Vector count, mean, variance;
};
ObservedMoments observed_moments(const IncompleteData& data);

// How the observed values of the p unit-level variables vary within and between clusters; weighted.
struct LevelVariation {
  Vector clusters;  // in which the variable is observed
  Vector within;    // sum of squares about the means of the clusters
  Vector between;   // sum of squares of those means about their mean
};
LevelVariation level_variation(const IncompleteData& data);

// Throws std::invalid_argument unless all variables are observed wherever any is.
TotalCov total_cov(const IncompleteData& data);

// The same for some of the variables in another order: `unit` positions among the p, `cluster` among the q.
// Cells whose patterns become the same are merged, products included, so that no rows are needed.
IncompleteData restrict_variables(const IncompleteData& data, const std::vector<Index>& unit,
                                  const std::vector<Index>& cluster, Index nboth);

// Products about the cell means of every single cell, of which `scatter` holds the sums: p(p+1)/2 x cells,
// lower triangles by column, zero where a variable is not observed. From the rows the data were made of.
Matrix cell_products(const ClusteredRows& rows, const IncompleteData& data);

void require_products(const Matrix& products, const IncompleteData& data);

// Each cluster as often as its weight says, with the products within the cells of the same data. Clusters of
// weight zero stay and count for nothing.
IncompleteData weighted(const IncompleteData& data, const Matrix& products, const Vector& weights);

// One of the clusters by itself, with the products within its cells.
IncompleteData single_cluster(const IncompleteData& data, const Matrix& products, Index cluster);

}  // namespace msem
