#include "likelihood/nested/nested.hpp"

#include <map>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "likelihood/nested/directions.hpp"
#include "likelihood/nested/point.hpp"

namespace msem {

namespace {

constexpr double kRounding = 1e-14;  // share of a diagonal element that is left, and that is none

// L with L L' = a for a positive semidefinite matrix: columns that those before them determine are 0.
Matrix semidefinite_root(const Matrix& a) {
  const Index n = a.rows();
  Matrix out = Matrix::Zero(n, n);
  for (Index j = 0; j < n; ++j) {
    double pivot = a(j, j);
    for (Index k = 0; k < j; ++k) pivot -= out(j, k) * out(j, k);
    if (!(pivot > kRounding * static_cast<double>(n) * a(j, j))) continue;
    out(j, j) = std::sqrt(pivot);
    for (Index i = j + 1; i < n; ++i) {
      double x = a(i, j);
      for (Index k = 0; k < j; ++k) x -= out(i, k) * out(j, k);
      out(i, j) = x / out(j, j);
    }
  }
  return out;
}

}  // namespace

std::vector<NestedMap<double>::Level> as_map_levels(const Implied& moments) {
  std::vector<NestedMap<double>::Level> out;
  for (const LevelImplied& one : moments) out.push_back({one.mean, one.cov});
  return out;
}

Matrix curvature(const Matrix& b, const Matrix& zz, double count, const Matrix& c, const Matrix& x,
                 const Matrix& y) {
  const Index r = c.rows(), q = zz.rows();
  Matrix out(r + q, r + q);
  out.bottomRightCorner(q, q) = count * zz - sandwich(zz, y);
  if (r == 0) return out;
  const Matrix xz = product(x, zz), cb = product(c, b);
  const Matrix corner = -cb - xz;
  out.topLeftCorner(r, r) = c;
  out.topRightCorner(r, q) = corner;
  out.bottomLeftCorner(q, r) = corner.transpose();
  add_cross(out.bottomRightCorner(q, q), 1, b, cb);
  add_with_transpose(out.bottomRightCorner(q, q), 1, cross(b, xz));
  return out;
}

bool NestedPoint::prepare(const NestedData& data, const NestedArrangement& arranged, Implied moments) {
  data_ = &data;
  arranged_ = &arranged;
  moments_ = std::move(moments);
  for (const LevelImplied& one : moments_) {
    if (!one.mean.allFinite() || !one.cov.allFinite()) return false;
  }
  const NestedMap<double> map(data, arranged.coordinates, as_map_levels(moments_));
  const Full full = map.full();
  const std::size_t depth = data.levels.size();
  levels_.resize(depth);
  value_ = arranged.constant;
  for (std::size_t l = 0; l < depth; ++l) {
    const NestedCoordinates& own = arranged.coordinates[l];
    Level& level = levels_[l];
    const Index r = own.open, q = static_cast<Index>(own.z.size());
    const Matrix &cov = full[l].cov, uz = cov.topRightCorner(r, q);
    level.mean = full[l].z;
    level.open = full[l].open;
    for (std::size_t pattern = 0; pattern < data.patterns[l].size(); ++pattern) {
      const Pattern& seen = data.patterns[l][pattern];
      Level::OfPattern one{Matrix::Zero(r, q), cov.topLeftCorner(r, r), Matrix::Zero(q, q)};
      if (!seen.empty()) {
        std::vector<Index> rows = seen;
        for (Index& i : rows) i += r;
        Cholesky chol;
        if (!chol.compute(select(cov, rows, rows))) return false;
        put(one.zz, seen, seen, chol.inverse());
        one.log_det = chol.log_det();
        one.b = product(uz, one.zz);
        add_outer(one.c, -1, one.b, uz);
        symmetrise(one.c);
      }
      value_ += arranged.of_pattern[l][static_cast<Index>(pattern)] * one.log_det;
      if (l == 0) value_ += one.zz.cwiseProduct(arranged.products[pattern]).sum();
      level.patterns.push_back(std::move(one));
    }
    for (const NestedKind& kind : arranged.kinds[l]) {
      level.t.push_back(kind.h);
      add_product(level.t.back(), -1, level.patterns[kind.pattern].b, kind.j);
    }
  }
  if (!prepare_classes()) return false;
  residuals();
  if (!std::isfinite(value_)) return false;
  std::vector<Sums> sums(depth);
  std::vector<std::vector<Matrix>> passed = passed_down(arranged.classes.weight.back(), sums);
  for (std::size_t l = 0; l < depth; ++l) {
    const NestedTree::Level& nodes = arranged.data.levels[l];
    const Index r = arranged.coordinates[l].open, q = static_cast<Index>(arranged.coordinates[l].z.size());
    const Matrix weighted = scale_cols(vectors_[l].s, nodes.weight);
    sums[l].squares = outer(weighted, vectors_[l].s);
    sums[l].open = weighted.topRows(r).rowwise().sum();
    sums[l].z = Vector::Zero(q);
    const std::vector<Index>& kind = arranged.classes.kind[l];
    for (std::size_t c = 0; c < kind.size(); ++c) {
      for (Index k = nodes.first[c]; k < nodes.first[c + 1]; ++k)
        sums[l].z += arranged.kinds[l][kind[c]].constant.cwiseProduct(weighted.col(k).tail(q));
    }
    levels_[l].s = std::move(passed[l]);
  }
  for (std::size_t pattern = 0; pattern < arranged.products.size(); ++pattern) {
    sums[0].patterns[pattern].products = arranged.products[pattern];
    sums[0].patterns[pattern].count += arranged.beyond[static_cast<Index>(pattern)];
  }
  full_gradient_ = assemble(sums, 1);
  return true;
}

bool NestedPoint::prepare_classes() {
  const NestedClasses& classes = arranged_->classes;
  std::vector<Matrix> seen;  // precision that the next level sees, by class
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    Level& level = levels_[l];
    const std::vector<NestedKind>& kinds = arranged_->kinds[l];
    const Index r = arranged_->coordinates[l].open,
                above = static_cast<Index>(arranged_->coordinates[l].above.size()),
                count = classes.count(static_cast<Index>(l));
    std::vector<Matrix> own, next(count);
    for (const NestedKind& kind : kinds) own.push_back(sandwich(kind.j, level.patterns[kind.pattern].zz));
    for (auto* all : {&level.u, &level.omega, &level.v, &level.k, &level.n}) all->resize(count);
    level.log_dets.assign(count, 0);
    for (Index c = 0; c < count; ++c) {
      if (c % 1024 == 0) check_interrupt();
      const Index kind = classes.kind[l][c];
      if (r == 0) {
        level.u[c] = level.omega[c] = level.v[c] = Matrix(0, 0);
        level.k[c] = level.n[c] = Matrix(0, above);
        next[c] = own[kind];
        continue;
      }
      const Matrix &cov = level.patterns[kinds[kind].pattern].c, &t = level.t[kind];
      Matrix p = Matrix::Zero(r, r);
      for (const auto& [below, times] : classes.levels[l][c]) p += times * seen[below];
      const Matrix lower = semidefinite_root(p);
      Matrix m = sandwich(lower, cov);
      m.diagonal().array() += 1;
      symmetrise(m);
      Cholesky inner;
      if (!p.allFinite() || !inner.compute(m)) return false;
      level.log_dets[c] = inner.log_det();
      value_ += classes.weight[l][c] * inner.log_det();
      const Matrix half = inner.whiten(lower.transpose());
      level.u[c] = cross(half, half);
      Matrix omega = Matrix::Identity(r, r);
      add_product(omega, -1, level.u[c], cov);
      level.v[c] = product(cov, omega);
      symmetrise(level.v[c]);
      level.k[c] = product(level.u[c], t);
      level.n[c] = cross(omega, t);
      level.omega[c] = std::move(omega);
      next[c] = own[kind];
      add_cross(next[c], 1, t, level.k[c]);
      symmetrise(next[c]);
    }
    seen = std::move(next);
  }
  return true;
}

