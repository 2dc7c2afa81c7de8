// Scores of latent variables and distances from the model for data with holes: what posterior.hpp computes
// for complete data, given what is observed.
//
// The units of a cluster enter what is above them through u = q - P V q and U = P - P V P, the fixed part of
// a unit through its own weights W_r; evidence.hpp has both. Coefficients and covariances depend on the class
// of the cluster (its cells and its observed cluster variables) and on the pattern of the unit: they are
// computed once for each.
//
// Invariants
//   * `which` counts classes of clusters for clusters, and pairs of class and pattern for units. Units
//   without
//     an observed value have the covariance matrix of the latent variables, whatever their cluster.
//   * A latent variable that the observed values of a cluster or unit do not determine has NaN as its
//   Bartlett
//     score; std::domain_error is for those that complete data would not determine either.
//   * Rows are those the statistics were made of.
#pragma once

#include "after/posterior.hpp"
#include "data/incomplete.hpp"

namespace msem {

GroupMoments group_moments(const IncompleteData& data, Implied levels);

Scores cluster_posterior(const GroupMoments& moments, const IncompleteData& data);
Scores cluster_bartlett(const GroupMoments& moments, const Measurement& measurement,
                        const IncompleteData& data);
Scores unit_posterior(const GroupMoments& moments, const ClusteredRows& rows, const IncompleteData& data);
Scores unit_bartlett(const GroupMoments& moments, const Measurement& measurement, const ClusteredRows& rows,
                     const IncompleteData& data);

// `products`: within each cell, as of `cell_products`. The generalised least squares estimate of a cluster's
// means of the unit-level variables that it has observed, given the covariates, is independent of what units
// deviate from it: `between` is the distance of that estimate and of the cluster variables, `within` that of
// the deviations. For complete data the estimate is the mean. Covariates must be within-only.
Distances cluster_distances(const GroupMoments& moments, const Covariates& covariates,
                            const IncompleteData& data, const Matrix& products);
UnitDistances unit_distances(const GroupMoments& moments, const Covariates& covariates,
                             const ClusteredRows& rows, const IncompleteData& data);

}  // namespace msem
