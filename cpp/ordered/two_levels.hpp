// The first stage of ordered and continuous variables of units in clusters: thresholds or means, slopes,
// variances of single variables, then the within and between covariance of pairs, by adaptive quadrature over
// the clusters' effects where there is no closed form (Muthen, 1984, 2007; Naylor & Smith, 1982).
#pragma once

#include "ordered/cluster_variables.hpp"
#include "ordered/first_stage.hpp"

namespace msem {

// Parameters: of each variable its thresholds (or its mean); slopes on the covariates of units, if it is one
// of units, and on those of clusters, if it has a part there; the residual variance, if it is continuous; the
// between variance, if it is one of units with such a part. Then of each pair (2, 1), (3, 1), ..., (3, 2),
// ... the within covariance, if both are of units, and the between covariance, if both have a part there:
// correlations where both residual variances are 1.
// `unsettled`: variables whose likelihood has no maximum, or one without a between variance. `unknown`: pairs
// that no unit or cluster says anything about. Pairs are counted as they come, without parameters or with.
//
// With weights the log-likelihood of a cluster is the log of the integral of the product of f(y_i | b)^w_i,
// times the weight of the cluster (Pfeffermann et al., 1998; Rabe-Hesketh & Skrondal, 2006). Where units have
// weights, products of scores no longer stand for the information: the bread is made of differences of the
// scores.
FirstStage two_level_first_stage(const OrderedClusterRows& rows, const std::vector<Vector>& starts);

}  // namespace msem
