// Samples of two crossed classifications, drawn from a model.
#include <cmath>
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"
#include "likelihood/slope_layout.hpp"

namespace msem {

CrossedParametricDraws::CrossedParametricDraws(std::vector<CrossedDesign> groups, std::uint64_t seed)
    : seed_(seed) {
  for (CrossedDesign& g : groups) groups_.push_back(prepare(std::move(g)));
}

namespace {

constexpr double kDependent =
    1e-10;  // eigenvalue of the products of a cell, of the largest, that counts as 0

// R with R'R a positive semidefinite matrix, of as many rows as its rank.
Matrix reduced_rows(const Matrix& products) {
  if (products.rows() == 1) return products.cwiseSqrt();
  const SymmetricEigen eigen(products);
  std::vector<Index> kept;
  for (Index i = 0; i < eigen.values.size(); ++i) {
    if (eigen.values[i] > kDependent * eigen.values.tail(1)[0]) kept.push_back(i);
  }
  const Vector roots = select(eigen.values, kept).cwiseSqrt();
  return scale_rows(roots, select_cols(eigen.vectors, kept).transpose());
}

// Values of these rows from sums of products: R^-T S' for S variables x products.
Matrix reduced_values(const Matrix& rows, const Matrix& sums) {
  const Vector inverse = rows.rowwise().squaredNorm().cwiseInverse();  // orthogonal
  return scale_rows(inverse, outer(rows, sums));
}

}  // namespace

CrossedParametricDraws::PreparedGroup CrossedParametricDraws::prepare(CrossedDesign design) {
  PreparedGroup out;
  const CrossedData& d = *design.data;
  const Index p = d.nunit(), width = d.width;
  if (design.moments.size() != 3 || design.fixed.size() != 3)
    throw std::invalid_argument("the design and the moments of the model do not fit together");
  const auto level = [&](Index l) {
    return WithoutProducts(d.levels[l], d.nvariables(), d.slopes, l, design.moments[l]);
  };
  const WithoutProducts units = level(0);
  std::vector<Index> place(p);  // of the variables of units in level 1
  for (std::size_t i = 0; i < d.levels[0].size(); ++i) place[d.levels[0][i]] = static_cast<Index>(i);
  out.mean = select(units.mean, place);
  out.paths = select_rows(units.paths, place);
  const Matrix cov = select(units.cov, place, place);
  std::vector<Index> kept;
  for (const Index i : design.fixed[0]) kept.push_back(d.levels[0][i]);
  std::vector<Matrix> scatter;
  std::vector<double> df;
  for (const CrossedPattern& one : d.patterns) {
    scatter.push_back(one.products);
    df.push_back(one.units);
  }
  for (Index c = 0; c < d.count.size(); ++c) {
    out.rows.push_back(reduced_rows(slice(d.design, c, width, width)));
    const Matrix values = reduced_values(out.rows.back(), slice(d.sums, c, p, width));
    add_cross(scatter[d.pattern[c]], -1, values, values);
    df[d.pattern[c]] -= static_cast<double>(values.rows());
  }
  for (std::size_t r = 0; r < d.patterns.size(); ++r) {
    const std::vector<Index>& seen = d.patterns[r].observed;
    out.cells.emplace_back(select(cov, seen, seen), kept_among(seen, kept), select(scatter[r], seen, seen),
                           df[r]);
  }
  for (std::size_t s = 0; s < 2; ++s)
    out.clusters[s] = DrawnNormal(level(static_cast<Index>(s) + 1).cov, design.fixed[s + 1]);
  out.design = std::move(design);
  return out;
}

CrossedData CrossedParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  CrossedData out = *group.design.data;
  const Index p = out.nunit(), width = out.width, n = out.nvariables(),
              m = static_cast<Index>(out.slopes.size());
  const Layout layout = slope_layout(out.levels, n, out.slopes);
  Matrix effects[2];  // parts of the variables of units, and slopes
  for (std::size_t s = 0; s < 2; ++s) {
    const std::vector<Index>& here = layout.levels[s + 1];
    const std::vector<Index> own = out.on(static_cast<Index>(s) + 1);
    const Vector& mean = group.design.moments[s + 1].mean;
    Classification& one = out.classifications[s];
    effects[s] = Matrix::Zero(p + m, one.count());
    Vector values(static_cast<Index>(here.size()));
    const auto measured = [&](Index v) { return v < n && out.measured[v] != 0; };
    for (Index k = 0; k < one.count(); ++k) {
      for (std::size_t i = 0; i < here.size(); ++i)
        values[static_cast<Index>(i)] =
            measured(here[i]) ? one.values(here[i] - own[0], k) + out.origin[here[i]] : 0;
      group.clusters[s].draw(values, mean, random);
      for (std::size_t i = 0; i < here.size(); ++i) {
        const double value = values[static_cast<Index>(i)];
        if (measured(here[i])) {
          one.values(here[i] - own[0], k) = value - out.origin[here[i]];
        } else {
          effects[s](here[i] < n ? here[i] : p + here[i] - n - m, k) = value;
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
    const Matrix& rows = group.rows[c];
    const Vector effect = effects[0].col(out.first[c]) + effects[1].col(out.second[c]);
    const Vector origin = select(out.origin, seen), mean = select(group.mean, seen);
    Matrix values = reduced_values(rows, slice(out.sums, c, p, width));
    for (Index a = 0; a < rows.rows(); ++a) {
      const double times = rows(a, 0);
      Vector part = select(Vector(values.row(a)), seen) + times * origin;
      own.draw_means(part, times * mean, 1, random);
      Vector added = times * effect.head(p);
      for (Index k = 0; k < m; ++k) {
        const RandomSlope& slope = out.slopes[k];
        added += (effect[p + k] * (times * slope.mean + slope.spread * rows(a, slope.covariate))) *
                 group.paths.col(k);
      }
      part += select(added, seen) - times * origin;
      for (std::size_t i = 0; i < seen.size(); ++i) values(a, seen[i]) = part[static_cast<Index>(i)];
    }
    const Matrix sums = cross(values, rows);
    out.sums.col(c) = Eigen::Map<const Vector>(sums.data(), sums.size());
    add_cross(out.patterns[out.pattern[c]].products, 1, values, values);
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
