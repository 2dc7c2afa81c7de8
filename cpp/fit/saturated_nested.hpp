// The saturated (h1) model of nested levels, and of crossed classifications: a covariance matrix for each
// level and a mean for each variable.
#pragma once

#include "likelihood/complete/saturated.hpp"
#include "likelihood/crossed/crossed.hpp"
#include "likelihood/nested/nested.hpp"

namespace msem {

// By scoring from moments of the analysis of variance. Covariance matrices of higher levels may be indefinite
// at the maximum, except in the cone.
SaturatedFit fit_saturated(const std::shared_ptr<const NestedLikelihood>& likelihood,
                           const SaturatedOptions& options);
SaturatedFit fit_saturated(const std::shared_ptr<const CrossedLikelihood>& likelihood,
                           const SaturatedOptions& options);

}  // namespace msem
