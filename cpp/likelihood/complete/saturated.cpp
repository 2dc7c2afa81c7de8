#include "likelihood/complete/saturated.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/interrupt.hpp"
#include "likelihood/domain.hpp"

namespace msem {

namespace {

constexpr double kFast = 0.1;        // ratio of decrements from which the next one is foreseen
constexpr double kInterior = 1e-6;   // share of the variance within that a maximum leaves for cluster means
constexpr double kProjected = 1e-8;  // least decrement that is told from rounding of eigenvalues to zero

constexpr double kClear = 1e-6;  // share of its sum of squares that the others have to leave of a covariate

bool well_above_rounding(const Cholesky& chol, const Matrix& a) {
  for (Index i = 0; i < a.rows(); ++i) {
    if (!(chol.pivot(i) > kClear * a(i, i))) return false;
  }
  return true;
}

// y = coefficients (1, x, z) + u + e over the both-level variables, in terms of the data's sufficient
// statistics.
class RandomInterceptRegression {
 public:
  RandomInterceptRegression(const TwoLevelData& data, bool cone)
      : d_(&data), b_(data.nboth), k_(data.p - data.nboth), q_(data.q), cone_(cone) {
    design_.resize(d_->rows.rows(), 1 + k_ + q_);
    design_ << d_->rows.col(0), d_->rows.middleCols(1 + b_, k_), d_->rows.rightCols(q_);
    outcome_ = d_->rows.middleCols(1, b_);
    const Index width = design_.cols(), sizes = d_->sizes.size();
    if (sizes * width < design_.rows()) {
      gram_by_size_.setZero(width * width, sizes);
      for (Index r = 0; r < design_.rows(); ++r) {
        Eigen::Map<Matrix> gram = slice(gram_by_size_, d_->size_index[r], width, width);
        for (Index j = 0; j < width; ++j) gram.col(j) += design_(r, j) * design_.row(r).transpose();
      }
    }
    ssw_xx_ = Matrix::Zero(1 + k_ + q_, 1 + k_ + q_);
    ssw_xx_.block(1, 1, k_, k_) = d_->ssw.bottomRightCorner(k_, k_);
    ssw_yx_ = Matrix::Zero(b_, 1 + k_ + q_);
    ssw_yx_.middleCols(1, k_) = d_->ssw.topRightCorner(b_, k_);
    ssw_yy_ = d_->ssw.topLeftCorner(b_, b_);
    const Vector mean = apply_transposed(outcome_, d_->row_size.cwiseProduct(d_->rows.col(0))) / d_->nobs;
    total_ = weighted_cross(outcome_, d_->row_size, outcome_).diagonal() - d_->nobs * mean.cwiseAbs2();
  }

  // Ordinary regression, its residual variance split by a moment estimate: cautiously, so that both parts are
  // positive definite, or without bias, which is nearer to the maximum but may be outside the domain.
  void start(bool cautious) {
    const Matrix weighted = scale_rows(d_->row_size, design_);
    Matrix gram = ssw_xx_, with_outcome = ssw_yx_.transpose();
    add_cross(gram, 1, design_, weighted);
    add_cross(with_outcome, 1, weighted, outcome_);
    coefficients.resize(b_, design_.cols());
    PivotedLdl solver;
    solver.compute(gram);
    for (Index i = 0; i < b_; ++i) coefficients.row(i) = solver.solve(with_outcome.col(i)).transpose();
    const Matrix within = residual_within(coefficients);
    sigma_e = within / std::max(1.0, d_->nobs - d_->nclusters);
    Matrix r = outcome_;
    add_outer(r, -1, design_, coefficients);
    sigma_u = cross(r, r) / d_->nclusters;
    if (!cautious) sigma_u -= sigma_e * (d_->counts.cwiseQuotient(d_->sizes).sum() / d_->nclusters);
  }

