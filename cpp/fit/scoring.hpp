// Fisher scoring with Levenberg-Marquardt damping and bounds, finished by Newton steps.
//
// Steps and the stopping rule g' I^-1 g (the expected gain in -2 log L) do not change when parameters or
// variables are rescaled: damping is relative to the diagonal of the information.
#pragma once

#include <limits>

#include "fit/objective.hpp"

namespace msem {

// Of steps with and without constraints.
constexpr double kMaxDamping = 1e8;
constexpr double kNewtonBelow = 1.0;      // decrement from which Newton steps are tried,
constexpr double kSlow = 0.02;            // once scoring steps reduce it by less than this factor
constexpr int kCurved = 4;                // scoring steps before Newton steps in curved coordinates
constexpr double kNegligible = 1e-8;      // decrement at which rounding may end the iterations
constexpr double kRankTolerance = 1e-11;  // relative, for singular values of the scaled information factor

struct ScoringOptions {
  int max_iterations = 500;
  double tolerance = 1e-12;  // on the decrement g' I^-1 g
  // Near the maximum keep the information matrix, updated by what the gradient tells, instead of a new one
  // for every step.
  bool reuse = false;
  // Newton steps from anywhere: in coordinates whose squares are variances the expected information says
  // nothing near zero.
  bool curved = false;
  bool near = false;  // from the first one on: the start is next to the maximum
  // A value that is to be surpassed: who falls behind it, and is not about to converge, gives up.
  double rival = std::numeric_limits<double>::infinity();
  // Gives up where steps have to be damped again and again: there is another way.
  bool brief = false;
};

enum class Stop : int {
  kConverged = 0,
  kMaxIterations = 1,
  kNoProgress = 2,
  kBadStart = 3,
  kInfeasible = 4,
  kUnbounded = 5  // a likelihood above that of the saturated model: there is no maximum near
};

struct Iteration {
  double value, decrement, damping;
  bool newton;
};

struct ConeOptimum;

struct Optimum {
  Vector theta;
  double value = 0;
  Vector gradient;
  Stop stop = Stop::kMaxIterations;
  std::vector<int> active;               // -1 at its lower bound, 1 at its upper bound, 0 free
  std::vector<int> active_inequalities;  // among constraints
  std::vector<Iteration> iterations;
  double surpassed = 0;  // how much lower the value was seen to be elsewhere, where it has no minimum
  std::shared_ptr<const ObjectivePoint> point;  // at theta; null outside the domain
  std::shared_ptr<const ConeOptimum> cone;      // of a maximum on the border of the cone
  double natural =
      std::numeric_limits<double>::quiet_NaN();  // value at one outside the cone, if there is one
  std::vector<double> maxima;                    // values of others that were met
  bool proper = false;                           // whether it is known to have no improprieties
};

// With a basis (npar x m) theta moves from its start along the columns only, as linear equalities ask for;
// there are no bounds then.
// Bounds that the downhill direction pushes against: -1 lower, 1 upper, 0 none.
std::vector<int> active_bounds(const Vector& theta, const Vector& gradient, const Vector& lower,
                               const Vector& upper);

Optimum minimize(const Objective& objective, const Vector& start, const Vector& lower, const Vector& upper,
                 const ScoringOptions& options, const Matrix& basis = {});

}  // namespace msem
