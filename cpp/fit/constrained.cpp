#include "fit/constrained.hpp"

#include <limits>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "fit/covariance.hpp"
#include "fit/quadratic.hpp"

namespace msem {

namespace {

constexpr double kArmijo = 1e-4;
constexpr double kStationary = 1e-2;          // in -2 log L: what a step may still gain at an optimum
constexpr double kDependentEquality = 1e-10;  // relative, of linear equalities in relative terms
constexpr int kHalvings = 25;
constexpr double kTinyDamping = 1e-8;   // where the information is singular
constexpr double kReducedPivot = 1e-9;  // of the reduced Hessian of the Lagrangian in correlation metric
constexpr double kFeasible = 1e-6;      // distance from a constraint that counts as none
constexpr double kInactive = 1e-9;  // violation of a linearised constraint by a Newton step, as a distance

// Everything about one point.
struct ProgrammePoint {
  Vector theta;
  Evaluation fit;
  Vector equal, unequal;
  Matrix equal_rows, unequal_rows;
  bool valid = false;
};

struct Prices {
  Vector equal, unequal;
};

class Programme {
 public:
  Programme(const Objective& objective, const Constraints& constraints, const Vector& lower,
            const Vector& upper, const ScoringOptions& options)
      : objective_(objective), constraints_(constraints), lower_(lower), upper_(upper), options_(options) {
    std::vector<bool> bound(objective.npar(), false);
    for (const Expressions* set : {&constraints.equalities, &constraints.inequalities}) {
      for (int i = 0; i < set->size(); ++i) {
        for (const int k : set->variables(i)) bound[k] = true;
      }
    }
    for (int k = 0; k < objective.npar(); ++k) {
      if (std::isfinite(lower[k])) bounds_.push_back({k, 1.0});
      if (std::isfinite(upper[k])) bounds_.push_back({k, -1.0});
      bound[k] = bound[k] || std::isfinite(lower[k]) || std::isfinite(upper[k]);
    }
    for (const int k : objective.intercepts()) {
      if (!bound[k]) intercepts_.push_back(k);
    }
  }

  ConstrainedOptimum run(const Vector& start) {
    ConstrainedOptimum out;
    out.active.assign(start.size(), 0);
    here_ = at(start.cwiseMax(lower_).cwiseMin(upper_));
    prices_ = {Vector::Zero(here_.equal.size()), Vector::Zero(here_.unequal.size())};
    out.stop = here_.valid ? iterate(out) : Stop::kBadStart;
    if (here_.valid) finish(out);
    out.theta = here_.theta;
    out.value = here_.fit.value;
    out.gradient = here_.fit.gradient;
    out.point = here_.fit.point;
    return out;
  }

 private:
  struct Bound {
    int parameter;
    double sign;  // 1 lower, -1 upper
  };

  ProgrammePoint at(const Vector& theta) const {
    ProgrammePoint p;
    p.theta = theta;
    p.fit = objective_.evaluate(theta);
    p.equal = constraints_.equalities.values(theta);
    p.unequal = constraints_.inequalities.values(theta);
    p.equal_rows = constraints_.equalities.jacobian(theta);
    p.unequal_rows = constraints_.inequalities.jacobian(theta);
    p.valid = p.fit.in_domain && p.fit.gradient.allFinite() && p.equal.allFinite() && p.unequal.allFinite() &&
              p.equal_rows.allFinite() && p.unequal_rows.allFinite();
    return p;
  }

  double gap(const Bound& b, const Vector& theta) const {
    return b.sign > 0 ? theta[b.parameter] - lower_[b.parameter] : upper_[b.parameter] - theta[b.parameter];
  }

  // The quadratic programme at the current point; inequalities are followed by bounds.
  QuadraticProgramme programme() const {
    const Index m = here_.unequal.size(), count = static_cast<Index>(bounds_.size()), n = objective_.npar();
    QuadraticProgramme p{expected_, 0.5 * here_.fit.gradient, here_.equal_rows, -here_.equal, {}, {}};
    p.inequalities = Matrix::Zero(m + count, n);
    p.inequality_values.resize(m + count);
    p.inequalities.topRows(m) = here_.unequal_rows;
    p.inequality_values.head(m) = -here_.unequal;
    for (Index i = 0; i < count; ++i) {
      p.inequalities(m + i, bounds_[i].parameter) = bounds_[i].sign;
      p.inequality_values[m + i] = -gap(bounds_[i], here_.theta);
    }
    return p;
  }

