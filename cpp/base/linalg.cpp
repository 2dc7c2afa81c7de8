#include "base/linalg.hpp"

#include "base/small.hpp"

namespace msem {

namespace {

using small::Update;

bool set_small(MatrixRef out, Update update, ConstMatrixRef a, ConstMatrixRef b) {
  if (!small::worth_product(a.rows(), b.cols(), a.cols())) return false;
  small::product(a.data(), a.outerStride(), a.rows(), b.data(), {1, b.outerStride()}, b.cols(), a.cols(),
                 update, out.data(), out.outerStride());
  return true;
}

bool set_small_cross(MatrixRef out, Update update, ConstMatrixRef a, ConstMatrixRef b) {
  if (!small::worth_cross(a.cols(), b.cols(), a.rows())) return false;
  small::cross(a.data(), a.outerStride(), a.cols(), b.data(), b.outerStride(), b.cols(), a.rows(), update,
               out.data(), out.outerStride());
  return true;
}

bool set_small_weighted_cross(MatrixRef out, Update update, ConstMatrixRef a, ConstVectorRef d,
                              ConstMatrixRef b) {
  if (!small::worth_dot_products(a.cols(), b.cols(), a.rows())) return false;
  small::cross_products<true>(a.data(), a.outerStride(), a.cols(), b.data(), b.outerStride(), b.cols(),
                              d.data(), a.rows(), update, out.data(), out.outerStride());
  return true;
}

bool set_small_outer(MatrixRef out, Update update, ConstMatrixRef a, ConstMatrixRef b) {
  if (!small::worth_product(a.rows(), b.rows(), a.cols())) return false;
  small::product(a.data(), a.outerStride(), a.rows(), b.data(), {b.outerStride(), 1}, b.rows(), a.cols(),
                 update, out.data(), out.outerStride());
  return true;
}

}  // namespace

bool compiled_for_avx2() {
#if defined(__AVX2__) && defined(__FMA__)
  return true;
#else
  return false;
#endif
}

Matrix product(ConstMatrixRef a, ConstMatrixRef b) {
  Matrix out(a.rows(), b.cols());
  set_product(out, a, b);
  return out;
}

Matrix cross(ConstMatrixRef a, ConstMatrixRef b) {
  Matrix out(a.cols(), b.cols());
  set_cross(out, a, b);
  return out;
}

Matrix outer(ConstMatrixRef a, ConstMatrixRef b) {
  Matrix out(a.rows(), b.rows());
  if (!set_small_outer(out, {1, false}, a, b)) out.noalias() = a * b.transpose();
  return out;
}

Vector column_norms(ConstMatrixRef a) { return a.colwise().norm(); }

Vector log_row_products(ConstMatrixRef a) {
  Vector out = Vector::Zero(a.rows());
  for (Index j = 0; j < a.cols(); ++j) out.array() += a.col(j).array().log();
  return out;
}

Vector apply(ConstMatrixRef a, ConstVectorRef x) {
  Vector out(a.rows());
  if (small::worth_product(a.rows(), 1, a.cols()))
    small::product(a.data(), a.outerStride(), a.rows(), x.data(), {1, 0}, 1, a.cols(), {1, false}, out.data(),
                   0);
  else
    out.noalias() = a * x;
  return out;
}

Vector apply_transposed(ConstMatrixRef a, ConstVectorRef x) {
  Vector out(a.cols());
  if (small::worth_cross(a.cols(), 1, a.rows()))
    small::cross(a.data(), a.outerStride(), a.cols(), x.data(), 0, 1, a.rows(), {1, false}, out.data(), 0);
  else
    out.noalias() = a.transpose() * x;
  return out;
}

Matrix sandwich(ConstMatrixRef a, ConstMatrixRef k) { return cross(a, product(k, a)); }

Matrix outer_sandwich(ConstMatrixRef a, ConstMatrixRef k) { return outer(product(a, k), a); }

Matrix weighted_cross(ConstMatrixRef a, ConstVectorRef d, ConstMatrixRef b) {
  Matrix out(a.cols(), b.cols());
  if (!set_small_weighted_cross(out, {1, false}, a, d, b)) set_cross(out, a, scale_rows(d, b));
  return out;
}

Matrix scale_rows(ConstVectorRef d, ConstMatrixRef a) {
  Matrix out(a.rows(), a.cols());
  for (Index j = 0; j < a.cols(); ++j) out.col(j).array() = d.array() * a.col(j).array();
  return out;
}

Matrix scale_cols(ConstMatrixRef a, ConstVectorRef d) {
  Matrix out(a.rows(), a.cols());
  for (Index j = 0; j < a.cols(); ++j) out.col(j) = a.col(j) * d[j];
  return out;
}

Matrix scale_both(ConstVectorRef d, ConstMatrixRef a) {
  Matrix out(a.rows(), a.cols());
  for (Index j = 0; j < a.cols(); ++j) out.col(j).array() = d.array() * a.col(j).array() * d[j];
  return out;
}

Matrix one_plus_outer(ConstVectorRef x, ConstVectorRef y) {
  Matrix out(x.size(), y.size());
  for (Index j = 0; j < y.size(); ++j) out.col(j).array() = 1 + x.array() * y[j];
  return out;
}

void set_product(MatrixRef out, ConstMatrixRef a, ConstMatrixRef b) {
  if (!set_small(out, {1, false}, a, b)) out.noalias() = a * b;
}

void set_cross(MatrixRef out, ConstMatrixRef a, ConstMatrixRef b) {
  if (!set_small_cross(out, {1, false}, a, b)) out.noalias() = a.transpose() * b;
}

void add_product(MatrixRef out, double scale, ConstMatrixRef a, ConstMatrixRef b) {
  if (!set_small(out, {scale, true}, a, b)) out.noalias() += scale * a * b;
}

void add_cross(MatrixRef out, double scale, ConstMatrixRef a, ConstMatrixRef b) {
  if (!set_small_cross(out, {scale, true}, a, b)) out.noalias() += scale * a.transpose() * b;
}

void add_weighted_cross(MatrixRef out, double scale, ConstMatrixRef a, ConstVectorRef d, ConstMatrixRef b) {
  if (!set_small_weighted_cross(out, {scale, true}, a, d, b)) add_cross(out, scale, a, scale_rows(d, b));
}

void add_outer(MatrixRef out, double scale, ConstMatrixRef a, ConstMatrixRef b) {
  if (!set_small_outer(out, {scale, true}, a, b)) out.noalias() += scale * a * b.transpose();
}

void add_with_transpose(MatrixRef out, double scale, ConstMatrixRef a) { out += scale * (a + a.transpose()); }

void add_applied(VectorRef out, double scale, ConstMatrixRef a, ConstVectorRef x) {
  out.noalias() += scale * a * x;
}

void add_applied_transposed(VectorRef out, double scale, ConstMatrixRef a, ConstVectorRef x) {
  out.noalias() += scale * a.transpose() * x;
}

void symmetrise(Matrix& a) { a = (0.5 * (a + a.transpose())).eval(); }

namespace {

template <class Number>
Matrix selected(const Matrix& a, const std::vector<Number>& rows, const std::vector<Number>& cols) {
  Matrix out(static_cast<Index>(rows.size()), static_cast<Index>(cols.size()));
  for (Index j = 0; j < out.cols(); ++j) {
    for (Index i = 0; i < out.rows(); ++i) out(i, j) = a(rows[i], cols[j]);
  }
  return out;
}

template <class Number>
Matrix selected_rows(const Matrix& a, const std::vector<Number>& rows) {
  Matrix out(static_cast<Index>(rows.size()), a.cols());
  for (Index j = 0; j < out.cols(); ++j) {
    for (Index i = 0; i < out.rows(); ++i) out(i, j) = a(rows[i], j);
  }
  return out;
}

template <class Number>
Vector selected(const Vector& x, const std::vector<Number>& at) {
  Vector out(static_cast<Index>(at.size()));
  for (Index i = 0; i < out.size(); ++i) out[i] = x[at[i]];
  return out;
}

}  // namespace

Matrix select(const Matrix& a, const std::vector<Index>& rows, const std::vector<Index>& cols) {
  return selected(a, rows, cols);
}

Matrix select(const Matrix& a, const std::vector<int>& rows, const std::vector<int>& cols) {
  return selected(a, rows, cols);
}

Matrix select_rows(const Matrix& a, const std::vector<Index>& rows) { return selected_rows(a, rows); }

Matrix select_rows(const Matrix& a, const std::vector<int>& rows) { return selected_rows(a, rows); }

Vector select(const Vector& x, const std::vector<Index>& at) { return selected(x, at); }

Vector select(const Vector& x, const std::vector<int>& at) { return selected(x, at); }

Matrix select_cols(const Matrix& a, const std::vector<Index>& cols) {
  Matrix out(a.rows(), static_cast<Index>(cols.size()));
  for (Index j = 0; j < out.cols(); ++j) out.col(j) = a.col(cols[j]);
  return out;
}

void put_rows(MatrixRef out, const std::vector<Index>& rows, const Matrix& a) {
  for (Index i = 0; i < a.rows(); ++i) out.row(rows[i]) = a.row(i);
}

void add(Matrix& out, const std::vector<Index>& at, const Matrix& a) {
  for (Index j = 0; j < a.cols(); ++j) {
    for (Index i = 0; i < a.rows(); ++i) out(at[i], at[j]) += a(i, j);
  }
}

void put(Matrix& out, const std::vector<Index>& rows, const std::vector<Index>& cols, const Matrix& a) {
  for (Index j = 0; j < a.cols(); ++j) {
    for (Index i = 0; i < a.rows(); ++i) out(rows[i], cols[j]) = a(i, j);
  }
}

Matrix pack_doubled(const Matrix& stacked, Index p) {
  Matrix out(p * (p + 1) / 2, stacked.cols());
  Index row = 0;
  for (Index j = 0; j < p; ++j) {
    for (Index i = j; i < p; ++i) out.row(row++) = (i == j ? 1.0 : 2.0) * stacked.row(i + j * p);
  }
  return out;
}

}  // namespace msem
