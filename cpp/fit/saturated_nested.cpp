#include "fit/saturated_nested.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/interrupt.hpp"
#include "fit/cone.hpp"

namespace msem {

namespace {

constexpr int kConeSearches = 4, kEmSteps = 100, kConeSteps = 60;  // searches in the cone, steps of EM
                                                                   // between them, and most of a search
constexpr double kStill = 1e-6;        // decrement of a search that cannot go on, at a maximum
constexpr double kRising = 1e-4;       // slope of the likelihood by a variance, of one unit, that is none
constexpr double kMostVariance = 1e3;  // variance of a level, of those of all
constexpr double kLeastShare =
    0.05;  // eigenvalue of a starting matrix in the metric of the clusters' differences

// Positive definite, with no eigenvalue below a share of `whole`, of which it is a part.
Matrix lifted(const Matrix& cov, const Matrix& whole) {
  Vector sd = whole.diagonal().cwiseMax(0).cwiseSqrt();
  for (double& x : sd) x = x > 0 ? x : 1.0;
  const SymmetricEigen eigen(scale_both(sd.cwiseInverse(), cov));
  const Matrix vectors = scale_rows(sd, eigen.vectors);
  return outer(scale_cols(vectors, eigen.values.cwiseMax(kLeastShare)), vectors);
}

// Means of clusters, unweighted over the clusters that they have, and how these differ within them; NaN where
// nothing is observed.
struct Differences {
  Matrix means;  // of those one level above
  Matrix cov;
  double size = 1;  // harmonic mean of how many there are
};

// Squares and products of what is there.
void add_products(Matrix& sum, Matrix& count, double weight, const Vector& x) {
  for (Index j = 0; j < x.size(); ++j) {
    if (std::isnan(x[j])) continue;
    for (Index i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) continue;
      sum(i, j) += weight * x[i] * x[j];
      count(i, j) += weight;
    }
  }
}

// Sums over the columns of each parent, and the means.
Matrix means_of(const Matrix& values, const std::vector<Index>& parent, Index parents, const Vector& weight) {
  const Index n = values.rows();
  Matrix sums = Matrix::Zero(n, parents), counts = Matrix::Zero(n, parents);
  for (Index k = 0; k < values.cols(); ++k) {
    for (Index i = 0; i < n; ++i) {
      if (std::isnan(values(i, k))) continue;
      sums(i, parent[k]) += weight[k] * values(i, k);
      counts(i, parent[k]) += weight[k];
    }
  }
  return sums.cwiseQuotient(counts);  // NaN for 0 / 0
}

Differences differences(const Matrix& values, const std::vector<Index>& parent, Index parents) {
  const Index n = values.rows(), all = values.cols();
  Differences out{means_of(values, parent, parents, Vector::Ones(all)), Matrix::Zero(n, n)};
  Vector counts = Vector::Zero(parents);
  Matrix pairs = Matrix::Zero(n, n);
  for (Index k = 0; k < all; ++k) {
    counts[parent[k]] += 1;
    add_products(out.cov, pairs, 1, values.col(k) - out.means.col(parent[k]));
  }
  const double left = static_cast<double>(all - parents) / static_cast<double>(all);
  for (Index i = 0; i < out.cov.size(); ++i) out.cov.data()[i] /= std::max(1.0, left * pairs.data()[i]);
  out.size = static_cast<double>(parents) / counts.cwiseMax(1).cwiseInverse().sum();
  return out;
}

// Values of a level by cluster, NaN where not observed.
Matrix with_holes(const NestedData& data, Index level) {
  Matrix out = data.values[level];
  for (Index k = 0; k < out.cols(); ++k) {
    const Pattern& seen = data.patterns[level][data.pattern[level][k]];
    std::size_t next = 0;
    for (Index i = 0; i < out.rows(); ++i) {
      if (next < seen.size() && seen[next] == i)
        ++next;
      else
        out(i, k) = std::numeric_limits<double>::quiet_NaN();
    }
  }
  return out;
}

// Covariance matrix within the lowest clusters, and the means of these.
Matrix within_clusters(const NestedData& data, Matrix& means) {
  const Matrix values = with_holes(data, 0);
  const Index p = values.rows(), J = data.sizes.size();
  means = means_of(values, data.parent[0], J, data.multiple[0]);
  Matrix cov = Matrix::Zero(p, p), pairs = Matrix::Zero(p, p);
  const Vector often = data.weights(0);
  for (Index k = 0; k < values.cols(); ++k)
    add_products(cov, pairs, often[k], values.col(k) - means.col(data.parent[0][k]));
  const Vector weights = select(data.weight, data.product_top);
  cov += unpack_lower(Matrix(apply_transposed(data.products, weights).transpose()), 0, p);
  const double left = 1 - data.units(1) / data.units(0);
  for (Index i = 0; i < cov.size(); ++i) cov.data()[i] /= std::max(1.0, left * pairs.data()[i]);
  return cov;
}

Implied starting_moments(const NestedData& data) {
  const Index n = data.nvariables(), depth = data.nlevels();
  Implied out;
  Matrix values;                      // of the clusters of the level below, by variable
  Matrix below = Matrix::Zero(n, n);  // how much of their differences is that of what they have
  for (Index l = 0; l < depth; ++l) {
    const std::vector<Index> own = data.on(l);
    Matrix cov;
    if (l == 0) {
      Matrix means;
      cov = Matrix::Zero(n, n);
      put(cov, own, own, within_clusters(data, means));
      values = Matrix::Zero(n, data.sizes.size());
      put_rows(values, own, means);
      below = cov * (static_cast<double>(data.sizes.size()) / data.sizes.sum()) *
              (data.sizes.cwiseMax(1).cwiseInverse().mean() * data.sizes.mean());
    } else {
      put_rows(values, own, with_holes(data, l));
      const std::vector<Index> all(values.cols(), 0);
      const bool last = l + 1 == depth;
      const std::vector<Index>& parent = last ? all : data.parent[l];
      Differences d = differences(values, parent, last ? 1 : data.values[l + 1].cols());
      cov = d.cov - below;
      below = d.cov / d.size;
      values = std::move(d.means);
    }
    const std::vector<Index>& here = data.levels[l];
    Matrix whole = select(Matrix(cov + below), here, here);
    out.push_back({Vector::Zero(static_cast<Index>(here.size())), lifted(select(cov, here, here), whole)});
  }
  return out;
}

// From two crossed classifications, each by itself: what units alone would have is taken off the squares
// between its clusters (Henderson, 1953).
Implied starting_moments(const CrossedData& data) {
  const Matrix observed = data.observed();
  // values are taken for more where some are missing
  const Vector more = (data.units * observed.diagonal().cwiseMax(1.0).cwiseInverse()).cwiseSqrt();
  const Matrix products = scale_both(more, data.products()), whole = products / data.units;
  std::vector<Matrix> parts = {whole};
  for (int c = 0; c < 2; ++c) {
    const Classification& one = data.classifications[c];
    const double n = static_cast<double>(one.count());
    Matrix sums = Matrix::Zero(products.rows(), one.count());
    for (std::size_t k = 0; k < data.first.size(); ++k)
      sums.col(c ? data.second[k] : data.first[k]) += data.sums.col(static_cast<Index>(k));
    const Vector sizes = one.sizes.cwiseMax(1.0);
    const Matrix scaled = scale_rows(more, scale_cols(sums, sizes.cwiseSqrt().cwiseInverse()));
    const Matrix squares = outer(scaled, scaled);
    Matrix cov = squares - ((n - 1) / std::max(1.0, data.units - n)) * (products - squares);
    cov /= std::max(1.0, data.units - one.sizes.squaredNorm() / data.units);
    parts.push_back(lifted(cov, whole));
    parts[0] -= parts.back();
  }
  parts[0] = lifted(parts[0], whole);
  Implied out;
  for (Index l = 0; l < 3; ++l) {
    const std::vector<Index>& here = data.levels[l];
    const Index n = static_cast<Index>(here.size());
    Matrix cov = Matrix::Zero(n, n);
    const std::vector<Index> own = data.on(l);
    Matrix values(0, 0);
    if (l) values = data.classifications[l - 1].values;
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < n; ++j) {
        const bool units = data.measured[here[i]] == 0 && data.measured[here[j]] == 0;
        const bool clusters = data.measured[here[i]] > 0 && data.measured[here[j]] > 0;
        if (units) cov(i, j) = parts[l](here[i], here[j]);
        if (clusters)
          cov(i, j) = values.row(here[i] - own[0]).dot(values.row(here[j] - own[0])) /
                      static_cast<double>(values.cols());
      }
    }
    out.push_back({Vector::Zero(n), std::move(cov)});
  }
  return out;
}

