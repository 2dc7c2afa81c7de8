// Information of nested levels: the derivative of the gradient along one direction of the moments after the
// other, through the same steps as the gradient itself.
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "base/threads.hpp"
#include "likelihood/by_level.hpp"
#include "likelihood/nested/directions.hpp"
#include "likelihood/nested/point.hpp"

namespace msem {

namespace {

constexpr Index kThreadWork = 20000;  // numbers of clusters times directions below which threads do not pay

}  // namespace

// What a direction needs and no direction changes.
struct NestedFixed {
  // `observed`: at the residuals of the data, on all clusters; else at residuals of zero, on one highest
  // cluster of each class.
  NestedFixed(const NestedPoint& at, bool is_observed);

  const NestedPoint& point;
  bool observed;
  const NestedTree& tree;
  std::vector<std::vector<NestedPoint::Sums::OfPattern>> sums;  // by level and pattern
  std::vector<std::vector<Index>> pattern;                      // of each class, by level
  std::vector<std::vector<Matrix>> b, c, zz, j;                 // by level, of patterns and of kinds
};

NestedFixed::NestedFixed(const NestedPoint& at, bool is_observed)
    : point(at), observed(is_observed), tree(is_observed ? at.arranged_->data : at.arranged_->shape) {
  const NestedArrangement& arranged = *at.arranged_;
  for (std::size_t l = 0; l < at.levels_.size(); ++l) {
    const auto& level = at.levels_[l];
    const Index r = arranged.coordinates[l].open;
    const bool up = !arranged.coordinates[l].above.empty();
    sums.push_back(at.no_sums(l).patterns);
    pattern.emplace_back();
    for (auto* all : {&b, &c, &zz, &j}) all->emplace_back();
    for (const NestedKind& kind : arranged.kinds[l]) j[l].push_back(kind.j);
    for (const auto& own : level.patterns) {
      b[l].push_back(own.b);
      c[l].push_back(own.c);
      zz[l].push_back(own.zz);
    }
    for (Index k = 0; k < arranged.classes.count(static_cast<Index>(l)); ++k) {
      const NestedKind& kind = arranged.kinds[l][arranged.classes.kind[l][k]];
      pattern[l].push_back(kind.pattern);
      auto& own = sums[l][kind.pattern];
      own.count += arranged.classes.weight[l][k];
      if (up) own.y += outer_sandwich(kind.j, level.s[k]);
      if (r == 0) continue;
      own.c += arranged.classes.weight[l][k] * level.u[k];
      if (!up) continue;
      const Matrix ks = product(level.k[k], level.s[k]);
      add_outer(own.c, -1, ks, level.k[k]);
      add_outer(own.x, 1, ks, kind.j);
    }
    if (l) continue;
    for (std::size_t i = 0; i < sums[0].size(); ++i) {
      sums[0][i].count += arranged.beyond[static_cast<Index>(i)];
      if (observed) sums[0][i].products = arranged.products[i];
    }
  }
}

class NestedTangent {
 public:
  using Full = NestedPoint::Full;
  explicit NestedTangent(const NestedFixed& fixed)
      : fixed_(fixed),
        point_(fixed.point),
        arranged_(*fixed.point.arranged_),
        depth_(fixed.point.levels_.size()),
        change_(depth_) {}

  // Derivative of the gradient of the log-likelihood for changes of the moments of the coordinates. At
  // residuals of zero changes of covariance matrices say nothing of means, and the other way round; `means`
  // says which of the two are meant.
  Full along(const Full& direction, bool covariances, bool means);

 private:
  using Level = NestedPoint::Level;
  // Derivatives of what has the same name at the point.
  struct Change {
    bool moments = false;  // whether the covariance matrix of the level changes, so that b, c, zz and t do
    bool classes = false;  // or that of a lower level, so that what follows does
    std::vector<Matrix> b, c, zz, t;
    Vector open, mean;
    std::vector<Matrix> u, omega, v, k, n;
    Matrix ez, e, us;
  };

  void change_level(std::size_t l, const FullLevel<double>& direction);
  void change_classes();
  void change_upwards();
  FullLevel<double> change_gradient(std::size_t l, const Matrix& above, std::vector<Matrix>& ds,
                                    Matrix& next) const;
  const std::vector<Index>& kinds(std::size_t l) const { return arranged_.classes.kind[l]; }

