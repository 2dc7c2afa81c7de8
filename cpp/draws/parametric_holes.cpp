// Samples with the holes of the data, drawn from a model.
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"

namespace msem {

namespace {

constexpr double kNegative = -1e-8;  // eigenvalue in correlation metric below which a matrix is indefinite

}  // namespace

Matrix semidefinite_root(const Matrix& cov) {
  const Vector scale = cov.diagonal().cwiseMax(0).cwiseSqrt();
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, cov));
  if (cov.rows() && !(eigen.values(0) > kNegative && cov.diagonal().minCoeff() >= 0))
    throw std::domain_error("the model-implied between covariance matrix is not positive semidefinite");
  return scale_cols(scale_rows(scale, eigen.vectors), eigen.values.cwiseMax(0.0).cwiseSqrt());
}

IncompleteParametricDraws::IncompleteParametricDraws(std::vector<IncompleteDesign> groups, std::uint64_t seed)
    : seed_(seed) {
  for (IncompleteDesign& g : groups) groups_.push_back(prepare(std::move(g)));
}

IncompleteParametricDraws::PreparedGroup IncompleteParametricDraws::prepare(IncompleteDesign design) {
  PreparedGroup out;
  const IncompleteData& d = *design.data;
  const Matrix& between = design.moments.cov_b;
  if (design.moments.cov_w.rows() != d.p || between.rows() != d.nboth + d.q)
    throw std::invalid_argument("the design and the moments of the model do not fit together");
  Vector cells = Vector::Zero(static_cast<Index>(d.unit_patterns.size()));
  for (const Index r : d.cell_pattern) cells[r] += 1;
  for (std::size_t r = 0; r < d.unit_patterns.size(); ++r) {
    const Pattern& seen = d.unit_patterns[r];
    std::vector<Index> fixed;
    for (std::size_t i = 0; i < seen.size(); ++i) {
      if (std::find(design.unit.begin(), design.unit.end(), seen[i]) != design.unit.end())
        fixed.push_back(static_cast<Index>(i));
    }
    const Index at = static_cast<Index>(r);
    out.within.emplace_back(select(design.moments.cov_w, seen, seen), fixed, d.scatter[r],
                            d.pattern_rows[at] - cells[at]);
  }
  for (const Index k : design.cluster) out.fixed.push_back(d.nboth + k);
  out.random = others(d.nboth + d.q, out.fixed);
  Matrix residual = select(between, out.random, out.random);
  out.slopes.setZero(residual.rows(), static_cast<Index>(out.fixed.size()));
  if (!out.fixed.empty()) {
    Cholesky chol;
    if (!chol.compute(select(between, out.fixed, out.fixed)))
      throw std::domain_error("the covariance matrix of the covariates is singular");
    const Matrix joint = select(between, out.fixed, out.random);
    out.slopes = chol.solve(joint).transpose();
    add_product(residual, -1, out.slopes, joint);
    symmetrise(residual);
  }
  out.root = semidefinite_root(residual);
  out.design = std::move(design);
  return out;
}

IncompleteData IncompleteParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  IncompleteData out = *group.design.data;
  const Moments& m = group.design.moments;
  const Index b = out.nboth;
  for (std::size_t r = 0; r < out.scatter.size(); ++r) {
    if (group.within[r].df > 0) out.scatter[r] = group.within[r].draw(random);
  }
  Vector between(b + out.q), part;
  for (Index j = 0; j < out.nclusters(); ++j) {
    between.tail(out.q) = out.cluster_values.col(j) + out.origin.tail(out.q);
    const Vector off = select(between, group.fixed) - select(m.mean_b, group.fixed);
    const Vector noise_b = apply(group.root, normals(group.root.cols(), 1, random).col(0));
    between(group.random) = select(m.mean_b, group.random) + apply(group.slopes, off) + noise_b;
    for (const Index k : out.cluster_patterns[out.cluster_pattern[j]])
      out.cluster_values(k, j) = between[b + k] - out.origin[out.p + k];
    for (Index c = out.first_cell[j]; c < out.first_cell[j + 1]; ++c) {
      const Pattern& seen = out.unit_patterns[out.cell_pattern[c]];
      const DrawnRegression& own = group.within[out.cell_pattern[c]];
      part = out.cell_means(seen, c) + out.origin(seen);
      const Vector mean = select(m.mean_w, seen);
      const Vector noise = apply(own.lower, normals(own.lower.cols(), 1, random).col(0));
      const Vector shift = apply(own.slopes, select(part, own.fixed) - select(mean, own.fixed));
      part(own.random) = select(mean, own.random) + shift + noise / std::sqrt(out.cell_rows[c]);
      for (std::size_t i = 0; i < seen.size(); ++i) {
        const double effect = seen[i] < b ? between[seen[i]] : 0.0;
        out.cell_means(seen[i], c) = part[static_cast<Index>(i)] + effect - out.origin[seen[i]];
      }
    }
  }
  return out;
}

std::vector<GroupDraw> IncompleteParametricDraws::draw(std::uint64_t replicate) const {
  std::vector<GroupDraw> out;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    RandomStream random(seed_, replicate, static_cast<std::uint32_t>(g));
    GroupDraw one;
    one.incomplete = std::make_shared<const IncompleteData>(draw_group(groups_[g], random));
    one.distinct = one.incomplete->nclusters();
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace msem
