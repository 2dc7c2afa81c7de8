#include "fit/engine.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "base/threads.hpp"
#include "fit/iterative.hpp"
#include "fit/markers.hpp"
#include "fit/saturated_cells.hpp"
#include "likelihood/complete/saturated.hpp"

namespace msem {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kAttempt = 60;          // iterations from one start before another is tried
constexpr double kBeyond = 1e-4;      // -2 log L below the saturated model's by more is no maximum
constexpr double kSame = 1e-3;        // difference in -2 log L between maxima that counts as none
constexpr double kConstant = 1e-13;   // share of the whole sample's variance that is rounding
constexpr double kEigenvalue = 1e-8;  // of a correlation matrix, that still counts as rounding of zero
constexpr double kNothing = 1e-11;    // standard error relative to the estimate that is rounding of zero

constexpr double kFlat = 0.3;      // share of the largest part in a flat direction that counts
constexpr std::size_t kNamed = 6;  // parameters of a flat direction

// What the loadings of the last level are multiplied by.
const std::vector<std::vector<double>> kFactors = {
    {1.5, -0.6, 0.9}, {-1.2, 0.5, -1.8}, {0.4, 1.7, -0.8}, {-0.9, -1.3, 0.6}};

// Whether a likelihood says nothing there.
bool nowhere(const Optimum& o) { return o.stop == Stop::kUnbounded || o.stop == Stop::kInfeasible; }

// The way from starts to a maximum.
class Route {
 public:
  Route(const Plan& plan, const Objective& objective, const SampleLikelihood& sample,
        const FitOptions& options)
      : plan_(plan), objective_(objective), sample_(sample), options_(options) {}

  Optimum run() {
    first_ = plan_.start.values(objective_, sample_.saturated);
    const int few = std::min(kAttempt, options_.max_iterations);
    if (!options_.saturated.empty()) {
      Optimum near = minimize_iteratively(objective_, first_, plan_.lower, plan_.upper, options_.saturated,
                                          {few, options_.tolerance});
      if (near.stop == Stop::kConverged && !below_saturated(near)) return near;
    }
    Optimum best = attempt(first_, few);
    const bool more = options_.max_iterations > kAttempt || best.stop == Stop::kBadStart;
    if (best.stop != Stop::kConverged && more) best = restart(std::move(best), few);
    return best;
  }

  std::vector<Vector> starts() {
    first_ = plan_.start.values(objective_, sample_.saturated);
    std::vector<Vector> out = {first_};
    for (int k = 0; k < kRestarts; ++k) out.push_back(other(k));
    return out;
  }

 private:
  static constexpr int kRestarts = 9;

  Optimum attempt(const Vector& start, int iterations) const {
    return attempt(start, iterations, plan_.lower);
  }

  Optimum attempt(const Vector& start, int iterations, const Vector& lower) const {
    ScoringOptions how{iterations, options_.tolerance};
    how.reuse = true;
    Optimum out = minimize(objective_, plan_.constraints, start, lower, plan_.upper, how);
    if (below_saturated(out) && out.stop != Stop::kInfeasible) out.stop = Stop::kUnbounded;
    return out;
  }

  bool below_saturated(const Optimum& o) const { return o.value < sample_.saturated_value - kBeyond; }

  // Starts other than the first, the most promising first.
  Vector other(int k) {
    const StartPlan& start = plan_.start;
    if (k == 0) return cautious_ = start.cautious(objective_, sample_.saturated, first_);
    if (k <= 2) return attempt(k == 1 ? first_ : cautious_, kAttempt, start.nonnegative()).theta;
    if (k <= 4) return start.shrunk(objective_, sample_.saturated, first_, k == 3 ? 0.5 : 0.0);
    return start.rescaled(objective_, sample_.saturated, first_, kFactors[k - 5]);
  }

