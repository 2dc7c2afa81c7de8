// tr(A^-1 B) of the saturated model at its maximum: A the information about the saturated moments, B the sum
// over clusters of outer products of their scores. It is what scaled chi-squares need of the saturated model
// (Yuan & Bentler, 2000; Asparouhov & Muthen, 2005).
//
// The trace does not depend on coordinates, so it is taken in those in which scores are simplest: the
// both-level variables given the others in the eigenbasis of their two residual covariance matrices,
// coefficients of whitened covariates, and whitened margins of within-only and between-only variables. There
// a score is a product of two numbers, the expected information falls into 2 x 2 blocks, and the observed
// information is a sum of one small Gram matrix for each eigenvector.
#pragma once

#include "likelihood/complete/twolevel.hpp"

namespace msem {

struct SaturatedTraceOptions {
  std::vector<bool> fixed;  // p + q: covariates whose moments among themselves are no parameters
  bool means = true;        // whether means are parameters
  bool expected = false;    // expected instead of observed information
};

// Clusters that are known by sums of t t' over those of each size, t such that scores are linear in it: the
// clusters given are made up, and `readings` of theirs are the coefficients of t.
struct SummedClusters {
  Matrix readings;
  std::vector<Matrix> sums;
};

// NaN when the moments are outside the domain or the information is not positive definite. Variables at both
// levels must not be fixed. `counted` says how often each cluster's score counts; empty: once.
double saturated_trace(const TwoLevelData& data, Implied saturated, const ClusterData& clusters,
                       const SaturatedTraceOptions& options, const Vector& counted,
                       const SummedClusters* summed = nullptr);

}  // namespace msem
