#include "base/linalg.hpp"

namespace msem {

PivotedQr::PivotedQr(const Matrix& a, double tolerance) {
  if (tolerance > 0) qr_.setThreshold(tolerance);
  qr_.compute(a);
}

Matrix PivotedQr::q() const { return qr_.householderQ() * Matrix::Identity(qr_.rows(), qr_.rows()); }

Vector PivotedQr::rotate(const Vector& x) const { return qr_.householderQ() * x; }

Vector PivotedQr::rotate_back(const Vector& x) const { return qr_.householderQ().transpose() * x; }

Vector PivotedQr::solve(const Vector& b) const { return qr_.solve(b); }

Vector PivotedQr::solve_cross_products(Vector g) const {
  const Index n = rank();
  Vector y = qr_.colsPermutation().transpose() * g;
  const auto r = qr_.matrixR().topLeftCorner(n, n).triangularView<Eigen::Upper>();
  Vector head = y.head(n);
  r.transpose().solveInPlace(head);
  r.solveInPlace(head);
  y.setZero();
  y.head(n) = head;
  return qr_.colsPermutation() * y;
}

Vector shortest_solution(const Matrix& a, const Vector& b) {
  return a.completeOrthogonalDecomposition().solve(b);
}

}  // namespace msem