  // Attempts are made one by one and end with the first maximum than which nothing higher was seen.
  Optimum restart(Optimum best, int few) {
    std::optional<Optimum> maximum;
    Optimum top = std::move(best);
    for (int k = 0; k < kRestarts; ++k) {
      Optimum next = attempt(other(k), few);
      const bool higher = nowhere(top) || (next.value < top.value && !nowhere(next));
      if (next.stop == Stop::kConverged && (!maximum || next.value < maximum->value)) maximum = next;
      if (higher) top = std::move(next);
      if (maximum && (nowhere(top) || maximum->value < top.value + kSame)) return *maximum;
    }
    Optimum rest = attempt(top.theta, options_.max_iterations - few);
    if (rest.stop != Stop::kConverged) {
      std::optional<Optimum> again = by_other_markers(rest, few);
      if (again && !(maximum && maximum->value < again->value)) return std::move(*again);
    }
    if (rest.stop == Stop::kConverged || !maximum) {
      rest.iterations.insert(rest.iterations.begin(), top.iterations.begin(), top.iterations.end());
      return rest;
    }
    if (!nowhere(rest)) maximum->surpassed = maximum->value - rest.value;
    return *maximum;
  }

  // A maximum near which factors have large loadings is found where they are scaled by other indicators.
  std::optional<Optimum> by_other_markers(const Optimum& from, int few) const {
    if (!plan_.constraints.none() || !from.theta.allFinite()) return std::nullopt;
    const auto other = other_markers(objective_.blocks(), from.theta, plan_.lower, plan_.upper);
    if (!other) return std::nullopt;
    const Objective same(plan_.npar, other->blocks, objective_.groups());
    const Optimum found = minimize(same, other->theta, plan_.lower, plan_.upper,
                                   {options_.max_iterations, options_.tolerance, true});
    if (found.stop != Stop::kConverged || below_saturated(found)) return std::nullopt;
    Optimum out = attempt(other->back(objective_.blocks(), found.theta), few);
    if (out.stop != Stop::kConverged) return std::nullopt;
    return out;
  }