// The parameters of a saturated model: lower triangles by level, and the means of the variables.
struct SaturatedParameters {
  std::vector<Block> blocks;
  std::vector<std::vector<Index>> levels;
  std::vector<Index> first;  // parameter of each level
  std::vector<Index> mean;   // parameter of each variable
  Vector theta;
};

SaturatedParameters saturated_parameters(const Layout& layout, const Vector& origin, const Implied& start) {
  SaturatedParameters out;
  out.levels = layout.levels;
  const Index depth = static_cast<Index>(layout.levels.size());
  std::vector<Index> highest(layout.nvariables, 0);
  for (Index l = 0; l < depth; ++l) {
    for (const Index v : layout.levels[l]) highest[v] = l;
  }
  out.mean.resize(layout.nvariables);
  std::vector<double> theta;
  for (Index l = 0; l < depth; ++l) {
    const int n = static_cast<int>(layout.levels[l].size());
    std::vector<Entry> entries;
    const auto add = [&](Slot slot, int i, int j, double value) {
      entries.push_back({slot, i, j, static_cast<int>(theta.size()), 0.0});
      theta.push_back(value);
    };
    out.first.push_back(static_cast<Index>(theta.size()));
    for (int j = 0; j < n; ++j) {
      for (int i = j; i < n; ++i) add(Slot::kSymmetric, i, j, start[l].cov(i, j));
    }
    for (int i = 0; i < n; ++i) {
      const Index v = layout.levels[l][i];
      if (highest[v] != l) continue;
      out.mean[v] = static_cast<Index>(theta.size());
      add(Slot::kIntercept, i, 0, origin[v]);
    }
    out.blocks.emplace_back(n, n, std::move(entries));
  }
  out.theta = Eigen::Map<const Vector>(theta.data(), static_cast<Index>(theta.size()));
  return out;
}

