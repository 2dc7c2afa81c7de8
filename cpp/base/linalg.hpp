// Dense linear algebra with explicit failure: a factorisation that is not possible is a `false`, never a
// number.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "base/dense.hpp"

namespace msem {

// Whether the kernels are those for processors with AVX2 and FMA.
bool compiled_for_avx2();

constexpr double kLog2Pi = 1.8378770664093454835606594728112;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Products of plain matrices. Each different expression of Eigen costs a second and a half of compilation,
// these are compiled once. What is returned is new; an `out` has its shape already and overlaps with no
// factor.
Matrix product(ConstMatrixRef a, ConstMatrixRef b);                           // A B
Matrix cross(ConstMatrixRef a, ConstMatrixRef b);                             // A'B
Matrix outer(ConstMatrixRef a, ConstMatrixRef b);                             // A B'
Vector apply(ConstMatrixRef a, ConstVectorRef x);                             // A x
Vector apply_transposed(ConstMatrixRef a, ConstVectorRef x);                  // A'x
Matrix sandwich(ConstMatrixRef a, ConstMatrixRef k);                          // A'K A
Matrix outer_sandwich(ConstMatrixRef a, ConstMatrixRef k);                    // A K A'
Matrix weighted_cross(ConstMatrixRef a, ConstVectorRef d, ConstMatrixRef b);  // A' diag(d) B
Matrix scale_rows(ConstVectorRef d, ConstMatrixRef a);                        // diag(d) A
Matrix scale_cols(ConstMatrixRef a, ConstVectorRef d);                        // A diag(d)
Matrix scale_both(ConstVectorRef d, ConstMatrixRef a);                        // diag(d) A diag(d)
Matrix one_plus_outer(ConstVectorRef x, ConstVectorRef y);                    // 1 + x_i y_j
Vector column_norms(ConstMatrixRef a);
Vector log_row_products(ConstMatrixRef a);  // sums of the logarithms of each row

void set_product(MatrixRef out, ConstMatrixRef a, ConstMatrixRef b);                // A B
void set_cross(MatrixRef out, ConstMatrixRef a, ConstMatrixRef b);                  // A'B
void add_product(MatrixRef out, double scale, ConstMatrixRef a, ConstMatrixRef b);  // + s A B
void add_cross(MatrixRef out, double scale, ConstMatrixRef a, ConstMatrixRef b);    // + s A'B
void add_weighted_cross(MatrixRef out, double scale, ConstMatrixRef a, ConstVectorRef d,
                        ConstMatrixRef b);                                          // + s A' diag(d) B
void add_outer(MatrixRef out, double scale, ConstMatrixRef a, ConstMatrixRef b);    // + s A B'
void add_with_transpose(MatrixRef out, double scale, ConstMatrixRef a);             // + s (A + A')
void add_applied(VectorRef out, double scale, ConstMatrixRef a, ConstVectorRef x);  // + s A x
void add_applied_transposed(VectorRef out, double scale, ConstMatrixRef a, ConstVectorRef x);  // + s A'x
void symmetrise(Matrix& a);

// Rows and columns by position.
Matrix select(const Matrix& a, const std::vector<Index>& rows, const std::vector<Index>& cols);
Matrix select_rows(const Matrix& a, const std::vector<Index>& rows);
Matrix select_cols(const Matrix& a, const std::vector<Index>& cols);
Vector select(const Vector& x, const std::vector<Index>& at);
Vector select(const Vector& x, const std::vector<int>& at);
Matrix select(const Matrix& a, const std::vector<int>& rows, const std::vector<int>& cols);
Matrix select_rows(const Matrix& a, const std::vector<int>& rows);
void put_rows(MatrixRef out, const std::vector<Index>& rows, const Matrix& a);
void add(Matrix& out, const std::vector<Index>& at, const Matrix& a);  // to rows and columns
void put(Matrix& out, const std::vector<Index>& rows, const std::vector<Index>& cols, const Matrix& a);

// Lower Cholesky factor of a symmetric matrix and its log determinant.
class Cholesky {
 public:
  // Returns false unless `a` is finite and positive definite.
  bool compute(const Matrix& a);
  double log_det() const;
  // The smallest squared pivot.
  double pivot() const;
  Matrix inverse() const;
  // The same of a large matrix, columns at a time, with so many threads (0: as many as there may be).
  Matrix inverse(int threads) const;
  Matrix lower() const;
  // The squared pivot of a row: what those before it leave of its diagonal element.
  double pivot(Index row) const { return factor_(row, row) * factor_(row, row); }
  Matrix solve(Matrix x) const;
  Vector solve(Vector x) const;
  // L^-1 x
  Matrix whiten(Matrix x) const;
  void whiten_in_place(Vector& x) const;
  // L^-T x
  Matrix whiten_transposed(Matrix x) const;

