// Information of nested levels: the derivative of the gradient along one direction of the moments after the
// other, through the same steps as the gradient itself.
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "likelihood/nested/point.hpp"

namespace msem {

class NestedTangent {
 public:
  // `observed`: at the residuals of the data, on all clusters; else at residuals of zero, on one highest
  // cluster of each class.
  NestedTangent(const NestedPoint& point, bool observed)
      : point_(point),
        observed_(observed),
        tree_(observed ? point.arranged_->data : point.arranged_->shape),
        depth_(point.levels_.size()) {
    if (!observed) return;
    for (std::size_t l = 0; l < depth_; ++l) {
      const auto& own = point.vectors_[l];
      inner_.push_back(outer(scale_cols(own.zb, tree_.levels[l].weight), own.zb));
      if (l == 0) inner_.back() += point.arranged_->products;
      cross_.push_back(outer(scale_cols(own.ub, tree_.levels[l].weight), own.zb));
      squares_.push_back(outer(scale_cols(own.ub, tree_.levels[l].weight), own.ub));
      sums_.push_back(apply(own.ub, tree_.levels[l].weight));
      weighted_.push_back(product(point.levels_[l].zz, own.ez));
    }
  }

  // Derivative of the gradient of the log-likelihood for changes of the covariance matrices of all levels
  // and of the means of all variables.
  Implied along(const std::vector<Matrix>& cov, const Vector& mean);

 private:
  using Level = NestedPoint::Level;
  // Derivatives of what has the same name at the point.
  struct Change {
    Matrix b, c, zz, t;
    Vector mean;
    std::vector<Matrix> u, omega, v, k, n;
    Matrix ez, e, us;
  };

  void change_level(std::size_t l, const Matrix& cov, const Vector& mean);
  void change_classes();
  void change_upwards();
  LevelImplied change_gradient(std::size_t l, const Matrix& above, std::vector<Matrix>& ds, Matrix& next,
                               Vector& mean) const;

