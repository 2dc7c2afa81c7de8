// What happens to the estimates when one cluster is left out, by few steps from all of them.
#pragma once

#include "fit/objective.hpp"
#include "likelihood/least_squares.hpp"

namespace msem {

// The likelihood of a single cluster, with the blocks of its group.
Objective of_cluster(const Objective& whole, int group, const Clusters& clusters, Index cluster);

// Where theta may move: along a basis T (npar x m), with these intercepts free to follow (see
// Objective::settle).
struct Directions {
  Matrix basis;
  std::vector<int> intercepts;
};

struct LeaveOneOutSteps {
  Matrix change;  // clusters x npar: estimate without the cluster less estimate with it; NaN without a step
  Vector displacement;  // 2 (l(theta) - l(theta + change)), l that of all clusters; NaN likewise
};

// With I the observed information of the sample, I_j the expected information and g_j the score of cluster j,
// the first step is
//   -T (T'(I - I_j) T)^-1 T' g_j.
// The expected information of the cluster makes the step exact for means and covariance matrices themselves;
// the observed one, which is large for a cluster that is far out, would overshoot. Up to `corrections` steps
// with the same matrix along the gradient of the other clusters follow; each is halved until their likelihood
// grows. The clusters are those of one group of the objective, some of which are `chosen`.
LeaveOneOutSteps leave_one_out_steps(const Objective& objective, const Vector& theta, const Directions& free,
                                     const Clusters& clusters, const std::vector<Index>& chosen, int group,
                                     int corrections, int threads);

// What least squares has for statistics and weights without each unit of a group.
struct StatisticsWithout {
  Matrix values;  // units x statistics
  Matrix shares;  // likewise: the outer product of a row is the unit's part of the covariance matrix that the
                  // weights are the inverse of; no rows where weights have another origin
  Vector factor;  // of the weights
};

// The saturated model of a group, whose information about some moments (`used`) is the weight matrix.
struct SaturatedWeights {
  const Objective& model;
  const Clusters& clusters;
  const std::vector<Index>& used;
  const Matrix& moments;             // without each unit, all of them
  const std::vector<Index>& chosen;  // these units
  bool observed;                     // kind of information
};

// The minimum for the statistics without each unit: steps from the whole sample's with the matrix of its
// observed information. `loss` is the likelihood of the group in the objective. displacement: what the
// squares of the whole sample grow by. `weights`: null where W has another origin.
LeaveOneOutSteps leave_one_out_statistics(const Objective& objective, const Vector& theta,
                                          const Directions& free, const LeastSquares& loss,
                                          const StatisticsWithout& without, const SaturatedWeights* weights,
                                          int group, int corrections, int threads);

}  // namespace msem
