#include "fit/saturated_nested.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fit/saturated_cone.hpp"
#include "fit/scoring.hpp"

namespace msem {

namespace {

// Eigenvalue of a starting matrix in the metric of the clusters' differences.
constexpr double kLeastShare = 0.05;

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
  std::vector<double> theta;
  for (Index l = 0; l < depth; ++l) {
    const int n = static_cast<int>(layout.levels[l].size());
    std::vector<Entry> entries;
    const auto add = [&](Slot slot, int i, int j, double value) {
      entries.push_back({slot, i, j, static_cast<int>(theta.size()), 0.0});
      theta.push_back(value);
    };
    for (int j = 0; j < n; ++j) {
      for (int i = j; i < n; ++i) add(Slot::kSymmetric, i, j, start[l].cov(i, j));
    }
    for (int i = 0; i < n; ++i) {
      const Index v = layout.levels[l][i];
      if (highest[v] != l) continue;
      add(Slot::kIntercept, i, 0, origin[v]);
    }
    out.blocks.emplace_back(n, n, std::move(entries));
  }
  out.theta = Eigen::Map<const Vector>(theta.data(), static_cast<Index>(theta.size()));
  return out;
}

SaturatedFit fitted(const std::shared_ptr<const Likelihood>& likelihood, const Vector& origin,
                    const Implied& start, const SaturatedOptions& options) {
  const int most = options.max_iterations ? options.max_iterations : 500;
  const SaturatedParameters at = saturated_parameters(likelihood->layout(), origin, start);
  const Index npar = at.theta.size(), depth = static_cast<Index>(at.levels.size());
  std::vector<int> own(depth);
  for (Index l = 0; l < depth; ++l) own[l] = static_cast<int>(l);
  const Objective objective(static_cast<int>(npar), at.blocks, {{likelihood, own}});
  const auto moments = [&](const Vector& theta) {
    Implied out;
    for (Index l = 0; l < depth; ++l) {
      BlockPoint point;
      objective.implied(theta, static_cast<int>(l), point);
      out.push_back({point.mean, point.total});
    }
    return out;
  };
  if (options.cone) return saturated_in_cone(*likelihood, moments(at.theta), {most, options.tolerance});
  const Vector none = Vector::Constant(npar, kInfinity);
  const Optimum best = minimize(objective, at.theta, -none, none, {most, options.tolerance, true});
  SaturatedFit out;
  out.loglik = -0.5 * best.value;
  out.converged = best.stop == Stop::kConverged;
  out.iterations = static_cast<int>(best.iterations.size());
  if (!best.iterations.empty()) out.decrement = best.iterations.back().decrement;
  out.levels = moments(best.theta);
  return out;
}

}  // namespace

SaturatedFit fit_saturated(const std::shared_ptr<const NestedLikelihood>& likelihood,
                           const SaturatedOptions& options) {
  const NestedData& data = *likelihood->data();
  return fitted(likelihood, data.origin, starting_moments(data), options);
}

SaturatedFit fit_saturated(const std::shared_ptr<const CrossedLikelihood>& likelihood,
                           const SaturatedOptions& options) {
  const CrossedData& data = likelihood->data();
  return fitted(likelihood, data.origin, starting_moments(data), options);
}

}  // namespace msem
