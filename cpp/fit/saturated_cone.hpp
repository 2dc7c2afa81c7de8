// The maximum of a saturated model among positive semidefinite covariance matrices of all levels.
//
// Of S = R R' the root is searched, which has no border: every matrix of lower rank is inside. With
// S = F diag(d) F', F orthonormal in units of the total covariance matrix, a step is
//     S -> F (D + E)(D + E)' F',   D = diag(d)^1/2,   E_ij = w_ij (d_j / (d_i + d_j))^1/2,   w symmetric,
// the steps that no rotation of the root undoes: one for each element of S, of which it moves element ij by
// w_ij (d_i + d_j)^1/2. Newton steps in w have the curvature G E E' beside that of the likelihood, G its
// derivatives with respect to S, so that an eigenvalue of zero is a minimum where G is positive in its
// direction and rises where it is not. They end in a trust region (More & Sorensen, 1983): every one goes up,
// and none depends on the units or the order of variables, or on other ones that span the same space.
#pragma once

#include "likelihood/complete/saturated.hpp"

namespace msem {

struct ConeSearchOptions {
  int max_iterations = 200;
  double tolerance = 1e-12;  // on the gain in -2 log L that is foreseen
};

// Eigenvalues of the matrices at the start, in that metric, are raised to be safely positive.
SaturatedFit saturated_in_cone(const Likelihood& likelihood, Implied start, const ConeSearchOptions& options);

}  // namespace msem
