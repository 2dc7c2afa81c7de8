#include "fit/saturated_nested.hpp"

#include <algorithm>
#include <limits>

#include "fit/cone.hpp"

namespace msem {

namespace {

constexpr double kLeast = 0.05;  // eigenvalue of a starting matrix in the metric of the clusters' differences

// Positive definite, with no eigenvalue below a share of `whole`, of which it is a part.
Matrix lifted(const Matrix& cov, const Matrix& whole) {
  Vector sd = whole.diagonal().cwiseMax(0).cwiseSqrt();
  for (double& x : sd) x = x > 0 ? x : 1.0;
  const SymmetricEigen eigen(scale_both(sd.cwiseInverse(), cov));
  const Matrix vectors = scale_rows(sd, eigen.vectors);
  return outer(scale_cols(vectors, eigen.values.cwiseMax(kLeast)), vectors);
}

// Means of clusters, unweighted over the clusters that they have, and how these differ within them.
struct Differences {
  Matrix means;  // of those one level above
  Matrix cov;
  double size = 1;  // harmonic mean of how many there are
};

Differences differences(const Matrix& values, const std::vector<Index>& parent, Index parents) {
  const Index n = values.rows();
  Differences out{Matrix::Zero(n, parents), Matrix::Zero(n, n)};
  Vector counts = Vector::Zero(parents);
  for (Index k = 0; k < values.cols(); ++k) {
    out.means.col(parent[k]) += values.col(k);
    counts[parent[k]] += 1;
  }
  out.means = scale_cols(out.means, counts.cwiseInverse());
  Matrix off = values;
  for (Index k = 0; k < values.cols(); ++k) off.col(k) -= out.means.col(parent[k]);
  add_outer(out.cov, 1 / std::max(1.0, static_cast<double>(values.cols() - parents)), off, off);
  out.size = static_cast<double>(parents) / counts.cwiseInverse().sum();
  return out;
}

Implied starting_moments(const NestedData& data) {
  const Index n = data.nvariables(), depth = data.nlevels();
  Implied out;
  Matrix values = Matrix::Zero(n, data.sizes.size());  // of the clusters of the level below, by variable
  Matrix below = Matrix::Zero(n, n);  // how much of their differences is that of what they have
  const std::vector<Index> units = data.on(0);
  const Index p = static_cast<Index>(units.size());
  for (Index l = 0; l < depth; ++l) {
    const std::vector<Index> own = data.on(l);
    Matrix cov;
    if (l == 0) {
      put_rows(values, own, data.values[0]);
      const Vector pooled = apply_transposed(data.products, data.weight);
      cov = Matrix::Zero(n, n);
      const double df = std::max(1.0, data.sizes.sum() - static_cast<double>(data.sizes.size()));
      put(cov, own, own, unpack_lower(Matrix(pooled.transpose()), 0, p) / df);
      below = cov * (static_cast<double>(data.sizes.size()) / data.sizes.sum()) *
              (data.sizes.cwiseInverse().mean() * data.sizes.mean());
    } else {
      put_rows(values, own, data.values[l]);
      const std::vector<Index> all(values.cols(), 0);
      const bool last = l + 1 == depth;
      const std::vector<Index>& parent = last ? all : data.parent[l - 1];
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
  const Matrix whole = data.products / data.units;
  std::vector<Matrix> parts = {whole};
  for (const Classification& one : data.classifications) {
    const double n = static_cast<double>(one.count());
    const Matrix scaled = scale_cols(one.sums, one.sizes.cwiseSqrt().cwiseInverse());
    const Matrix squares = outer(scaled, scaled);
    Matrix cov = squares - ((n - 1) / std::max(1.0, data.units - n)) * (data.products - squares);
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

SaturatedLevels fitted(const std::shared_ptr<const Likelihood>& likelihood, const Vector& origin,
                       const Implied& start, const SaturatedOptions& options) {
  const Layout layout = likelihood->layout();
  const Index depth = static_cast<Index>(layout.levels.size());
  std::vector<Index> highest(layout.nvariables, 0);
  for (Index l = 0; l < depth; ++l) {
    for (const Index v : layout.levels[l]) highest[v] = std::max(highest[v], l);
  }
  std::vector<double> theta;
  std::vector<Block> blocks;
  std::vector<int> own;
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
      if (highest[v] == l) add(Slot::kIntercept, i, 0, origin[v]);
    }
    own.push_back(static_cast<int>(l));
    blocks.emplace_back(n, n, std::move(entries));
  }
  const int npar = static_cast<int>(theta.size()),
            most = options.max_iterations ? options.max_iterations : 500;
  const Vector none = Vector::Constant(npar, std::numeric_limits<double>::infinity());
  const Objective objective(npar, blocks, {{likelihood, own}});
  const ScoringOptions how{most, options.tolerance, !options.cone, options.cone};
  Optimum best;
  if (options.cone) {
    best = saturated_in_cone(objective, Eigen::Map<const Vector>(theta.data(), npar), start, how);
  } else {
    best = minimize(objective, Eigen::Map<const Vector>(theta.data(), npar), -none, none, how);
  }
  SaturatedLevels out;
  out.loglik = -0.5 * best.value;
  out.converged = best.stop == Stop::kConverged;
  out.iterations = static_cast<int>(best.iterations.size());
  for (Index l = 0; l < depth; ++l) {
    BlockPoint point;
    objective.implied(best.theta, static_cast<int>(l), point);
    out.moments.push_back({point.mean, point.total});
  }
  return out;
}

}  // namespace

SaturatedLevels fit_saturated(const std::shared_ptr<const NestedLikelihood>& likelihood,
                              const SaturatedOptions& options) {
  const NestedData& data = *likelihood->data();
  return fitted(likelihood, data.origin, starting_moments(data), options);
}

SaturatedLevels fit_saturated(const std::shared_ptr<const CrossedLikelihood>& likelihood,
                              const SaturatedOptions& options) {
  const CrossedData& data = likelihood->data();
  return fitted(likelihood, data.origin, starting_moments(data), options);
}

}  // namespace msem
