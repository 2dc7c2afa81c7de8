// Information of nested levels: the derivative of the gradient along one direction of the moments after the
// other, through the same steps as the gradient itself.
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "likelihood/by_level.hpp"
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
    change_.resize(depth_);
    for (std::size_t l = 0; l < depth_; ++l) {
      // what the gradient is assembled of
      const auto& level = point.levels_[l];
      const auto& classes = point.arranged_->classes;
      const Index r = level.c.rows(), up = level.t.cols();
      Fixed own{Matrix::Zero(r, r), Matrix::Zero(r, up), Matrix::Zero(up, up)};
      for (Index k = 0; k < classes.count(static_cast<Index>(l)); ++k) {
        own.inner += level.s[k];
        if (r == 0) continue;
        own.c -= 0.5 * classes.weight[l][k] * level.u[k];
        if (!up) continue;
        const Matrix ks = product(level.k[k], level.s[k]);
        add_outer(own.c, 0.5, ks, level.k[k]);
        own.b += ks;
      }
      own.b = outer(own.b, level.j);
      own.inner = outer_sandwich(level.j, own.inner);
      sums_.emplace_back();
      if (observed) {
        const auto& v = point.vectors_[l];
        const Vector& weight = tree_.levels[l].weight;
        const Matrix u = scale_cols(v.ub, weight);
        add_outer(own.c, 0.5, u, v.ub);
        add_outer(own.b, 1, u, v.zb);
        add_outer(own.inner, 1, scale_cols(v.zb, weight), v.zb);
        if (l == 0) own.inner += point.arranged_->products;
        sums_.back() = apply(v.ub, weight);
      }
      fixed_.push_back(std::move(own));
    }
  }

  // Derivative of the gradient of the log-likelihood for changes of the covariance matrix of one level, empty
  // for none, and of the means of all variables. At residuals of zero neither says anything of the other.
  Implied along(std::size_t level, const Matrix& cov, const Vector& mean);

 private:
  using Level = NestedPoint::Level;
  // Derivatives of what has the same name at the point.
  struct Change {
    bool moments = false;  // whether the covariance matrix of the level changes, so that b, c, zz and t do
    bool classes = false;  // or that of a lower level, so that what follows does
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
  bool vectors_ = true, covariances_ = true;  // whether residuals, or covariance matrices, change
  const NestedTree& tree_;
  std::size_t depth_;
  struct Fixed {
    Matrix c, b, inner;
  };
  std::vector<Fixed> fixed_;  // of the gradient, by level
  std::vector<Vector> sums_;
  std::vector<Change> change_;
};

void NestedTangent::change_level(std::size_t l, const Matrix& cov, const Vector& mean) {
  const NestedVariables& own = point_.arranged_->variables[l];
  const Level& level = point_.levels_[l];
  Change& d = change_[l];
  d.mean = select(mean, own.z);
  d.moments = cov.size() > 0;
  d.classes = d.moments || (l > 0 && change_[l - 1].classes);
  if (!d.moments) return;
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
}

