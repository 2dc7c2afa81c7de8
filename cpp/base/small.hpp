// Products and triangular systems of matrices that are so small that the preparations of a large product
// (packing, blocks for the cache) would take longer than the product. Columns are contiguous and `stride`
// apart.
#pragma once

#include "base/dense.hpp"

namespace msem::small {

constexpr Index kTurned = 160;   // numbers that are transposed before a product, not more
constexpr Index kLong = 32;      // terms that are many,
constexpr Index kFew = 64;       // dot products
constexpr Index kTriangle = 24;  // side of a triangle that many vectors are solved for,
constexpr Index kFactored = 48;  // and of one that is factorised, or solved for one

template <int Rows>
using Piece = Eigen::Array<double, Rows, 1>;
template <int Rows>
Piece<Rows> load(const double* x) {
  return Eigen::Map<const Piece<Rows>>(x);
}

// Where the elements of a factor are.
struct Steps {
  Index down, along;
};

// Of the result: + s A B, or s A B in place of what was there.
struct Update {
  double scale;
  bool add;

  template <int Rows>
  void operator()(const Piece<Rows>& sum, double* out) const {
    Eigen::Map<Piece<Rows>> to(out);
    if (add)
      to += scale * sum;
    else
      to = scale * sum;
  }
};

template <int Rows, int Cols>
void product_tile(const double* a, Index a_stride, const double* b, Steps b_step, Index terms, Update update,
                  double* out, Index out_stride) {
  Piece<Rows> sum[Cols];
  for (int c = 0; c < Cols; ++c) sum[c].setZero();
  for (Index l = 0; l < terms; ++l) {
    const Piece<Rows> x = load<Rows>(a + l * a_stride);
    for (int c = 0; c < Cols; ++c) sum[c] += x * b[l * b_step.down + c * b_step.along];
  }
  for (int c = 0; c < Cols; ++c) update(sum[c], out + c * out_stride);
}

template <int Cols>
void product_columns(const double* a, Index a_stride, Index rows, const double* b, Steps b_step, Index terms,
                     Update update, double* out, Index out_stride) {
  Index i = 0;
  for (; i + 8 <= rows; i += 8)
    product_tile<8, Cols>(a + i, a_stride, b, b_step, terms, update, out + i, out_stride);
  if (i + 4 <= rows) {
    product_tile<4, Cols>(a + i, a_stride, b, b_step, terms, update, out + i, out_stride);
    i += 4;
  }
  if (i + 2 <= rows) {
    product_tile<2, Cols>(a + i, a_stride, b, b_step, terms, update, out + i, out_stride);
    i += 2;
  }
  if (i < rows) product_tile<1, Cols>(a + i, a_stride, b, b_step, terms, update, out + i, out_stride);
}

// A B for columns of A that are contiguous; B may be transposed.
inline void product(const double* a, Index a_stride, Index rows, const double* b, Steps b_step, Index cols,
                    Index terms, Update update, double* out, Index out_stride) {
  Index j = 0;
  for (; j + 4 <= cols; j += 4)
    product_columns<4>(a, a_stride, rows, b + j * b_step.along, b_step, terms, update, out + j * out_stride,
                       out_stride);
  if (j + 2 <= cols) {
    product_columns<2>(a, a_stride, rows, b + j * b_step.along, b_step, terms, update, out + j * out_stride,
                       out_stride);
    j += 2;
  }
  if (j < cols)
    product_columns<1>(a, a_stride, rows, b + j * b_step.along, b_step, terms, update, out + j * out_stride,
                       out_stride);
}

// Dot products of columns of A and of B, each term times its weight if there are some.
template <int Left, int Right, bool Weighted>
void cross_tile(const double* a, Index a_stride, const double* b, Index b_stride, const double* weights,
                Index terms, Update update, double* out, Index out_stride) {
  Piece<4> sum[Left][Right];
  for (int i = 0; i < Left; ++i) {
    for (int j = 0; j < Right; ++j) sum[i][j].setZero();
  }
  Index l = 0;
  for (; l + 4 <= terms; l += 4) {
    Piece<4> y[Right];
    for (int j = 0; j < Right; ++j) {
      y[j] = load<4>(b + l + j * b_stride);
      if constexpr (Weighted) y[j] *= load<4>(weights + l);
    }
    for (int i = 0; i < Left; ++i) {
      const Piece<4> x = load<4>(a + l + i * a_stride);
      for (int j = 0; j < Right; ++j) sum[i][j] += x * y[j];
    }
  }
  double rest[Left][Right];
  for (int i = 0; i < Left; ++i) {
    for (int j = 0; j < Right; ++j) rest[i][j] = sum[i][j].sum();
  }
  for (; l < terms; ++l) {
    for (int j = 0; j < Right; ++j) {
      const double y = Weighted ? b[l + j * b_stride] * weights[l] : b[l + j * b_stride];
      for (int i = 0; i < Left; ++i) rest[i][j] += a[l + i * a_stride] * y;
    }
  }
  for (int i = 0; i < Left; ++i) {
    for (int j = 0; j < Right; ++j) update(Piece<1>(rest[i][j]), out + i + j * out_stride);
  }
}

template <int Right, bool Weighted>
void cross_columns(const double* a, Index a_stride, Index rows, const double* b, Index b_stride,
                   const double* weights, Index terms, Update update, double* out, Index out_stride) {
  Index i = 0;
  for (; i + 4 <= rows; i += 4)
    cross_tile<4, Right, Weighted>(a + i * a_stride, a_stride, b, b_stride, weights, terms, update, out + i,
                                   out_stride);
  if (i + 2 <= rows) {
    cross_tile<2, Right, Weighted>(a + i * a_stride, a_stride, b, b_stride, weights, terms, update, out + i,
                                   out_stride);
    i += 2;
  }
  if (i < rows)
    cross_tile<1, Right, Weighted>(a + i * a_stride, a_stride, b, b_stride, weights, terms, update, out + i,
                                   out_stride);
}

template <bool Weighted>
void cross_products(const double* a, Index a_stride, Index rows, const double* b, Index b_stride, Index cols,
                    const double* weights, Index terms, Update update, double* out, Index out_stride) {
  Index j = 0;
  for (; j + 2 <= cols; j += 2)
    cross_columns<2, Weighted>(a, a_stride, rows, b + j * b_stride, b_stride, weights, terms, update,
                               out + j * out_stride, out_stride);
  if (j < cols)
    cross_columns<1, Weighted>(a, a_stride, rows, b + j * b_stride, b_stride, weights, terms, update,
                               out + j * out_stride, out_stride);
}

// Whether a product is so small, with factors whose columns, or those of the first only, are contiguous.
inline bool worth_product(Index rows, Index cols, Index terms) {
  return cols == 1 ? rows * terms <= 512 : rows * cols * terms <= 8192;
}
inline bool worth_dot_products(Index rows, Index cols, Index terms) {
  return rows * cols <= (terms < kLong ? kFew : 2 * kFew) && terms <= 512;
}
inline bool worth_cross(Index rows, Index cols, Index terms) {
  if (cols < 3) return terms <= 256 && rows * terms <= 2048;
  if (rows * terms <= kTurned) return cols <= kFew;
  return worth_dot_products(rows, cols, terms);
}

// The transposed matrix, with columns next to each other.
inline void transpose(const double* a, Index stride, Index rows, Index cols, double* out) {
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j) out[j + i * cols] = a[i + j * stride];
  }
}

