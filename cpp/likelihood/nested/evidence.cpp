#include <map>
#include <stdexcept>

#include "likelihood/nested/point.hpp"

namespace msem {

namespace {

// The class of each cluster of a level.
std::vector<Index> classes_of(const NestedTree::Level& level) {
  std::vector<Index> out(level.count());
  for (std::size_t c = 0; c + 1 < level.first.size(); ++c) {
    for (Index k = level.first[c]; k < level.first[c + 1]; ++k) out[k] = static_cast<Index>(c);
  }
  return out;
}

}  // namespace

NestedPoint::Evidence NestedPoint::evidence(Index wanted) const {
  const Index depth = data_->nlevels();
  if (wanted < 0 || wanted >= depth) throw std::invalid_argument("there is no such level");
  const NestedTree &tree = arranged_->data, &shape = arranged_->shape;
  // downwards to the level: the kinds of clusters, and the posterior covariance matrix of the vector above
  std::vector<Matrix> above(1, Matrix(0, 0));
  std::vector<Index> kind;  // of the clusters of the level above
  for (Index l = depth - 1;; --l) {
    const NestedTree::Level &own = tree.levels[l], &kinds = shape.levels[l];
    const Level& level = levels_[l];
    const std::vector<Index> of_kind = classes_of(kinds), of = classes_of(own);
    const bool top = l + 1 == depth;
    std::map<std::pair<Index, Index>, Index> known;
    for (Index k = 0; k < kinds.count(); ++k) known[{top ? 0 : kinds.parent[k], of_kind[k]}] = k;
    std::vector<Index> here(own.count());
    for (Index k = 0; k < own.count(); ++k) here[k] = known.at({top ? 0 : kind[own.parent[k]], of[k]});
    const auto passed = [&](Index k) -> const Matrix& { return above[top ? 0 : kinds.parent[k]]; };
    if (l > wanted) {
      std::vector<Matrix> next;
      for (Index k = 0; k < kinds.count(); ++k) {
        const Index c = of_kind[k];
        next.push_back(level.v[c]);
        if (!top) add_outer(next.back(), 1, product(level.n[c], passed(k)), level.n[c]);
      }
      above = std::move(next);
      kind = std::move(here);
      continue;
    }
    const NestedMap<double> map(*data_, arranged_->coordinates, as_map_levels(moments_));
    const Matrix& matrix = map.matrix(l);
    const Index n = matrix.cols(), r = arranged_->coordinates[l].open,
                q = static_cast<Index>(arranged_->coordinates[l].z.size());
    Evidence out{Matrix(), Matrix(n * n, kinds.count()), {}};
    for (Index k = 0; k < kinds.count(); ++k) {
      const Index c = of_kind[k];
      // of (u, z) given the vector above, and what that does to it
      const NestedKind& of_class = arranged_->kinds[l][arranged_->classes.kind[l][c]];
      const Level::OfPattern& own_pattern = level.patterns[of_class.pattern];
      const Index above_size = top ? 0 : static_cast<Index>(arranged_->coordinates[l].above.size());
      Matrix c_sum = level.u[c], x = Matrix::Zero(r, q), y = Matrix::Zero(q, q);
      if (above_size) {
        const Matrix& s = passed(k);
        y = outer_sandwich(of_class.j, s);
        if (r) {
          const Matrix ks = product(level.k[c], s);
          add_outer(c_sum, -1, ks, level.k[c]);
          x = outer(ks, of_class.j);
        }
      }
      const Matrix whole = sandwich(matrix, curvature(own_pattern.b, own_pattern.zz, 1, c_sum, x, y));
      out.information.col(k) = Eigen::Map<const Vector>(whole.data(), whole.size());
    }
    out.scores = select_cols(cross(matrix, vectors_[l].s), arranged_->place[l]);
    for (const Index k : arranged_->place[l]) out.which.push_back(here[k]);
    return out;
  }
}

NestedPoint::Evidence NestedLikelihood::evidence(Implied moments, Index level) const {
  NestedPoint point;
  if (!prepare(std::move(moments), point))
    throw std::domain_error("the moments are not those of a distribution");
  return point.evidence(level);
}

}  // namespace msem
