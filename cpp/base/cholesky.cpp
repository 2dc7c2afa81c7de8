#include <algorithm>

#include "base/interrupt.hpp"
#include "base/linalg.hpp"
#include "base/threads.hpp"

namespace msem {

bool Cholesky::compute(const Matrix& a) {
  llt_.compute(a);
  if (llt_.info() != Eigen::Success) return false;
  log_det_ = 0;
  for (Index i = 0; i < a.rows(); ++i) log_det_ += 2 * std::log(llt_.matrixLLT()(i, i));
  return std::isfinite(log_det_);
}

double Cholesky::pivot() const { return llt_.matrixLLT().diagonal().cwiseAbs2().minCoeff(); }

Matrix Cholesky::inverse() const { return solve(Matrix(Matrix::Identity(llt_.rows(), llt_.cols()))); }

// Below the diagonal of its columns the inverse takes the trailing triangle only.
Matrix Cholesky::inverse(int threads) const {
  constexpr Index kColumns = 64;
  const Index n = llt_.rows();
  Matrix out(n, n);
  in_threads((n + kColumns - 1) / kColumns, threads, [&](std::ptrdiff_t piece) {
    check_interrupt();
    const Index first = piece * kColumns, width = std::min(kColumns, n - first), rest = n - first;
    const auto lower = llt_.matrixLLT().bottomRightCorner(rest, rest);
    Matrix x = Matrix::Zero(rest, width);
    x.topRows(width).setIdentity();
    lower.triangularView<Eigen::Lower>().solveInPlace(x);
    lower.transpose().triangularView<Eigen::Upper>().solveInPlace(x);
    out.block(first, first, rest, width) = x;
  });
  for (Index j = 1; j < n; ++j) out.col(j).head(j) = out.row(j).head(j).transpose();
  return out;
}

Matrix Cholesky::solve(Matrix x) const {
  llt_.solveInPlace(x);
  return x;
}

Vector Cholesky::solve(Vector x) const {
  llt_.solveInPlace(x);
  return x;
}

Matrix Cholesky::whiten(Matrix x) const {
  llt_.matrixL().solveInPlace(x);
  return x;
}

void Cholesky::whiten_in_place(Vector& x) const { llt_.matrixL().solveInPlace(x); }

Matrix Cholesky::whiten_transposed(Matrix x) const {
  llt_.matrixU().solveInPlace(x);
  return x;
}

Vector PivotedLdl::solve(const Vector& b) const { return ldl_.solve(b); }

bool positive_definite(const Matrix& a) { return Eigen::LLT<Matrix>(a).info() == Eigen::Success; }

ScaledInverse scaled_inverse(const Matrix& a) {
  ScaledInverse out;
  const Vector diagonal = a.diagonal();
  if (a.rows() == 0 || !a.allFinite() || !(diagonal.minCoeff() > 0)) return out;
  const Vector scale = diagonal.cwiseSqrt().cwiseInverse();
  Cholesky chol;
  if (!chol.compute(scale_both(scale, a))) return out;
  out.pivot = chol.pivot();
  out.inverse = scale_both(scale, chol.inverse());
  return out;
}

}  // namespace msem
