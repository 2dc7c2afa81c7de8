// The first stage of ordered and continuous variables of units in clusters: thresholds or means, slopes,
// variances of single variables, then the within and between covariance of pairs, by adaptive quadrature over
// the clusters' effects where there is no closed form (Muthen, 1984, 2007; Naylor & Smith, 1982).
//
// A variable of units is the sum of a cluster's effect, if it has a part at that level, and a unit's; what
// covariates leave of the unit's part of an ordered one has variance 1. So has what they leave of an ordered
// variable of clusters.
#pragma once

#include "ordered/first_stage.hpp"

namespace msem {

struct OrderedClusterRows {
  Matrix values;                // N x p: categories from 0, or values; NaN where missing
  Matrix covariates;            // N x q
  std::vector<int> cluster;     // of each row, from 0
  Matrix cluster_values;        // J x r: variables of clusters
  Matrix cluster_covariates;    // J x s: of variables that have a part at the level of clusters
  std::vector<int> categories;  // of the p + r variables; 0 if continuous
  std::vector<int> both;        // whether each of the p has a part at the level of clusters
  Vector weight;                // how often each row counts in its cluster; empty: once
  Vector cluster_weight;        // and each cluster
};

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
