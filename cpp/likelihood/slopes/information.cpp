// Expected and observed information of the likelihood with random slopes.
//
// Both are sums over clusters of products of the derivatives of their values, dy_a = -(d mean + dM t), and of
// traces of products of dM, which clusters of one design share. The latter are summed in coordinates of the
// changes of M, which are those of w~, C and lambda; parameters come in at the end.
#include <algorithm>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "base/stacked.hpp"
#include "base/threads.hpp"
#include "likelihood/slopes/evidence.hpp"

namespace msem {

namespace {

// Element ((i, l), (j, k)) of a matrix with `rows` x `others` rows gains w x(i, j) y(l, k), by column.
template <class Number>
void add_kronecker(Number* out, const Number& w, const Number* x, Index rows, Index columns, const Number* y,
                   Index others, Index other_columns) {
  for (Index j = 0; j < columns; ++j) {
    for (Index k = 0; k < other_columns; ++k) {
      Number* column = out + (k * columns + j) * rows * others;
      for (Index l = 0; l < others; ++l) {
        const Number s = w * y[k * others + l];
        for (Index i = 0; i < rows; ++i) column[l * rows + i] += s * x[j * rows + i];
      }
    }
  }
}

// out := A B, of rows x inner and inner x columns.
template <class Left, class Right>
void multiply(const Left* a, const Right* b, Lanes* out, Index rows, Index inner, Index columns) {
  std::fill(out, out + rows * columns, Lanes::Zero());
  for (Index j = 0; j < columns; ++j) {
    for (Index k = 0; k < inner; ++k) {
      const Right s = b[j * inner + k];
      for (Index i = 0; i < rows; ++i) out[j * rows + i] += s * a[k * rows + i];
    }
  }
}

BlockInformation blocks_of(const Matrix& whole, Index kw) {
  const Index kb = whole.rows() - kw;
  return {whole.topLeftCorner(kw, kw), whole.topRightCorner(kw, kb), whole.bottomRightCorner(kb, kb)};
}

}  // namespace

class SlopeInformation {
 public:
  SlopeInformation(const SlopePoint& point, const Tangents& within, const Tangents& between)
      : SlopeInformation(point,
                         whiten_between(within, point.whitening_, point.within_.chol_z, point.f_ + point.m_),
                         whiten_between(point.between_rows(between), point.between_.projection,
                                        point.between_.chol_z, point.q_)) {}

  SlopeInformation(const SlopePoint& point, Whitened within, Whitened between)
      : point_(point),
        p_(point.p_),
        f_(point.f_),
        m_(point.m_),
        r_(point.r_),
        q_(point.q_),
        kw_(within.k()),
        kb_(between.k()),
        within_(std::move(within)),
        between_(std::move(between)) {
    // columns: derivatives of a row with respect to its intercept, covariates, t, and R_ac u_k of each slope;
    // of u to 1, the cluster variables and u~. Covariates and cluster variables are about the origin.
    map_w_ = Matrix::Zero(1 + f_ + p_ + m_, p_ * kw_);
    map_b_ = Matrix::Zero(1 + q_ + r_, r_ * kb_);
    for (Index a = 0; a < kw_; ++a) {
      auto own = map_w_.middleCols(a * p_, p_);
      own.row(0) = within_.mean.col(a).transpose();
      own.middleRows(1, f_) = slice(within_.slope, a, p_, f_ + m_).leftCols(f_).transpose();
      own.middleRows(1 + f_, p_) = slice(within_.cov, a, p_, p_).transpose();
      own.bottomRows(m_) = slice(within_.slope, a, p_, f_ + m_).rightCols(m_).transpose();
    }
    for (Index a = 0; a < kb_; ++a) {
      auto own = map_b_.middleCols(a * r_, r_);
      own.row(0) = between_.mean.col(a).transpose();
      own.middleRows(1, q_) = slice(between_.slope, a, r_, q_).transpose();
      own.bottomRows(r_) = slice(between_.cov, a, r_, r_).transpose();
    }
    about_origin(map_w_.topRows(1 + f_), point_.mu_f_,
                 [&](const Matrix& x) { return point_.whiten_given_transposed(x); });
    about_origin(map_b_.topRows(1 + q_), point_.between_.mu_z,
                 [&](const Matrix& x) { return point_.between_.chol_z.whiten_transposed(x); });
  }

