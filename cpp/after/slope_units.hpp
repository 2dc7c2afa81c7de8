// Latent variables of level 1 given all data of their clusters, with random slopes.
//
// Given the between parts and the slopes u of its cluster a unit is normal: with f its fixed covariates and
// x_k the covariate of slope k,
//     (y, eta) = (mean given f) + ([E, 0] + sum_k x_k lambda_k e_k') u + noise,
// so that E[eta | y, u] is linear in u. What is known of u is its posterior mean and covariance matrix V of
// the cluster: with D the coefficients of u, Var(eta) = Var(eta | y, u) + D V D'.
#pragma once

#include "data/reduced.hpp"
#include "likelihood/two_levels.hpp"

namespace msem {

struct UnitScores {
  RowMatrix mean;  // units x d
  Matrix cov;      // d^2 x units
};

// `moments` have the observed variables, products and latent variables of level 1. `rows.unit` are outcomes,
// NaN where there is none, and fixed covariates; `slopes` the covariates with slopes. `effects` are posterior
// means of the between parts and slopes (r x J), `variances` covariance matrices (r^2 x S), `which` that of
// each cluster. Throws std::domain_error where the moments are no distribution.
UnitScores slope_unit_scores(const ReducedData& data, const Vector& mean, const Matrix& cov,
                             const ClusteredRows& rows, const std::vector<Column>& slopes,
                             const Matrix& effects, const Matrix& variances, const std::vector<Index>& which);

}  // namespace msem
