#include "data/slope_clusters.hpp"

#include <numeric>
#include <stdexcept>

namespace msem {

namespace {

// Sums over pairs of variables, and of what they are divided by.
struct PairSums {
  explicit PairSums(Index n) : sum(Matrix::Zero(n, n)), count(Matrix::Zero(n, n)) {}
  Matrix mean() const {
    return sum.binaryExpr(count, [](double s, double c) { return c > 0 ? s / c : 0.0; });
  }
  Matrix sum, count;
};

SlopeClusterData some_clusters(const SlopeClusterData& data, const std::vector<Index>& clusters) {
  SlopeClusterData out;
  out.p = data.p;
  out.nboth = data.nboth;
  out.q = data.q;
  out.fixed = data.fixed;
  out.latent = data.latent;
  out.covariate = data.covariate;
  out.nodes = data.nodes;
  out.patterns = data.patterns;
  std::vector<Index> cells;
  out.first_cell.push_back(0);
  for (const Index j : clusters) {
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) cells.push_back(c);
    out.first_cell.push_back(static_cast<Index>(cells.size()));
  }
  for (const Index c : cells) out.cell_pattern.push_back(data.cell_pattern[c]);
  out.cell_sizes = select(data.cell_sizes, cells);
  out.means = select_cols(data.means, cells);
  out.within = select_cols(data.within, cells);
  out.cluster_values = select_cols(data.cluster_values, clusters);
  out.weight = select(data.weight, clusters);
  return out;
}

}  // namespace

void set_cells(SlopeClusterData& out, const Vector& sizes, const Matrix& means, const Matrix& within) {
  Index p = 0;
  while (p * (p + 1) / 2 < within.cols()) ++p;
  const Index J = sizes.size();
  if (p * (p + 1) / 2 != within.cols() || means.rows() != J || within.rows() != J || means.cols() < p)
    throw std::invalid_argument("the statistics of single clusters do not fit together");
  out.p = p;
  out.q = means.cols() - p;
  out.patterns.assign(1, Pattern(p));
  std::iota(out.patterns[0].begin(), out.patterns[0].end(), Index{0});
  out.first_cell.resize(J + 1);
  std::iota(out.first_cell.begin(), out.first_cell.end(), Index{0});
  out.cell_pattern.assign(J, 0);
  out.cell_sizes = sizes;
  const Matrix columns = means.transpose();
  out.means = columns.topRows(p);
  out.cluster_values = columns.bottomRows(out.q);
  out.within.resize(p * p, J);
  for (Index j = 0; j < J; ++j) slice(out.within, j, p, p) = unpack_lower(within, j, p);
}

void set_cells(SlopeClusterData& out, const IncompleteData& data, const Matrix& products) {
  require_products(products, data);
  const Index p = data.p;
  for (const Pattern& pattern : data.cluster_patterns) {
    if (static_cast<Index>(pattern.size()) != data.q)
      throw std::invalid_argument("a cluster variable is missing");
  }
  out.p = p;
  out.q = data.q;
  out.patterns = data.unit_patterns;
  out.first_cell = data.first_cell;
  out.cell_pattern = data.cell_pattern;
  out.cell_sizes = data.cell_rows;
  out.means = Matrix::Zero(p, data.ncells());
  out.within = Matrix::Zero(p * p, data.ncells());
  const Matrix by_cell = products.transpose();
  for (Index c = 0; c < data.ncells(); ++c) {
    const Pattern& seen = out.patterns[out.cell_pattern[c]];
    for (const Index i : seen) out.means(i, c) = data.cell_means(i, c) + data.origin[i];
    const Matrix own = select(unpack_lower(by_cell, c, p), seen, seen);
    std::copy(own.data(), own.data() + own.size(), out.within.col(c).data());
  }
  out.cluster_values = data.cluster_values.colwise() + data.origin.tail(data.q);
}

void require_products(const Matrix&, const SlopeClusterData&) {}

SlopeClusterData weighted(const SlopeClusterData& data, const Matrix&, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every cluster needs a weight");
  SlopeClusterData out = data;
  out.weight = weights;
  return out;
}

SlopeClusterData single_cluster(const SlopeClusterData& data, const Matrix&, Index cluster) {
  SlopeClusterData out = some_clusters(data, {cluster});
  out.weight.setOnes();
  return out;
}

SlopeClusterData resampled(const SlopeClusterData& data, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every cluster needs a weight");
  std::vector<Index> drawn;
  for (Index j = 0; j < weights.size(); ++j) {
    if (weights[j] != 0) drawn.push_back(j);
  }
  SlopeClusterData out = some_clusters(data, drawn);
  out.weight = select(weights, drawn);
  return out;
}

