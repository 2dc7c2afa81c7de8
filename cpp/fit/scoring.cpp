#include "fit/scoring.hpp"

#include <algorithm>
#include <stdexcept>

#include "base/interrupt.hpp"

namespace msem {

namespace {

constexpr std::size_t kPace = 5;  // steps that the pace is taken of
constexpr double kLaborious = 1;  // damping of steps that get along slowly, if they are so many
constexpr std::ptrdiff_t kLabour = 10;
constexpr double kStuck = 1e-4;       // what so many damped steps gain that lead nowhere
constexpr int kLong = 8;              // steps after which a costly information is kept,
constexpr int kMost = 4;              // and for how many,
constexpr double kContracts = 0.5;    // contraction that keeps a costly one
constexpr int kLongest = 8;           // steps between tries of one that had no use
constexpr double kLinear = 0.3;       // contraction above which these need the observed information
constexpr double kReuse = 1e-3;       // contraction that lets a Newton matrix be used again
constexpr double kSmallPivot = 1e-9;  // of the scaled information: below it the factor is used
constexpr double kSafety = 1e-6;      // for a decrement that is foreseen and not computed
constexpr double kKept = 1e-3;        // and for one of a kept matrix, whose last step squares nothing

Vector inverse_scale(const Vector& diagonal) {
  return diagonal.unaryExpr([](double d) { return d > 0 ? 1 / std::sqrt(d) : 0.0; });
}

// Solves (I + damping diag I) x = g in correlation metric; false when it is not safely positive definite.
bool solve_information(const Matrix& information, const Vector& g, double damping, Vector& x) {
  const Vector scale = inverse_scale(information.diagonal());
  Matrix c = scale_both(scale, information);
  for (Index i = 0; i < c.rows(); ++i) c(i, i) = (scale[i] > 0 ? c(i, i) : 1.0) + damping;
  Cholesky chol;
  if (!chol.compute(c) || !(chol.pivot() > kSmallPivot)) return false;
  x = scale.cwiseProduct(chol.solve(Vector(scale.cwiseProduct(g))));
  return x.allFinite();
}

// The same from F with F'F = I, by rank-revealing QR: exact for information of condition up to 1e22, and the
// shortest step where parameters are not identified.
bool solve_factor(const Matrix& factor, const Vector& g, Vector& x) {
  const Vector scale = inverse_scale(factor.colwise().squaredNorm());
  const PivotedQr qr(scale_cols(factor, scale), kRankTolerance);
  if (qr.rank() == 0) return false;
  x = scale.cwiseProduct(qr.solve_cross_products(scale.cwiseProduct(g)));
  return x.allFinite();
}

class Scorer {
 public:
  Scorer(const Objective& objective, const Vector& lower, const Vector& upper, const ScoringOptions& options,
         const Matrix& basis)
      : objective_(objective), lower_(lower), upper_(upper), basis_(basis), options_(options) {
    exact_ = objective.exact_steps();
    for (const Group& g : objective.groups()) {
      options_.reuse = options_.reuse || g.likelihood->costly_information();
      costly_ = costly_ || g.likelihood->costly_information();
    }
    for (const int k : objective.intercepts()) {
      if (!std::isfinite(lower[k]) && !std::isfinite(upper[k]) && (!basis.size() || moves_alone(k)))
        intercepts_.push_back(k);
    }
  }

  Optimum run(const Vector& start) {
    Optimum out;
    out.theta = clip(start);
    current_ = objective_.evaluate(out.theta);
    if (!current_.in_domain || !current_.gradient.allFinite()) {
      out.stop = Stop::kBadStart;
    } else {
      out.stop = iterate(out);
    }
    out.value = current_.value;
    out.gradient = current_.gradient;
    out.active = active(out.theta);
    out.point = current_.point;
    return out;
  }

 private:
  // Whether a column of the basis moves parameter k and nothing else.
  bool moves_alone(int k) const {
    Index column;
    basis_.row(k).cwiseAbs().maxCoeff(&column);
    return basis_(k, column) != 0 && (basis_.row(k).array() != 0).count() == 1 &&
           (basis_.col(column).array() != 0).count() == 1;
  }

  // A symmetric matrix, or columns, over the directions that are searched.
  Matrix project(const Matrix& a, const std::vector<Index>& keep) const {
    return basis_.size() ? sandwich(basis_, a) : select(a, keep, keep);
  }

  Vector clip(const Vector& theta) const { return theta.cwiseMax(lower_).cwiseMin(upper_); }

  std::vector<int> active(const Vector& theta) const {
    return active_bounds(theta, current_.gradient, lower_, upper_);
  }

