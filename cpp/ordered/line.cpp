#include "ordered/line.hpp"

#include <limits>

namespace msem {

namespace {

constexpr double kDegenerate = 1e-12;  // variance of an effect that is none
constexpr double kFound = 1e-9;
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

// The integrand is log-concave. Returns the standard deviation of the normal density that touches it.
double Line::find_mode(const Vector& cuts, const std::vector<LineCell>& cells, const LineFactor* factor,
                       double mean, double variance, double sd, double& mode) const {
  double b = std::isfinite(mode) ? mode : mean, spread = 0;
  for (int step = 0; step < 60; ++step) {
    double slope = (mean - b) / variance, curvature = -1 / variance;
    for (const LineCell& cell : cells) {
      const Kernel k = category_kernel(cuts, cell.category, cell.shift + b, sd);
      slope += cell.count * k.shift();
      curvature += cell.count * k.curvature;
    }
    if (factor) {
      const Kernel k =
          category_kernel(*factor->cuts, factor->category, factor->shift + factor->slope * b, factor->sd);
      slope += factor->slope * k.shift();
      curvature += factor->slope * factor->slope * k.curvature;
    }
    spread = std::sqrt(-1 / curvature);
    const double change = std::min(std::max(-slope / curvature, -kLongest), kLongest);
    b += change;
    if (std::abs(change) < kFound) break;
  }
  mode = b;
  return spread;
}

void Line::integrate(const Vector& cuts, const std::vector<LineCell>& units, const LineFactor* own,
                     double mean, double variance, double sd, double& mode) {
  const bool one = !(variance > kDegenerate);
  const Index n = one ? 1 : rule_.size();
  const std::size_t m = units.size();
  kernels_.resize(static_cast<std::size_t>(n) * (m + 1));
  for (auto* v : {&at_, &logs_, &shares_, &slopes_, &curvatures_}) v->assign(n, 0);
  if (one) {
    at_[0] = mean;
  } else {
    const double width = find_mode(cuts, units, own, mean, variance, sd, mode);
    for (Index q = 0; q < n; ++q) {
      at_[q] = mode + width * rule_.nodes[q];
      const double d = at_[q] - mean;
      logs_[q] = rule_.log_weights[q] + std::log(width) - 0.5 * d * d / variance - 0.5 * std::log(variance);
    }
  }
  for (Index q = 0; q < n; ++q) {
    Kernel* row = kernels_.data() + static_cast<std::size_t>(q) * (m + 1);
    for (std::size_t i = 0; i < m; ++i) {
      row[i] = category_kernel(cuts, units[i].category, units[i].shift + at_[q], sd);
      logs_[q] += units[i].count * row[i].log;
      slopes_[q] += units[i].count * row[i].shift();
      curvatures_[q] += units[i].count * row[i].curvature;
    }
    if (own) {
      row[m] = category_kernel(*own->cuts, own->category, own->shift + own->slope * at_[q], own->sd);
      logs_[q] += row[m].log;
      slopes_[q] += own->slope * row[m].shift();
      curvatures_[q] += own->slope * own->slope * row[m].curvature;
    }
  }
  value = log_sum(logs_.data(), n, shares_.data());
  d_mean = d_variance = factor_slope = 0;
  factor = {};
  cells.assign(m, {});
  double first = 0, second = 0;
  for (Index q = 0; q < n; ++q) {
    const double share = shares_[q];
    const Kernel* row = kernels_.data() + static_cast<std::size_t>(q) * (m + 1);
    first += share * at_[q];
    second += share * at_[q] * at_[q];
    d_mean += share * slopes_[q];
    // a normal distribution diffuses as its variance grows: half the second derivative of the integrand
    d_variance += 0.5 * share * (slopes_[q] * slopes_[q] + curvatures_[q]);
    for (std::size_t i = 0; i < m; ++i) {
      const double weight = share * units[i].count;
      cells[i].upper += weight * row[i].upper;
      cells[i].lower += weight * row[i].lower;
      cells[i].variance += weight * row[i].variance;
    }
    if (own) {
      factor.upper += share * row[m].upper;
      factor.lower += share * row[m].lower;
      factor.variance += share * row[m].variance;
      factor_slope += share * at_[q] * row[m].shift();
    }
  }
  for (RowSlope& s : cells) s.shift = -s.upper - s.lower;
  factor.shift = -factor.upper - factor.lower;
  effect = first;
  spread = std::sqrt(std::max(second - first * first, 1e-12));
}

}  // namespace msem
