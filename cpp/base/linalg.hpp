// Dense linear algebra with explicit failure: a factorisation that is not possible is a `false`, never a
// number.
#pragma once

#include <Eigen/Dense>
#include <cmath>
#include <vector>

namespace msem {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;
using Index = Eigen::Index;
using ConstMatrixRef = Eigen::Ref<const Matrix>;
using ConstVectorRef = Eigen::Ref<const Vector>;

constexpr double kLog2Pi = 1.8378770664093454835606594728112;

// Lower Cholesky factor of a symmetric matrix and its log determinant.
class Cholesky {
 public:
  // Returns false unless `a` is finite and positive definite.
  bool compute(const Matrix& a) {
    llt_.compute(a);
    if (llt_.info() != Eigen::Success) return false;
    log_det_ = 0;
    for (Index i = 0; i < a.rows(); ++i) log_det_ += 2 * std::log(llt_.matrixLLT()(i, i));
    return std::isfinite(log_det_);
  }
  double log_det() const { return log_det_; }
  Matrix inverse() const { return llt_.solve(Matrix::Identity(llt_.rows(), llt_.cols())); }
  Matrix lower() const { return llt_.matrixL(); }
  // L^-1 x
  Matrix whiten(Matrix x) const {
    llt_.matrixL().solveInPlace(x);
    return x;
  }
  void whiten_in_place(Vector& x) const { llt_.matrixL().solveInPlace(x); }
  // L^-T x
  Matrix whiten_transposed(Matrix x) const {
    llt_.matrixU().solveInPlace(x);
    return x;
  }

 private:
  Eigen::LLT<Matrix> llt_;
  double log_det_ = 0;
};

// Inverse of a symmetric matrix by Cholesky in correlation metric, and the smallest squared pivot there: the
// share of a variable's variance that those before it leave, 0 when the matrix is not positive definite.
struct ScaledInverse {
  Matrix inverse;
  double pivot = 0;
};

inline ScaledInverse scaled_inverse(const Matrix& a) {
  ScaledInverse out;
  const Vector diagonal = a.diagonal();
  if (a.rows() == 0 || !a.allFinite() || !(diagonal.minCoeff() > 0)) return out;
  const Vector scale = diagonal.cwiseSqrt().cwiseInverse();
  const Eigen::LLT<Matrix> llt(scale.asDiagonal() * a * scale.asDiagonal());
  if (llt.info() != Eigen::Success) return out;
  out.pivot = llt.matrixLLT().diagonal().cwiseAbs2().minCoeff();
  out.inverse = scale.asDiagonal() * llt.solve(Matrix::Identity(a.rows(), a.cols())) * scale.asDiagonal();
  return out;
}

inline void symmetrise(Matrix& a) { a = (0.5 * (a + a.transpose())).eval(); }

// The symmetric p x p matrix whose lower triangle, column by column, is a row of `packed`.
template <class Packed>
Matrix unpack_lower(const Packed& packed, Index row, Index p) {
  Matrix out(p, p);
  Index at = 0;
  for (Index j = 0; j < p; ++j) {
    for (Index i = j; i < p; ++i) out(i, j) = out(j, i) = packed(row, at++);
  }
  return out;
}

// Columns of stacked symmetric p x p matrices as lower triangles by column, off-diagonal elements doubled, so
// that a dot product with a packed matrix is the trace of the product.
inline Matrix pack_doubled(const Matrix& stacked, Index p) {
  Matrix out(p * (p + 1) / 2, stacked.cols());
  Index row = 0;
  for (Index j = 0; j < p; ++j) {
    for (Index i = j; i < p; ++i) out.row(row++) = (i == j ? 1.0 : 2.0) * stacked.row(i + j * p);
  }
  return out;
}

// A column of k stacked n x m matrices, seen as matrices.
inline Eigen::Map<const Matrix> slice(const Matrix& stacked, Index column, Index rows, Index cols) {
  return {stacked.col(column).data(), rows, cols};
}
inline Eigen::Map<Matrix> slice(Matrix& stacked, Index column, Index rows, Index cols) {
  return {stacked.col(column).data(), rows, cols};
}

}  // namespace msem