Vector cluster_sizes(const SlopeClusterData& data) {
  Vector out = Vector::Zero(data.nclusters());
  for (Index j = 0; j < data.nclusters(); ++j) {
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) out[j] += data.cell_sizes[c];
  }
  return out;
}

ReducedMoments moments(const SlopeClusterData& data) {
  const Index p = data.p, J = data.nclusters();
  ReducedMoments out;
  out.count.setZero(p);
  out.mean.setZero(p);
  PairSums pairs(p);
  for (const bool second : {false, true}) {
    for (Index j = 0; j < J; ++j) {
      for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
        const Pattern& seen = data.pattern(c);
        const Index o = static_cast<Index>(seen.size());
        const double n = data.weight[j] * data.cell_sizes[c];
        for (Index a = 0; a < o; ++a) {
          if (!second) {
            out.count[seen[a]] += n;
            out.mean[seen[a]] += n * data.means(seen[a], c);
          }
          for (Index b = 0; second && b < o; ++b) {
            const double off =
                (data.means(seen[a], c) - out.mean[seen[a]]) * (data.means(seen[b], c) - out.mean[seen[b]]);
            pairs.sum(seen[a], seen[b]) += data.weight[j] * data.within(b * o + a, c) + n * off;
            pairs.count(seen[a], seen[b]) += n;
          }
        }
      }
    }
    if (!second) out.mean = out.mean.cwiseQuotient(out.count.cwiseMax(1e-300));
  }
  out.cov = pairs.mean();
  out.cluster_mean = apply(data.cluster_values, data.weight) / data.weight.sum();
  const Matrix off = data.cluster_values.colwise() - out.cluster_mean;
  out.cluster_cov = outer(scale_cols(off, data.weight), off) / data.weight.sum();
  return out;
}

CrudeLevels crude_levels(const SlopeClusterData& data) {
  const Index p = data.p, q = data.q, J = data.nclusters();
  Matrix centre = Matrix::Zero(p + q, J), count = Matrix::Zero(p + q, J);
  PairSums within(p);
  double inverse = 0, clusters = 0;
  for (Index j = 0; j < J; ++j) {
    double size = 0;
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      for (const Index i : data.pattern(c)) {
        centre(i, j) += data.cell_sizes[c] * data.means(i, c);
        count(i, j) += data.cell_sizes[c];
      }
      size += data.cell_sizes[c];
    }
    for (Index i = 0; i < p; ++i) centre(i, j) /= std::max(count(i, j), 1e-300);
    centre.col(j).tail(q) = data.cluster_values.col(j);
    count.col(j).tail(q).setOnes();
    if (size > 0) {
      inverse += data.weight[j] / size;
      clusters += data.weight[j];
    }
    Matrix units = Matrix::Zero(p, p);
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      const Pattern& seen = data.pattern(c);
      const Index o = static_cast<Index>(seen.size());
      for (Index a = 0; a < o; ++a) {
        for (Index b = 0; b < o; ++b) {
          const Index i = seen[a], k = seen[b];
          const double off = (data.means(i, c) - centre(i, j)) * (data.means(k, c) - centre(k, j));
          within.sum(i, k) += data.weight[j] * (data.within(b * o + a, c) + data.cell_sizes[c] * off);
          units(i, k) += data.cell_sizes[c];
        }
      }
    }
    within.count += data.weight[j] * (units.array() - 1).cwiseMax(0.0).matrix();
  }
  CrudeLevels out;
  out.within = within.mean();
  out.size = clusters / inverse;
  Vector mean = Vector::Zero(p + q), seen = Vector::Zero(p + q);
  for (Index j = 0; j < J; ++j) {
    for (Index i = 0; i < p + q; ++i) {
      if (!(count(i, j) > 0)) continue;
      mean[i] += data.weight[j] * centre(i, j);
      seen[i] += data.weight[j];
    }
  }
  mean = mean.cwiseQuotient(seen.cwiseMax(1e-300));
  PairSums between(p + q);
  for (Index j = 0; j < J; ++j) {
    for (Index i = 0; i < p + q; ++i) {
      for (Index k = 0; k < p + q; ++k) {
        if (!(count(i, j) > 0 && count(k, j) > 0)) continue;
        between.sum(i, k) += data.weight[j] * (centre(i, j) - mean[i]) * (centre(k, j) - mean[k]);
        between.count(i, k) += data.weight[j];
      }
    }
  }
  out.means = between.mean();
  return out;
}

}  // namespace msem
