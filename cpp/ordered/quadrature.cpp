#include "ordered/quadrature.hpp"

#include <algorithm>
#include <cmath>

namespace msem {

// From the eigenvalues of the Jacobi matrix (Golub & Welsch, 1969).
Rule::Rule(int n) : nodes(n), log_weights(n) {
  Matrix jacobi = Matrix::Zero(n, n);
  for (int i = 1; i < n; ++i) jacobi(i, i - 1) = jacobi(i - 1, i) = std::sqrt(static_cast<double>(i));
  const SymmetricEigen eigen(jacobi);
  for (int i = 0; i < n; ++i) {
    nodes[i] = eigen.values[i];
    log_weights[i] = 2 * std::log(std::abs(eigen.vectors(0, i))) + 0.5 * nodes[i] * nodes[i];
  }
}

double log_sum(const double* values, Index n, double* shares) {
  const Eigen::Map<const Eigen::ArrayXd> x(values, n);
  Eigen::Map<Eigen::ArrayXd> out(shares, n);
  const double most = x.maxCoeff();
  out = (x - most).exp();
  const double sum = out.sum();
  out *= 1 / sum;
  return most + std::log(sum);
}

}  // namespace msem
