// Samples with the holes of the data, drawn from a model.
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"

namespace msem {

IncompleteParametricDraws::IncompleteParametricDraws(std::vector<IncompleteDesign> groups, std::uint64_t seed)
    : seed_(seed) {
  for (IncompleteDesign& g : groups) groups_.push_back(prepare(std::move(g)));
}

IncompleteParametricDraws::PreparedGroup IncompleteParametricDraws::prepare(IncompleteDesign design) {
  PreparedGroup out;
  const IncompleteData& d = *design.data;
  const TwoLevels shape{d.p, d.nboth, d.q};
  out.moments = shape.moments(design.moments);
  Vector cells = Vector::Zero(static_cast<Index>(d.unit_patterns.size()));
  for (const Index r : d.cell_pattern) cells[r] += 1;
  for (std::size_t r = 0; r < d.unit_patterns.size(); ++r) {
    const Pattern& seen = d.unit_patterns[r];
    const Index at = static_cast<Index>(r);
    out.within.emplace_back(select(out.moments.cov_w, seen, seen), kept_among(seen, design.fixed.front()),
                            d.scatter[r], d.pattern_rows[at] - cells[at]);
  }
  out.between = DrawnNormal(out.moments.cov_b, design.fixed.back());
  out.design = std::move(design);
  return out;
}

IncompleteData IncompleteParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  IncompleteData out = *group.design.data;
  const Moments& m = group.moments;
  const Index b = out.nboth;
  for (std::size_t r = 0; r < out.scatter.size(); ++r) {
    if (group.within[r].df > 0) out.scatter[r] = group.within[r].draw(random);
  }
  Vector between(b + out.q), part;
  for (Index j = 0; j < out.nclusters(); ++j) {
    between.tail(out.q) = out.cluster_values.col(j) + out.origin.tail(out.q);
    group.between.draw(between, m.mean_b, random);
    for (const Index k : out.cluster_patterns[out.cluster_pattern[j]])
      out.cluster_values(k, j) = between[b + k] - out.origin[out.p + k];
    for (Index c = out.first_cell[j]; c < out.first_cell[j + 1]; ++c) {
      const Pattern& seen = out.unit_patterns[out.cell_pattern[c]];
      const DrawnRegression& own = group.within[out.cell_pattern[c]];
      part = out.cell_means(seen, c) + out.origin(seen);
      own.draw_means(part, select(m.mean_w, seen), out.cell_rows[c], random);
      for (std::size_t i = 0; i < seen.size(); ++i) {
        const double effect = seen[i] < b ? between[seen[i]] : 0.0;
        out.cell_means(seen[i], c) = part[static_cast<Index>(i)] + effect - out.origin[seen[i]];
      }
    }
  }
  return out;
}

std::vector<GroupDraw> IncompleteParametricDraws::draw(std::uint64_t replicate) const {
  return draw_groups(groups_, seed_, replicate, [](const PreparedGroup& group, RandomStream& random) {
    return shared_draw(draw_group(group, random));
  });
}

}  // namespace msem
