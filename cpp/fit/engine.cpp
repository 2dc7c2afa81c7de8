#include "fit/engine.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "base/threads.hpp"
#include "fit/cone.hpp"
#include "fit/saturated_cells.hpp"
#include "fit/saturated_nested.hpp"
#include "likelihood/complete/saturated.hpp"
#include "likelihood/slopes/slopes.hpp"

namespace msem {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kConstant = 1e-13;   // share of the whole sample's variance that is rounding
constexpr double kEigenvalue = 1e-8;  // of a correlation matrix, that still counts as rounding of zero
constexpr double kNothing = 1e-11;    // standard error relative to the estimate that is rounding of zero

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

std::shared_ptr<const CompleteLikelihood> likelihood_of(const TwoLevelStatistics& s, Index nboth) {
  const Index m = s.means.cols();
  const Eigen::Map<const Matrix> stacked(s.scatter.data(), m * m, s.sizes.size());
  return std::make_shared<CompleteLikelihood>(
      TwoLevelData(nboth, s.ssw, s.sizes, s.counts, s.means, stacked));
}

// Throws std::invalid_argument where a sample has other variables than the model.
void require_variables(const Plan& plan, const std::vector<GroupDraw>& draws) {
  for (std::size_t g = 0; g < draws.size(); ++g) {
    const std::vector<int>& levels = plan.groups[g];
    if (draws[g].nested || draws[g].crossed || levels.size() > 2) {
      Layout layout;
      if (draws[g].nested && draws[g].nested->levels.size() == levels.size())
        layout = nested_layout(*draws[g].nested);
      if (draws[g].crossed) layout = {draws[g].crossed->levels, draws[g].crossed->nvariables()};
      bool same = layout.levels.size() == levels.size();
      for (std::size_t l = 0; same && l < levels.size(); ++l)
        same = static_cast<std::size_t>(plan.blocks[levels[l]].nobserved()) == layout.levels[l].size();
      if (!same) throw std::invalid_argument("the samples must have the variables of the model");
      continue;
    }
    const Index unit = levels.size() < 2 ? 0 : plan.blocks[levels.front()].nobserved();
    const Index cluster = plan.blocks[levels.back()].nobserved() - plan.nboth[g];
    const TwoLevelStatistics& s = draws[g].statistics;
    bool same = s.ssw.rows() == unit && s.means.cols() == unit + cluster;
    if (const auto& holes = draws[g].incomplete) same = holes->p == unit && holes->q == cluster;
    if (const auto& own = draws[g].reduced)
      same = own->nvalues() + own->nslopes() == unit && own->q + own->nslopes() == cluster;
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
        if (!below[v] && !(varies[i] > kConstant * of_whole[i]))
          throw std::domain_error("a variable has no variance");
        below[v] = true;
      }
    }
  }
}

// Whether a group has no more different clusters than variables at their level.
bool few_clusters(const Plan& plan, const std::vector<GroupDraw>& draws) {
  for (std::size_t g = 0; g < draws.size(); ++g) {
    if (draws[g].distinct <= plan.blocks[plan.groups[g].back()].nobserved()) return true;
  }
  return false;
}

// Moments to start from where there are random slopes, which have no saturated ones: those of another sample,
// with the covariates of this one.
Moments with_covariates(Moments moments, const ReducedData& data) {
  const ReducedMoments own = reduced_moments(data);
  const Index p = data.outcomes, f = data.fixed, b = data.nboth, q = data.q;
  moments.mean_w.segment(p, f) = own.mean.tail(f);
  moments.cov_w.block(p, p, f, f) = own.cov.bottomRightCorner(f, f);
  moments.mean_b.segment(b, q) = own.cluster_mean;
  moments.cov_b.block(b, b, q, q) = own.cluster_cov;
  return moments;
}

