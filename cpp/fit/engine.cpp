#include "fit/engine.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "base/threads.hpp"
#include "fit/cone.hpp"

namespace msem {

namespace {

constexpr double kConstant = 1e-13;   // share of the whole sample's variance that is rounding
constexpr double kEigenvalue = 1e-8;  // of a correlation matrix, that still counts as rounding of zero
constexpr double kZeroError = 1e-11;  // standard error relative to the estimate that is rounding of zero

constexpr double kFlat = 0.3;      // share of the largest part in a flat direction that counts
constexpr std::size_t kNamed = 6;  // parameters of a flat direction

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

// Throws std::invalid_argument where a sample has other variables than the model.
void require_variables(const Plan& plan, const GroupSamples& groups) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::vector<int>& blocks = plan.groups[g];
    const std::vector<std::vector<Index>> levels = groups[g]->likelihood()->layout().levels;
    bool same = levels.size() == blocks.size();
    for (std::size_t l = 0; same && l < levels.size(); ++l)
      same = static_cast<std::size_t>(plan.blocks[blocks[l]].nobserved()) == levels[l].size();
    if (!same) throw std::invalid_argument("the samples must have the variables of the model");
  }
}

// Throws std::domain_error where a variable varies by no more than rounding does in the whole sample: within,
// or between where it has no within part.
void require_variance(const SampleLikelihood& sample, const std::vector<Implied>& whole) {
  for (std::size_t g = 0; g < whole.size(); ++g) {
    const Layout layout = sample.likelihoods[g]->layout();
    std::vector<bool> below(layout.nvariables, false);
    for (std::size_t l = 0; l < sample.saturated[g].size(); ++l) {
      const Vector varies = sample.saturated[g][l].cov.diagonal(), of_whole = whole[g][l].cov.diagonal();
      for (Index i = 0; i < varies.size(); ++i) {
        const Index v = layout.levels[l][i];
        if (std::isnan(of_whole[i])) continue;  // a latent variable that the likelihood knows of
        if (!below[v] && !(varies[i] > kConstant * of_whole[i]))
          throw std::domain_error("a variable has no variance");
        below[v] = true;
      }
    }
  }
}

// Whether a group has no more different clusters than variables at their level.
bool few_clusters(const Plan& plan, const std::vector<GroupDraw>& sample) {
  for (std::size_t g = 0; g < sample.size(); ++g) {
    if (sample[g].distinct <= plan.blocks[plan.groups[g].back()].nobserved()) return true;
  }
  return false;
}

double covariate_value(const Plan& plan, const GroupSamples& groups, const SampleLikelihood& sample) {
  double out = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::vector<double> units = groups[g]->units_with_covariates();
    for (std::size_t l = 0; l < units.size(); ++l) {
      const std::vector<Index>& own = plan.covariates[g][l];
      if (!own.empty()) out += normal_value(select(sample.saturated[g][l].cov, own, own), units[l]);
    }
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
    out.defined_se[i] = se <= kZeroError * std::abs(out.defined[i]) ? 0 : se;
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
  if (o.cone || s.saturated_cone) return Verdict::kBoundary;
  const bool bound = std::any_of(o.active.begin(), o.active.end(), [](int a) { return a != 0; });
  return bound || !o.active_inequalities.empty() ? Verdict::kBoundary : Verdict::kOk;
}

}  // namespace

void Plan::check() const {
  const std::size_t count = blocks.size();
  if (filled.size() != count || judged.size() != count)
    throw std::invalid_argument("entries to fill and variables to judge are given by block");
  if (covariates.size() != groups.size() || shared.size() != groups.size())
    throw std::invalid_argument("covariates and variables that levels share are given by group");
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].empty() || covariates[g].size() != groups[g].size())
      throw std::invalid_argument("covariates are given by level");
  }
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
    for (const int i : plan.filled[b]) {
      const Entry& e = blocks[b].entries()[i];
      blocks[b].set_value(i, e.slot == Slot::kIntercept ? mean[e.row] : cov(e.row, e.col));
    }
  };
  for (std::size_t g = 0; g < plan.groups.size(); ++g) {
    groups.push_back({sample.likelihoods[g], plan.groups[g]});
    for (std::size_t l = 0; l < sample.saturated[g].size(); ++l)
      fill(plan.groups[g][l], sample.saturated[g][l].mean, sample.saturated[g][l].cov);
  }
  return Objective(plan.npar, std::move(blocks), std::move(groups), plan.terms);
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

bool latent_distribution(const Plan& plan, const Objective& objective, const Vector& theta) {
  for (std::size_t b = 0; b < plan.blocks.size(); ++b) {
    BlockPoint point;
    if (!objective.implied(theta, static_cast<int>(b), point)) return false;
    std::vector<Index> related;  // to other latent variables
    const Index first = plan.blocks[b].nobserved();
    for (const Index k : plan.judged[b]) {
      bool any = false;
      for (const Index j : plan.judged[b])
        any = any || (k >= first && j >= first && j != k && point.total(k, j) != 0);
      if (any) related.push_back(k);
    }
    const Matrix cov = select(point.total, related, related);
    if ((cov.diagonal().array() < 0).any() || indefinite(cov)) return false;
  }
  return true;
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

Solution fit(const Plan& plan, const std::vector<GroupDraw>& draws, const FitOptions& given,
             const std::vector<Implied>& first) {
  Solution out;
  FitOptions options = given;
  if (!plan.terms.empty()) options.space = Space::kNatural;  // the penalty is the border
  const GroupSamples groups = group_samples(draws, plan.shared);
  require_variables(plan, groups);
  const bool clustered = std::any_of(plan.shared.begin(), plan.shared.end(), [](Index n) { return n > 0; });
  try {
    const SampleLikelihood sample = sample_likelihood(groups, clustered, first, options.space);
    out.saturated_value = sample.saturated_value;
    out.saturated_cone = sample.cone && options.space == Space::kAuto;
    require_variance(sample, first);
    out.covariate_value = covariate_value(plan, groups, sample);
    const Objective objective = objective_of(plan, sample);
    out.optimum = estimate(plan, objective, sample, options);
    if (out.optimum.stop != Stop::kConverged) {
      if (out.optimum.point) out.flat = flat_direction(objective, out.optimum.theta);
    } else {
      const Optimum& o = out.optimum;
      if (o.cone) {
        out.sampling = sampling_covariance(*o.cone, options.errors);
        if (!sample.cone) {
          out.saturated_value = sample_likelihood(groups, clustered, {}, Space::kCone).saturated_value;
        }
      } else {
        const Matrix free = tangent(objective, plan.constraints, o.theta, o.active, o.active_inequalities);
        out.sampling =
            sampling_covariance(objective, plan.constraints, o.theta, free, options.errors, o.point.get());
      }
      if (!o.proper) out.improper = improprieties(plan, objective, o.theta, o.point.get());
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
                               const std::vector<Implied>& saturated) {
  if (draws.ngroups() != static_cast<Index>(plan.groups.size()))
    throw std::invalid_argument("the model and the samples must have the same groups");
  std::vector<Solution> out(last > first ? last - first : 0);
  in_threads(static_cast<std::ptrdiff_t>(out.size()), threads, [&](std::ptrdiff_t r) {
    out[r] = fit(plan, draws.draw(first + r), options, saturated);
    out[r].optimum.point.reset();  // they refer to what was made for this sample
    out[r].optimum.cone.reset();
  });
  return out;
}

}  // namespace msem
