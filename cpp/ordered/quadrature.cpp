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
  const double most = *std::max_element(values, values + n);
  double sum = 0;
  for (Index q = 0; q < n; ++q) sum += shares[q] = std::exp(values[q] - most);
  for (Index q = 0; q < n; ++q) shares[q] /= sum;
  return most + std::log(sum);
}

}  // namespace msem