void NestedPoint::residuals() {
  const NestedTree& tree = arranged_->data;
  const std::size_t depth = levels_.size();
  vectors_.resize(depth);
  // what the numbers of classes say: matrices of patterns and of kinds
  struct Numbers {
    std::vector<Index> pattern;
    std::vector<Matrix> b, c, zz, j;
  };
  std::vector<Numbers> numbers(depth);
  for (std::size_t l = 0; l < depth; ++l) {
    Numbers& own = numbers[l];
    for (const Index kind : arranged_->classes.kind[l])
      own.pattern.push_back(arranged_->kinds[l][kind].pattern);
    for (const auto& one : levels_[l].patterns) {
      own.b.push_back(one.b);
      own.c.push_back(one.c);
      own.zz.push_back(one.zz);
    }
    for (const NestedKind& kind : arranged_->kinds[l]) own.j.push_back(kind.j);
  }
  Matrix above(0, 0);  // what is expected of the open vector of the parents
  for (std::size_t l = depth; l-- > 0;) {
    const Level& level = levels_[l];
    const NestedTree::Level& nodes = tree.levels[l];
    const std::vector<Index>& kind = arranged_->classes.kind[l];
    Matrix off = nodes.values;
    for (std::size_t c = 0; c < kind.size(); ++c) {
      const Index at = nodes.first[c], count = nodes.first[c + 1] - at;
      const Vector mean = arranged_->kinds[l][kind[c]].constant.cwiseProduct(level.mean);
      for (Index k = at; k < at + count; ++k) off.col(k) -= mean;
    }
    const Matrix given = of_parents(above, nodes);
    vectors_[l].ez = off;
    add_by_class(vectors_[l].ez, -1, numbers[l].j, kind, nodes, given);
    above = level.open.replicate(1, nodes.count());
    if (!above.rows()) continue;
    add_by_class(above, 1, level.t, kind, nodes, given);
    add_by_class(above, 1, numbers[l].b, numbers[l].pattern, nodes, off);
    vectors_[l].expected = above;
  }
  Matrix q(0, tree.levels[0].count());
  for (std::size_t l = 0; l < depth; ++l) {
    const Level& level = levels_[l];
    const NestedTree::Level& nodes = tree.levels[l];
    const std::vector<Index>& kind = arranged_->classes.kind[l];
    Vectors& own = vectors_[l];
    own.u = Matrix::Zero(q.rows(), q.cols());
    own.e = own.u;
    if (q.rows()) {
      add_by_class(own.u, 1, level.omega, nodes, q);
      add_by_class(own.e, 1, numbers[l].c, numbers[l].pattern, nodes, own.u);
    }
    Matrix weighted = Matrix::Zero(own.ez.rows(), own.ez.cols());
    add_by_class(weighted, 1, numbers[l].zz, numbers[l].pattern, nodes, own.ez);
    own.square.resize(nodes.count());
    for (Index k = 0; k < nodes.count(); ++k)
      own.square[k] = own.ez.col(k).dot(weighted.col(k)) - q.col(k).dot(own.e.col(k));
    value_ += nodes.weight.dot(own.square);
    own.q = std::move(q);
    if (l + 1 == depth) break;
    Matrix next = Matrix::Zero(static_cast<Index>(arranged_->coordinates[l].above.size()), nodes.count());
    if (own.u.rows()) add_by_class(next, 1, level.t, kind, nodes, own.u, true);
    add_by_class(next, 1, numbers[l].j, kind, nodes, weighted, true);
    q = summed_to_parents(next, nodes, tree.levels[l + 1].count());
  }
  above = Matrix(0, 0);
  for (std::size_t l = depth; l-- > 0;) {
    const Level& level = levels_[l];
    const NestedTree::Level& nodes = tree.levels[l];
    Vectors& own = vectors_[l];
    const Matrix given = of_parents(above, nodes);
    own.ub = own.u;
    own.zb = own.ez;
    own.eb = own.e;
    add_by_class(own.zb, -1, numbers[l].j, arranged_->classes.kind[l], nodes, given);
    Matrix z = Matrix::Zero(own.zb.rows(), own.zb.cols());
    add_by_class(z, 1, numbers[l].zz, numbers[l].pattern, nodes, own.zb);
    if (own.ub.rows()) {
      add_by_class(own.ub, -1, level.k, nodes, given);
      add_by_class(own.eb, 1, level.n, nodes, given);
      add_by_class(z, -1, numbers[l].b, numbers[l].pattern, nodes, own.ub, true);
    }
    own.s.resize(own.ub.rows() + z.rows(), nodes.count());
    own.s.topRows(own.ub.rows()) = own.ub;
    own.s.bottomRows(z.rows()) = z;
    above = own.eb;
  }
}

