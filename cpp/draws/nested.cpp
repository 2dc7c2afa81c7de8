// Samples of nested levels, drawn from a model.
#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"

namespace msem {

NestedParametricDraws::NestedParametricDraws(std::vector<NestedDesign> groups, std::uint64_t seed)
    : seed_(seed) {
  for (NestedDesign& g : groups) groups_.push_back(prepare(std::move(g)));
}

WithoutProducts::WithoutProducts(const std::vector<Index>& observed, Index n,
                                 const std::vector<RandomSlope>& slopes, Index level,
                                 const LevelImplied& moments)
    : variables(observed) {
  std::vector<Index> kept, given;  // positions among the moments
  for (std::size_t i = 0; i < observed.size(); ++i) kept.push_back(static_cast<Index>(i));
  Index at = static_cast<Index>(observed.size());
  for (std::size_t s = 0; s < slopes.size(); ++s) {
    if (slopes[s].level != level) continue;
    products.push_back(static_cast<Index>(s));
    given.push_back(at++);
  }
  for (std::size_t s = 0; s < slopes.size(); ++s) {
    const std::vector<Index>& own = slopes[s].at;
    if (std::find(own.begin(), own.end(), level) == own.end()) continue;
    variables.push_back(n + static_cast<Index>(s));
    kept.push_back(at++);
  }
  if (moments.mean.size() != at)
    throw std::invalid_argument("the design and the moments of the model do not fit together");
  mean = select(moments.mean, kept);
  paths = select(moments.cov, kept, given);
  cov = select(moments.cov, kept, kept);
  add_outer(cov, -1, paths, paths);
}

NestedParametricDraws::PreparedGroup NestedParametricDraws::prepare(NestedDesign design) {
  PreparedGroup out;
  const NestedData& d = *design.data;
  const std::size_t depth = d.levels.size();
  if (design.moments.size() != depth || design.fixed.size() != depth)
    throw std::invalid_argument("the design and the moments of the model do not fit together");
  for (std::size_t l = 0; l < depth; ++l)
    out.levels.emplace_back(d.levels[l], d.nvariables(), d.slopes, static_cast<Index>(l), design.moments[l]);
  const Index p = d.values[0].rows();
  std::vector<Index> place(p);  // of the variables of units in level 1
  for (std::size_t i = 0; i < d.levels[0].size(); ++i) place[d.levels[0][i]] = static_cast<Index>(i);
  out.mean = select(out.levels[0].mean, place);
  out.paths = select_rows(out.levels[0].paths, place);
  const Matrix cov = select(out.levels[0].cov, place, place);
  std::vector<Index> kept;
  for (const Index i : design.fixed[0]) kept.push_back(d.levels[0][i]);
  // degrees of freedom of the products of each pattern in a highest cluster
  std::map<std::pair<Index, Index>, Index> row;
  for (std::size_t i = 0; i < d.product_top.size(); ++i)
    row[{d.product_top[i], d.product_pattern[i]}] = static_cast<Index>(i);
  Vector df = d.beyond;
  for (std::size_t c = 0; c < d.pattern[0].size(); ++c) {
    Index top = static_cast<Index>(c);
    for (const std::vector<Index>& parent : d.parent) top = parent[top];
    df[row.at({top, d.pattern[0][c]})] += d.multiple[0][static_cast<Index>(c)] - 1;
  }
  const auto regression = [&](Index pattern, const Matrix& scatter, double count) {
    const Pattern& seen = d.patterns[0][pattern];
    return DrawnRegression(select(cov, seen, seen), kept_among(seen, kept), select(scatter, seen, seen),
                           count);
  };
  for (std::size_t k = 0; k < d.patterns[0].size(); ++k)
    out.cells.push_back(regression(static_cast<Index>(k), Matrix::Zero(p, p), 0));
  for (std::size_t i = 0; i < d.product_top.size(); ++i) {
    const Index at = static_cast<Index>(i);
    out.products.push_back(regression(d.product_pattern[i], unpack_lower(d.products, at, p), df[at]));
  }
  for (std::size_t l = 1; l < depth; ++l) out.clusters.emplace_back(out.levels[l].cov, design.fixed[l]);
  out.design = std::move(design);
  return out;
}

// Values measured on clusters, and the parts that the units of each of the lowest have of all levels above
// them: of the variables, then slopes.
Matrix NestedParametricDraws::draw_clusters(const PreparedGroup& group, NestedData& out,
                                            RandomStream& random) {
  const Index n = out.nvariables(), depth = out.nlevels(), all = n + static_cast<Index>(out.slopes.size());
  Matrix above;  // of the clusters of the level above
  for (Index l = depth - 1; l > 0; --l) {
    const WithoutProducts& model = group.levels[l];
    const std::vector<Index>& here = model.variables;
    const std::vector<Index> own = out.on(l);
    const Index first = own.empty() ? 0 : own[0], count = out.values[l].cols();
    Matrix parts = l + 1 < depth ? select_cols(above, out.parent[l]) : Matrix(Matrix::Zero(all, count));
    Vector values(static_cast<Index>(here.size())), products(static_cast<Index>(model.products.size()));
    for (Index k = 0; k < count; ++k) {
      for (std::size_t i = 0; i < here.size(); ++i) {
        const bool observed = here[i] < n && out.measured[here[i]] == l;
        values[static_cast<Index>(i)] =
            observed ? out.values[l](here[i] - first, k) + out.origin[here[i]] : 0;
      }
      group.clusters[l - 1].draw(values, model.mean, random);
      for (Index s = 0; s < products.size(); ++s) {
        const RandomSlope& slope = out.slopes[model.products[s]];
        products[s] =
            parts(n + model.products[s], k) * (slope.mean + slope.spread * out.design[l](slope.covariate, k));
      }
      add_applied(values, 1, model.paths, products);
      for (std::size_t i = 0; i < here.size(); ++i) parts(here[i], k) += values[static_cast<Index>(i)];
      for (const Index i : out.patterns[l][out.pattern[l][k]])
        out.values[l](i, k) = parts(first + i, k) - out.origin[first + i];
    }
    above = std::move(parts);
  }
  return above;
}

NestedData NestedParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  NestedData out = *group.design.data;
  const Matrix above = draw_clusters(group, out, random);
  const Index n = out.nvariables(), p = out.values[0].rows();
  for (Index i = 0; i < out.products.rows(); ++i) {
    const DrawnRegression& own = group.products[i];
    if (!(own.df > 0)) continue;
    const Pattern& seen = out.patterns[0][out.product_pattern[i]];
    Matrix drawn = Matrix::Zero(p, p);
    put(drawn, seen, seen, own.draw(random));
    Index at = 0;
    for (Index b = 0; b < p; ++b) {
      for (Index a = b; a < p; ++a) out.products(i, at++) = drawn(a, b);
    }
  }
  const Matrix& design = out.design[0];
  const std::vector<Index>& slopes = group.levels[0].products;
  for (Index c = 0; c < out.values[0].cols(); ++c) {
    const Index pattern = out.pattern[0][c];
    const Pattern& seen = out.patterns[0][pattern];
    const DrawnRegression& own = group.cells[pattern];
    const double times = design.size() ? design(0, c) : 1;  // how often a row has the mean
    const Vector origin = times * select(out.origin, seen), effect = above.col(out.parent[0][c]);
    Vector part = select(Vector(out.values[0].col(c)), seen) + origin;
    own.draw_means(part, times * select(group.mean, seen), out.multiple[0][c], random);
    Vector added = times * effect.head(p);
    for (std::size_t s = 0; s < slopes.size(); ++s) {
      const RandomSlope& slope = out.slopes[slopes[s]];
      const double covariate = times * slope.mean + slope.spread * design(slope.covariate, c);
      added += (effect[n + slopes[s]] * covariate) * group.paths.col(static_cast<Index>(s));
    }
    part += select(added, seen) - origin;
    for (std::size_t i = 0; i < seen.size(); ++i) out.values[0](seen[i], c) = part[static_cast<Index>(i)];
  }
  return out;
}

std::vector<GroupDraw> NestedParametricDraws::draw(std::uint64_t replicate) const {
  return draw_groups(groups_, seed_, replicate, [](const PreparedGroup& group, RandomStream& random) {
    return shared_draw(draw_group(group, random));
  });
}

}  // namespace msem
