// Gauss-Hermite quadrature over a normal distribution, for nodes that are moved to where the integrand is.
#pragma once

#include <vector>

#include "base/linalg.hpp"

namespace msem {

// Nodes and log weights, times exp(x^2 / 2), for N(0, 1) (Golub & Welsch, 1969).
struct Hermite {
  explicit Hermite(int n);
  Index size() const { return static_cast<Index>(nodes.size()); }
  std::vector<double> nodes, log_weights;
};

// log sum exp, and the share of each in the sum.
double log_sum(const double* values, Index n, double* shares);

}  // namespace msem
