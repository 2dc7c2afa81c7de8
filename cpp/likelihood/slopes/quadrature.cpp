#include "likelihood/slopes/quadrature.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "likelihood/integrals/small.hpp"

namespace msem {

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
  out.known_values = data.means.bottomRows(data.q);
  return out;
}

// Density of the data of a cluster and of its slopes, with derivatives of -2 log of it.
class SlopeDensity : public NodeDensity {
 public:
  explicit SlopeDensity(const QuadraturePoint& point)
      : data_(*point.data_),
        t_(point.at_),
        p_(data_.p),
        l_(p_ + data_.latent),
        m_(data_.nslopes()),
        b_(data_.nboth),
        g_(data_.q + m_),
        at_{l_, m_, b_, g_, 0},
        map_(t_.lambda, data_.covariate),
        half_(p_, l_),
        sigma_(p_, p_),
        w_(p_, p_),
        v_(p_, p_),
        inverse_(p_, p_),
        solved_(p_, p_),
        wide_(p_, l_),
        of_map_(Matrix::Zero(l_, l_)),
        mean_(p_),
        r_(p_),
        z_(g_),
        rest_(b_) {}

  double value(Index cluster, const double* s) override {
    const double n = data_.sizes[cluster];
    map_.set(s);
    const auto seen = map_.map().topRows(p_);
    set_product(half_, seen, t_.sigma);
    sigma_.noalias() = half_ * seen.transpose();
    double log_det = 0, log_det_v = 0;
    w_ = sigma_;
    if (!factorise(w_.data(), p_, log_det)) return std::numeric_limits<double>::infinity();
    solved_ = w_;
    invert_factored(solved_.data(), p_, w_.data());
    mean_.noalias() = seen * t_.mu;
    const Index q = data_.q;
    for (Index k = 0; k < q; ++k) z_[k] = data_.means(p_ + k, cluster) - t_.between.mu_z[k];
    for (Index k = 0; k < m_; ++k) z_[q + k] = s[k] - t_.between.mu_z[q + k];
    solve_lower(t_.root_z.data(), g_, z_.data());
    for (Index i = 0; i < p_; ++i) r_[i] = data_.means(i, cluster) - mean_[i];
    for (Index i = 0; i < b_; ++i) {
      r_[i] -= t_.mean_rest[i];
      for (Index k = 0; k < g_; ++k) r_[i] -= t_.between.slopes(i, k) * z_[k];
    }
    v_ = sigma_ / n;
    v_.topLeftCorner(b_, b_) += t_.between.cov;
    if (!factorise(v_.data(), p_, log_det_v)) return std::numeric_limits<double>::infinity();
    solve_lower(v_.data(), p_, r_.data());
    double out = (n - 1) * log_det + log_det_v + r_.squaredNorm() + z_.squaredNorm() + constant(n);
    const double* products = data_.within.data() + cluster * p_ * p_;
    for (Index i = 0; i < p_ * p_; ++i) out += w_.data()[i] * products[i];
    return out;
  }

  void add_gradient(Index cluster, const double* s, double weight, double* within, double* between) override {
    const double n = data_.sizes[cluster];
    invert_factored(v_.data(), p_, inverse_.data());
    solve_upper(v_.data(), p_, r_.data());  // V^-1 r
    add_outer(inverse_, -1, r_, r_);
    // of Sigma(s)
    const Eigen::Map<const Matrix> products(data_.within.data() + cluster * p_ * p_, p_, p_);
    set_product(solved_, w_, products);
    Matrix& g = sigma_;
    g = (n - 1) * w_ + inverse_ / n;
    add_product(g, -1, solved_, w_);
    // of M: 2 G M Sigma + g_mean mu'
    set_product(wide_, g, half_);
    of_map_.topRows(p_) = 2 * wide_;
    add_outer(of_map_.topRows(p_), -2, r_, t_.mu);
    const auto seen = map_.map().topRows(p_);
    at_.mean(within).noalias() += (-2 * weight) * (seen.transpose() * r_);
    set_product(wide_, g, seen);
    at_.cov(within).noalias() += weight * (seen.transpose() * wide_);
    map_.add_gradient(s, of_map_, weight, at_.lambda(within), nullptr);
    at_.c(between) += weight * inverse_.topLeftCorner(b_, b_);
    rest_ = -2 * r_.head(b_);
    add_between(at_, z_, rest_, weight, between);
  }

 private:
  double constant(double n) const {
    return n * static_cast<double>(p_) * kLog2Pi + static_cast<double>(p_) * std::log(n) +
           static_cast<double>(g_) * kLog2Pi + t_.between.chol_z.log_det();
  }

  const SlopeClusterData& data_;
  const IntegrandMoments& t_;
  Index p_, l_, m_, b_, g_;
  IntegrandColumns at_;
  SlopeMap map_;
  Matrix half_, sigma_, w_, v_, inverse_, solved_, wide_, of_map_;
  Vector mean_, r_, z_, rest_;
};

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