NestedPoint::Sums NestedPoint::no_sums(std::size_t l) const {
  const NestedCoordinates& own = arranged_->coordinates[l];
  const Index r = own.open, q = static_cast<Index>(own.z.size());
  const std::size_t patterns = levels_[l].patterns.size();
  Sums out;
  out.patterns.assign(patterns,
                      {0, Matrix::Zero(r, r), Matrix::Zero(r, q), Matrix::Zero(q, q), Matrix(0, 0)});
  out.squares = Matrix::Zero(r + q, r + q);
  out.open = Vector::Zero(r);
  out.z = Vector::Zero(q);
  return out;
}

// Sums over so many highest clusters of each class, without those of residuals; and, by level, the posterior
// covariance matrices of the open vectors above, summed over the clusters of each class.
std::vector<std::vector<Matrix>> NestedPoint::passed_down(const Vector& tops, std::vector<Sums>& sums) const {
  const NestedClasses& classes = arranged_->classes;
  Vector weight = tops;
  std::vector<std::vector<Matrix>> out(levels_.size());
  std::vector<Matrix> s(tops.size(), Matrix(0, 0));
  for (std::size_t l = levels_.size(); l-- > 0;) {
    const Level& level = levels_[l];
    const NestedCoordinates& coordinates = arranged_->coordinates[l];
    const Index r = coordinates.open, above = static_cast<Index>(coordinates.above.size());
    Sums& own = sums[l];
    own = no_sums(l);
    Vector below = Vector::Zero(l ? classes.count(static_cast<Index>(l) - 1) : 0);
    std::vector<Matrix> next(below.size());
    for (auto& one : next) one = Matrix::Zero(r, r);
    for (Index c = 0; c < weight.size(); ++c) {
      const NestedKind& kind = arranged_->kinds[l][classes.kind[l][c]];
      Sums::OfPattern& part = own.patterns[kind.pattern];
      part.count += weight[c];
      if (above) part.y += outer_sandwich(kind.j, s[c]);
      if (r == 0) {
        for (const auto& [child, times] : classes.levels[l][c]) below[child] += times * weight[c];
        continue;
      }
      part.c += weight[c] * level.u[c];
      Matrix v = weight[c] * level.v[c];
      if (above) {
        const Matrix ks = product(level.k[c], s[c]);
        add_outer(part.c, -1, ks, level.k[c]);
        add_outer(part.x, 1, ks, kind.j);
        add_outer(v, 1, product(level.n[c], s[c]), level.n[c]);
      }
      for (const auto& [child, times] : classes.levels[l][c]) {
        below[child] += times * weight[c];
        next[child] += times * v;
      }
    }
    weight = std::move(below);
    out[l] = std::move(s);
    s = std::move(next);
  }
  return out;
}