  // Whether the covariance matrix within is regular beside the variances of the outcomes.
  bool regular() const {
    Cholesky chol;
    return chol.compute(sigma_e) && msem::regular(chol, (ssw_yy_.diagonal() + total_) / d_->nobs);
  }

  // Whether it is not at the edge of the domain, where steps lose their digits long before it is reached.
  bool interior() const { return shrink_.size() > 0 && shrink_.maxCoeff() < 1 / kInterior; }

  bool prepare() {
    Cholesky chol;
    if (!chol.compute(sigma_e)) return false;
    Matrix reduced = chol.whiten(chol.whiten(sigma_u).transpose());
    symmetrise(reduced);
    const SymmetricEigen eigen(reduced);
    lambda_ = eigen.values;
    v_ = chol.whiten_transposed(eigen.vectors);
    inverse_ = product(chol.lower(), eigen.vectors);  // V^-T
    held_ = 0;
    if (cone_ && !(lambda_[0] > 0)) {  // ascending
      lambda_ = lambda_.cwiseMax(0);
      sigma_u = outer(scale_cols(inverse_, lambda_), inverse_);
      held_ = (lambda_.array() <= 0).count();
    }
    const Matrix grow = one_plus_outer(d_->sizes, lambda_);
    if (!(grow.minCoeff() > kEdge)) return false;
    shrink_ = grow.cwiseInverse();
    rotated_.resize(outcome_.rows(), b_);
    set_product(rotated_, outcome_, v_);
    add_product(rotated_, -1, design_, cross(coefficients, v_));
    row_shrink_.resize(rotated_.rows(), b_);
    for (Index i = 0; i < b_; ++i) {
      for (Index r = 0; r < rotated_.rows(); ++r) row_shrink_(r, i) = shrink_(d_->size_index[r], i);
    }
    ssw_ = sandwich(v_, residual_within(coefficients));
    if (held_ > 0) turn_held();
    value = d_->nobs * (static_cast<double>(b_) * kLog2Pi + chol.log_det()) + ssw_.trace() +
            d_->counts.dot(log_row_products(grow)) + weighted_residuals().cwiseProduct(rotated_).sum();
    return std::isfinite(value);
  }

  // Newton for the coefficients and scoring for the covariances; returns the decrement.
  double scoring_step(RandomInterceptRegression& next, double length) const {
    double decrement = 0;
    next.coefficients = coefficients + length * coefficient_step(decrement);
    const Matrix scaled = weighted_residuals();
    Matrix g_u = -cross(scaled, scaled);
    g_u.diagonal() += apply_transposed(shrink_, d_->counts.cwiseProduct(d_->sizes));
    Matrix g_e = -cross(scaled, row_shrink_.cwiseProduct(rotated_)) - ssw_;
    g_e.diagonal() += apply_transposed(shrink_, d_->counts);
    g_e.diagonal().array() += d_->nobs - d_->nclusters;
    const Matrix k0 = weights(0), k1 = weights(1), k2 = weights(2);
    Matrix step_e(b_, b_), step_u(b_, b_);
    const std::vector<bool> zero = zeros(g_e, g_u, k0, k1, k2);
    for (Index j = 0; j < b_; ++j) {
      for (Index i = 0; i < b_; ++i) {
        if (zero[i] && zero[j]) {
          step_u(i, j) = i == j ? -lambda_[i] : 0;
          step_e(i, j) = -(g_e(i, j) + k1(i, j) * step_u(i, j)) / k0(i, j);
          continue;
        }
        double curved = k2(i, j);  // an element off the diagonal takes a positive one on it along
        if (zero[i] && g_u(i, i) > 0 && lambda_[j] > 0) curved += g_u(i, i) / lambda_[j];
        if (zero[j] && g_u(j, j) > 0 && lambda_[i] > 0) curved += g_u(j, j) / lambda_[i];
        const double det = k0(i, j) * curved - k1(i, j) * k1(i, j);
        step_e(i, j) = -(curved * g_e(i, j) - k1(i, j) * g_u(i, j)) / det;
        step_u(i, j) = -(k0(i, j) * g_u(i, j) - k1(i, j) * g_e(i, j)) / det;
      }
    }
    decrement -= 0.5 * (g_e.cwiseProduct(step_e).sum() + g_u.cwiseProduct(step_u).sum());
    next.sigma_e = sigma_e + length * outer_sandwich(inverse_, step_e);
    next.sigma_u = sigma_u + length * outer_sandwich(inverse_, step_u);
    return decrement;
  }