  // Half the traces of M^-1 dM_a M^-1 dM_b, those of the pooled rest included.
  Matrix covariances() const {
    Traces sum = total<Traces>([&](Index piece, Traces& part) { part = traces(piece); }, Traces(*this));
    for (std::size_t r = 0; r < point_.observed_.size(); ++r) {
      const double* weight = point_.observed_[r].weight.data();
      add_kronecker(sum.ww.data(), point_.classes_->beyond[static_cast<Index>(r)], weight, p_, p_, weight, p_,
                    p_);
    }
    const auto lambda = within_.slope.bottomRows(p_ * m_);
    Matrix out = Matrix::Zero(kw_ + kb_, kw_ + kb_);
    auto ww = out.topLeftCorner(kw_, kw_), wb = out.topRightCorner(kw_, kb_),
         bb = out.bottomRightCorner(kb_, kb_);
    const Matrix cross_l = cross(within_.cov, product(sum.wl, lambda));
    ww = 0.5 * cross(within_.cov, product(sum.ww, within_.cov)) + cross_l + cross_l.transpose() +
         cross(lambda, product(sum.ll, lambda));
    wb = 0.5 * cross(within_.cov, product(sum.wc, between_.cov)) + cross(lambda, cross(sum.cl, between_.cov));
    bb = 0.5 * cross(between_.cov, product(sum.cc, between_.cov));
    out.bottomLeftCorner(kb_, kw_) = wb.transpose();
    return out;
  }

  // Expected products of the derivatives of the means, the cluster variables being random; what the given
  // variables themselves tell is not in it.
  Matrix means() const {
    return total<Matrix>([&](Index piece, Matrix& part) { part = mean_products(piece); },
                         Matrix::Zero(kw_ + kb_, kw_ + kb_)) +
           rest_products(false);
  }

  // What the covariates and the cluster variables tell, on the scale of the expected information.
  Matrix given() const {
    Matrix out = Matrix::Zero(kw_ + kb_, kw_ + kb_);
    add(out.topLeftCorner(kw_, kw_), within_, point_.within_.part);
    add(out.bottomRightCorner(kb_, kb_), between_, point_.between_.part);
    return out;
  }

  // Second derivatives of half of -2 log L.
  Matrix observed() const {
    Curvature sum =
        total<Curvature>([&](Index piece, Curvature& part) { part = curvature(piece); }, Curvature(*this));
    if (q_) {
      Matrix of_z = sum.with_mean.rightCols(q_);
      add_outer(of_z, -1, sum.with_mean.col(0), point_.between_.mu_z);
      sum.with_mean.rightCols(q_) = point_.between_.chol_z.whiten(of_z.transpose()).transpose();
    }
    Matrix out = 2 * (sum.products + rest_products(true)) - 2 * covariances();
    bilinear(sum, out);
    Matrix ww = Matrix::Zero(kw_, kw_), bb = Matrix::Zero(kb_, kb_);
    add_curvature_of_conditioning(within_, point_.gradient_w_, ww);
    add_cluster_curvature(within_, point_.within_.part, ww);
    add_curvature_of_conditioning(between_, point_.gradient_b_, bb);
    add_cluster_curvature(between_, point_.between_.part, bb);
    out.topLeftCorner(kw_, kw_) += ww;
    out.bottomRightCorner(kb_, kb_) += bb;
    return 0.5 * out;
  }

  Index kw() const { return kw_; }
  const Whitened& within() const { return within_; }
  const Whitened& between() const { return between_; }