// The same of more levels.
Implied with_covariates(Implied moments, const NestedData& data) {
  for (Index l = 0; l < data.nlevels(); ++l) {
    const std::vector<Index> own = data.on(l);
    std::vector<Index> given, rows, here;
    for (std::size_t i = 0; i < data.levels[l].size(); ++i) {
      const Index v = data.levels[l][i];
      if (!data.given[v] || data.measured[v] != l) continue;
      given.push_back(v);
      rows.push_back(v - own[0]);
      here.push_back(static_cast<Index>(i));
    }
    if (given.empty()) continue;
    const Matrix values = select_rows(data.values[l], rows);
    Vector weight = data.weights(l);
    if (l == 0) weight = weight.cwiseProduct(data.multiple);
    Vector of_mean = weight;
    if (data.design[l].size()) of_mean = of_mean.cwiseProduct(Vector(data.design[l].row(0).transpose()));
    const double units = data.units(l);
    const Vector mean = apply(values, of_mean) / units;
    Matrix cov = outer(scale_cols(values, weight), values);
    if (l == 0) {
      const Vector parts = select(data.weight, data.product_top);
      const Matrix pooled = apply_transposed(data.products, parts).transpose();
      cov += select(unpack_lower(pooled, 0, static_cast<Index>(own.size())), rows, rows);
    }
    cov /= units;
    add_outer(cov, -1, mean, mean);
    put(moments[l].cov, here, here, cov);
    for (std::size_t i = 0; i < given.size(); ++i)
      moments[l].mean[here[i]] = mean[static_cast<Index>(i)] + data.origin[given[i]];
  }
  return moments;
}

// The same of one level or two.
Moments moments_of(const Implied& levels) {
  Moments out{Vector(0), levels.back().mean, Matrix(0, 0), levels.back().cov};
  if (levels.size() == 2) {
    out.mean_w = levels.front().mean;
    out.cov_w = levels.front().cov;
  }
  return out;
}

// Moments of the levels that have any.
Implied levels_of(Moments moments) {
  Implied out;
  if (moments.mean_w.size()) out.push_back({std::move(moments.mean_w), std::move(moments.cov_w)});
  if (moments.mean_b.size()) out.push_back({std::move(moments.mean_b), std::move(moments.cov_b)});
  return out;
}

