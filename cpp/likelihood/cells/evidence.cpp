#include "likelihood/cells/evidence.hpp"

#include "likelihood/domain.hpp"

namespace msem {

namespace {

// Lower factor R with R R' = P for a matrix that is positive definite over the variables whose diagonal is
// not zero, which are those observed; the columns of the others are zero.
bool factor_observed(const Matrix& p, Matrix& root) {
  const Index n = root.rows();
  root.setZero();
  for (Index j = 0; j < n; ++j) {
    if (p(j, j) == 0) continue;
    double pivot = p(j, j);
    for (Index k = 0; k < j; ++k) pivot -= root(j, k) * root(j, k);
    if (!(pivot > 0)) return false;
    const double scale = std::sqrt(pivot);
    root(j, j) = scale;
    for (Index i = j + 1; i < n; ++i) {
      double sum = p(i, j);
      for (Index k = 0; k < j; ++k) sum -= root(i, k) * root(j, k);
      root(i, j) = sum / scale;
    }
  }
  return true;
}

}  // namespace

bool ClusterEvidence::compute(const IncompleteData& data, Index cluster, const std::vector<Matrix>& weights,
                              const Matrix& cov, Index left_out) {
  const Index p = data.p, b = cov.rows();
  precision.setZero(p, p);
  for (Index c = data.first_cell[cluster]; c < data.first_cell[cluster + 1]; ++c) {
    const double* w = weights[data.cell_pattern[c]].data();
    const double n = data.cell_rows[c] - (data.cell_pattern[c] == left_out ? 1 : 0);
    double* out = precision.data();
    for (Index i = 0; i < p * p; ++i) out[i] += n * w[i];
  }
  log_det = 0;
  if (!b) return true;
  root_.resize(b, b);
  if (!factor_observed(precision, root_)) return false;
  product_.noalias() = cov.lazyProduct(root_);
  inner_.noalias() = root_.transpose().lazyProduct(product_);
  inner_.diagonal().array() += 1;
  // I + R' C R = K K' in place, and then K^-1 R'
  half_ = root_.transpose();
  for (Index j = 0; j < b; ++j) {
    double pivot = inner_(j, j);
    for (Index k = 0; k < j; ++k) pivot -= inner_(j, k) * inner_(j, k);
    if (!(pivot > kEdge)) return false;
    const double scale = std::sqrt(pivot);
    log_det += std::log(pivot);
    inner_(j, j) = scale;
    for (Index i = j + 1; i < b; ++i) {
      double sum = inner_(i, j);
      for (Index k = 0; k < j; ++k) sum -= inner_(i, k) * inner_(j, k);
      inner_(i, j) = sum / scale;
    }
    for (Index col = 0; col < b; ++col) {
      double sum = half_(j, col);
      for (Index k = 0; k < j; ++k) sum -= inner_(j, k) * half_(k, col);
      half_(j, col) = sum / scale;
    }
  }
  resolvent.noalias() = half_.transpose().lazyProduct(half_);
  product_.noalias() = resolvent.lazyProduct(cov);
  posterior.noalias() = -cov.lazyProduct(product_);
  posterior += cov;
  shrinkage.noalias() = -posterior.lazyProduct(precision.topLeftCorner(b, b));
  shrinkage.diagonal().array() += 1;
  return std::isfinite(log_det);
}

void view_cluster(const IncompleteData& d, Index cluster, const Vector& mu, const ConditionalLevel& level,
                  const std::vector<Matrix>& weights, const ClusterEvidence& evidence, ClusterView& out) {
  const Index p = d.p, b = d.nboth, t = d.cluster_pattern[cluster], q = level.mu_z.size();
  out.mean = mu;
  out.z.resize(q);
  if (q) {
    for (Index k = 0; k < q; ++k)
      out.z[k] = d.cluster_values(d.cluster_patterns[t][k], cluster) - level.mu_z[k];
    level.chol_z.whiten_in_place(out.z);
    add_product(level.slopes.data(), b, q, out.z.data(), 1, out.mean.data());
  }
  out.q.setZero(p);
  out.deviation.resize(p);
  Vector& weighted = out.u;
  out.quadratic = 0;
  for (Index c = d.first_cell[cluster]; c < d.first_cell[cluster + 1]; ++c) {
    const double *mean = d.cell_means.data() + c * p, n = d.cell_rows[c];
    for (Index i = 0; i < p; ++i) out.deviation[i] = mean[i] - out.mean[i];
    weighted.setZero(p);
    add_product(weights[d.cell_pattern[c]].data(), p, p, out.deviation.data(), n, weighted.data());
    out.quadratic += dot(weighted.data(), out.deviation.data(), p);
    out.q += weighted;
  }
  out.effect.setZero(b);
  add_product(evidence.posterior.data(), b, b, out.q.data(), 1, out.effect.data());
  out.u = out.q;
  add_product(evidence.precision.data(), p, b, out.effect.data(), -1, out.u.data());
}

}  // namespace msem