  // Derivatives of all that the means are made of with respect to itself, so that `means` is their
  // information: coordinates of `coordinates()`.
  static SlopeInformation of_means(const SlopePoint& point) {
    const auto unit = [](Index n, Index given, Index cov, bool means) {
      const Index k = n + n * given;
      Whitened out{Matrix::Zero(cov, k), Matrix::Zero(n, k), Matrix::Zero(n * given, k),
                   Matrix::Zero(given * given, k), Matrix::Zero(given, k)};
      if (means) out.mean.leftCols(n).setIdentity();
      out.slope.rightCols(n * given).setIdentity();
      return out;
    };
    const Index p = point.p_, r = point.r_;
    return SlopeInformation(point, unit(p, point.f_ + point.m_, p * p, true), unit(r, point.q_, r * r, true));
  }
  std::pair<Matrix, Matrix> coordinates() const {
    std::pair<Matrix, Matrix> out{Matrix(p_ + within_.slope.rows(), kw_),
                                  Matrix(r_ + between_.slope.rows(), kb_)};
    out.first << within_.mean, within_.slope;
    out.second << between_.mean, between_.slope;
    return out;
  }

 private:
  // Sums over clusters of what the traces of two changes of M are made of.
  struct Traces {
    explicit Traces(const SlopeInformation& of)
        : ww(Matrix::Zero(of.p_ * of.p_, of.p_ * of.p_)),
          wc(Matrix::Zero(of.p_ * of.p_, of.r_ * of.r_)),
          wl(Matrix::Zero(of.p_ * of.p_, of.p_ * of.m_)),
          cc(Matrix::Zero(of.r_ * of.r_, of.r_ * of.r_)),
          cl(Matrix::Zero(of.r_ * of.r_, of.p_ * of.m_)),
          ll(Matrix::Zero(of.p_ * of.m_, of.p_ * of.m_)) {}
    Traces& operator+=(const Traces& o) {
      ww += o.ww;
      wc += o.wc;
      wl += o.wl;
      cc += o.cc;
      cl += o.cl;
      ll += o.ll;
      return *this;
    }
    Matrix ww, wc, wl, cc, cl, ll;
  };

  // What the observed information has from the curvature of M and of the mean in lambda, C and the means.
  struct Curvature {
    explicit Curvature(const SlopeInformation& of)
        : products(Matrix::Zero(of.kw_ + of.kb_, of.kw_ + of.kb_)),
          with_c(Matrix::Zero(of.p_ * of.m_, of.r_)),
          with_lambda(Matrix::Zero(of.p_ * of.m_, of.p_ * of.m_)),
          with_mean(Matrix::Zero(of.p_ * of.m_, 1 + of.q_)) {}
    Curvature& operator+=(const Curvature& o) {
      products += o.products;
      with_c += o.with_c;
      with_lambda += o.with_lambda;
      with_mean += o.with_mean;
      return *this;
    }
    Matrix products;     // k x k
    Matrix with_c;       // of each slope: sum over rows of R_ac (N Z)_a, p x r
    Matrix with_lambda;  // of two slopes: sum over rows of R_ac N_ab R_bc', p x p
    Matrix with_mean;    // of each slope: sum of tau and of tau zeta', p x (1 + q); tau = sum of R_ac t_a
  };

  template <class Sum, class Work>
  Sum total(const Work& work, const Sum& zero) const {
    const Index count = point_.classes_->npieces();
    std::vector<Sum> parts(count, zero);
    in_threads(count, count > 1 ? 0 : 1, [&](std::ptrdiff_t i) { work(static_cast<Index>(i), parts[i]); });
    Sum out = zero;
    for (const Sum& part : parts) out += part;
    return out;
  }

  static void add(MatrixRef out, const Whitened& t, const ClusterPart& part) {
    if (!t.zmean.rows()) return;
    add_cross(out, part.count, t.zmean, t.zmean);
    add_cross(out, 0.5 * part.count, t.zcov, t.zcov);
  }

