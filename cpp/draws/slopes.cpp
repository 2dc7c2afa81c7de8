// Samples for models with random slopes, as reduced clusters.
#include <numeric>
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"

namespace msem {

SlopePool::SlopePool(std::shared_ptr<const ReducedData> data, Matrix products, std::vector<Index> place)
    : data_(std::move(data)), products_(std::move(products)), place_(std::move(place)) {
  require_products(products_, *data_);
  require_places(place_, data_->nclusters());
}

GroupDraw SlopePool::draw(const Vector& weights) const {
  return shared_draw(resampled(*data_, products_, select(weights, place_)));
}

SlopeParametricDraws::SlopeParametricDraws(std::vector<SlopeDesign> groups, std::uint64_t seed)
    : seed_(seed) {
  for (SlopeDesign& g : groups) groups_.push_back(prepare(std::move(g)));
}

SlopeParametricDraws::PreparedGroup SlopeParametricDraws::prepare(SlopeDesign design) {
  PreparedGroup out;
  const ReducedData& d = *design.data;
  const Index p = d.outcomes, f = d.fixed, m = d.nslopes();
  out.moments = TwoLevels{p + f + m, d.nboth, d.q + m}.moments(design.moments);
  const Matrix& within = out.moments.cov_w;
  std::vector<Index> given(f + m);
  std::iota(given.begin(), given.end(), p);
  const ConditionalNormal rows(within, given);
  out.paths = rows.slopes;
  out.root = semidefinite_root(rows.residual);

  // what is beyond the rows knows no products with slopes
  const Matrix lambda = out.paths.rightCols(m);
  Matrix without = within.topLeftCorner(p + f, p + f);
  add_outer(without.topLeftCorner(p, p), -1, lambda, lambda);
  Vector beyond = Vector::Zero(static_cast<Index>(d.patterns.size()));
  for (Index c = 0; c < d.ncells(); ++c)
    beyond[d.cell_pattern[c]] += d.cell_sizes[c] - static_cast<double>(d.cell_first[c + 1] - d.cell_first[c]);
  for (std::size_t r = 0; r < d.patterns.size(); ++r) {
    std::vector<Index> seen = d.patterns[r], fixed;
    for (Index k = 0; k < f; ++k) {
      fixed.push_back(static_cast<Index>(seen.size()));
      seen.push_back(p + k);
    }
    out.rest.emplace_back(select(without, seen, seen), fixed, select(d.remainder[r], seen, seen),
                          beyond[static_cast<Index>(r)]);
  }
  out.between = DrawnNormal(out.moments.cov_b, design.fixed.back());
  out.design = std::move(design);
  return out;
}

ReducedData SlopeParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  ReducedData out = *group.design.data;
  const Moments& moments = group.moments;
  const Index p = out.outcomes, f = out.fixed, m = out.nslopes(), b = out.nboth, q = out.q;
  for (std::size_t r = 0; r < out.patterns.size(); ++r) {
    if (!(group.rest[r].df > 0)) continue;
    std::vector<Index> seen = out.patterns[r];
    for (Index k = 0; k < f; ++k) seen.push_back(p + k);
    put(out.remainder[r], seen, seen, group.rest[r].draw(random));
  }
  Vector between(b + q + m), given(f + m);
  for (Index j = 0; j < out.nclusters(); ++j) {
    between.segment(b, q) = out.cluster_values.col(j) + out.origin.tail(q);
    group.between.draw(between, moments.mean_b, random);
    out.cluster_values.col(j) = between.segment(b, q) - out.origin.tail(q);
    for (Index row = out.first[j]; row < out.first[j + 1]; ++row) {
      const double one = out.design(0, row);
      for (Index k = 0; k < f; ++k)
        given[k] = out.values(p + k, row) + one * (out.origin[p + k] - moments.mean_w[p + k]);
      for (Index k = 0; k < m; ++k) given[f + k] = out.design(out.covariate[k], row) * between[b + q + k];
      Vector y = apply(group.paths, given);
      add_applied(y, 1, group.root, normals(group.root.cols(), 1, random).col(0));
      y += one * (moments.mean_w.head(p) - out.origin.head(p));
      y.head(b) += one * between.head(b);
      for (const Index i : out.patterns[out.row_pattern[row]]) out.values(i, row) = y[i];
    }
  }
  return out;
}

std::vector<GroupDraw> SlopeParametricDraws::draw(std::uint64_t replicate) const {
  return draw_groups(groups_, seed_, replicate, [](const PreparedGroup& group, RandomStream& random) {
    return shared_draw(draw_group(group, random));
  });
}

}  // namespace msem
