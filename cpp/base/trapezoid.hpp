// The trapezoid rule for integrals over one variable whose integrand falls off on both sides. Its error
// falls exponentially with the number of nodes, whatever the shape; Gauss-Hermite rules are for integrands
// that are close to a normal density.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/linalg.hpp"

namespace msem {

// Whether a distribution is far from normal, by its values at nodes and their shares: as that of the effect
// of a cluster whose units are all in the highest category. Below these bounds an adaptive Gauss-Hermite rule
// of 15 nodes has errors of 1e-8 and less (binary units, variances up to 8).
inline bool uneven(const double* nodes, const double* shares, Index n, double mean, double sd) {
  constexpr double most = 0.25;  // skewness, and excess
  double third = 0, fourth = 0;
  for (Index k = 0; k < n; ++k) {
    const double z = (nodes[k] - mean) / sd;
    third += shares[k] * z * z * z;
    fourth += shares[k] * z * z * z * z;
  }
  return !(std::abs(third) < most && std::abs(fourth - 3) < most);
}

// Nodes at equal distances over where there is anything, as close as the integral asks for, and the log
// weight of each. log_f(at, n, out): logs of the integrand at n places. False where it does not fall off.
template <class LogIntegrand>
bool equal_distances(const LogIntegrand& log_f, double centre, double sd, Vector& nodes, double& log_weight) {
  constexpr double gone = 38;    // fall that ends it, in logarithms
  constexpr double same = 1e-7;  // change by twice as many nodes; theirs is its square
  constexpr Index first = 32, most = 8192;
  constexpr int longest = 80;  // steps outwards, each longer than the last one
  double top, low = centre, high = centre;
  log_f(&centre, 1, &top);
  for (double* end : {&low, &high}) {
    double value = top, step = end == &low ? -0.5 * sd : 0.5 * sd;
    for (int k = 0; k < longest && value > top - gone; ++k, step *= 1.4) {
      *end += step;
      log_f(end, 1, &value);
      top = std::max(top, value);
    }
    if (!(value <= top - gone)) return false;
  }
  const auto place = [&](Index k, Index n) {
    return low + (high - low) * static_cast<double>(k) / static_cast<double>(n);
  };
  Vector at(first + 1), logs(first + 1);
  for (Index k = 0; k <= first; ++k) at[k] = place(k, first);
  log_f(at.data(), at.size(), logs.data());
  double sum = (logs.array() - top).exp().sum(), change = 1;
  Index n = first;
  for (; change > same; n *= 2) {
    if (n >= most) return false;
    at.resize(n);
    logs.resize(n);
    for (Index k = 0; k < n; ++k) at[k] = place(2 * k + 1, 2 * n);
    log_f(at.data(), n, logs.data());
    const double both = sum + (logs.array() - top).exp().sum();
    change = std::abs(2 * sum / both - 1);
    sum = both;
  }
  nodes.resize(n + 1);
  for (Index k = 0; k <= n; ++k) nodes[k] = place(k, n);
  log_weight = std::log((high - low) / static_cast<double>(n));
  return true;
}

}  // namespace msem
