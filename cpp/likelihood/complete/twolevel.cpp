#include "likelihood/complete/twolevel.hpp"

#include <stdexcept>

#include "likelihood/domain.hpp"

namespace msem {

namespace {

constexpr double kFullRank = 1e-4;  // pivot of a correlation matrix from which its rank is not in doubt

// Rows whose cross-products equal a positive semidefinite scatter matrix of `count` clusters, at most count -
// 1 of them when the clusters are counted in whole numbers.
Matrix factor_rows(const Matrix& scatter) {
  if ((scatter.array() == 0).all()) return Matrix(0, scatter.rows());  // as of a cluster by itself
  const Vector scale = scatter.diagonal().cwiseAbs().cwiseSqrt();
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const Matrix correlation = scale_both(inverse, scatter);
  Cholesky chol;
  if (scatter.rows() && chol.compute(correlation) && chol.pivot() > kFullRank * kFullRank)
    return scale_cols(chol.lower().transpose(), scale);
  const SymmetricEigen eigen(correlation);
  const Index n = scatter.rows();
  if (scatter.rows() && eigen.values(0) < -1e-8)
    throw std::invalid_argument("a scatter matrix of cluster vectors is not positive semidefinite");
  Index first = 0;
  while (first < n && eigen.values(first) <= 1e-15 * static_cast<double>(n)) ++first;
  const Matrix rows = scale_rows(scale, eigen.vectors.rightCols(n - first));
  return scale_cols(rows, eigen.values.tail(n - first).cwiseSqrt()).transpose();
}

}  // namespace

TwoLevelData::TwoLevelData(Index nboth_, const Matrix& ssw_, const Vector& sizes_, const Vector& counts_,
                           const Matrix& means, const Matrix& scatter)
    : p(ssw_.rows()),
      nboth(nboth_),
      q(means.cols() - ssw_.rows()),
      nobs(sizes_.dot(counts_)),
      nclusters(counts_.sum()),
      sizes(sizes_),
      counts(counts_),
      ssw(ssw_) {
  const Index m = p + q, s_count = sizes.size();
  const bool by_size = counts.size() == s_count && means.rows() == s_count && scatter.cols() == s_count;
  if (q < 0 || nboth < 0 || nboth > p || ssw.cols() != p || !by_size || scatter.rows() != m * m)
    throw std::invalid_argument("sufficient statistics have inconsistent shapes");
  origin = apply_transposed(means, counts.cwiseProduct(sizes)) / nobs;
  if (q) origin.tail(q) = apply_transposed(means.rightCols(q), counts) / nclusters;
  std::vector<Matrix> parts;
  Index total = 0;
  for (Index s = 0; s < s_count; ++s) {
    parts.push_back(factor_rows(slice(scatter, s, m, m)));
    total += 1 + parts.back().rows();
  }
  rows.setZero(total, 1 + m);
  row_size.resize(total);
  row_sign.setOnes(total);
  Index at = 0;
  for (Index s = 0; s < s_count; ++s) {
    const Index height = 1 + parts[s].rows();
    rows(at, 0) = std::sqrt(counts[s]);
    rows.row(at).tail(m) = std::sqrt(counts[s]) * (means.row(s).transpose() - origin).transpose();
    rows.block(at + 1, 1, height - 1, m) = parts[s];
    row_size.segment(at, height).setConstant(sizes[s]);
    size_index.insert(size_index.end(), height, s);
    at += height;
  }
  const auto z = rows.rightCols(q);
  z_mean = apply_transposed(z, rows.col(0)) / nclusters;
  z_scatter = cross(z, z);
  add_outer(z_scatter, -nclusters, z_mean, z_mean);
}

Matrix TwoLevelData::shrinkage_weights(const Matrix& shrink, int power) const {
  Vector w = counts;
  for (int k = 0; k < power; ++k) w.array() *= sizes.array();
  Matrix out = weighted_cross(shrink, w, shrink);
  if (power == 0) out.array() += nobs - nclusters;
  return out;
}

std::unique_ptr<LikelihoodPoint> CompleteLikelihood::at(Implied moments) const {
  auto point = std::make_unique<TwoLevelPoint>();
  if (!point->prepare(data_, shape().moments(std::move(moments)))) return nullptr;
  return point;
}

std::vector<double> CompleteLikelihood::units() const {
  if (!shape().within()) return {data_.nclusters};
  if (!shape().between()) return {data_.nobs};
  return {data_.nobs, data_.nclusters};
}

bool TwoLevelPoint::prepare(const TwoLevelData& data, const Moments& moments) {
  data_ = &data;
  const Index p = data.p, q = data.q, b = data.nboth;
  shape_ = {p, b, q};
  value_ = data.nobs * static_cast<double>(p) * kLog2Pi;
  mu_ = -data.origin;
  mu_.head(p) += moments.mean_w;
  mu_.head(b) += moments.mean_b.head(b);
  mu_.tail(q) += moments.mean_b.tail(q);
  slopes_.setZero(p, q);
  projection_.setZero(b + q, p);
  if (q) {
    const Matrix cov_z = moments.cov_b.bottomRightCorner(q, q);
    if (!chol_z_.compute(cov_z) || !regular(chol_z_, cov_z.diagonal())) return false;
    slopes_.topRows(b) = chol_z_.solve(Matrix(moments.cov_b.bottomLeftCorner(q, b))).transpose();
  }
  double log_det = 0;
  if (p && !diagonalise(moments, log_det)) return false;
  // functions of the size are not interpolated near the edge of the domain
  if (p && data.condensed && lambda_.minCoeff() >= data.least_eigenvalue) data_ = data.condensed.get();
  prepare_cluster_part();
  return (p == 0 || prepare_unit_part(log_det)) && std::isfinite(value_);
}

void TwoLevelPoint::prepare_cluster_part() {
  const TwoLevelData& data = *data_;
  const Index q = data.q;
  rows_z_.resize(data.rows.rows(), q);
  if (q) {
    z_residual_ = chol_z_.whiten(data.z_mean - mu_.tail(q));
    const Matrix half = chol_z_.whiten(data.z_scatter);
    z_scatter_ = chol_z_.whiten(half.transpose());
    add_outer(z_scatter_, data.nclusters, z_residual_, z_residual_);
    Matrix centred = data.rows.rightCols(q);
    add_outer(centred, -1, data.rows.col(0), mu_.tail(q));
    rows_z_ = chol_z_.whiten(centred.transpose()).transpose();
    value_ += data.nclusters * (static_cast<double>(q) * kLog2Pi + chol_z_.log_det()) + z_scatter_.trace();
  }
}

// V and lambda. Within-only variables x have lambda = 0: what is left is the problem of the variables at both
// levels given x,  V = [A, 0; -beta' A, L_x^-T]  with the slopes beta on x.
bool TwoLevelPoint::diagonalise(const Moments& moments, double& log_det) {
  const Index p = data_->p, q = data_->q, b = data_->nboth, k = p - b;
  v_.setZero(p, p);
  lambda_.setZero(p);
  Matrix residual = moments.cov_w.topLeftCorner(b, b), slopes(b, k);
  if (k) {
    Cholesky chol;
    const Matrix cov_x = moments.cov_w.bottomRightCorner(k, k);
    if (!chol.compute(cov_x) || !regular(chol, cov_x.diagonal())) return false;
    slopes = chol.solve(Matrix(moments.cov_w.bottomLeftCorner(k, b))).transpose();
    add_product(residual, -1, slopes, moments.cov_w.bottomLeftCorner(k, b));
    v_.bottomRightCorner(k, k) = chol.whiten_transposed(Matrix::Identity(k, k));
    log_det += chol.log_det();
  }
  if (b == 0) return true;
  Cholesky chol;
  if (!chol.compute(residual) || !regular(chol, moments.cov_w.diagonal().head(b))) return false;
  Matrix conditional = moments.cov_b.topLeftCorner(b, b);  // C
  if (q) add_product(conditional, -1, slopes_.topRows(b), moments.cov_b.bottomLeftCorner(q, b));
  Matrix reduced = chol.whiten(chol.whiten(conditional).transpose());
  symmetrise(reduced);
  const SymmetricEigen eigen(reduced);
  if (!eigen.converged) return false;
  lambda_.head(b) = eigen.values;
  const Matrix v = chol.whiten_transposed(eigen.vectors);
  v_.topLeftCorner(b, b) = v;
  if (k) v_.bottomLeftCorner(k, b) = -cross(slopes, v);
  log_det += chol.log_det();
  return true;
}

bool TwoLevelPoint::prepare_unit_part(double log_det) {
  const TwoLevelData& data = *data_;
  const Index p = data.p, q = data.q, b = data.nboth;
  shrink_ = one_plus_outer(data.sizes, lambda_);
  if (!(shrink_.minCoeff() > kEdge)) return false;
  value_ += data.nobs * log_det + data.counts.dot(log_row_products(shrink_.leftCols(b)));
  shrink_ = shrink_.cwiseInverse().eval();

  projection_.topRows(b) = v_.topRows(b);
  if (q) projection_.bottomRows(q) = -cross(slopes_, v_);
  ssw_ = sandwich(v_, data.ssw);
  value_ += ssw_.trace();
  // Rotated residuals [(1, ybar, z) contrasts] V
  Matrix rotation(1 + p + q, p);
  rotation.middleRows(1, p) = v_;
  rotation.bottomRows(q) = projection_.bottomRows(q);
  rotation.row(0) = -apply_transposed(rotation.bottomRows(p + q), mu_).transpose();
  scaled_.resize(data.rows.rows(), p);
  set_product(scaled_, data.rows, rotation);
  const Index count = scaled_.rows();
  const Index* size_of = data.size_index.data();
  Vector factor(count), squares(count);
  for (Index i = 0; i < p; ++i) {
    const double* shrink = shrink_.col(i).data();
    for (Index r = 0; r < count; ++r) factor[r] = data.row_size[r] * shrink[size_of[r]];
    auto x = scaled_.col(i).array();
    squares.array() = data.row_sign.array() * x * x;
    value_ += squares.dot(factor);
    x *= factor.array();
  }
  return true;
}

Canonical TwoLevelPoint::canonical_gradient() const {
  const TwoLevelData& d = *data_;
  Canonical g;
  const Matrix counted = scale_rows(d.row_sign, scaled_);
  g.c = -cross(scaled_, counted);
  g.c.diagonal() += apply_transposed(shrink_, d.counts.cwiseProduct(d.sizes));
  g.w = -weighted_cross(scaled_, d.row_size.cwiseInverse(), counted) - ssw_;
  g.w.diagonal() += apply_transposed(shrink_, d.counts);
  g.w.diagonal().array() += d.nobs - d.nclusters;
  g.m = -2 * apply_transposed(counted, d.rows.col(0));
  g.b = -2 * cross(counted, rows_z_);
  return g;
}

Moments TwoLevelPoint::assemble(const Matrix& g_w, const Matrix& g_c, const Vector& g_m, const Matrix& g_b,
                                const Matrix& g_zz, const Vector& g_z) const {
  // Chain from (Sigma_w, C, m~, b~, z~, u~) to the moments of the two blocks.
  Moments out;
  if (data_->p) {
    out.cov_w = outer_sandwich(v_, g_w);
    out.mean_w = apply(v_, g_m);
  }
  const BetweenGradient between = between_gradient(projection_, chol_z_, g_c, g_m, g_b, g_zz, g_z);
  out.mean_b = between.mean;
  out.cov_b = between.cov;
  return out;
}

Moments TwoLevelPoint::moment_gradient() const {
  const Index q = data_->q;
  const Canonical g = data_->p ? canonical_gradient() : Canonical{};
  const Matrix g_zz = q ? Matrix(data_->nclusters * Matrix::Identity(q, q) - z_scatter_) : Matrix();
  const Vector g_z = q ? Vector(-2 * data_->nclusters * z_residual_) : Vector();
  return assemble(g.w, g.c, g.m, g.b, g_zz, g_z);
}

}  // namespace msem