  // EM for the covariances, the coefficients set to their maximum given these (ECME; Liu & Rubin, 1994).
  void em_step(RandomInterceptRegression& next) const {
    double ignored = 0;
    next.coefficients = coefficients + coefficient_step(ignored);
    const Matrix scaled = weighted_residuals();
    const Matrix posterior = scale_cols(scaled, lambda_);  // posterior means of u
    Matrix u = cross(posterior, posterior);
    u.diagonal() += lambda_.cwiseProduct(apply_transposed(shrink_, d_->counts));
    const Matrix noise = row_shrink_.cwiseProduct(rotated_);  // rotated residual less the posterior mean
    Matrix e = ssw_;
    add_cross(e, 1, noise, scaled);
    e.diagonal() += lambda_.cwiseProduct(apply_transposed(shrink_, d_->counts.cwiseProduct(d_->sizes)));
    next.sigma_u = outer_sandwich(inverse_, u) / d_->nclusters;
    next.sigma_e = outer_sandwich(inverse_, e) / d_->nobs;
  }

  double decrement() const {
    RandomInterceptRegression scratch(*this);
    return scoring_step(scratch, 0);
  }

  Matrix coefficients;  // b x (1 + k + q), about the origin of the data
  Matrix sigma_e, sigma_u;
  double value = 0;  // -2 log L of y given x and z

 private:
  Matrix residual_within(const Matrix& c) const {
    Matrix out = ssw_yy_;
    add_with_transpose(out, -1, outer(c, ssw_yx_));
    return out + outer_sandwich(c, ssw_xx_);
  }

  Matrix weights(int power) const { return d_->shrinkage_weights(shrink_, power); }

  // Eigenvalues of Sigma_u that a step makes zero, or leaves so; others of zero rise with the likelihood.
  std::vector<bool> zeros(const Matrix& g_e, const Matrix& g_u, const Matrix& k0, const Matrix& k1,
                          const Matrix& k2) const {
    std::vector<bool> out(b_, false);
    for (Index i = 0; cone_ && i < b_; ++i) {
      const double det = k0(i, i) * k2(i, i) - k1(i, i) * k1(i, i);
      const double step = -(k0(i, i) * g_u(i, i) - k1(i, i) * g_e(i, i)) / det;
      out[i] = i < held_ ? g_u(i, i) >= 0 : lambda_[i] + step < 0;
    }
    return out;
  }

  // Turns the eigenvectors of eigenvalue zero among themselves so that the derivatives of the value in
  // Sigma_u are a diagonal matrix over them: each tells whether its eigenvalue would rise.
  void turn_held() {
    const Matrix scaled = scale_rows(d_->row_size, rotated_.leftCols(held_));
    const Matrix turn = SymmetricEigen(-cross(scaled, scaled)).vectors;
    v_.leftCols(held_) = product(v_.leftCols(held_), turn);
    inverse_.leftCols(held_) = product(inverse_.leftCols(held_), turn);
    rotated_.leftCols(held_) = product(rotated_.leftCols(held_), turn);
    ssw_ = sandwich(v_, residual_within(coefficients));
  }

  // n D times the rotated residuals.
  Matrix weighted_residuals() const { return scale_rows(d_->row_size, row_shrink_.cwiseProduct(rotated_)); }

