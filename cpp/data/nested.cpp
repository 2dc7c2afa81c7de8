#include "data/nested.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <stdexcept>

namespace msem {

namespace {

Index count_of(const std::vector<Index>& parent) {
  Index out = 0;
  for (const Index k : parent) out = std::max(out, k + 1);
  return out;
}

void require_nested(bool fits) {
  if (!fits) throw std::invalid_argument("statistics of nested clusters have inconsistent shapes");
}

void require_levels(const std::vector<std::vector<Index>>& levels, const std::vector<Index>& measured) {
  const Index n = static_cast<Index>(measured.size()), depth = static_cast<Index>(levels.size());
  require_nested(depth > 1 && std::is_sorted(measured.begin(), measured.end()));
  std::vector<bool> seen(n, false);
  for (Index l = 0; l < depth; ++l) {
    for (const Index v : levels[l]) {
      require_nested(v >= 0 && v < n && measured[v] >= 0 && measured[v] <= l);
      if (measured[v] == l) seen[v] = true;
    }
  }
  require_nested(std::find(seen.begin(), seen.end(), false) == seen.end());
}

// Cells of the lowest clusters, or rows of them, whatever they were made of.
struct Cells {
  Vector origin, sizes;
  Matrix values, design;
  std::vector<Pattern> patterns;
  std::vector<Index> pattern, cluster;
  Vector multiple;
  Matrix products;  // of parts of lowest clusters
  std::vector<Index> part_pattern, part_cluster;
  Vector beyond;
};

Pattern everything(Index n) {
  Pattern out(n);
  std::iota(out.begin(), out.end(), Index{0});
  return out;
}

// Values of the clusters of a level: about their mean, with holes as patterns.
void add_level(NestedData& out, Index level, const RowMatrix& values) {
  const Index q = values.cols(), J = values.rows();
  const std::vector<Index> own = out.on(level);
  require_nested(static_cast<Index>(own.size()) == q);
  Matrix found = Matrix::Zero(q, J);
  PatternNumbers numbers(q);
  std::vector<Index> number(J);
  for (Index i = 0; i < q; ++i) {
    double sum = 0, count = 0;
    for (Index j = 0; j < J; ++j) {
      if (std::isnan(values(j, i))) continue;
      sum += values(j, i);
      count += 1;
    }
    out.origin[own[i]] = count > 0 ? sum / count : 0;
  }
  PatternKey key(PatternNumbers::words(q));
  for (Index j = 0; j < J; ++j) {
    std::fill(key.begin(), key.end(), 0);
    for (Index i = 0; i < q; ++i) {
      if (std::isnan(values(j, i))) continue;
      PatternNumbers::mark(key.data(), i);
      found(i, j) = values(j, i) - out.origin[own[i]];
    }
    number[j] = numbers.number(key.data());
  }
  SortedPatterns order = sorted(numbers.patterns());
  for (Index& k : number) k = order.rank[k];
  out.values.push_back(std::move(found));
  out.patterns.push_back(std::move(order.patterns));
  out.pattern.push_back(std::move(number));
}

NestedData assembled(NestedFrame frame, Cells cells) {
  require_levels(frame.levels, frame.measured);
  const Index depth = static_cast<Index>(frame.levels.size()), n = static_cast<Index>(frame.measured.size());
  const Index p = static_cast<Index>(std::count(frame.measured.begin(), frame.measured.end(), Index{0}));
  const Index J = cells.sizes.size();
  require_nested(J > 0 && static_cast<Index>(frame.values.size()) == depth - 1 &&
                 (frame.times.empty() || static_cast<Index>(frame.times.size()) == depth - 2) &&
                 static_cast<Index>(frame.parent.size()) == depth - 2 && cells.values.rows() == p &&
                 cells.products.cols() == p * (p + 1) / 2);
  NestedData out;
  out.levels = std::move(frame.levels);
  out.measured = std::move(frame.measured);
  out.given.assign(n, false);
  out.origin = Vector::Zero(n);
  out.origin.head(p) = cells.origin;
  out.sizes = std::move(cells.sizes);
  out.values.push_back(std::move(cells.values));
  out.patterns.push_back(std::move(cells.patterns));
  out.pattern.push_back(std::move(cells.pattern));
  out.parent.push_back(std::move(cells.cluster));
  out.multiple.push_back(std::move(cells.multiple));
  out.design.resize(depth);
  out.design[0] = std::move(cells.design);
  std::vector<Index> top(J);  // the highest cluster of each lowest one
  std::iota(top.begin(), top.end(), Index{0});
  Index below = J;
  Vector count = Vector::Ones(J);  // how often each lowest cluster counts in it
  const auto times = [&](Index level, Index clusters) {
    if (frame.times.empty() || frame.times[level - 1].size() == 0) return Vector(Vector::Ones(clusters));
    const Vector& own = frame.times[level - 1];
    require_nested(own.size() == clusters && own.allFinite() && own.minCoeff() > 0);
    return own;
  };
  for (Index l = 1; l < depth; ++l) {
    const RowMatrix& values = frame.values[l - 1];
    require_nested(values.rows() == below);
    add_level(out, l, values);
    if (l + 1 == depth) break;
    out.multiple.push_back(times(l, below));
    count = count.cwiseProduct(select(out.multiple.back(), top));
    std::vector<Index>& of = frame.parent[l - 1];
    require_nested(static_cast<Index>(of.size()) == below && *std::min_element(of.begin(), of.end()) >= 0);
    for (Index& k : top) k = of[k];
    below = count_of(of);
    out.parent.push_back(std::move(of));
  }
  out.weight = Vector::Ones(below);
  // products of one pattern in each highest cluster
  std::map<std::pair<Index, Index>, Index> known;
  std::vector<Index> to(cells.part_cluster.size());
  for (std::size_t i = 0; i < to.size(); ++i)
    known.emplace(std::pair{top[cells.part_cluster[i]], cells.part_pattern[i]}, 0);
  for (auto& [key, at] : known) {
    at = static_cast<Index>(out.product_top.size());
    out.product_top.push_back(key.first);
    out.product_pattern.push_back(key.second);
  }
  for (std::size_t i = 0; i < to.size(); ++i)
    to[i] = known.at({top[cells.part_cluster[i]], cells.part_pattern[i]});
  out.products = Matrix::Zero(static_cast<Index>(known.size()), cells.products.cols());
  out.beyond = Vector::Zero(out.products.rows());
  for (Index k = 0; k < cells.products.cols(); ++k) {
    for (std::size_t i = 0; i < to.size(); ++i)
      out.products(to[i], k) += count[cells.part_cluster[i]] * cells.products(static_cast<Index>(i), k);
  }
  for (std::size_t i = 0; i < to.size(); ++i)
    out.beyond[to[i]] += count[cells.part_cluster[i]] * cells.beyond[static_cast<Index>(i)];
  return out;
}

}  // namespace

bool NestedData::complete() const {
  for (Index l = 0; l < nlevels(); ++l) {
    if (patterns[l].size() != 1 || patterns[l][0].size() != on(l).size()) return false;
  }
  return true;
}

Vector NestedData::weights(Index level) const {
  Vector count = weight;  // of the clusters of a level, from above
  for (Index l = nlevels() - 1; l > level; --l)
    count = select(count, parent[l - 1]).cwiseProduct(multiple[l - 1]);
  return count;
}

double NestedData::units(Index level) const { return level ? weights(level).sum() : sizes.dot(weights(1)); }

std::vector<double> NestedData::units_by_level() const {
  std::vector<double> out;
  for (Index l = 0; l < nlevels(); ++l) out.push_back(units(l));
  return out;
}

std::vector<Index> NestedData::on(Index level) const {
  std::vector<Index> out;
  for (Index v = 0; v < nvariables(); ++v) {
    if (measured[v] == level) out.push_back(v);
  }
  return out;
}

NestedData nested_data(NestedFrame frame, const Vector& sizes, const Matrix& means, const Matrix& products) {
  const Index J = sizes.size(), p = means.cols();
  require_nested(means.rows() == J && products.rows() == J);
  Cells cells;
  cells.sizes = cells.multiple = sizes;
  cells.origin = apply_transposed(means, sizes) / sizes.sum();
  cells.values = means.transpose();
  cells.values.colwise() -= cells.origin;
  cells.patterns = {everything(p)};
  cells.pattern.assign(J, 0);
  cells.cluster = everything(J);
  cells.products = products;
  cells.part_pattern = cells.pattern;
  cells.part_cluster = cells.cluster;
  cells.beyond = Vector::Zero(J);
  return assembled(std::move(frame), std::move(cells));
}

NestedData nested_data(NestedFrame frame, const IncompleteData& data, const Matrix& products) {
  Cells cells;
  const Index J = data.nclusters();
  require_nested(products.cols() == data.ncells());
  cells.origin = data.origin.head(data.p);
  cells.values = data.cell_means;
  cells.patterns = data.unit_patterns;
  cells.pattern = data.cell_pattern;
  cells.multiple = data.cell_rows;
  cells.sizes = Vector::Zero(J);
  for (Index j = 0; j < J; ++j) {
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      cells.cluster.push_back(j);
      cells.sizes[j] += data.cell_rows[c];
    }
  }
  cells.products = products.transpose();
  cells.part_pattern = cells.pattern;
  cells.part_cluster = cells.cluster;
  cells.beyond = Vector::Zero(data.ncells());
  return assembled(std::move(frame), std::move(cells));
}