// The matrix of a level among parameters, or derivatives with respect to them.
Matrix level_of(const SaturatedParameters& at, const Vector& theta, std::size_t level) {
  const Index n = static_cast<Index>(at.levels[level].size());
  return unpack_lower(Vector(theta.segment(at.first[level], n * (n + 1) / 2)), 0, n);
}

// A step of EM, which is the gradient in another metric for every level: S becomes
// S + 2 / n S G S - d d', d = S g / n, for the n units of a level. Means may differ by level on the way,
// which only speeds it up: their sum is the mean. False where that is outside the domain.
bool nested_em_step(const SaturatedParameters& at, const std::vector<double>& units, const Evaluation& here,
                    Vector& theta) {
  if (!here.in_domain || !here.gradient.allFinite()) return false;
  const Vector score = -0.5 * here.gradient;
  Vector next = theta;
  for (std::size_t l = 0; l < at.levels.size(); ++l) {
    const Index n = static_cast<Index>(at.levels[l].size());
    const Matrix cov = level_of(at, theta, l);
    Matrix slope = 0.5 * level_of(at, score, l);
    slope.diagonal() *= 2;
    Vector gain(n);
    for (Index i = 0; i < n; ++i) gain[i] = score[at.mean[at.levels[l][i]]];
    const Vector shift = apply(cov, gain) / units[l];
    const Matrix change = sandwich(cov, slope);
    const double twice = 2 / units[l];
    Index k = at.first[l];
    for (Index j = 0; j < n; ++j) {
      for (Index i = j; i < n; ++i) next[k++] = cov(i, j) + twice * change(i, j) - shift[i] * shift[j];
    }
    for (Index i = 0; i < n; ++i) next[at.mean[at.levels[l][i]]] += shift[i];
  }
  theta = std::move(next);
  return true;
}

// Standard deviations of the variables of a level, all its levels taken together.
Vector total_sd(const SaturatedParameters& at, const Implied& start, std::size_t level) {
  Vector total = Vector::Zero(static_cast<Index>(at.mean.size()));
  for (std::size_t l = 0; l < at.levels.size(); ++l) {
    for (std::size_t i = 0; i < at.levels[l].size(); ++i)
      total[at.levels[l][i]] += start[l].cov(static_cast<Index>(i), static_cast<Index>(i));
  }
  return select(total, at.levels[level]).cwiseSqrt();
}

// What makes a point of the cone a maximum among those near: no variance that is added in any direction makes
// the likelihood greater. Points with variances far beyond those of the data are none, whatever value
// rounding gives them.
bool holds_on_border(const SaturatedParameters& at, const std::vector<double>& units, const Implied& start,
                     const Optimum& found) {
  if (found.gradient.size() == 0) return false;
  for (std::size_t l = 1; l < at.levels.size(); ++l) {
    if (at.levels[l].empty()) continue;
    const Vector sd = total_sd(at, start, l);
    Matrix slope = -0.25 * level_of(at, found.gradient, l);
    slope.diagonal() *= 2;
    const SymmetricEigen eigen(scale_both(sd, slope));
    if (!eigen.converged || eigen.values.maxCoeff() > kRising * units[l]) return false;
  }
  return true;
}

