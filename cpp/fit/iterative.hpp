// Fisher scoring, and Newton steps where that is slow, for models one level of which is saturated: p (p + 1)
// / 2 parameters and more.
//
// No information matrix is formed. Every step solves I x = g by conjugate gradients; a product I x costs as
// much as a gradient. The preconditioner has the information of the level that is not saturated as it is at
// the start, and for the saturated level that of a single covariance matrix of effective sample size n, whose
// inverse is G -> 2/n A G A.
#pragma once

#include "fit/scoring.hpp"

namespace msem {

// `saturated` says which blocks are: their parameters are the elements of a covariance matrix, and means.
// Stops with kNoProgress where conjugate gradients or the line search fail; the caller then takes `minimize`.
Optimum minimize_iteratively(const Objective& objective, const Vector& start, const Vector& lower,
                             const Vector& upper, const std::vector<bool>& saturated,
                             const ScoringOptions& options);

}  // namespace msem