  // An undamped or damped step over the free parameters. Newton where the observed information allows it.
  bool step(const Vector& theta, double damping, bool try_newton, Vector& delta, bool& newton) {
    const std::vector<int> bound = active(theta);
    std::vector<Index> keep;
    for (Index i = 0; i < theta.size(); ++i) {
      if (!bound[i]) keep.push_back(i);
    }
    delta.setZero(theta.size());
    newton = false;
    if (keep.empty()) return true;
    Vector g = -0.5 * select(current_.gradient, keep);
    if (basis_.size()) g = apply_transposed(basis_, g);
    Vector x;
    if (try_newton) {
      // The last Newton matrix serves again while it brings the decrement down fast.
      newton = newton_step(keep, g, x) && g.dot(x) < (saving_ && aged_ < kMost ? kContracts : kReuse) * last_;
      if (!newton) {
        aged_ = 0;
        observed_ = exact_ ? objective_.observed_information(*current_.point, intercepts_)
                           : objective_.step_information(*current_.point, intercepts_);
        newton = newton_step(keep, g, x);
      }
    }
    if (!newton) {
      if (expected_.size() == 0) {
        age_ = 0;
        expected_ = objective_.approximate_information(*current_.point);
      }
      bool solved = solve_information(project(expected_, keep), g, damping, x);
      if (!solved && damping == 0) {
        const Matrix factor = objective_.information_factor(theta);
        solved = solve_factor(basis_.size() ? product(factor, basis_) : select_cols(factor, keep), g, x);
      }
      if (!solved) return false;
    }
    if (basis_.size()) {
      delta = apply(basis_, x);
    } else {
      delta(keep) = x;
    }
    return true;
  }

  bool newton_step(const std::vector<Index>& keep, const Vector& g, Vector& x) const {
    if (observed_.size() == 0) return false;
    const Matrix observed = project(observed_, keep);
    // Without curvature in a parameter the solver leaves it where it is, which looks like a maximum.
    return (observed.diagonal().array() > 0).all() && solve_information(observed, g, 0, x);
  }

  Stop iterate(Optimum& out) {
    double damping = 0;
    last_ = 1e300;
    bool slow = false, near = false, kept = false;
    for (int count = 0; count < options_.max_iterations; ++count) {
      check_interrupt();
      if (hopeless(out)) return Stop::kMaxIterations;
      if (costly_ && stuck(out)) return Stop::kNoProgress;
      if (options_.brief && laborious(out)) return Stop::kNoProgress;
      if (!kept) expected_.resize(0, 0);
      const bool curved = options_.curved && (options_.near || count >= kCurved);
      saving_ = costly_ && !curved && count >= kLong;
      if (curved) damping = 0;
      bool moved = false, rejected = false, newton = false, tried = false;
      double decrement = 0;
      while (!moved) {
        Vector delta;
        // Where damping is left from before, because scoring steps go too far, a Newton step may not.
        const bool second = ((slow && near) || curved) && !rejected && waiting_ == 0;
        const bool solved = step(out.theta, damping, second, delta, newton);
        tried = tried || second;
        if (solved) {
          const Vector straight = clip(out.theta + delta) - out.theta;
          Settled next = objective_.settle(current_.point->blocks, out.theta, straight, intercepts_);
          decrement = -0.5 * current_.gradient.dot(straight);
          // Where rounding of huge means keeps the decrement above the tolerance it stops falling.
          const bool stalled = std::abs(decrement) < kNegligible && std::abs(decrement) >= last_;
          const double enough = (kept ? kKept : 1.0) * options_.tolerance;
          if ((damping == 0 || newton) && (std::abs(decrement) < enough || stalled || foreseen(decrement))) {
            accept(out, std::move(next),
                   decrement);  // the last step costs one evaluation and squares the accuracy
            out.iterations.push_back({current_.value, decrement, damping, newton});
            return Stop::kConverged;
          }
          moved = accept(out, std::move(next), decrement);
          exact_ = exact_ || (newton && !moved);
        }
        if (moved) {
          out.iterations.push_back({current_.value, decrement, newton ? 0 : damping, newton});
        } else if (newton && damping > 0) {
          rejected = true;
          observed_.resize(0, 0);
        } else {
          rejected = true;
          if (damping == 0 && solved && std::abs(decrement) < kNegligible) return Stop::kConverged;
          damping = std::max(1e-3, 10 * damping);
          last_ = 1e300;
          slow = true;
          observed_.resize(0, 0);
          if (damping > kMaxDamping) return Stop::kNoProgress;
        }
      }
      if (tried && saving_) {
        pause_ = newton ? 0 : std::min(2 * pause_ + 1, kLongest);
        waiting_ = pause_;
      } else if (waiting_ > 0) {
        --waiting_;
      }
      if (newton) damping = 0;
      exact_ = exact_ || (newton && last_ < kNewtonBelow && decrement > kLinear * last_);
      slow = slow || (last_ < kNewtonBelow && decrement > kSlow * last_);
      last_ = damping == 0 ? decrement : 1e300;
      near = decrement < kNewtonBelow;
      kept = options_.reuse && near && damping == 0 && !slow;
      kept = kept || (saving_ && !(rejected && age_ > 0) && age_ + 1 < kMost);
      ++age_;
      ++aged_;
      damping = damping < 5e-3 ? 0 : 0.1 * damping;
    }
    return Stop::kMaxIterations;
  }