bool plausible(const SaturatedParameters& at, const Implied& start, const Vector& theta) {
  for (std::size_t l = 0; l < at.levels.size(); ++l) {
    if (at.levels[l].empty()) continue;
    const Vector sd = total_sd(at, start, l), variance = level_of(at, theta, l).diagonal();
    for (Index i = 0; i < sd.size(); ++i) {
      if (!(variance[i] < kMostVariance * sd[i] * sd[i])) return false;
    }
  }
  return true;
}

// The maximum in the cone: by roots of the matrices, and where these lead nowhere, or to a point from which
// it goes up, again from where EM comes to. That is slow near the border and finds its way from anywhere.
Optimum found_in_cone(const Objective& objective, const SaturatedParameters& at,
                      const std::vector<double>& units, const Implied& start, const ScoringOptions& how) {
  ScoringOptions shorter = how;
  shorter.max_iterations = std::min(how.max_iterations, kConeSteps);
  std::optional<Optimum> best;
  Vector theta = at.theta;
  for (int round = 0; round < kConeSearches; ++round) {
    Optimum found = saturated_in_cone(objective, theta, start, shorter);
    bool higher = false;
    if (plausible(at, start, found.theta)) {
      const Evaluation here = objective.evaluate(found.theta);
      found.gradient = here.gradient;
      const double left = found.iterations.empty() ? 1 : found.iterations.back().decrement;
      const bool converged = found.stop == Stop::kConverged,
                 still = converged || (here.in_domain && left < kStill);
      const bool holds = still && holds_on_border(at, units, start, found);
      higher = !best || found.value < best->value - kStill;
      if (higher) {
        // who only stands still may do so in a valley: that is the maximum if no other search comes higher
        found.stop = holds ? Stop::kConverged : Stop::kNoProgress;
        best = std::move(found);
        if (converged && holds) return *best;
      }
    }
    if (!higher && round) break;  // the next would start where this one did
    theta = best ? best->theta : at.theta;
    for (std::size_t l = 1; l < at.levels.size(); ++l) {
      const Index n = static_cast<Index>(at.levels[l].size());
      const Vector sd = total_sd(at, start, l);
      const Matrix whole = scale_both(sd, Matrix::Identity(n, n)),
                   raised = lifted(level_of(at, theta, l), whole);
      Index k = at.first[l];
      for (Index j = 0; j < n; ++j) {
        for (Index i = j; i < n; ++i) theta[k++] = raised(i, j);
      }
    }
    for (int k = 0; k < kEmSteps; ++k) {
      check_interrupt();
      if (!nested_em_step(at, units, objective.evaluate(theta), theta)) break;
    }
  }
  if (best) return *best;
  Optimum none;
  none.theta = theta;
  none.value = objective.evaluate(theta).value;
  none.stop = Stop::kNoProgress;
  return none;
}

SaturatedFit fitted(const std::shared_ptr<const Likelihood>& likelihood, const Vector& origin,
                    const std::vector<double>& units, const Implied& start, const SaturatedOptions& options) {
  const SaturatedParameters at = saturated_parameters(likelihood->layout(), origin, start);
  const Index npar = at.theta.size(), depth = static_cast<Index>(at.levels.size());
  std::vector<int> own(depth);
  for (Index l = 0; l < depth; ++l) own[l] = static_cast<int>(l);
  const int most = options.max_iterations ? options.max_iterations : 500;
  const Vector none = Vector::Constant(npar, std::numeric_limits<double>::infinity());
  const Objective objective(static_cast<int>(npar), at.blocks, {{likelihood, own}});
  const ScoringOptions how{most, options.tolerance, !options.cone, options.cone};
  const Optimum best = options.cone ? found_in_cone(objective, at, units, start, how)
                                    : minimize(objective, at.theta, -none, none, how);
  SaturatedFit out;
  out.loglik = -0.5 * best.value;
  out.converged = best.stop == Stop::kConverged;
  out.iterations = static_cast<int>(best.iterations.size());
  if (!best.iterations.empty()) out.decrement = best.iterations.back().decrement;
  for (Index l = 0; l < depth; ++l) {
    BlockPoint point;
    objective.implied(best.theta, static_cast<int>(l), point);
    out.levels.push_back({point.mean, point.total});
  }
  return out;
}

}  // namespace

SaturatedFit fit_saturated(const std::shared_ptr<const NestedLikelihood>& likelihood,
                           const SaturatedOptions& options) {
  const NestedData& data = *likelihood->data();
  return fitted(likelihood, data.origin, data.units_by_level(), starting_moments(data), options);
}

SaturatedFit fit_saturated(const std::shared_ptr<const CrossedLikelihood>& likelihood,
                           const SaturatedOptions& options) {
  const CrossedData& data = likelihood->data();
  return fitted(likelihood, data.origin, data.units_by_level(), starting_moments(data), options);
}

}  // namespace msem