void NestedTangent::change_classes() {
  const NestedClasses& classes = point_.arranged_->classes;
  std::vector<Matrix> seen;
  for (std::size_t l = 0; l < depth_; ++l) {
    const Level& level = point_.levels_[l];
    Change& d = change_[l];
    if (!d.classes) continue;
    const Index r = level.c.rows(), count = classes.count(static_cast<Index>(l)), above = level.t.cols();
    const bool below = !seen.empty();
    std::vector<Matrix> next(above ? count : 0,
                             d.moments ? sandwich(level.j, d.zz) : Matrix(Matrix::Zero(above, above)));
    for (auto* all : {&d.u, &d.omega, &d.v, &d.k, &d.n}) all->resize(count);
    for (Index c = 0; c < count && r; ++c) {
      Matrix &u = d.u[c], &omega = d.omega[c], &v = d.v[c];
      u = v = Matrix::Zero(r, r);
      if (below) {
        Matrix p = Matrix::Zero(r, r);
        for (const auto& [child, times] : classes.levels[l][c]) p += times * seen[child];
        u = outer_sandwich(level.omega[c], p);
        v = -sandwich(level.v[c], p);
      }
      if (d.moments) {
        u -= sandwich(level.u[c], d.c);
        v += sandwich(level.omega[c], d.c);
      }
      if (!above && !observed_) continue;
      omega = -product(u, level.c);
      if (d.moments) add_product(omega, -1, level.u[c], d.c);
      if (!above) continue;
      d.k[c] = product(u, level.t);
      d.n[c] = cross(omega, level.t);
      if (d.moments) {
        add_product(d.k[c], 1, level.u[c], d.t);
        add_cross(d.n[c], 1, level.omega[c], d.t);
        add_cross(next[c], 1, d.t, level.k[c]);
      }
      add_cross(next[c], 1, level.t, d.k[c]);
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
    if (observed_ && d.moments) add_product(above, 1, d.b, point_.vectors_[l].ez);
  }
  Matrix q(0, tree_.levels[0].count());
  for (std::size_t l = 0; l < depth_; ++l) {
    const Level& level = point_.levels_[l];
    const NestedTree::Level& nodes = tree_.levels[l];
    Change& d = change_[l];
    d.us = Matrix::Zero(q.rows(), q.cols());
    if (observed_ && d.classes && q.rows()) add_by_class(d.us, 1, d.omega, nodes, point_.vectors_[l].q);
    add_by_class(d.us, 1, level.omega, nodes, q);
    d.e = product(level.c, d.us);
    const bool moved = observed_ && d.moments;
    if (moved) add_product(d.e, 1, d.c, point_.vectors_[l].u);
    if (l + 1 == depth_) break;
    Matrix weighted = product(level.zz, d.ez);
    if (moved) add_product(weighted, 1, d.zz, point_.vectors_[l].ez);
    Matrix next = cross(level.t, d.us);
    add_cross(next, 1, level.j, weighted);
    if (moved) add_cross(next, 1, d.t, point_.vectors_[l].u);
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
  Matrix uu = Matrix::Zero(r, r), dg_b = Matrix::Zero(r, q), dinner = Matrix::Zero(q, q), ub, zb;
  if (vectors_) {
    const Matrix given = of_parents(above, nodes);
    ub = d.us;
    zb = d.ez;
    next = d.e;
    add_by_class(ub, -1, level.k, nodes, given);
    add_product(zb, -1, level.j, given);
    add_by_class(next, 1, level.n, nodes, given);
  }
  if (observed_) {
    const auto& v = point_.vectors_[l];
    if (l + 1 < depth_ && d.classes && r) {
      const Matrix at = of_parents(point_.vectors_[l + 1].eb, nodes);
      add_by_class(ub, -1, d.k, nodes, at);
      add_by_class(next, 1, d.n, nodes, at);
    }
    const Matrix u = scale_cols(ub, nodes.weight), z = scale_cols(zb, nodes.weight);
    add_with_transpose(uu, 1, outer(u, v.ub));
    add_with_transpose(dinner, 1, outer(z, v.zb));
    add_outer(dg_b, 1, u, v.zb);
    add_outer(dg_b, 1, scale_cols(v.ub, nodes.weight), zb);
  }
  const Index n = static_cast<Index>(point_.data_->levels[l].size());
  LevelImplied out{Vector::Zero(n), Matrix::Zero(n, n)};
  if (vectors_) {
    Vector g = apply(level.zz, apply(zb, nodes.weight));
    add_applied_transposed(g, -1, level.b, apply(ub, nodes.weight));
    if (observed_ && d.moments) {
      add_applied(g, 1, d.zz, apply(point_.vectors_[l].zb, nodes.weight));
      add_applied_transposed(g, -1, d.b, sums_[l]);
    }
    for (std::size_t i = 0; i < own.z.size(); ++i) mean[own.z[i]] = g[i];
  }
  if (!covariances_ && !observed_) return out;
  // covariance matrices given everything, passed on to the level below
  const Index count = classes.count(static_cast<Index>(l));
  Matrix dc = Matrix::Zero(r, r), dthrough = Matrix::Zero(r, up), dtotal = Matrix::Zero(up, up);
  if (covariances_) {
    std::vector<Matrix> below(l ? classes.count(static_cast<Index>(l) - 1) : 0, Matrix::Zero(r, r));
    const Vector& weight = classes.weight[l];
    const bool passed = !ds.empty() && up;
    for (Index k = 0; k < count; ++k) {
      if (passed) dtotal += ds[k];
      if (r == 0) continue;
      Matrix v = Matrix::Zero(r, r);
      if (d.classes) {
        dc += weight[k] * d.u[k];
        v = weight[k] * d.v[k];
        if (up) {
          const Matrix dks = product(d.k[k], level.s[k]);
          add_with_transpose(dc, -1, outer(dks, level.k[k]));
          dthrough += dks;
          if (l) add_with_transpose(v, 1, outer(product(d.n[k], level.s[k]), level.n[k]));
        }
      }
      if (passed) {
        const Matrix kds = product(level.k[k], ds[k]);
        add_outer(dc, -1, kds, level.k[k]);
        dthrough += kds;
        if (l) add_outer(v, 1, product(level.n[k], ds[k]), level.n[k]);
      }
      for (const auto& [child, times] : classes.levels[l][k]) below[child] += times * v;
    }
    ds = std::move(below);
    add_outer(dg_b, 1, dthrough, level.j);
    dinner += outer_sandwich(level.j, dtotal);
  }
  // assembled as the gradient is
  const Matrix dg_c = 0.5 * (uu - dc);
  Matrix dgbz = product(dg_b, level.zz), dgcb = product(dg_c, level.b);
  Matrix out_zz = 0.5 * sandwich(level.zz, dinner), x = cross(level.b, dgbz);
  if (d.moments) {
    const Matrix &g_c = fixed_[l].c, &g_b = fixed_[l].b;
    add_product(dgbz, 1, g_b, d.zz);
    add_product(dgcb, 1, g_c, d.b);
    x = cross(level.b, dgbz);
    add_cross(x, 1, d.b, product(g_b, level.zz));
    out_zz -= 0.5 * classes.weight[l].sum() * d.zz;
    add_with_transpose(out_zz, 0.5, product(product(d.zz, fixed_[l].inner), level.zz));
    add_cross(out_zz, 1, d.b, product(g_c, level.b));
  }
  add_cross(out_zz, 1, level.b, dgcb);
  add_with_transpose(out_zz, -0.5, x);
  put(out.cov, own.open_rows, own.open_rows, select(dg_c, own.open_at, own.open_at));
  const Matrix part = select_rows(Matrix(0.5 * dgbz - dgcb), own.open_at);
  put(out.cov, own.open_rows, own.z_rows, part);
  put(out.cov, own.z_rows, own.open_rows, part.transpose());
  put(out.cov, own.z_rows, own.z_rows, out_zz);
  return out;
}

Implied NestedTangent::along(std::size_t level, const Matrix& cov, const Vector& mean) {
  check_interrupt();
  covariances_ = cov.size() > 0;
  vectors_ = observed_ || !mean.isZero(0);
  const Matrix none;
  for (std::size_t l = 0; l < depth_; ++l) change_level(l, l == level ? cov : none, mean);
  if (covariances_) change_classes();
  if (vectors_) change_upwards();
  Implied out(depth_);
  Vector means = Vector::Zero(mean.size());
  std::vector<Matrix> ds;
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
  std::vector<Matrix> covs;
  std::vector<Index> first = {0};
  for (std::size_t l = 0; l < depth; ++l) {
    const Index n = tangents[l].n();
    covs.push_back(rotated_cov(tangents[l], Matrix::Identity(n, n)));
    first.push_back(first.back() + tangents[l].k());
  }
  Matrix out(first.back(), first.back());
  NestedTangent tangent(*this, !expected);
  for (std::size_t l = 0; l < depth; ++l) {
    const Index n = tangents[l].n();
    for (Index b = 0; b < tangents[l].k(); ++b) {
      const bool moves = !covs[l].col(b).isZero(0);
      Vector mean = Vector::Zero(data_->nvariables());
      for (Index i = 0; i < n; ++i) mean[data_->levels[l][i]] = tangents[l].mean(i, b);
      const Implied d = tangent.along(l, moves ? Matrix(slice(covs[l], b, n, n)) : Matrix(), mean);
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
  return by_level(whole_information(kind != Information::kObserved, tangents), tangents);
}

std::vector<Matrix> NestedPoint::factor(const LevelTangents& tangents) const {
  return columns_by_level(symmetric_root(whole_information(true, tangents)), tangents);
}

}  // namespace msem
