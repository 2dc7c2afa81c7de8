#include "likelihood/ordered/ordered.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/normal.hpp"
#include "likelihood/integrals/small.hpp"

namespace msem {

namespace {

constexpr double kLeast = 1e-300;    // probabilities below it count as this
constexpr double kTiny = 1e-250;     // products of probabilities below it are taken by their logarithms
constexpr Index kPlaces = 1 << 14;   // where probabilities are evaluated at a time
constexpr double kRange = 6;         // standard deviations that the nodes of level 1 reach
constexpr double kNarrowest = 0.02;  // and smallest, in units of the spacing asked for
constexpr double kWidest = 0.6;      // largest spacing of these nodes in standard deviations
// Spread of what a single dimension is integrated over, beside residuals of about 1, that is as good as none.
constexpr double kNoSpread = 1e-4;
constexpr double kLogistic = 1.8137993642342178506;  // pi / sqrt(3), the scale of a logistic variance of 1

using Array = Eigen::ArrayXd;

// Probabilities of the categories of one ordered variable at some places, and what they are derived from.
// Columns of the first four: thresholds.
struct Kernel {
  int categories = 0;
  std::vector<double> tau;
  Matrix z, lower, upper, density;  // P(X < z), P(X > z), of residuals of variance 1 in units of the link
  Matrix p, mass;                   // columns: categories; mass is how much each place counts
  Vector tail;

  void shape(int k, Index places) {
    categories = k;
    tau.resize(k - 1);
    if (p.rows() == places && p.cols() == k) return;
    for (Matrix* own : {&z, &lower, &upper, &density}) own->resize(places, k - 1);
    p.resize(places, k);
    mass.setZero(places, k);
    tail.resize(places);
  }
  static double scale(bool logistic, double sd) { return (logistic ? kLogistic : 1.0) / sd; }

  // `shift`: what is added to the variable at each place; sd its residual standard deviation.
  void evaluate(bool logistic, const double* shift, double sd) {
    const double unit = scale(logistic, sd);
    const Index n = z.rows();
    for (int t = 0; t + 1 < categories; ++t) {
      double *own = z.col(t).data(), *below = lower.col(t).data(), *above = upper.col(t).data();
      for (Index r = 0; r < n; ++r) own[r] = (tau[t] - shift[r]) * unit;
      if (logistic) {
        tail = (-z.col(t).array().abs()).exp().matrix();
        density.col(t) = (tail.array() / (1 + tail.array()).square()).matrix();
        tail = (tail.array() / (1 + tail.array())).matrix();
      } else {
        normal_tails(own, n, tail.data(), density.col(t).data());
      }
      for (Index r = 0; r < n; ++r) {
        below[r] = own[r] < 0 ? tail[r] : 1 - tail[r];
        above[r] = own[r] < 0 ? 1 - tail[r] : tail[r];
      }
    }
    for (int k = 0; k < categories; ++k) {
      double* own = p.col(k).data();
      if (k == 0 || k + 1 == categories) {
        const double* edge = k ? upper.col(k - 1).data() : lower.col(0).data();
        for (Index r = 0; r < n; ++r) own[r] = std::max(edge[r], kLeast);
        continue;
      }
      // without cancellation in the upper tail
      for (Index r = 0; r < n; ++r) {
        const double from_above = upper(r, k - 1) - upper(r, k), from_below = lower(r, k) - lower(r, k - 1);
        own[r] = std::max(z(r, k - 1) + z(r, k) > 0 ? from_above : from_below, kLeast);
      }
    }
  }

