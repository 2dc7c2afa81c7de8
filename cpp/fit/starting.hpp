// Starting values from the saturated moments, level by level, in the units of the variables: crude, and
// equivariant to the scales of the variables. Loadings come from triads of correlations, regressions and
// covariances of factors from the covariances of their indicators, variances from what these leave,
// intercepts from the means given all others.
#pragma once

#include "fit/objective.hpp"

namespace msem {

enum class Relation : int { kMeasures = 0, kRegression = 1, kCovariance = 2, kIntercept = 3 };

// Variances of the observed variables of a level with those that they have at other ones.
Vector total_variance(const Implied& moments, std::size_t level, const Layout& layout);
// The first level whose values other starts change: the second, or that of a single level.
std::size_t lowest_changed(const Objective& model, std::size_t group);

// One row of the parameter table; variables are counted as in the block, the observed ones first.
struct StartRow {
  Relation relation;
  int lhs, rhs;   // rhs is ignored for intercepts
  int parameter;  // position in theta, or -1
  double value;   // when it is fixed
  double start;   // the user's, NaN without
};

// Where a model starts, and where else when that does not lead to a maximum.
//
// In small samples the between part of the likelihood has several maxima, and directions in which it rises
// for ever: a loading and a residual variance that grow together, or a marker whose loading vanishes. From a
// start in such a valley the optimiser follows it; from another one it finds a maximum, mostly a higher one
// than the valley leads to.
class StartPlan {
 public:
  // Rows of every block.
  StartPlan(int npar, const std::vector<Block>& blocks, std::vector<std::vector<StartRow>> rows, Vector lower,
            Vector upper);
  // The same from values that are known of some parameters; NaN for the others.
  StartPlan from(const Vector& known) const;
  // All that follows is for a sample whose saturated moments are given by group.
  Vector values(const Objective& model, const std::vector<Implied>& saturated) const;
  // Little variance above level 1, equal positive standardized loadings, no covariances or paths there.
  Vector cautious(const Objective& model, const std::vector<Implied>& saturated, const Vector& first) const;
  // Paths and covariances multiplied by `share`, variances kept.
  Vector shrunk(const Objective& model, const std::vector<Implied>& saturated, const Vector& first,
                double share) const;
  // The loadings of levels above the first multiplied by factors in turn.
  Vector rescaled(const Objective& model, const std::vector<Implied>& saturated, const Vector& first,
                  const std::vector<double>& factors) const;
  // Lower bounds that keep variances from being negative.
  const Vector& nonnegative() const { return nonnegative_; }

 private:
  // Takes a level of a group as having little variance.
  void be_cautious(const Objective& model, const std::vector<Implied>& saturated, std::size_t group,
                   std::size_t level, const std::vector<bool>& free, Vector& theta) const;
  void settle_intercepts(const Objective& model, const std::vector<Implied>& saturated, Vector& theta) const;
  void clip(Vector& theta) const { theta = theta.cwiseMax(lower_).cwiseMin(upper_); }
  std::vector<bool> changeable(const Objective& model) const;
  bool all_given(std::size_t block) const;

  std::vector<std::vector<StartRow>> rows_;
  Vector lower_, upper_, nonnegative_;
  Vector given_;              // starts of the user, NaN without
  std::vector<int> settled_;  // intercepts that are set to reproduce the means
};

}  // namespace msem
