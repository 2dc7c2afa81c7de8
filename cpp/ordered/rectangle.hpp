// Derivatives of the log-probability that two ordered variables are in two categories.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/linalg.hpp"
#include "base/normal.hpp"

namespace msem {

constexpr double kLeastProbability = 1e-300;   // those below it count as this
constexpr double kLargestCorrelation = 0.999;  // of a pair
constexpr double kFarthest = 60;               // range of what covariates explain, in standard deviations

// Threshold number k of an ordered variable, the first one being 1; infinite beyond them.
inline double threshold(const Vector& cuts, int k) {
  if (k <= 0) return -kInfinity;
  return k > cuts.size() ? kInfinity : cuts[k - 1];
}

// Derivatives of the log-likelihood of a row: with respect to the thresholds above and below its category,
// what is added to the latent variable (the mean), and the residual variance.
struct RowSlope {
  double upper = 0, lower = 0, shift = 0, variance = 0;
};

struct PairSlope {
  double covariance = 0;
  RowSlope one, other;
};

// Of the rectangle (a2, a1) x (c2, c1) with probability p, given the correlation.
inline double correlation_slope(double a1, double a2, double c1, double c2, double rho, double p) {
  return (binormal_density(a1, c1, rho) - binormal_density(a2, c1, rho) - binormal_density(a1, c2, rho) +
          binormal_density(a2, c2, rho)) /
         p;
}

inline PairSlope rectangle_slope(double a1, double a2, double c1, double c2, double rho, double p) {
  PairSlope out;
  out.covariance = correlation_slope(a1, a2, c1, c2, rho, p);
  const double root = std::sqrt((1 - rho) * (1 + rho));
  const auto edge = [&](double z, double high, double low) {
    return std::isinf(z)
               ? 0.0
               : normal_density(z) * normal_between((low - rho * z) / root, (high - rho * z) / root) / p;
  };
  out.one.upper = edge(a1, c1, c2);
  out.one.lower = -edge(a2, c1, c2);
  out.other.upper = edge(c1, a1, a2);
  out.other.lower = -edge(c2, a1, a2);
  out.one.shift = -out.one.upper - out.one.lower;
  out.other.shift = -out.other.upper - out.other.lower;
  return out;
}

}  // namespace msem
