#include "likelihood/complete/trace.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/large_pages.hpp"

namespace msem {

namespace {

constexpr Index kTraceRows = 256;     // clusters whose scores are whitened together
constexpr Index kCanonicalRows = 32;  // and turned together, so that what they are turned by stays near

// Position of element (i, l) in a lower triangle stored by column.
Index packed(Index i, Index l, Index n) {
  if (i < l) std::swap(i, l);
  return l * n - l * (l - 1) / 2 + i - l;
}

// The given variables, fixed ones first, so that a Cholesky factor keeps their moments apart from the others.
std::vector<Index> fixed_first(const std::vector<bool>& fixed, Index first, Index count, Index& nfixed) {
  std::vector<Index> order(count);
  for (Index i = 0; i < count; ++i) order[i] = first + i;
  const auto middle = std::stable_partition(order.begin(), order.end(), [&](Index i) { return fixed[i]; });
  nfixed = middle - order.begin();
  return order;
}

// Variables that are observed once for each unit or cluster, given nothing: scores are those of whitened
// values.
class Margin {
 public:
  bool prepare(const Matrix& cov) { return chol_.compute(cov); }
  Index nfixed = 0;
  std::vector<Index> order;

  Index size() const { return static_cast<Index>(order.size()); }
  Matrix whiten(const Matrix& x) const { return chol_.whiten(x); }
  const Cholesky& chol() const { return chol_; }

  Index nparam(bool means) const {
    return size() * (size() + 1) / 2 - nfixed * (nfixed + 1) / 2 + (means ? size() - nfixed : 0);
  }

  // Scores over the roots of their information, a column for each parameter: per cluster `n` observations
  // with whitened mean `mean` and products `product` about it.
  template <class Products>
  void scores(const Vector& n, const Matrix& mean, double total, bool means, const Products& product,
              Eigen::Ref<Matrix> out) const {
    const double root = 1 / std::sqrt(total);
    Index at = 0;
    for (Index l = 0; l < size(); ++l) {
      for (Index i = std::max(l, nfixed); i < size(); ++i) {
        auto score = out.col(at++);
        score = n.cwiseProduct(mean.col(i)).cwiseProduct(mean.col(l)) + product(i, l);
        if (i == l) score -= n;
        score *= i == l ? root * std::sqrt(0.5) : root;
      }
    }
    for (Index i = nfixed; means && i < size(); ++i) out.col(at++) = root * n.cwiseProduct(mean.col(i));
  }

 private:
  Cholesky chol_;
};

// What a block of clusters looks like in canonical coordinates.
struct CanonicalClusters {
  Vector n;
  Matrix r, shrink, y;  // residual means, D, n D r: clusters x b
  Matrix x, z;          // whitened: clusters x k, x q
  Matrix within;        // packed products: clusters x p(p+1)/2
};

class CanonicalSaturated {
 public:
  // False without a strict maximum there.
  bool prepare(const TwoLevelData& data, const Moments& m, const SaturatedTraceOptions& options);
  // Scores of some clusters, whitened by the information: parameters x clusters.
  Matrix scores(const ClusterData& clusters, Index first, Index count) const;

 private:
  void put_scores(const CanonicalClusters& c, MatrixRef out) const;  // clusters x parameters
  CanonicalClusters canonical(const ClusterData& clusters, Index first, Index count) const;
  Matrix rotated_within(const ClusterData& clusters, Index first, Index count) const;
  bool to_canonical(const Moments& m, const SaturatedTraceOptions& options);
  void score_both(const CanonicalClusters& c, MatrixRef out) const;  // of the both-level variables
  void whiten_expected(MatrixRef scores) const;
  Matrix observed() const;
  Matrix weights(int power) const { return d_->shrinkage_weights(shrink_, power); }
  Index pairs() const { return b_ * (b_ + 1) / 2; }
  Index nparam() const { return 2 * pairs() + b_ * width_; }

