#include "fit/saturated_cells.hpp"

#include <limits>

#include "base/interrupt.hpp"
#include "fit/saturated_cone.hpp"
#include "fit/scoring.hpp"

namespace msem {

namespace {

constexpr int kFirstSteps = 6;    // of EM before scoring
constexpr int kCheckEvery = 20;   // steps of EM between looks at the decrement
constexpr double kWithin = 0.75;  // share of a variance within clusters at the start

// All elements of the moments as parameters: within covariances, between covariances, within means of the
// within-only variables, between means.
class MomentParameters {
 public:
  MomentParameters(Index p, Index nboth, Index q) : p_(p), b_(nboth), n_(nboth + q) {}

  Index size() const { return p_ * (p_ + 1) / 2 + n_ * (n_ + 1) / 2 + (p_ - b_) + n_; }
  std::vector<Block> blocks() const {
    int next = 0;
    std::vector<Entry> within = covariances(p_, next), between = covariances(n_, next);
    for (Index i = b_; i < p_; ++i) within.push_back({Slot::kIntercept, static_cast<int>(i), 0, next++, 0});
    for (Index i = 0; i < n_; ++i) between.push_back({Slot::kIntercept, static_cast<int>(i), 0, next++, 0});
    const int w = static_cast<int>(p_), b = static_cast<int>(n_);
    return {Block(w, w, std::move(within)), Block(b, b, std::move(between))};
  }
  Vector vector(const Moments& m) const {
    Vector out(size());
    Index at = 0;
    for (const auto* cov : {&m.cov_w, &m.cov_b}) {
      for (Index j = 0; j < cov->cols(); ++j) {
        for (Index i = j; i < cov->rows(); ++i) out[at++] = (*cov)(i, j);
      }
    }
    out.tail(p_ - b_ + n_) << m.mean_w.tail(p_ - b_), m.mean_b;
    return out;
  }
  Moments moments(const Vector& theta) const {
    Moments out{Vector::Zero(p_), theta.tail(n_), Matrix(p_, p_), Matrix(n_, n_)};
    Index at = 0;
    for (auto* cov : {&out.cov_w, &out.cov_b}) {
      for (Index j = 0; j < cov->cols(); ++j) {
        for (Index i = j; i < cov->rows(); ++i) (*cov)(i, j) = (*cov)(j, i) = theta[at++];
      }
    }
    out.mean_w.tail(p_ - b_) = theta.segment(at, p_ - b_);
    return out;
  }