  Vector scale() const {
    Vector out = expected_.diagonal();
    for (double& d : out) d = d > 0 ? std::sqrt(d) : 1.0;
    return out;
  }

  double merit(const ProgrammePoint& p) const { return 0.5 * p.fit.value + cost(p.equal, p.unequal); }

  // What the violation of constraints with these values costs.
  double cost(const Vector& equal, const Vector& unequal) const {
    double out = 0;
    for (Index i = 0; i < equal.size(); ++i) out += prices_.equal[i] * std::abs(equal[i]);
    for (Index i = 0; i < unequal.size(); ++i) out += prices_.unequal[i] * std::max(0.0, -unequal[i]);
    return out;
  }

  // Change of the merit function along d as linear parts predict it.
  double predicted(const Vector& d) const {
    Vector equal = here_.equal, unequal = here_.unequal;
    add_applied(equal, 1, here_.equal_rows, d);
    add_applied(unequal, 1, here_.unequal_rows, d);
    return 0.5 * here_.fit.gradient.dot(d) + cost(equal, unequal) - cost(here_.equal, here_.unequal);
  }

  static void follow(Vector& price, const Vector& multiplier) {
    for (Index i = 0; i < price.size(); ++i) {
      const double wanted = 1.1 * std::abs(multiplier[i]);
      price[i] = std::max(wanted, 0.5 * (price[i] + wanted));
    }
  }

  // Newton step on the active constraints: false where it is none.
  bool newton(const QuadraticProgramme& p, QuadraticSolution& q) const {
    const Index m = here_.unequal.size();
    std::vector<Index> active;
    for (Index i = 0; i < q.inequality_multipliers.size(); ++i) {
      if (q.inequality_multipliers[i] > 0) active.push_back(i);
    }
    const Vector inverse = scale().cwiseInverse();
    Matrix hessian = objective_.step_information(*here_.fit.point, intercepts_);
    if (hessian.size() == 0) return false;
    hessian -= constraints_.equalities.curvature(here_.theta, q.equality_multipliers);
    hessian -= constraints_.inequalities.curvature(here_.theta, q.inequality_multipliers.head(m));
    hessian = scale_both(inverse, hessian);
    const Index e = p.equality_values.size(), a = static_cast<Index>(active.size());
    Matrix rows(e + a, p.gradient.size());
    Vector values(e + a);
    rows.topRows(e) = p.equalities;
    rows.bottomRows(a) = select_rows(p.inequalities, active);
    values.head(e) = p.equality_values;
    values.tail(a) = select(p.inequality_values, active);
    rows = scale_cols(rows, inverse);
    const RowSpace space(rows);
    const Vector base = space.solve(rows, values), gradient = inverse.cwiseProduct(p.gradient);
    const Matrix reduced = sandwich(space.null, hessian);
    Vector d = base;
    if (reduced.rows()) {
      Cholesky chol;
      if (!chol.compute(reduced) || !(chol.pivot() > kReducedPivot)) return false;
      Vector slope = gradient;
      add_applied(slope, 1, hessian, base);
      add_applied(d, -1, space.null, chol.solve(apply_transposed(space.null, slope)));
    }
    Vector slope = gradient;
    add_applied(slope, 1, hessian, d);
    const Vector multipliers = space.multipliers(rows, slope);
    if (!d.allFinite()) return false;
    for (Index i = e; i < e + a; ++i) {
      if (multipliers[i] < 0) return false;
    }
    const Matrix scaled = scale_cols(p.inequalities, inverse);
    const Vector reached = apply(scaled, d), lengths = column_norms(scaled.transpose());
    for (Index i = 0; i < reached.size(); ++i) {
      if (reached[i] - p.inequality_values[i] < -kInactive * lengths[i]) return false;
    }
    q.d = inverse.cwiseProduct(d);
    q.equality_multipliers = multipliers.head(e);
    for (Index i = 0; i < a; ++i) q.inequality_multipliers[active[i]] = multipliers[e + i];
    return true;
  }

  // The point a step leads to: intercepts settle, active bounds hold exactly.
  ProgrammePoint after(const Vector& d, double share, const Vector& multipliers) const {
    Vector next = objective_.settle(here_.theta, share * d, intercepts_);
    next = next.cwiseMax(lower_).cwiseMin(upper_);
    for (std::size_t i = 0; share == 1 && i < bounds_.size(); ++i) {
      const int k = bounds_[i].parameter;
      if (multipliers[here_.unequal.size() + i] > 0) next[k] = bounds_[i].sign > 0 ? lower_[k] : upper_[k];
    }
    return at(next);
  }

