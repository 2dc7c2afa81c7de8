#include "likelihood/nested/nested.hpp"

#include <stdexcept>

#include "base/interrupt.hpp"
#include "likelihood/nested/point.hpp"

namespace msem {

namespace {

Matrix selection(Index rows, const std::vector<Index>& keep, Index from) {
  Matrix out = Matrix::Zero(rows, static_cast<Index>(keep.size()));
  for (std::size_t a = 0; a < keep.size(); ++a) {
    const Index i = keep[a] - from;
    if (i >= 0 && i < rows) out(i, static_cast<Index>(a)) = 1;
  }
  return out;
}

}  // namespace

bool NestedPoint::prepare(const NestedData& data, const NestedArrangement& arranged, Implied moments) {
  data_ = &data;
  arranged_ = &arranged;
  const std::size_t depth = data.levels.size();
  bool fits = moments.size() == depth;
  for (std::size_t l = 0; fits && l < depth; ++l)
    fits = moments[l].mean.size() == static_cast<Index>(data.levels[l].size());
  if (!fits) throw std::invalid_argument("the blocks do not have the variables of the statistics");
  Vector mean = -data.origin;
  for (std::size_t l = 0; l < depth; ++l) {
    for (std::size_t i = 0; i < data.levels[l].size(); ++i) mean[data.levels[l][i]] += moments[l].mean[i];
  }
  if (!mean.allFinite()) return false;
  levels_.resize(depth);
  value_ = arranged.constant;
  for (std::size_t l = 0; l < depth; ++l) {
    const NestedVariables& own = arranged.variables[l];
    Level& level = levels_[l];
    const Matrix& cov = moments[l].cov;
    if (!cov.allFinite()) return false;
    Cholesky chol;
    if (!chol.compute(select(cov, own.z_rows, own.z_rows))) return false;
    level.zz = chol.inverse();
    level.log_det = chol.log_det();
    level.mean = select(mean, own.z);
    const Index r = own.open, q = static_cast<Index>(own.z.size());
    level.b = Matrix::Zero(r, q);
    level.c = Matrix::Zero(r, r);
    const Matrix uz = select(cov, own.open_rows, own.z_rows), paths = product(uz, level.zz);
    put_rows(level.b, own.open_at, paths);
    put(level.c, own.open_at, own.open_at, select(cov, own.open_rows, own.open_rows) - outer(paths, uz));
    symmetrise(level.c);
    level.j = selection(q, own.keep, r);
    level.t = selection(r, own.keep, 0);
    add_product(level.t, -1, level.b, level.j);
    value_ += arranged.data.levels[l].weight.sum() * level.log_det;
  }
  if (!prepare_classes()) return false;
  residuals();
  value_ += cross(levels_[0].zz, arranged.products).trace();
  if (!std::isfinite(value_)) return false;
  std::vector<Sums> sums(depth);
  std::vector<std::vector<Matrix>> passed = passed_down(arranged.classes.weight.back(), sums);
  for (std::size_t l = 0; l < depth; ++l) levels_[l].s = std::move(passed[l]);
  add_vectors(sums);
  gradient_ = assemble(sums, arranged.products, -2);
  return true;
}

bool NestedPoint::prepare_classes() {
  const NestedClasses& classes = arranged_->classes;
  std::vector<Matrix> seen;  // precision that the next level sees, by class
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    Level& level = levels_[l];
    const Index r = level.c.rows(), above = level.t.cols(), count = classes.count(static_cast<Index>(l));
    const Matrix own = sandwich(level.j, level.zz);
    std::vector<Matrix> next(count);
    for (auto* all : {&level.u, &level.omega, &level.v, &level.k, &level.n}) all->resize(count);
    level.log_dets.assign(count, 0);
    for (Index c = 0; c < count; ++c) {
      if (c % 1024 == 0) check_interrupt();
      if (r == 0) {
        level.u[c] = level.omega[c] = level.v[c] = Matrix(0, 0);
        level.k[c] = level.n[c] = Matrix(0, above);
        next[c] = own;
        continue;
      }
      Matrix p = Matrix::Zero(r, r);
      for (const auto& [below, times] : classes.levels[l][c]) p += times * seen[below];
      Cholesky root, inner;
      if (!root.compute(p)) return false;
      const Matrix lower = root.lower();
      Matrix m = sandwich(lower, level.c);
      m.diagonal().array() += 1;
      symmetrise(m);
      if (!inner.compute(m)) return false;
      level.log_dets[c] = inner.log_det();
      value_ += classes.weight[l][c] * inner.log_det();
      const Matrix half = inner.whiten(lower.transpose());
      level.u[c] = cross(half, half);
      Matrix omega = Matrix::Identity(r, r);
      add_product(omega, -1, level.u[c], level.c);
      level.v[c] = product(level.c, omega);
      symmetrise(level.v[c]);
      level.k[c] = product(level.u[c], level.t);
      level.n[c] = cross(omega, level.t);
      level.omega[c] = std::move(omega);
      next[c] = own;
      add_cross(next[c], 1, level.t, level.k[c]);
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
  Matrix above(0, 0);  // what is expected of the open vector of the parents
  for (std::size_t l = depth; l-- > 0;) {
    const Level& level = levels_[l];
    Matrix off = tree.levels[l].values;
    off.colwise() -= level.mean;
    const Matrix given = of_parents(above, tree.levels[l]);
    vectors_[l].ez = off;
    add_product(vectors_[l].ez, -1, level.j, given);
    above = product(level.t, given);
    add_product(above, 1, level.b, off);
  }
  Matrix q(0, tree.levels[0].count());
  for (std::size_t l = 0; l < depth; ++l) {
    const Level& level = levels_[l];
    const NestedTree::Level& nodes = tree.levels[l];
    Vectors& own = vectors_[l];
    own.u = Matrix::Zero(q.rows(), q.cols());
    add_by_class(own.u, 1, level.omega, nodes, q);
    own.e = product(level.c, own.u);
    const Matrix weighted = product(level.zz, own.ez);
    own.square.resize(nodes.count());
    for (Index k = 0; k < nodes.count(); ++k)
      own.square[k] = own.ez.col(k).dot(weighted.col(k)) - q.col(k).dot(own.e.col(k));
    value_ += nodes.weight.dot(own.square);
    own.q = std::move(q);
    if (l + 1 == depth) break;
    Matrix next = cross(level.t, own.u);
    add_cross(next, 1, level.j, weighted);
    q = summed_to_parents(next, nodes, tree.levels[l + 1].count());
  }
  above = Matrix(0, 0);
  for (std::size_t l = depth; l-- > 0;) {
    const Level& level = levels_[l];
    const NestedTree::Level& nodes = tree.levels[l];
    Vectors& own = vectors_[l];
    const Matrix given = of_parents(above, nodes);
    own.ub = own.u;
    add_by_class(own.ub, -1, level.k, nodes, given);
    own.zb = own.ez;
    add_product(own.zb, -1, level.j, given);
    own.eb = own.e;
    add_by_class(own.eb, 1, level.n, nodes, given);
    above = own.eb;
  }
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
    const Index r = level.c.rows(), q = level.zz.rows(), above = level.t.cols();
    Sums& own = sums[l];
    own.count = weight.sum();
    own.c = Matrix::Zero(r, r);
    Matrix through = Matrix::Zero(r, above), total = Matrix::Zero(above, above);
    Vector below = Vector::Zero(l ? classes.count(static_cast<Index>(l) - 1) : 0);
    std::vector<Matrix> next(below.size());
    for (auto& one : next) one = Matrix::Zero(r, r);
    for (Index c = 0; c < weight.size(); ++c) {
      if (weight[c] == 0) continue;
      total += s[c];
      if (r == 0) {
        for (const auto& [child, times] : classes.levels[l][c]) below[child] += times * weight[c];
        continue;
      }
      own.c += weight[c] * level.u[c];
      Matrix v = weight[c] * level.v[c];
      if (above) {
        const Matrix ks = product(level.k[c], s[c]);
        add_outer(own.c, -1, ks, level.k[c]);
        through += ks;
        add_outer(v, 1, product(level.n[c], s[c]), level.n[c]);
      }
      for (const auto& [child, times] : classes.levels[l][c]) {
        below[child] += times * weight[c];
        next[child] += times * v;
      }
    }
    own.b = outer(through, level.j);
    own.j = outer_sandwich(level.j, total);
    own.uu = Matrix::Zero(r, r);
    own.uz = Matrix::Zero(r, q);
    own.zz = Matrix::Zero(q, q);
    own.u = Vector::Zero(r);
    own.z = Vector::Zero(q);
    weight = std::move(below);
    out[l] = std::move(s);
    s = std::move(next);
  }
  return out;
}

void NestedPoint::add_vectors(std::vector<Sums>& sums) const {
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    const NestedTree::Level& nodes = arranged_->data.levels[l];
    const Vectors& own = vectors_[l];
    const Matrix u = scale_cols(own.ub, nodes.weight), z = scale_cols(own.zb, nodes.weight);
    add_outer(sums[l].uu, 1, u, own.ub);
    add_outer(sums[l].uz, 1, u, own.zb);
    add_outer(sums[l].zz, 1, z, own.zb);
    sums[l].u += u.rowwise().sum();
    sums[l].z += z.rowwise().sum();
  }
}

