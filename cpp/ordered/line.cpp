#include "ordered/line.hpp"

#include <algorithm>
#include <limits>

#include "base/trapezoid.hpp"

namespace msem {

namespace {

constexpr double kDegenerate = 1e-12;  // variance of an effect that is none
constexpr double kFound = 1e-9;
// What lets nodes about the mode be taken for far apart: the variance of the effect beside the residual one,
// and the log of the standard deviation given the data over that about the mode.
constexpr double kWide = 2, kOtherWidth = 0.15;
constexpr double kLongest = 2;  // step towards the mode

}  // namespace

Kernel category_kernel(const Vector& cuts, int category, double mean, double sd) {
  const double z1 = (threshold(cuts, category + 1) - mean) / sd, z2 = (threshold(cuts, category) - mean) / sd;
  const double p = std::max(normal_between(z2, z1), kLeastProbability);
  const double u = std::isinf(z1) ? 0 : normal_density(z1) / p;
  const double l = std::isinf(z2) ? 0 : normal_density(z2) / p;
  const double w = ((u > 0 ? z1 * u : 0) - (l > 0 ? z2 * l : 0)) / (sd * sd), g = (l - u) / sd;
  return {std::log(p), u / sd, -l / sd, -0.5 * w, -w - g * g};
}

void Line::tabulate(const Vector& cuts, const std::vector<LineCell>& cells, const double* at, Index n,
                    double sd) {
  const Index m = static_cast<Index>(cells.size());
  for (Array* x : {&low_, &high_, &p_, &log_, &upper_, &lower_, &variance_, &curvature_}) {
    if (x->size() != n * m) x->resize(n * m);
  }
  for (Index i = 0; i < m; ++i) {
    const double low = threshold(cuts, cells[i].category), high = threshold(cuts, cells[i].category + 1);
    for (Index q = 0; q < n; ++q) {
      low_[i * n + q] = std::max((low - cells[i].shift - at[q]) / sd, -kNormalEnd);
      high_[i * n + q] = std::min((high - cells[i].shift - at[q]) / sd, kNormalEnd);
    }
  }
  normal_intervals(low_.data(), high_.data(), n * m, p_.data(), lower_.data(), upper_.data());
  p_ = p_.max(kLeastProbability);
  log_ = p_.log();
  upper_ /= sd * p_;
  lower_ /= -sd * p_;
  variance_ = (-0.5 / sd) * (high_ * upper_ + low_ * lower_);
  curvature_ = 2 * variance_ - (upper_ + lower_).square();
}

// The integrand is log-concave. Returns the standard deviation of the normal density that touches it.
double Line::find_mode(const Vector& cuts, const std::vector<LineCell>& cells, const LineFactor* factor,
                       double mean, double variance, double sd, double& mode) {
  double b = std::isfinite(mode) ? mode : mean, width = 0;
  for (int step = 0; step < 60; ++step) {
    double slope = (mean - b) / variance, curvature = -1 / variance;
    tabulate(cuts, cells, &b, 1, sd);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const Index at = static_cast<Index>(i);
      slope -= cells[i].count * (upper_[at] + lower_[at]);
      curvature += cells[i].count * curvature_[at];
    }
    if (factor) {
      const Kernel k =
          category_kernel(*factor->cuts, factor->category, factor->shift + factor->slope * b, factor->sd);
      slope += factor->slope * k.shift();
      curvature += factor->slope * factor->slope * k.curvature;
    }
    width = std::sqrt(-1 / curvature);
    const double change = std::min(std::max(-slope / curvature, -kLongest), kLongest);
    b += change;
    if (std::abs(change) < kFound) break;
  }
  mode = b;
  return width;
}

