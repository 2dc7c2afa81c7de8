#include "likelihood/slopes/quadrature.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "likelihood/slopes/density.hpp"

namespace msem {

namespace {

// Spread of a slope that is as good as none. Its square is added to the variance, whose derivative has the
// rounding of the value over it: with less, no digits are left where the variance is 0.
constexpr double kNegligible = 1e-4;

}  // namespace

Integration integration(const SlopeClusterData& data) {
  Integration out;
  out.m = data.nslopes();
  out.p = data.p + data.latent;
  out.shape = {out.p + out.m, data.nboth, data.q + out.m};
  out.order.resize(data.nboth + data.q + out.m);
  std::iota(out.order.begin(), out.order.end(), Index{0});
  out.rest = data.nboth;
  out.known = data.q;
  out.integrated = out.m;
  out.nodes = data.nodes;
  out.weight = data.weight;
  out.known_values = data.cluster_values;
  return out;
}

SlopeDensity::SlopeDensity(const QuadraturePoint& point)
    : data_(point.data()),
      t_(point.integrand()),
      p_(data_.p),
      l_(p_ + data_.latent),
      m_(data_.nslopes()),
      b_(data_.nboth),
      g_(data_.q + m_),
      at_{l_, m_, b_, g_, 0},
      map_(t_.lambda, data_.covariate),
      half_(p_, l_),
      sigma_(p_, p_),
      of_sigma_(p_, p_),
      wide_(p_, l_),
      of_map_(Matrix::Zero(l_, l_)),
      precision_(b_, b_),
      root_(b_, b_),
      reach_(b_, b_),
      information_(b_, b_),
      variance_(b_, b_),
      work_(p_, p_),
      solved_(p_, p_),
      spread_(p_, p_),
      mean_(p_),
      expected_(p_),
      q_(b_),
      cq_(b_),
      u_(b_),
      e_(b_),
      z_(g_),
      rest_(b_),
      of_mean_(p_),
      short_(p_),
      gain_(p_) {
  Index most = 0;
  for (Index j = 0; j < data_.nclusters(); ++j)
    most = std::max(most, data_.first_cell[j + 1] - data_.first_cell[j]);
  w_.resize(p_ * p_, most);
  off_.resize(p_, most);
}

double SlopeDensity::constant(double values) const {
  return (values + static_cast<double>(g_)) * kLog2Pi + t_.between.chol_z.log_det();
}

double SlopeDensity::value(Index cluster, const double* s) {
  const double nowhere = std::numeric_limits<double>::infinity();
  map_.set(s);
  const auto seen = map_.map().topRows(p_);
  set_product(half_, seen, t_.sigma);
  sigma_.setZero();
  add_outer(sigma_, 1, half_, seen);
  mean_.setZero();
  add_applied(mean_, 1, seen, t_.mu);
  const Index q = data_.q;
  for (Index k = 0; k < q; ++k) z_[k] = data_.cluster_values(k, cluster) - t_.between.mu_z[k];
  for (Index k = 0; k < m_; ++k) z_[q + k] = s[k] - t_.between.mu_z[q + k];
  solve_lower(t_.root_z.data(), g_, z_.data());
  expected_ = mean_;
  for (Index i = 0; i < b_; ++i) {
    expected_[i] += t_.mean_rest[i];
    for (Index k = 0; k < g_; ++k) expected_[i] += t_.between.slopes(i, k) * z_[k];
  }
  precision_.setZero();
  q_.setZero();
  double values = 0, out = z_.squaredNorm();
  for (Index c = data_.first_cell[cluster]; c < data_.first_cell[cluster + 1]; ++c) {
    if (!add_cell(c, c - data_.first_cell[cluster], out)) return nowhere;
    values += data_.cell_sizes[c] * static_cast<double>(data_.pattern(c).size());
  }
  if (!add_second_level(out)) return nowhere;
  return out + constant(values);
}

bool SlopeDensity::add_cell(Index cell, Index place, double& out) {
  const Pattern& seen = data_.pattern(cell);
  const Index o = static_cast<Index>(seen.size());
  const double n = data_.cell_sizes[cell];
  double log_det = 0;
  double* a = work_.data();
  for (Index j = 0; j < o; ++j) {
    for (Index i = 0; i < o; ++i) a[j * o + i] = sigma_(seen[i], seen[j]);
  }
  if (!factorise(a, o, log_det)) return false;
  double *w = w_.col(place).data(), *r = off_.col(place).data();
  invert_factored(a, o, w);
  for (Index i = 0; i < o; ++i) r[i] = data_.means(seen[i], cell) - expected_[seen[i]];
  const double* products = data_.within.col(cell).data();
  double sum = 0;
  for (Index j = 0; j < o; ++j) {
    double score = 0;
    for (Index i = 0; i < o; ++i) {
      score += w[j * o + i] * r[i];
      sum += w[j * o + i] * products[j * o + i];
    }
    sum += n * score * r[j];
    if (seen[j] >= b_) continue;
    q_[seen[j]] += n * score;
    for (Index i = 0; i < o && seen[i] < b_; ++i) precision_(seen[i], seen[j]) += n * w[j * o + i];
  }
  out += n * log_det + sum;
  return true;
}

// Of variables that no unit of the cluster has the precision is zero, and so is its root.
bool SlopeDensity::add_second_level(double& out) {
  const Matrix& c = t_.between.cov;
  root_ = precision_;
  for (Index j = 0; j < b_; ++j) {
    for (Index i = 0; i < j; ++i) root_(i, j) = 0;
    const double pivot = root_(j, j);
    if (!(pivot > 0)) {
      root_.col(j).setZero();
      continue;
    }
    const double scale = 1 / std::sqrt(pivot);
    for (Index i = j; i < b_; ++i) root_(i, j) *= scale;
    for (Index k = j + 1; k < b_; ++k) {
      for (Index i = k; i < b_; ++i) root_(i, k) -= root_(i, j) * root_(k, j);
    }
  }
  // I + L'C L, and u = q - U C q with U = L (I + L'C L)^-1 L'
  small_product(c.data(), root_.data(), b_, reach_.data());
  small_cross(root_.data(), reach_.data(), b_, information_.data());
  information_.diagonal().array() += 1;
  double log_det = 0;
  if (!factorise(information_.data(), b_, log_det)) return false;
  small_apply(c.data(), q_.data(), b_, b_, cq_.data());
  for (Index j = 0; j < b_; ++j) {
    double sum = 0;
    for (Index i = j; i < b_; ++i) sum += root_(i, j) * cq_[i];
    rest_[j] = sum;
  }
  solve_lower(information_.data(), b_, rest_.data());
  solve_upper(information_.data(), b_, rest_.data());
  u_ = q_;
  for (Index j = 0; j < b_; ++j) {
    for (Index i = j; i < b_; ++i) u_[i] -= root_(i, j) * rest_[j];
  }
  small_apply(c.data(), u_.data(), b_, b_, e_.data());
  out += log_det - q_.dot(e_);
  return std::isfinite(out);
}

// U: `information_` has the factor of I + L'C L.
const Matrix& SlopeDensity::information() {
  for (Index j = 0; j < b_; ++j) {
    for (Index i = 0; i < b_; ++i) reach_(i, j) = root_(j, i);
    solve_lower(information_.data(), b_, reach_.col(j).data());
  }
  small_cross(reach_.data(), reach_.data(), b_, variance_.data());
  return variance_;
}

void SlopeDensity::add_gradient(Index cluster, const double* s, double weight, double* within,
                                double* between) {
  const Matrix& c = t_.between.cov;
  const Matrix& u = information();
  // posterior covariance matrix of the parts of level 2, C - C U C
  small_product(c.data(), u.data(), b_, reach_.data());
  small_product(reach_.data(), c.data(), b_, precision_.data());
  precision_ = c - precision_;
  of_sigma_.setZero();
  of_mean_.setZero();
  const Index first = data_.first_cell[cluster];
  for (Index cell = first; cell < data_.first_cell[cluster + 1]; ++cell) {
    const Pattern& seen = data_.pattern(cell);
    const Index o = static_cast<Index>(seen.size());
    const double n = data_.cell_sizes[cell];
    const double *w = w_.col(cell - first).data(), *r = off_.col(cell - first).data();
    const double* products = data_.within.col(cell).data();
    for (Index i = 0; i < o; ++i) short_[i] = r[i] - (seen[i] < b_ ? e_[seen[i]] : 0.0);
    double* spread = spread_.data();
    for (Index j = 0; j < o; ++j) {
      for (Index i = 0; i < o; ++i) {
        double one = short_[i] * short_[j];
        if (seen[i] < b_ && seen[j] < b_) one += precision_(seen[i], seen[j]);
        spread[j * o + i] = products[j * o + i] + n * one;
      }
    }
    small_product(w, spread, o, solved_.data());
    small_product(solved_.data(), w, o, work_.data());
    for (Index j = 0; j < o; ++j) {
      double score = 0;
      for (Index i = 0; i < o; ++i) {
        score += w[j * o + i] * short_[i];
        of_sigma_(seen[i], seen[j]) += n * w[j * o + i] - work_.data()[j * o + i];
      }
      of_mean_[seen[j]] += n * score;
    }
  }
  // of M: 2 G M Sigma + g_mean mu'
  set_product(wide_, of_sigma_, half_);
  of_map_.topRows(p_) = 2 * wide_;
  add_outer(of_map_.topRows(p_), -2, of_mean_, t_.mu);
  const auto seen = map_.map().topRows(p_);
  add_applied_transposed(at_.mean(within), -2 * weight, seen, of_mean_);
  set_product(wide_, of_sigma_, seen);
  add_cross(at_.cov(within), weight, seen, wide_);
  map_.add_gradient(s, of_map_, weight, at_.lambda(within), nullptr);
  at_.c(between) += weight * u;
  add_outer(at_.c(between), -weight, u_, u_);
  rest_ = -2 * u_;
  add_between(at_, z_, rest_, weight, between);
}

// Beside the mean of a slope, and beside the slope at which the covariate would make all of an outcome.
Vector QuadraturePoint::negligible_spread() const {
  const Matrix& sigma = at_.sigma;
  Vector out(data_->nslopes());
  for (Index k = 0; k < out.size(); ++k) {
    const Index c = data_->covariate[k];
    double whole = std::numeric_limits<double>::infinity();
    for (Index i = 0; i < sigma.rows(); ++i) {
      if (at_.lambda(i, k) != 0)
        whole = std::min(whole, std::sqrt(sigma(i, i) / sigma(c, c)) / std::abs(at_.lambda(i, k)));
    }
    const double mean = std::abs(at_.moments.mean_b[data_->nboth + data_->q + k]);
    out[k] = kNegligible * (mean + (std::isfinite(whole) ? whole : 0.0));
  }
  return out;
}

std::unique_ptr<NodeDensity> QuadraturePoint::density() const {
  return std::make_unique<SlopeDensity>(*this);
}

std::unique_ptr<LikelihoodPoint> QuadratureLikelihood::at(Implied moments) const {
  auto point = std::make_unique<QuadraturePoint>();
  if (!prepare(std::move(moments), *point)) return nullptr;
  return point;
}

template class ProductClusters<QuadratureLikelihood>;

}  // namespace msem
