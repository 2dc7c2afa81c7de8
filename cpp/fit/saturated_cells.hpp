// The saturated (h1) model of data with holes: by scoring after a few steps of EM, or by EM alone.
//
// With complete data the M step would set the moments to averages of products. What these averages are
// expected to be given the observed data is in the gradient G of -2 log L (Fisher's identity; Louis, 1982):
//     E sum w w' = N Sigma_w - Sigma_w G Sigma_w,   E sum w = -Sigma_w g / 2,
// and likewise for the between part of the clusters, so that a step of EM needs no more than a gradient.
#pragma once

#include "likelihood/cells/cells.hpp"
#include "likelihood/complete/saturated.hpp"

namespace msem {

// From `start`, if it is given and inside the domain, scoring goes without EM.
SaturatedFit fit_saturated(const IncompleteLikelihood& likelihood, const SaturatedOptions& options,
                           const Implied* start = nullptr);

}  // namespace msem
