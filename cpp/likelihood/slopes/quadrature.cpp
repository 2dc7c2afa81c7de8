#include "likelihood/slopes/quadrature.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"

namespace msem {

namespace {

constexpr Index kPieces = 32;      // of clusters, at most
constexpr int kRounds = 60;        // of looking for the nodes, at most
constexpr double kSettled = 1e-5;  // change of the centre in its standard deviations, and of these
constexpr Index kFewNodes = 5;
constexpr double kStep = 1e-4;   // of moments, relative to their size, for second derivatives
constexpr double kNarrow = 0.3;  // of the spread, where a single node has all weight
constexpr double kFloor = 1e-3;  // least eigenvalue of an information matrix that steps are made with

// Nodes and weights of the Gauss-Hermite rule for the standard normal distribution (Golub & Welsch, 1969).
struct Hermite {
  explicit Hermite(Index n) {
    Matrix jacobi = Matrix::Zero(n, n);
    for (Index k = 1; k < n; ++k) jacobi(k, k - 1) = jacobi(k - 1, k) = std::sqrt(static_cast<double>(k));
    const SymmetricEigen eigen(jacobi);
    x = eigen.values;
    log_w = eigen.vectors.row(0).cwiseAbs2().array().log().matrix().transpose();
  }
  Vector x, log_w;
};

// The product rule: d x Q nodes, and log weight + |x|^2 / 2 + d/2 log 2 pi of each.
struct Rule {
  Rule(Index dimensions, Index n) {
    const Hermite one(n);
    Index count = 1;
    for (Index d = 0; d < dimensions; ++d) count *= n;
    x.resize(dimensions, count);
    log_w.setConstant(count, 0.5 * kLog2Pi * static_cast<double>(dimensions));
    for (Index q = 0; q < count; ++q) {
      for (Index d = 0, rest = q; d < dimensions; ++d, rest /= n) {
        x(d, q) = one.x[rest % n];
        log_w[q] += one.log_w[rest % n] + 0.5 * x(d, q) * x(d, q);
      }
    }
  }
  Matrix x;
  Vector log_w;
};

// In place: the lower Cholesky factor of a symmetric n x n matrix; false unless it is positive definite.
bool factorise(double* a, Index n, double& log_det) {
  log_det = 0;
  for (Index j = 0; j < n; ++j) {
    for (Index k = 0; k < j; ++k) {
      const double s = a[k * n + j];
      for (Index i = j; i < n; ++i) a[j * n + i] -= s * a[k * n + i];
    }
    const double pivot = a[j * n + j];
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    log_det += std::log(pivot);
    const double root = std::sqrt(pivot);
    for (Index i = j; i < n; ++i) a[j * n + i] /= root;
  }
  return true;
}

void solve_lower(const double* l, Index n, double* x) {
  for (Index j = 0; j < n; ++j) {
    x[j] /= l[j * n + j];
    for (Index i = j + 1; i < n; ++i) x[i] -= l[j * n + i] * x[j];
  }
}

void solve_upper(const double* l, Index n, double* x) {
  for (Index j = n - 1; j >= 0; --j) {
    double sum = x[j];
    for (Index i = j + 1; i < n; ++i) sum -= l[j * n + i] * x[i];
    x[j] = sum / l[j * n + j];
  }
}

void invert(const double* l, Index n, double* out) {
  std::fill(out, out + n * n, 0.0);
  for (Index j = 0; j < n; ++j) {
    out[j * n + j] = 1;
    solve_lower(l, n, out + j * n);
    solve_upper(l, n, out + j * n);
  }
}

}  // namespace

void require_products(const Matrix&, const SlopeClusterData&) {}

SlopeClusterData weighted(const SlopeClusterData& data, const Matrix&, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every cluster needs a weight");
  SlopeClusterData out = data;
  out.weight = weights;
  return out;
}

SlopeClusterData single_cluster(const SlopeClusterData& data, const Matrix&, Index cluster) {
  SlopeClusterData out = data;
  out.sizes = data.sizes.segment(cluster, 1);
  out.weight.setOnes(1);
  out.means = data.means.col(cluster);
  out.within = data.within.col(cluster);
  return out;
}

// Density of the data of a cluster and of its slopes, with derivatives of -2 log of it.
class NodeDensity {
 public:
  explicit NodeDensity(const QuadraturePoint& point)
      : t_(point),
        p_(point.p_),
        m_(point.m_),
        b_(point.nb_),
        g_(point.g_),
        map_(p_, p_),
        half_(p_, p_),
        sigma_(p_, p_),
        w_(p_, p_),
        v_(p_, p_),
        inverse_(p_, p_),
        solved_(p_, p_),
        mean_(p_),
        r_(p_),
        z_(g_) {}