  // Sums of derivatives of log-probabilities, weighted by `mass`: with respect to the thresholds (added), to
  // what is added to the variable at each place, and to the residual variance (returned).
  double derivatives(bool logistic, double sd, double weight, double* of_tau, Array& of_shift) {
    const double unit = scale(logistic, sd);
    double variance = 0;
    of_shift.setZero();
    mass = (mass.array() / p.array()).matrix();
    for (int t = 0; t + 1 < categories; ++t) {
      const double *up = mass.col(t).data(), *down = mass.col(t + 1).data(), *own = z.col(t).data(),
                   *f = density.col(t).data();
      double total = 0;
      for (Index r = 0; r < z.rows(); ++r) {
        const double slope = (up[r] - down[r]) * f[r] * unit;
        total += slope;
        of_shift[r] -= slope;
        variance -= own[r] * slope;
      }
      of_tau[t] += weight * total;
    }
    mass.setZero();
    return variance / (2 * sd * sd * unit);
  }
};

}  // namespace

void require_products(const Matrix&, const OrderedData&) {}

OrderedData weighted(const OrderedData& data, const Matrix&, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every cluster needs a weight");
  OrderedData out = data;
  out.weight = weights;
  return out;
}

OrderedData single_cluster(const OrderedData& data, const Matrix&, Index cluster) {
  OrderedData out = data;
  const Index from = data.first[cluster], count = data.first[cluster + 1] - from;
  out.weight.setOnes(1);
  out.first = {0, count};
  out.values = data.values.middleCols(from, count);
  out.counts = data.counts.segment(from, count);
  out.unit_of_row.clear();
  out.cluster_values = data.cluster_values.col(cluster);
  return out;
}

void arrange(OrderedData& data, const Matrix& rows, const std::vector<Index>& codes, const Matrix& clusters,
             const Vector& weight, const Vector& cluster_weight) {
  const Index N = rows.rows(), J = clusters.rows(), p = data.p, q = data.q;
  if (rows.cols() != p || clusters.cols() != q || static_cast<Index>(codes.size()) != N ||
      static_cast<Index>(data.categories.size()) != p + q || static_cast<Index>(data.cuts.size()) != p + q ||
      data.nboth > p || data.nodes < 1 || !(data.spacing > 0) || (weight.size() && weight.size() != N) ||
      (cluster_weight.size() && cluster_weight.size() != J))
    throw std::invalid_argument("the ordered data do not fit together");
  for (Index v = 0; v < p + q; ++v) {
    const int k = data.categories[v];
    if (k == 1 || k < 0 || static_cast<int>(data.cuts[v].size()) != std::max(k - 1, 0))
      throw std::invalid_argument("an ordered variable needs two categories and its thresholds");
    for (const Index cut : data.cuts[v]) {
      if (cut < 0 || cut >= data.ncuts) throw std::invalid_argument("there is no such threshold");
    }
    const auto column = v < p ? rows.col(v) : clusters.col(v - p);
    for (Index i = 0; i < column.size(); ++i) {
      const double y = column[i];
      const bool fits = k ? std::isnan(y) || (y >= 0 && y < k && y == std::floor(y)) : std::isfinite(y);
      if (!fits) throw std::invalid_argument("a value is out of range, or missing where it may not be");
    }
  }
  for (const Index c : data.covariate) {
    if (c < 0 || c >= p + data.latent) throw std::invalid_argument("a slope has no covariate");
  }
  std::vector<std::vector<Index>> members(J);
  for (Index i = 0; i < N; ++i) {
    if (codes[i] < 0 || codes[i] >= J) throw std::invalid_argument("a row has no cluster");
    members[codes[i]].push_back(i);
  }
  const bool alike =
      std::all_of(data.categories.begin(), data.categories.begin() + p, [](int k) { return k; });
  std::vector<Index> kept;
  std::vector<double> counts;
  data.first.assign(1, 0);
  data.unit_of_row.assign(N, -1);
  for (Index j = 0; j < J; ++j) {
    std::map<std::vector<int>, Index> known;
    for (const Index i : members[j]) {
      std::vector<int> key(p);
      bool any = false;
      for (Index v = 0; v < p; ++v) {
        const bool there = !std::isnan(rows(i, v));
        any = any || there;
        key[v] = there && data.categories[v] ? static_cast<int>(rows(i, v)) : -1;
      }
      if (!any) continue;
      const auto place = static_cast<Index>(kept.size());
      if (alike) {
        const auto [found, fresh] = known.try_emplace(key, place);
        data.unit_of_row[i] = found->second;
        if (!fresh) {
          counts[found->second] += weight.size() ? weight[i] : 1;
          continue;
        }
      } else {
        data.unit_of_row[i] = place;
      }
      kept.push_back(i);
      counts.push_back(weight.size() ? weight[i] : 1);
    }
    data.first.push_back(static_cast<Index>(kept.size()));
  }
  data.values = select_rows(rows, kept).transpose();
  data.counts = Eigen::Map<const Vector>(counts.data(), static_cast<Index>(counts.size()));
  data.cluster_values = clusters.transpose();
  data.weight = cluster_weight.size() ? cluster_weight : Vector(Vector::Ones(J));
}

Integration integration(const OrderedData& data) {
  Integration out;
  const Index m = data.nslopes(), cut = data.nboth + data.q + data.latent_b, slope = cut + data.ncuts;
  out.m = data.p ? m : 0;
  out.p = data.p + data.latent;
  out.shape = {out.p + out.m, data.nboth, data.q + data.latent_b + data.ncuts + m};
  std::vector<Index> rest, known;
  const auto integrated = [&](Index v) {
    return std::find(data.integrated.begin(), data.integrated.end(), v) != data.integrated.end();
  };
  for (Index v = 0; v < slope + m; ++v) {
    const bool cluster = v >= data.nboth && v < data.nboth + data.q;
    if (v >= cut && v < slope) {
      out.cut.push_back(v);
    } else if (cluster && !data.categories[data.p + v - data.nboth]) {
      known.push_back(v);
    } else if (!integrated(v)) {
      rest.push_back(v);
    }
  }
  out.rest = static_cast<Index>(rest.size());
  out.known = static_cast<Index>(known.size());
  out.integrated = static_cast<Index>(data.integrated.size());
  out.order = rest;
  out.order.insert(out.order.end(), known.begin(), known.end());
  out.order.insert(out.order.end(), data.integrated.begin(), data.integrated.end());
  out.nodes = data.nodes;
  out.weight = data.weight;
  out.known_values.resize(out.known, data.nclusters());
  for (Index k = 0; k < out.known; ++k)
    out.known_values.row(k) = data.cluster_values.row(known[k] - data.nboth);
  return out;
}

class OrderedDensity : public NodeDensity {
 public:
  explicit OrderedDensity(const OrderedPoint& point)
      : data_(*point.data_),
        over_(*point.over_),
        t_(point.at_),
        p_(over_.p),
        m_(over_.m),
        at_{p_, m_, over_.rest, over_.given(), static_cast<Index>(over_.cut.size())},
        map_(t_.lambda, data_.covariate),
        z_(over_.given()),
        rest_(over_.rest),
        of_rest_(over_.rest),
        parts_(p_),
        slopes_(m_),
        of_slopes_(m_) {
    place_of_.assign(data_.nboth + data_.q + data_.latent_b + data_.ncuts + data_.nslopes(), 0);
    for (std::size_t k = 0; k < over_.order.size(); ++k) place_of_[over_.order[k]] = static_cast<Index>(k);
    for (Index v = 0; v < data_.p; ++v) (data_.categories[v] ? ordered_ : continuous_).push_back(v);
    latent_.resize(data_.latent);
    std::iota(latent_.begin(), latent_.end(), data_.p);
    for (Index v = 0; v < data_.q; ++v) {
      if (data_.categories[data_.p + v]) cluster_ordered_.push_back(v);
    }
    inner_ = ordered_;
    inner_.insert(inner_.end(), latent_.begin(), latent_.end());
    inner_.insert(inner_.end(), continuous_.begin(), continuous_.end());
    o_ = static_cast<Index>(ordered_.size());
    c_ = static_cast<Index>(continuous_.size());
    l_ = data_.latent;
    for (const Index v : continuous_) moving_ = moving_ || v < data_.nboth || m_ > 0;
    cluster_kernels_.resize(cluster_ordered_.size());
    for (std::size_t i = 0; i < cluster_ordered_.size(); ++i)
      set_thresholds(cluster_kernels_[i], data_.p + cluster_ordered_[i], 1);
    kernels_.resize(o_);
    fine_ = m_ ? true : set_level_one(t_.sigma, t_.mu);
  }