// The same of one highest cluster of a class, down through what it has only.
void NestedPoint::shared_by_class(Index top_class, std::vector<Sums>& sums) const {
  const NestedClasses& classes = arranged_->classes;
  struct Passed {
    double weight;
    Matrix s;
  };
  std::map<Index, Passed> here;
  here[top_class] = {1, Matrix(0, 0)};
  for (std::size_t l = levels_.size(); l-- > 0;) {
    const Level& level = levels_[l];
    const NestedCoordinates& coordinates = arranged_->coordinates[l];
    const Index r = coordinates.open;
    const bool above = !coordinates.above.empty();
    sums[l] = no_sums(l);
    std::map<Index, Passed> next;
    for (const auto& [c, passed] : here) {
      const NestedKind& kind = arranged_->kinds[l][classes.kind[l][c]];
      Sums::OfPattern& part = sums[l].patterns[kind.pattern];
      part.count += passed.weight;
      if (above) part.y += outer_sandwich(kind.j, passed.s);
      Matrix v = Matrix::Zero(r, r);
      if (r) {
        part.c += passed.weight * level.u[c];
        v = passed.weight * level.v[c];
        if (above) {
          const Matrix ks = product(level.k[c], passed.s);
          add_outer(part.c, -1, ks, level.k[c]);
          add_outer(part.x, 1, ks, kind.j);
          add_outer(v, 1, product(level.n[c], passed.s), level.n[c]);
        }
      }
      for (const auto& [child, times] : classes.levels[l][c]) {
        Passed& to = next.try_emplace(child, Passed{0, Matrix::Zero(r, r)}).first->second;
        to.weight += times * passed.weight;
        to.s += times * v;
      }
    }
    here = std::move(next);
  }
}