 private:
  Matrix factor_;  // its lower triangle
};

// L D L' of a symmetric matrix that may be singular, with pivots.
class PivotedLdl {
 public:
  void compute(const Matrix& a) { ldl_.compute(a); }
  Vector solve(const Vector& b) const;

 private:
  Eigen::LDLT<Matrix> ldl_;
};

// log |det A|
double log_abs_determinant(const Matrix& a);
Matrix inverse(const Matrix& a);
// A x = b for a square A.
Vector solve_square(const Matrix& a, const Vector& b);
bool positive_definite(const Matrix& a);

// Eigenvalues of a symmetric matrix, ascending, and its eigenvectors.
struct SymmetricEigen {
  explicit SymmetricEigen(const Matrix& a);
  Vector values;
  Matrix vectors;
  bool converged;
};

// Householder QR with column pivots, A P = Q R, of a matrix of any rank.
class PivotedQr {
 public:
  PivotedQr() = default;
  // Columns count as dependent below `tolerance` times the greatest pivot; that of rounding without one.
  explicit PivotedQr(const Matrix& a, double tolerance = 0);
  Index rank() const { return qr_.rank(); }
  // So many columns on which the others depend, ascending.
  std::vector<Index> independent() const;
  Matrix q() const;                                    // square
  Vector rotate(Vector x) const;                       // Q x
  Vector rotate_back(Vector x) const;                  // Q'x
  Vector solve(const Vector& b) const;                 // a least-squares solution
  Vector solve_cross_products(const Vector& g) const;  // a solution of A'A x = g, zero beyond the rank
  Matrix trapezoid() const;                            // R, of as many rows as the rank
  void solve_triangle(Vector& x) const;                // R^-1 x, R the leading triangle of as many columns
  void solve_transposed_triangle(Vector& x) const;     // R^-T x
  Vector permuted(const Vector& x) const;              // P'x
  Vector unpermuted(const Vector& head) const;         // P (head; 0)

 private:
  void reflect(Index k, double* x) const;
  Eigen::ColPivHouseholderQR<Matrix> qr_;
};

// The shortest least-squares solution of A x = b. Columns count as dependent below `tolerance` times the
// greatest pivot; that of rounding without one.
Vector shortest_solution(const Matrix& a, const Vector& b, double tolerance = 0);

// Singular values of A, descending, and all its right singular vectors.
struct RightSingular {
  explicit RightSingular(const Matrix& a);
  Vector values;
  Matrix vectors;
};

// Inverse of a symmetric matrix by Cholesky in correlation metric, and the smallest squared pivot there: the
// share of a variable's variance that those before it leave, 0 when the matrix is not positive definite.
struct ScaledInverse {
  Matrix inverse;
  double pivot = 0;
};
ScaledInverse scaled_inverse(const Matrix& a);

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
Matrix pack_doubled(const Matrix& stacked, Index p);

// A column of k stacked n x m matrices, seen as matrices.
inline Eigen::Map<const Matrix> slice(const Matrix& stacked, Index column, Index rows, Index cols) {
  return {stacked.col(column).data(), rows, cols};
}
inline Eigen::Map<Matrix> slice(Matrix& stacked, Index column, Index rows, Index cols) {
  return {stacked.col(column).data(), rows, cols};
}

}  // namespace msem