  double value(Index cluster, const double* s) override {
    if (!fine_) return kInfinity;
    if (!set_cluster(cluster, s)) return kInfinity;
    double log_density =
        -0.5 * (z_.squaredNorm() + t_.between.chol_z.log_det() + static_cast<double>(z_.size()) * kLog2Pi);
    for (std::size_t i = 0; i < cluster_ordered_.size(); ++i) {
      const double y = data_.cluster_values(cluster_ordered_[i], cluster);
      if (std::isnan(y)) continue;
      const Index at = place_of_[data_.nboth + cluster_ordered_[i]];
      cluster_kernels_[i].evaluate(data_.logistic, &rest_[at], std::sqrt(t_.between.cov(at, at)));
      log_density += std::log(cluster_kernels_[i].p(0, static_cast<int>(y)));
    }
    const Index from = data_.first[cluster], to = data_.first[cluster + 1], R = w_.size();
    if (posterior_.cols() < to - from) posterior_.resize(R, to - from);
    if (posterior_.rows() != R) posterior_.resize(R, posterior_.cols());
    for (Index first = from; first < to; first += chunk_) {
      const Index last = std::min(first + chunk_, to);
      evaluate(first, last);
      for (Index i = first; i < last; ++i)
        log_density += data_.counts[i] * set_posterior(i, i - from, i - first);
    }
    if (c_) {
      double counts = 0, squares = 0;
      for (Index i = from; i < to; ++i) {
        counts += data_.counts[i];
        squares += data_.counts[i] * zeta_.col(i - from).squaredNorm();
      }
      log_density -= 0.5 * (squares + counts * (level_.chol_z.log_det() + static_cast<double>(c_) * kLog2Pi));
    }
    return -2 * log_density;
  }

