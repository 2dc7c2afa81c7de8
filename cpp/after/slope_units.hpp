// Latent variables of level 1 given all data of their clusters, with random slopes.
//
// Given the between parts and the slopes u of its cluster a unit is normal: with f its fixed covariates and
// x_k the covariate of slope k,
//     (y, eta) = (mean given f) + ([E, 0] + sum_k x_k lambda_k e_k') u + noise,
// so that E[eta | y, u] is linear in u. What is known of u is its posterior mean and covariance matrix V of
// the cluster: with D the coefficients of u, Var(eta) = Var(eta | y, u) + D V D'.
#pragma once

#include "after/posterior.hpp"
#include "data/statistics.hpp"
#include "likelihood/two_levels.hpp"

namespace msem {

struct UnitScores {
  RowMatrix mean;  // units x d
  Matrix cov;      // d^2 x units
};

// The moments are those of the observed variables, products and latent variables of level 1. `rows.unit` are
// outcomes, NaN where there is none, of which the first `both` have between parts, and the `fixed`
// covariates; `covariates` the one of each slope. `effects` are posterior means of the between parts and
// slopes by cluster (r x J), sums over what a unit is in where it is in several; `variances` covariance
// matrices (r^2 x S), `which` that of each cluster. Throws std::domain_error where the moments are no
// distribution.
UnitScores slope_unit_scores(Index both, Index fixed, const Vector& mean, const Matrix& cov,
                             const ClusteredRows& rows, const std::vector<Column>& covariates,
                             const Matrix& effects, const Matrix& variances, const std::vector<Index>& which);

// Squared distance of the outcomes of each unit from what all else predicts, its own variables `given`
// included, and how many they are: with s and B those of V^-1 r and V^-1, V the covariance matrix of all data
// of its cluster, s'B^-1 s. Arguments as above.
UnitDistances slope_unit_distances(Index both, Index fixed, const std::vector<Index>& given,
                                   const Vector& mean, const Matrix& cov, const ClusteredRows& rows,
                                   const std::vector<Column>& covariates, const Matrix& effects,
                                   const Matrix& variances, const std::vector<Index>& which);

}  // namespace msem