  // Coefficients of (1, x) for whitened x about their means become those for x about the origin.
  template <class Back>
  static void about_origin(MatrixRef map, const Vector& mean, const Back& back) {
    const Index n = mean.size();
    if (!n) return;
    map.bottomRows(n) = back(map.bottomRows(n));
    map.row(0) -= apply_transposed(map.bottomRows(n), mean).transpose();
  }

  template <class Visit>
  void for_batches(Index piece, bool inverses, Visit visit) const {
    const DesignClasses& classes = *point_.classes_;
    DesignEvidence evidence(point_);
    for (Index b = classes.pieces[piece]; b < classes.pieces[piece + 1]; ++b) {
      if (b % 256 == 0) check_interrupt();
      evidence.compute(classes.batches[b], inverses);
      visit(classes.batches[b], evidence);
    }
  }

  Traces traces(Index piece) const {
    const Index p = p_, r = r_, m = m_;
    const double* c = point_.between_.cov.data();
    Traces out(*this);
    const auto zero = [](const Matrix& like) { return LaneVector(like.size(), Lanes::Zero()); };
    LaneVector ww = zero(out.ww), wc = zero(out.wc), wl = zero(out.wl), cc = zero(out.cc), cl = zero(out.cl),
               ll = zero(out.ll);
    LaneVector inverse_z, u(r * r), uc(r * r), cuc(r * r), within(p * p), solved(p * r), other(p * p);
    LaneVector reach(m * r * p), reach_c(m * p * r);
    for_batches(piece, true, [&](const DesignBatch& batch, const DesignEvidence& e) {
      const Lanes weight = batch.weight;
      const Index d = e.d;
      const Lanes *inverse = e.inverse.data(), *half = e.half.data();
      for (Index j = 0; j < r; ++j) {
        for (Index k = 0; k <= j; ++k) {
          Lanes sum = Lanes::Zero();
          for (Index i = 0; i < d; ++i) sum += half[j * d + i] * half[k * d + i];
          u[j * r + k] = u[k * r + j] = sum;
        }
      }
      multiply(u.data(), c, uc.data(), r, r, r);
      multiply(c, uc.data(), cuc.data(), r, r, r);
      inverse_z.resize(d * r);
      multiply(inverse, e.z.data(), inverse_z.data(), d, d, r);
      add_kronecker(cc.data(), weight, u.data(), r, r, u.data(), r, r);
      // of each slope its part of Z'M^-1, transposed: r x p, and p x r with C
      std::fill(reach.begin(), reach.end(), Lanes::Zero());
      for (Index k = 0; k < m; ++k) {
        Lanes* own = reach.data() + k * r * p;
        for (Index a = 0; a < e.rho; ++a) {
          const Lanes x = e.covariate(a, k);
          for (Index j = 0; j < r; ++j) {
            for (Index i = 0; i < p; ++i) own[i * r + j] += x * inverse_z[j * d + a * p + i];
          }
        }
        Lanes* own_c = reach_c.data() + k * p * r;
        for (Index l = 0; l < r; ++l) {
          for (Index i = 0; i < p; ++i) {
            Lanes sum = Lanes::Zero();
            for (Index j = 0; j < r; ++j) sum += own[i * r + j] * c[l * r + j];
            own_c[l * p + i] = sum;
          }
        }
      }
      for (Index a = 0; a < e.rho; ++a) {
        for (Index b = 0; b < e.rho; ++b) {
          block(inverse, d, a, b, within.data());
          add_kronecker(ww.data(), weight, within.data(), p, p, within.data(), p, p);
        }
        for (Index j = 0; j < r; ++j) std::copy_n(inverse_z.data() + j * d + a * p, p, solved.data() + j * p);
        add_kronecker(wc.data(), weight, solved.data(), p, r, solved.data(), p, r);
        for (Index k = 0; k < m; ++k) {
          std::fill(other.begin(), other.end(), Lanes::Zero());
          for (Index b = 0; b < e.rho; ++b) add_block(e.covariate(b, k), inverse, d, a, b, other.data());
          add_slope(wl, p * p, k, weight, other.data(), p, e.solved.data() + (nboth() + k) * d + a * p, p);
        }
      }
      for (Index k = 0; k < m; ++k) {
        add_slope(cl, r * r, k, weight, reach.data() + k * r * p, r, uc.data() + (nboth() + k) * r, r);
        for (Index l = 0; l < m; ++l) {
          std::fill(within.begin(), within.end(), Lanes::Zero());
          for (Index a = 0; a < e.rho; ++a) {
            for (Index b = 0; b < e.rho; ++b)
              add_block(e.covariate(a, k) * e.covariate(b, l), inverse, d, a, b, within.data());
          }
          const Lanes both = cuc[(nboth() + l) * r + nboth() + k];
          const Lanes* left = reach_c.data() + k * p * r + (nboth() + l) * p;
          const Lanes* right = reach_c.data() + l * p * r + (nboth() + k) * p;
          for (Index j = 0; j < p; ++j) {
            Lanes* column = ll.data() + (l * p + j) * p * m + k * p;
            for (Index i = 0; i < p; ++i)
              column[i] += weight * (both * within[j * p + i] + left[i] * right[j]);
          }
        }
      }
    });
    out.ww = lane_sums(ww, p * p, p * p);
    out.wc = lane_sums(wc, p * p, r * r);
    out.wl = lane_sums(wl, p * p, p * m);
    out.cc = lane_sums(cc, r * r, r * r);
    out.cl = lane_sums(cl, r * r, p * m);
    out.ll = lane_sums(ll, p * m, p * m);
    return out;
  }