// The gradient of the log-likelihood, times a scale.
Implied NestedPoint::assemble(const std::vector<Sums>& sums, const Matrix& products, double scale) const {
  Implied out;
  Vector mean = Vector::Zero(data_->nvariables());
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    const Level& level = levels_[l];
    const NestedVariables& own = arranged_->variables[l];
    const Sums& s = sums[l];
    const Index n = static_cast<Index>(data_->levels[l].size());
    const Matrix g_c = -0.5 * (s.c - s.uu), g_b = s.uz + s.b;
    const Matrix gbz = product(g_b, level.zz), gcb = product(g_c, level.b);
    Matrix inner = s.zz + s.j;
    if (l == 0) inner += products;
    Matrix zz = -0.5 * (s.count * level.zz - sandwich(level.zz, inner));
    add_cross(zz, 1, level.b, gcb);
    const Matrix x = cross(level.b, gbz);
    add_with_transpose(zz, -0.5, x);
    const Matrix uz = 0.5 * gbz - gcb;
    LevelImplied one{Vector::Zero(n), Matrix::Zero(n, n)};
    put(one.cov, own.open_rows, own.open_rows, scale * select(g_c, own.open_at, own.open_at));
    const Matrix part = scale * select_rows(uz, own.open_at);
    put(one.cov, own.open_rows, own.z_rows, part);
    put(one.cov, own.z_rows, own.open_rows, part.transpose());
    put(one.cov, own.z_rows, own.z_rows, scale * zz);
    Vector g = apply(level.zz, s.z);
    add_applied_transposed(g, -1, level.b, s.u);
    for (std::size_t i = 0; i < own.z.size(); ++i) mean[own.z[i]] = scale * g[i];
    out.push_back(std::move(one));
  }
  for (std::size_t l = 0; l < out.size(); ++l) out[l].mean = select(mean, data_->levels[l]);
  return out;
}

