#include <algorithm>
#include <map>
#include <numeric>

#include "likelihood/nested/point.hpp"

namespace msem {

namespace {

std::vector<NestedVariables> variables_of(const NestedData& data) {
  const Index depth = data.nlevels();
  std::vector<Index> highest(data.nvariables(), 0);
  for (Index l = 0; l < depth; ++l) {
    for (const Index v : data.levels[l]) highest[v] = std::max(highest[v], l);
  }
  std::vector<NestedVariables> out(depth);
  std::vector<Index> open;
  for (Index l = 0; l < depth; ++l) {
    NestedVariables& own = out[l];
    own.open = static_cast<Index>(open.size());
    own.z = data.on(l);
    const std::vector<Index>& here = data.levels[l];
    const auto row = [&](Index v) { return std::find(here.begin(), here.end(), v) - here.begin(); };
    std::vector<Index> above, all = open;
    for (Index i = 0; i < own.open; ++i) {
      if (row(open[i]) == static_cast<Index>(here.size())) continue;
      own.open_at.push_back(i);
      own.open_rows.push_back(row(open[i]));
    }
    for (const Index v : own.z) own.z_rows.push_back(row(v));
    all.insert(all.end(), own.z.begin(), own.z.end());
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (highest[all[i]] <= l) continue;
      own.keep.push_back(static_cast<Index>(i));
      above.push_back(all[i]);
    }
    open = std::move(above);
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

NestedArrangement::NestedArrangement(const NestedData& given) : variables(variables_of(given)) {
  const Index depth = given.nlevels();
  std::vector<std::vector<Index>> class_of(depth);
  classes.levels.resize(depth);
  classes.weight.resize(depth);
  // classes from below
  const Index lowest = given.sizes.size();
  class_of[0].assign(lowest, 0);
  classes.levels[0].resize(1);
  std::vector<std::vector<Index>> parent(depth);
  parent[0].resize(lowest);
  std::iota(parent[0].begin(), parent[0].end(), Index{0});
  for (Index l = 1; l + 1 < depth; ++l) parent[l] = given.parent[l - 1];
  for (Index l = 1; l < depth; ++l) {
    const Index count = l == 1 ? lowest : given.values[l].cols();
    std::vector<NestedClasses::Members> members(count);
    for (std::size_t j = 0; j < parent[l - 1].size(); ++j)
      members[parent[l - 1][j]].emplace_back(class_of[l - 1][j], l == 1 ? given.sizes[j] : 1.0);
    std::map<NestedClasses::Members, Index> seen;
    class_of[l].resize(count);
    for (Index k = 0; k < count; ++k) {
      NestedClasses::Members& own = members[k];
      std::sort(own.begin(), own.end());
      NestedClasses::Members merged;
      for (const auto& [c, times] : own) {
        if (merged.empty() || merged.back().first != c) merged.emplace_back(c, 0.0);
        merged.back().second += times;
      }
      const auto [at, fresh] = seen.emplace(std::move(merged), classes.count(l));
      if (fresh) classes.levels[l].push_back(at->first);
      class_of[l][k] = at->second;
    }
  }
  // the clusters from above, sorted by class
  data.levels.resize(depth);
  place.resize(depth);
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
      if (l == 0) level.multiple[at] = given.sizes[k];
      level.parent.push_back(above);
      level.weight[at] = level.multiple[at] * data.levels[l + 1].weight[above];
      level.top[at] = data.levels[l + 1].top[above];
    }
    classes.weight[l].setZero(classes.count(l));
    for (Index c = 0; c < classes.count(l); ++c)
      classes.weight[l][c] = level.weight.segment(level.first[c], level.first[c + 1] - level.first[c]).sum();
    constant += kLog2Pi * static_cast<double>(variables[l].z.size()) * level.weight.sum();
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
    level.values = Matrix::Zero(static_cast<Index>(variables[l].z.size()), count);
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
  const Index p = static_cast<Index>(variables[0].z.size());
  products = unpack_lower(Matrix(apply_transposed(given.products, given.weight).transpose()), 0, p);
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
