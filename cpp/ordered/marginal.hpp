// Thresholds or mean, slopes and variances of a single variable of units in clusters, or of clusters.
#pragma once

#include "ordered/cluster_scores.hpp"
#include "ordered/cluster_variables.hpp"

namespace msem {

struct Marginal {
  bool found;     // false: there is no maximum, or none with a variance of the effect
  Matrix scores;  // of clusters
  Matrix bread;   // what stands for the information
};

// Puts the estimates, the shift and the effects of clusters into the variable.
Marginal estimate_marginal(const ClusterVariables& rows, ClusterVariable& v, const Vector& start);

}  // namespace msem