// A'B
inline void cross(const double* a, Index a_stride, Index rows, const double* b, Index b_stride, Index cols,
                  Index terms, Update update, double* out, Index out_stride) {
  // Few results, or of many terms, are dot products.
  if (cols < 3 || rows * terms > kTurned) {
    cross_products<false>(a, a_stride, rows, b, b_stride, cols, nullptr, terms, update, out, out_stride);
    return;
  }
  alignas(32) double turned[kTurned];
  transpose(a, a_stride, terms, rows, turned);
  product(turned, rows, rows, b, {1, b_stride}, cols, terms, update, out, out_stride);
}

// x - the product of some columns of L with numbers that are `stride` apart, as L is.
template <int Rows>
void subtract_columns(const double* lower, Index stride, const double* by, Index count, double* x) {
  Piece<Rows> left = load<Rows>(x);
  for (Index l = 0; l < count; ++l) left -= load<Rows>(lower + l * stride) * by[l * stride];
  Eigen::Map<Piece<Rows>>{x} = left;
}

// The lower triangle of a symmetric matrix becomes its Cholesky factor; false unless it is positive definite.
inline bool factorise(double* a, Index stride, Index n) {
  for (Index j = 0; j < n; ++j) {
    double* column = a + j * stride;
    Index i = j;
    for (; i + 8 <= n; i += 8) subtract_columns<8>(a + i, stride, a + j, j, column + i);
    if (i + 4 <= n) {
      subtract_columns<4>(a + i, stride, a + j, j, column + i);
      i += 4;
    }
    if (i + 2 <= n) {
      subtract_columns<2>(a + i, stride, a + j, j, column + i);
      i += 2;
    }
    if (i < n) subtract_columns<1>(a + i, stride, a + j, j, column + i);
    if (!(column[j] > 0)) return false;
    const double pivot = std::sqrt(column[j]), inverse = 1 / pivot;
    column[j] = pivot;
    for (Index k = j + 1; k < n; ++k) column[k] *= inverse;
  }
  return true;
}