  const NestedPoint& point_;
  bool observed_;
  const NestedTree& tree_;
  std::size_t depth_;
  std::vector<Matrix> inner_, cross_, squares_, weighted_;
  std::vector<Vector> sums_;
  std::vector<Change> change_;
};

void NestedTangent::change_level(std::size_t l, const Matrix& cov, const Vector& mean) {
  const NestedVariables& own = point_.arranged_->variables[l];
  const Level& level = point_.levels_[l];
  Change& d = change_[l];
  const Index r = own.open, q = static_cast<Index>(own.z.size());
  const Matrix zz = select(cov, own.z_rows, own.z_rows);
  d.zz = -sandwich(level.zz, zz);
  Matrix uz = Matrix::Zero(r, q);
  put_rows(uz, own.open_at, select(cov, own.open_rows, own.z_rows));
  d.c = Matrix::Zero(r, r);
  put(d.c, own.open_at, own.open_at, select(cov, own.open_rows, own.open_rows));
  // dC = dS_uu - dS_uz B' - B dS_zu + B dS_zz B',   dB = (dS_uz - B dS_zz) S_zz^-1
  const Matrix bz = product(level.b, zz);
  d.c += outer(bz, level.b);
  const Matrix ub = outer(uz, level.b);
  add_with_transpose(d.c, -1, ub);
  uz -= bz;
  d.b = product(uz, level.zz);
  d.t = -product(d.b, level.j);
  d.mean = select(mean, own.z);
}

void NestedTangent::change_classes() {
  const NestedClasses& classes = point_.arranged_->classes;
  std::vector<Matrix> seen;
  for (std::size_t l = 0; l < depth_; ++l) {
    const Level& level = point_.levels_[l];
    Change& d = change_[l];
    const Index r = level.c.rows(), count = classes.count(static_cast<Index>(l));
    const Matrix own = sandwich(level.j, d.zz);
    std::vector<Matrix> next(count, own);
    for (auto* all : {&d.u, &d.omega, &d.v, &d.k, &d.n}) all->resize(count);
    for (Index c = 0; c < count; ++c) {
      if (r == 0) {
        d.u[c] = d.omega[c] = d.v[c] = Matrix(0, 0);
        d.k[c] = d.n[c] = Matrix(0, level.t.cols());
        continue;
      }
      Matrix p = Matrix::Zero(r, r);
      for (const auto& [below, times] : classes.levels[l][c]) p += times * seen[below];
      d.u[c] = outer_sandwich(level.omega[c], p) - sandwich(level.u[c], d.c);
      d.omega[c] = -product(d.u[c], level.c);
      add_product(d.omega[c], -1, level.u[c], d.c);
      d.v[c] = sandwich(level.omega[c], d.c) - sandwich(level.v[c], p);
      d.k[c] = product(d.u[c], level.t);
      add_product(d.k[c], 1, level.u[c], d.t);
      d.n[c] = cross(d.omega[c], level.t);
      add_cross(d.n[c], 1, level.omega[c], d.t);
      add_cross(next[c], 1, level.t, d.k[c]);
      add_cross(next[c], 1, d.t, level.k[c]);
    }
    seen = std::move(next);
  }
}

void NestedTangent::change_upwards() {
  Matrix above(0, 0);
  for (std::size_t l = depth_; l-- > 0;) {
    const Level& level = point_.levels_[l];
    const NestedTree::Level& nodes = tree_.levels[l];
    Change& d = change_[l];
    const Matrix given = of_parents(above, nodes);
    d.ez = -product(level.j, given);
    d.ez.colwise() -= d.mean;
    above = product(level.t, given);
    above.colwise() -= apply(level.b, d.mean);
    if (observed_) add_product(above, 1, d.b, point_.vectors_[l].ez);
  }
  Matrix q(0, tree_.levels[0].count());
  for (std::size_t l = 0; l < depth_; ++l) {
    const Level& level = point_.levels_[l];
    const NestedTree::Level& nodes = tree_.levels[l];
    Change& d = change_[l];
    d.us = Matrix::Zero(q.rows(), q.cols());
    if (observed_) add_by_class(d.us, 1, d.omega, nodes, point_.vectors_[l].q);
    add_by_class(d.us, 1, level.omega, nodes, q);
    d.e = product(level.c, d.us);
    if (observed_) add_product(d.e, 1, d.c, point_.vectors_[l].u);
    if (l + 1 == depth_) break;
    Matrix weighted = product(level.zz, d.ez);
    if (observed_) add_product(weighted, 1, d.zz, point_.vectors_[l].ez);
    Matrix next = cross(level.t, d.us);
    add_cross(next, 1, level.j, weighted);
    if (observed_) add_cross(next, 1, d.t, point_.vectors_[l].u);
    q = summed_to_parents(next, nodes, tree_.levels[l + 1].count());
  }
}

LevelImplied NestedTangent::change_gradient(std::size_t l, const Matrix& above, std::vector<Matrix>& ds,
                                            Matrix& next, Vector& mean) const {
  const NestedClasses& classes = point_.arranged_->classes;
  const NestedVariables& own = point_.arranged_->variables[l];
  const Level& level = point_.levels_[l];
  const NestedTree::Level& nodes = tree_.levels[l];
  const Change& d = change_[l];
  const Index r = level.c.rows(), q = level.zz.rows(), up = level.t.cols();
  // residuals given everything
  const Matrix given = of_parents(above, nodes);
  Matrix ub = d.us, zb = d.ez;
  next = d.e;
  add_by_class(ub, -1, level.k, nodes, given);
  add_product(zb, -1, level.j, given);
  add_by_class(next, 1, level.n, nodes, given);
  Matrix uu = Matrix::Zero(r, r), uz = Matrix::Zero(r, q), zz = Matrix::Zero(q, q);
  if (observed_) {
    const auto& v = point_.vectors_[l];
    if (l + 1 < depth_) {
      const Matrix at = of_parents(point_.vectors_[l + 1].eb, nodes);
      add_by_class(ub, -1, d.k, nodes, at);
      add_by_class(next, 1, d.n, nodes, at);
    }
    const Matrix u = scale_cols(ub, nodes.weight), z = scale_cols(zb, nodes.weight);
    add_with_transpose(uu, 1, outer(u, v.ub));
    add_with_transpose(zz, 1, outer(z, v.zb));
    add_outer(uz, 1, u, v.zb);
    add_outer(uz, 1, scale_cols(v.ub, nodes.weight), zb);
  }
  // covariance matrices given everything, passed on to the level below
  Matrix dc = Matrix::Zero(r, r), through = Matrix::Zero(r, up), dthrough = Matrix::Zero(r, up);
  Matrix c = Matrix::Zero(r, r), total = Matrix::Zero(up, up), dtotal = Matrix::Zero(up, up);
  std::vector<Matrix> below(l ? classes.count(static_cast<Index>(l) - 1) : 0, Matrix::Zero(r, r));
  const Vector& weight = classes.weight[l];
  for (Index k = 0; k < classes.count(static_cast<Index>(l)); ++k) {
    const Matrix &s = level.s[k], &own_ds = ds[k];
    total += s;
    dtotal += own_ds;
    if (r == 0) continue;
    dc += weight[k] * d.u[k];
    c += weight[k] * level.u[k];
    Matrix v = weight[k] * d.v[k];
    if (up) {
      const Matrix ks = product(level.k[k], s), kds = product(level.k[k], own_ds), dks = product(d.k[k], s);
      add_outer(c, -1, ks, level.k[k]);
      add_outer(dc, -1, kds, level.k[k]);
      add_with_transpose(dc, -1, outer(dks, level.k[k]));
      through += ks;
      dthrough += kds + dks;
      add_outer(v, 1, product(level.n[k], own_ds), level.n[k]);
      add_with_transpose(v, 1, outer(product(d.n[k], s), level.n[k]));
    }
    for (const auto& [child, times] : classes.levels[l][k]) below[child] += times * v;
  }
  ds = std::move(below);
  // assembled as the gradient is
  Matrix g_c = -0.5 * c, dg_c = 0.5 * (uu - dc);
  Matrix g_b = outer(through, level.j), dg_b = uz + outer(dthrough, level.j);
  Matrix inner = outer_sandwich(level.j, total);
  const Matrix dinner = zz + outer_sandwich(level.j, dtotal);
  Vector u = Vector::Zero(r), z = Vector::Zero(q);
  if (observed_) {
    g_c += 0.5 * squares_[l];
    g_b += cross_[l];
    inner += inner_[l];
    u = sums_[l];
    z = apply(point_.vectors_[l].zb, nodes.weight);
  }
  const double count = weight.sum();
  const Matrix gbz = product(g_b, level.zz);
  Matrix dgbz = product(dg_b, level.zz);
  add_product(dgbz, 1, g_b, d.zz);
  Matrix dgcb = product(dg_c, level.b);
  add_product(dgcb, 1, g_c, d.b);
  const Matrix gcb = product(g_c, level.b);
  Matrix out_zz = -0.5 * (count * d.zz - sandwich(level.zz, dinner));
  add_with_transpose(out_zz, 0.5, product(product(d.zz, inner), level.zz));
  add_cross(out_zz, 1, d.b, gcb);
  add_cross(out_zz, 1, level.b, dgcb);
  Matrix x = cross(d.b, gbz);
  add_cross(x, 1, level.b, dgbz);
  add_with_transpose(out_zz, -0.5, x);
  const Matrix out_uz = 0.5 * dgbz - dgcb;
  const Index n = static_cast<Index>(point_.data_->levels[l].size());
  LevelImplied out{Vector::Zero(n), Matrix::Zero(n, n)};
  put(out.cov, own.open_rows, own.open_rows, select(dg_c, own.open_at, own.open_at));
  const Matrix part = select_rows(out_uz, own.open_at);
  put(out.cov, own.open_rows, own.z_rows, part);
  put(out.cov, own.z_rows, own.open_rows, part.transpose());
  put(out.cov, own.z_rows, own.z_rows, out_zz);
  Vector g = apply(level.zz, apply(zb, nodes.weight));
  add_applied_transposed(g, -1, level.b, apply(ub, nodes.weight));
  if (observed_) {
    add_applied(g, 1, d.zz, z);
    add_applied_transposed(g, -1, d.b, u);
  }
  for (std::size_t i = 0; i < own.z.size(); ++i) mean[own.z[i]] = g[i];
  return out;
}

Implied NestedTangent::along(const std::vector<Matrix>& cov, const Vector& mean) {
  check_interrupt();
  change_.resize(depth_);
  for (std::size_t l = 0; l < depth_; ++l) change_level(l, cov[l], mean);
  change_classes();
  change_upwards();
  Implied out(depth_);
  Vector means = Vector::Zero(mean.size());
  std::vector<Matrix> ds(point_.arranged_->classes.count(static_cast<Index>(depth_) - 1), Matrix(0, 0));
  Matrix above(0, 0);
  for (std::size_t l = depth_; l-- > 0;) {
    Matrix next;
    out[l] = change_gradient(l, above, ds, next, means);
    above = std::move(next);
  }
  for (std::size_t l = 0; l < depth_; ++l) out[l].mean = select(means, point_.data_->levels[l]);
  return out;
}

// Over the parameters of all levels, one after the other.
Matrix NestedPoint::whole_information(bool expected, const LevelTangents& tangents) const {
  const std::size_t depth = levels_.size();
  std::vector<Matrix> covs, zero;
  std::vector<Index> first = {0};
  for (std::size_t l = 0; l < depth; ++l) {
    const Index n = tangents[l].n();
    covs.push_back(rotated_cov(tangents[l], Matrix::Identity(n, n)));
    zero.push_back(Matrix::Zero(n, n));
    first.push_back(first.back() + tangents[l].k());
  }
  Matrix out(first.back(), first.back());
  NestedTangent tangent(*this, !expected);
  for (std::size_t l = 0; l < depth; ++l) {
    const Index n = tangents[l].n();
    for (Index b = 0; b < tangents[l].k(); ++b) {
      std::vector<Matrix> cov = zero;
      cov[l] = slice(covs[l], b, n, n);
      Vector mean = Vector::Zero(data_->nvariables());
      for (Index i = 0; i < n; ++i) mean[data_->levels[l][i]] = tangents[l].mean(i, b);
      const Implied d = tangent.along(cov, mean);
      for (std::size_t m = 0; m < depth; ++m) {
        const Eigen::Map<const Vector> g(d[m].cov.data(), d[m].cov.size());
        Vector part = apply_transposed(covs[m], g);
        if (!expected) part = -part;
        add_applied_transposed(part, -1, tangents[m].mean, d[m].mean);
        out.col(first[l] + b).segment(first[m], part.size()) = part;
      }
    }
  }
  symmetrise(out);
  return out;
}

LevelBlocks NestedPoint::information(Information kind, const LevelTangents& tangents) const {
  const Matrix whole = whole_information(kind != Information::kObserved, tangents);
  LevelBlocks out(tangents.size());
  Index row = 0;
  for (std::size_t a = 0; a < tangents.size(); ++a) {
    Index col = row;
    for (std::size_t b = a; b < tangents.size(); ++b) {
      out(a, b) = whole.block(row, col, tangents[a].k(), tangents[b].k());
      col += tangents[b].k();
    }
    row += tangents[a].k();
  }
  return out;
}

std::vector<Matrix> NestedPoint::factor(const LevelTangents& tangents) const {
  const Matrix root = symmetric_root(whole_information(true, tangents));
  std::vector<Matrix> out;
  Index at = 0;
  for (const Tangents& t : tangents) {
    out.push_back(root.middleCols(at, t.k()));
    at += t.k();
  }
  return out;
}

}  // namespace msem