  // -2 log; infinite where there is none.
  double value(Index cluster, const double* s) {
    const SlopeClusterData& data = *t_.data_;
    const double n = data.sizes[cluster];
    set_map(s);
    set_product(half_, map_, t_.sigma_);
    sigma_.noalias() = half_ * map_.transpose();
    double log_det = 0, log_det_v = 0;
    w_ = sigma_;
    if (!factorise(w_.data(), p_, log_det)) return std::numeric_limits<double>::infinity();
    solved_ = w_;
    invert(solved_.data(), p_, w_.data());
    mean_.noalias() = map_ * t_.mu_;
    const Index q = data.q;
    for (Index k = 0; k < q; ++k) z_[k] = data.means(p_ + k, cluster) - t_.between_.mu_z[k];
    for (Index k = 0; k < m_; ++k) z_[q + k] = s[k] - t_.between_.mu_z[q + k];
    solve_lower(t_.root_z_.data(), g_, z_.data());
    for (Index i = 0; i < p_; ++i) r_[i] = data.means(i, cluster) - mean_[i];
    for (Index i = 0; i < b_; ++i) {
      r_[i] -= t_.moments_.mean_b[i];
      for (Index k = 0; k < g_; ++k) r_[i] -= t_.between_.slopes(i, k) * z_[k];
    }
    v_ = sigma_ / n;
    v_.topLeftCorner(b_, b_) += t_.between_.cov;
    if (!factorise(v_.data(), p_, log_det_v)) return std::numeric_limits<double>::infinity();
    solve_lower(v_.data(), p_, r_.data());
    double out = (n - 1) * log_det + log_det_v + r_.squaredNorm() + z_.squaredNorm() + constant(n);
    const double* products = data.within.data() + cluster * p_ * p_;
    for (Index i = 0; i < p_ * p_; ++i) out += w_.data()[i] * products[i];
    return out;
  }

  // Adds the derivatives at the last node to columns of a cluster.
  void add_gradient(Index cluster, const double* s, double weight, double* within, double* between) {
    const SlopeClusterData& data = *t_.data_;
    const double n = data.sizes[cluster];
    invert(v_.data(), p_, inverse_.data());
    solve_upper(v_.data(), p_, r_.data());  // V^-1 r
    add_outer(inverse_, -1, r_, r_);
    // of Sigma(s)
    const Eigen::Map<const Matrix> products(data.within.data() + cluster * p_ * p_, p_, p_);
    set_product(solved_, w_, products);
    Matrix& g = sigma_;
    g = (n - 1) * w_ + inverse_ / n;
    add_product(g, -1, solved_, w_);
    // of M: 2 G M Sigma + g_mean mu'
    set_product(w_, g, half_);
    w_ *= 2;
    add_outer(w_, -2, r_, t_.mu_);
    Eigen::Map<Vector> mean(within, p_);
    Eigen::Map<Matrix> cov(within + p_, p_, p_), lambda(within + p_ + p_ * p_, p_, m_);
    mean.noalias() += (-2 * weight) * (map_.transpose() * r_);
    set_product(solved_, g, map_);
    cov.noalias() += weight * (map_.transpose() * solved_);
    // lambda of slope k stands between the maps before and after it
    for (Index k = 0; k < m_; ++k) {
      before_.setIdentity(p_, p_);
      for (Index j = 0; j < k; ++j) apply_slope(before_, j, s[j]);
      after_.setIdentity(p_, p_);
      for (Index j = k + 1; j < m_; ++j) apply_slope(after_, j, s[j]);
      const Vector row = before_.row(data.covariate[k]).transpose();
      lambda.col(k).noalias() += (weight * s[k]) * (after_.transpose() * (w_ * row));
    }
    double* at = between;
    Eigen::Map<Matrix>(at, b_, b_) += weight * inverse_.topLeftCorner(b_, b_);
    at += b_ * b_;
    Eigen::Map<Vector>(at, b_) -= 2 * weight * r_.head(b_);
    at += b_;
    Eigen::Map<Matrix>(at, b_, g_).noalias() -= (2 * weight) * (r_.head(b_) * z_.transpose());
    at += b_ * g_;
    Eigen::Map<Matrix> zz(at, g_, g_);
    zz.diagonal().array() += weight;
    zz.noalias() -= weight * (z_ * z_.transpose());
    at += g_ * g_;
    Eigen::Map<Vector>(at, g_) -= 2 * weight * z_;
  }

