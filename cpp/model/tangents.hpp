// How the moments of a block move with its parameters.
#pragma once

#include <vector>

#include "base/linalg.hpp"

namespace msem {

// Derivatives of the moments of one block with respect to the k parameters that enter it. A covariance moves
// by a sum of few outer products, d cov / d theta_a = sum over terms e of parameter a of l_e r_e' + r_e l_e',
// so changing its coordinates costs n^2 and not n^3 operations.
struct Tangents {
  Matrix mean;                 // n x k, in the basis if there is one
  Matrix left, right;          // n x e
  std::vector<int> parameter;  // e, the parameter each term belongs to
  // Optional change of basis, parameters x k: derivatives along its columns are meant instead.
  Matrix basis;

  Index n() const { return mean.rows(); }
  Index k() const { return mean.cols(); }
  Index parameters() const { return basis.size() ? basis.rows() : mean.cols(); }
  Matrix in_basis(Matrix x) const { return basis.size() ? product(x, basis) : x; }
};

// The same of some of the variables.
Tangents rows_of(const Tangents& tangents, const std::vector<Index>& rows);

// R' (d cov) R of every parameter, or of every column of the basis, stacked as columns.
Matrix rotated_cov(const Tangents& tangents, const Matrix& r);
// R' (d cov) S + S' (d cov) R likewise.
Matrix rotated_cov(const Tangents& tangents, const Matrix& r, const Matrix& s);

}  // namespace msem