  bool accept(ProgrammePoint&& trial, double wanted, double size) {
    if (!trial.valid) return false;
    const double before = merit(here_);
    const double noise = size < 1e-4 ? 1e-13 * (1 + std::abs(before)) : 0;
    if (!(merit(trial) <= before + kArmijo * wanted + noise)) return false;
    here_ = std::move(trial);
    return true;
  }

  // Shortens the step until the merit function agrees, after a correction for the curvature of the
  // constraints.
  bool search(QuadraticProgramme p, const QuadraticSolution& q, double damping, double size) {
    const double slope = predicted(q.d);
    if (!(slope < 0) && size > kNegligible) return false;
    ProgrammePoint full = after(q.d, 1, q.inequality_multipliers);
    const Vector equal = full.equal, unequal = full.unequal;
    const bool valid = full.valid;
    if (accept(std::move(full), slope, size)) return true;
    if (valid && equal.size() + unequal.size()) {
      p.equality_values = apply(p.equalities, q.d) - equal;
      p.inequality_values.head(unequal.size()) = apply(here_.unequal_rows, q.d) - unequal;
      const QuadraticSolution better = solve(p, scale(), damping);
      if (better.solved && better.feasible &&
          accept(after(better.d, 1, better.inequality_multipliers), slope, size))
        return true;
    }
    double share = 0.5;
    for (int i = 0; i < kHalvings; ++i, share *= 0.5) {
      if (accept(after(q.d, share, q.inequality_multipliers), share * slope, size)) return true;
    }
    return false;
  }

  Stop iterate(ConstrainedOptimum& out) {
    double damping = 0, last = std::numeric_limits<double>::infinity();
    bool slow = false;
    for (int count = 0; count < options_.max_iterations; ++count) {
      check_interrupt();
      expected_ = objective_.expected_information(*here_.fit.point);
      const QuadraticProgramme p = programme();
      const bool curved = options_.curved && (options_.near || count >= kCurved);
      if (curved) damping = 0;
      bool moved = false, second = false;
      double size = 0;
      while (!moved) {
        QuadraticSolution q = solve(p, scale(), damping);
        const bool light = damping <= kTinyDamping;
        if (q.solved) {
          size = q.d.dot(apply(expected_, q.d));
          const bool near = (slow && size < kNewtonBelow) || curved;
          second = light && q.feasible && near && newton(p, q);
          if (second) size = q.d.dot(apply(expected_, q.d));
          follow(prices_.equal, q.equality_multipliers);
          follow(prices_.unequal, q.inequality_multipliers.head(here_.unequal.size()));
          remember(out, q);
          const bool stalled = size < kNegligible && size >= last;
          const bool finished = light && (size < options_.tolerance || stalled);
          moved = search(p, q, damping, size);
          if (finished) {
            out.iterations.push_back({here_.fit.value, size, damping, second});
            return Stop::kConverged;
          }
        }
        if (moved) break;
        if (light && q.solved && size < kNegligible) return Stop::kConverged;
        damping = damping == 0 && !q.solved ? kTinyDamping : std::max(1e-3, 10 * damping);
        slow = true;
        if (damping > kMaxDamping) return Stop::kNoProgress;
      }
      out.iterations.push_back({here_.fit.value, size, damping, second});
      slow = slow || (last < kNewtonBelow && size > kSlow * last);
      last = damping <= kTinyDamping ? size : std::numeric_limits<double>::infinity();
      damping = damping < 5e-3 ? 0 : 0.1 * damping;
    }
    return Stop::kMaxIterations;
  }

  void remember(ConstrainedOptimum& out, const QuadraticSolution& q) const {
    const Index m = here_.unequal.size();
    out.equality_multipliers = q.equality_multipliers;
    out.inequality_multipliers = q.inequality_multipliers.head(m);
    out.bound_multipliers = Vector::Zero(here_.theta.size());
    for (std::size_t i = 0; i < bounds_.size(); ++i)
      out.bound_multipliers[bounds_[i].parameter] += bounds_[i].sign * q.inequality_multipliers[m + i];
  }

  // How far a constraint is from being met: its violation over its change per standard error.
  static double distance(const Vector& violation, const Matrix& rows, const Vector& scale) {
    double most = 0;
    for (Index i = 0; i < violation.size(); ++i) {
      const Vector row = rows.row(i).transpose();
      if (violation[i] > 0) most = std::max(most, violation[i] / row.cwiseQuotient(scale).norm());
    }
    return most;
  }