 private:
  double constant(double n) const {
    return n * static_cast<double>(p_) * kLog2Pi + static_cast<double>(p_) * std::log(n) +
           static_cast<double>(g_) * kLog2Pi + t_.between_.chol_z.log_det();
  }
  // X := (I + s lambda e') X
  void apply_slope(Matrix& x, Index k, double s) {
    row_ = s * x.row(t_.data_->covariate[k]);
    for (Index j = 0; j < p_; ++j) {
      for (Index i = 0; i < p_; ++i) x(i, j) += t_.lambda_(i, k) * row_[j];
    }
  }
  void set_map(const double* s) {
    map_.setIdentity();
    for (Index k = 0; k < m_; ++k) apply_slope(map_, k, s[k]);
  }

  const QuadraturePoint& t_;
  Index p_, m_, b_, g_;
  Matrix map_, half_, sigma_, w_, v_, inverse_, solved_, before_, after_;
  Vector mean_, r_, z_;
  Eigen::RowVectorXd row_;
};

bool QuadraturePoint::prepare_moments(const Moments& moments) {
  if (!moments.mean_w.allFinite() || !moments.cov_w.allFinite() || !moments.mean_b.allFinite() ||
      !moments.cov_b.allFinite())
    return false;
  if (!moments.cov_w.bottomRightCorner(m_, m_).isIdentity(1e-9) || !moments.mean_w.tail(m_).isZero(0))
    throw std::invalid_argument("products with slopes must be standardized");
  moments_ = moments;
  lambda_ = moments.cov_w.topRightCorner(p_, m_);
  sigma_ = moments.cov_w.topLeftCorner(p_, p_) - outer(lambda_, lambda_);
  mu_ = moments.mean_w.head(p_);
  if (!positive_definite(sigma_) || !between_.compute(moments.cov_b, moments.mean_b, nb_)) return false;
  root_z_ = between_.chol_z.lower();
  return between_.cov.allFinite();
}

bool QuadraturePoint::prepare(const SlopeClusterData& data, const Moments& moments,
                              const QuadraturePoint* given) {
  data_ = &data;
  p_ = data.p;
  m_ = data.nslopes();
  nb_ = data.nboth;
  g_ = data.q + m_;
  shape_ = {p_ + m_, nb_, g_};
  if (!prepare_moments(moments)) return false;
  const Rule rule(m_, data.nodes);
  const Index J = data.nclusters(), Q = rule.log_w.size();
  nodes_.resize(m_ * Q, J);
  log_weights_.resize(Q, J);
  centre_.setZero(m_, J);
  spread_.setZero(m_ * m_, J);
  loglik_.resize(J);
  of_within_.setZero(p_ + p_ * p_ + p_ * m_, J);
  of_between_.setZero(nb_ * nb_ + nb_ + nb_ * g_ + g_ * g_ + g_, J);
  const Index pieces = std::min(kPieces, J);
  std::vector<char> fine(pieces, 1);
  in_threads(pieces, J * Q * p_ > 4000 ? 0 : 1, [&](std::ptrdiff_t piece) {
    NodeDensity density(*this);
    Vector logs(Q), weights(Q), centre(m_), prior(g_);
    Matrix root(m_, m_), cov(m_, m_);
    const Matrix root_s = root_z_.bottomRightCorner(m_, m_);
    for (Index j = J * piece / pieces; j < J * (piece + 1) / pieces; ++j) {
      check_interrupt();
      // sums over the nodes: the value, posterior weights, and mean and covariance matrix of the slopes
      const auto sum = [&](Eigen::Ref<Vector> nodes, const Eigen::Ref<const Vector>& log_weights) {
        for (Index k = 0; k < Q; ++k)
          logs[k] = log_weights[k] - 0.5 * density.value(j, nodes.data() + k * m_);
        const double top = logs.maxCoeff();
        if (!std::isfinite(top)) return -std::numeric_limits<double>::infinity();
        weights = (logs.array() - top).exp().matrix();
        const double total = weights.sum();
        weights /= total;
        centre.setZero();
        cov.setZero();
        for (Index k = 0; k < Q; ++k) centre += weights[k] * nodes.segment(k * m_, m_);
        for (Index k = 0; k < Q; ++k) {
          const Vector off = nodes.segment(k * m_, m_) - centre;
          add_outer(cov, weights[k], off, off);
        }
        return top + std::log(total);
      };
      const auto place = [&](const Vector& around, const Matrix& scale) {
        const double log_scale = scale.diagonal().array().log().sum();
        for (Index k = 0; k < Q; ++k) {
          nodes_.col(j).segment(k * m_, m_) = around;
          add_applied(nodes_.col(j).segment(k * m_, m_), 1, scale, rule.x.col(k));
          log_weights_(k, j) = rule.log_w[k] + log_scale;
        }
      };
      if (given) {
        nodes_.col(j) = given->nodes_.col(j);
        log_weights_.col(j) = given->log_weights_.col(j);
      } else {
        for (Index k = 0; k < data.q; ++k) prior[k] = data.means(p_ + k, j) - between_.mu_z[k];
        prior.tail(m_).setZero();
        for (Index k = 0; k < data.q; ++k) {
          prior[k] /= root_z_(k, k);
          for (Index i = k + 1; i < data.q; ++i) prior[i] -= root_z_(i, k) * prior[k];
        }
        Vector around = between_.mu_z.tail(m_);
        add_applied(around, 1, root_z_.bottomLeftCorner(m_, data.q), prior.head(data.q));
        root = root_s;
        for (int round = 0; round < kRounds; ++round) {
          place(around, root);
          if (!std::isfinite(sum(nodes_.col(j), log_weights_.col(j)))) break;
          const Vector moved = centre - around;
          const Matrix before = root;
          Matrix next = cov;
          double log_det = 0;
          const bool wide = weights.maxCoeff() < 0.99 && factorise(next.data(), m_, log_det);
          Index best = 0;
          weights.maxCoeff(&best);
          // a single node has all weight: farther out if it is one of the outermost, narrower otherwise
          const bool outermost = rule.x.col(best).cwiseAbs().maxCoeff() >= rule.x.maxCoeff() * (1 - 1e-9);
          if (wide) {
            root = next.triangularView<Eigen::Lower>();
          } else if (!outermost || data.nodes < 2) {
            root = kNarrow * before;
          }
          around = centre;
          bool settled = wide;
          for (Index k = 0; k < m_; ++k) {
            settled = settled && std::abs(moved[k]) < kSettled * before(k, k) &&
                      std::abs(root(k, k) / before(k, k) - 1) < kSettled;
          }
          if (settled) break;
        }
        place(around, root);
      }
      const double loglik = sum(nodes_.col(j), log_weights_.col(j));
      loglik_[j] = loglik;
      if (!std::isfinite(loglik)) {
        fine[piece] = 0;
        return;
      }
      centre_.col(j) = centre;
      spread_.col(j) = Eigen::Map<const Vector>(cov.data(), m_ * m_);
      for (Index k = 0; k < Q; ++k) {
        if (weights[k] < 1e-16) continue;
        const double* s = nodes_.data() + j * nodes_.rows() + k * m_;
        density.value(j, s);
        density.add_gradient(j, s, weights[k], of_within_.col(j).data(), of_between_.col(j).data());
      }
    }
  });
  if (std::find(fine.begin(), fine.end(), 0) != fine.end()) return false;
  value_ = -2 * loglik_.dot(data.weight);
  const Vector w = apply(of_within_, data.weight), b = apply(of_between_, data.weight);
  const Eigen::Map<const Matrix> cov(w.data() + p_, p_, p_), own(w.data() + p_ + p_ * p_, p_, m_);
  gradient_.mean_w = Vector::Zero(p_ + m_);
  gradient_.mean_w.head(p_) = w.head(p_);
  gradient_.cov_w = Matrix::Zero(p_ + m_, p_ + m_);
  gradient_.cov_w.topLeftCorner(p_, p_) = cov;
  // Sigma = cov - lambda lambda'
  Matrix lambda = 0.5 * own;
  add_product(lambda, -1, cov, lambda_);
  gradient_.cov_w.topRightCorner(p_, m_) = lambda;
  gradient_.cov_w.bottomLeftCorner(m_, p_) = lambda.transpose();
  symmetrise(gradient_.cov_w);
  const double* at = b.data();
  const Eigen::Map<const Matrix> g_c(at, nb_, nb_);
  const Eigen::Map<const Vector> g_m(at + nb_ * nb_, nb_);
  const Eigen::Map<const Matrix> g_b(at + nb_ * nb_ + nb_, nb_, g_), g_zz(at + nb_ * (nb_ + 1 + g_), g_, g_);
  const Eigen::Map<const Vector> g_z(at + nb_ * (nb_ + 1 + g_) + g_ * g_, g_);
  BetweenGradient found = between_gradient(between_.projection, between_.chol_z, g_c, g_m, g_b, g_zz, g_z);
  gradient_.mean_b = std::move(found.mean);
  gradient_.cov_b = std::move(found.cov);
  return std::isfinite(value_);
}

std::pair<Matrix, Matrix> QuadraturePoint::cluster_scores(const Matrix&, const Tangents& within,
                                                          const Tangents& between) const {
  const Matrix identity = Matrix::Identity(p_ + m_, p_ + m_);
  const Matrix changes = rotated_cov(within, identity);
  const Index J = data_->nclusters(), n = p_ + m_;
  Matrix cov = Matrix::Zero(n * n, J), mean = Matrix::Zero(n, J);
  for (Index j = 0; j < J; ++j) {
    const Eigen::Map<const Matrix> own(of_within_.col(j).data() + p_, p_, p_);
    const Eigen::Map<const Matrix> products(of_within_.col(j).data() + p_ + p_ * p_, p_, m_);
    Eigen::Map<Matrix> whole(cov.col(j).data(), n, n);
    whole.topLeftCorner(p_, p_) = own;
    whole.topRightCorner(p_, m_) = products;  // counted once, for both triangles
    add_product(whole.topRightCorner(p_, m_), -2, own, lambda_);
    mean.col(j).head(p_) = of_within_.col(j).head(p_);
  }
  Matrix of_within = -0.5 * cross(cov, changes);
  add_cross(of_within, -0.5, mean, within.mean);
  const Whitened tb = whiten_between(between, between_.projection, between_.chol_z, g_);
  const Index c = nb_ * nb_, b = nb_ * g_;
  Matrix of_between = -0.5 * cross(of_between_.topRows(c), tb.cov);
  add_cross(of_between, -0.5, of_between_.middleRows(c, nb_), tb.mean);
  add_cross(of_between, -0.5, of_between_.middleRows(c + nb_, b), tb.slope);
  add_cross(of_between, -0.5, of_between_.middleRows(c + nb_ + b, g_ * g_), tb.zcov);
  add_cross(of_between, -0.5, of_between_.bottomRows(g_), tb.zmean);
  return {of_within, of_between};
}

// Half the second derivatives of -2 log L in the parameters of both levels, without the curvature of the
// moments: differences of the gradient at the same nodes.
// `rough`: with few nodes and one-sided, for steps whose target does not depend on it.
Matrix QuadraturePoint::curvature(const Tangents& within, const Tangents& between, bool rough) const {
  SlopeClusterData few;
  QuadraturePoint own;
  const QuadraturePoint* base = this;
  if (rough && data_->nodes > kFewNodes) {
    few = *data_;
    few.nodes = kFewNodes;
    if (own.prepare(few, moments_)) base = &own;
  }
  const int sides = rough ? 1 : 2;
  const Index n = p_ + m_, r = nb_ + g_, kw = within.k(), kb = between.k();
  const Matrix dw = rotated_cov(within, Matrix::Identity(n, n)),
               db = rotated_cov(between, Matrix::Identity(r, r));
  Matrix out(kw + kb, kw + kb);
  const auto size_of = [](const Matrix& change, const Vector& mean, const Matrix& cov) {
    double largest = 0;
    for (Index j = 0; j < cov.rows(); ++j) {
      largest = std::max(largest, std::abs(mean[j]) / std::sqrt(std::abs(cov(j, j))));
      for (Index i = 0; i < cov.rows(); ++i)
        largest = std::max(largest, std::abs(change(i, j)) / std::sqrt(std::abs(cov(i, i) * cov(j, j))));
    }
    return largest;
  };
  for (Index a = 0; a < kw + kb; ++a) {
    const bool first = a < kw;
    const Matrix change = first ? Matrix(slice(dw, a, n, n)) : Matrix(slice(db, a - kw, r, r));
    const Vector mean = first ? within.mean.col(a) : between.mean.col(a - kw);
    const double size = first ? size_of(change, mean, moments_.cov_w) : size_of(change, mean, moments_.cov_b);
    if (!(size > 0)) {
      out.col(a).setZero();
      continue;
    }
    QuadraturePoint at[2];
    double h = kStep / size;
    bool inside = false;
    for (int attempt = 0; attempt < 8 && !inside; ++attempt, h /= 4) {
      inside = true;
      for (int side = 0; side < sides && inside; ++side) {
        Moments moved = moments_;
        const double step = side ? -h : h;
        (first ? moved.cov_w : moved.cov_b) += step * change;
        (first ? moved.mean_w : moved.mean_b) += step * mean;
        if (first) moved.cov_w.bottomRightCorner(m_, m_).setIdentity();
        inside = at[side].prepare(*base->data_, moved, base);
      }
      if (inside) break;
    }
    if (!inside) {
      out.setConstant(std::numeric_limits<double>::quiet_NaN());
      return out;
    }
    const Moments &up = at[0].gradient_, &down = rough ? base->gradient_ : at[1].gradient_;
    const double over = 1 / (2 * sides * h);
    const Matrix cov_w = over * (up.cov_w - down.cov_w), cov_b = over * (up.cov_b - down.cov_b);
    const Vector mean_w = over * (up.mean_w - down.mean_w), mean_b = over * (up.mean_b - down.mean_b);
    out.col(a).head(kw) = apply_transposed(dw, Eigen::Map<const Vector>(cov_w.data(), n * n)) +
                          apply_transposed(within.mean, mean_w);
    out.col(a).tail(kb) = apply_transposed(db, Eigen::Map<const Vector>(cov_b.data(), r * r)) +
                          apply_transposed(between.mean, mean_b);
  }
  symmetrise(out);
  return out;
}

BlockInformation QuadraturePoint::observed(const Tangents& within, const Tangents& between) const {
  const Matrix whole = curvature(within, between, false);
  const Index kw = within.k(), kb = between.k();
  return {whole.topLeftCorner(kw, kw), whole.topRightCorner(kw, kb), whole.bottomRightCorner(kb, kb)};
}

// F with F'F the observed information, made positive definite: eigenvalues in the metric of its diagonal by
// their size.
Matrix QuadraturePoint::regular_root(const Tangents& within, const Tangents& between) const {
  const Matrix whole = curvature(within, between, true);
  if (!whole.allFinite()) return Matrix::Zero(whole.rows(), whole.cols());
  Vector scale = whole.diagonal().cwiseAbs().cwiseSqrt();
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, whole));
  const double top = eigen.values.cwiseAbs().maxCoeff();
  Vector values = eigen.values.cwiseAbs();
  for (Index k = 0; k < values.size(); ++k) {
    if (eigen.values[k] < 0) values[k] = std::max(values[k], kFloor * top);
  }
  return scale_cols(scale_cols(eigen.vectors, values.cwiseSqrt()).transpose(), scale);
}

BlockInformation QuadraturePoint::expected(const Tangents& within, const Tangents& between) const {
  const Matrix root = regular_root(within, between);
  const Index kw = within.k(), kb = between.k();
  const Matrix whole = cross(root, root);
  return {whole.topLeftCorner(kw, kw), whole.topRightCorner(kw, kb), whole.bottomRightCorner(kb, kb)};
}

std::pair<Matrix, Matrix> QuadraturePoint::factors(const Tangents& within, const Tangents& between) const {
  const Matrix root = regular_root(within, between);
  return {root.leftCols(within.k()), root.rightCols(between.k())};
}

std::unique_ptr<LikelihoodPoint> QuadratureLikelihood::at(Implied moments) const {
  auto point = std::make_unique<QuadraturePoint>();
  if (!prepare(std::move(moments), *point)) return nullptr;
  return point;
}

template class ProductClusters<QuadratureLikelihood>;

}  // namespace msem