  // Block (a, b) of p x p of a matrix with d rows, and `s` times it added.
  void block(const Lanes* x, Index d, Index a, Index b, Lanes* out) const {
    for (Index j = 0; j < p_; ++j) std::copy_n(x + (b * p_ + j) * d + a * p_, p_, out + j * p_);
  }
  void add_block(const Lanes& s, const Lanes* x, Index d, Index a, Index b, Lanes* out) const {
    for (Index j = 0; j < p_; ++j) {
      const Lanes* column = x + (b * p_ + j) * d + a * p_;
      for (Index i = 0; i < p_; ++i) out[j * p_ + i] += s * column[i];
    }
  }

  // Columns of slope k gain the Kronecker product of a matrix with p columns and a vector.
  void add_slope(LaneVector& out, Index height, Index k, const Lanes& weight, const Lanes* x, Index rows,
                 const Lanes* y, Index length) const {
    for (Index j = 0; j < p_; ++j) {
      Lanes* column = out.data() + (k * p_ + j) * height;
      for (Index l = 0; l < length; ++l) {
        const Lanes s = weight * y[l];
        for (Index i = 0; i < rows; ++i) column[l * rows + i] += s * x[j * rows + i];
      }
    }
  }

  Index nboth() const { return point_.nboth_; }

  // The derivatives of the values of the clusters of a step, whitened, in one product with many others.
  class Rows {
   public:
    explicit Rows(const SlopeInformation& of)
        : of_(of), stack_(of.kw_ + of.kb_, of.kw_ + of.kb_), own(of.map_w_.rows()), between(of.r_ * of.kb_) {}

    // Row a with respect to what is within, from the coefficients of `map_w_` in `own`.
    void set(const DesignEvidence& e, Index a) {
      within_.resize(e.d * of_.kw_);
      const Index n = of_.map_w_.rows(), p = of_.p_;
      for (Index k = 0; k < of_.kw_; ++k) {
        for (Index i = 0; i < p; ++i) {
          const double* map = of_.map_w_.data() + (k * p + i) * n;
          Lanes sum = Lanes::Zero();
          for (Index c = 0; c < n; ++c) sum += map[c] * own[c];
          within_[k * e.d + a * p + i] = sum;
        }
      }
    }
    Lanes* column(const DesignEvidence& e, Index k) { return within_.data() + k * e.d; }

