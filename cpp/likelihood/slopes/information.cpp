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

// Element ((i, l), (j, k)) gains w x(i, j) y(l, k): clusters are small, so that loops are written out.
void add_kronecker(Matrix& out, double w, const double* x, Index rows, Index columns, const double* y,
                   Index others, Index other_columns) {
  for (Index j = 0; j < columns; ++j) {
    for (Index k = 0; k < other_columns; ++k) {
      double* column = out.data() + (k * columns + j) * out.rows();
      for (Index l = 0; l < others; ++l) {
        const double s = w * y[k * others + l];
        for (Index i = 0; i < rows; ++i) column[l * rows + i] += s * x[j * rows + i];
      }
    }
  }
}

// out := A B, of rows x inner and inner x columns.
void multiply(const double* a, const double* b, double* out, Index rows, Index inner, Index columns) {
  std::fill(out, out + rows * columns, 0.0);
  for (Index j = 0; j < columns; ++j) {
    for (Index k = 0; k < inner; ++k) {
      const double s = b[j * inner + k];
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
    // columns: derivatives of a row with respect to its intercept, covariates, t, and R_ac u_k of each slope
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
  }

  // Half the traces of M^-1 dM_a M^-1 dM_b, those of the pooled rest included.
  Matrix covariances() const {
    Traces sum = total<Traces>([&](Index piece, Traces& part) { add_traces(piece, part); }, Traces(*this));
    for (std::size_t r = 0; r < point_.observed_.size(); ++r) {
      const Matrix& weight = point_.observed_[r].weight;
      add_kronecker(sum.ww, point_.classes_->beyond[static_cast<Index>(r)], weight.data(), p_, p_,
                    weight.data(), p_, p_);
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
        total<Curvature>([&](Index piece, Curvature& part) { add_curvature(piece, part); }, Curvature(*this));
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
    const auto count = static_cast<std::ptrdiff_t>(point_.classes_->pieces.size()) - 1;
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

  template <class Visit>
  void for_classes(Index piece, bool inverses, Visit visit) const {
    const DesignClasses& classes = *point_.classes_;
    DesignEvidence evidence(point_);
    for (Index c = classes.pieces[piece]; c < classes.pieces[piece + 1]; ++c) {
      if (c % 256 == 0) check_interrupt();
      evidence.compute(classes.member[classes.first[c]], inverses);
      visit(c, evidence);
    }
  }

  double design(const DesignEvidence& e, Index row, Index slope) const {
    return e.design[row * point_.data_->design.rows() + point_.data_->covariate[slope]];
  }

  void add_traces(Index piece, Traces& s) const {
    const Index p = p_, r = r_, m = m_;
    const double* c = point_.between_.cov.data();
    std::vector<double> inverse_z, u(r * r), uc(r * r), cuc(r * r), within(p * p), solved(p * r),
        other(p * p);
    std::vector<double> reach(m * r * p), reach_c(m * p * r), turned(r);
    for_classes(piece, true, [&](Index number, const DesignEvidence& e) {
      const double weight = point_.classes_->weight[number];
      const Index d = e.d;
      const double *inverse = e.inverse.data(), *half = e.half.data();
      for (Index j = 0; j < r; ++j) {
        for (Index k = 0; k <= j; ++k) {
          double sum = 0;
          for (Index i = 0; i < d; ++i) sum += half[j * d + i] * half[k * d + i];
          u[j * r + k] = u[k * r + j] = sum;
        }
      }
      multiply(u.data(), c, uc.data(), r, r, r);
      multiply(c, uc.data(), cuc.data(), r, r, r);
      inverse_z.resize(d * r);
      multiply(inverse, e.z.data(), inverse_z.data(), d, d, r);
      add_kronecker(s.cc, weight, u.data(), r, r, u.data(), r, r);
      // of each slope its part of Z'M^-1, transposed: r x p, and p x r with C
      std::fill(reach.begin(), reach.end(), 0.0);
      for (Index k = 0; k < m; ++k) {
        double* own = reach.data() + k * r * p;
        for (Index a = 0; a < e.rho; ++a) {
          const double x = design(e, a, k);
          for (Index j = 0; j < r; ++j) {
            for (Index i = 0; i < p; ++i) own[i * r + j] += x * inverse_z[j * d + a * p + i];
          }
        }
        double* own_c = reach_c.data() + k * p * r;
        for (Index l = 0; l < r; ++l) {
          for (Index i = 0; i < p; ++i) {
            double sum = 0;
            for (Index j = 0; j < r; ++j) sum += own[i * r + j] * c[l * r + j];
            own_c[l * p + i] = sum;
          }
        }
      }
      for (Index a = 0; a < e.rho; ++a) {
        for (Index b = 0; b < e.rho; ++b) {
          block(inverse, d, a, b, within.data());
          add_kronecker(s.ww, weight, within.data(), p, p, within.data(), p, p);
        }
        for (Index j = 0; j < r; ++j) std::copy_n(inverse_z.data() + j * d + a * p, p, solved.data() + j * p);
        add_kronecker(s.wc, weight, solved.data(), p, r, solved.data(), p, r);
        for (Index k = 0; k < m; ++k) {
          std::fill(other.begin(), other.end(), 0.0);
          for (Index b = 0; b < e.rho; ++b) add_block(design(e, b, k), inverse, d, a, b, other.data());
          add_slope(s.wl, k, weight, other.data(), p, e.solved.data() + (nboth() + k) * d + a * p, p);
        }
      }
      for (Index k = 0; k < m; ++k) {
        add_slope(s.cl, k, weight, reach.data() + k * r * p, r, uc.data() + (nboth() + k) * r, r);
        for (Index l = 0; l < m; ++l) {
          std::fill(within.begin(), within.end(), 0.0);
          for (Index a = 0; a < e.rho; ++a) {
            for (Index b = 0; b < e.rho; ++b)
              add_block(design(e, a, k) * design(e, b, l), inverse, d, a, b, within.data());
          }
          const double both = cuc[(nboth() + l) * r + nboth() + k];
          const double* left = reach_c.data() + k * p * r + (nboth() + l) * p;
          const double* right = reach_c.data() + l * p * r + (nboth() + k) * p;
          for (Index j = 0; j < p; ++j) {
            double* column = s.ll.data() + (l * p + j) * s.ll.rows() + k * p;
            for (Index i = 0; i < p; ++i)
              column[i] += weight * (both * within[j * p + i] + left[i] * right[j]);
          }
        }
      }
    });
  }

  // Block (a, b) of p x p of a matrix with d rows, and `s` times it added.
  void block(const double* x, Index d, Index a, Index b, double* out) const {
    for (Index j = 0; j < p_; ++j) std::copy_n(x + (b * p_ + j) * d + a * p_, p_, out + j * p_);
  }
  void add_block(double s, const double* x, Index d, Index a, Index b, double* out) const {
    for (Index j = 0; j < p_; ++j) {
      const double* column = x + (b * p_ + j) * d + a * p_;
      for (Index i = 0; i < p_; ++i) out[j * p_ + i] += s * column[i];
    }
  }

  // Columns of slope k gain the Kronecker product of a matrix with p columns and a vector.
  void add_slope(Matrix& out, Index k, double weight, const double* x, Index rows, const double* y,
                 Index length) const {
    for (Index j = 0; j < p_; ++j) {
      double* column = out.data() + (k * p_ + j) * out.rows();
      for (Index l = 0; l < length; ++l) {
        const double s = weight * y[l];
        for (Index i = 0; i < rows; ++i) column[l * rows + i] += s * x[j * rows + i];
      }
    }
  }

  Index nboth() const { return point_.nboth_; }

  // L^-1 times the columns, and the derivatives of Z u with respect to what is between.
  void finish(const DesignEvidence& e, Matrix& rows, const Matrix& between) const {
    for (Index a = 0; a < kw_; ++a) e.whiten(rows.data() + a * e.d);
    const Eigen::Map<const Matrix> half(e.half.data(), e.d, r_);
    set_product(rows.rightCols(kb_), half, between);
  }

  // Derivatives of row a of a cluster with respect to what is within, from the coefficients of `map_w_`.
  void set_row(Matrix& rows, Index a, const Vector& coefficients, Vector& scratch) const {
    if (!kw_) return;
    scratch.setZero();
    add_applied_transposed(scratch, 1, map_w_, coefficients);
    rows.block(a * p_, 0, p_, kw_) = Eigen::Map<const Matrix>(scratch.data(), p_, kw_);
  }

  Matrix mean_products(Index piece) const {
    const ReducedData& data = *point_.data_;
    StackedProduct stack(kw_ + kb_, kw_ + kb_);
    Matrix rows, between(r_, kb_);
    Vector own = Vector::Zero(1 + f_ + p_ + m_), scratch(p_ * kw_);
    for_classes(piece, false, [&](Index c, const DesignEvidence& e) {
      const DesignClasses& classes = *point_.classes_;
      const Index begin = classes.first[c], end = f_ ? classes.first[c + 1] : begin + 1;
      const auto push = [&](double weight) {
        finish(e, rows, between);
        auto [l, r] = stack.next(e.d);
        l = weight * rows;
        r = rows;
      };
      rows.setZero(e.d, kw_ + kb_);
      for (Index at = begin; at < end; ++at) {
        const Index cluster = classes.member[at];
        for (Index a = 0; a < e.rho; ++a) {
          own[0] = e.design[a * data.design.rows()];
          for (Index k = 0; k < f_; ++k) own[1 + k] = point_.given_(k, data.first[cluster] + a);
          for (Index k = 0; k < m_; ++k) own[1 + f_ + p_ + k] = design(e, a, k) * point_.mu_u_[nboth() + k];
          set_row(rows, a, own, scratch);
        }
        between = between_.mean;
        push(f_ ? data.weight[cluster] : classes.weight[c]);
      }
      // the mean given z has the covariance matrix of B z
      own.setZero();
      for (Index l = 0; l < q_; ++l) {
        for (Index a = 0; a < e.rho; ++a) {
          for (Index k = 0; k < m_; ++k)
            own[1 + f_ + p_ + k] = design(e, a, k) * point_.between_.slopes(nboth() + k, l);
          set_row(rows, a, own, scratch);
        }
        for (Index a = 0; a < kb_; ++a) between.col(a) = slice(between_.slope, a, r_, q_).col(l);
        push(classes.weight[c]);
      }
      own.setZero();
    });
    return stack.total();
  }

  // The same of the pooled rest, whose rows have neither intercept nor covariates with slopes.
  Matrix rest_products(bool with_residuals) const {
    Matrix out = Matrix::Zero(kw_ + kb_, kw_ + kb_);
    Matrix rows(p_, kw_);
    Vector own = Vector::Zero(1 + f_ + p_ + m_), scratch(p_ * kw_);
    for (std::size_t r = 0; kw_ && r < point_.observed_.size(); ++r) {
      const Matrix &t = point_.rest_t_[r], &weight = point_.observed_[r].weight;
      for (Index j = 0; j < t.cols(); ++j) {
        for (Index k = 0; k < f_; ++k) own[1 + k] = point_.rest_given_[r](k, j);
        if (with_residuals) own.segment(1 + f_, p_) = t.col(j);
        set_row(rows, 0, own, scratch);
        const Matrix left = point_.observed_[r].map.size() ? product(weight, rows) : rows;
        add_cross(out.topLeftCorner(kw_, kw_), 1, left, rows);
      }
    }
    return out;
  }

  void add_curvature(Index piece, Curvature& s) const {
    const ReducedData& data = *point_.data_;
    const DesignClasses& classes = *point_.classes_;
    StackedProduct stack(kw_ + kb_, kw_ + kb_);
    Matrix rows, between(r_, kb_), residual, nz;
    Vector own(1 + f_ + p_ + m_), scratch(p_ * kw_), given(1 + q_ + r_), steps(r_ * kb_), tau(p_);
    ClusterOfDesign one(point_);
    for_classes(piece, true, [&](Index c, const DesignEvidence& e) {
      residual = classes.weight[c] * Eigen::Map<const Matrix>(e.inverse.data(), e.d, e.d);
      rows.resize(e.d, kw_ + kb_);
      const Eigen::Map<const Matrix> z(e.z.data(), e.d, r_), zc(e.zc.data(), e.d, r_);
      for (Index at = classes.first[c]; at < classes.first[c + 1]; ++at) {
        const Index cluster = classes.member[at];
        const double weight = data.weight[cluster];
        one.compute(point_, e, cluster);
        const Eigen::Map<const Vector> t(one.t.data(), e.d), u(one.u.data(), r_);
        add_outer(residual, -weight, t, t);
        for (Index a = 0; a < e.rho; ++a) {
          own[0] = e.design[a * data.design.rows()];
          for (Index k = 0; k < f_; ++k) own[1 + k] = point_.given_(k, data.first[cluster] + a);
          own.segment(1 + f_, p_) = t.segment(a * p_, p_);
          for (Index k = 0; k < m_; ++k) own[1 + f_ + p_ + k] = design(e, a, k) * one.all[nboth() + k];
          set_row(rows, a, own, scratch);
        }
        for (Index k = 0; k < m_; ++k) {
          tau.setZero();
          for (Index a = 0; a < e.rho; ++a) tau += design(e, a, k) * t.segment(a * p_, p_);
          const Vector turned = apply_transposed(within_.slope.middleRows((f_ + k) * p_, p_), tau);
          add_outer(rows.leftCols(kw_), 1, zc.col(nboth() + k), turned);
          auto mean = s.with_mean.middleRows(k * p_, p_);
          mean.col(0) += weight * tau;
          for (Index l = 0; l < q_; ++l) mean.col(1 + l) += weight * point_.zeta_(l, cluster) * tau;
        }
        given << 1, point_.zeta_.col(cluster), u;
        steps.setZero();
        if (kb_) add_applied_transposed(steps, 1, map_b_, given);
        between = Eigen::Map<const Matrix>(steps.data(), r_, kb_);
        finish(e, rows, between);
        auto [l, r] = stack.next(e.d);
        l = weight * rows;
        r = rows;
      }
      nz = product(residual, z);
      for (Index k = 0; k < m_; ++k) {
        auto with_c = s.with_c.middleRows(k * p_, p_);
        for (Index a = 0; a < e.rho; ++a) {
          with_c += design(e, a, k) * nz.middleRows(a * p_, p_);
          for (Index l = 0; l < m_; ++l) {
            for (Index b = 0; b < e.rho; ++b)
              s.with_lambda.block(k * p_, l * p_, p_, p_) +=
                  design(e, a, k) * design(e, b, l) * residual.block(a * p_, b * p_, p_, p_);
          }
        }
      }
    });
    s.products += stack.total();
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
