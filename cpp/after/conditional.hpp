// What scores and distances of complete data and of data with holes have in common.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "after/posterior.hpp"

namespace msem {

constexpr double kSingular = 1e-12;  // squared pivot in correlation metric

inline void require_measurement(const Measurement& measurement, Index observed, Index latent) {
  const bool fits = measurement.loadings.rows() == observed && measurement.loadings.cols() == latent &&
                    measurement.residual.rows() == observed && measurement.residual.cols() == observed;
  if (!fits) throw std::invalid_argument("a measurement has inconsistent shapes");
}

// Means of the unit-level variables, both parts added, then of the cluster variables.
inline Vector observed_mean(const GroupMoments& m) {
  Vector out(m.p + m.q);
  out.head(m.p) = m.mean_w.head(m.p);
  out.head(m.nboth) += m.mean_b.head(m.nboth);
  out.tail(m.q) = m.mean_b.segment(m.nboth, m.q);
  return out;
}

inline Matrix between_observed(const GroupMoments& m) {
  return m.cov_b.topLeftCorner(m.nboth + m.q, m.nboth + m.q);
}

// Rows T with |T x|^2 the Mahalanobis distance of the other variables given the covariates.
inline Matrix conditional_whitener(const Matrix& cov, const std::vector<Index>& covariates) {
  const Index n = cov.rows(), first = static_cast<Index>(covariates.size());
  std::vector<Index> order = covariates;
  for (Index k = 0; k < n; ++k) {
    if (std::find(covariates.begin(), covariates.end(), k) == covariates.end()) order.push_back(k);
  }
  const bool inside = std::all_of(order.begin(), order.end(), [n](Index k) { return 0 <= k && k < n; });
  if (static_cast<Index>(order.size()) != n || !inside)
    throw std::invalid_argument("covariates are not distinct variables");
  Matrix out = Matrix::Zero(n - first, n);
  if (!n) return out;
  Cholesky chol;
  if (!chol.compute(select(cov, order, order)))
    throw std::domain_error("the covariance matrix of a cluster is not positive definite");
  const Matrix inverse = chol.whiten(Matrix(Matrix::Identity(n, n)));
  for (Index k = 0; k < n; ++k) out.col(order[k]) = inverse.col(k).tail(n - first);
  return out;
}

}  // namespace msem
