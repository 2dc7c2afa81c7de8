#include "likelihood/slopes/evidence.hpp"

namespace msem {

bool DesignEvidence::compute(Index cluster, bool inverses) {
  const ReducedData& data = *point_.data_;
  const Index p = point_.p_, r = point_.r_, nb = point_.nboth_, m = point_.m_, width = data.design.rows();
  rho = data.first[cluster + 1] - data.first[cluster];
  d = rho * p;
  design = data.design.data() + data.first[cluster] * width;
  seen_.resize(rho);
  row_.resize(p);
  holes_ = false;
  for (Index a = 0; a < rho; ++a) {
    seen_[a] = &point_.observed_[data.row_pattern[data.first[cluster] + a]];
    holes_ = holes_ || seen_[a]->map.size();
  }
  z.assign(d * r, 0.0);
  zc.assign(d * r, 0.0);
  root.resize(d * d);
  for (Index a = 0; a < rho; ++a) {
    const double* row = design + a * width;
    for (Index k = 0; k < nb && row[0] != 0; ++k) {
      const double* e = point_.whitener_.data() + k * p;
      for (Index i = k; i < p; ++i) z[k * d + a * p + i] = row[0] * e[i];
    }
    for (Index k = 0; k < m; ++k) {
      const double x = row[data.covariate[k]];
      const double* lambda = point_.lambda_.data() + k * p;
      for (Index i = 0; i < p; ++i) z[(nb + k) * d + a * p + i] = x * lambda[i];
    }
  }
  const double* c = point_.between_.cov.data();
  for (Index j = 0; j < r; ++j) {
    for (Index k = 0; k < r; ++k) {
      const double s = c[j * r + k];
      for (Index i = 0; i < d; ++i) zc[j * d + i] += s * z[k * d + i];
    }
  }
  if (holes_) {
    mapped_ = z;
    mapped_c_ = zc;
    for (Index k = 0; k < r; ++k) {
      map_rows(mapped_.data() + k * d, false);
      map_rows(mapped_c_.data() + k * d, false);
    }
  }
  const std::vector<double>&left = holes_ ? mapped_ : z, &right = holes_ ? mapped_c_ : zc;
  log_det = 0;
  for (Index j = 0; j < d; ++j) {
    double* column = root.data() + j * d;
    for (Index i = j; i < d; ++i) column[i] = i == j ? 1.0 : 0.0;
    for (Index k = 0; k < r; ++k) {
      const double s = left[k * d + j];
      const double* other = right.data() + k * d;
      for (Index i = j; i < d; ++i) column[i] += s * other[i];
    }
    for (Index k = 0; k < j; ++k) {
      const double* before = root.data() + k * d;
      const double s = before[j];
      for (Index i = j; i < d; ++i) column[i] -= s * before[i];
    }
    if (!(column[j] > 0) || !std::isfinite(column[j])) return false;
    log_det += std::log(column[j]);
    const double pivot = std::sqrt(column[j]);
    for (Index i = j; i < d; ++i) column[i] /= pivot;
  }
  half = z;
  for (Index k = 0; k < r; ++k) whiten(half.data() + k * d);
  if (!inverses) return true;
  inverse.assign(d * d, 0.0);
  for (Index j = 0; j < d; ++j) {
    inverse[j * d + j] = 1;
    whiten(inverse.data() + j * d);
    whiten_transposed(inverse.data() + j * d);
  }
  solved = zc;
  for (Index k = 0; k < r; ++k) {
    whiten(solved.data() + k * d);
    whiten_transposed(solved.data() + k * d);
  }
  return true;
}

void DesignEvidence::map_rows(double* x, bool transposed) const {
  const Index p = point_.p_;
  for (Index a = 0; a < rho; ++a, x += p) {
    const Matrix& map = seen_[a]->map;
    if (!map.size()) continue;
    std::copy(x, x + p, row_.begin());
    for (Index i = 0; i < p; ++i) {
      double sum = 0;
      for (Index k = 0; k < p; ++k) sum += (transposed ? map(k, i) : map(i, k)) * row_[k];
      x[i] = sum;
    }
  }
}

void DesignEvidence::whiten(double* x) const {
  if (holes_) map_rows(x, false);
  for (Index j = 0; j < d; ++j) {
    const double* column = root.data() + j * d;
    x[j] /= column[j];
    for (Index i = j + 1; i < d; ++i) x[i] -= column[i] * x[j];
  }
}

void DesignEvidence::whiten_transposed(double* x) const {
  for (Index j = d - 1; j >= 0; --j) {
    const double* column = root.data() + j * d;
    double sum = x[j];
    for (Index i = j + 1; i < d; ++i) sum -= column[i] * x[i];
    x[j] = sum / column[j];
  }
  if (holes_) map_rows(x, true);
}

ClusterOfDesign::ClusterOfDesign(const SlopePoint& point) : mean(point.r_), u(point.r_), all(point.r_) {}

void ClusterOfDesign::compute(const SlopePoint& point, const DesignEvidence& evidence, Index cluster) {
  const Index d = evidence.d, r = point.r_, q = point.q_;
  for (Index k = 0; k < r; ++k) mean[k] = point.mu_u_[k];
  for (Index l = 0; l < q; ++l) {
    const double zeta = point.zeta_(l, cluster);
    for (Index k = 0; k < r; ++k) mean[k] += point.between_.slopes(k, l) * zeta;
  }
  const double* values = point.residuals_.data() + point.data_->first[cluster] * point.p_;
  t.assign(values, values + d);
  for (Index k = 0; k < r; ++k) {
    const double* column = evidence.z.data() + k * d;
    for (Index i = 0; i < d; ++i) t[i] -= column[i] * mean[k];
  }
  evidence.whiten(t.data());
  quadratic = 0;
  for (Index i = 0; i < d; ++i) quadratic += t[i] * t[i];
  evidence.whiten_transposed(t.data());
  for (Index k = 0; k < r; ++k) {
    const double* column = evidence.z.data() + k * d;
    double sum = 0;
    for (Index i = 0; i < d; ++i) sum += column[i] * t[i];
    u[k] = sum;
  }
  for (Index k = 0; k < r; ++k) {
    double sum = mean[k];
    for (Index j = 0; j < r; ++j) sum += point.between_.cov(k, j) * u[j];
    all[k] = sum;
  }
}

}  // namespace msem
