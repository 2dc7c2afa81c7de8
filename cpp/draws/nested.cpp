// Samples of nested levels, drawn from a model.
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

NestedParametricDraws::PreparedGroup NestedParametricDraws::prepare(NestedDesign design) {
  PreparedGroup out;
  const NestedData& d = *design.data;
  const std::size_t depth = d.levels.size();
  bool fits = d.slopes.empty() && design.moments.size() == depth && design.fixed.size() == depth;
  for (std::size_t l = 0; fits && l < depth; ++l)
    fits = design.moments[l].mean.size() == static_cast<Index>(d.levels[l].size());
  if (!fits) throw std::invalid_argument("the design and the moments of the model do not fit together");
  const Index p = d.values[0].rows();
  std::vector<Index> place(p);  // of the variables of units in level 1
  for (std::size_t i = 0; i < d.levels[0].size(); ++i) place[d.levels[0][i]] = static_cast<Index>(i);
  out.mean = select(design.moments[0].mean, place);
  const Matrix cov = select(design.moments[0].cov, place, place);
  std::vector<Index> kept;
  for (const Index i : design.fixed[0]) kept.push_back(d.levels[0][i]);
  // degrees of freedom of the products of each pattern in a highest cluster
  std::map<std::pair<Index, Index>, Index> row;
  for (std::size_t i = 0; i < d.product_top.size(); ++i)
    row[{d.product_top[i], d.product_pattern[i]}] = static_cast<Index>(i);
  Vector df = Vector::Zero(d.products.rows());
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
  for (std::size_t l = 1; l < depth; ++l) {
    out.clusters.emplace_back(design.moments[l].cov, design.fixed[l]);
  }
  out.design = std::move(design);
  return out;
}

NestedData NestedParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  NestedData out = *group.design.data;
  const Index n = out.nvariables(), depth = out.nlevels(), p = out.values[0].rows();
  Matrix above;  // parts of the variables at all higher levels, of the clusters of the level above
  for (Index l = depth - 1; l > 0; --l) {
    const std::vector<Index>& here = out.levels[l];
    const std::vector<Index> own = out.on(l);
    const Index first = own.empty() ? 0 : own[0], count = out.values[l].cols();
    const Vector& mean = group.design.moments[l].mean;
    Matrix parts = l + 1 < depth ? select_cols(above, out.parent[l]) : Matrix(Matrix::Zero(n, count));
    Vector values(static_cast<Index>(here.size()));
    for (Index k = 0; k < count; ++k) {
      for (std::size_t i = 0; i < here.size(); ++i) {
        const bool below = out.measured[here[i]] < l;
        values[static_cast<Index>(i)] = below ? 0 : out.values[l](here[i] - first, k) + out.origin[here[i]];
      }
      group.clusters[l - 1].draw(values, mean, random);
      for (std::size_t i = 0; i < here.size(); ++i) parts(here[i], k) += values[static_cast<Index>(i)];
      for (const Index i : out.patterns[l][out.pattern[l][k]])
        out.values[l](i, k) = parts(first + i, k) - out.origin[first + i];
    }
    above = std::move(parts);
  }
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
  for (Index c = 0; c < out.values[0].cols(); ++c) {
    const Index pattern = out.pattern[0][c];
    const Pattern& seen = out.patterns[0][pattern];
    const DrawnRegression& own = group.cells[pattern];
    const Vector origin = select(out.origin, seen);
    Vector part = select(Vector(out.values[0].col(c)), seen) + origin;
    own.draw_means(part, select(group.mean, seen), out.multiple[0][c], random);
    part += select(Vector(above.col(out.parent[0][c])), seen) - origin;
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