NestedData nested_data(NestedFrame frame, const ReducedData& data, const Matrix& products,
                       const std::vector<Index>& place) {
  Cells cells;
  const Index J = data.nclusters(), p = data.nvalues();
  require_nested(products.rows() == data.ncells() && static_cast<Index>(place.size()) == p);
  std::vector<Index> order(p);  // of each variable, its place among the values
  for (Index i = 0; i < p; ++i) order[place[i]] = i;
  cells.origin = select(Vector(data.origin.head(p)), order);
  cells.values = select_rows(data.values, order);
  cells.design = data.design;
  for (Pattern own : data.patterns) {
    for (Index f = data.outcomes; f < p; ++f) own.push_back(f);
    for (Index& i : own) i = place[i];
    std::sort(own.begin(), own.end());
    cells.patterns.push_back(std::move(own));
  }
  cells.multiple = Vector::Ones(data.nrows());
  cells.sizes = data.sizes;
  for (Index j = 0; j < J; ++j) {
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      if (cells.patterns[data.cell_pattern[c]].empty()) cells.sizes[j] -= data.cell_sizes[c];
    }
  }
  std::vector<Index> elements;
  for (Index j = 0; j < p; ++j) {
    for (Index i = j; i < p; ++i) {
      const Index a = std::max(order[i], order[j]), b = std::min(order[i], order[j]);
      elements.push_back(b * p - b * (b - 1) / 2 + a - b);
    }
  }
  cells.products = select_cols(products, elements);
  cells.beyond.resize(data.ncells());
  for (Index j = 0; j < J; ++j) {
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      cells.part_cluster.push_back(j);
      cells.part_pattern.push_back(data.cell_pattern[c]);
      cells.beyond[c] = data.cell_sizes[c] - static_cast<double>(data.cell_first[c + 1] - data.cell_first[c]);
      for (Index a = data.cell_first[c]; a < data.cell_first[c + 1]; ++a) {
        cells.cluster.push_back(j);
        cells.pattern.push_back(data.cell_pattern[c]);
      }
    }
  }
  return assembled(std::move(frame), std::move(cells));
}

