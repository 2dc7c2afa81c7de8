// Contributions of single clusters to the log-likelihood and its derivatives.
#include <algorithm>
#include <map>
#include <stdexcept>

#include "data/counted_clusters.hpp"
#include "likelihood/complete/twolevel.hpp"

namespace msem {

namespace {

constexpr Index kScoreRows = 256;  // clusters handled together

// X M X' for each column of stacked p x p matrices M.
Matrix congruence(const Matrix& stacked, const Matrix& x) {
  Matrix out(stacked.rows(), stacked.cols());
  for (Index a = 0; a < stacked.cols(); ++a) {
    const auto m = slice(stacked, a, x.rows(), x.rows());
    slice(out, a, x.rows(), x.rows()) = outer_sandwich(x, m);
  }
  return out;
}

// Row r: the outer product a_r b_r', columns stacked.
Matrix row_outer(const Matrix& a, const Matrix& b) {
  Matrix out(a.rows(), a.cols() * b.cols());
  for (Index j = 0; j < b.cols(); ++j) {
    out.middleCols(j * a.cols(), a.cols()) = scale_rows(b.col(j), a);
  }
  return out;
}

// Lower triangles of x_r x_r' by column, a row for each r, and columns added to their diagonals.
Matrix row_squares(const Matrix& x) {
  const Index p = x.cols();
  Matrix out(x.rows(), p * (p + 1) / 2);
  Index at = 0;
  for (Index b = 0; b < p; ++b) {
    for (Index a = b; a < p; ++a) out.col(at++).array() = x.col(a).array() * x.col(b).array();
  }
  return out;
}

void add_to_packed_diagonal(Matrix& triangles, Index p, const Matrix& diagonal) {
  Index at = 0;
  for (Index i = 0; i < p; at += p - i++) triangles.col(at) += diagonal.col(i);
}

void add_to_diagonal(Matrix& stacked_rows, Index p, const Matrix& diagonal) {
  for (Index i = 0; i < p; ++i) stacked_rows.col(i * (p + 1)) += diagonal.col(i);
}

}  // namespace

void ClusterData::require(Index p, Index q) const {
  const bool shapes = means.rows() == sizes.size() && means.cols() == p + q &&
                      within.rows() == sizes.size() && within.cols() == p * (p + 1) / 2;
  if (!shapes) throw std::invalid_argument("statistics of clusters have inconsistent shapes");
}

std::pair<Matrix, Matrix> TwoLevelPoint::scores(const ClusterData& clusters, const Tangents& within,
                                                const Tangents& between) const {
  const Index p = data_->p, q = data_->q, total = clusters.sizes.size();
  const Whitened b = whiten_between(between, projection_, chol_z_, q);
  Whitened w;
  if (p) w = whiten_within(within);
  std::pair<Matrix, Matrix> out{Matrix::Zero(total, within.k()), Matrix::Zero(total, between.k())};
  const Matrix pooled = p ? pack_doubled(congruence(w.cov, v_), p) : Matrix();
  const Matrix w_cov = p ? pack_doubled(w.cov, p) : Matrix(), b_cov = p ? pack_doubled(b.cov, p) : Matrix();
  for (Index first = 0; first < total; first += kScoreRows) {
    const Index count = std::min(kScoreRows, total - first);
    auto score_w = out.first.middleRows(first, count);
    auto score_b = out.second.middleRows(first, count);
    const Vector n = clusters.sizes.segment(first, count);
    Matrix z = clusters.means.block(first, p, count, q).rowwise() -
               (mu_.tail(q) + data_->origin.tail(q)).transpose();
    if (q) {
      z = chol_z_.whiten(z.transpose()).transpose().eval();
      Matrix g_zz = -row_outer(z, z);
      add_to_diagonal(g_zz, q, Matrix::Ones(count, q));
      add_product(score_b, -0.5, g_zz, b.zcov);
      add_product(score_b, 1, z, b.zmean);
    }
    if (!p) continue;
    Matrix x = clusters.means.block(first, 0, count, p).rowwise() -
               (mu_.head(p) + data_->origin.head(p)).transpose();
    if (q) add_outer(x, -1, z, product(slopes_, chol_z_.lower()));
    const Matrix shrink = one_plus_outer(n, lambda_).cwiseInverse();
    const Matrix y = scale_rows(n, shrink.cwiseProduct(product(x, v_)));
    Matrix g_c = -row_squares(y);
    Matrix g_w = scale_rows(n.cwiseInverse(), g_c);
    add_to_packed_diagonal(g_c, p, scale_rows(n, shrink));
    add_to_packed_diagonal(g_w, p, shrink.colwise() + (n.array() - 1).matrix());
    add_product(score_w, -0.5, g_w, w_cov);
    add_product(score_w, 0.5, clusters.within.middleRows(first, count), pooled);
    add_product(score_w, 1, y, w.mean);
    add_product(score_b, -0.5, g_c, b_cov);
    add_product(score_b, 1, y, b.mean);
    if (q) add_product(score_b, 1, row_outer(y, z), b.slope);
  }
  return out;
}

Vector TwoLevelPoint::cluster_loglik(const ClusterData& clusters) const {
  const Index p = data_->p, q = data_->q, total = clusters.sizes.size();
  Vector f = Vector::Zero(total);
  Matrix z = clusters.means.rightCols(q).rowwise() - (mu_.tail(q) + data_->origin.tail(q)).transpose();
  if (q) {
    z = chol_z_.whiten(z.transpose()).transpose().eval();
    f = z.rowwise().squaredNorm();
    f.array() += static_cast<double>(q) * kLog2Pi + chol_z_.log_det();
  }
  if (p) {
    const Matrix precision = outer(v_, v_);  // Sigma_w^-1
    const double log_det = -2 * log_abs_determinant(v_);
    Matrix stacked(p * p, 1);
    stacked.col(0) = Eigen::Map<const Vector>(precision.data(), p * p);
    Matrix x = clusters.means.leftCols(p).rowwise() - (mu_.head(p) + data_->origin.head(p)).transpose();
    if (q) add_outer(x, -1, z, product(slopes_, chol_z_.lower()));
    const Matrix grow = one_plus_outer(clusters.sizes, lambda_);
    f += apply(clusters.within, pack_doubled(stacked, p).col(0));
    f += clusters.sizes * (static_cast<double>(p) * kLog2Pi + log_det);
    f += log_row_products(grow);
    f += clusters.sizes.cwiseProduct(product(x, v_).cwiseAbs2().cwiseQuotient(grow).rowwise().sum());
  }
  return -0.5 * f;
}

CompleteClusters::CompleteClusters(std::shared_ptr<const CompleteLikelihood> whole,
                                   const ClusterData& clusters)
    : whole_(std::move(whole)), clusters_(clusters) {
  clusters_.require(whole_->data().p, whole_->data().q);
}

std::vector<Index> CompleteClusters::kinds() const {
  std::map<double, Index> number;
  std::vector<Index> out;
  for (const double size : clusters_.sizes)
    out.push_back(number.try_emplace(size, static_cast<Index>(number.size())).first->second);
  return out;
}

std::vector<Matrix> CompleteClusters::scores(const Implied& moments, const LevelTangents& tangents) const {
  const TwoLevels shape = whole_->shape();
  TwoLevelPoint point;
  if (!point.prepare(whole_->data(), shape.moments(moments))) return {};
  return shape.by_level(point.scores(clusters_, shape.within(tangents), shape.between(tangents)));
}

Vector CompleteClusters::loglik(const Implied& moments) const {
  TwoLevelPoint point;
  if (!point.prepare(whole_->data(), whole_->shape().moments(moments))) return {};
  return point.cluster_loglik(clusters_);
}

std::shared_ptr<const Likelihood> CompleteClusters::alone(Index cluster) const {
  const Index m = clusters_.means.cols();
  return std::make_shared<CompleteLikelihood>(
      TwoLevelData(whole_->data().nboth, unpack_lower(clusters_.within, cluster, whole_->data().p),
                   Vector::Constant(1, clusters_.sizes[cluster]), Vector::Ones(1),
                   clusters_.means.row(cluster), Matrix::Zero(m * m, 1)));
}

std::shared_ptr<const Likelihood> CompleteClusters::weighted(const Vector& weights) const {
  const CountedClusters c =
      counted_clusters(clusters_.sizes, clusters_.means, clusters_.within, whole_->data().p, weights);
  return std::make_shared<CompleteLikelihood>(
      TwoLevelData(whole_->data().nboth, c.ssw, c.sizes, c.counts, c.means, c.scatter));
}

}  // namespace msem
