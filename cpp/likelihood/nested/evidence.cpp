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

// What is passed down to a level: posterior covariance matrices of its open vector above, by kind of the
// clusters of the level above, and the kind of each of these.
struct NestedPoint::Downward {
  std::vector<Matrix> above;
  std::vector<Index> kind;
  // Of the level itself: the kind of each cluster, and the class of each kind.
  std::vector<Index> here, of_kind;
};

NestedPoint::Downward NestedPoint::downward(Index wanted) const {
  const Index depth = data_->nlevels();
  if (wanted < 0 || wanted >= depth) throw std::invalid_argument("there is no such level");
  const NestedTree &tree = arranged_->data, &shape = arranged_->shape;
  Downward out;
  out.above.assign(1, Matrix(0, 0));
  for (Index l = depth - 1;; --l) {
    const NestedTree::Level &own = tree.levels[l], &kinds = shape.levels[l];
    const Level& level = levels_[l];
    const std::vector<Index> of = classes_of(own);
    out.of_kind = classes_of(kinds);
    const bool top = l + 1 == depth;
    std::map<std::pair<Index, Index>, Index> known;
    for (Index k = 0; k < kinds.count(); ++k) known[{top ? 0 : kinds.parent[k], out.of_kind[k]}] = k;
    out.here.resize(own.count());
    for (Index k = 0; k < own.count(); ++k)
      out.here[k] = known.at({top ? 0 : out.kind[own.parent[k]], of[k]});
    if (l == wanted) return out;
    std::vector<Matrix> next;
    for (Index k = 0; k < kinds.count(); ++k) {
      const Index c = out.of_kind[k];
      next.push_back(level.v[c]);
      if (!top) add_outer(next.back(), 1, product(level.n[c], out.above[kinds.parent[k]]), level.n[c]);
    }
    out.above = std::move(next);
    out.kind = out.here;
  }
}

NestedPoint::Evidence NestedPoint::evidence(Index l) const {
  const Downward found = downward(l);
  const NestedTree::Level& kinds = arranged_->shape.levels[l];
  const Level& level = levels_[l];
  const bool top = l + 1 == data_->nlevels();
  const NestedMap<double> map(*data_, arranged_->coordinates, as_map_levels(moments_));
  const Matrix& matrix = map.matrix(l);
  const Index n = matrix.cols(), r = arranged_->coordinates[l].open,
              q = static_cast<Index>(arranged_->coordinates[l].z.size());
  Evidence out{Matrix(), Matrix(n * n, kinds.count()), {}};
  for (Index k = 0; k < kinds.count(); ++k) {
    const Index c = found.of_kind[k];
    // of (u, z) given the vector above, and what that does to it
    const NestedKind& of_class = arranged_->kinds[l][arranged_->classes.kind[l][c]];
    const Level::OfPattern& own_pattern = level.patterns[of_class.pattern];
    const Index above_size = top ? 0 : static_cast<Index>(arranged_->coordinates[l].above.size());
    Matrix c_sum = level.u[c], x = Matrix::Zero(r, q), y = Matrix::Zero(q, q);
    if (above_size) {
      const Matrix& s = found.above[kinds.parent[k]];
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
  for (const Index k : arranged_->place[l]) out.which.push_back(found.here[k]);
  return out;
}

NestedPoint::Open NestedPoint::open() const {
  const Downward found = downward(0);
  const Index n = vectors_[1].eb.rows(), kinds = static_cast<Index>(found.above.size());
  Open out{select_cols(vectors_[1].expected + vectors_[1].eb, arranged_->place[1]), Matrix(n * n, kinds), {}};
  for (Index k = 0; k < kinds; ++k) out.cov.col(k) = Eigen::Map<const Vector>(found.above[k].data(), n * n);
  for (const Index k : arranged_->place[1]) out.which.push_back(found.kind[k]);
  return out;
}

// Each slope is that of one more variable of level 1 that no unit has, which is nothing but the product of
// slope and covariate: its coefficient on the covariate is the slope.
NestedPoint::Open NestedLikelihood::effects(Implied moments) const {
  const NestedData& data = *data_;
  const Index p = static_cast<Index>(data.on(0).size()), n0 = static_cast<Index>(data.levels[0].size());
  std::vector<Index> own;
  for (std::size_t k = 0; k < data.slopes.size(); ++k) {
    if (data.slopes[k].level == 0) own.push_back(static_cast<Index>(k));
  }
  const Index m = static_cast<Index>(own.size());
  const Matrix paths = moments.at(0).cov.block(0, n0, n0, m);
  LevelImplied more{Vector::Zero(n0 + 2 * m), Matrix::Zero(n0 + 2 * m, n0 + 2 * m)};
  more.mean.head(n0) = moments[0].mean.head(n0);
  more.cov.topLeftCorner(n0, n0) = moments[0].cov.topLeftCorner(n0, n0);
  more.cov.block(0, n0, n0, m) = more.cov.block(0, n0 + m, n0, m) = paths;
  more.cov.block(n0, 0, m, n0) = more.cov.block(n0 + m, 0, m, n0) = paths.transpose();
  for (Index k = 0; k < m; ++k) {
    more.cov(n0 + k, n0 + k) = 2;
    more.cov(n0 + m + k, n0 + m + k) = more.cov(n0 + k, n0 + m + k) = more.cov(n0 + m + k, n0 + k) = 1;
  }
  moments[0] = std::move(more);
  const NestedLikelihood larger(std::make_shared<const NestedData>(with_unobserved(data, m)));
  NestedPoint point;
  if (!larger.prepare(std::move(moments), point))
    throw std::domain_error("the moments are not those of a distribution");
  const NestedPoint::Open found = point.open();
  const std::vector<NestedCoordinates::Above>& above = larger.arranged().coordinates[0].above;
  Matrix map = Matrix::Zero(p + m, static_cast<Index>(above.size()));
  for (std::size_t a = 0; a < above.size(); ++a) {
    const auto [from, covariate] = above[a];
    const Index at = static_cast<Index>(a);
    if (from < p) {
      if (!covariate) map(from, at) = 1;
      continue;
    }
    const RandomSlope& slope = data.slopes[own[from - p]];
    if (covariate == slope.covariate) map(from, at) = 1 / slope.spread;
  }
  // coefficients on 1 are those at the means of the covariates
  for (Index k = 0; k < m; ++k) {
    for (Index i = 0; i < n0; ++i)
      map.row(data.levels[0][i]) -= (data.slopes[own[k]].mean * paths(i, k)) * map.row(p + k);
  }
  const Index size = p + m;
  NestedPoint::Open out{product(map, found.mean), Matrix(size * size, found.cov.cols()), found.which};
  for (Index k = 0; k < found.cov.cols(); ++k) {
    const Matrix cov = outer_sandwich(map, slice(found.cov, k, map.cols(), map.cols()));
    out.cov.col(k) = Eigen::Map<const Vector>(cov.data(), size * size);
  }
  return out;
}

NestedPoint::Evidence NestedLikelihood::evidence(Implied moments, Index level) const {
  NestedPoint point;
  if (!prepare(std::move(moments), point))
    throw std::domain_error("the moments are not those of a distribution");
  return point.evidence(level);
}

}  // namespace msem