NestedData with_slopes(const NestedData& data, std::vector<RandomSlope> slopes,
                       const std::vector<Matrix>& designs, const std::vector<Index>& given) {
  NestedData out = data;
  require_nested(static_cast<Index>(designs.size()) + 1 == data.nlevels());
  for (Index l = 1; l < data.nlevels(); ++l) {
    const Matrix& own = designs[l - 1];
    out.design[l] = Matrix();
    if (own.rows() == 0) continue;
    require_nested(own.cols() == data.values[l].cols());
    out.design[l] = Matrix::Ones(own.rows() + 1, own.cols());
    out.design[l].bottomRows(own.rows()) = own;
  }
  for (const RandomSlope& slope : slopes) {
    require_nested(slope.level >= 0 && slope.level + 1 < data.nlevels() && slope.covariate > 0 &&
                   slope.covariate < out.design[slope.level].rows());
    for (const Index l : slope.at) require_nested(l > slope.level && l < data.nlevels());
  }
  out.slopes = std::move(slopes);
  out.given.assign(data.nvariables(), false);
  for (const Index v : given) out.given.at(v) = true;
  return out;
}

NestedData with_unobserved(const NestedData& data, Index count) {
  NestedData out = data;
  const Index p = static_cast<Index>(data.on(0).size()), n = p + count;
  for (auto& own : out.levels) {
    for (Index& v : own) v += v < p ? 0 : count;
  }
  for (Index k = 0; k < count; ++k) out.levels[0].push_back(p + k);
  out.measured.insert(out.measured.begin() + p, count, 0);
  if (!out.given.empty()) out.given.insert(out.given.begin() + p, count, false);
  out.origin = Vector::Zero(data.nvariables() + count);
  out.origin.head(p) = data.origin.head(p);
  out.origin.tail(data.nvariables() - p) = data.origin.tail(data.nvariables() - p);
  out.values[0] = Matrix::Zero(n, data.values[0].cols());
  out.values[0].topRows(p) = data.values[0];
  out.products = Matrix::Zero(data.products.rows(), n * (n + 1) / 2);
  Index from = 0, to = 0;
  for (Index j = 0; j < p; ++j, to += count) {
    for (Index i = j; i < p; ++i) out.products.col(to++) = data.products.col(from++);
  }
  return out;
}