  const Plan& plan_;
  const Objective& objective_;
  const SampleLikelihood& sample_;
  FitOptions options_;
  Vector first_, cautious_;
};

// Whether a matrix has a negative eigenvalue in the metric of correlations; variances are not negative.
bool indefinite(const Matrix& matrix) {
  const Index n = matrix.rows();
  if (n < 2 || !(matrix.diagonal().array() >= 0).all()) return false;
  Vector scale = matrix.diagonal();
  for (double& v : scale) v = v > 0 ? 1 / std::sqrt(v) : 1.0;
  Matrix shifted = scale_both(scale, matrix);
  shifted.diagonal().array() += kEigenvalue;
  return !positive_definite(shifted);
}

Impropriety impropriety(const Block& block, const std::vector<Index>& judged, const Vector& theta,
                        const BlockPoint& point) {
  using Part = Impropriety::Part;
  const Index n = block.nvariables();
  Impropriety out{0, {}, Part::kNone};
  Matrix residual = Matrix::Zero(n, n);
  bool diagonal = true;
  for (const Entry& e : block.entries()) {
    if (e.slot != Slot::kSymmetric) continue;
    const double x = e.parameter < 0 ? e.value : theta[e.parameter];
    residual(e.row, e.col) = residual(e.col, e.row) = x;
    diagonal = diagonal && (e.row == e.col || x == 0);
  }
  std::vector<Index> observed, latent;
  for (const Index k : judged) {
    (k < block.nobserved() ? observed : latent).push_back(k);
    if (residual(k, k) < 0) out.negative.push_back(static_cast<int>(k));
  }
  if (!diagonal && indefinite(select(residual, observed, observed))) {
    out.indefinite = Part::kResiduals;
  } else if (!diagonal && indefinite(select(residual, latent, latent))) {
    out.indefinite = Part::kLatentResiduals;
  } else if (latent.size() > 1 && indefinite(select(point.total, latent, latent))) {
    out.indefinite = Part::kLatent;
  }
  return out;
}

double normal_value(const Matrix& cov, double n) {
  Cholesky chol;
  if (!chol.compute(cov)) throw std::domain_error("the covariance matrix of the covariates is singular");
  return n * (static_cast<double>(cov.rows()) * (kLog2Pi + 1) + chol.log_det());
}

std::shared_ptr<const CompleteLikelihood> likelihood_of(const TwoLevelStatistics& s, Index nboth) {
  const Index m = s.means.cols();
  const Eigen::Map<const Matrix> stacked(s.scatter.data(), m * m, s.sizes.size());
  return std::make_shared<CompleteLikelihood>(
      TwoLevelData(nboth, s.ssw, s.sizes, s.counts, s.means, stacked));
}

// Throws std::invalid_argument where a sample has other variables than the model.
void require_variables(const Plan& plan, const std::vector<GroupDraw>& draws) {
  for (std::size_t g = 0; g < draws.size(); ++g) {
    const auto [within, between] = plan.groups[g];
    const Index unit = within < 0 ? 0 : plan.blocks[within].nobserved();
    const Index cluster = plan.blocks[between].nobserved() - plan.nboth[g];
    const TwoLevelStatistics& s = draws[g].statistics;
    const bool same = draws[g].incomplete
                          ? draws[g].incomplete->p == unit && draws[g].incomplete->q == cluster
                          : s.ssw.rows() == unit && s.means.cols() == unit + cluster;
    if (!same) throw std::invalid_argument("the samples must have the variables of the model");
  }
}

// Throws std::domain_error where a variable varies by no more than rounding does in the whole sample: within,
// or between where it has no within part.
void require_variance(const Plan& plan, const SampleLikelihood& sample, const std::vector<Moments>& whole) {
  for (std::size_t g = 0; g < whole.size(); ++g) {
    const Moments& m = sample.saturated[g];
    const Index q = m.cov_b.rows() - plan.nboth[g];
    const auto within = m.cov_w.diagonal().array() > kConstant * whole[g].cov_w.diagonal().array();
    const auto between =
        m.cov_b.diagonal().tail(q).array() > kConstant * whole[g].cov_b.diagonal().tail(q).array();
    if (!within.all() || !between.all()) throw std::domain_error("a variable has no variance");
  }
}

// Whether a group has no more different clusters than variables at their level.
bool few_clusters(const Plan& plan, const std::vector<GroupDraw>& draws) {
  for (std::size_t g = 0; g < draws.size(); ++g) {
    if (draws[g].distinct <= plan.blocks[plan.groups[g].between].nobserved()) return true;
  }
  return false;
}

double covariate_value(const Plan& plan, const std::vector<GroupDraw>& draws,
                       const SampleLikelihood& sample) {
  double out = 0;
  for (std::size_t g = 0; g < draws.size(); ++g) {
    const auto& [within, between] = plan.covariates[g];
    const TwoLevelStatistics& s = draws[g].statistics;
    if (draws[g].incomplete) continue;
    if (!within.empty())
      out += normal_value(select(sample.saturated[g].cov_w, within, within), s.sizes.dot(s.counts));
    if (!between.empty())
      out += normal_value(select(sample.saturated[g].cov_b, between, between), s.counts.sum());
  }
  return out;
}

void add_defined(const Plan& plan, Solution& out) {
  const Vector& theta = out.optimum.theta;
  const Expressions& defined = plan.defined;
  if (!defined.size()) return;
  out.defined = defined.values(theta);
  out.defined_se.setConstant(defined.size(), kNaN);
  const Matrix slopes = defined.jacobian(theta);
  for (int i = 0; i < defined.size(); ++i) {
    const std::vector<int>& on = defined.variables(i);
    const Vector slope = select(slopes.row(i), on);
    const double variance = slope.dot(apply(select(out.sampling.vcov, on, on), slope));
    const double se = variance >= 0 ? std::sqrt(variance) : kNaN;
    out.defined_se[i] = se <= kNothing * std::abs(out.defined[i]) ? 0 : se;
  }
}

Verdict verdict_of(const Solution& s) {
  const Optimum& o = s.optimum;
  if (o.stop == Stop::kInfeasible || o.stop == Stop::kBadStart) return Verdict::kUnusable;
  if (o.stop != Stop::kConverged) return Verdict::kNotConverged;
  if (!s.sampling.unidentified.empty()) return Verdict::kUnidentified;
  if (!s.sampling.positive_definite) return Verdict::kSaddlePoint;
  if (std::isnan(s.saturated_value)) return Verdict::kNoChiSquare;
  if (!s.improper.empty() || o.surpassed > 0) return Verdict::kImproper;
  const bool bound = std::any_of(o.active.begin(), o.active.end(), [](int a) { return a != 0; });
  return bound || !o.active_inequalities.empty() ? Verdict::kBoundary : Verdict::kOk;
}

}  // namespace

