#include "model/block.hpp"

#include <algorithm>
#include <stdexcept>

namespace msem {

namespace {

// Gradients of a function of the observed moments, carried to all variables and through (I-A)^-1.
struct Adjoint {
  Matrix symmetric;  // E' G E
  Matrix directed;   // E' G Sigma
  Vector intercept;  // E' g

  Adjoint(const BlockPoint& at, const Vector& g, const Matrix& G) {
    const Index n = G.rows();
    const Matrix half = cross(at.paths.topRows(n), G);  // E' G, observed columns
    symmetric = product(half, at.paths.topRows(n));
    directed = product(half, at.total.topRows(n));
    intercept = apply_transposed(at.paths.topRows(n), g);
  }
};

// <G, d2 Sigma> + <g, d2 mu> for one pair of entries.
double pair_curvature(const Entry& a, const Entry& b, const BlockPoint& at, const Adjoint& adj) {
  if (a.slot > b.slot) return pair_curvature(b, a, at, adj);
  if (a.slot != Slot::kDirected) return 0;  // the moments are linear in S and m
  const int i = a.row, j = a.col, k = b.row, l = b.col;
  const Matrix& E = at.paths;
  const Matrix& P = adj.symmetric;
  const Matrix& Q = adj.directed;
  switch (b.slot) {
    case Slot::kDirected:
      return 2 * (E(j, k) * Q(i, l) + E(l, i) * Q(k, j) + at.total(j, l) * P(i, k)) +
             adj.intercept(i) * E(j, k) * at.mean(l) + adj.intercept(k) * E(l, i) * at.mean(j);
    case Slot::kSymmetric:
      return k == l ? 2 * E(j, k) * P(k, i) : 2 * (E(j, k) * P(l, i) + E(j, l) * P(k, i));
    default:
      return adj.intercept(i) * E(j, k);
  }
}

}  // namespace

Block::Block(int nobserved, int nvariables, std::vector<Entry> entries)
    : nobserved_(nobserved), nvariables_(nvariables), entries_(std::move(entries)) {
  free_.reserve(entries_.size());
  parameters_.reserve(entries_.size());
  if (nobserved < 0 || nobserved > nvariables) throw std::invalid_argument("a block observes its variables");
  for (const Entry& e : entries_) {
    const bool inside = e.row >= 0 && e.row < nvariables && e.col >= 0 && e.col < nvariables;
    if (!inside || e.parameter < -1) throw std::invalid_argument("block entry out of range");
    if (e.parameter >= 0) {
      free_.push_back(e);
      parameters_.push_back(e.parameter);
    }
  }
  std::sort(parameters_.begin(), parameters_.end());
  parameters_.erase(std::unique(parameters_.begin(), parameters_.end()), parameters_.end());
  local_.reserve(free_.size());
  for (const Entry& e : free_) {
    const auto found = std::lower_bound(parameters_.begin(), parameters_.end(), e.parameter);
    local_.push_back(static_cast<int>(found - parameters_.begin()));
  }
  sort_paths();
}

// Without feedback the rows of (I - A)^-1 follow one from another.
void Block::sort_paths() {
  std::vector<int> waiting(nvariables_, 0), ready;
  std::vector<std::vector<int>> into(nvariables_);
  for (std::size_t e = 0; e < entries_.size(); ++e) {
    if (entries_[e].slot != Slot::kDirected) continue;
    into[entries_[e].row].push_back(static_cast<int>(e));
    ++waiting[entries_[e].row];
  }
  for (int v = 0; v < nvariables_; ++v) {
    if (!waiting[v]) ready.push_back(v);
  }
  for (std::size_t k = 0; k < ready.size(); ++k) {
    for (int v = 0; v < nvariables_; ++v) {
      for (const int e : into[v]) {
        if (entries_[e].col == ready[k] && --waiting[v] == 0) ready.push_back(v);
      }
    }
  }
  recursive_ = static_cast<int>(ready.size()) == nvariables_;
  for (const int v : ready) order_.insert(order_.end(), into[v].begin(), into[v].end());
}

Matrix Block::inverse_paths(ConstVectorRef theta) const {
  Matrix out = Matrix::Identity(nvariables_, nvariables_);
  if (recursive_) {
    for (const int k : order_) {
      const Entry& e = entries_[k];
      out.col(e.row) += (e.parameter < 0 ? e.value : theta[e.parameter]) * out.col(e.col);
    }
    out.transposeInPlace();
    return out;
  }
  for (const Entry& e : entries_) {
    if (e.slot == Slot::kDirected) out(e.row, e.col) -= e.parameter < 0 ? e.value : theta[e.parameter];
  }
  return inverse(out);
}

bool Block::evaluate(ConstVectorRef theta, BlockPoint& point) const {
  const Index m = nvariables_;
  point.paths = inverse_paths(theta);
  set_mean(theta, point);
  Matrix half = Matrix::Zero(m, m);  // (I - A)^-1 S: few elements of S are not zero
  for (const Entry& e : entries_) {
    if (e.slot != Slot::kSymmetric) continue;
    const double x = e.parameter < 0 ? e.value : theta[e.parameter];
    half.col(e.col) += x * point.paths.col(e.row);
    if (e.row != e.col) half.col(e.row) += x * point.paths.col(e.col);
  }
  if (recursive_ && order_.empty()) {
    point.total = std::move(half);
  } else {
    point.total = outer(half, point.paths);
  }
  return point.total.allFinite() && point.mean.allFinite();
}

void Block::set_mean(ConstVectorRef theta, BlockPoint& point) const {
  point.mean.setZero(nvariables_);
  for (const Entry& e : entries_) {
    if (e.slot != Slot::kIntercept) continue;
    point.mean += (e.parameter < 0 ? e.value : theta[e.parameter]) * point.paths.col(e.row);
  }
}

Tangents Block::tangents(const BlockPoint& at) const {
  const Index n = nobserved_;
  Tangents out;
  out.mean.setZero(n, static_cast<Index>(parameters_.size()));
  Index terms = 0;
  for (const Entry& e : free_) terms += e.slot != Slot::kIntercept;
  out.left.resize(n, terms);
  out.right.resize(n, terms);
  out.parameter.reserve(terms);
  for (std::size_t f = 0; f < free_.size(); ++f) {
    const Entry& e = free_[f];
    const auto column = at.paths.col(e.row).head(n);
    if (e.slot == Slot::kIntercept) {
      out.mean.col(local_[f]) += column;
      continue;
    }
    const Index term = static_cast<Index>(out.parameter.size());
    out.parameter.push_back(local_[f]);
    out.left.col(term) = column;
    if (e.slot == Slot::kDirected) {
      out.right.col(term) = at.total.col(e.col).head(n);
      out.mean.col(local_[f]) += column * at.mean(e.col);
    } else {
      out.right.col(term) = at.paths.col(e.col).head(n) * (e.row == e.col ? 0.5 : 1.0);
    }
  }
  return out;
}

Vector Block::mean_change(const BlockPoint& at, const Vector& delta) const {
  Vector source = Vector::Zero(nvariables_);
  for (const Entry& e : free_) {
    if (e.slot == Slot::kIntercept) source(e.row) += delta[e.parameter];
    if (e.slot == Slot::kDirected) source(e.row) += delta[e.parameter] * at.mean(e.col);
  }
  return apply(at.paths, source);
}

Matrix Block::intercept_columns(const BlockPoint& at, const std::vector<int>& intercepts) const {
  Matrix out = Matrix::Zero(nobserved_, static_cast<Index>(intercepts.size()));
  for (const Entry& e : free_) {
    if (e.slot != Slot::kIntercept) continue;
    const auto found = std::lower_bound(intercepts.begin(), intercepts.end(), e.parameter);
    if (found == intercepts.end() || *found != e.parameter) continue;
    out.col(found - intercepts.begin()) += at.paths.col(e.row).head(nobserved_);
  }
  return out;
}

void Block::pull_back(const BlockPoint& at, const Vector& mean_gradient, const Matrix& cov_gradient,
                      Vector& out) const {
  const Index n = nobserved_;
  const auto paths = at.paths.topRows(n);
  const Matrix half =
      product(cov_gradient, paths);  // G E; of E' G E and E' G Sigma the elements at entries only
  for (const Entry& e : free_) {
    double d = 0;
    if (e.slot == Slot::kDirected) {
      d = 2 * half.col(e.row).dot(at.total.col(e.col).head(n)) +
          paths.col(e.row).dot(mean_gradient) * at.mean(e.col);
    } else if (e.slot == Slot::kSymmetric) {
      d = half.col(e.row).dot(paths.col(e.col)) * (e.row == e.col ? 1 : 2);
    } else {
      d = paths.col(e.row).dot(mean_gradient);
    }
    out[e.parameter] += d;
  }
}

Matrix Block::curvature(const BlockPoint& at, const Vector& mean_gradient, const Matrix& cov_gradient) const {
  const Adjoint adj(at, mean_gradient, cov_gradient);
  const Index k = static_cast<Index>(parameters_.size());
  Matrix out = Matrix::Zero(k, k);
  for (std::size_t a = 0; a < free_.size(); ++a) {
    for (std::size_t b = 0; b <= a; ++b) {
      const double d = pair_curvature(free_[a], free_[b], at, adj);
      out(local_[a], local_[b]) += d;
      if (a != b) out(local_[b], local_[a]) += d;
    }
  }
  return out;
}

}  // namespace msem