  void add_gradient(Index cluster, const double*, double weight, double* within, double* between) override {
    of_rest_.setZero();
    for (std::size_t i = 0; i < cluster_ordered_.size(); ++i) {
      const double y = data_.cluster_values(cluster_ordered_[i], cluster);
      if (std::isnan(y)) continue;
      const Index v = cluster_ordered_[i], at = place_of_[data_.nboth + v];
      cluster_kernels_[i].mass(0, static_cast<int>(y)) = 1;
      of_shift_.resize(1);
      const double variance =
          derivatives(cluster_kernels_[i], data_.p + v, std::sqrt(t_.between.cov(at, at)), weight, between);
      of_rest_[at] -= 2 * of_shift_[0];
      at_.c(between)(at, at) -= 2 * weight * variance;
    }
    if (p_) add_units(cluster, weight, within, between);
    add_between(at_, z_, of_rest_, weight, between);
  }

  // Posterior mean and variance of the latent variables of level 1 given the last node.
  void latent(Index cluster, Index unit, double* mean, double* second) {
    const Index own = unit - data_.first[cluster];
    const Vector e = apply(eps_, posterior_.col(own));
    const Matrix scatter = weighted_cross(eps_.transpose(), posterior_.col(own), eps_.transpose());
    Vector centre = mean_inner_.tail(l_);
    if (c_) add_applied(centre, 1, level_.slopes.bottomRows(l_), zeta_.col(own));
    for (Index a = 0; a < l_; ++a) {
      double shift = 0, square = 0;
      for (Index b = 0; b <= a; ++b) {
        shift += root_(a, b) * e[b];
        for (Index c = 0; c <= a; ++c) square += root_(a, b) * root_(a, c) * scatter(b, c);
      }
      mean[a] = centre[a] + shift;
      second[a] = centre[a] * centre[a] + 2 * centre[a] * shift + square;
    }
  }
  bool fine() const { return fine_; }

 private:
  void set_thresholds(Kernel& kernel, Index variable, Index places) {
    kernel.shape(data_.categories[variable], places);
    for (std::size_t k = 0; k < kernel.tau.size(); ++k) kernel.tau[k] = t_.cut[data_.cuts[variable][k]];
  }

