// The first stage of ordered variables of units in clusters: thresholds and between variances of single
// variables, then the within correlation and the between covariance of pairs, by adaptive quadrature over the
// clusters' effects (Naylor & Smith, 1982; Muthen, 2007).
//
// An ordered variable is the sum of a cluster's effect and a unit's, which has variance 1, cut at thresholds.
#pragma once

#include "ordered/first_stage.hpp"

namespace msem {

// Parameters: of each variable its thresholds and its between variance; then of each pair (2, 1), (3, 1),
// ..., (3, 2), ... the within correlation and the between covariance. `unsettled` are variables without a
// between variance. rows.cluster numbers the clusters; there are no continuous variables, covariates or
// missing values.
FirstStage two_level_first_stage(const OrderedRows& rows, const std::vector<Vector>& starts);

}  // namespace msem
