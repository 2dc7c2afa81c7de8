#include "after/ordered_modes.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "likelihood/integrals/small.hpp"
#include "ordered/line.hpp"

namespace msem {

namespace {

constexpr int kModeSteps = 100;
constexpr int kModeHalvings = 40;
constexpr double kModeFound = 1e-12;                     // decrement, before a last step
constexpr Index kModeChunk = 64;                         // clusters of a piece of work
constexpr double kLogisticUnit = 1.8137993642342178506;  // pi / sqrt(3)

// log-probability of a category, and its first two derivatives with respect to the linear predictor.
struct Category {
  double log, slope, curvature;
};

double log_logistic(double x) { return x > 0 ? -std::log1p(std::exp(-x)) : x - std::log1p(std::exp(x)); }
double logistic(double x) { return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

Category logistic_category(const Vector& cuts, int category, double mean, double sd) {
  const double unit = kLogisticUnit / sd;
  const bool lowest = category == 0, highest = category == cuts.size();
  const double up = highest ? 0 : (cuts[category] - mean) * unit,
               low = lowest ? 0 : (cuts[category - 1] - mean) * unit;
  const double f_up = highest ? 1 : logistic(up), f_low = lowest ? 0 : logistic(low);
  const double d_up = highest ? 0 : f_up * logistic(-up), d_low = lowest ? 0 : f_low * logistic(-low);
  double log = 0;
  if (!highest) log += log_logistic(up);
  if (!lowest) log += log_logistic(-low);
  if (!highest && !lowest) log += std::log(-std::expm1(low - up));
  return {log, (f_up + f_low - 1) * unit, -(d_up + d_low) * unit * unit};
}

Category category_of(bool is_logistic, const Vector& cuts, int category, double mean, double sd) {
  if (is_logistic) return logistic_category(cuts, category, mean, sd);
  const Kernel k = category_kernel(cuts, category, mean, sd);
  return {k.log, k.shift(), k.curvature};
}

class ModeSearch {
 public:
  explicit ModeSearch(const ModeProblem& p)
      : p_(p),
        l_(p.unit.reach.cols()),
        r_(p.unit.top.cols()),
        h_(l_, l_),
        s_(r_, r_),
        g_(l_),
        g_top_(r_),
        u_(r_),
        du_(r_),
        row_(std::max(l_, r_)) {}

  // Returns whether the maximum was found.
  bool find(Index cluster, PosteriorModes& out) {
    from_ = p_.first[cluster];
    n_ = p_.first[cluster + 1] - from_;
    cluster_ = cluster;
    if (e_.cols() < n_) {
      for (Matrix* own : {&e_, &de_}) own->resize(l_, n_);
      factor_.resize(l_ * l_, n_);
      solved_.resize(l_ * r_, n_);  // L^-1 H_eu of each unit
    }
    u_.setZero();
    e_.leftCols(n_).setZero();
    double now = value(0);
    bool found = false;
    for (int step = 0; step < kModeSteps && !found; ++step) {
      const double decrement = newton();
      found = decrement < kModeFound * (1 + std::abs(now));
      double size = 1;
      for (int half = 0; half < kModeHalvings; ++half, size /= 2) {
        const double next = value(size);
        if (found || next >= now) {
          now = next;
          break;
        }
      }
      u_ += size * du_;
      e_.leftCols(n_) += size * de_.leftCols(n_);
    }
    newton();
    report(out);
    return found;
  }

 private:
  double predictor(Index item, Index unit, double size) const {
    double out = p_.shift(item, from_ + unit);
    for (Index k = 0; k < l_; ++k) out += p_.unit.reach(item, k) * (e_(k, unit) + size * step_e(k, unit));
    for (Index k = 0; k < r_; ++k) out += p_.unit.top(item, k) * (u_[k] + size * step_u(k));
    return out;
  }
  double step_e(Index k, Index unit) const { return moving_ ? de_(k, unit) : 0; }
  double step_u(Index k) const { return moving_ ? du_[k] : 0; }

  double value(double size) {
    moving_ = size > 0;
    double out = 0;
    for (Index k = 0; k < r_; ++k) out -= 0.5 * std::pow(u_[k] + size * step_u(k), 2);
    for (Index i = 0; i < n_; ++i) {
      for (Index k = 0; k < l_; ++k) out -= 0.5 * std::pow(e_(k, i) + size * step_e(k, i), 2);
      for (Index c = 0; c < p_.root.rows(); ++c) {
        double rest = p_.zeta(c, from_ + i);
        for (Index k = 0; k < r_; ++k) rest -= p_.root(c, k) * (u_[k] + size * step_u(k));
        out -= 0.5 * rest * rest;
      }
      for (Index a = 0; a < p_.categories.rows(); ++a) {
        const double y = p_.categories(a, from_ + i);
        if (std::isnan(y)) continue;
        out += category_of(p_.logistic, p_.unit.cuts[a], static_cast<int>(y), predictor(a, i, size),
                           p_.unit.sd[a])
                   .log;
      }
    }
    for (Index a = 0; a < p_.cluster_categories.rows(); ++a) {
      const double y = p_.cluster_categories(a, cluster_);
      if (std::isnan(y)) continue;
      double at = p_.cluster_shift(a, cluster_);
      for (Index k = 0; k < r_; ++k) at += p_.cluster.top(a, k) * (u_[k] + size * step_u(k));
      out += category_of(p_.logistic, p_.cluster.cuts[a], static_cast<int>(y), at, p_.cluster.sd[a]).log;
    }
    return out;
  }

  // The step to where the quadratic that touches the log-density has its maximum; returns the decrement.
  double newton() {
    moving_ = false;
    s_.setIdentity();
    g_top_ = -u_;
    const auto add_top = [&](const Matrix& top, Index a, const Category& k) {
      for (Index i = 0; i < r_; ++i) {
        g_top_[i] += k.slope * top(a, i);
        for (Index j = 0; j < r_; ++j) s_(i, j) -= k.curvature * top(a, i) * top(a, j);
      }
    };
    for (Index a = 0; a < p_.cluster_categories.rows(); ++a) {
      const double y = p_.cluster_categories(a, cluster_);
      if (std::isnan(y)) continue;
      double at = p_.cluster_shift(a, cluster_);
      for (Index k = 0; k < r_; ++k) at += p_.cluster.top(a, k) * u_[k];
      add_top(p_.cluster.top, a,
              category_of(p_.logistic, p_.cluster.cuts[a], static_cast<int>(y), at, p_.cluster.sd[a]));
    }
    double decrement = 0;
    for (Index i = 0; i < n_; ++i) {
      h_.setIdentity();
      for (Index k = 0; k < l_; ++k) g_[k] = -e_(k, i);
      double* cross = solved_.col(i).data();  // H_eu, l x r
      std::fill_n(cross, l_ * r_, 0.0);
      for (Index c = 0; c < p_.root.rows(); ++c) {
        double rest = p_.zeta(c, from_ + i);
        for (Index k = 0; k < r_; ++k) rest -= p_.root(c, k) * u_[k];
        for (Index k = 0; k < r_; ++k) {
          g_top_[k] += p_.root(c, k) * rest;
          for (Index j = 0; j < r_; ++j) s_(k, j) += p_.root(c, k) * p_.root(c, j);
        }
      }
      for (Index a = 0; a < p_.categories.rows(); ++a) {
        const double y = p_.categories(a, from_ + i);
        if (std::isnan(y)) continue;
        const Category k =
            category_of(p_.logistic, p_.unit.cuts[a], static_cast<int>(y), predictor(a, i, 0), p_.unit.sd[a]);
        add_top(p_.unit.top, a, k);
        for (Index x = 0; x < l_; ++x) {
          const double own = p_.unit.reach(a, x);
          g_[x] += k.slope * own;
          for (Index z = 0; z < l_; ++z) h_(x, z) -= k.curvature * own * p_.unit.reach(a, z);
          for (Index z = 0; z < r_; ++z) cross[x + z * l_] -= k.curvature * own * p_.unit.top(a, z);
        }
      }
      factorise(h_.data(), l_, log_det_);
      std::copy_n(h_.data(), l_ * l_, factor_.col(i).data());
      solve_lower(h_.data(), l_, g_.data());
      for (Index z = 0; z < r_; ++z) solve_lower(h_.data(), l_, cross + z * l_);
      for (Index k = 0; k < l_; ++k) {
        de_(k, i) = g_[k];
        decrement += g_[k] * g_[k];
      }
      for (Index z = 0; z < r_; ++z) {
        for (Index k = 0; k < l_; ++k) g_top_[z] -= cross[k + z * l_] * g_[k];
        for (Index w = 0; w < r_; ++w) {
          for (Index k = 0; k < l_; ++k) s_(z, w) -= cross[k + z * l_] * cross[k + w * l_];
        }
      }
    }
    factorise(s_.data(), r_, log_det_);
    du_ = g_top_;
    solve_lower(s_.data(), r_, du_.data());
    decrement += du_.squaredNorm();
    solve_upper(s_.data(), r_, du_.data());
    for (Index i = 0; i < n_; ++i) {
      const double* cross = solved_.col(i).data();
      for (Index k = 0; k < l_; ++k) {
        for (Index z = 0; z < r_; ++z) de_(k, i) -= cross[k + z * l_] * du_[z];
      }
      h_ = Eigen::Map<const Matrix>(factor_.col(i).data(), l_, l_);
      solve_upper(h_.data(), l_, de_.col(i).data());
    }
    return decrement;
  }

  // Values and variances, at the factors of the last step.
  void report(PosteriorModes& out) {
    for (Index w = 0; w < p_.cluster_map.rows(); ++w) {
      double mean = 0, variance = 0;
      for (Index k = 0; k < r_; ++k) {
        mean += p_.cluster_map(w, k) * u_[k];
        row_[k] = p_.cluster_map(w, k);
      }
      solve_lower(s_.data(), r_, row_.data());
      for (Index k = 0; k < r_; ++k) variance += row_[k] * row_[k];
      out.cluster(w, cluster_) = mean;
      out.cluster_var(w, cluster_) = variance;
    }
    Vector own(l_);
    for (Index i = 0; i < n_; ++i) {
      h_ = Eigen::Map<const Matrix>(factor_.col(i).data(), l_, l_);
      const double* cross = solved_.col(i).data();
      for (Index w = 0; w < p_.unit_map.rows(); ++w) {
        double mean = 0, variance = 0;
        for (Index k = 0; k < l_; ++k) {
          mean += p_.unit_map(w, k) * e_(k, i);
          own[k] = p_.unit_map(w, k);
        }
        solve_lower(h_.data(), l_, own.data());
        for (Index k = 0; k < l_; ++k) variance += own[k] * own[k];
        for (Index z = 0; z < r_; ++z) {
          mean += p_.unit_map(w, l_ + z) * u_[z];
          row_[z] = p_.unit_map(w, l_ + z);
          for (Index k = 0; k < l_; ++k) row_[z] -= cross[k + z * l_] * own[k];
        }
        solve_lower(s_.data(), r_, row_.data());
        for (Index z = 0; z < r_; ++z) variance += row_[z] * row_[z];
        out.unit(w, from_ + i) = mean;
        out.unit_var(w, from_ + i) = variance;
      }
    }
  }

  const ModeProblem& p_;
  Index l_, r_, from_ = 0, n_ = 0, cluster_ = 0;
  bool moving_ = false;
  double log_det_ = 0;
  Matrix e_, de_, factor_, solved_, h_, s_;
  Vector g_, g_top_, u_, du_, row_;
};

void require_items(const ModeItems& items, const Matrix& categories, const Matrix& shift, Index effects) {
  const Index n = categories.rows();
  const bool fits = static_cast<Index>(items.cuts.size()) == n && items.sd.size() == n &&
                    items.top.rows() == n && items.top.cols() == effects && shift.rows() == n &&
                    shift.cols() == categories.cols();
  if (!fits) throw std::invalid_argument("ordered items have inconsistent shapes");
  for (Index a = 0; a < n; ++a) {
    for (Index i = 0; i < categories.cols(); ++i) {
      const double y = categories(a, i);
      const bool inside = y >= 0 && y <= static_cast<double>(items.cuts[a].size()) && y == std::floor(y);
      if (!std::isnan(y) && !inside) throw std::invalid_argument("there is no such category");
    }
  }
}

}  // namespace

void ModeProblem::require() const {
  const Index r = unit.top.cols(), l = unit.reach.cols(), J = nclusters();
  if (first.empty()) throw std::invalid_argument("there are no clusters");
  const Index N = first.back();
  require_items(unit, categories, shift, r);
  require_items(cluster, cluster_categories, cluster_shift, r);
  if (unit.reach.rows() != categories.rows() || categories.cols() != N || root.cols() != r ||
      zeta.rows() != root.rows() || zeta.cols() != N || cluster_categories.cols() != J ||
      unit_map.cols() != l + r || cluster_map.cols() != r)
    throw std::invalid_argument("effects have inconsistent shapes");
}

PosteriorModes posterior_modes(const ModeProblem& problem) {
  problem.require();
  const Index J = problem.nclusters(), N = problem.first.back();
  PosteriorModes out{Matrix(problem.unit_map.rows(), N), Matrix(problem.unit_map.rows(), N),
                     Matrix(problem.cluster_map.rows(), J), Matrix(problem.cluster_map.rows(), J)};
  std::atomic<Index> unsettled{0};
  in_threads((J + kModeChunk - 1) / kModeChunk, 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    ModeSearch search(problem);
    for (Index j = piece * kModeChunk; j < std::min<Index>((piece + 1) * kModeChunk, J); ++j)
      unsettled += !search.find(j, out);
  });
  out.unsettled = unsettled;
  return out;
}

}  // namespace msem
