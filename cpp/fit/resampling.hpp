// Refits of a model to replicate samples, from the estimates of the whole sample, in threads.
#pragma once

#include "draws/draws.hpp"
#include "fit/constrained.hpp"
#include "fit/objective.hpp"
#include "fit/scoring.hpp"

namespace msem {

enum class Outcome : int {
  kConverged = 0,
  kFewClusters = 1,   // fewer different clusters, or units within them, than moments need
  kSingular = 2,      // a variable without variance, or variables collinear, in the replicate
  kNotConverged = 3,  // stopped before a maximum
  kUnbounded = 4      // a likelihood above that of the saturated model: there is no maximum near
};

struct Refit {
  Outcome outcome = Outcome::kNotConverged;
  Vector theta;          // NaN unless it converged
  double value = 0;      // -2 log L at theta, covariates included
  double saturated = 0;  // of the saturated model; NaN when that has not converged
};

// A model whose sample changes.
//
// Invariant: blocks hold the sample moments of fixed covariates in the entries `filled`; these are set to the
// saturated moments of each replicate.
class Refitter {
 public:
  Refitter(const Objective& model, Vector start, Vector lower, Vector upper,
           std::vector<std::vector<int>> filled, ScoringOptions options, Constraints constraints = {});
  Index npar() const { return start_.size(); }
  Index ngroups() const { return static_cast<Index>(groups_.size()); }
  Refit fit(const std::vector<GroupDraw>& sample) const;

 private:
  Outcome check(const GroupDraw& drawn, Index group) const;
  Outcome check_holes(const GroupDraw& drawn, Index group) const;

  const Objective& model_;
  std::vector<Group> groups_;
  // Of the whole sample, by group; of all variables in `unit_variance_` where there are holes.
  std::vector<Vector> unit_variance_, cluster_variance_;
  std::vector<Moments> whole_;  // saturated, where there are holes
  Vector start_, lower_, upper_;
  std::vector<std::vector<int>> filled_;
  ScoringOptions options_;
  Constraints constraints_;
};

// Replicates first, ..., last - 1; the result does not depend on the number of threads.
std::vector<Refit> refit(const Refitter& refitter, const Draws& draws, std::uint64_t first,
                         std::uint64_t last, int threads);

}  // namespace msem
