// Factorisations of small matrices in place, without allocation, for loops over nodes.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/linalg.hpp"

namespace msem {

// In place: the lower Cholesky factor of a symmetric n x n matrix; false unless it is positive definite.
inline bool factorise(double* a, Index n, double& log_det) {
  log_det = 0;
  for (Index j = 0; j < n; ++j) {
    for (Index k = 0; k < j; ++k) {
      const double s = a[k * n + j];
      for (Index i = j; i < n; ++i) a[j * n + i] -= s * a[k * n + i];
    }
    const double pivot = a[j * n + j];
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    log_det += std::log(pivot);
    const double root = std::sqrt(pivot);
    for (Index i = j; i < n; ++i) a[j * n + i] /= root;
  }
  return true;
}

inline void solve_lower(const double* l, Index n, double* x) {
  for (Index j = 0; j < n; ++j) {
    x[j] /= l[j * n + j];
    for (Index i = j + 1; i < n; ++i) x[i] -= l[j * n + i] * x[j];
  }
}

inline void solve_upper(const double* l, Index n, double* x) {
  for (Index j = n - 1; j >= 0; --j) {
    double sum = x[j];
    for (Index i = j + 1; i < n; ++i) sum -= l[j * n + i] * x[i];
    x[j] = sum / l[j * n + j];
  }
}

inline void invert_factored(const double* l, Index n, double* out) {
  std::fill(out, out + n * n, 0.0);
  for (Index j = 0; j < n; ++j) {
    out[j * n + j] = 1;
    solve_lower(l, n, out + j * n);
    solve_upper(l, n, out + j * n);
  }
}

// A B and A'B of n x n matrices.
inline void small_product(const double* a, const double* b, Index n, double* out) {
  for (Index j = 0; j < n; ++j) {
    for (Index i = 0; i < n; ++i) out[j * n + i] = 0;
    for (Index k = 0; k < n; ++k) {
      const double x = b[j * n + k];
      for (Index i = 0; i < n; ++i) out[j * n + i] += a[k * n + i] * x;
    }
  }
}

inline void small_cross(const double* a, const double* b, Index n, double* out) {
  for (Index j = 0; j < n; ++j) {
    for (Index i = 0; i < n; ++i) {
      double sum = 0;
      for (Index k = 0; k < n; ++k) sum += a[i * n + k] * b[j * n + k];
      out[j * n + i] = sum;
    }
  }
}

// A x, A of n rows and k columns.
inline void small_apply(const double* a, const double* x, Index n, Index k, double* out) {
  std::fill(out, out + n, 0.0);
  for (Index j = 0; j < k; ++j) {
    for (Index i = 0; i < n; ++i) out[i] += a[j * n + i] * x[j];
  }
}

}  // namespace msem
