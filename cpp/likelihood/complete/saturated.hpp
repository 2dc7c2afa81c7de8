// The saturated (h1) model: unrestricted within and between covariance matrices and means.
//
// Because nothing is restricted, the joint density factors into the moments of the within-only and
// between-only variables, which have closed forms, and a multivariate random-intercept regression of the
// both-level variables on them. Given (Sigma_e, Sigma_u) of that regression its information is block diagonal
// in their eigenbasis: one (1 + k + q) block per coefficient row and one 2 x 2 block per element, so a
// scoring step costs no more than EM. In the cone, eigenvalues of Sigma_u in the metric of Sigma_e that a
// step makes negative become zero, and elements among their eigenvectors stay so while the likelihood falls
// in them.
#pragma once

#include "likelihood/complete/twolevel.hpp"

namespace msem {

enum class SaturatedMethod : int { kScoring = 0, kEm = 1 };

struct SaturatedOptions {
  SaturatedMethod method = SaturatedMethod::kScoring;
  int max_iterations = 0;    // 0: 200 for scoring, 200000 for EM
  double tolerance = 1e-12;  // on the decrement g' I^-1 g
  double foreseen = 0.1;     // times the tolerance: on that after the last step, where scoring converges fast
  bool cone = false;         // between covariance matrices that are positive semidefinite only
};

struct SaturatedFit {
  Implied levels;     // moments of those that have variables
  double loglik = 0;  // joint, of all variables
  bool converged = false;
  int iterations = 0;
  int em_steps = 0;  // of which EM, where a scoring step left the domain
  double decrement = 0;
};

SaturatedFit fit_saturated(const TwoLevelData& data, const SaturatedOptions& options);

}  // namespace msem
