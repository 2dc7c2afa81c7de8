// What the units of a cluster say about what is above them, given which values are observed: see missing.hpp
// for the quantities and their names.
#pragma once

#include "data/incomplete.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// y += scale * A x for a p x n matrix A.
inline void add_product(const double* a, Index p, Index n, const double* x, double scale, double* y) {
  for (Index j = 0; j < n; ++j, a += p) {
    const double weight = scale * x[j];
    for (Index i = 0; i < p; ++i) y[i] += weight * a[i];
  }
}

inline double dot(const double* x, const double* y, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

// A += scale * x x'
inline void add_outer(const double* x, Index n, double scale, double* a) {
  for (Index j = 0; j < n; ++j, a += n) {
    const double weight = scale * x[j];
    for (Index i = 0; i < n; ++i) a[i] += weight * x[i];
  }
}

// What the units of one class of clusters say about their between parts.
class ClusterEvidence {
 public:
  // False when the covariance matrix of such clusters is not positive definite. A unit with the pattern
  // `left_out` can be left out.
  bool compute(const IncompleteData& data, Index cluster, const std::vector<Matrix>& weights,
               const Matrix& cov, Index left_out = -1);

  double log_det = 0;  // of I + P C
  Matrix precision;    // P, p x p
  Matrix posterior;    // V, b x b
  Matrix resolvent;    // P - P V P over the variables at both levels, b x b
  Matrix shrinkage;    // I - V P, b x b

 private:
  Matrix root_, product_, inner_, half_;
};

// One cluster given the evidence of its class.
struct ClusterView {
  Vector z;              // L^-1 (z - mu_z)
  Vector mean;           // p, of its units given z
  Vector q;              // p, sum of n W (ybar - mean)
  Vector effect;         // b, V q
  Vector u;              // p, q - P effect
  Vector deviation;      // p, scratch
  double quadratic = 0;  // sum of n (ybar - mean)' W (ybar - mean)
};

// `mu`: means of the unit-level variables, both parts added, about the origin; `weights`: W_r of every
// pattern.
void view_cluster(const IncompleteData& data, Index cluster, const Vector& mu, const ConditionalLevel& level,
                  const std::vector<Matrix>& weights, const ClusterEvidence& evidence, ClusterView& out);

}  // namespace msem
