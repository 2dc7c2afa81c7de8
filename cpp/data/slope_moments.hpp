// Moments of data with random slopes, and least-squares coefficients of single clusters: what starting values
// and saturated models of slopes begin at.
#pragma once

#include "base/linalg.hpp"
#include "data/reduced.hpp"

namespace msem {

// Moments over units of the values, of pairs where both are observed, and over clusters; divisors N and J.
struct ReducedMoments {
  Vector count, mean;  // values: numbers of units, weighted, and means
  Matrix cov;
  Vector cluster_mean;
  Matrix cluster_cov;
};
ReducedMoments reduced_moments(const ReducedData& data);

// Least-squares coefficients of single clusters, from which starting values are taken: over the clusters in
// which all coefficients are known.
struct ClusterCoefficients {
  double clusters = 0;  // in which they are known
  Vector mean;          // of the coefficients: (1 + covariates) for each value, then the cluster variables
  Matrix cov;           // their covariance matrix between clusters, sampling error taken off
  Matrix residual;      // pooled covariance matrix of the values about the regressions of the clusters
  Matrix within;        // and about their means
};
ClusterCoefficients cluster_coefficients(const ReducedData& data);

}  // namespace msem