  const TwoLevelData* d_ = nullptr;
  bool means_ = true, expected_ = false;
  Index b_ = 0, k_ = 0, q_ = 0, width_ = 0;
  Margin x_, z_;
  Vector mean_;       // p + q
  Vector lambda_;     // b
  Matrix transform_;  // p x p: rotated (y given x, x) = transform' (y, x)
  Matrix z_slopes_;   // b x q: rotated slopes of whitened z
  Matrix shrink_;     // S x b
  Cholesky chol_;     // of the observed information
};

bool CanonicalSaturated::prepare(const TwoLevelData& data, const Moments& m,
                                 const SaturatedTraceOptions& options) {
  d_ = &data;
  means_ = options.means;
  expected_ = options.expected;
  return to_canonical(m, options) && (b_ == 0 || expected_ || chol_.compute(observed()));
}

bool CanonicalSaturated::to_canonical(const Moments& m, const SaturatedTraceOptions& options) {
  const TwoLevelData& data = *d_;
  b_ = data.nboth;
  k_ = data.p - b_;
  q_ = data.q;
  width_ = 1 + k_ + q_;
  mean_.resize(data.p + q_);
  mean_ << m.mean_w, m.mean_b.tail(q_);
  mean_.head(b_) += m.mean_b.head(b_);
  x_.order = fixed_first(options.fixed, b_, k_, x_.nfixed);
  z_.order = fixed_first(options.fixed, data.p, q_, z_.nfixed);
  std::vector<Index> z_rows;
  for (const Index i : z_.order) z_rows.push_back(i - data.p + b_);
  std::vector<Index> both(b_);
  for (Index i = 0; i < b_; ++i) both[i] = i;

  transform_.setZero(data.p, data.p);
  Matrix sigma_e, sigma_u, x_slopes = Matrix::Zero(b_, k_), half_z = Matrix::Zero(q_, b_);
  if (b_) {
    sigma_e = m.cov_w.topLeftCorner(b_, b_);
    sigma_u = m.cov_b.topLeftCorner(b_, b_);
  }
  if (k_) {
    if (!x_.prepare(select(m.cov_w, x_.order, x_.order))) return false;
    const Matrix half = x_.whiten(select(m.cov_w, x_.order, both));
    add_cross(sigma_e, -1, half, half);
    x_slopes = x_.chol().whiten_transposed(half).transpose();
    put_rows(transform_.middleCols(b_, k_), x_.order, x_.chol().whiten_transposed(Matrix::Identity(k_, k_)));
  }
  if (q_) {
    if (!z_.prepare(select(m.cov_b, z_rows, z_rows))) return false;
    half_z = z_.whiten(select(m.cov_b, z_rows, both));
    add_cross(sigma_u, -1, half_z, half_z);
  }
  if (b_ == 0) return true;
  Cholesky chol;
  if (!chol.compute(sigma_e)) return false;
  Matrix reduced = chol.whiten(chol.whiten(sigma_u).transpose());
  symmetrise(reduced);
  const SymmetricEigen eigen(reduced);
  lambda_ = eigen.values;
  const Matrix v = chol.whiten_transposed(eigen.vectors);
  transform_.topLeftCorner(b_, b_) = v;
  if (k_) put_rows(transform_.leftCols(b_), x_.order, -cross(x_slopes, v));
  z_slopes_ = product(half_z, v).transpose();
  shrink_ = one_plus_outer(data.sizes, lambda_).cwiseInverse();
  return shrink_.allFinite() && shrink_.minCoeff() > 0;
}

Matrix CanonicalSaturated::rotated_within(const ClusterData& clusters, Index first, Index count) const {
  const Index p = d_->p;
  Matrix wide(p, p * count), turned(p, p * count), out(count, p * (p + 1) / 2);
  const auto within = clusters.within.middleRows(first, count);
  for (Index l = 0; l < p; ++l) {
    for (Index i = l; i < p; ++i) {
      const auto column = within.col(packed(i, l, p));
      for (Index j = 0; j < count; ++j) wide(i, j * p + l) = wide(l, j * p + i) = column[j];
    }
  }
  const Matrix half = cross(transform_, wide);
  for (Index j = 0; j < count; ++j) turned.middleCols(j * p, p) = half.middleCols(j * p, p).transpose();
  const Matrix full = cross(transform_, turned);
  for (Index l = 0; l < p; ++l) {
    for (Index i = l; i < p; ++i) {
      auto column = out.col(packed(i, l, p));
      for (Index j = 0; j < count; ++j) column[j] = full(i, j * p + l);
    }
  }
  return out;
}

CanonicalClusters CanonicalSaturated::canonical(const ClusterData& clusters, Index first, Index count) const {
  CanonicalClusters c;
  c.n = clusters.sizes.segment(first, count);
  const Matrix centred = clusters.means.middleRows(first, count).rowwise() - mean_.transpose();
  const Matrix turned = product(centred.leftCols(d_->p), transform_);
  c.x = turned.rightCols(k_);
  c.z.resize(count, q_);
  if (q_) c.z = z_.whiten(select_cols(centred, z_.order).transpose()).transpose();
  c.within = rotated_within(clusters, first, count);
  if (b_ == 0) return c;
  c.r = turned.leftCols(b_);
  if (q_) add_outer(c.r, -1, c.z, z_slopes_);
  c.shrink = one_plus_outer(c.n, lambda_).cwiseInverse();
  c.y = scale_rows(c.n, c.shrink.cwiseProduct(c.r));
  return c;
}

void CanonicalSaturated::score_both(const CanonicalClusters& c, MatrixRef out) const {
  const Index p = d_->p;
  const Vector inverse = c.n.cwiseInverse();
  Index at = 0;
  for (Index l = 0; l < b_; ++l) {
    for (Index i = l; i < b_; ++i, ++at) {
      auto e = out.col(at);
      auto u = out.col(pairs() + at);
      u = c.y.col(i).cwiseProduct(c.y.col(l));
      e = u.cwiseProduct(inverse) + c.within.col(packed(i, l, p));
      if (i != l) continue;
      e = 0.5 * (e - c.shrink.col(i) - (c.n.array() - 1).matrix());
      u = 0.5 * (u - c.n.cwiseProduct(c.shrink.col(i)));
    }
  }
  at = 2 * pairs();
  out.middleCols(at, b_) = c.y;
  for (Index h = 0; h < k_; ++h) {
    for (Index i = 0; i < b_; ++i) {
      out.col(at + (1 + h) * b_ + i) =
          c.y.col(i).cwiseProduct(c.x.col(h)) + c.within.col(packed(i, b_ + h, p));
    }
  }
  for (Index h = 0; h < q_; ++h) {
    out.middleCols(at + (1 + k_ + h) * b_, b_) = scale_rows(c.z.col(h), c.y);
  }
}

Matrix CanonicalSaturated::observed() const {
  // -d2 log L along (e, u, g) is sum_i [ sum_j n D_i (sum_l (e + n u)_il D_l r_l + g_i' h)^2 + (e_i, g_i) W
  // (e_i, g_i)' ] - 1/2 sum_il K0 e^2 + 2 K1 e u + K2 u^2 with h = (1, x~, z~) and W the products within.
  const TwoLevelData& d = *d_;
  const Index rows = d.rows.rows(), side = 2 * b_ + width_;
  Matrix centred = d.rows.rightCols(d.p + q_);
  add_outer(centred, -1, d.rows.col(0), mean_ - d.origin);
  const Matrix turned = product(centred.leftCols(d.p), transform_);
  Matrix phi(rows, side), shrink(rows, b_);
  for (Index r = 0; r < rows; ++r) shrink.row(r) = shrink_.row(d.size_index[r]);
  phi.col(2 * b_) = d.rows.col(0);
  phi.middleCols(2 * b_ + 1, k_) = turned.rightCols(k_);
  Matrix residual = turned.leftCols(b_);
  if (q_) {
    const Matrix z = z_.whiten(select_cols(centred, z_.order).transpose()).transpose();
    phi.rightCols(q_) = z;
    add_outer(residual, -1, z, z_slopes_);
  }
  phi.leftCols(b_) = shrink.cwiseProduct(residual);
  phi.middleCols(b_, b_) = scale_rows(d.row_size, phi.leftCols(b_));
  const Matrix w = sandwich(transform_, d.ssw);
  const Matrix k0 = weights(0), k1 = weights(1), k2 = weights(2);
  Matrix out(nparam(), nparam());
  wish_large_pages(out.data(), out.size() * sizeof(double));
  out.setZero();
  std::vector<Index> index(side);
  for (Index i = 0; i < b_; ++i) {
    Matrix gram = weighted_cross(phi, d.row_size.cwiseProduct(shrink.col(i)), phi);
    gram.topLeftCorner(b_, b_) += w.topLeftCorner(b_, b_);
    gram.block(2 * b_ + 1, 2 * b_ + 1, k_, k_) += w.bottomRightCorner(k_, k_);
    gram.block(0, 2 * b_ + 1, b_, k_) += w.topRightCorner(b_, k_);
    gram.block(2 * b_ + 1, 0, k_, b_) += w.bottomLeftCorner(k_, b_);
    for (Index l = 0; l < b_; ++l) {
      gram(l, l) -= 0.5 * k0(i, l);
      gram(l, b_ + l) -= 0.5 * k1(i, l);
      gram(b_ + l, l) -= 0.5 * k1(i, l);
      gram(b_ + l, b_ + l) -= 0.5 * k2(i, l);
      index[l] = packed(i, l, b_);
      index[b_ + l] = pairs() + index[l];
    }
    for (Index h = 0; h < width_; ++h) index[2 * b_ + h] = 2 * pairs() + h * b_ + i;
    for (Index c = 0; c < side; ++c) {
      for (Index r = 0; r < side; ++r) out(index[r], index[c]) += gram(r, c);
    }
  }
  return out;
}

// The information about a pair of elements of both matrices is 2 x 2, that about coefficients diagonal.
void CanonicalSaturated::whiten_expected(MatrixRef scores) const {
  const Matrix k0 = weights(0), k1 = weights(1), k2 = weights(2);
  Index at = 0;
  for (Index l = 0; l < b_; ++l) {
    for (Index i = l; i < b_; ++i, ++at) {
      const double half = i == l ? 0.5 : 1.0, slope = k1(i, l) / k0(i, l);
      auto e = scores.col(at);
      auto u = scores.col(pairs() + at);
      u = (u - slope * e) / std::sqrt(half * (k2(i, l) - slope * k1(i, l)));
      e /= std::sqrt(half * k0(i, l));
    }
  }
  const Vector per_mean = apply_transposed(shrink_, d_->counts.cwiseProduct(d_->sizes));
  const Vector per_unit =
      (apply_transposed(shrink_, d_->counts).array() + (d_->nobs - d_->nclusters)).matrix();
  for (Index h = 0; h < width_; ++h) {
    const Vector& information = h >= 1 && h <= k_ ? per_unit : per_mean;
    for (Index i = 0; i < b_; ++i) scores.col(2 * pairs() + h * b_ + i) /= std::sqrt(information[i]);
  }
}

void CanonicalSaturated::put_scores(const CanonicalClusters& c, MatrixRef out) const {
  const Index p = d_->p, both = b_ ? nparam() : 0, of_x = x_.nparam(means_), of_z = z_.nparam(means_);
  const auto products = [&](Index i, Index l) { return c.within.col(packed(b_ + i, b_ + l, p)); };
  const Vector ones = Vector::Ones(c.n.size()), zeros = Vector::Zero(c.n.size());
  x_.scores(c.n, c.x, d_->nobs, means_, products, out.middleCols(both, of_x));
  z_.scores(
      ones, c.z, d_->nclusters, means_, [&](Index, Index) -> const Vector& { return zeros; },
      out.rightCols(of_z));
  if (b_ == 0) return;
  score_both(c, out.leftCols(both));
  if (expected_) whiten_expected(out.leftCols(both));
}

Matrix CanonicalSaturated::scores(const ClusterData& clusters, Index first, Index count) const {
  const Index both = b_ ? nparam() : 0, others = x_.nparam(means_) + z_.nparam(means_);
  Matrix out(both + others, count), some;
  for (Index at = 0; at < count; at += kCanonicalRows) {
    const Index number = std::min(kCanonicalRows, count - at);
    some.resize(number, both + others);
    put_scores(canonical(clusters, first + at, number), some);
    out.middleCols(at, number) = some.transpose();
  }
  if (b_ == 0 || expected_) return out;
  if (others == 0) return chol_.whiten(std::move(out));
  out.topRows(both) = chol_.whiten(out.topRows(both));
  return out;
}

}  // namespace

double saturated_trace(const TwoLevelData& data, Implied levels, const ClusterData& clusters,
                       const SaturatedTraceOptions& options, const Vector& counted,
                       const SummedClusters* summed) {
  const Moments saturated = TwoLevels{data.p, data.nboth, data.q}.moments(std::move(levels));
  const Index p = data.p, q = data.q, total = clusters.sizes.size();
  const bool shapes = clusters.means.rows() == total && clusters.means.cols() == p + q &&
                      clusters.within.rows() == total && clusters.within.cols() == p * (p + 1) / 2 &&
                      static_cast<Index>(options.fixed.size()) == p + q &&
                      (counted.size() == 0 || counted.size() == total);
  if (!shapes) throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  for (Index i = 0; i < data.nboth; ++i) {
    if (options.fixed[i]) throw std::invalid_argument("moments of variables at both levels must be free");
  }
  CanonicalSaturated canonical;
  if (!canonical.prepare(data, saturated, options)) return std::numeric_limits<double>::quiet_NaN();
  double out = 0;
  if (summed) {
    const Index length = summed->readings.cols();
    if (length == 0 || total != length * static_cast<Index>(summed->sums.size()))
      throw std::invalid_argument(
          "every size of clusters has as many that are made up as its sums have rows");
    for (std::size_t s = 0; s < summed->sums.size(); ++s) {
      const Matrix of_t = product(canonical.scores(clusters, static_cast<Index>(s) * length, length),
                                  summed->readings.transpose());
      out += of_t.cwiseProduct(product(of_t, summed->sums[s])).sum();
    }
    return out;
  }
  for (Index first = 0; first < total; first += kTraceRows) {
    const Index count = std::min(kTraceRows, total - first);
    const Matrix scores = canonical.scores(clusters, first, count);
    out += counted.size() ? scale_cols(scores, counted.segment(first, count)).squaredNorm()
                          : scores.squaredNorm();
  }
  return out;
}

}  // namespace msem