  // sum_r n D_ri x_r x_r' for the eigenvector i, x the design.
  Matrix weighted_gram(Index i) const {
    const Index width = design_.cols();
    if (gram_by_size_.size()) {
      const Vector packed = apply(gram_by_size_, d_->sizes.cwiseProduct(shrink_.col(i)));
      return Eigen::Map<const Matrix>(packed.data(), width, width);
    }
    return weighted_cross(design_, d_->row_size.cwiseProduct(row_shrink_.col(i)), design_);
  }

  // With pivots where covariates are close to dependent.
  static Vector solved(const Matrix& a, const Vector& g) {
    Cholesky chol;
    if (chol.compute(a) && well_above_rounding(chol, a)) return chol.solve(g);
    PivotedLdl solver;
    solver.compute(a);
    return solver.solve(g);
  }

  // Generalised least squares given the covariances, one small system per eigenvector.
  Matrix coefficient_step(double& decrement) const {
    const Matrix within = cross(v_, ssw_yx_ - product(coefficients, ssw_xx_));
    const Matrix between = cross(weighted_residuals(), design_);
    Matrix step(b_, design_.cols());
    for (Index i = 0; i < b_; ++i) {
      const Vector g = (within.row(i) + between.row(i)).transpose();
      const Vector x = solved(ssw_xx_ + weighted_gram(i), g);
      step.row(i) = x.transpose();
      decrement += x.dot(g);
    }
    return product(inverse_, step);
  }