void Plan::check() const {
  const std::size_t count = blocks.size();
  if (filled.size() != count || judged.size() != count)
    throw std::invalid_argument("entries to fill and variables to judge are given by block");
  if (covariates.size() != groups.size() || nboth.size() != groups.size())
    throw std::invalid_argument("covariates and variables at both levels are given by group");
  if (defined.npar() != npar || lower.size() != npar || upper.size() != npar)
    throw std::invalid_argument("bounds and definitions must be those of all parameters");
  for (std::size_t b = 0; b < count; ++b) {
    const auto& entries = blocks[b].entries();
    for (const int i : filled[b]) {
      if (i < 0 || i >= static_cast<int>(entries.size()) || entries[i].parameter >= 0 ||
          entries[i].slot == Slot::kDirected)
        throw std::invalid_argument("only fixed moments can be filled in");
    }
    for (const Index k : judged[b]) {
      if (k < 0 || k >= blocks[b].nvariables()) throw std::invalid_argument("a variable is beyond its block");
    }
  }
}

Objective objective_of(const Plan& plan, const SampleLikelihood& sample) {
  if (sample.likelihoods.size() != plan.groups.size() || sample.saturated.size() != plan.groups.size())
    throw std::invalid_argument("the model and the sample must have the same groups");
  std::vector<Block> blocks = plan.blocks;
  std::vector<Group> groups;
  const auto fill = [&](int b, const Vector& mean, const Matrix& cov) {
    if (b < 0) return;
    for (const int i : plan.filled[b]) {
      const Entry& e = blocks[b].entries()[i];
      blocks[b].set_value(i, e.slot == Slot::kIntercept ? mean[e.row] : cov(e.row, e.col));
    }
  };
  for (std::size_t g = 0; g < plan.groups.size(); ++g) {
    const auto [within, between] = plan.groups[g];
    groups.push_back({sample.likelihoods[g], within, between});
    fill(within, sample.saturated[g].mean_w, sample.saturated[g].cov_w);
    fill(between, sample.saturated[g].mean_b, sample.saturated[g].cov_b);
  }
  return Objective(plan.npar, std::move(blocks), std::move(groups));
}

Optimum estimate(const Plan& plan, const Objective& objective, const SampleLikelihood& sample,
                 const FitOptions& options) {
  return Route(plan, objective, sample, options).run();
}

std::vector<Vector> all_starts(const Plan& plan, const Objective& objective, const SampleLikelihood& sample) {
  return Route(plan, objective, sample, {}).starts();
}

std::vector<Impropriety> improprieties(const Plan& plan, const Objective& objective, const Vector& theta,
                                       const ObjectivePoint* at) {
  std::vector<Impropriety> out;
  for (std::size_t b = 0; b < plan.blocks.size(); ++b) {
    BlockPoint own;
    if (!at && !objective.implied(theta, static_cast<int>(b), own)) continue;
    Impropriety found = impropriety(objective.blocks()[b], plan.judged[b], theta, at ? at->blocks[b] : own);
    found.block = static_cast<int>(b);
    if (!found.negative.empty() || found.indefinite != Impropriety::Part::kNone) out.push_back(found);
  }
  return out;
}