  // Whether, at the pace of the last steps, neither a maximum is reached with those that are left nor the
  // value that is to be surpassed.
  bool hopeless(const Optimum& out) const {
    const std::size_t count = out.iterations.size();
    if (!std::isfinite(options_.rival) || count < kPace + 5) return false;
    const Iteration &now = out.iterations.back(), &before = out.iterations[count - 1 - kPace];
    const double left = static_cast<double>(options_.max_iterations - count) / kPace;
    if (!(now.value - left * (before.value - now.value) > options_.rival)) return false;
    return now.decrement * std::pow(now.decrement / before.decrement, left) > options_.tolerance;
  }

  // Whether the last steps were all damped.
  static bool laborious(const Optimum& out) {
    return static_cast<std::ptrdiff_t>(out.iterations.size()) >= kLabour &&
           std::all_of(out.iterations.end() - kLabour, out.iterations.end(),
                       [](const Iteration& i) { return i.damping >= kLaborious; });
  }

  // Whether damped steps have come to nothing, as at the border of the domain.
  static bool stuck(const Optimum& out) {
    const std::size_t count = out.iterations.size();
    if (count <= kPace) return false;
    for (std::size_t k = count - kPace; k < count; ++k) {
      if (out.iterations[k].newton || out.iterations[k].damping == 0) return false;
    }
    return out.iterations[count - 1 - kPace].value - out.iterations.back().value < kStuck;
  }

  // Whether the step with this decrement leaves less than the tolerance, by the rate at which the last one
  // did.
  bool foreseen(double decrement) const {
    return options_.reuse && decrement > 0 && decrement < kNegligible &&
           decrement * (decrement / last_) < kSafety * options_.tolerance;
  }

  // Armijo on the projected step, with room for rounding in the value.
  bool accept(Optimum& out, Settled next, double decrement) {
    if (!(decrement > 0)) return false;
    const double noise = 1e-13 * (1 + std::abs(current_.value));
    Evaluation trial = objective_.evaluate(next.theta, std::move(next.blocks));
    if (!trial.in_domain || !trial.gradient.allFinite()) return false;
    if (trial.value > current_.value - 2e-4 * decrement + (decrement < 1e-4 ? noise : 0.0)) return false;
    const Vector step = next.theta - out.theta, change = 0.5 * (trial.gradient - current_.gradient);
    if (options_.reuse) learn(expected_, step, change);
    if (saving_) learn(observed_, step, change);
    current_ = std::move(trial);
    out.theta = next.theta;
    return true;
  }

  // A matrix that is kept follows the change of the gradient along a step (BFGS).
  static void learn(Matrix& kept, const Vector& step, const Vector& change) {
    if (kept.size() == 0) return;
    const Vector image = apply(kept, step);
    const double curvature = step.dot(change), expected = step.dot(image);
    // far from what the information says it is the curvature of another place, or rounding
    if (!(curvature > 0.2 * expected && curvature < 5 * expected)) return;
    add_outer(kept, 1 / curvature, change, change);
    add_outer(kept, -1 / expected, image, image);
  }

  const Objective& objective_;
  const Vector &lower_, &upper_;
  const Matrix& basis_;  // empty: all parameters
  ScoringOptions options_;
  std::vector<int> intercepts_;  // without bounds
  Evaluation current_;
  Matrix expected_, observed_;
  bool costly_ = false,
       saving_ = false;          // whether an information is, and is kept because steps are many
  int age_ = 0, aged_ = 0;       // steps since they were made: expected, and that of Newton steps
  int pause_ = 0, waiting_ = 0;  // steps without another try of the latter
  bool exact_ = true;            // whether Newton steps take the observed information
  double last_ = 0;              // decrement of the last undamped step
};

}  // namespace

std::vector<int> active_bounds(const Vector& theta, const Vector& gradient, const Vector& lower,
                               const Vector& upper) {
  std::vector<int> out(theta.size(), 0);
  for (Index i = 0; i < theta.size(); ++i) {
    if (theta[i] <= lower[i] && gradient[i] > 0) out[i] = -1;
    if (theta[i] >= upper[i] && gradient[i] < 0) out[i] = 1;
  }
  return out;
}

Optimum minimize(const Objective& objective, const Vector& start, const Vector& lower, const Vector& upper,
                 const ScoringOptions& options, const Matrix& basis) {
  const Index n = objective.npar();
  if (start.size() != n || lower.size() != n || upper.size() != n)
    throw std::invalid_argument("start and bounds must have one element per parameter");
  if (basis.size() && (basis.rows() != n || lower.array().isFinite().any() || upper.array().isFinite().any()))
    throw std::invalid_argument("a basis has one row per parameter and goes without bounds");
  return Scorer(objective, lower, upper, options, basis).run(start);
}

}  // namespace msem
