// Expected and observed information of the likelihood with random slopes.
//
// Both are sums over clusters of products of the derivatives of their values, dy_a = -(d mean + dM t), and of
// traces of products of dM, which clusters of one design share. What is expected is summed in coordinates of
// the moments (expectation.hpp), and parameters come in at the end.
#include <algorithm>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "base/stacked.hpp"
#include "base/threads.hpp"
#include "likelihood/slopes/evidence.hpp"
#include "likelihood/slopes/expectation.hpp"

namespace msem {

namespace {

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
    const SlopeExpectation& sum = point_.expectation();
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
    const auto [w, b] = coordinates();
    Matrix both = Matrix::Zero(w.rows() + b.rows(), kw_ + kb_);
    both.topLeftCorner(w.rows(), kw_) = w;
    both.bottomRightCorner(b.rows(), kb_) = b;
    return sandwich(both, point_.expectation().means);
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
    Matrix out = 2 * (sum.products + rest_products()) - 2 * covariances();
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
  const Whitened& between() const { return between_; }

  // Derivatives of what the means are made of; see `SlopeExpectation::means`.
  std::pair<Matrix, Matrix> coordinates() const {
    std::pair<Matrix, Matrix> out{Matrix(p_ + within_.slope.rows(), kw_),
                                  Matrix(r_ + between_.slope.rows(), kb_)};
    out.first << within_.mean, within_.slope;
    out.second << between_.mean, between_.slope;
    return out;
  }

 private:
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
      multiply_lanes(e.half.data(), between.data(), between_.data(), d, of_.r_, kb);
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

  // The same of the pooled rest, whose rows have neither intercept nor covariates with slopes.
  Matrix rest_products() const {
    Matrix out = Matrix::Zero(kw_ + kb_, kw_ + kb_);
    Matrix rows(p_, kw_);
    Vector own = Vector::Zero(1 + f_ + p_ + m_), scratch(p_ * kw_);
    for (std::size_t r = 0; kw_ && r < point_.observed_.size(); ++r) {
      const Matrix &t = point_.rest_t_[r], &weight = point_.observed_[r].weight;
      for (Index j = 0; j < t.cols(); ++j) {
        for (Index k = 0; k < f_; ++k) own[1 + k] = point_.classes_->rest[r](p_ + k, j);
        own.segment(1 + f_, p_) = t.col(j);
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
    const DesignClasses& classes = *point_.classes_;
    DesignEvidence e(point_);
    for (Index number = classes.pieces[piece]; number < classes.pieces[piece + 1]; ++number) {
      if (number % 256 == 0) check_interrupt();
      const DesignBatch& batch = classes.batches[number];
      e.compute(batch, true);
      const Index d = e.d;
      residual = e.inverse;
      for (Lanes& x : residual) x *= batch.weight;
      for (Index at = batch.first; at < batch.last; ++at) {
        const DesignStep& step = classes.steps[at];
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
      multiply_lanes(residual.data(), e.z.data(), nz.data(), d, d, r);
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
    }
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
  const Matrix root = symmetric_root(information.covariances() + information.given());
  const Matrix mean_root = symmetric_root(expectation().means);
  const auto [w, b] = information.coordinates();
  const Index kw = information.kw(), kb = information.between().k(), height = root.rows() + mean_root.rows();
  std::pair<Matrix, Matrix> out{Matrix(height, kw), Matrix(height, kb)};
  out.first << root.leftCols(kw), product(mean_root.leftCols(w.rows()), w);
  out.second << root.rightCols(kb), product(mean_root.rightCols(b.rows()), b);
  return out;
}

}  // namespace msem
