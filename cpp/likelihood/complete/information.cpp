// Expected and observed information of the two-level likelihood.
//
// The cluster sizes enter the expected information through three p x p weight matrices, and the observed
// information through three tensors of order p (p + 1 + q)^2, so that neither costs more for many distinct
// sizes than for few once these are summed.
#include <algorithm>

#include "likelihood/complete/twolevel.hpp"

namespace msem {

namespace {

// Rows times the elements of a matrix.
Matrix weight_rows(const Matrix& x, const Matrix& weights) {
  return scale_rows(Eigen::Map<const Vector>(weights.data(), weights.size()), x);
}

// + s A' diag(vec W) B
void add_weighted(Matrix& out, double scale, const Matrix& a, const Matrix& weights, const Matrix& b) {
  add_weighted_cross(out, scale, a, Eigen::Map<const Vector>(weights.data(), weights.size()), b);
}

// Rows {i + j n} of a stack of n x m matrices: row i of each.
void row_of_each(const Matrix& stacked, Index i, Index n, Eigen::Ref<Matrix> out) {
  for (Index a = 0; a < out.cols(); ++a) {
    for (Index j = 0; j < out.rows(); ++j) out(j, a) = stacked(i + j * n, a);
  }
}

// sum_r D_ri n_r^k U_r U_r' for k = -1, 0, 1 and every eigenvector i. D is the same for all rows of a cluster
// size, so the products of each size are formed once, a few sizes at a time.
class RowProducts {
 public:
  RowProducts(const Matrix& u, const TwoLevelData& d, const Matrix& shrink) : width_(u.cols()) {
    const Index packed = width_ * (width_ + 1) / 2, sizes = d.sizes.size(), p = shrink.cols();
    for (Matrix& sum : sums_) sum.setZero(packed, p);
    const Matrix counted = scale_rows(d.row_sign, u);
    Matrix gram(width_, width_);
    Index row = 0;
    for (Index first = 0; first < sizes; first += kSizes) {
      const Index count = std::min(kSizes, sizes - first);
      Matrix products(packed, count);
      for (Index s = 0; s < count; ++s) {
        const Index begin = row;
        while (row < u.rows() && d.size_index[row] == first + s) ++row;
        set_cross(gram, u.middleRows(begin, row - begin), counted.middleRows(begin, row - begin));
        Index at = 0;
        for (Index j = 0; j < width_; ++j) {
          for (Index i = j; i < width_; ++i) products(at++, s) = gram(i, j);
        }
      }
      const Matrix weights = shrink.middleRows(first, count);
      const auto n = d.sizes.segment(first, count);
      add_product(sums_[1], 1, products, weights);
      add_product(sums_[2], 1, products, scale_rows(n, weights));
      add_product(sums_[0], 1, products, scale_rows(n.cwiseInverse(), weights));
    }
  }
  Matrix get(int power, Index i) const {
    return unpack_lower(sums_[power + 1].col(i).transpose(), 0, width_);
  }