// The gradient of the log-likelihood, times a scale.
NestedPoint::Full NestedPoint::assemble(const std::vector<Sums>& sums, double scale) const {
  Full out;
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    const Sums& s = sums[l];
    FullLevel<double> one{s.squares, scale * s.open, scale * s.z};
    const Index q = s.z.size();
    for (std::size_t pattern = 0; pattern < s.patterns.size(); ++pattern) {
      const Sums::OfPattern& part = s.patterns[pattern];
      if (part.count == 0) continue;
      const Level::OfPattern& own = levels_[l].patterns[pattern];
      one.cov -= curvature(own.b, own.zz, part.count, part.c, part.x, part.y);
      if (part.products.size()) one.cov.bottomRightCorner(q, q) += sandwich(own.zz, part.products);
    }
    one.cov *= 0.5 * scale;
    out.push_back(std::move(one));
  }
  return out;
}

Implied NestedPoint::gradient() const {
  const NestedMap<double> map(*data_, arranged_->coordinates, as_map_levels(moments_));
  Implied out;
  for (auto& one : map.back(full_gradient_)) out.push_back({-2 * one.mean, -2 * one.cov});
  return out;
}

std::vector<Matrix> NestedPoint::cluster_scores(const LevelTangents& tangents) const {
  const Index K = data_->nclusters(), p = static_cast<Index>(arranged_->coordinates[0].z.size());
  const NestedClasses& classes = arranged_->classes;
  const std::size_t depth = levels_.size();
  std::vector<Matrix> out;
  std::vector<Index> first = {0};
  for (const Tangents& t : tangents) {
    out.push_back(Matrix::Zero(K, t.k()));
    first.push_back(first.back() + t.k());
  }
  const NestedDirections directions(*data_, *arranged_, moments_, tangents);
  // clusters of each level, and products, by highest cluster
  std::vector<std::vector<std::vector<Index>>> members(depth);
  for (std::size_t l = 0; l < depth; ++l) {
    members[l].resize(K);
    const NestedTree::Level& nodes = arranged_->data.levels[l];
    for (Index k = 0; k < nodes.count(); ++k) members[l][nodes.top[k]].push_back(k);
  }
  std::vector<std::vector<Index>> parts(K), of_class(classes.count(data_->nlevels() - 1));
  for (std::size_t i = 0; i < data_->product_top.size(); ++i)
    parts[data_->product_top[i]].push_back(static_cast<Index>(i));
  std::vector<std::vector<Index>> kind(depth);  // of every cluster
  for (std::size_t l = 0; l < depth; ++l) {
    const NestedTree::Level& nodes = arranged_->data.levels[l];
    kind[l].resize(nodes.count());
    for (std::size_t c = 0; c + 1 < nodes.first.size(); ++c) {
      for (Index k = nodes.first[c]; k < nodes.first[c + 1]; ++k) kind[l][k] = classes.kind[l][c];
    }
  }
  for (Index k = 0; k < K; ++k) of_class[arranged_->top_class[k]].push_back(k);
  for (std::size_t c = 0; c < of_class.size(); ++c) {
    if (of_class[c].empty()) continue;
    std::vector<Sums> shared(depth);
    shared_by_class(static_cast<Index>(c), shared);
    for (const Index k : of_class[c]) {
      check_interrupt();
      std::vector<Sums> sums = shared;
      for (std::size_t l = 0; l < depth; ++l) {
        const NestedTree::Level& nodes = arranged_->data.levels[l];
        Sums& s = sums[l];
        const Index r = s.open.size(), q = s.z.size();
        const Matrix own = select_cols(vectors_[l].s, members[l][k]);
        const Matrix weighted = scale_cols(own, select(nodes.weight, members[l][k]) / data_->weight[k]);
        s.squares = outer(weighted, own);
        s.open = weighted.topRows(r).rowwise().sum();
        for (std::size_t i = 0; i < members[l][k].size(); ++i)
          s.z += arranged_->kinds[l][kind[l][members[l][k][i]]].constant.cwiseProduct(
              weighted.col(static_cast<Index>(i)).tail(q));
      }
      for (const Index part : parts[k]) {
        Sums::OfPattern& own = sums[0].patterns[data_->product_pattern[part]];
        own.count += data_->beyond[part];
        own.products = unpack_lower(data_->products, part, p);
      }
      const Vector score = directions.along_all(assemble(sums, 1));
      for (std::size_t l = 0; l < depth; ++l)
        out[l].row(k) = score.segment(first[l], first[l + 1] - first[l]);
    }
  }
  return out;
}