  double derivatives(Kernel& kernel, Index variable, double sd, double weight, double* between) {
    taus_.assign(kernel.tau.size(), 0.0);
    const double variance = kernel.derivatives(data_.logistic, sd, -2 * weight, taus_.data(), of_shift_);
    for (std::size_t k = 0; k < taus_.size(); ++k) at_.cut(between)[data_.cuts[variable][k]] += taus_[k];
    return variance;
  }

  // What of level 1 is the same for all units: moments of ordered and latent variables given continuous ones.
  bool set_level_one(const Matrix& sigma, const Vector& mu) {
    if (!p_) {
      set_grid();
      return true;
    }
    const Matrix cov = select(sigma, inner_, inner_);
    const Vector mean = select(mu, inner_);
    if (!level_.compute(cov, mean, o_ + l_)) return false;
    mean_inner_ = mean.head(o_ + l_);
    kappa_.resize(o_, l_);
    root_.resize(l_, l_);
    inverse_root_.resize(l_, l_);
    if (l_) {
      Cholesky chol;
      if (!chol.compute(level_.cov.bottomRightCorner(l_, l_))) return false;
      root_ = chol.lower();
      inverse_root_ = chol.whiten(Matrix::Identity(l_, l_));
      kappa_ = outer(level_.cov.topRightCorner(o_, l_), inverse_root_);
    }
    sd_.resize(o_);
    for (Index a = 0; a < o_; ++a) {
      const double rest = level_.cov(a, a) - kappa_.row(a).squaredNorm();
      if (!(rest > 0)) return false;
      sd_[a] = std::sqrt(rest);
    }
    set_grid();
    return true;
  }

  void set_grid() {
    // No posterior distribution is narrower than if all y* were observed.
    std::vector<Vector> axes;
    Index count = 1;
    for (Index a = 0; a < l_; ++a) {
      double precision = 1;
      for (Index k = 0; k < o_; ++k) precision += kappa_(k, a) * kappa_(k, a) / (sd_[k] * sd_[k]);
      const double step = data_.spacing * std::max(std::min(kWidest, 1 / std::sqrt(precision)), kNarrowest);
      const auto half = static_cast<Index>(std::ceil(kRange / step));
      axes.push_back(Vector::LinSpaced(2 * half + 1, -step * static_cast<double>(half),
                                       step * static_cast<double>(half)));
      count *= axes.back().size();
    }
    std::vector<double> eps, log_w;
    for (Index r = 0; r < count; ++r) {
      double x[3], square = 0, log_step = 0;
      for (Index a = 0, rest = r; a < l_; ++a) {
        x[a] = axes[a][rest % axes[a].size()];
        rest /= axes[a].size();
        square += x[a] * x[a];
        log_step += std::log(axes[a][1] - axes[a][0]) - 0.5 * kLog2Pi;
      }
      if (l_ > 1 && square > kRange * kRange) continue;
      eps.insert(eps.end(), x, x + l_);
      log_w.push_back(log_step - 0.5 * square);
    }
    const auto R = static_cast<Index>(log_w.size());
    eps_ = Eigen::Map<const Matrix>(eps.data(), l_, R);
    w_ = Eigen::Map<const Vector>(log_w.data(), R).array().exp().matrix();
    kappa_eps_ = Matrix::Zero(R, o_);
    if (l_) kappa_eps_ = outer(eps_.transpose(), kappa_);
    chunk_ = std::max<Index>(kPlaces / R, 1);
    known_ = -1;
  }