 private:
  static constexpr Index kSizes = 64;
  Index width_;
  Matrix sums_[3];  // lower triangles by column
};

}  // namespace

Whitened TwoLevelPoint::whiten_within(const Tangents& t) const {
  Whitened out;
  out.cov = rotated_cov(t, v_);
  out.mean = cross(v_, t.mean);
  return out;
}

BlockInformation TwoLevelPoint::expected(const Tangents& within, const Tangents& between) const {
  const Whitened b = whiten_between(between, projection_, chol_z_, data_->q);
  BlockInformation out{Matrix::Zero(within.k(), within.k()), Matrix::Zero(within.k(), b.k()),
                       Matrix::Zero(b.k(), b.k())};
  if (data_->p) {
    const Whitened w = whiten_within(within);
    const Vector per_mean = apply_transposed(shrink_, data_->counts.cwiseProduct(data_->sizes));
    add_weighted(out.ww, 0.5, w.cov, weights(0), w.cov);
    add_weighted_cross(out.ww, 1, w.mean, per_mean, w.mean);
    add_weighted(out.wb, 0.5, w.cov, weights(1), b.cov);
    add_weighted_cross(out.wb, 1, w.mean, per_mean, b.mean);
    add_weighted(out.bb, 0.5, b.cov, weights(2), b.cov);
    add_weighted_cross(out.bb, 1, b.mean, per_mean, b.mean);
    if (data_->q) add_weighted_cross(out.bb, 1, b.slope, per_mean.replicate(data_->q, 1), b.slope);
  }
  add_cross(out.bb, 0.5 * data_->nclusters, b.zcov, b.zcov);
  add_cross(out.bb, data_->nclusters, b.zmean, b.zmean);
  return out;
}

std::pair<Matrix, Matrix> TwoLevelPoint::factors(const Tangents& within, const Tangents& between) const {
  const Index p = data_->p, q = data_->q;
  const Whitened b = whiten_between(between, projection_, chol_z_, data_->q);
  const Index height = 2 * p * p + p + p * q + q * q + q;
  std::pair<Matrix, Matrix> out{Matrix::Zero(height, within.k()), Matrix::Zero(height, b.k())};
  if (p) {
    const Whitened w = whiten_within(within);
    const Vector per_mean = apply_transposed(shrink_, data_->counts.cwiseProduct(data_->sizes)).cwiseSqrt();
    const Matrix k0 = weights(0), k1 = weights(1), k2 = weights(2);
    const Matrix root = (0.5 * k0).cwiseSqrt();
    const Matrix ratio = k1.cwiseQuotient(k0);
    const Matrix rest = (0.5 * (k2 - k1.cwiseProduct(ratio))).cwiseMax(0.0).cwiseSqrt();
    out.first.topRows(p * p) = weight_rows(w.cov, root);
    out.second.topRows(p * p) = weight_rows(b.cov, root.cwiseProduct(ratio));
    out.second.middleRows(p * p, p * p) = weight_rows(b.cov, rest);
    out.first.middleRows(2 * p * p, p) = scale_rows(per_mean, w.mean);
    out.second.middleRows(2 * p * p, p) = scale_rows(per_mean, b.mean);
    if (q) out.second.middleRows(2 * p * p + p, p * q) = scale_rows(per_mean.replicate(q, 1), b.slope);
  }
  const double root_j = std::sqrt(data_->nclusters);
  out.second.middleRows(2 * p * p + p + p * q, q * q) = std::sqrt(0.5) * root_j * b.zcov;
  out.second.bottomRows(q) = root_j * b.zmean;
  return out;
}

BlockInformation TwoLevelPoint::observed(const Tangents& within, const Tangents& between) const {
  const Whitened b = whiten_between(between, projection_, chol_z_, data_->q);
  BlockInformation out{Matrix::Zero(within.k(), within.k()), Matrix::Zero(within.k(), b.k()),
                       Matrix::Zero(b.k(), b.k())};
  if (data_->p) {
    const Whitened w = whiten_within(within);
    add_weighted(out.ww, -1, w.cov, weights(0), w.cov);
    add_weighted(out.wb, -1, w.cov, weights(1), b.cov);
    add_weighted(out.bb, -1, b.cov, weights(2), b.cov);
    const Index p = data_->p, k = w.k();
    const Eigen::Map<const Matrix> wide(w.cov.data(), p, p * k);
    const Matrix turned = product(ssw_, wide);  // SSW~ w~ for every direction
    add_cross(out.ww, 2, w.cov, Eigen::Map<const Matrix>(turned.data(), p * p, k));
    add_row_terms(w, b, out);
    add_curvature_of_conditioning(b, canonical_gradient(), out.bb);
  }
  if (data_->q) add_cluster_curvature(b, cluster_part(), out.bb);
  for (Matrix* one : {&out.ww, &out.wb, &out.bb}) *one *= 0.5;
  symmetrise(out.ww);
  symmetrise(out.bb);
  return out;
}

void TwoLevelPoint::add_row_terms(const Whitened& within, const Whitened& between,
                                  BlockInformation& out) const {
  // Second derivatives of sum_r n x_r' D x_r. With U = [Y, 1, z~] and, for each eigenvector i, omega the
  // (w~, within mean) part and kappa the (c~, m~, b~) part of a direction:  2 sum_i [omega; kappa]' Q_i
  // [omega; kappa], Q_i built from sum_r D_ri n_r^k U_r U_r', k = -1, 0, 1. Within-only variables come last
  // and have no kappa.
  const TwoLevelData& d = *data_;
  const Index p = d.p, q = d.q, width = p + 1 + q, b = d.nboth;
  Matrix u(d.rows.rows(), width);
  u << scaled_, d.rows.col(0), rows_z_;
  const RowProducts products(u, d, shrink_);
  Matrix omega(p * (p + 1), within.k()), q_omega(omega.rows(), omega.cols());
  Matrix kappa(b * width, between.k()), q_kappa(kappa.rows(), kappa.cols()), mixed(b * width, within.k());
  Matrix ww(p + 1, p + 1), kw(width, p + 1);
  for (Index i = 0; i < p; ++i) {
    const Matrix q1 = products.get(1, i), q0 = products.get(0, i);
    ww << products.get(-1, i).topLeftCorner(p, p), q0.col(p).head(p), q0.row(p).head(p), q1(p, p);
    auto w = omega.middleRows(i * (p + 1), p + 1);
    row_of_each(within.cov, i, p, w.topRows(p));
    w.row(p) = within.mean.row(i);
    set_product(q_omega.middleRows(i * (p + 1), p + 1), ww, w);
    if (i >= b) continue;
    kw << q0.leftCols(p), q1.col(p);
    set_product(mixed.middleRows(i * width, width), kw, w);
    auto k = kappa.middleRows(i * width, width);
    row_of_each(between.cov, i, p, k.topRows(p));
    k.row(p) = between.mean.row(i);
    row_of_each(between.slope, i, p, k.bottomRows(q));
    set_product(q_kappa.middleRows(i * width, width), q1, k);
  }
  add_cross(out.ww, 2, omega, q_omega);
  add_cross(out.wb, 2, mixed, kappa);
  add_cross(out.bb, 2, kappa, q_kappa);
}

}  // namespace msem
