// The estimates without each primary sampling unit, by one step.
#pragma once

#include "fit/objective.hpp"

namespace msem {

// The clusters of one group of an objective, how often each counts and the unit it belongs to.
struct SampledClusters {
  std::shared_ptr<const Clusters> clusters;
  Vector weights;            // J
  std::vector<Index> units;  // J, from 0 to `count` - 1
};

// With A the observed information of the sample along a basis T of the directions that are free, A_c that of
// unit c and g_c its score, the step is  -T (A - A_c)^-1 T' g_c.  Rows of NaN for units without which A is
// not positive definite. One of the groups for each of the objective; count x npar.
Matrix delete_one_steps(const Objective& objective, const Vector& theta, const Matrix& basis,
                        const std::vector<SampledClusters>& groups, Index count);

}  // namespace msem