  // The parts of level 2 at a node; false where there is no density.
  bool set_cluster(Index cluster, const double* s) {
    const Index known = over_.known, g = z_.size();
    for (Index k = 0; k < known; ++k) z_[k] = over_.known_values(k, cluster) - t_.between.mu_z[k];
    for (Index k = known; k < g; ++k) z_[k] = s[k - known] - t_.between.mu_z[k];
    solve_lower(t_.root_z.data(), g, z_.data());
    for (Index i = 0; i < rest_.size(); ++i) {
      rest_[i] = t_.mean_rest[i];
      for (Index k = 0; k < g; ++k) rest_[i] += t_.between.slopes(i, k) * z_[k];
    }
    const auto part = [&](Index v) {
      const Index place = place_of_[v];
      return place < rest_.size() ? rest_[place] : s[place - rest_.size() - known];
    };
    parts_.setZero();
    for (Index v = 0; v < data_.nboth; ++v) parts_[v] = part(v);
    if (!m_) {
      set_residuals(cluster);
      return true;
    }
    const Index first = data_.nboth + data_.q + data_.latent_b + data_.ncuts;
    for (Index k = 0; k < m_; ++k) slopes_[k] = part(first + k);
    map_.set(slopes_.data());
    half_ = product(map_.map(), t_.sigma);
    if (!set_level_one(outer(half_, map_.map()), apply(map_.map(), t_.mu))) return false;
    set_residuals(cluster);
    return true;
  }

  // Whitened residuals of the continuous variables of the units of a cluster.
  void set_residuals(Index cluster) {
    if (!c_ || (known_ == cluster && !moving_)) return;
    known_ = cluster;
    const Index from = data_.first[cluster], to = data_.first[cluster + 1];
    if (zeta_.cols() < to - from) zeta_.resize(c_, to - from);
    if (root_v_.rows() != c_ || m_) root_v_ = level_.chol_z.lower();
    for (Index i = from; i < to; ++i) {
      double* own = zeta_.col(i - from).data();
      for (Index k = 0; k < c_; ++k)
        own[k] = data_.values(continuous_[k], i) - level_.mu_z[k] - parts_[continuous_[k]];
      solve_lower(root_v_.data(), c_, own);
    }
  }

  // Probabilities of the categories of all ordered variables of some units, or of any unit.
  void evaluate(Index first, Index last) {
    const Index R = w_.size(), units = c_ ? last - first : 1;
    if (shift_.size() != R * units) shift_.resize(R * units);
    const Index from = first - first_of(first);
    for (Index a = 0; a < o_; ++a) {
      const double base = mean_inner_[a] + parts_[ordered_[a]];
      for (Index i = 0; i < units; ++i) {
        double own = base;
        for (Index k = 0; k < c_; ++k) own += level_.slopes(a, k) * zeta_(k, from + i);
        shift_.segment(i * R, R) = kappa_eps_.col(a).array() + own;
      }
      set_thresholds(kernels_[a], ordered_[a], R * units);
      kernels_[a].evaluate(data_.logistic, shift_.data(), sd_[a]);
    }
    evaluated_ = first;
  }
  Index first_of(Index unit) const {
    return *(std::upper_bound(data_.first.begin(), data_.first.end(), unit) - 1);
  }

  // Posterior weights of the nodes of a unit, which is the one `place` of those evaluated; returns the log of
  // the integral.
  double set_posterior(Index unit, Index own, Index place) {
    const Index R = w_.size(), from = c_ ? place * R : 0;
    auto weights = posterior_.col(own);
    weights = w_;
    for (Index a = 0; a < o_; ++a) {
      const double y = data_.values(ordered_[a], unit);
      if (!std::isnan(y)) weights.array() *= kernels_[a].p.col(static_cast<int>(y)).segment(from, R).array();
    }
    const double sum = weights.sum();
    if (sum > kTiny) {
      weights /= sum;
      return std::log(sum);
    }
    weights = w_.array().log().matrix();
    for (Index a = 0; a < o_; ++a) {
      const double y = data_.values(ordered_[a], unit);
      if (!std::isnan(y))
        weights.array() += kernels_[a].p.col(static_cast<int>(y)).segment(from, R).array().log();
    }
    const double top = weights.maxCoeff();
    weights = (weights.array() - top).exp().matrix();
    const double rest = weights.sum();
    weights /= rest;
    return top + std::log(rest);
  }

