// Samples for models whose slopes are integrated over, as cells of clusters.
#include <cmath>
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"
#include "likelihood/integrals/integral.hpp"

namespace msem {

IntegratedPool::IntegratedPool(std::shared_ptr<const SlopeClusterData> data, std::vector<Index> place)
    : data_(std::move(data)), place_(std::move(place)) {
  require_places(place_, data_->nclusters());
}

GroupDraw IntegratedPool::draw(const Vector& weights) const {
  return shared_draw(resampled(*data_, select(weights, place_)));
}

IntegratedParametricDraws::IntegratedParametricDraws(std::vector<IntegratedDesign> groups, std::uint64_t seed)
    : seed_(seed) {
  for (IntegratedDesign& g : groups) groups_.push_back(prepare(std::move(g)));
}

IntegratedParametricDraws::PreparedGroup IntegratedParametricDraws::prepare(IntegratedDesign design) {
  PreparedGroup out;
  const SlopeClusterData& d = *design.data;
  const Index l = d.p + d.latent, m = d.nslopes();
  out.moments = TwoLevels{l + m, d.nboth, d.q + m}.moments(design.moments);
  const Matrix& within = out.moments.cov_w;
  out.lambda = within.topRightCorner(l, m);
  out.sigma = within.topLeftCorner(l, l);
  add_outer(out.sigma, -1, out.lambda, out.lambda);
  out.between = DrawnNormal(out.moments.cov_b, design.fixed.back());
  out.design = std::move(design);
  return out;
}

SlopeClusterData IntegratedParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  SlopeClusterData out = *group.design.data;
  const Moments& moments = group.moments;
  const Index p = out.p, l = p + out.latent, b = out.nboth, q = out.q, m = out.nslopes();
  SlopeMap map(group.lambda, out.covariate);
  Vector between(b + q + m), mean(l), values, expected;
  Matrix half(l, l), sigma(l, l);
  for (Index j = 0; j < out.nclusters(); ++j) {
    between.segment(b, q) = out.cluster_values.col(j);
    group.between.draw(between, moments.mean_b, random);
    out.cluster_values.col(j) = between.segment(b, q);
    map.set(between.data() + b + q);
    set_product(half, map.map(), group.sigma);
    sigma.setZero();
    add_outer(sigma, 1, half, map.map());
    mean = apply(map.map(), moments.mean_w.head(l));
    mean.head(b) += between.head(b);
    for (Index c = out.first_cell[j]; c < out.first_cell[j + 1]; ++c) {
      const Pattern& seen = out.pattern(c);
      const Index o = static_cast<Index>(seen.size());
      std::vector<Index> given;
      for (Index i = 0; i < o; ++i) {
        if (seen[i] >= p - out.fixed) given.push_back(i);
      }
      if (static_cast<Index>(given.size()) == o) continue;
      const Matrix own = select(sigma, seen, seen);
      const double n = out.cell_sizes[c];
      const ConditionalNormal centre(own, given);
      values = select(Vector(out.means.col(c)), seen);
      expected = select(mean, seen);
      const Matrix root = semidefinite_root(centre.residual);
      const Vector off = apply(root, normals(root.cols(), 1, random).col(0)) / std::sqrt(n);
      values(centre.drawn) = centre.mean_at(values, expected) + off;
      for (Index i = 0; i < o; ++i) out.means(seen[i], c) = values[i];
      if (!(n > 1)) continue;
      Eigen::Map<Matrix> products(out.within.col(c).data(), o, o);
      products = DrawnRegression(own, given, products, n - 1).draw(random);
    }
  }
  return out;
}

std::vector<GroupDraw> IntegratedParametricDraws::draw(std::uint64_t replicate) const {
  return draw_groups(groups_, seed_, replicate, [](const PreparedGroup& group, RandomStream& random) {
    return shared_draw(draw_group(group, random));
  });
}

}  // namespace msem
