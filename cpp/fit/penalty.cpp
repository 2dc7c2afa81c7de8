#include "fit/penalty.hpp"

#include <algorithm>
#include <stdexcept>

namespace msem {

namespace {

double value_of(const VariancePenalty::Element& e, ConstVectorRef theta) {
  return e.parameter < 0 ? e.value : theta[e.parameter];
}

}  // namespace

VariancePenalty::VariancePenalty(std::vector<Element> covariances, std::vector<Element> loadings,
                                 std::vector<Index> variances, std::vector<std::vector<Index>> factors,
                                 Vector weights)
    : covariances_(std::move(covariances)),
      loadings_(std::move(loadings)),
      factors_(std::move(factors)),
      weights_(std::move(weights)),
      size_(static_cast<Index>(variances.size())) {
  const auto place = [&](Index variable) {
    const auto at = std::find(variances.begin(), variances.end(), variable);
    if (at == variances.end())
      throw std::invalid_argument("a covariance is of a variable that has no variance");
    return static_cast<Index>(at - variances.begin());
  };
  for (Element& e : covariances_) {
    e.row = place(e.row);
    e.col = place(e.col);
  }
  const auto inside = [&](Index k) { return k >= 0 && k < weights_.size(); };
  for (const Element& e : loadings_) {
    if (!inside(e.row) || !inside(e.col)) throw std::invalid_argument("a loading is of an unknown variable");
  }
  rows_ = size_ * size_;
  for (const std::vector<Index>& set : factors_) {
    if (!std::all_of(set.begin(), set.end(), inside)) throw std::invalid_argument("an unknown factor");
    rows_ += static_cast<Index>(set.size() * set.size());
  }
  for (const std::vector<Element>* set : {&covariances_, &loadings_}) {
    for (const Element& e : *set) {
      if (e.parameter >= 0) parameters_.push_back(e.parameter);
    }
  }
  std::sort(parameters_.begin(), parameters_.end());
  parameters_.erase(std::unique(parameters_.begin(), parameters_.end()), parameters_.end());
}

int VariancePenalty::local(int parameter) const {
  return static_cast<int>(std::lower_bound(parameters_.begin(), parameters_.end(), parameter) -
                          parameters_.begin());
}

bool VariancePenalty::at(ConstVectorRef theta, TermPoint& point) const {
  const Index k = static_cast<Index>(parameters_.size());
  if (k && parameters_.back() >= theta.size()) throw std::invalid_argument("theta has the wrong length");
  point.value = 0;
  point.gradient.setZero(k);
  point.observed.setZero(k, k);
  point.factor.setZero(rows_, k);
  return add_determinant(theta, point) && add_factors(theta, point);
}

// -log|S|: gradient -tr(S^-1 dS), half the second derivatives tr(S^-1 dS S^-1 dS) / 2.
bool VariancePenalty::add_determinant(ConstVectorRef theta, TermPoint& point) const {
  if (size_ == 0) return true;
  Matrix s = Matrix::Zero(size_, size_);
  for (const Element& e : covariances_) s(e.row, e.col) = s(e.col, e.row) = value_of(e, theta);
  Cholesky chol;
  if (!chol.compute(s)) return false;
  point.value -= chol.log_det();
  const Matrix white = chol.whiten(Matrix(Matrix::Identity(size_, size_)));  // L^-1
  for (const Element& e : covariances_) {
    if (e.parameter < 0) continue;
    const int k = local(e.parameter);
    // L^-1 dS L^-T / sqrt(2), added up where elements share a parameter
    double trace = 0;
    for (Index b = 0; b < size_; ++b) {
      for (Index a = 0; a < size_; ++a) {
        double x = white(a, e.row) * white(b, e.col);
        if (e.row != e.col) x += white(a, e.col) * white(b, e.row);
        point.factor(b * size_ + a, k) += x * std::sqrt(0.5);
        if (a == b) trace += x;
      }
    }
    point.gradient[k] -= trace;
  }
  const Matrix rows = point.factor.topRows(size_ * size_);
  point.observed = cross(rows, rows);
  return true;
}

// -log|G_A| for each set of factors.
bool VariancePenalty::add_factors(ConstVectorRef theta, TermPoint& point) const {
  if (factors_.empty()) return true;
  const Index n = weights_.size();
  Matrix paths = Matrix::Identity(n, n);
  for (const Element& e : loadings_) paths(e.row, e.col) -= value_of(e, theta);
  const Matrix l = inverse(paths);
  if (!l.allFinite()) return false;
  const Matrix g = weighted_cross(l, weights_, l);
  Index row = size_ * size_;
  for (const std::vector<Index>& set : factors_) {
    Cholesky chol;
    if (!chol.compute(msem::select(g, set, set))) return false;
    point.value -= chol.log_det();
    add_set(set, chol, l, g, row, point);
    row += static_cast<Index>(set.size() * set.size());
  }
  return true;
}

// With N = G_A^-1, M = L N G, K = L N L' and R = G N G the first derivatives of log|G_A| by the loading to a
// from b are 2 M_ba, and the second ones with that to c from d
//   2 [L_bc M_da + K_bd (G_ca - R_ca) + M_bc (L_da - M_da)].
void VariancePenalty::add_set(const std::vector<Index>& set, const Cholesky& chol, const Matrix& l,
                              const Matrix& g, Index row, TermPoint& point) const {
  const Index m = static_cast<Index>(set.size());
  const Matrix inverse = chol.inverse(), white = chol.whiten(Matrix(Matrix::Identity(m, m)));
  const Matrix columns = select_cols(l, set);                              // L_A
  const Matrix mixed = product(inverse, select_cols(g, set).transpose());  // N G_A.
  const Matrix to = product(columns, mixed);                               // M
  const Matrix both = outer_sandwich(columns, inverse);                    // K
  const Matrix seen = product(select_cols(g, set), mixed);                 // R
  Matrix change(m, m);
  for (const Element& e : loadings_) {
    if (e.parameter < 0) continue;
    const int k = local(e.parameter);
    point.gradient[k] -= 2 * to(e.col, e.row);
    for (Index j = 0; j < m; ++j) {
      for (Index i = 0; i < m; ++i)
        change(i, j) = g(e.row, set[j]) * l(e.col, set[i]) + g(set[i], e.row) * l(e.col, set[j]);
    }
    const Matrix scaled = outer_sandwich(white, change);
    for (Index j = 0; j < m; ++j) {
      for (Index i = 0; i < m; ++i) point.factor(row + j * m + i, k) += scaled(i, j) * std::sqrt(0.5);
    }
    for (const Element& o : loadings_) {
      if (o.parameter < 0) continue;
      const Index a = e.row, b = e.col, c = o.row, d = o.col;
      const double curve =
          l(b, c) * to(d, a) + both(b, d) * (g(c, a) - seen(c, a)) + to(b, c) * (l(d, a) - to(d, a));
      point.observed(k, local(o.parameter)) -= curve;
    }
  }
}

}  // namespace msem
