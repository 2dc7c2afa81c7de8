#include "data/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/linalg.hpp"
#include "data/accumulate.hpp"
#include "data/block_products.hpp"

namespace msem {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using std::ptrdiff_t;

// Rows handled at a time: the buffer stays in cache, and block sums keep rounding errors from adding up.
constexpr ptrdiff_t kRowBlock = 256;

// A point inside the data: the mean of about a thousand rows spread over all of them.
VectorXd origin_of(const std::vector<Column>& columns, ptrdiff_t nrows) {
  const ptrdiff_t step = std::max<ptrdiff_t>(1, nrows / 1024);
  VectorXd origin(columns.size());
  for (std::size_t k = 0; k < columns.size(); ++k) {
    double sum = 0.0;
    ptrdiff_t used = 0;
    for (ptrdiff_t i = 0; i < nrows; i += step, ++used) sum += columns[k][i];
    origin[k] = used > 0 ? sum / static_cast<double>(used) : 0.0;
  }
  return origin;
}

// Call visit(first row, m x rows matrix of values less the origin) for one block of rows after the other.
template <class Visit>
void for_each_block(const std::vector<Column>& columns, ptrdiff_t nrows, const VectorXd& origin,
                    Visit visit) {
  MatrixXd buffer(columns.size(), kRowBlock);
  for (ptrdiff_t start = 0; start < nrows; start += kRowBlock) {
    const ptrdiff_t length = std::min(kRowBlock, nrows - start);
    for (std::size_t k = 0; k < columns.size(); ++k) {
      const Column& x = columns[k];
      for (ptrdiff_t r = 0; r < length; ++r) buffer(k, r) = x[start + r] - origin[k];
    }
    visit(start, buffer.leftCols(length));
  }
}

// Multiply each row of data, a column of the block, by a function of its weight.
template <class Block, class Function>
void scale_rows_by(const double* weights, Block& block, Function function) {
  for (ptrdiff_t r = 0; r < block.cols(); ++r) block.col(r) *= function(weights[r]);
}

MatrixXd symmetric(const MatrixXd& lower) { return lower.selfadjointView<Eigen::Lower>(); }

// All variables as columns of numbers, those measured on units first.
CodedRows coded(const ClusteredRows& rows) {
  CodedRows out{{}, rows.codes, rows.nrows, rows.weights};
  for (const std::vector<Column>* columns : {&rows.unit, &rows.cluster}) {
    for (const Column& x : *columns)
      out.columns.push_back({reinterpret_cast<const char*>(x.data),
                             x.stride * static_cast<ptrdiff_t>(sizeof(double)), Number::f64});
  }
  return out;
}

Accumulator accumulated(const CodedRows& rows, ptrdiff_t nclusters, bool keep) {
  Accumulator sums(static_cast<ptrdiff_t>(rows.columns.size()), keep);
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
  const ptrdiff_t p = rows.unit.size(), q = rows.cluster.size(), m = p + q;
  const Accumulator sums = accumulated(coded(rows), rows.nclusters, true);
  ClusterArrays out{sums.sizes(), sums.means().rowwise() + sums.origin().transpose(), sums.within()};
  if (q == 0) return out;
  std::vector<ptrdiff_t> of_units;
  for (ptrdiff_t a = 0, e = 0; a < m; ++a) {
    for (ptrdiff_t b = a; b < m; ++b, ++e) {
      if (b < p) of_units.push_back(e);
    }
  }
  out.within = MatrixXd(out.within(Eigen::all, of_units));
  return out;
}

SimpleStatistics simple_statistics(const std::vector<Column>& columns, ptrdiff_t nrows,
                                   const double* weights) {
  const ptrdiff_t m = columns.size();
  const VectorXd origin = origin_of(columns, nrows);
  SimpleStatistics out{VectorXd::Zero(m), MatrixXd::Zero(m, m)};
  double total = static_cast<double>(nrows);
  if (weights) total = Eigen::Map<const VectorXd>(weights, nrows).sum();
  for_each_block(columns, nrows, origin, [&](ptrdiff_t first, auto block) {
    if (weights) scale_rows_by(weights + first, block, [](double w) { return w; });
    out.mean += block.rowwise().sum();
  });
  if (nrows > 0) out.mean /= total;
  for_each_block(columns, nrows, origin, [&](ptrdiff_t first, auto block) {
    block.colwise() -= out.mean;
    if (weights) scale_rows_by(weights + first, block, [](double w) { return std::sqrt(w); });
    add_products(block, out.scatter);
  });
  out.scatter = symmetric(out.scatter);
  out.mean += origin;
  return out;
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