 private:
  static std::vector<Entry> covariances(Index n, int& next) {
    std::vector<Entry> out;
    for (Index j = 0; j < n; ++j) {
      for (Index i = j; i < n; ++i)
        out.push_back({Slot::kSymmetric, static_cast<int>(i), static_cast<int>(j), next++, 0});
    }
    return out;
  }
  Index p_, b_, n_;
};

// Uncorrelated variables with the means and variances of what is observed, parted between the levels; 0 and 1
// for variables that are not, and 1 for the variance of those that do not vary.
Moments crude_moments(const IncompleteData& d) {
  const Index p = d.p, b = d.nboth, q = d.q;
  const ObservedMoments found = observed_moments(d);
  const Vector mean = (found.count.array() > 0).select(found.mean, 0.0);
  const Vector variance = (found.variance.array() > 0).select(found.variance, 1.0);
  Moments out{Vector::Zero(p), Vector(b + q), Matrix::Zero(p, p), Matrix::Zero(b + q, b + q)};
  out.mean_w.tail(p - b) = mean.segment(b, p - b);
  out.mean_b << mean.head(b), mean.tail(q);
  out.cov_w.diagonal() << kWithin * variance.head(b), variance.segment(b, p - b);
  out.cov_b.diagonal() << (1 - kWithin) * variance.head(b), variance.tail(q);
  return out;
}

void average_step(double n, const Matrix& gradient, const Vector& mean_gradient, Matrix& cov, Vector& shift) {
  shift = -0.5 / n * apply(cov, mean_gradient);
  cov -= sandwich(cov, gradient) / n;
  add_outer(cov, -1, shift, shift);
  symmetrise(cov);
}

// The means of the units about those of their cluster are estimated too and then given to the clusters
// (PX-EM; Liu, Rubin & Wu, 1998).
void em_step(const Moments& g, double nobs, double nclusters, Index nboth, Moments& m) {
  Vector shift_w, shift_b;
  if (m.cov_w.rows()) average_step(nobs, g.cov_w, g.mean_w, m.cov_w, shift_w);
  if (m.cov_b.rows()) {
    average_step(nclusters, g.cov_b, g.mean_b, m.cov_b, shift_b);
    m.mean_b += shift_b;
  }
  if (!m.cov_w.rows()) return;
  m.mean_b.head(nboth) += shift_w.head(nboth);
  m.mean_w.tail(m.mean_w.size() - nboth) += shift_w.tail(m.mean_w.size() - nboth);
}

double decrement_at(const Objective& objective, const Vector& theta) {
  const ScaledInverse information = scaled_inverse(objective.expected_information(theta));
  if (!(information.pivot > 0)) return std::numeric_limits<double>::infinity();
  const Vector g = 0.5 * objective.evaluate(theta).gradient;
  return g.dot(apply(information.inverse, g));
}

}  // namespace

SaturatedFit fit_saturated(const IncompleteLikelihood& likelihood, const SaturatedOptions& options,
                           const Implied* first) {
  const IncompleteData& d = likelihood.data();
  const TwoLevels shape = likelihood.shape();
  const MomentParameters parameters(d.p, d.nboth, d.q);
  const std::shared_ptr<const Likelihood> borrowed(&likelihood, [](const Likelihood*) {});
  const Objective objective(static_cast<int>(parameters.size()), parameters.blocks(), {{borrowed, {0, 1}}});
  const bool em = options.method == SaturatedMethod::kEm;
  const int most = options.max_iterations > 0 ? options.max_iterations : em ? 200000 : 200;
  const double nclusters = d.weight.sum();
  SaturatedFit fit;
  const bool near = first && likelihood.at(*first);
  Moments moments = near ? shape.moments(*first) : crude_moments(d);
  const int steps = em ? most : near ? 0 : kFirstSteps;
  for (fit.em_steps = 0; fit.em_steps < steps; ++fit.em_steps) {
    check_interrupt();
    const auto point = likelihood.at(shape.levels(moments));
    if (!point) break;
    if (em && fit.em_steps % kCheckEvery == 0) {
      fit.decrement = decrement_at(objective, parameters.vector(moments));
      if (fit.decrement < options.tolerance) {
        fit.converged = true;
        break;
      }
    }
    em_step(shape.moments(point->gradient()), d.nobs(), nclusters, d.nboth, moments);
  }
  fit.iterations = fit.em_steps;
  if (d.p == 0 && nclusters <= static_cast<double>(d.q)) {  // so few rows lie in a plane
    fit.converged = false;
    fit.loglik = std::numeric_limits<double>::quiet_NaN();
    fit.levels = shape.levels(std::move(moments));
    return fit;
  }
  const Vector start = parameters.vector(moments);
  if (em) {
    fit.loglik = -0.5 * objective.value(start);
    fit.levels = shape.levels(std::move(moments));
    return fit;
  }
  if (options.cone && d.nboth > 0) {
    SaturatedFit found = saturated_in_cone(likelihood, shape.levels(moments), {most, options.tolerance});
    found.iterations += fit.em_steps;
    found.em_steps = fit.em_steps;
    return found;
  }
  const Vector none = Vector::Constant(start.size(), std::numeric_limits<double>::infinity());
  const Optimum found = minimize(objective, start, -none, none, {most, options.tolerance});
  fit.levels = shape.levels(parameters.moments(found.theta));
  fit.loglik = -0.5 * found.value;
  fit.converged = found.stop == Stop::kConverged;
  fit.iterations += static_cast<int>(found.iterations.size());
  if (!found.iterations.empty()) fit.decrement = found.iterations.back().decrement;
  return fit;
}

}  // namespace msem