  void add_units(Index cluster, double weight, double* within, double* between) {
    const Index from = data_.first[cluster], to = data_.first[cluster + 1], x = o_ + l_;
    g_mean_.setZero(x);
    g_var_.setZero(o_);
    g_slope_.setZero(x, c_);
    g_kappa_.setZero(o_, l_);
    g_zz_.setZero(c_, c_);
    g_z_.setZero(c_);
    const Index R = w_.size();
    for (Index first = from; first < to; first += chunk_) {
      const Index last = std::min(first + chunk_, to), units = c_ ? last - first : 1;
      if (c_ && evaluated_ != first) evaluate(first, last);
      for (Index i = first; i < last; ++i) {
        for (Index a = 0; a < o_; ++a) {
          const double y = data_.values(ordered_[a], i);
          if (!std::isnan(y))
            kernels_[a].mass.col(static_cast<int>(y)).segment(c_ ? (i - first) * R : 0, R) +=
                data_.counts[i] * posterior_.col(i - from);
        }
        if (!c_) continue;
        g_zz_.diagonal().array() += data_.counts[i];
        add_outer(g_zz_, -data_.counts[i], zeta_.col(i - from), zeta_.col(i - from));
        g_z_ -= 2 * data_.counts[i] * zeta_.col(i - from);
      }
      of_shift_.resize(R * units);
      for (Index a = 0; a < o_; ++a) {
        g_var_[a] -= 2 * derivatives(kernels_[a], ordered_[a], sd_[a], weight, between);
        for (Index i = 0; i < units; ++i) {
          const auto own = of_shift_.segment(i * R, R);
          const double total = own.sum();
          g_mean_[a] -= 2 * total;
          for (Index k = 0; k < c_; ++k) g_slope_(a, k) -= 2 * total * zeta_(k, first - from + i);
          for (Index b = 0; b < l_; ++b) g_kappa_(a, b) -= 2 * (own * eps_.row(b).transpose().array()).sum();
        }
      }
    }
    // from kappa and residual variances to the covariance matrix given the continuous variables
    Matrix g_c = Matrix::Zero(x, x);
    g_c.diagonal().head(o_) = g_var_;
    if (l_) {
      for (Index a = 0; a < o_; ++a) g_kappa_.row(a) -= 2 * g_var_[a] * kappa_.row(a);
      const Matrix cross_part = 0.5 * product(g_kappa_, inverse_root_);
      g_c.topRightCorner(o_, l_) = cross_part;
      g_c.bottomLeftCorner(l_, o_) = cross_part.transpose();
      const Matrix own = sandwich(inverse_root_, cross(g_kappa_, kappa_));
      g_c.bottomRightCorner(l_, l_) = -0.25 * (own + own.transpose());
    }
    const BetweenGradient found =
        between_gradient(level_.projection, level_.chol_z, g_c, g_mean_, g_slope_, g_zz_, g_z_);
    Vector mean(p_);
    Matrix cov = Matrix::Zero(p_, p_);
    add(cov, inner_, found.cov);
    for (Index k = 0; k < p_; ++k) mean[inner_[k]] = found.mean[k];
    for (Index v = 0; v < data_.nboth; ++v) add_to_part(v, mean[v]);
    if (!m_) {
      at_.mean(within) += weight * mean;
      at_.cov(within) += weight * cov;
      return;
    }
    at_.mean(within) += weight * apply_transposed(map_.map(), mean);
    at_.cov(within) += weight * sandwich(map_.map(), cov);
    Matrix of_map = 2 * product(cov, half_);
    add_outer(of_map, 1, mean, t_.mu);
    map_.add_gradient(slopes_.data(), of_map, weight, at_.lambda(within), of_slopes_.data());
    const Index first = data_.nboth + data_.q + data_.latent_b + data_.ncuts;
    for (Index k = 0; k < m_; ++k) add_to_part(first + k, of_slopes_[k]);
  }

  void add_to_part(Index v, double derivative) {
    if (place_of_[v] < rest_.size()) of_rest_[place_of_[v]] += derivative;
  }

