// Samples of two crossed classifications, drawn from a model.
#include <cmath>
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"

namespace msem {

CrossedParametricDraws::CrossedParametricDraws(std::vector<CrossedDesign> groups, std::uint64_t seed)
    : seed_(seed) {
  for (CrossedDesign& g : groups) groups_.push_back(prepare(std::move(g)));
}

CrossedParametricDraws::PreparedGroup CrossedParametricDraws::prepare(CrossedDesign design) {
  PreparedGroup out;
  const CrossedData& d = *design.data;
  bool fits = design.moments.size() == 3 && design.fixed.size() == 3;
  for (std::size_t l = 0; fits && l < 3; ++l)
    fits = design.moments[l].mean.size() == static_cast<Index>(d.levels[l].size());
  if (!fits) throw std::invalid_argument("the design and the moments of the model do not fit together");
  const Index p = d.sums.rows();
  std::vector<Index> place(p);  // of the variables of units in level 1
  for (std::size_t i = 0; i < d.levels[0].size(); ++i) place[d.levels[0][i]] = static_cast<Index>(i);
  out.mean = select(design.moments[0].mean, place);
  const Matrix cov = select(design.moments[0].cov, place, place);
  std::vector<Index> kept;
  for (const Index i : design.fixed[0]) kept.push_back(d.levels[0][i]);
  std::vector<Matrix> scatter;
  std::vector<double> df;
  for (const CrossedPattern& one : d.patterns) {
    scatter.push_back(one.products);
    df.push_back(one.units);
  }
  for (Index c = 0; c < d.count.size(); ++c) {
    const Vector sums = d.sums.col(c);
    add_outer(scatter[d.pattern[c]], -1 / d.count[c], sums, sums);
    df[d.pattern[c]] -= 1;
  }
  for (std::size_t r = 0; r < d.patterns.size(); ++r) {
    const std::vector<Index>& seen = d.patterns[r].observed;
    out.cells.emplace_back(select(cov, seen, seen), kept_among(seen, kept), select(scatter[r], seen, seen),
                           df[r]);
  }
  for (std::size_t s = 0; s < 2; ++s) {
    out.clusters[s] = DrawnNormal(design.moments[s + 1].cov, design.fixed[s + 1]);
  }
  out.design = std::move(design);
  return out;
}

CrossedData CrossedParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  CrossedData out = *group.design.data;
  const Index p = out.sums.rows();
  Matrix effects[2];
  for (std::size_t s = 0; s < 2; ++s) {
    const std::vector<Index>& here = out.levels[s + 1];
    const std::vector<Index> own = out.on(static_cast<Index>(s) + 1);
    const Vector& mean = group.design.moments[s + 1].mean;
    Classification& one = out.classifications[s];
    effects[s] = Matrix::Zero(p, one.count());
    Vector values(static_cast<Index>(here.size()));
    for (Index k = 0; k < one.count(); ++k) {
      for (std::size_t i = 0; i < here.size(); ++i) {
        const bool of_unit = out.measured[here[i]] == 0;
        values[static_cast<Index>(i)] = of_unit ? 0 : one.values(here[i] - own[0], k) + out.origin[here[i]];
      }
      group.clusters[s].draw(values, mean, random);
      for (std::size_t i = 0; i < here.size(); ++i) {
        const double value = values[static_cast<Index>(i)];
        if (out.measured[here[i]] == 0) {
          effects[s](here[i], k) = value;
        } else {
          one.values(here[i] - own[0], k) = value - out.origin[here[i]];
        }
      }
    }
  }
  for (std::size_t r = 0; r < out.patterns.size(); ++r) {
    CrossedPattern& one = out.patterns[r];
    one.products.setZero();
    if (group.cells[r].df > 0) put(one.products, one.observed, one.observed, group.cells[r].draw(random));
  }
  for (Index c = 0; c < out.count.size(); ++c) {
    const std::vector<Index>& seen = out.patterns[out.pattern[c]].observed;
    const DrawnRegression& own = group.cells[out.pattern[c]];
    const double n = out.count[c];
    const Vector origin = select(out.origin, seen), sums = out.sums.col(c);
    Vector part = select(sums, seen) / n + origin;
    own.draw_means(part, select(group.mean, seen), n, random);
    part += select(Vector(effects[0].col(out.first[c])), seen);
    part += select(Vector(effects[1].col(out.second[c])), seen);
    part = n * (part - origin);
    for (std::size_t i = 0; i < seen.size(); ++i) out.sums(seen[i], c) = part[static_cast<Index>(i)];
    const Vector whole = out.sums.col(c);
    add_outer(out.patterns[out.pattern[c]].products, 1 / n, whole, whole);
  }
  return out;
}

std::vector<GroupDraw> CrossedParametricDraws::draw(std::uint64_t replicate) const {
  return draw_groups(groups_, seed_, replicate, [](const PreparedGroup& group, RandomStream& random) {
    auto drawn = std::make_shared<const CrossedData>(draw_group(group, random));
    const Index distinct = drawn->classifications[1].count();
    return GroupDraw{std::move(drawn), distinct};
  });
}

}  // namespace msem