Implied NestedPoint::gradient() const { return gradient_; }

std::vector<Matrix> NestedPoint::cluster_scores(const LevelTangents& tangents) const {
  const Index K = data_->nclusters(), p = levels_[0].zz.rows();
  const NestedClasses& classes = arranged_->classes;
  std::vector<Matrix> out, covs;
  for (const Tangents& t : tangents) {
    out.push_back(Matrix::Zero(K, t.k()));
    covs.push_back(rotated_cov(t, Matrix::Identity(t.n(), t.n())));
  }
  // clusters of each level by highest cluster
  std::vector<std::vector<std::vector<Index>>> members(levels_.size());
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    members[l].resize(K);
    const NestedTree::Level& nodes = arranged_->data.levels[l];
    for (Index k = 0; k < nodes.count(); ++k) members[l][nodes.top[k]].push_back(k);
  }
  std::vector<std::vector<Index>> of_class(classes.count(data_->nlevels() - 1));
  for (Index k = 0; k < K; ++k) of_class[arranged_->top_class[k]].push_back(k);
  for (std::size_t c = 0; c < of_class.size(); ++c) {
    std::vector<Sums> shared(levels_.size());
    Vector one = Vector::Zero(static_cast<Index>(of_class.size()));
    one[static_cast<Index>(c)] = 1;
    passed_down(one, shared);
    for (const Index k : of_class[c]) {
      check_interrupt();
      std::vector<Sums> sums = shared;
      for (std::size_t l = 0; l < levels_.size(); ++l) {
        const NestedTree::Level& nodes = arranged_->data.levels[l];
        Sums& s = sums[l];
        const Matrix ub = select_cols(vectors_[l].ub, members[l][k]),
                     zb = select_cols(vectors_[l].zb, members[l][k]);
        const Vector weight = select(nodes.weight, members[l][k]) / data_->weight[k];
        const Matrix u = scale_cols(ub, weight), z = scale_cols(zb, weight);
        add_outer(s.uu, 1, u, ub);
        add_outer(s.uz, 1, u, zb);
        add_outer(s.zz, 1, z, zb);
        s.u += u.rowwise().sum();
        s.z += z.rowwise().sum();
      }
      const Implied g = assemble(sums, unpack_lower(data_->products, k, p), 1);
      for (std::size_t l = 0; l < g.size(); ++l) {
        const Eigen::Map<const Vector> cov(g[l].cov.data(), g[l].cov.size());
        Vector row = apply_transposed(covs[l], cov);
        add_applied_transposed(row, 1, tangents[l].mean, g[l].mean);
        out[l].row(k) = row;
      }
    }
  }
  return out;
}

Vector NestedPoint::cluster_loglik() const {
  const Index K = data_->nclusters(), p = levels_[0].zz.rows();
  Vector out = Vector::Zero(K);
  for (std::size_t l = 0; l < levels_.size(); ++l) {
    const NestedTree::Level& nodes = arranged_->data.levels[l];
    const Level& level = levels_[l];
    const Vectors& own = vectors_[l];
    const double each = kLog2Pi * static_cast<double>(level.zz.rows()) + level.log_det;
    for (std::size_t c = 0; c + 1 < nodes.first.size(); ++c) {
      for (Index k = nodes.first[c]; k < nodes.first[c + 1]; ++k)
        out[nodes.top[k]] +=
            nodes.weight[k] / data_->weight[nodes.top[k]] * (each + level.log_dets[c] + own.square[k]);
    }
  }
  for (Index k = 0; k < K; ++k) out[k] += cross(levels_[0].zz, unpack_lower(data_->products, k, p)).trace();
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
  return std::make_shared<NestedLikelihood>(
      std::make_shared<const NestedData>(weighted_nested(*whole_->data(), weights)));
}

}  // namespace msem
