// Starting values from the saturated moments, level by level, in the units of the variables: what
// estimation/starting.py computes, for fits by the thousand, and regressions and covariances of factors from
// the covariances of their indicators, which saves iterations.
#pragma once

#include "fit/objective.hpp"

namespace msem {

enum class Relation : int { kMeasures = 0, kRegression = 1, kCovariance = 2, kIntercept = 3 };

// One row of the parameter table; variables are counted as in the block, the observed ones first.
struct StartRow {
  Relation relation;
  int lhs, rhs;   // rhs is ignored for intercepts
  int parameter;  // position in theta, or -1
  double value;   // when it is fixed
  double start;   // the user's, NaN without
};

class StartPlan {
 public:
  // Rows of every block of the objective.
  StartPlan(const Objective& model, std::vector<std::vector<StartRow>> rows, Vector lower, Vector upper);
  // For a sample whose saturated moments are given by group.
  Vector values(const Objective& model, const std::vector<Moments>& saturated) const;

 private:
  void settle_intercepts(const Objective& model, const std::vector<Moments>& saturated, Vector& theta) const;
  void clip(Vector& theta) const { theta = theta.cwiseMax(lower_).cwiseMin(upper_); }

  std::vector<std::vector<StartRow>> rows_;
  Vector lower_, upper_;
  Vector given_;              // starts of the user, NaN without
  std::vector<int> settled_;  // intercepts that are set to reproduce the means
};

}  // namespace msem
