#include "base/hermite.hpp"

#include <algorithm>
#include <cmath>

namespace msem {

// Nodes are the eigenvalues of the Jacobi matrix.
Hermite::Hermite(int n) : nodes(n), log_weights(n) {
  Matrix jacobi = Matrix::Zero(n, n);
  for (int i = 1; i < n; ++i) jacobi(i, i - 1) = jacobi(i - 1, i) = std::sqrt(static_cast<double>(i));
  const SymmetricEigen eigen(jacobi);
  for (int i = 0; i < n; ++i) {
    // weights from the orthonormal polynomials: far out they are smaller than what eigenvectors are accurate
    // to
    const double x = nodes[i] = eigen.values[i];
    double before = 0, now = 1, squares = 1;
    for (int k = 1; k < n; ++k) {
      const double next = (x * now - std::sqrt(k - 1.0) * before) / std::sqrt(static_cast<double>(k));
      before = now;
      now = next;
      squares += now * now;
    }
    log_weights[i] = 0.5 * x * x - std::log(squares);
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