  void finish(ConstrainedOptimum& out) {
    expected_ = objective_.expected_information(*here_.fit.point);
    const Vector s = scale();
    out.violation = std::max(distance(here_.equal.cwiseAbs(), here_.equal_rows, s),
                             distance(-here_.unequal, here_.unequal_rows, s));
    if (out.violation > kFeasible) out.stop = Stop::kInfeasible;
    out.active.assign(here_.theta.size(), 0);
    for (Index i = 0; i < out.bound_multipliers.size(); ++i)
      out.active[i] = out.bound_multipliers[i] > 0 ? -1 : out.bound_multipliers[i] < 0 ? 1 : 0;
  }

  const Objective& objective_;
  const Constraints& constraints_;
  const Vector &lower_, &upper_;
  ScoringOptions options_;
  std::vector<Bound> bounds_;
  std::vector<int> intercepts_;  // free of bounds and constraints
  ProgrammePoint here_;
  Prices prices_;
  Matrix expected_;
};

}  // namespace

ConstrainedOptimum minimize_constrained(const Objective& objective, const Constraints& constraints,
                                        const Vector& start, const Vector& lower, const Vector& upper,
                                        const ScoringOptions& options) {
  const Index n = objective.npar();
  if (start.size() != n || lower.size() != n || upper.size() != n)
    throw std::invalid_argument("start and bounds must have one element per parameter");
  if (constraints.equalities.npar() != n || constraints.inequalities.npar() != n)
    throw std::invalid_argument("constraints must be functions of all parameters");
  return Programme(objective, constraints, lower, upper, options).run(start);
}

namespace {

// An optimum under constraints that a step along them would improve is none. At a singular matrix its root
// may have no information, and a slope that is rounding then looks like a long step: there the last Newton
// step, which knows the curvature, has the say.
Optimum checked(const Objective& objective, const Constraints& constraints, const ScoringOptions& options,
                Optimum out) {
  if (out.stop != Stop::kConverged) return out;
  if (options.curved && !out.iterations.empty() && out.iterations.back().newton) return out;
  const Matrix free = tangent(objective, constraints, out.theta, out.active, out.active_inequalities);
  if (!(remaining_gain(objective, free, out.theta, out.gradient) <= kStationary))
    out.stop = Stop::kNoProgress;
  return out;
}

}  // namespace

Vector project(const Constraints& constraints, const Vector& theta) {
  if (constraints.linear.empty()) return theta;
  const Vector origin = Vector::Zero(theta.size());
  const Matrix rows = select_rows(constraints.equalities.jacobian(origin), constraints.linear);
  const Vector values = -select(constraints.equalities.values(origin), constraints.linear);
  const Vector size = theta.cwiseAbs();
  Vector out = theta;
  // Parameters that are zero move only where the others cannot do it alone.
  Vector nonzero = size;
  for (double& x : nonzero) x = x > 0 ? x : 1.0;
  for (const Vector& weight : {size, nonzero, Vector(Vector::Ones(size.size()))}) {
    Vector missing = values;
    add_applied(missing, -1, rows, out);
    out += weight.cwiseProduct(shortest_solution(scale_cols(rows, weight), missing, kDependentEquality));
  }
  return out;
}

Optimum minimize(const Objective& objective, const Constraints& constraints, const Vector& start,
                 const Vector& lower, const Vector& upper, const ScoringOptions& options) {
  if (constraints.none()) return minimize(objective, start, lower, upper, options);
  const Vector projected = project(constraints, start);
  const bool bounded = lower.array().isFinite().any() || upper.array().isFinite().any();
  const bool linear = constraints.inequalities.size() == 0 &&
                      static_cast<int>(constraints.linear.size()) == constraints.equalities.size();
  if (linear && !bounded) {
    const Matrix basis = elimination_basis(constraints.equalities.jacobian(Vector::Zero(start.size())),
                                           Vector::Ones(start.size()));
    if (basis.cols()) {
      Optimum out = minimize(objective, projected, lower, upper, options, basis);
      if (out.stop != Stop::kBadStart) return checked(objective, constraints, options, std::move(out));
    }
  }
  ConstrainedOptimum out = minimize_constrained(objective, constraints, projected, lower, upper, options);
  if (out.stop == Stop::kBadStart)
    out = minimize_constrained(objective, constraints, start, lower, upper, options);
  for (Index i = 0; i < out.inequality_multipliers.size(); ++i) {
    if (out.inequality_multipliers[i] > 0) out.active_inequalities.push_back(static_cast<int>(i));
  }
  return checked(objective, constraints, options, std::move(static_cast<Optimum&>(out)));
}

}  // namespace msem