    // With the derivatives of u with respect to what is between, those lanes count so often.
    void push(const DesignEvidence& e, Index used, const Lanes& weight) {
      const Index kw = of_.kw_, kb = of_.kb_, d = e.d;
      between_.resize(d * kb);
      for (Index k = 0; k < kw; ++k) e.whiten(column(e, k));
      multiply(e.half.data(), between.data(), between_.data(), d, of_.r_, kb);
      for (Index lane = 0; lane < used; ++lane) {
        auto [left, right] = stack_.next(d);
        for (Index k = 0; k < kw + kb; ++k) {
          const Lanes* x = k < kw ? column(e, k) : between_.data() + (k - kw) * d;
          for (Index i = 0; i < d; ++i) {
            right(i, k) = x[i][lane];
            left(i, k) = weight[lane] * x[i][lane];
          }
        }
      }
    }
    Matrix total() { return stack_.total(); }

   private:
    const SlopeInformation& of_;
    StackedProduct stack_;
    LaneVector within_, between_;

   public:
    LaneVector own, between;
  };

  Matrix mean_products(Index piece) const {
    const DesignClasses& classes = *point_.classes_;
    Rows rows(*this);
    ClustersOfDesign one(point_);
    const auto set_between = [&](const auto& column) {
      for (Index a = 0; a < kb_; ++a) {
        for (Index j = 0; j < r_; ++j) rows.between[a * r_ + j] = column(a, j);
      }
    };
    for_batches(piece, false, [&](const DesignBatch& batch, const DesignEvidence& e) {
      std::fill(rows.own.begin(), rows.own.end(), Lanes::Zero());
      set_between([&](Index a, Index j) { return between_.mean(j, a); });
      // without covariates all clusters of a design are alike
      for (Index at = batch.first; at < (f_ ? batch.last : batch.first + 1); ++at) {
        const DesignStep& step = classes.steps[at];
        if (f_) one.read(e, step);
        for (Index a = 0; a < e.rho; ++a) {
          rows.own[0] = e.ones(a);
          for (Index k = 0; k < f_; ++k) rows.own[1 + k] = f_ ? one.value(a, p_ + k) : Lanes::Zero();
          for (Index k = 0; k < m_; ++k)
            rows.own[1 + f_ + p_ + k] = e.covariate(a, k) * point_.mu_u_[nboth() + k];
          rows.set(e, a);
        }
        rows.push(e, f_ ? step.used : batch.used, f_ ? one.weight : batch.weight);
      }
      // the mean given z has the covariance matrix of B z
      for (Index k = 0; k <= f_; ++k) rows.own[k] = 0;
      for (Index l = 0; l < q_; ++l) {
        for (Index a = 0; a < e.rho; ++a) {
          for (Index k = 0; k < m_; ++k)
            rows.own[1 + f_ + p_ + k] = e.covariate(a, k) * point_.between_.slopes(nboth() + k, l);
          rows.set(e, a);
        }
        set_between([&](Index a, Index j) { return between_.slope(l * r_ + j, a); });
        rows.push(e, batch.used, batch.weight);
      }
    });
    return rows.total();
  }

  // The same of the pooled rest, whose rows have neither intercept nor covariates with slopes.
  Matrix rest_products(bool with_residuals) const {
    Matrix out = Matrix::Zero(kw_ + kb_, kw_ + kb_);
    Matrix rows(p_, kw_);
    Vector own = Vector::Zero(1 + f_ + p_ + m_), scratch(p_ * kw_);
    for (std::size_t r = 0; kw_ && r < point_.observed_.size(); ++r) {
      const Matrix &t = point_.rest_t_[r], &weight = point_.observed_[r].weight;
      for (Index j = 0; j < t.cols(); ++j) {
        for (Index k = 0; k < f_; ++k) own[1 + k] = point_.classes_->rest[r](p_ + k, j);
        if (with_residuals) own.segment(1 + f_, p_) = t.col(j);
        scratch = apply_transposed(map_w_, own);
        rows = Eigen::Map<const Matrix>(scratch.data(), p_, kw_);
        const Matrix left = point_.observed_[r].map.size() ? product(weight, rows) : rows;
        add_cross(out.topLeftCorner(kw_, kw_), 1, left, rows);
      }
    }
    return out;
  }

