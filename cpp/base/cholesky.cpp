#include <algorithm>

#include "base/interrupt.hpp"
#include "base/large_pages.hpp"
#include "base/linalg.hpp"
#include "base/small.hpp"
#include "base/threads.hpp"

namespace msem {

namespace {

constexpr Index kLarge = 512;  // rows from which finding the memory is a part of the work

bool factorise(Matrix& a) {
  if (a.rows() <= small::kFactored) return small::factorise(a.data(), a.rows(), a.rows());
  return Eigen::LLT<Eigen::Ref<Matrix>>(a).info() == Eigen::Success;
}

}  // namespace

bool Cholesky::compute(const Matrix& a) {
  factor_.resize(a.rows(), a.cols());
  if (a.rows() > kLarge) wish_large_pages(factor_.data(), factor_.size() * sizeof(double));
  factor_ = a;
  return factorise(factor_) && factor_.diagonal().allFinite();
}

double Cholesky::log_det() const {
  double out = 0;
  for (Index i = 0; i < factor_.rows(); ++i) out += 2 * std::log(factor_(i, i));
  return out;
}

double Cholesky::pivot() const { return factor_.diagonal().cwiseAbs2().minCoeff(); }

Matrix Cholesky::lower() const { return factor_.triangularView<Eigen::Lower>(); }

Matrix Cholesky::inverse() const { return solve(Matrix(Matrix::Identity(factor_.rows(), factor_.cols()))); }

// Below the diagonal of its columns the inverse takes the trailing triangle only.
Matrix Cholesky::inverse(int threads) const {
  constexpr Index kColumns = 64;
  const Index n = factor_.rows();
  Matrix out(n, n);
  in_threads((n + kColumns - 1) / kColumns, threads, [&](std::ptrdiff_t piece) {
    check_interrupt();
    const Index first = piece * kColumns, width = std::min(kColumns, n - first), rest = n - first;
    const auto lower = factor_.bottomRightCorner(rest, rest);
    Matrix x = Matrix::Zero(rest, width);
    x.topRows(width).setIdentity();
    lower.triangularView<Eigen::Lower>().solveInPlace(x);
    lower.transpose().triangularView<Eigen::Upper>().solveInPlace(x);
    out.block(first, first, rest, width) = x;
  });
  for (Index j = 1; j < n; ++j) out.col(j).head(j) = out.row(j).head(j).transpose();
  return out;
}

Matrix Cholesky::solve(Matrix x) const { return whiten_transposed(whiten(std::move(x))); }

Vector Cholesky::solve(Vector x) const {
  whiten_in_place(x);
  const Index n = factor_.rows();
  if (n <= small::kFactored)
    small::solve_transposed(factor_.data(), n, n, x.data(), n, 1);
  else
    factor_.transpose().triangularView<Eigen::Upper>().solveInPlace(x);
  return x;
}

Matrix Cholesky::whiten(Matrix x) const {
  const Index n = factor_.rows();
  if (n <= small::kTriangle)
    small::solve_lower(factor_.data(), n, n, x.data(), n, x.cols());
  else
    factor_.triangularView<Eigen::Lower>().solveInPlace(x);
  return x;
}

void Cholesky::whiten_in_place(Vector& x) const {
  const Index n = factor_.rows();
  if (n <= small::kFactored)
    small::solve_lower(factor_.data(), n, n, x.data(), n, 1);
  else
    factor_.triangularView<Eigen::Lower>().solveInPlace(x);
}

Matrix Cholesky::whiten_transposed(Matrix x) const {
  const Index n = factor_.rows();
  if (n <= small::kTriangle)
    small::solve_transposed(factor_.data(), n, n, x.data(), n, x.cols());
  else
    factor_.transpose().triangularView<Eigen::Upper>().solveInPlace(x);
  return x;
}

Vector PivotedLdl::solve(const Vector& b) const { return ldl_.solve(b); }

bool positive_definite(const Matrix& a) {
  Matrix copy = a;
  return factorise(copy);
}

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