  const NestedFixed& fixed_;
  const NestedPoint& point_;
  const NestedArrangement& arranged_;
  std::size_t depth_;
  bool vectors_ = true, covariances_ = true;  // whether residuals, or covariance matrices, change
  std::vector<Change> change_;
};

void NestedTangent::change_level(std::size_t l, const FullLevel<double>& direction) {
  const NestedCoordinates& own = arranged_.coordinates[l];
  const Level& level = point_.levels_[l];
  Change& d = change_[l];
  d.open = direction.open;
  d.mean = direction.z;
  d.moments = covariances_ && direction.cov.size() > 0;
  d.classes = d.moments || (l > 0 && change_[l - 1].classes);
  for (auto* all : {&d.b, &d.c, &d.zz, &d.t}) all->clear();
  if (!d.moments) return;
  const Index r = own.open, q = static_cast<Index>(own.z.size());
  const Matrix zz = direction.cov.bottomRightCorner(q, q), uz = direction.cov.topRightCorner(r, q),
               uu = direction.cov.topLeftCorner(r, r);
  for (const auto& at : level.patterns) {
    d.zz.push_back(-sandwich(at.zz, zz));
    // dC = dS_uu - dS_uz B' - B dS_zu + B dS_zz B',   dB = (dS_uz - B dS_zz) S_zz^-1
    const Matrix bz = product(at.b, zz), ub = outer(uz, at.b);
    d.c.push_back(uu);
    add_outer(d.c.back(), 1, bz, at.b);
    add_with_transpose(d.c.back(), -1, ub);
    d.b.push_back(product(uz - bz, at.zz));
  }
  for (const NestedKind& kind : arranged_.kinds[l]) d.t.push_back(-product(d.b[kind.pattern], kind.j));
}

void NestedTangent::change_classes() {
  const NestedClasses& classes = arranged_.classes;
  std::vector<Matrix> seen;
  for (std::size_t l = 0; l < depth_; ++l) {
    const Level& level = point_.levels_[l];
    Change& d = change_[l];
    if (!d.classes) continue;
    const Index r = arranged_.coordinates[l].open, count = classes.count(static_cast<Index>(l)),
                above = static_cast<Index>(arranged_.coordinates[l].above.size());
    const bool below = !seen.empty();
    std::vector<Matrix> next(above ? count : 0), own;
    if (above && d.moments) {
      for (const NestedKind& kind : arranged_.kinds[l]) own.push_back(sandwich(kind.j, d.zz[kind.pattern]));
    }
    for (auto* all : {&d.u, &d.omega, &d.v, &d.k, &d.n}) all->resize(count);
    for (Index c = 0; c < count; ++c) {
      const Index kind = classes.kind[l][c], pattern = fixed_.pattern[l][c];
      if (above) next[c] = d.moments ? own[kind] : Matrix(Matrix::Zero(above, above));
      if (!r) continue;
      Matrix &u = d.u[c], &omega = d.omega[c], &v = d.v[c];
      u = v = Matrix::Zero(r, r);
      if (below) {
        Matrix p = Matrix::Zero(r, r);
        for (const auto& [child, times] : classes.levels[l][c]) p += times * seen[child];
        u = outer_sandwich(level.omega[c], p);
        v = -sandwich(level.v[c], p);
      }
      if (d.moments) {
        u -= sandwich(level.u[c], d.c[pattern]);
        v += sandwich(level.omega[c], d.c[pattern]);
      }
      if (!above && !fixed_.observed) continue;
      omega = -product(u, level.patterns[pattern].c);
      if (d.moments) add_product(omega, -1, level.u[c], d.c[pattern]);
      if (!above) continue;
      d.k[c] = product(u, level.t[kind]);
      d.n[c] = cross(omega, level.t[kind]);
      if (d.moments) {
        add_product(d.k[c], 1, level.u[c], d.t[kind]);
        add_cross(d.n[c], 1, level.omega[c], d.t[kind]);
        add_cross(next[c], 1, d.t[kind], level.k[c]);
      }
      add_cross(next[c], 1, level.t[kind], d.k[c]);
    }
    seen = std::move(next);
  }
}

void NestedTangent::change_upwards() {
  const NestedTree& tree = fixed_.tree;
  Matrix above(0, 0);
  for (std::size_t l = depth_; l-- > 0;) {
    const Level& level = point_.levels_[l];
    const NestedTree::Level& nodes = tree.levels[l];
    Change& d = change_[l];
    const Matrix given = of_parents(above, nodes);
    Matrix off = Matrix::Zero(d.mean.size(), nodes.count());  // change of what is not the open vector's
    if (!d.mean.isZero(0)) {
      for (std::size_t c = 0; c < kinds(l).size(); ++c) {
        const Vector mean = arranged_.kinds[l][kinds(l)[c]].constant.cwiseProduct(d.mean);
        for (Index k = nodes.first[c]; k < nodes.first[c + 1]; ++k) off.col(k) -= mean;
      }
    }
    d.ez = off;
    add_by_class(d.ez, -1, fixed_.j[l], kinds(l), nodes, given);
    above = d.open.replicate(1, nodes.count());
    if (!above.rows()) continue;
    add_by_class(above, 1, level.t, kinds(l), nodes, given);
    add_by_class(above, 1, fixed_.b[l], fixed_.pattern[l], nodes, off);
    if (fixed_.observed && d.moments)
      add_by_class(above, 1, d.b, fixed_.pattern[l], nodes, point_.vectors_[l].ez);
  }
  Matrix q(0, tree.levels[0].count());
  for (std::size_t l = 0; l < depth_; ++l) {
    const Level& level = point_.levels_[l];
    const NestedTree::Level& nodes = tree.levels[l];
    Change& d = change_[l];
    d.us = d.e = Matrix::Zero(q.rows(), nodes.count());
    const bool moved = fixed_.observed && d.moments;
    if (q.rows()) {
      if (fixed_.observed && d.classes) add_by_class(d.us, 1, d.omega, nodes, point_.vectors_[l].q);
      add_by_class(d.us, 1, level.omega, nodes, q);
      add_by_class(d.e, 1, fixed_.c[l], fixed_.pattern[l], nodes, d.us);
      if (moved) add_by_class(d.e, 1, d.c, fixed_.pattern[l], nodes, point_.vectors_[l].u);
    }
    if (l + 1 == depth_) break;
    Matrix weighted = Matrix::Zero(d.ez.rows(), d.ez.cols());
    add_by_class(weighted, 1, fixed_.zz[l], fixed_.pattern[l], nodes, d.ez);
    if (moved) add_by_class(weighted, 1, d.zz, fixed_.pattern[l], nodes, point_.vectors_[l].ez);
    Matrix next = Matrix::Zero(static_cast<Index>(arranged_.coordinates[l].above.size()), nodes.count());
    add_by_class(next, 1, fixed_.j[l], kinds(l), nodes, weighted, true);
    if (q.rows()) {
      add_by_class(next, 1, level.t, kinds(l), nodes, d.us, true);
      if (moved) add_by_class(next, 1, d.t, kinds(l), nodes, point_.vectors_[l].u, true);
    }
    q = summed_to_parents(next, nodes, tree.levels[l + 1].count());
  }
}

namespace {

// Derivative of `curvature`; what does not change is empty.
Matrix change_of_curvature(const Matrix& b, const Matrix& zz, const NestedPoint::Sums::OfPattern& at,
                           const Matrix& db, const Matrix& dzz, const Matrix& dc, const Matrix& dx,
                           const Matrix& dy) {
  const Index r = at.c.rows(), q = zz.rows();
  Matrix out = Matrix::Zero(r + q, r + q);
  Matrix corner = Matrix::Zero(r, q), last = Matrix::Zero(q, q);
  if (dy.size()) last -= sandwich(zz, dy);
  if (dzz.size()) {
    last += at.count * dzz;
    add_with_transpose(last, -1, product(product(dzz, at.y), zz));
  }
  if (r) {
    // b'c b + b'x z + z x'b, and -c b - x z
    Matrix dcb = Matrix::Zero(r, q), dxz = Matrix::Zero(r, q);
    if (dc.size()) {
      out.topLeftCorner(r, r) = dc;
      add_product(dcb, 1, dc, b);
      add_product(dxz, 1, dx, zz);
    }
    if (dzz.size()) {
      add_product(dcb, 1, at.c, db);
      add_product(dxz, 1, at.x, dzz);
      Matrix moved = cross(db, product(at.c, b));
      last += moved;
      moved = cross(db, product(at.x, zz));
      add_with_transpose(last, 1, moved);
    }
    corner = -dcb - dxz;
    add_cross(last, 1, b, dcb);
    add_with_transpose(last, 1, cross(b, dxz));
    out.topRightCorner(r, q) = corner;
    out.bottomLeftCorner(q, r) = corner.transpose();
  }
  out.bottomRightCorner(q, q) = last;
  return out;
}

}  // namespace

FullLevel<double> NestedTangent::change_gradient(std::size_t l, const Matrix& above, std::vector<Matrix>& ds,
                                                 Matrix& next) const {
  const NestedClasses& classes = arranged_.classes;
  const Level& level = point_.levels_[l];
  const NestedTree::Level& nodes = fixed_.tree.levels[l];
  const Change& d = change_[l];
  const NestedCoordinates& coordinates = arranged_.coordinates[l];
  const Index r = coordinates.open, q = static_cast<Index>(coordinates.z.size()),
              up = static_cast<Index>(coordinates.above.size());
  const std::vector<Index>& pattern = fixed_.pattern[l];
  FullLevel<double> out{Matrix::Zero(r + q, r + q), Vector::Zero(r), Vector::Zero(q)};
  // residuals given everything, and what follows for the derivatives with respect to means
  if (vectors_) {
    const Matrix given = of_parents(above, nodes);
    Matrix ub = d.us, zb = d.ez, z = Matrix::Zero(q, nodes.count());
    next = d.e;
    add_by_class(zb, -1, fixed_.j[l], kinds(l), nodes, given);
    if (r) {
      add_by_class(ub, -1, level.k, nodes, given);
      add_by_class(next, 1, level.n, nodes, given);
    }
    if (fixed_.observed && l + 1 < depth_ && d.classes && r) {
      const Matrix at = of_parents(point_.vectors_[l + 1].eb, nodes);
      add_by_class(ub, -1, d.k, nodes, at);
      add_by_class(next, 1, d.n, nodes, at);
    }
    add_by_class(z, 1, fixed_.zz[l], pattern, nodes, zb);
    if (r) add_by_class(z, -1, fixed_.b[l], pattern, nodes, ub, true);
    if (fixed_.observed && d.moments) {
      add_by_class(z, 1, d.zz, pattern, nodes, point_.vectors_[l].zb);
      if (r) add_by_class(z, -1, d.b, pattern, nodes, point_.vectors_[l].ub, true);
    }
    Matrix s(r + q, nodes.count());
    s.topRows(r) = ub;
    s.bottomRows(q) = z;
    const Matrix weighted = scale_cols(s, nodes.weight);
    if (fixed_.observed) add_with_transpose(out.cov, 0.5, outer(weighted, point_.vectors_[l].s));
    out.open = weighted.topRows(r).rowwise().sum();
    for (std::size_t c = 0; c < kinds(l).size(); ++c) {
      const Vector& constant = arranged_.kinds[l][kinds(l)[c]].constant;
      for (Index k = nodes.first[c]; k < nodes.first[c + 1]; ++k)
        out.z += constant.cwiseProduct(weighted.col(k).tail(q));
    }
  }
  if (!covariances_) return out;
  // covariance matrices given everything, passed on to the level below
  const bool passed = !ds.empty() && up;
  const std::size_t patterns = level.patterns.size();
  const bool moves = d.classes || passed;
  std::vector<Matrix> dc(patterns), dx(patterns), dy(patterns);
  if (moves) {
    for (std::size_t i = 0; i < patterns; ++i) {
      dc[i] = Matrix::Zero(r, r);
      dx[i] = Matrix::Zero(r, q);
      if (passed) dy[i] = Matrix::Zero(q, q);
    }
  }
  std::vector<Matrix> below(l ? classes.count(static_cast<Index>(l) - 1) : 0, Matrix::Zero(r, r));
  const Vector& weight = classes.weight[l];
  for (Index k = 0; moves && k < static_cast<Index>(kinds(l).size()); ++k) {
    const NestedKind& kind = arranged_.kinds[l][kinds(l)[k]];
    if (passed) dy[kind.pattern] += outer_sandwich(kind.j, ds[k]);
    if (r == 0) continue;
    Matrix v = Matrix::Zero(r, r), through(r, up);
    if (up) through.setZero();
    if (d.classes) {
      dc[kind.pattern] += weight[k] * d.u[k];
      v = weight[k] * d.v[k];
      if (up) {
        through = product(d.k[k], level.s[k]);
        add_with_transpose(dc[kind.pattern], -1, outer(through, level.k[k]));
        if (l) add_with_transpose(v, 1, outer(product(d.n[k], level.s[k]), level.n[k]));
      }
    }
    if (passed) {
      const Matrix kds = product(level.k[k], ds[k]);
      add_outer(dc[kind.pattern], -1, kds, level.k[k]);
      through += kds;
      if (l) add_outer(v, 1, product(level.n[k], ds[k]), level.n[k]);
    }
    if (up) add_outer(dx[kind.pattern], 1, through, kind.j);
    for (const auto& [child, times] : classes.levels[l][k]) below[child] += times * v;
  }
  ds = std::move(below);
  const Matrix none;
  for (std::size_t i = 0; i < patterns; ++i) {
    const auto& at = fixed_.sums[l][i];
    if (at.count == 0 || (!moves && !d.moments)) continue;
    const Matrix &db = d.moments ? d.b[i] : none, &dzz = d.moments ? d.zz[i] : none;
    out.cov -= 0.5 * change_of_curvature(level.patterns[i].b, level.patterns[i].zz, at, db, dzz, dc[i], dx[i],
                                         dy[i]);
    if (at.products.size() && d.moments) {
      const Matrix half = product(product(dzz, at.products), level.patterns[i].zz);
      add_with_transpose(out.cov.bottomRightCorner(q, q), 0.5, half);
    }
  }
  return out;
}

NestedTangent::Full NestedTangent::along(const Full& direction, bool covariances, bool means) {
  check_interrupt();
  covariances_ = covariances;
  vectors_ = fixed_.observed || means;
  for (std::size_t l = 0; l < depth_; ++l) change_level(l, direction[l]);
  if (covariances_) change_classes();
  if (vectors_) change_upwards();
  Full out(depth_);
  std::vector<Matrix> ds;
  Matrix above(0, 0);
  for (std::size_t l = depth_; l-- > 0;) {
    Matrix next;
    out[l] = change_gradient(l, above, ds, next);
    above = std::move(next);
  }
  return out;
}

// Over the parameters of all levels, one after the other.
Matrix NestedPoint::whole_information(bool expected, const LevelTangents& tangents) const {
  const NestedDirections directions(*data_, *arranged_, moments_, tangents);
  const Index count = directions.count();
  Matrix out = Matrix::Zero(count, count);
  const NestedFixed fixed(*this, !expected);
  Index work = 0;
  for (const NestedTree::Level& level : arranged_->data.levels) work += level.count();
  in_threads(count, work * count > kThreadWork ? 0 : 1, [&](std::ptrdiff_t b) {
    NestedTangent tangent(fixed);
    const Full direction = directions.along(b);
    const bool cov = directions.moves_cov(b), mean = directions.moves_mean(b);
    if (!expected) {
      out.col(b) = -directions.along_all(tangent.along(direction, cov, true));
      return;
    }
    // E'E of what is linear in the covariance matrices: see nested.hpp
    if (cov) out.col(b) += directions.along_cov(tangent.along(direction, true, false));
    if (mean) out.col(b) -= directions.along_mean(tangent.along(direction, false, true));
  });
  if (!expected) out -= directions.second(full_gradient_);
  symmetrise(out);
  return out;
}

LevelBlocks NestedPoint::information(Information kind, const LevelTangents& tangents) const {
  return by_level(whole_information(kind != Information::kObserved, tangents), tangents);
}

std::vector<Matrix> NestedPoint::factor(const LevelTangents& tangents) const {
  return columns_by_level(symmetric_root(whole_information(true, tangents)), tangents);
}

}  // namespace msem
