#include "after/integrated_slopes.hpp"

#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "likelihood/slopes/density.hpp"

namespace msem {

namespace {

constexpr Index kScorePieces = 32;  // of clusters, at most

std::vector<Index> range(Index first, Index last) {
  std::vector<Index> out(last - first);
  std::iota(out.begin(), out.end(), first);
  return out;
}

// Mean and covariance matrix of a mixture, about a centre near the mean.
class Mixture {
 public:
  explicit Mixture(Index d) : centre_(d), off_(d), mean_(d), cov_(d, d) {}
  void clear() {
    total_ = 0;
    mean_.setZero();
    cov_.setZero();
  }
  void add(double weight, const Vector& mean, const Matrix& cov) {
    if (total_ == 0) centre_ = mean;
    off_ = mean - centre_;
    total_ += weight;
    mean_ += weight * off_;
    cov_ += weight * cov;
    add_outer(cov_, weight, off_, off_);
  }
  void write(double* mean, double* cov) const {
    const Index d = mean_.size();
    for (Index i = 0; i < d; ++i) mean[i] = centre_[i] + mean_[i] / total_;
    for (Index j = 0; j < d; ++j) {
      for (Index i = 0; i < d; ++i)
        cov[j * d + i] = cov_(i, j) / total_ - mean_[i] / total_ * (mean_[j] / total_);
    }
  }