  Curvature curvature(Index piece) const {
    const Index p = p_, r = r_, m = m_;
    Curvature out(*this);
    Rows rows(*this);
    LaneVector given(1 + q_ + r), residual, nz, tau(p);
    LaneVector with_c(m * p * r, Lanes::Zero()), with_lambda(m * p * m * p, Lanes::Zero());
    LaneVector with_mean(m * p * (1 + q_), Lanes::Zero());
    ClustersOfDesign one(point_);
    for_batches(piece, true, [&](const DesignBatch& batch, const DesignEvidence& e) {
      const Index d = e.d;
      residual = e.inverse;
      for (Lanes& x : residual) x *= batch.weight;
      for (Index at = batch.first; at < batch.last; ++at) {
        const DesignStep& step = point_.classes_->steps[at];
        one.compute(e, step);
        const Lanes weight = one.weight;
        for (Index j = 0; j < d; ++j) {
          const Lanes s = weight * one.t[j];
          for (Index i = 0; i < d; ++i) residual[j * d + i] -= s * one.t[i];
        }
        for (Index a = 0; a < e.rho; ++a) {
          rows.own[0] = e.ones(a);
          for (Index k = 0; k < f_; ++k) rows.own[1 + k] = one.value(a, p + k);
          for (Index i = 0; i < p; ++i) rows.own[1 + f_ + i] = one.t[a * p + i];
          for (Index k = 0; k < m; ++k) rows.own[1 + f_ + p + k] = e.covariate(a, k) * one.all[nboth() + k];
          rows.set(e, a);
        }
        for (Index k = 0; k < m; ++k) {
          std::fill(tau.begin(), tau.end(), Lanes::Zero());
          for (Index a = 0; a < e.rho; ++a) {
            for (Index i = 0; i < p; ++i) tau[i] += e.covariate(a, k) * one.t[a * p + i];
          }
          for (Index b = 0; b < kw_; ++b) {
            const double* slope = within_.slope.data() + b * within_.slope.rows() + (f_ + k) * p;
            Lanes turned = Lanes::Zero();
            for (Index i = 0; i < p; ++i) turned += slope[i] * tau[i];
            Lanes* column = rows.column(e, b);
            for (Index i = 0; i < d; ++i) column[i] += e.zc[(nboth() + k) * d + i] * turned;
          }
          for (Index i = 0; i < p; ++i) {
            const Lanes s = weight * tau[i];
            with_mean[k * p + i] += s;
            for (Index l = 0; l < q_; ++l)
              with_mean[(1 + l) * m * p + k * p + i] += s * one.cluster_values[l];
          }
        }
        given[0] = 1;
        std::copy_n(one.cluster_values.data(), q_, given.data() + 1);
        std::copy_n(one.u.data(), r, given.data() + 1 + q_);
        multiply_transposed(map_b_, given, rows.between);
        rows.push(e, step.used, weight);
      }
      nz.resize(d * r);
      multiply(residual.data(), e.z.data(), nz.data(), d, d, r);
      for (Index k = 0; k < m; ++k) {
        for (Index a = 0; a < e.rho; ++a) {
          const Lanes x = e.covariate(a, k);
          for (Index j = 0; j < r; ++j) {
            for (Index i = 0; i < p; ++i) with_c[j * m * p + k * p + i] += x * nz[j * d + a * p + i];
          }
          for (Index l = 0; l < m; ++l) {
            for (Index b = 0; b < e.rho; ++b) {
              const Lanes both = x * e.covariate(b, l);
              for (Index j = 0; j < p; ++j) {
                const Lanes* column = residual.data() + (b * p + j) * d + a * p;
                Lanes* sum = with_lambda.data() + (l * p + j) * m * p + k * p;
                for (Index i = 0; i < p; ++i) sum[i] += both * column[i];
              }
            }
          }
        }
      }
    });
    out.products = rows.total();
    out.with_c = lane_sums(with_c, m * p, r);
    out.with_lambda = lane_sums(with_lambda, m * p, m * p);
    out.with_mean = lane_sums(with_mean, m * p, 1 + q_);
    return out;
  }