NestedData weighted_nested(const NestedData& data, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every highest cluster has one weight");
  NestedData out;
  out.levels = data.levels;
  out.measured = data.measured;
  out.slopes = data.slopes;
  out.given = data.given;
  out.origin = data.origin;
  out.patterns = data.patterns;
  // from the highest level down: clusters that are kept, and their new numbers
  std::vector<Index> kept;
  std::vector<Index> number(data.nclusters(), -1);
  for (Index k = 0; k < data.nclusters(); ++k) {
    if (weights[k] == 0) continue;
    number[k] = static_cast<Index>(kept.size());
    kept.push_back(k);
  }
  out.weight = select(Vector(weights.cwiseProduct(data.weight)), kept);
  std::vector<Index> parts;
  for (std::size_t i = 0; i < data.product_top.size(); ++i) {
    if (number[data.product_top[i]] < 0) continue;
    parts.push_back(static_cast<Index>(i));
    out.product_top.push_back(number[data.product_top[i]]);
    out.product_pattern.push_back(data.product_pattern[i]);
  }
  out.products = select_rows(data.products, parts);
  out.beyond = select(data.beyond, parts);
  out.values.resize(data.values.size());
  out.pattern.resize(data.values.size());
  out.design.resize(data.values.size());
  out.parent.resize(data.parent.size());
  out.multiple.resize(data.multiple.size());
  for (Index l = data.nlevels() - 1; l >= 0; --l) {
    out.values[l] = select_cols(data.values[l], kept);
    if (data.design[l].size()) out.design[l] = select_cols(data.design[l], kept);
    for (const Index k : kept) out.pattern[l].push_back(data.pattern[l][k]);
    if (l + 1 < data.nlevels()) out.multiple[l] = select(data.multiple[l], kept);
    if (l == 1) out.sizes = select(data.sizes, kept);
    if (l == 0) {
      break;
    }
    const std::vector<Index>& of = data.parent[l - 1];
    std::vector<Index> next, fresh(of.size(), -1);
    for (std::size_t j = 0; j < of.size(); ++j) {
      if (number[of[j]] < 0) continue;
      fresh[j] = static_cast<Index>(next.size());
      next.push_back(static_cast<Index>(j));
      out.parent[l - 1].push_back(number[of[j]]);
    }
    kept = std::move(next);
    number = std::move(fresh);
  }
  return out;
}

namespace {

// Patterns of some of the variables: `rows` are their positions among those there were.
void restrict_patterns(std::vector<Pattern>& patterns, std::vector<Index>& of,
                       const std::vector<Index>& rows) {
  std::map<Pattern, Index> known;
  std::vector<Index> to;
  std::vector<Pattern> found;
  for (const Pattern& own : patterns) {
    Pattern kept;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (std::binary_search(own.begin(), own.end(), rows[i])) kept.push_back(static_cast<Index>(i));
    }
    const auto [at, fresh] = known.emplace(kept, static_cast<Index>(found.size()));
    if (fresh) found.push_back(kept);
    to.push_back(at->second);
  }
  for (Index& k : of) k = to[k];
  patterns = std::move(found);
}

}  // namespace

NestedData restrict_nested(const NestedData& data, const std::vector<Index>& variables,
                           std::vector<std::vector<Index>> levels) {
  NestedData out = data;
  out.measured.clear();
  out.given.clear();
  out.slopes.clear();
  for (const Index v : variables) {
    require_nested(v >= 0 && v < data.nvariables());
    out.measured.push_back(data.measured[v]);
    out.given.push_back(data.given[v]);
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
    const std::vector<Pattern> before = out.patterns[l];
    restrict_patterns(out.patterns[l], out.pattern[l], rows);
    if (l) continue;
    std::vector<Pattern> own = before;
    restrict_patterns(own, out.product_pattern, rows);
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
