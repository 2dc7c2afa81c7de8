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
    const NestedVariables& variables = arranged_->variables[l];
    const Index n = static_cast<Index>(data_->levels[l].size()), r = level.c.rows(), q = level.zz.rows();
    const auto arranged = [&](const Matrix& u, const Matrix& z) {
      Matrix out = Matrix::Zero(n, u.cols());
      put_rows(out, variables.open_rows, select_rows(u, variables.open_at));
      put_rows(out, variables.z_rows, z);
      return out;
    };
    Evidence out{Matrix(), Matrix(n * n, kinds.count()), {}};
    for (Index k = 0; k < kinds.count(); ++k) {
      const Index c = of_kind[k];
      // of (u, z) given the vector above, and what that does to it
      const Matrix ub = product(level.u[c], level.b);
      Matrix h = Matrix::Zero(r + q, r + q);
      h.topLeftCorner(r, r) = level.u[c];
      h.topRightCorner(r, q) = -ub;
      h.bottomLeftCorner(q, r) = -ub.transpose();
      h.bottomRightCorner(q, q) = level.zz + cross(level.b, ub);
      if (!top) {
        Matrix g(r + q, level.t.cols());
        g.topRows(r) = level.k[c];
        g.bottomRows(q) = product(level.zz, level.j) - cross(level.b, level.k[c]);
        add_outer(h, -1, product(g, passed(k)), g);
      }
      const Matrix half = arranged(h.topRows(r), h.bottomRows(q));
      const Matrix whole = arranged(half.transpose().topRows(r), half.transpose().bottomRows(q));
      out.information.col(k) = Eigen::Map<const Vector>(whole.data(), whole.size());
    }
    Matrix z = product(level.zz, vectors_[l].zb);
    add_cross(z, -1, level.b, vectors_[l].ub);
    out.scores = select_cols(arranged(vectors_[l].ub, z), arranged_->place[l]);
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