  // out := A'x
  static void multiply_transposed(const Matrix& a, const LaneVector& x, LaneVector& out) {
    for (Index j = 0; j < a.cols(); ++j) {
      const double* column = a.data() + j * a.rows();
      Lanes sum = Lanes::Zero();
      for (Index i = 0; i < a.rows(); ++i) sum += column[i] * x[i];
      out[j] = sum;
    }
  }

  // <N, d2M> + 2 t'd2y
  void bilinear(const Curvature& s, Matrix& out) const {
    if (!kw_ || !m_) return;
    auto ww = out.topLeftCorner(kw_, kw_);
    const Matrix& c = point_.between_.cov;
    Matrix weighted = s.with_lambda;
    for (Index k = 0; k < m_; ++k) {
      for (Index l = 0; l < m_; ++l)
        weighted.block(k * p_, l * p_, p_, p_) *= 2 * c(nboth() + k, nboth() + l);
    }
    const auto lambda = within_.slope.bottomRows(p_ * m_);
    ww += cross(lambda, product(weighted, lambda));
    if (!kb_) return;
    // of each between parameter: what lambda of slope k is multiplied by
    Matrix turned(p_ * m_, kb_);
    for (Index a = 0; a < kb_; ++a) {
      const auto cov = slice(between_.cov, a, r_, r_);
      const auto slope = slice(between_.slope, a, r_, q_);
      for (Index k = 0; k < m_; ++k) {
        Vector x = 2 * s.with_c.middleRows(k * p_, p_) * cov.col(nboth() + k);
        x -= 2 * between_.mean(nboth() + k, a) * s.with_mean.col(0).segment(k * p_, p_);
        if (q_) x -= 2 * s.with_mean.block(k * p_, 1, p_, q_) * slope.row(nboth() + k).transpose();
        turned.block(k * p_, a, p_, 1) = x;
      }
    }
    const Matrix wb = cross(lambda, turned);
    out.topRightCorner(kw_, kb_) += wb;
    out.bottomLeftCorner(kb_, kw_) += wb.transpose();
  }

  const SlopePoint& point_;
  Index p_, f_, m_, r_, q_, kw_, kb_;
  Whitened within_, between_;
  Matrix map_w_, map_b_;
};

BlockInformation SlopePoint::expected(const Tangents& within, const Tangents& between) const {
  const SlopeInformation information(*this, within, between);
  return blocks_of(information.covariances() + information.means() + information.given(), information.kw());
}

BlockInformation SlopePoint::observed(const Tangents& within, const Tangents& between) const {
  const SlopeInformation information(*this, within, between);
  return blocks_of(information.observed(), information.kw());
}

std::pair<Matrix, Matrix> SlopePoint::factors(const Tangents& within, const Tangents& between) const {
  // Huge means of covariates are in the derivatives of the means alone: there the factor is that of the
  // information about the means themselves, times these derivatives.
  const SlopeInformation information(*this, within, between);
  const SlopeInformation means = SlopeInformation::of_means(*this);
  const Matrix root = symmetric_root(information.covariances() + information.given());
  const Matrix mean_root = symmetric_root(means.means());
  const auto [w, b] = information.coordinates();
  const Index kw = information.kw(), kb = information.between().k(), height = root.rows() + mean_root.rows();
  std::pair<Matrix, Matrix> out{Matrix(height, kw), Matrix(height, kb)};
  out.first << root.leftCols(kw), product(mean_root.leftCols(w.rows()), w);
  out.second << root.rightCols(kb), product(mean_root.rightCols(b.rows()), b);
  return out;
}

}  // namespace msem