// Logs of the integrand at n values of the effect, and their derivatives, besides what is in `logs_`.
void Line::evaluate(const Vector& cuts, const std::vector<LineCell>& units, const LineFactor* own,
                    double sd) {
  const Index n = at_.size();
  slopes_.setZero(n);
  curvatures_.setZero(n);
  tabulate(cuts, units, at_.data(), n, sd);
  for (std::size_t i = 0; i < units.size(); ++i) {
    const Index from = static_cast<Index>(i) * n;
    logs_ += units[i].count * log_.segment(from, n);
    slopes_ -= units[i].count * (upper_.segment(from, n) + lower_.segment(from, n));
    curvatures_ += units[i].count * curvature_.segment(from, n);
  }
  if (!own) return;
  factors_.resize(n);
  for (Index q = 0; q < n; ++q) {
    const Kernel& k = factors_[q] =
        category_kernel(*own->cuts, own->category, own->shift + own->slope * at_[q], own->sd);
    logs_[q] += k.log;
    slopes_[q] += own->slope * k.shift();
    curvatures_[q] += own->slope * own->slope * k.curvature;
  }
}

void Line::integrate(const Vector& cuts, const std::vector<LineCell>& units, const LineFactor* own,
                     double mean, double variance, double sd, double& mode) {
  const bool one = !(variance > kDegenerate);
  const auto set_logs = [&](double log_weight) {
    logs_ = log_weight - 0.5 * (std::log(variance) + (at_ - mean).square() / variance);
  };
  double width = 0;
  if (one) {
    at_.setConstant(1, mean);
    logs_.setZero(1);
  } else {
    width = find_mode(cuts, units, own, mean, variance, sd, mode);
    at_ = mode + width * Eigen::Map<const Array>(rule_.nodes.data(), rule_.size());
    set_logs(std::log(width));
    logs_ += Eigen::Map<const Array>(rule_.log_weights.data(), rule_.size());
  }
  shares_.resize(at_.size());
  evaluate(cuts, units, own, sd);
  value = log_sum(logs_.data(), at_.size(), shares_.data());
  effect = (shares_ * at_).sum();
  spread = std::sqrt(std::max((shares_ * (at_ - effect).square()).sum(), kDegenerate));
  const bool apart = variance > kWide * sd * sd || std::abs(std::log(spread / width)) > kOtherWidth;
  if (!one && (apart || uneven(at_.data(), shares_.data(), at_.size(), effect, spread))) {
    const auto log_f = [&](const double* places, Index n, double* out) {
      at_ = Eigen::Map<const Array>(places, n);
      set_logs(0);
      evaluate(cuts, units, own, sd);
      Eigen::Map<Array>(out, n) = logs_;
    };
    double log_weight = 0;
    if (equal_distances(log_f, mode, width, spread_out_, log_weight)) {
      at_ = spread_out_.array();
      set_logs(log_weight - 0.5 * kLog2Pi);
      evaluate(cuts, units, own, sd);
      shares_.resize(at_.size());
      value = log_sum(logs_.data(), at_.size(), shares_.data());
      effect = (shares_ * at_).sum();
      spread = std::sqrt(std::max((shares_ * (at_ - effect).square()).sum(), kDegenerate));
    }
  }
  const Index n = at_.size();
  d_mean = (shares_ * slopes_).sum();
  // a normal distribution diffuses as its variance grows: half the second derivative of the integrand
  d_variance = 0.5 * (shares_ * (slopes_.square() + curvatures_)).sum();
  cells.assign(units.size(), {});
  for (std::size_t i = 0; i < units.size(); ++i) {
    const Index from = static_cast<Index>(i) * n;
    const auto expectation = [&](const Array& x) {
      return units[i].count * (shares_ * x.segment(from, n)).sum();
    };
    RowSlope& s = cells[i];
    s.upper = expectation(upper_);
    s.lower = expectation(lower_);
    s.variance = expectation(variance_);
    s.shift = -s.upper - s.lower;
  }
  factor = {};
  factor_slope = 0;
  for (Index q = 0; own && q < n; ++q) {
    factor.upper += shares_[q] * factors_[q].upper;
    factor.lower += shares_[q] * factors_[q].lower;
    factor.variance += shares_[q] * factors_[q].variance;
    factor_slope += shares_[q] * at_[q] * factors_[q].shift();
  }
  factor.shift = -factor.upper - factor.lower;
}

}  // namespace msem
