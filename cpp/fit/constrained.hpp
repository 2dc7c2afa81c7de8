// Maximum likelihood under nonlinear equalities, inequalities and bounds: sequential quadratic programming.
//
// Each step solves a quadratic programme in the metric of the expected information. Near the solution it is
// followed by a Newton step on the constraints it found active, with the second derivatives of the Lagrangian
// (Byrd, Gould, Nocedal & Waltz, 2004, Mathematical Programming 100, 27-48). Progress is measured by an exact
// penalty whose prices follow the multipliers (Powell, 1978), with second-order corrections. Steps and the
// stopping rule, the squared length of the step in standard errors, do not change when parameters or
// constraints are rescaled.
#pragma once

#include "fit/scoring.hpp"
#include "model/expression.hpp"

namespace msem {

struct Constraints {
  Expressions equalities;    // = 0
  Expressions inequalities;  // >= 0
  std::vector<int> linear;   // which equalities are

  bool none() const { return equalities.size() == 0 && inequalities.size() == 0; }
};

struct ConstrainedOptimum : Optimum {
  // Of -log L - sum multiplier * constraint: how much the log-likelihood would rise per unit of relaxation.
  Vector equality_multipliers, inequality_multipliers;
  Vector bound_multipliers;  // positive at a lower bound, negative at an upper bound
  double violation = 0;      // largest distance from a constraint, in units of 1 / sqrt(information)
};

ConstrainedOptimum minimize_constrained(const Objective& objective, const Constraints& constraints,
                                        const Vector& start, const Vector& lower, const Vector& upper,
                                        const ScoringOptions& options);

// The nearest theta, in relative terms, where the linear equalities hold.
Vector project(const Constraints& constraints, const Vector& theta);

// By scoring where there are no constraints, or linear equalities only; starts where the linear equalities
// hold.
Optimum minimize(const Objective& objective, const Constraints& constraints, const Vector& start,
                 const Vector& lower, const Vector& upper, const ScoringOptions& options);

}  // namespace msem
