#include "data/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/linalg.hpp"
#include "data/accumulate.hpp"

namespace msem {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using std::ptrdiff_t;

std::vector<TypedColumn> numbers(const std::vector<Column>& columns) {
  std::vector<TypedColumn> out;
  for (const Column& x : columns)
    out.push_back({reinterpret_cast<const char*>(x.data), x.stride * static_cast<ptrdiff_t>(sizeof(double)),
                   Number::f64});
  return out;
}

// All variables as columns of numbers, those measured on units first.
CodedRows coded(const ClusteredRows& rows) {
  std::vector<TypedColumn> columns = numbers(rows.unit);
  for (const TypedColumn& x : numbers(rows.cluster)) columns.push_back(x);
  return {std::move(columns), rows.codes, rows.nrows, rows.weights};
}

// Products of each cluster, or pooled.
Accumulator accumulated(const CodedRows& rows, ptrdiff_t nclusters, bool of_each) {
  Accumulator sums(static_cast<ptrdiff_t>(rows.columns.size()), of_each, false, !of_each);
  const RowReport report = sums.add(rows, nclusters, 0);
  if (report.no_cluster > 0) throw std::invalid_argument("cluster code out of range");
  if (report.used != rows.nrows) throw std::invalid_argument("values must be finite");
  sums.finish();
  if (sums.sizes().size() != nclusters) throw std::invalid_argument("every cluster code must occur");
  return sums;
}

Varying varying_clusters(const Column& x, const ClusteredRows& rows) {
  std::vector<double> first(rows.nclusters, std::numeric_limits<double>::quiet_NaN());
  std::vector<char> varies(rows.nclusters, 0);
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const std::int64_t code = rows.codes[i];
    if (std::isnan(first[code])) first[code] = x[i];
    varies[code] |= x[i] != first[code];
  }
  Varying result;
  for (ptrdiff_t j = 0; j < rows.nclusters; ++j) {
    if (!varies[j]) continue;
    if (result.count++ < 5) result.codes.push_back(j);
  }
  return result;
}

}  // namespace

TwoLevelStatistics two_level_statistics(const ClusteredRows& rows) {
  const ptrdiff_t p = rows.unit.size(), q = rows.cluster.size();
  const Accumulator sums = accumulated(coded(rows), rows.nclusters, false);
  SizeTable table = sums.table();
  table.means.rowwise() += sums.origin().transpose();
  TwoLevelStatistics out{std::move(table.sizes),
                         std::move(table.counts),
                         std::move(table.means),
                         std::move(table.scatter),
                         MatrixXd(),
                         {},
                         {}};
  const MatrixXd ssw = sums.ssw();
  out.ssw = ssw.topLeftCorner(p, p);
  for (ptrdiff_t k = 0; k < p; ++k) out.constant.push_back(ssw(k, k) == 0.0);
  for (ptrdiff_t k = 0; k < q; ++k)
    out.varying.push_back(ssw(p + k, p + k) == 0.0 ? Varying() : varying_clusters(rows.cluster[k], rows));
  return out;
}

ClusterArrays cluster_arrays(const ClusteredRows& rows) {
  const auto p = static_cast<ptrdiff_t>(rows.unit.size());
  if (std::optional<ClusterColumns> found = columns_of_runs(coded(rows), rows.nclusters, p))
    return {std::move(found->sizes), std::move(found->means), std::move(found->within)};
  const Accumulator sums = accumulated(coded(rows), rows.nclusters, true);
  return {sums.sizes(), sums.whole_means(), sums.within_of(p)};
}

SimpleStatistics simple_statistics(const std::vector<Column>& columns, ptrdiff_t nrows,
                                   const double* weights) {
  const ptrdiff_t m = columns.size();
  if (nrows == 0) return {VectorXd::Zero(m), MatrixXd::Zero(m, m)};
  const Accumulator sums = accumulated({numbers(columns), nullptr, nrows, weights}, 1, false);
  return {sums.means().row(0).transpose() + sums.origin(), sums.ssw()};
}

TotalCov total_cov(const VectorXd& sizes, const VectorXd& counts, const MatrixXd& means,
                   const double* scatter, const MatrixXd& ssw, const std::vector<Index>& unit,
                   const std::vector<Index>& cluster) {
  const Index m = means.cols(), p = ssw.rows();
  std::vector<Index> second;
  for (const Index k : cluster) second.push_back(p + k);
  // about the mean, each cluster vector counted `weight` times
  const auto pooled = [&](const std::vector<Index>& at, const VectorXd& weight) {
    const Matrix own = select_cols(means, at);
    const Vector times = weight.cwiseProduct(counts);
    const Vector mean = apply_transposed(own, times) / times.sum();
    const Matrix off = own.rowwise() - mean.transpose();
    Matrix out = weighted_cross(off, times, off);
    for (Index s = 0; s < means.rows(); ++s)
      out += weight[s] * select(Eigen::Map<const MatrixXd>(scatter + s * m * m, m, m), at, at);
    return out;
  };
  return {(pooled(unit, sizes) + select(ssw, unit, unit)) / sizes.dot(counts),
          pooled(second, VectorXd::Ones(sizes.size())) / counts.sum()};
}

}  // namespace msem
