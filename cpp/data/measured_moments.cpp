#include "data/measured_moments.hpp"

#include <algorithm>
#include <vector>

namespace msem {

namespace {

// Sums over pairs to moments: sums of products about the means, which are given.
void divide_pairs(MeasuredMoments& out, const Matrix& products) {
  out.cov = products.cwiseQuotient(out.pairs.cwiseMax(1));
}

// A row of R stands for several units; its share of their number and sum is its element of Q'1, the first of
// its design.
double share(const NestedData& data, Index level, Index c) {
  const Matrix& design = data.design[level];
  return level == 0 && design.size() ? design(0, c) : 1;
}

}  // namespace

Matrix products_within_cells(const NestedData& data) {
  const Vector parts = select(data.weight, data.product_top);
  const Matrix pooled = apply_transposed(data.products, parts).transpose();
  return unpack_lower(pooled, 0, data.values[0].rows());
}

MeasuredMoments measured_moments(const NestedData& data, Index level) {
  const Matrix& values = data.values[level];
  const std::vector<Pattern>& patterns = data.patterns[level];
  const Vector weights = data.weights(level);
  const Index p = values.rows(), n = values.cols();
  MeasuredMoments out;
  out.mean = Vector::Zero(p);
  out.pairs = Matrix::Zero(p, p);
  Vector units = Vector::Zero(static_cast<Index>(patterns.size()));
  for (Index c = 0; c < n; ++c) {
    const double own = share(data, level, c);
    const Index k = data.pattern[level][c];
    units[k] += weights[c] * own * own;
    for (const Index v : patterns[k]) out.mean[v] += weights[c] * own * values(v, c);
  }
  for (std::size_t k = 0; k < patterns.size(); ++k) {
    for (const Index v : patterns[k]) {
      for (const Index w : patterns[k]) out.pairs(w, v) += units[static_cast<Index>(k)];
    }
  }
  for (Index v = 0; v < p; ++v) out.mean[v] /= std::max(out.pairs(v, v), 1.0);

  Matrix off = Matrix::Zero(p, n);
  for (Index c = 0; c < n; ++c) {
    const double own = share(data, level, c);
    for (const Index v : patterns[data.pattern[level][c]]) off(v, c) = values(v, c) - own * out.mean[v];
  }
  Matrix products = outer(scale_cols(off, weights), off);
  if (level == 0) products += products_within_cells(data);
  divide_pairs(out, products);
  const std::vector<Index> own = data.on(level);
  for (Index v = 0; v < p; ++v) out.mean[v] += data.origin[own[v]];
  return out;
}

Matrix products_within_clusters(const NestedData& data) {
  const Matrix& values = data.values[0];
  const Vector weights = data.weights(0);
  const Index p = values.rows(), n = values.cols();
  Matrix sums = Matrix::Zero(p, data.sizes.size()), counts = sums, off = Matrix::Zero(p, n);
  for (Index c = 0; c < n; ++c) {
    const Index j = data.parent[0][c];
    for (const Index v : data.patterns[0][data.pattern[0][c]]) {
      sums(v, j) += weights[c] * values(v, c);
      counts(v, j) += weights[c];
    }
  }
  for (Index c = 0; c < n; ++c) {
    const Index j = data.parent[0][c];
    for (const Index v : data.patterns[0][data.pattern[0][c]]) {
      if (counts(v, j) > 0) off(v, c) = values(v, c) - sums(v, j) / counts(v, j);
    }
  }
  Matrix out = outer(scale_cols(off, weights), off);
  out += products_within_cells(data);
  return out;
}

Matrix clusters_with_pairs(const NestedData& data, Index level) {
  const auto mark = [&](Matrix& seen, Index l, Index first) {
    for (Index c = 0; c < seen.cols(); ++c) {
      for (const Index v : data.patterns[l][data.pattern[l][c]]) seen(first + v, c) = 1;
    }
  };
  Index known = data.values[0].rows();
  Matrix below = Matrix::Zero(known, data.values[0].cols());
  mark(below, 0, 0);
  for (Index l = 1; l <= level; ++l) {
    const Index own = data.values[l].rows();
    Matrix here = Matrix::Zero(known + own, data.values[l].cols());
    for (Index c = 0; c < below.cols(); ++c) {
      const Index j = data.parent[l - 1][c];
      for (Index v = 0; v < known; ++v) here(v, j) = std::max(here(v, j), below(v, c));
    }
    mark(here, l, known);
    known += own;
    below = std::move(here);
  }
  return outer(below, below);
}

MeasuredMoments measured_moments(const CrossedData& data, Index level) {
  MeasuredMoments out;
  const std::vector<Index> own = data.on(level);
  if (level) {
    const Matrix& values = data.classifications[level - 1].values;
    const double n = static_cast<double>(values.cols());
    out.mean = values.rowwise().sum() / n;
    out.pairs = Matrix::Constant(values.rows(), values.rows(), n);
    Matrix off = values;
    off.colwise() -= out.mean;
    divide_pairs(out, outer(off, off));
  } else {
    const Index p = data.nunit(), count = static_cast<Index>(data.patterns.size());
    Matrix sums = Matrix::Zero(p, count);  // of the units of each pattern
    for (Index c = 0; c < data.count.size(); ++c) sums.col(data.pattern[c]) += data.sums.col(c).head(p);
    out.pairs = data.observed();
    out.mean = sums.rowwise().sum().cwiseQuotient(out.pairs.diagonal().cwiseMax(1));
    Matrix products = data.products();
    for (Index k = 0; k < count; ++k) {
      for (const Index v : data.patterns[k].observed) {
        for (const Index w : data.patterns[k].observed)
          products(w, v) += data.patterns[k].units * out.mean[w] * out.mean[v] - out.mean[w] * sums(v, k) -
                            out.mean[v] * sums(w, k);
      }
    }
    divide_pairs(out, products);
  }
  for (Index v = 0; v < out.mean.size(); ++v) out.mean[v] += data.origin[own[v]];
  return out;
}

}  // namespace msem
