// Two-level data as slopes of covariates need them whose within parts are not observed: of each cell, the
// units of a cluster that have the same variables observed (with complete data the cluster), the number of
// units, their means and the products about these.
//
// Invariants
//   * Unit variables come first, those at both levels before those within only, fixed covariates last.
//   * Means are zero where nothing is observed; products are those of the observed variables of a cell, as a
//   matrix of their own.
//   * A cluster may have no cell. Cluster variables are complete.
#pragma once

#include <vector>

#include "data/incomplete.hpp"
#include "data/patterns.hpp"
#include "data/reduced.hpp"
#include "data/slope_moments.hpp"

namespace msem {

struct SlopeClusterData {
  Index p = 0, nboth = 0, q = 0;
  Index fixed = 0;               // of the unit variables, from the last
  Index latent = 0;              // covariates of slopes that are not observed
  std::vector<Index> covariate;  // of each slope, among the unit variables and the latent ones after them
  Index nodes = 15;              // in each dimension

  std::vector<Pattern> patterns;
  std::vector<Index> first_cell;    // J + 1
  std::vector<Index> cell_pattern;  // cells
  Vector cell_sizes;                // cells, units in each, counted by their weights
  Matrix means;                     // p x cells
  Matrix within;                    // p^2 x cells
  Matrix cluster_values;            // q x J
  Vector weight;                    // J

  Index nclusters() const { return weight.size(); }
  Index ncells() const { return static_cast<Index>(cell_pattern.size()); }
  Index nslopes() const { return static_cast<Index>(covariate.size()); }
  const Pattern& pattern(Index cell) const { return patterns[cell_pattern[cell]]; }
};

// The cells of complete clusters, and of data with holes with the products within their cells. The rest of
// `out` is left as it is. Throw std::invalid_argument where they do not fit together.
void set_cells(SlopeClusterData& out, const Vector& sizes, const Matrix& means, const Matrix& within);
void set_cells(SlopeClusterData& out, const IncompleteData& data, const Matrix& products);

void require_products(const Matrix& products, const SlopeClusterData& data);
SlopeClusterData weighted(const SlopeClusterData& data, const Matrix& products, const Vector& weights);
SlopeClusterData single_cluster(const SlopeClusterData& data, const Matrix& products, Index cluster);
// Each cluster as often as its weight says, without those of weight 0.
SlopeClusterData resampled(const SlopeClusterData& data, const Vector& weights);

Vector cluster_sizes(const SlopeClusterData& data);
ReducedMoments moments(const SlopeClusterData& data);

// Crude moments, from which starting values are taken: pooled covariance matrix within clusters, that of
// the means of clusters and the cluster variables, and the harmonic mean of the numbers of units; of pairs
// that are observed.
struct CrudeLevels {
  Matrix within, means;
  double size = 0;
};
CrudeLevels crude_levels(const SlopeClusterData& data);

}  // namespace msem
