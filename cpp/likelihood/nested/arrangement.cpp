#include <algorithm>
#include <map>
#include <numeric>

#include "likelihood/nested/point.hpp"

namespace msem {

namespace {

// The kinds of clusters of a level, and that of each.
std::vector<NestedKind> kinds_of(const NestedData& data, const NestedCoordinates& own,
                                 const std::vector<Vector>& observed, Index level, std::vector<Index>& of) {
  const Index q = static_cast<Index>(own.z.size()), above = static_cast<Index>(own.above.size());
  const Matrix& design = data.design[level];
  std::map<std::pair<Index, std::vector<double>>, Index> known;
  std::vector<NestedKind> out;
  std::vector<double> x(std::max<Index>(design.rows(), 1), 1.0);
  for (std::size_t j = 0; j < data.pattern[level].size(); ++j) {
    const Index pattern = data.pattern[level][j];
    for (Index c = 0; c < design.rows(); ++c) x[c] = design(c, static_cast<Index>(j));
    const auto [at, fresh] = known.emplace(std::pair{pattern, x}, static_cast<Index>(out.size()));
    of.push_back(at->second);
    if (!fresh) continue;
    NestedKind one{pattern, Matrix::Zero(own.open, above), Matrix::Zero(q, above), x[0] * observed[pattern]};
    for (Index a = 0; a < above; ++a) {
      const auto [from, c] = own.above[a];
      if (from < own.open)
        one.h(from, a) = x[c];
      else
        one.j(from - own.open, a) = x[c] * observed[pattern][from - own.open];
    }
    out.push_back(std::move(one));
  }
  return out;
}

// Clusters in the order of their classes, and where each class begins.
std::vector<Index> by_class(const std::vector<Index>& of, Index classes, std::vector<Index>& first) {
  first.assign(classes + 1, 0);
  for (const Index c : of) ++first[c + 1];
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<Index> order(of.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return of[a] < of[b]; });
  return order;
}

}  // namespace

