#include "likelihood/slopes/evidence.hpp"

#include <algorithm>
#include <array>

#include "likelihood/domain.hpp"

namespace msem {

namespace {

constexpr Index kFactors = 4;  // pivots whose product one logarithm is taken of

void set_zero(LaneVector& x, Index size) {
  x.resize(size);
  std::fill(x.begin(), x.end(), Lanes::Zero());
}

}  // namespace

DesignEvidence::DesignEvidence(const SlopePoint& point)
    : point_(point), width_(point.data_->design.rows()), row_(point.p_) {}

bool DesignEvidence::compute(const DesignBatch& batch, bool inverses) {
  const ReducedData& data = *point_.data_;
  const Index first = data.first[batch.example[0]];
  rho = data.first[batch.example[0] + 1] - first;
  d = rho * point_.p_;
  std::array<const double*, kLanes> own;
  for (Index lane = 0; lane < kLanes; ++lane)
    own[lane] = data.design.data() + data.first[batch.example[lane]] * width_;
  design.resize(rho * width_);
  gather(own, rho * width_, design.data());
  seen_.resize(rho);
  holes_ = false;
  for (Index a = 0; a < rho; ++a) {
    seen_[a] = &point_.observed_[data.row_pattern[first + a]];
    holes_ = holes_ || seen_[a]->map.size();
  }
  return with_shape([&](const auto& shape) { return compute(shape, inverses); });
}

template <class Shape>
bool DesignEvidence::compute(const Shape& shape, bool inverses) {
  const Index p = shape.p, r = shape.r, m = shape.m, nb = r - m, d = shape.rho * p;
  set_zero(z, d * r);
  for (Index a = 0; a < shape.rho; ++a) {
    const Lanes* row = design.data() + a * width_;
    const bool intercept = (row[0] != 0).any();
    for (Index k = 0; k < nb && intercept; ++k) {
      const double* e = point_.whitener_.data() + k * p;
      for (Index i = k; i < p; ++i) z[k * d + a * p + i] = row[0] * e[i];
    }
    for (Index k = 0; k < m; ++k) {
      const Lanes& x = covariate(a, k);
      const double* lambda = point_.lambda_.data() + k * p;
      for (Index i = 0; i < p; ++i) z[(nb + k) * d + a * p + i] = x * lambda[i];
    }
  }
  set_zero(zc, d * r);
  const double* c = point_.between_.cov.data();
  for (Index j = 0; j < r; ++j) {
    for (Index k = 0; k < r; ++k) {
      const double s = c[j * r + k];
      for (Index i = 0; i < d; ++i) zc[j * d + i] += s * z[k * d + i];
    }
  }
  if (!factor(shape)) return false;
  half = z;
  for (Index k = 0; k < r; ++k) whiten(shape, half.data() + k * d);
  if (!inverses) return true;
  set_zero(whitened_, d * d);
  inverse.resize(d * d);
  for (Index j = 0; j < d; ++j) {
    Lanes* column = whitened_.data() + j * d;
    column[j] = 1;
    whiten(shape, column);
    for (Index k = 0; k <= j; ++k) {
      const Lanes* before = whitened_.data() + k * d;
      Lanes sum = Lanes::Zero();
      // a row of A has values of its own row only
      for (Index i = j / p * p; i < d; ++i) sum += before[i] * column[i];
      inverse[j * d + k] = inverse[k * d + j] = sum;
    }
  }
  solved = zc;
  for (Index k = 0; k < r; ++k) {
    whiten(shape, solved.data() + k * d);
    whiten_transposed(shape, solved.data() + k * d);
  }
  return true;
}

// L L' = M = I + A Z C Z'A'.
template <class Shape>
bool DesignEvidence::factor(const Shape& shape) {
  const Index r = shape.r, d = shape.rho * shape.p;
  if (holes_) {
    mapped_ = z;
    mapped_c_ = zc;
    for (Index k = 0; k < r; ++k) {
      map_rows(mapped_.data() + k * d, false);
      map_rows(mapped_c_.data() + k * d, false);
    }
  }
  const LaneVector &left = holes_ ? mapped_ : z, &right = holes_ ? mapped_c_ : zc;
  root_.resize(d * d);
  reciprocal_.resize(d);
  log_det = 0;
  Lanes determinant = Lanes::Ones();
  for (Index j = 0; j < d; ++j) {
    Lanes* column = root_.data() + j * d;
    for (Index i = j; i < d; ++i) column[i] = i == j ? 1.0 : 0.0;
    for (Index k = 0; k < r; ++k) {
      const Lanes s = left[k * d + j];
      const Lanes* other = right.data() + k * d;
      for (Index i = j; i < d; ++i) column[i] += s * other[i];
    }
    for (Index k = 0; k < j; ++k) {
      const Lanes* before = root_.data() + k * d;
      const Lanes s = before[j];
      for (Index i = j; i < d; ++i) column[i] -= s * before[i];
    }
    const Lanes pivot = column[j];
    if (!(pivot > kEdge && pivot < kInfinity).all()) return false;
    determinant *= pivot;
    if (j % kFactors == kFactors - 1 || j + 1 == d) {
      log_det += determinant.log();
      determinant = 1;
    }
    column[j] = pivot.sqrt();
    reciprocal_[j] = column[j].inverse();
    for (Index i = j + 1; i < d; ++i) column[i] *= reciprocal_[j];
  }
  return true;
}

void DesignEvidence::map_rows(Lanes* x, bool transposed) const {
  const Index p = point_.p_;
  for (Index a = 0; a < rho; ++a, x += p) {
    const Matrix& map = seen_[a]->map;
    if (!map.size()) continue;
    std::copy(x, x + p, row_.begin());
    for (Index i = 0; i < p; ++i) {
      Lanes sum = Lanes::Zero();
      for (Index k = 0; k < p; ++k) sum += (transposed ? map(k, i) : map(i, k)) * row_[k];
      x[i] = sum;
    }
  }
}

void DesignEvidence::whiten(Lanes* x) const {
  with_shape([&](const auto& shape) { whiten(shape, x); });
}

template <class Shape>
void DesignEvidence::whiten(const Shape& shape, Lanes* x) const {
  const Index d = shape.rho * shape.p;
  if (holes_) map_rows(x, false);
  for (Index j = 0; j < d; ++j) {
    const Lanes* column = root_.data() + j * d;
    x[j] *= reciprocal_[j];
    for (Index i = j + 1; i < d; ++i) x[i] -= column[i] * x[j];
  }
}

template <class Shape>
void DesignEvidence::whiten_transposed(const Shape& shape, Lanes* x) const {
  const Index d = shape.rho * shape.p;
  for (Index j = d - 1; j >= 0; --j) {
    const Lanes* column = root_.data() + j * d;
    Lanes sum = x[j];
    for (Index i = j + 1; i < d; ++i) sum -= column[i] * x[i];
    x[j] = sum * reciprocal_[j];
  }
  if (holes_) map_rows(x, true);
}

ClustersOfDesign::ClustersOfDesign(const SlopePoint& point)
    : cluster_values(point.q_),
      mean(point.r_),
      u(point.r_),
      all(point.r_),
      point_(point),
      nvalues_(point.data_->nvalues()) {}

void ClustersOfDesign::read(const DesignEvidence& evidence, const DesignStep& step) {
  const ReducedData& data = *point_.data_;
  const Index rho = evidence.rho, q = point_.q_;
  std::array<const double*, kLanes> own, of_clusters;
  std::array<double, kLanes> counted;
  for (Index lane = 0; lane < kLanes; ++lane) {
    const Index cluster = step.cluster[lane];
    counted[lane] = lane < step.used ? data.weight[cluster] : 0.0;
    own[lane] = data.values.data() + data.first[cluster] * nvalues_;
    of_clusters[lane] = data.cluster_values.data() + cluster * q;
  }
  weight = beside(counted[0], counted[1], counted[2], counted[3]);
  values_.resize(rho * nvalues_);
  gather(own, rho * nvalues_, values_.data());
  gather(of_clusters, q, cluster_values.data());
}

void ClustersOfDesign::compute(const DesignEvidence& evidence, const DesignStep& step) {
  read(evidence, step);
  evidence.with_shape([&](const auto& shape) { compute(shape, evidence); });
}

template <class Shape>
void ClustersOfDesign::compute(const Shape& shape, const DesignEvidence& evidence) {
  const Index p = shape.p, r = shape.r, rho = shape.rho, d = rho * p, q = point_.q_;
  for (Index k = 0; k < r; ++k) {
    mean[k] = point_.mean_of_u_[k];
    for (Index l = 0; l < q; ++l) mean[k] += point_.paths_of_u_(k, l) * cluster_values[l];
  }
  // residuals of the values given the covariates, whitened; about the mean within
  t.resize(d);
  for (Index a = 0; a < rho; ++a) {
    Lanes* own = t.data() + a * p;
    for (Index i = 0; i < p; ++i) own[i] = -point_.residual_mean_[i] * evidence.ones(a);
    for (Index v = 0; v < nvalues_; ++v) {
      const double* column = point_.residual_map_.data() + v * p;
      for (Index i = v < p ? v : 0; i < p; ++i) own[i] += column[i] * value(a, v);
    }
  }
  for (Index k = 0; k < r; ++k) {
    const Lanes* column = evidence.z.data() + k * d;
    for (Index i = 0; i < d; ++i) t[i] -= column[i] * mean[k];
  }
  evidence.whiten(shape, t.data());
  quadratic = 0;
  for (Index i = 0; i < d; ++i) quadratic += t[i].square();
  evidence.whiten_transposed(shape, t.data());
  for (Index k = 0; k < r; ++k) {
    const Lanes* column = evidence.z.data() + k * d;
    Lanes sum = Lanes::Zero();
    for (Index i = 0; i < d; ++i) sum += column[i] * t[i];
    u[k] = sum;
  }
  for (Index k = 0; k < r; ++k) {
    all[k] = mean[k];
    for (Index j = 0; j < r; ++j) all[k] += point_.between_.cov(k, j) * u[j];
  }
}

}  // namespace msem