  const OrderedData& data_;
  const Integration& over_;
  const IntegrandMoments& t_;
  Index p_, m_, o_ = 0, c_ = 0, l_ = 0;
  IntegrandColumns at_;
  SlopeMap map_;
  bool fine_ = true, moving_ = false;  // whether residuals of continuous variables differ between nodes
  std::vector<Index> ordered_, continuous_, latent_, cluster_ordered_;
  std::vector<Index> inner_;     // variables of level 1: ordered, latent, continuous
  std::vector<Index> place_of_;  // of the variables of level 2 in the order of the integration
  Vector z_, rest_, of_rest_, parts_, slopes_, of_slopes_;
  ConditionalLevel level_;  // ordered and latent variables given continuous ones
  Vector mean_inner_, sd_;
  Matrix zeta_, root_v_;  // by unit of the cluster
  Matrix kappa_, root_, inverse_root_, half_;
  Matrix eps_, kappa_eps_;  // latent x R; R x ordered
  Vector w_;
  Index chunk_ = 1, evaluated_ = -1, known_ = -1;
  std::vector<Kernel> kernels_, cluster_kernels_;
  Matrix posterior_;  // R x units of the cluster
  std::vector<double> taus_;
  Array shift_, of_shift_;
  Vector g_mean_, g_var_, g_z_;
  Matrix g_slope_, g_kappa_, g_zz_;
};

std::unique_ptr<NodeDensity> OrderedPoint::density() const { return std::make_unique<OrderedDensity>(*this); }

bool OrderedPoint::prepare_integrand() {
  for (std::size_t v = 0; v < data_->cuts.size(); ++v) {
    const std::vector<Index>& cuts = data_->cuts[v];
    for (std::size_t k = 1; k < cuts.size(); ++k) {
      if (!(at_.cut[cuts[k]] > at_.cut[cuts[k - 1]])) return false;
    }
  }
  for (Index v = 0; v < data_->q; ++v) {
    if (!data_->categories[data_->p + v]) continue;
    const auto found = std::find(over_->order.begin(), over_->order.end(), data_->nboth + v);
    const Index at = found - over_->order.begin();
    if (!(at_.between.cov(at, at) > 0)) return false;
  }
  return over_->m > 0 || OrderedDensity(*this).fine();
}

OrderedPosterior OrderedPoint::posterior() const {
  const Index J = over_->nclusters(), l = data_->latent, units = data_->values.cols(),
              N = static_cast<Index>(data_->unit_of_row.size());
  OrderedPosterior out{Matrix::Constant(l, N, kNaN), Matrix::Constant(l, N, kNaN)};
  if (!l) return out;
  Matrix mean = Matrix::Zero(l, units), second = Matrix::Zero(l, units);
  OrderedDensity integrand(*this);
  Vector one(l), two(l);
  for (Index j = 0; j < J; ++j) {
    check_interrupt();
    double total = 0;
    at_nodes(j, integrand, [&](const double*, double weight) {
      total += weight;
      for (Index i = data_->first[j]; i < data_->first[j + 1]; ++i) {
        integrand.latent(j, i, one.data(), two.data());
        mean.col(i) += weight * one;
        second.col(i) += weight * two;
      }
    });
    for (Index i = data_->first[j]; i < data_->first[j + 1]; ++i) {
      mean.col(i) /= total;
      second.col(i) /= total;
    }
  }
  for (Index i = 0; i < N; ++i) {
    const Index unit = data_->unit_of_row[i];
    if (unit < 0) continue;
    out.within.col(i) = mean.col(unit);
    out.within_var.col(i) = second.col(unit) - mean.col(unit).cwiseAbs2();
  }
  return out;
}

Vector OrderedPoint::negligible_spread() const {
  return Vector::Constant(over_->integrated, over_->integrated == 1 ? kNoSpread : 0.0);
}

std::unique_ptr<LikelihoodPoint> OrderedLikelihood::at(Implied moments) const {
  auto point = std::make_unique<OrderedPoint>();
  if (!prepare(std::move(moments), *point)) return nullptr;
  return point;
}

template class ProductClusters<OrderedLikelihood>;

}  // namespace msem
