// The model of one sample: its likelihood, and its moments of fixed covariates in the model.
#pragma once

#include "data/statistics.hpp"
#include "fit/objective.hpp"

namespace msem {

std::shared_ptr<const TwoLevelLoss> loss_of(const TwoLevelStatistics& statistics, Index nboth);

// An objective with other losses, and the saturated moments of each group in the entries `filled` of its
// blocks.
Objective filled_objective(const Objective& model, const std::vector<std::vector<int>>& filled,
                           const std::vector<std::shared_ptr<const Loss>>& losses,
                           const std::vector<Moments>& saturated);

}  // namespace msem