// Four right-hand sides beside each other.
inline void gather_columns(const double* x, Index stride, Index n, Index cols, Piece<4>* out) {
  const double *b = x + (cols > 1 ? stride : 0), *c = x + (cols > 2 ? 2 * stride : 0),
               *d = x + (cols > 3 ? 3 * stride : 0);
  for (Index i = 0; i < n; ++i) out[i] = Piece<4>(x[i], b[i], c[i], d[i]);
}
inline void scatter_columns(const Piece<4>* from, Index n, Index cols, double* x, Index stride) {
  for (Index c = 0; c < cols; ++c) {
    for (Index i = 0; i < n; ++i) x[i + c * stride] = from[i][c];
  }
}

// Solves for four right-hand sides after another: solve(inverse, sides), `inverse` of the diagonal.
template <class Solve>
void solve_by_fours(const double* lower, Index stride, Index n, double* x, Index x_stride, Index cols,
                    const Solve& solve) {
  Piece<4> sides[kFactored];
  double inverse[kFactored];
  for (Index i = 0; i < n; ++i) inverse[i] = 1 / lower[i + i * stride];
  for (Index j = 0; j < cols; j += 4) {
    const Index width = std::min<Index>(4, cols - j);
    gather_columns(x + j * x_stride, x_stride, n, width, sides);
    solve(inverse, sides);
    scatter_columns(sides, n, width, x + j * x_stride, x_stride);
  }
}

// L^-1 X
inline void solve_lower(const double* lower, Index stride, Index n, double* x, Index x_stride, Index cols) {
  solve_by_fours(lower, stride, n, x, x_stride, cols, [=](const double* inverse, Piece<4>* sides) {
    for (Index i = 0; i < n; ++i) {
      Piece<4> sum = sides[i];
      for (Index l = 0; l < i; ++l) sum -= lower[i + l * stride] * sides[l];
      sides[i] = sum * inverse[i];
    }
  });
}

// L^-T X
inline void solve_transposed(const double* lower, Index stride, Index n, double* x, Index x_stride,
                             Index cols) {
  solve_by_fours(lower, stride, n, x, x_stride, cols, [=](const double* inverse, Piece<4>* sides) {
    for (Index i = n; i-- > 0;) {
      Piece<4> sum = sides[i];
      for (Index l = n; --l > i;) sum -= lower[l + i * stride] * sides[l];
      sides[i] = sum * inverse[i];
    }
  });
}

}  // namespace msem::small