NestedArrangement::NestedArrangement(const NestedData& given) : coordinates(nested_coordinates(given)) {
  const Index depth = given.nlevels();
  std::vector<std::vector<Index>> class_of(depth), kind_of(depth);
  classes.levels.resize(depth);
  classes.kind.resize(depth);
  classes.weight.resize(depth);
  for (Index l = 0; l < depth; ++l) {
    observed.emplace_back();
    for (const Pattern& own : given.patterns[l]) {
      observed[l].push_back(Vector::Zero(static_cast<Index>(coordinates[l].z.size())));
      for (const Index i : own) observed[l].back()[i] = 1;
    }
    kinds.push_back(kinds_of(given, coordinates[l], observed[l], l, kind_of[l]));
  }
  // classes from below
  const std::vector<std::vector<Index>>& parent = given.parent;
  class_of[0] = kind_of[0];
  classes.levels[0].resize(kinds[0].size());
  classes.kind[0].resize(kinds[0].size());
  std::iota(classes.kind[0].begin(), classes.kind[0].end(), Index{0});
  for (Index l = 1; l < depth; ++l) {
    const Index count = given.values[l].cols();
    std::vector<NestedClasses::Members> members(count);
    for (std::size_t j = 0; j < parent[l - 1].size(); ++j)
      members[parent[l - 1][j]].emplace_back(class_of[l - 1][j],
                                             given.multiple[l - 1][static_cast<Index>(j)]);
    std::map<std::pair<Index, NestedClasses::Members>, Index> seen;
    class_of[l].resize(count);
    for (Index k = 0; k < count; ++k) {
      NestedClasses::Members& own = members[k];
      std::sort(own.begin(), own.end());
      NestedClasses::Members merged;
      for (const auto& [c, times] : own) {
        if (merged.empty() || merged.back().first != c) merged.emplace_back(c, 0.0);
        merged.back().second += times;
      }
      const auto [at, fresh] = seen.emplace(std::pair{kind_of[l][k], std::move(merged)}, classes.count(l));
      if (fresh) {
        classes.levels[l].push_back(at->first.second);
        classes.kind[l].push_back(at->first.first);
      }
      class_of[l][k] = at->second;
    }
  }
  // the clusters from above, sorted by class
  data.levels.resize(depth);
  place.resize(depth);
  of_pattern.resize(depth);
  std::vector<Index> position;  // of the clusters of the level above
  for (Index l = depth - 1; l >= 0; --l) {
    NestedTree::Level& level = data.levels[l];
    const std::vector<Index> order = by_class(class_of[l], classes.count(l), level.first);
    const Index count = static_cast<Index>(order.size());
    level.values = select_cols(given.values[l], order);
    level.weight.resize(count);
    level.multiple.setOnes(count);
    level.top.resize(count);
    std::vector<Index> here(count);
    for (Index at = 0; at < count; ++at) {
      const Index k = order[at];
      here[k] = at;
      if (l + 1 == depth) {
        level.weight[at] = given.weight[k];
        level.top[at] = k;
        continue;
      }
      const Index above = position[parent[l][k]];
      level.multiple[at] = given.multiple[l][k];
      level.parent.push_back(above);
      level.weight[at] = level.multiple[at] * data.levels[l + 1].weight[above];
      level.top[at] = data.levels[l + 1].top[above];
    }
    classes.weight[l].setZero(classes.count(l));
    for (Index c = 0; c < classes.count(l); ++c)
      classes.weight[l][c] = level.weight.segment(level.first[c], level.first[c + 1] - level.first[c]).sum();
    of_pattern[l].setZero(static_cast<Index>(given.patterns[l].size()));
    for (Index c = 0; c < classes.count(l); ++c)
      of_pattern[l][kinds[l][classes.kind[l][c]].pattern] += classes.weight[l][c];
    if (l + 1 == depth) top_class = class_of[l];
    place[l] = here;
    position = std::move(here);
  }
  // one highest cluster of each class, with everything below it
  shape.levels.resize(depth);
  std::vector<Index> above(classes.count(depth - 1));  // classes of the level above
  for (Index l = depth - 1; l >= 0; --l) {
    NestedTree::Level& level = shape.levels[l];
    std::vector<Index> own, from;
    std::vector<double> times;
    if (l + 1 == depth) {
      own.resize(classes.count(l));
      std::iota(own.begin(), own.end(), Index{0});
    } else {
      for (std::size_t a = 0; a < above.size(); ++a) {
        for (const auto& [c, multiple] : classes.levels[l + 1][above[a]]) {
          own.push_back(c);
          from.push_back(static_cast<Index>(a));
          times.push_back(multiple);
        }
      }
    }
    const std::vector<Index> order = by_class(own, classes.count(l), level.first);
    const Index count = static_cast<Index>(order.size());
    level.values = Matrix::Zero(static_cast<Index>(coordinates[l].z.size()), count);
    level.multiple.setOnes(count);
    level.weight.resize(count);
    std::vector<Index> sorted;
    for (Index at = 0; at < count; ++at) {
      const Index k = order[at];
      sorted.push_back(own[k]);
      if (l + 1 == depth) {
        level.weight[at] = classes.weight[l][own[k]];
        continue;
      }
      level.parent.push_back(from[k]);
      level.multiple[at] = times[k];
      level.weight[at] = times[k] * shape.levels[l + 1].weight[from[k]];
    }
    above = std::move(sorted);
  }
  const Index p = static_cast<Index>(coordinates[0].z.size()), patterns = of_pattern[0].size();
  products.assign(patterns, Matrix::Zero(p, p));
  beyond.setZero(patterns);
  Matrix pooled = Matrix::Zero(patterns, given.products.cols());
  for (std::size_t i = 0; i < given.product_top.size(); ++i) {
    const double weight = given.weight[given.product_top[i]];
    const Index pattern = given.product_pattern[i], row = static_cast<Index>(i);
    pooled.row(pattern) += weight * given.products.row(row);
    beyond[pattern] += weight * given.beyond[row];
  }
  for (Index k = 0; k < patterns; ++k) products[k] = unpack_lower(pooled, k, p);
  of_pattern[0] += beyond;
  for (Index l = 0; l < depth; ++l) {
    for (Index k = 0; k < of_pattern[l].size(); ++k)
      constant += kLog2Pi * static_cast<double>(given.patterns[l][k].size()) * of_pattern[l][k];
  }
}

void add_by_class(Matrix& out, double scale, const std::vector<Matrix>& of, const std::vector<Index>& which,
                  const NestedTree::Level& nodes, const Matrix& x, bool transposed) {
  for (std::size_t c = 0; c < which.size();) {
    const std::size_t first = c;
    while (c < which.size() && which[c] == which[first]) ++c;
    const Index at = nodes.first[first], count = nodes.first[c] - at;
    if (!count) continue;
    const Matrix& a = of[which[first]];
    if (transposed)
      add_cross(out.middleCols(at, count), scale, a, x.middleCols(at, count));
    else
      add_product(out.middleCols(at, count), scale, a, x.middleCols(at, count));
  }
}

void add_by_class(Matrix& out, double scale, const std::vector<Matrix>& of, const NestedTree::Level& nodes,
                  const Matrix& x) {
  for (std::size_t c = 0; c < of.size(); ++c) {
    const Index at = nodes.first[c], count = nodes.first[c + 1] - at;
    if (count) add_product(out.middleCols(at, count), scale, of[c], x.middleCols(at, count));
  }
}

Matrix of_parents(const Matrix& above, const NestedTree::Level& level) {
  return level.parent.empty() ? Matrix(above.rows(), level.count()) : select_cols(above, level.parent);
}

Matrix summed_to_parents(const Matrix& below, const NestedTree::Level& level, Index parents) {
  Matrix out = Matrix::Zero(below.rows(), parents);
  for (Index k = 0; k < below.cols(); ++k) {
    const double times = level.multiple[k];
    double* to = out.data() + level.parent[k] * below.rows();
    const double* from = below.data() + k * below.rows();
    for (Index i = 0; i < below.rows(); ++i) to[i] += times * from[i];
  }
  return out;
}

}  // namespace msem