  const TwoLevelData* d_;
  Index b_, k_, q_;
  bool cone_;
  Index held_ = 0;  // eigenvalues of zero, which come first
  Matrix design_, outcome_, ssw_xx_, ssw_yx_, ssw_yy_;
  Matrix gram_by_size_;    // of the design, as columns; empty where that is not less than its rows
  Vector lambda_, total_;  // total_: sums of squares of the cluster means of the outcomes
  Matrix v_, inverse_, shrink_, row_shrink_, rotated_, ssw_;
};

// NaN where a covariance matrix is singular.
double normal_loglik(const Matrix& cov, double n) {
  Cholesky chol;
  if (!chol.compute(cov) || !regular(chol, cov.diagonal())) return std::numeric_limits<double>::quiet_NaN();
  return -0.5 * n * (static_cast<double>(cov.rows()) * (kLog2Pi + 1) + chol.log_det());
}

// Joint moments of (y, x) within and (y, z) between from the regression and the marginal moments of x and z.
void assemble(const TwoLevelData& d, const Matrix& coefficients, const Matrix& sigma_e, const Matrix& sigma_u,
              SaturatedFit& out) {
  const Index b = d.nboth, k = d.p - b, q = d.q;
  Moments m;
  m.mean_w.setZero(d.p);
  m.cov_w.setZero(d.p, d.p);
  m.mean_b.setZero(b + q);
  m.cov_b.setZero(b + q, b + q);
  if (b) {
    m.cov_w.topLeftCorner(b, b) = sigma_e;
    m.cov_b.topLeftCorner(b, b) = sigma_u;
    m.mean_b.head(b) = coefficients.col(0) + d.origin.head(b);
  }
  if (k) {
    const auto x = d.rows.middleCols(1 + b, k);
    const Vector mean = apply_transposed(x, d.row_size.cwiseProduct(d.rows.col(0))) / d.nobs;
    Matrix cov = (d.ssw.bottomRightCorner(k, k) + weighted_cross(x, d.row_size, x)) / d.nobs;
    add_outer(cov, -1, mean, mean);
    m.mean_w.tail(k) = mean + d.origin.segment(b, k);
    m.cov_w.bottomRightCorner(k, k) = cov;
    out.loglik += normal_loglik(cov, d.nobs);
    if (b) {
      const auto slope = coefficients.middleCols(1, k);
      const Matrix joint = product(slope, cov);
      m.cov_w.topRightCorner(b, k) = joint;
      m.cov_w.bottomLeftCorner(k, b) = joint.transpose();
      add_outer(m.cov_w.topLeftCorner(b, b), 1, joint, slope);
      m.mean_b.head(b) += apply(slope, mean);
    }
  }
  if (q) {
    const Matrix cov = d.z_scatter / d.nclusters;
    m.mean_b.tail(q) = d.z_mean + d.origin.tail(q);
    m.cov_b.bottomRightCorner(q, q) = cov;
    out.loglik += normal_loglik(cov, d.nclusters);
    if (b) {
      const auto slope = coefficients.rightCols(q);
      const Matrix joint = product(slope, cov);
      m.cov_b.topRightCorner(b, q) = joint;
      m.cov_b.bottomLeftCorner(q, b) = joint.transpose();
      add_outer(m.cov_b.topLeftCorner(b, b), 1, joint, slope);
      m.mean_b.head(b) += apply(slope, d.z_mean);
    }
  }
  if (m.cov_w.size()) symmetrise(m.cov_w);
  symmetrise(m.cov_b);
  out.levels = TwoLevels{d.p, b, q}.levels(std::move(m));
}

bool try_scoring(const RandomInterceptRegression& current, RandomInterceptRegression& next,
                 double& decrement) {
  for (double length = 1; length > 1e-3; length *= 0.5) {
    decrement = current.scoring_step(next, length);
    if (decrement < 1e-9) return next.prepare();  // rounding hides the gain in the value
    if (next.prepare() && next.value < current.value) return true;
  }
  return false;
}

int most_steps(const SaturatedOptions& options) {
  if (options.max_iterations) return options.max_iterations;
  if (options.method == SaturatedMethod::kEm) return 200000;
  return options.cone ? 1000 : 200;
}

// Climb from where `current` is.
void climb(RandomInterceptRegression& current, const SaturatedOptions& options, SaturatedFit& out) {
  const bool em = options.method == SaturatedMethod::kEm;
  const int limit = most_steps(options);
  const double enough = options.cone ? std::max(options.tolerance, kProjected) : options.tolerance;
  RandomInterceptRegression next(current);
  out.decrement = 0;
  for (; out.iterations < limit; ++out.iterations) {
    check_interrupt();
    bool moved = false;
    const double last = out.decrement;
    if (em) {
      out.decrement = current.decrement();
    } else {
      moved = try_scoring(current, next, out.decrement);
    }
    // what the step that has been made leaves, by the rate at which the last one did
    const bool fast = moved && out.decrement < kFast * last;
    if (out.decrement < enough ||
        (fast && out.decrement * (out.decrement / last) < options.foreseen * options.tolerance)) {
      out.converged = true;
      if (moved) std::swap(current, next);  // it has been evaluated, and has less of an error
      break;
    }
    if (!moved) {
      current.em_step(next);
      ++out.em_steps;
      if (!next.prepare()) break;
    }
    std::swap(current, next);
  }
}

}  // namespace

SaturatedFit fit_saturated(const TwoLevelData& data, const SaturatedOptions& options) {
  SaturatedFit out;
  RandomInterceptRegression current(data, options.cone);
  if (data.nboth == 0) {
    assemble(data, current.coefficients, current.sigma_e, current.sigma_u, out);
    out.converged = std::isfinite(out.loglik);
    return out;
  }
  if (options.method == SaturatedMethod::kScoring && !options.cone) {
    current.start(false);
    if (current.regular() && current.prepare()) climb(current, options, out);
  }
  // from well within the domain: few clusters leave the other start near its edge
  if (!out.converged && out.iterations < most_steps(options)) {
    current.start(true);
    // what does not vary within clusters leaves the likelihood unbounded
    if (current.regular() && current.prepare()) {
      climb(current, options, out);
    } else {
      current.value = std::numeric_limits<double>::quiet_NaN();
    }
  }
  out.loglik = -0.5 * current.value;
  assemble(data, current.coefficients, current.sigma_e, current.sigma_u, out);
  out.converged = out.converged && std::isfinite(out.loglik) && current.regular() && current.interior();
  return out;
}

}  // namespace msem