double covariate_value(const Plan& plan, const std::vector<GroupDraw>& draws,
                       const SampleLikelihood& sample) {
  double out = 0;
  for (std::size_t g = 0; g < draws.size(); ++g) {
    const TwoLevelStatistics& s = draws[g].statistics;
    if (draws[g].incomplete || draws[g].reduced) continue;
    const std::size_t levels = sample.saturated[g].size();
    for (std::size_t l = 0; l < levels; ++l) {
      const std::vector<Index>& own = plan.covariates[g][l];
      const double units = draws[g].nested    ? draws[g].nested->units(static_cast<Index>(l))
                           : draws[g].crossed ? draws[g].crossed->units_of(static_cast<Index>(l))
                           : l + 1 < levels   ? s.sizes.dot(s.counts)
                                              : s.counts.sum();
      if (!own.empty()) out += normal_value(select(sample.saturated[g][l].cov, own, own), units);
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
  if (o.cone || s.saturated_cone) return Verdict::kBoundary;
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

SampleLikelihood sample_likelihood(const std::vector<GroupDraw>& sample, const Plan& plan,
                                   const std::vector<Implied>& first, Space space) {
  SampleLikelihood out;
  for (std::size_t g = 0; g < sample.size(); ++g) {
    if (sample[g].nested) {
      out.likelihoods.push_back(std::make_shared<const NestedLikelihood>(sample[g].nested));
    } else if (sample[g].crossed) {
      out.likelihoods.push_back(std::make_shared<const CrossedLikelihood>(sample[g].crossed));
    } else if (sample[g].reduced) {
      out.likelihoods.push_back(std::make_shared<const SlopeLikelihood>(sample[g].reduced));
    } else if (sample[g].incomplete) {
      out.likelihoods.push_back(std::make_shared<const IncompleteLikelihood>(sample[g].incomplete));
    } else {
      out.likelihoods.push_back(likelihood_of(sample[g].statistics, plan.nboth[g]));
    }
  }
  const auto solve = [&](bool cone) {
    SaturatedOptions options;
    options.cone = out.cone = cone;
    out.saturated_value = 0;
    out.saturated.clear();
    for (std::size_t g = 0; g < sample.size(); ++g) {
      const Likelihood& own = *out.likelihoods[g];
      if (sample[g].nested && !sample[g].nested->slopes.empty()) {
        out.saturated_value = kNaN;
        out.saturated.push_back(first.empty() ? Implied{} : with_covariates(first[g], *sample[g].nested));
        continue;
      }
      if (sample[g].nested || sample[g].crossed) {
        SaturatedLevels h1 =
            sample[g].nested
                ? fit_saturated(std::static_pointer_cast<const NestedLikelihood>(out.likelihoods[g]), options)
                : fit_saturated(std::static_pointer_cast<const CrossedLikelihood>(out.likelihoods[g]),
                                options);
        out.saturated_value += h1.converged ? -2 * h1.loglik : kNaN;
        out.saturated.push_back(std::move(h1.moments));
        continue;
      }
      if (sample[g].reduced) {
        out.saturated_value = kNaN;
        out.saturated.push_back(
            first.empty() ? Implied{} : levels_of(with_covariates(moments_of(first[g]), *sample[g].reduced)));
        continue;
      }
      Moments known;
      if (!first.empty() && !cone) known = moments_of(first[g]);
      const Moments* start = first.empty() || cone ? nullptr : &known;
      SaturatedFit h1 = sample[g].incomplete
                            ? fit_saturated(static_cast<const IncompleteLikelihood&>(own), options, start)
                            : fit_saturated(static_cast<const CompleteLikelihood&>(own).data(), options);
      out.saturated_value += h1.converged ? -2 * h1.loglik : kNaN;
      out.saturated.push_back(levels_of(std::move(h1.moments)));
    }
  };
  if (space == Space::kCone) {
    solve(true);
    return out;
  }
  solve(false);
  const bool two_levels = std::any_of(plan.nboth.begin(), plan.nboth.end(), [](Index n) { return n > 0; }) &&
                          std::none_of(sample.begin(), sample.end(), [](const auto& s) {
                            return s.reduced || (s.nested && !s.nested->slopes.empty());
                          });
  if (space == Space::kAuto && two_levels && std::isnan(out.saturated_value)) {
    SampleLikelihood natural = out;
    solve(true);
    if (std::isnan(out.saturated_value)) return natural;
  }
  return out;
}

Solution fit(const Plan& plan, const std::vector<GroupDraw>& draws, const FitOptions& given,
             const std::vector<Implied>& first) {
  Solution out;
  FitOptions options = given;
  if (!plan.terms.empty()) options.space = Space::kNatural;  // the penalty is the border
  require_variables(plan, draws);
  try {
    const SampleLikelihood sample = sample_likelihood(draws, plan, first, options.space);
    out.saturated_value = sample.saturated_value;
    out.saturated_cone = sample.cone && options.space == Space::kAuto;
    require_variance(sample, first);
    out.covariate_value = covariate_value(plan, draws, sample);
    const Objective objective = objective_of(plan, sample);
    out.optimum = estimate(plan, objective, sample, options);
    if (out.optimum.stop != Stop::kConverged) {
      if (out.optimum.point) out.flat = flat_direction(objective, out.optimum.theta);
    } else {
      const Optimum& o = out.optimum;
      if (o.cone) {
        out.sampling = sampling_covariance(*o.cone, options.errors);
        if (!sample.cone) {
          out.saturated_value = sample_likelihood(draws, plan, {}, Space::kCone).saturated_value;
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