Vector NestedPoint::cluster_loglik() const {
  const Index K = data_->nclusters(), p = static_cast<Index>(arranged_->coordinates[0].z.size());
  Vector out = Vector::Zero(K);
  const auto each = [&](std::size_t l, Index pattern) {
    return kLog2Pi * static_cast<double>(data_->patterns[l][pattern].size()) +
           levels_[l].patterns[pattern].log_det;
  };
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    const NestedTree::Level& nodes = arranged_->data.levels[l];
    const Level& level = levels_[l];
    const Vectors& own = vectors_[l];
    for (std::size_t c = 0; c + 1 < nodes.first.size(); ++c) {
      const Index pattern = arranged_->kinds[l][arranged_->classes.kind[l][c]].pattern;
      for (Index k = nodes.first[c]; k < nodes.first[c + 1]; ++k)
        out[nodes.top[k]] += nodes.weight[k] / data_->weight[nodes.top[k]] *
                             (each(l, pattern) + level.log_dets[c] + own.square[k]);
    }
  }
  for (std::size_t i = 0; i < data_->product_top.size(); ++i) {
    const Index row = static_cast<Index>(i), pattern = data_->product_pattern[i];
    out[data_->product_top[i]] +=
        data_->beyond[row] * each(0, pattern) +
        levels_[0].patterns[pattern].zz.cwiseProduct(unpack_lower(data_->products, row, p)).sum();
  }
  return -0.5 * out;
}

std::unique_ptr<LikelihoodPoint> NestedLikelihood::at(Implied moments) const {
  auto point = std::make_unique<NestedPoint>();
  if (!prepare(std::move(moments), *point)) return nullptr;
  return point;
}

std::vector<Matrix> NestedClusters::scores(const Implied& moments, const LevelTangents& tangents) const {
  NestedPoint point;
  if (!whole_->prepare(moments, point)) return {};
  return point.cluster_scores(tangents);
}

Vector NestedClusters::loglik(const Implied& moments) const {
  NestedPoint point;
  return whole_->prepare(moments, point) ? point.cluster_loglik() : Vector();
}

std::shared_ptr<const Likelihood> NestedClusters::alone(Index cluster) const {
  return weighted(Vector::Unit(count(), cluster));
}

std::shared_ptr<const Likelihood> NestedClusters::weighted(const Vector& weights) const {
  const NestedData& data = *whole_->data();  // each counts as often as is said here, not as often as it did
  return std::make_shared<NestedLikelihood>(
      std::make_shared<const NestedData>(weighted_nested(data, weights.cwiseQuotient(data.weight))));
}

}  // namespace msem
