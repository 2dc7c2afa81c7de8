#include <Eigen/SVD>
#include <algorithm>

#include "base/linalg.hpp"

namespace msem {

PivotedQr::PivotedQr(const Matrix& a, double tolerance) {
  if (tolerance > 0) qr_.setThreshold(tolerance);
  qr_.compute(a);
}

std::vector<Index> PivotedQr::independent() const {
  const auto& order = qr_.colsPermutation().indices();
  std::vector<Index> out(order.data(), order.data() + rank());
  std::sort(out.begin(), out.end());
  return out;
}

// Products with the reflections 1 - tau v v' one by one, for few columns. v is 0 above its place and 1 there.
void PivotedQr::reflect(Index k, double* x) const {
  const auto v = qr_.matrixQR().col(k);
  const Index n = qr_.rows();
  double sum = x[k];
  for (Index i = k + 1; i < n; ++i) sum += v[i] * x[i];
  sum *= qr_.hCoeffs()[k];
  x[k] -= sum;
  for (Index i = k + 1; i < n; ++i) x[i] -= sum * v[i];
}

Matrix PivotedQr::q() const {
  Matrix out = Matrix::Identity(qr_.rows(), qr_.rows());
  for (Index j = 0; j < out.cols(); ++j) {
    for (Index k = qr_.hCoeffs().size() - 1; k >= 0; --k) reflect(k, out.col(j).data());
  }
  return out;
}

Vector PivotedQr::rotate(Vector x) const {
  for (Index k = qr_.hCoeffs().size() - 1; k >= 0; --k) reflect(k, x.data());
  return x;
}

Vector PivotedQr::rotate_back(Vector x) const {
  for (Index k = 0; k < qr_.hCoeffs().size(); ++k) reflect(k, x.data());
  return x;
}

Matrix PivotedQr::trapezoid() const {
  Matrix out = qr_.matrixQR().topRows(rank());
  for (Index j = 0; j < out.cols(); ++j) {
    for (Index i = j + 1; i < out.rows(); ++i) out(i, j) = 0;
  }
  return out;
}

// R^-1 x and R^-T x, of the leading triangle of full rank.
void PivotedQr::solve_triangle(Vector& x) const {
  for (Index j = x.size() - 1; j >= 0; --j) {
    const auto column = qr_.matrixQR().col(j);
    x[j] /= column[j];
    for (Index i = 0; i < j; ++i) x[i] -= x[j] * column[i];
  }
}

void PivotedQr::solve_transposed_triangle(Vector& x) const {
  for (Index j = 0; j < x.size(); ++j) {
    const auto column = qr_.matrixQR().col(j);
    for (Index i = 0; i < j; ++i) x[j] -= column[i] * x[i];
    x[j] /= column[j];
  }
}

Vector PivotedQr::unpermuted(const Vector& head) const {
  Vector out = Vector::Zero(qr_.cols());
  for (Index j = 0; j < head.size(); ++j) out[qr_.colsPermutation().indices()[j]] = head[j];
  return out;
}

Vector PivotedQr::permuted(const Vector& x) const {
  Vector out(x.size());
  for (Index j = 0; j < x.size(); ++j) out[j] = x[qr_.colsPermutation().indices()[j]];
  return out;
}

Vector PivotedQr::solve(const Vector& b) const {
  Vector head = rotate_back(b).head(rank());
  solve_triangle(head);
  return unpermuted(head);
}

Vector PivotedQr::solve_cross_products(const Vector& g) const {
  Vector head = permuted(g).head(rank());
  solve_transposed_triangle(head);
  solve_triangle(head);
  return unpermuted(head);
}

Vector shortest_solution(const Matrix& a, const Vector& b, double tolerance) {
  const PivotedQr qr(a, tolerance);
  const Index rank = qr.rank();
  if (rank == 0) return Vector::Zero(a.cols());
  // A P = Q (R; 0) with R = T' Z' of full row rank: x = P Z T'^-1 (Q'b).
  const PivotedQr rows(qr.trapezoid().transpose());
  Vector head = rows.permuted(qr.rotate_back(b).head(rank));
  rows.solve_transposed_triangle(head);
  Vector wide = Vector::Zero(a.cols());
  wide.head(rank) = head;
  return qr.unpermuted(rows.rotate(wide));
}

RightSingular::RightSingular(const Matrix& a) {
  // The triangle of a QR factorisation has the same ones, and few rows.
  const Index n = a.cols();
  const Eigen::ColPivHouseholderQR<Matrix> qr(a);
  Matrix triangle = Matrix::Zero(n, n);
  for (Index j = 0; j < n; ++j) {
    double* column = triangle.col(qr.colsPermutation().indices()[j]).data();
    for (Index i = 0; i <= j && i < a.rows(); ++i) column[i] = qr.matrixQR()(i, j);
  }
  const Eigen::JacobiSVD<Matrix, Eigen::NoQRPreconditioner> svd(triangle, Eigen::ComputeFullV);
  values = svd.singularValues();
  vectors = svd.matrixV();
}

}  // namespace msem
