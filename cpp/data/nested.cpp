#include "data/nested.hpp"

#include <algorithm>
#include <stdexcept>

namespace msem {

namespace {

Index count_of(const std::vector<Index>& parent) {
  Index out = 0;
  for (const Index k : parent) out = std::max(out, k + 1);
  return out;
}

void require(bool fits) {
  if (!fits) throw std::invalid_argument("statistics of nested clusters have inconsistent shapes");
}

void require_levels(const std::vector<std::vector<Index>>& levels, const std::vector<Index>& measured) {
  const Index n = static_cast<Index>(measured.size()), depth = static_cast<Index>(levels.size());
  require(depth > 1 && std::is_sorted(measured.begin(), measured.end()));
  std::vector<bool> seen(n, false);
  for (Index l = 0; l < depth; ++l) {
    for (const Index v : levels[l]) {
      require(v >= 0 && v < n && measured[v] >= 0 && measured[v] <= l);
      if (measured[v] == l) seen[v] = true;
    }
  }
  require(std::find(seen.begin(), seen.end(), false) == seen.end());
}

}  // namespace

double NestedData::units(Index level) const {
  Vector count = weight;  // of the clusters of a level, from above
  for (Index l = nlevels() - 1; l > std::max<Index>(level, 1); --l) count = select(count, parent[l - 2]);
  return level ? count.sum() : sizes.dot(count);
}

std::vector<Index> NestedData::on(Index level) const {
  std::vector<Index> out;
  for (Index v = 0; v < nvariables(); ++v) {
    if (measured[v] == level) out.push_back(v);
  }
  return out;
}

NestedData nested_data(std::vector<std::vector<Index>> levels, std::vector<Index> measured,
                       const Vector& sizes, const Matrix& means, const Matrix& products,
                       std::vector<std::vector<Index>> parent) {
  require_levels(levels, measured);
  const Index J = sizes.size(), n = static_cast<Index>(measured.size());
  const Index p = static_cast<Index>(std::count(measured.begin(), measured.end(), Index{0}));
  require(J > 0 && means.rows() == J && means.cols() == n && products.rows() == J &&
          products.cols() == p * (p + 1) / 2 && parent.size() + 2 == levels.size());
  Index below = J;
  for (const std::vector<Index>& of : parent) {
    require(static_cast<Index>(of.size()) == below && *std::min_element(of.begin(), of.end()) >= 0);
    below = count_of(of);
  }
  NestedData out;
  out.levels = std::move(levels);
  out.measured = std::move(measured);
  out.sizes = sizes;
  out.parent = std::move(parent);
  out.origin = apply_transposed(means, sizes) / sizes.sum();
  std::vector<Index> top(J), first(J);  // the cluster of the level in turn, and one of the lowest that it has
  for (Index j = 0; j < J; ++j) top[j] = first[j] = j;
  Matrix centred = means.transpose();
  centred.colwise() -= out.origin;
  for (Index l = 0; l < out.nlevels(); ++l) {
    if (l > 1) {
      const std::vector<Index>& of = out.parent[l - 2];
      std::vector<Index> next(count_of(of), -1);
      for (Index j = 0; j < J; ++j) {
        top[j] = of[top[j]];
        if (next[top[j]] < 0) next[top[j]] = j;
      }
      first = std::move(next);
    }
    const std::vector<Index> own = out.on(l);
    require(std::find(first.begin(), first.end(), Index{-1}) == first.end());
    out.values.push_back(select(centred, own, first));
  }
  out.products = Matrix::Zero(static_cast<Index>(first.size()), products.cols());
  for (Index k = 0; k < products.cols(); ++k) {
    for (Index j = 0; j < J; ++j) out.products(top[j], k) += products(j, k);
  }
  out.weight = Vector::Ones(out.products.rows());
  return out;
}

NestedData weighted_nested(const NestedData& data, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every highest cluster has one weight");
  NestedData out;
  out.levels = data.levels;
  out.measured = data.measured;
  out.origin = data.origin;
  // from the highest level down: clusters that are kept, and their new numbers
  std::vector<Index> kept;
  std::vector<Index> number(data.nclusters(), -1);
  for (Index k = 0; k < data.nclusters(); ++k) {
    if (weights[k] == 0) continue;
    number[k] = static_cast<Index>(kept.size());
    kept.push_back(k);
  }
  out.products = select_rows(data.products, kept);
  out.weight = select(Vector(weights.cwiseProduct(data.weight)), kept);
  out.values.resize(data.values.size());
  out.parent.resize(data.parent.size());
  for (Index l = data.nlevels() - 1; l >= 0; --l) {
    out.values[l] = select_cols(data.values[l], kept);
    if (l == 1) out.sizes = select(data.sizes, kept);
    if (l < 2) continue;
    const std::vector<Index>& of = data.parent[l - 2];
    std::vector<Index> next, fresh(of.size(), -1);
    for (std::size_t j = 0; j < of.size(); ++j) {
      if (number[of[j]] < 0) continue;
      fresh[j] = static_cast<Index>(next.size());
      next.push_back(static_cast<Index>(j));
      out.parent[l - 2].push_back(number[of[j]]);
    }
    kept = std::move(next);
    number = std::move(fresh);
  }
  return out;
}

NestedData restrict_nested(const NestedData& data, const std::vector<Index>& variables,
                           std::vector<std::vector<Index>> levels) {
  NestedData out = data;
  out.measured.clear();
  for (const Index v : variables) {
    require(v >= 0 && v < data.nvariables());
    out.measured.push_back(data.measured[v]);
  }
  require_levels(levels, out.measured);
  out.levels = std::move(levels);
  out.origin = select(data.origin, variables);
  for (Index l = 0; l < data.nlevels(); ++l) {
    const std::vector<Index> on = data.on(l);
    std::vector<Index> rows;
    for (const Index v : variables) {
      if (data.measured[v] == l) rows.push_back(std::lower_bound(on.begin(), on.end(), v) - on.begin());
    }
    out.values[l] = select_rows(data.values[l], rows);
    if (l) continue;
    const Index p = static_cast<Index>(on.size()), m = static_cast<Index>(rows.size());
    std::vector<Index> elements;
    for (Index j = 0; j < m; ++j) {
      for (Index i = j; i < m; ++i) {
        const Index a = std::max(rows[i], rows[j]), b = std::min(rows[i], rows[j]);
        elements.push_back(b * p - b * (b - 1) / 2 + a - b);
      }
    }
    out.products = select_cols(data.products, elements);
  }
  return out;
}

}  // namespace msem