std::vector<int> flat_direction(const Objective& objective, const Vector& theta) {
  const Matrix factor = objective.information_factor(theta);
  Vector scale = column_norms(factor);
  for (double& v : scale) v = v > 0 ? 1 / v : 1.0;
  const Vector part = RightSingular(scale_cols(factor, scale)).vectors.rightCols(1).cwiseAbs();
  std::vector<int> out(part.size());
  std::iota(out.begin(), out.end(), 0);
  std::stable_sort(out.begin(), out.end(), [&](int a, int b) { return part[a] > part[b]; });
  std::size_t kept = 0;
  while (kept < std::min(out.size(), kNamed) && part[out[kept]] > kFlat * part.maxCoeff()) ++kept;
  out.resize(kept);
  return out;
}

SampleLikelihood sample_likelihood(const std::vector<GroupDraw>& sample, const Plan& plan,
                                   const std::vector<Moments>& first) {
  SampleLikelihood out;
  for (std::size_t g = 0; g < sample.size(); ++g) {
    SaturatedFit h1;
    if (sample[g].incomplete) {
      const auto likelihood = std::make_shared<const IncompleteLikelihood>(sample[g].incomplete);
      h1 = fit_saturated(*likelihood, {}, first.empty() ? nullptr : &first[g]);
      out.likelihoods.push_back(likelihood);
    } else {
      const auto likelihood = likelihood_of(sample[g].statistics, plan.nboth[g]);
      h1 = fit_saturated(likelihood->data(), {});
      out.likelihoods.push_back(likelihood);
    }
    out.saturated_value += h1.converged ? -2 * h1.loglik : kNaN;
    out.saturated.push_back(std::move(h1.moments));
  }
  return out;
}

Solution fit(const Plan& plan, const std::vector<GroupDraw>& draws, const FitOptions& options,
             const std::vector<Moments>& first) {
  Solution out;
  require_variables(plan, draws);
  try {
    const SampleLikelihood sample = sample_likelihood(draws, plan, first);
    out.saturated_value = sample.saturated_value;
    require_variance(plan, sample, first);
    out.covariate_value = covariate_value(plan, draws, sample);
    const Objective objective = objective_of(plan, sample);
    out.optimum = estimate(plan, objective, sample, options);
    if (out.optimum.stop != Stop::kConverged) {
      if (out.optimum.point) out.flat = flat_direction(objective, out.optimum.theta);
    } else {
      const Optimum& o = out.optimum;
      const Matrix free = tangent(objective, plan.constraints, o.theta, o.active, o.active_inequalities);
      out.sampling =
          sampling_covariance(objective, plan.constraints, o.theta, free, options.errors, o.point.get());
      out.improper = improprieties(plan, objective, o.theta, o.point.get());
      add_defined(plan, out);
    }
    out.verdict = verdict_of(out);
  } catch (const std::domain_error& error) {
    out.problem = error.what();
  } catch (const std::invalid_argument& error) {
    out.problem = error.what();
  }
  out.few_clusters = out.verdict == Verdict::kUnusable && few_clusters(plan, draws);
  return out;
}

std::vector<Solution> fit_many(const Plan& plan, const Draws& draws, const FitOptions& options,
                               std::uint64_t first, std::uint64_t last, int threads,
                               const std::vector<Moments>& saturated) {
  if (draws.ngroups() != static_cast<Index>(plan.groups.size()))
    throw std::invalid_argument("the model and the samples must have the same groups");
  std::vector<Solution> out(last > first ? last - first : 0);
  in_threads(static_cast<std::ptrdiff_t>(out.size()), threads, [&](std::ptrdiff_t r) {
    out[r] = fit(plan, draws.draw(first + r), options, saturated);
    out[r].optimum.point.reset();  // it refers to what was made for this sample
  });
  return out;
}

}  // namespace msem
