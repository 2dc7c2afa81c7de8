#include "ordered/cluster_variables.hpp"

#include <numeric>
#include <stdexcept>

namespace msem {

ClusterVariables::ClusterVariables(const OrderedClusterRows& rows, const std::vector<Vector>& starts)
    : rows_(rows) {
  require(starts);
  order_rows();
  const Index p = rows.values.cols() + rows.cluster_values.cols();
  for (Index i = 0; i < p; ++i) variables_.push_back(variable(i));
}

void ClusterVariables::require(const std::vector<Vector>& starts) const {
  const Index units = rows_.values.cols(), n = rows_.values.rows(), p = units + rows_.cluster_values.cols();
  if (static_cast<Index>(rows_.categories.size()) != p || static_cast<Index>(starts.size()) != p ||
      static_cast<Index>(rows_.both.size()) != units || static_cast<Index>(rows_.cluster.size()) != n ||
      rows_.covariates.rows() != n || rows_.cluster_covariates.rows() != nclusters() || !n || !nclusters() ||
      (rows_.weight.size() && rows_.weight.size() != n) ||
      (rows_.cluster_weight.size() && rows_.cluster_weight.size() != nclusters()))
    throw std::invalid_argument("rows, covariates, categories and clusters do not go together");
  for (const int c : rows_.cluster) {
    if (c < 0 || c >= nclusters()) throw std::invalid_argument("there is no such cluster");
  }
  for (Index i = 0; i < p; ++i) {
    const int k = rows_.categories[i];
    if (k == 1 || k < 0 || starts[i].size() != std::max(k - 1, 0))
      throw std::invalid_argument(
          "an ordered variable needs two categories and the starts of its thresholds");
    const Vector own = i < units ? rows_.values.col(i) : rows_.cluster_values.col(i - units);
    for (const double y : own) {
      if (k && !std::isnan(y) && !(y >= 0 && y < k && y == std::floor(y)))
        throw std::invalid_argument("a category is out of range");
    }
  }
}

// Rows by cluster, and in it by their covariates.
void ClusterVariables::order_rows() {
  const Index n = rows_.values.rows();
  order_.resize(n);
  std::iota(order_.begin(), order_.end(), Index{0});
  const Matrix& x = rows_.covariates;
  const auto differ = [&](Index a, Index b) {
    if (rows_.cluster[a] != rows_.cluster[b]) return rows_.cluster[a] < rows_.cluster[b] ? -1 : 1;
    for (Index c = 0; c < x.cols(); ++c) {
      if (x(a, c) != x(b, c)) return x(a, c) < x(b, c) ? -1 : 1;
    }
    return 0;
  };
  std::stable_sort(order_.begin(), order_.end(), [&](Index a, Index b) { return differ(a, b) < 0; });
  first_unit_.assign(nclusters() + 1, 0);
  kind_.resize(n);
  for (Index r = 0; r < n; ++r) {
    kind_[r] = r && !differ(order_[r - 1], order_[r]) ? kind_[r - 1] : r;
    ++first_unit_[rows_.cluster[order_[r]] + 1];
  }
  std::partial_sum(first_unit_.begin(), first_unit_.end(), first_unit_.begin());
  first_cluster_.resize(nclusters() + 1);
  std::iota(first_cluster_.begin(), first_cluster_.end(), Index{0});
  covariates_ = select_rows(x, order_);
  if (rows_.weight.size()) weight_ = select(rows_.weight, order_);
}

ClusterVariable ClusterVariables::variable(Index i) const {
  const Index units = rows_.values.cols();
  ClusterVariable v{};
  v.number = i;
  v.categories = rows_.categories[i];
  v.ordered = v.categories > 0;
  v.unit = i < units;
  v.between = !v.unit || rows_.both[i];
  v.values = v.unit ? select(rows_.values.col(i), order_) : Vector(rows_.cluster_values.col(i - units));
  v.unit_slopes = v.ordered ? v.categories - 1 : 1;
  v.cluster_slopes = v.unit_slopes + (v.unit ? covariates_.cols() : 0);
  Index next = v.cluster_slopes + (v.between ? rows_.cluster_covariates.cols() : 0);
  v.residual = v.ordered ? -1 : next++;
  v.above = v.unit && v.between ? next++ : -1;
  v.width = next;
  v.estimates.setZero(v.width);
  v.shift.setZero(v.values.size());
  v.effect_mean.setZero(nclusters());
  v.effect_sd.setOnes(nclusters());
  return v;
}

Vector ClusterVariables::shift(const ClusterVariable& v, const Vector& theta) const {
  Vector out = Vector::Constant(v.values.size(), v.ordered ? 0 : theta[0]);
  const Matrix &x = covariates_, &z = rows_.cluster_covariates;
  for (Index c = 0; v.unit && c < x.cols(); ++c) out += theta[v.unit_slopes + c] * x.col(c);
  for (Index c = 0; v.between && c < z.cols(); ++c) {
    const double slope = theta[v.cluster_slopes + c];
    for (Index j = 0; j < nclusters(); ++j) {
      for (Index r = first(v)[j]; r < first(v)[j + 1]; ++r) out[r] += slope * z(j, c);
    }
  }
  return out;
}

Vector ClusterVariables::covariate_sizes(const ClusterVariable& v) const {
  const auto size = [](const auto& x) { return std::max(std::sqrt(x.squaredNorm() / x.size()), 1e-300); };
  Vector out = Vector::Ones(v.width);
  const Matrix &x = covariates_, &z = rows_.cluster_covariates;
  for (Index c = 0; v.unit && c < x.cols(); ++c) out[v.unit_slopes + c] = size(x.col(c));
  for (Index c = 0; v.between && c < z.cols(); ++c) out[v.cluster_slopes + c] = size(z.col(c));
  return out;
}

ClusterSums::ClusterSums(const ClusterVariables& rows, const ClusterVariable& v, const Vector& shift,
                         Index j) {
  const Index begin = rows.first(v)[j], end = rows.first(v)[j + 1];
  for (Index r = begin; r < end; ++r) {
    if (!v.known(r)) continue;
    const double w = rows.weight(v, r);
    n += w;
    mean += w * (v.values[r] - shift[r]);
  }
  if (n > 0) mean /= n;
  for (Index r = begin; r < end; ++r) {
    if (v.known(r)) squares += rows.weight(v, r) * std::pow(v.values[r] - shift[r] - mean, 2);
  }
}

ClusterNormal::ClusterNormal(const ClusterSums& s, double mean, double variance, double residual) {
  if (!(s.n > 0)) return;
  whole = residual + s.n * variance;
  deviation = s.mean - mean;
  const double square = s.n * deviation * deviation / whole;
  value = -0.5 *
          ((s.n - 1) * std::log(residual) + std::log(whole) + s.squares / residual + square + s.n * kLog2Pi);
  d_mean = s.n * deviation / whole;
  d_variance = -0.5 * s.n * (1 - square) / whole;
  d_residual = -0.5 * ((s.n - 1) / residual + (1 - square) / whole - s.squares / (residual * residual));
}

}  // namespace msem