 private:
  double total_ = 0;
  Vector centre_, off_, mean_;
  Matrix cov_;
};

}  // namespace

IntegratedSlopes::IntegratedSlopes(std::shared_ptr<const SlopeClusterData> data, Implied levels)
    : data_(std::move(data)), over_(integration(*data_)) {
  const Index n = over_.shape.p, r = data_->nboth + data_->q + data_->nslopes();
  if (levels.size() != 2 || levels[0].mean.size() < n || levels[1].mean.size() < r)
    throw std::invalid_argument("the data and the moments of the model do not fit together");
  moments_ = {std::move(levels[0].mean), std::move(levels[1].mean), std::move(levels[0].cov),
              std::move(levels[1].cov)};
  const Moments observed{moments_.mean_w.head(n), moments_.mean_b.head(r), moments_.cov_w.topLeftCorner(n, n),
                         moments_.cov_b.topLeftCorner(r, r)};
  if (!point_.prepare(*data_, over_, observed))
    throw std::domain_error("the moments are not those of a distribution");
}

// Given the slopes and the cluster variables the others are normal; the units say what they do about the
// parts of variables of level 1.
IntegratedSlopes::ClusterScores IntegratedSlopes::clusters() const {
  const SlopeClusterData& data = *data_;
  const Index b = data.nboth, q = data.q, m = data.nslopes(), J = data.nclusters();
  const std::vector<Index> given = range(b, b + q + m);
  std::vector<Index> own = range(0, b);
  for (Index k = b + q; k < moments_.mean_b.size(); ++k) own.push_back(k);
  const Index d = static_cast<Index>(own.size());
  Cholesky chol;
  if (!chol.compute(select(moments_.cov_b, given, given)))
    throw std::domain_error("the covariance matrix of slopes and cluster variables is singular");
  const Matrix joint = select(moments_.cov_b, given, own), paths = chol.solve(joint).transpose();
  Matrix left = select(moments_.cov_b, own, own) - product(paths, joint);
  symmetrise(left);
  const Vector mean = select(moments_.mean_b, own), centre = select(moments_.mean_b, given);
  const Matrix reach = left.leftCols(b);
  ClusterScores out{Matrix(d, J), Matrix(d * d, J)};
  const Index pieces = std::min(kScorePieces, J);
  in_threads(pieces, 0, [&](std::ptrdiff_t piece) {
    SlopeDensity density(point_);
    Mixture mixture(d);
    Vector known(q + m), expected(d);
    Matrix half(d, b), cov(d, d);
    for (Index j = J * piece / pieces; j < J * (piece + 1) / pieces; ++j) {
      check_interrupt();
      mixture.clear();
      point_.at_nodes(j, density, [&](const double* s, double weight) {
        known.head(q) = data.cluster_values.col(j);
        for (Index k = 0; k < m; ++k) known[q + k] = s[k];
        known -= centre;
        expected = mean;
        add_applied(expected, 1, paths, known);
        add_applied(expected, 1, reach, density.score());
        set_product(half, reach, density.information());
        cov = left;
        add_outer(cov, -1, half, reach);
        mixture.add(weight, expected, cov);
      });
      mixture.write(out.mean.col(j).data(), out.cov.col(j).data());
    }
  });
  return out;
}

IntegratedSlopes::UnitScores IntegratedSlopes::units(const ClusteredRows& rows) const {
  const SlopeClusterData& data = *data_;
  const Index p = data.p, l = p + data.latent, m = data.nslopes(), b = data.nboth, J = data.nclusters();
  const Index n = moments_.mean_w.size() - m, d = n - p;
  if (static_cast<Index>(rows.unit.size()) != p || rows.nclusters != J)
    throw std::invalid_argument("the rows and the moments of the model do not fit together");
  // all variables of level 1 but products; covariates of slopes are among the first l
  std::vector<Index> own = range(0, l);
  for (Index k = l + m; k < moments_.mean_w.size(); ++k) own.push_back(k);
  const Matrix lambda = select(moments_.cov_w, own, range(l, l + m));
  Matrix sigma = select(moments_.cov_w, own, own);
  add_outer(sigma, -1, lambda, lambda);
  const Vector mu = select(moments_.mean_w, own);
  const Matrix& c = point_.integrand().between.cov;
  const RowPatterns patterns = row_patterns(rows.unit, rows.nrows);
  std::vector<std::vector<Index>> of_cluster(J);
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (rows.codes[i] < 0 || rows.codes[i] >= J)
      throw std::invalid_argument("a cluster code is out of range");
    of_cluster[rows.codes[i]].push_back(static_cast<Index>(i));
  }
  UnitScores out{RowMatrix(rows.nrows, d), Matrix(d * d, rows.nrows)};
  const Index pieces = std::min(kScorePieces, J);
  const std::vector<Index> latent = range(p, n);
  in_threads(pieces, 0, [&](std::ptrdiff_t piece) {
    SlopeDensity density(point_);
    SlopeMap map(lambda, data.covariate);
    std::vector<Mixture> mixtures;
    Vector mean(n), score(d), off(p);
    Matrix half(n, n), whole(n, n), between(b, b);
    std::vector<Matrix> gains(patterns.patterns.size() + 1), left(patterns.patterns.size() + 1);
    for (Index j = J * piece / pieces; j < J * (piece + 1) / pieces; ++j) {
      check_interrupt();
      const std::vector<Index>& units = of_cluster[j];
      mixtures.resize(std::max(mixtures.size(), units.size()), Mixture(d));
      for (std::size_t k = 0; k < units.size(); ++k) mixtures[k].clear();
      point_.at_nodes(j, density, [&](const double* s, double weight) {
        map.set(s);
        set_product(half, map.map(), sigma);
        whole.setZero();
        add_outer(whole, 1, half, map.map());
        mean.setZero();
        add_applied(mean, 1, map.map(), mu);
        between = c - outer_sandwich(c, density.information());
        for (Matrix& gain : gains) gain.resize(0, 0);
        for (std::size_t k = 0; k < units.size(); ++k) {
          const Index i = units[k];
          const std::int32_t pattern = patterns.of_row[i];
          const std::size_t at = pattern < 0 ? patterns.patterns.size() : static_cast<std::size_t>(pattern);
          if (!gains[at].size()) {
            const Pattern seen = pattern < 0 ? Pattern() : patterns.patterns[at];
            gains[at] = Matrix::Zero(d, p);
            left[at] = whole.bottomRightCorner(d, d);
            if (!seen.empty()) {
              Cholesky chol;
              if (!chol.compute(select(whole, seen, seen))) return;
              const Matrix joint = select(whole, seen, latent), solved = chol.solve(joint);
              for (std::size_t a = 0; a < seen.size(); ++a)
                gains[at].col(seen[a]) = solved.row(static_cast<Index>(a));
              add_cross(left[at], -1, joint, solved);
              left[at] += outer_sandwich(gains[at].leftCols(b), between);
            }
          }
          for (Index v = 0; v < p; ++v) {
            const double y = rows.unit[v][i];
            off[v] = std::isnan(y) ? 0.0 : y - mean[v] - (v < b ? density.part(v) : 0.0);
          }
          score = mean.tail(d);
          add_applied(score, 1, gains[at], off);
          mixtures[k].add(weight, score, left[at]);
        }
      });
      for (std::size_t k = 0; k < units.size(); ++k) {
        Vector found(d);
        mixtures[k].write(found.data(), out.cov.col(units[k]).data());
        out.mean.row(units[k]) = found;
      }
    }
  });
  return out;
}

}  // namespace msem
