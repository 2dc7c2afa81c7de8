#include "statistics.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "parallel.hpp"

namespace msem {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using std::ptrdiff_t;

// Rows handled at a time: the buffer stays in cache, and block sums keep rounding errors from adding up.
constexpr ptrdiff_t kBlock = 256;

struct Clusters {
  std::vector<ptrdiff_t> size;
  std::vector<ptrdiff_t> first;  // first row of each cluster
};

Clusters count_clusters(const ClusteredRows& rows) {
  Clusters clusters{std::vector<ptrdiff_t>(rows.nclusters, 0), std::vector<ptrdiff_t>(rows.nclusters, 0)};
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const std::int64_t code = rows.codes[i];
    if (code < 0 || code >= rows.nclusters) throw std::invalid_argument("cluster code out of range");
    if (clusters.size[code]++ == 0) clusters.first[code] = i;
  }
  for (const ptrdiff_t n : clusters.size) {
    if (n == 0) throw std::invalid_argument("every cluster code must occur");
  }
  return clusters;
}

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
  MatrixXd buffer(columns.size(), kBlock);
  for (ptrdiff_t start = 0; start < nrows; start += kBlock) {
    const ptrdiff_t length = std::min(kBlock, nrows - start);
    for (std::size_t k = 0; k < columns.size(); ++k) {
      const Column& x = columns[k];
      for (ptrdiff_t r = 0; r < length; ++r) buffer(k, r) = x[start + r] - origin[k];
    }
    visit(start, buffer.leftCols(length));
  }
}

// Cluster means of the unit variables less the origin, p x J.
MatrixXd unit_means(const ClusteredRows& rows, const Clusters& clusters, const VectorXd& origin) {
  MatrixXd means = MatrixXd::Zero(rows.unit.size(), rows.nclusters);
  for_each_block(rows.unit, rows.nrows, origin, [&](ptrdiff_t start, const auto& block) {
    for (ptrdiff_t r = 0; r < block.cols(); ++r) means.col(rows.codes[start + r]) += block.col(r);
  });
  for (ptrdiff_t j = 0; j < rows.nclusters; ++j) means.col(j) /= static_cast<double>(clusters.size[j]);
  return means;
}

template <class Visit>
void for_each_centred_block(const ClusteredRows& rows, const MatrixXd& means, const VectorXd& origin,
                            Visit visit) {
  for_each_block(rows.unit, rows.nrows, origin, [&](ptrdiff_t start, auto block) {
    for (ptrdiff_t r = 0; r < block.cols(); ++r) block.col(r) -= means.col(rows.codes[start + r]);
    visit(start, block);
  });
}

// Add the products of a block's rows with each other to the lower triangle of `sum`.
template <class Block>
void add_products(const Block& block, MatrixXd& sum) {
  if (sum.size() > 0) sum.selfadjointView<Eigen::Lower>().rankUpdate(block);
}

MatrixXd symmetric(const MatrixXd& lower) { return lower.selfadjointView<Eigen::Lower>(); }

MatrixXd pooled_within(const ClusteredRows& rows, const MatrixXd& means, const VectorXd& origin) {
  MatrixXd ssw = MatrixXd::Zero(rows.unit.size(), rows.unit.size());
  for_each_centred_block(rows, means, origin,
                         [&](ptrdiff_t, const auto& block) { add_products(block, ssw); });
  return symmetric(ssw);
}

// The whole cluster vectors (unit means, cluster variables) less the origin, (p + q) x J.
struct ClusterVectors {
  VectorXd origin;
  MatrixXd values;
};

ClusterVectors cluster_vectors(const ClusteredRows& rows, const Clusters& clusters) {
  const ptrdiff_t p = rows.unit.size(), q = rows.cluster.size();
  ClusterVectors vectors{VectorXd(p + q), MatrixXd(p + q, rows.nclusters)};
  vectors.origin << origin_of(rows.unit, rows.nrows), origin_of(rows.cluster, rows.nrows);
  vectors.values.topRows(p) = unit_means(rows, clusters, vectors.origin.head(p));
  for (ptrdiff_t j = 0; j < rows.nclusters; ++j) {
    for (ptrdiff_t k = 0; k < q; ++k)
      vectors.values(p + k, j) = rows.cluster[k][clusters.first[j]] - vectors.origin[p + k];
  }
  return vectors;
}

// Codes of the clusters ordered by size.
std::vector<ptrdiff_t> by_size(const Clusters& clusters) {
  std::vector<ptrdiff_t> order(clusters.size.size());
  std::iota(order.begin(), order.end(), ptrdiff_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](ptrdiff_t a, ptrdiff_t b) { return clusters.size[a] < clusters.size[b]; });
  return order;
}

// Mean of the given columns of `values`, and their sums of squares and products about it.
SimpleStatistics about_mean(const MatrixXd& values, const ptrdiff_t* first, const ptrdiff_t* last) {
  SimpleStatistics result{VectorXd::Zero(values.rows()), MatrixXd::Zero(values.rows(), values.rows())};
  for (const ptrdiff_t* j = first; j != last; ++j) result.mean += values.col(*j);
  result.mean /= static_cast<double>(last - first);
  MatrixXd buffer(values.rows(), std::min(kBlock, last - first));
  for (const ptrdiff_t* start = first; start != last;) {
    const ptrdiff_t length = std::min(kBlock, last - start);
    for (ptrdiff_t r = 0; r < length; ++r) buffer.col(r) = values.col(start[r]) - result.mean;
    add_products(buffer.leftCols(length), result.scatter);
    start += length;
  }
  result.scatter = symmetric(result.scatter);
  return result;
}

void add_between(const ClusterVectors& vectors, const Clusters& clusters, TwoLevelStatistics& out) {
  const std::vector<ptrdiff_t> order = by_size(clusters);
  std::vector<ptrdiff_t> starts;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || clusters.size[order[i]] != clusters.size[order[i - 1]]) starts.push_back(i);
  }
  const ptrdiff_t S = starts.size(), m = vectors.values.rows();
  starts.push_back(order.size());
  out.sizes.resize(S);
  out.counts.resize(S);
  out.means.resize(S, m);
  out.scatter.resize(S * m * m);
  for (ptrdiff_t s = 0; s < S; ++s) {
    const SimpleStatistics one = about_mean(vectors.values, &order[starts[s]], order.data() + starts[s + 1]);
    out.sizes[s] = static_cast<double>(clusters.size[order[starts[s]]]);
    out.counts[s] = static_cast<double>(starts[s + 1] - starts[s]);
    out.means.row(s) = one.mean + vectors.origin;
    std::copy(one.scatter.data(), one.scatter.data() + m * m, out.scatter.begin() + s * m * m);
  }
}

bool constant_within(const Column& x, const ClusteredRows& rows, const Clusters& clusters) {
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (x[i] != x[clusters.first[rows.codes[i]]]) return false;
  }
  return true;
}

Varying varying_clusters(const Column& x, const ClusteredRows& rows, const Clusters& clusters) {
  std::vector<char> varies(rows.nclusters, 0);
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const std::int64_t code = rows.codes[i];
    varies[code] |= x[i] != x[clusters.first[code]];
  }
  Varying result;
  for (ptrdiff_t j = 0; j < rows.nclusters; ++j) {
    if (!varies[j]) continue;
    if (result.count++ < 5) result.codes.push_back(j);
  }
  return result;
}

// Rows in order of their clusters, cut where clusters end into pieces of about so many rows.
std::vector<ptrdiff_t> piece_starts(const ClusteredRows& rows) {
  constexpr ptrdiff_t kPiece = 1 << 16;
  std::vector<ptrdiff_t> starts{0};
  for (ptrdiff_t at = kPiece; at < rows.nrows; at += kPiece) {
    at = std::upper_bound(rows.codes + at, rows.codes + rows.nrows, rows.codes[at]) - rows.codes;
    if (at < rows.nrows) starts.push_back(at);
  }
  starts.push_back(rows.nrows);
  return starts;
}

ClusteredRows some_rows(const ClusteredRows& rows, ptrdiff_t first, ptrdiff_t last) {
  ClusteredRows out = rows;
  for (Column& x : out.unit) x.data += first * x.stride;
  for (Column& x : out.cluster) x.data += first * x.stride;
  out.codes += first;
  out.nrows = last - first;
  return out;
}

}  // namespace

TwoLevelStatistics two_level_statistics(const ClusteredRows& rows) {
  const Clusters clusters = count_clusters(rows);
  const ClusterVectors vectors = cluster_vectors(rows, clusters);
  const ptrdiff_t p = rows.unit.size();
  TwoLevelStatistics out;
  add_between(vectors, clusters, out);
  out.ssw = pooled_within(rows, vectors.values.topRows(p), vectors.origin.head(p));
  for (const Column& x : rows.unit) out.constant.push_back(constant_within(x, rows, clusters));
  for (const Column& x : rows.cluster) out.varying.push_back(varying_clusters(x, rows, clusters));
  return out;
}

ClusterArrays cluster_arrays(const ClusteredRows& rows) {
  const Clusters clusters = count_clusters(rows);
  const ClusterVectors vectors = cluster_vectors(rows, clusters);
  const ptrdiff_t p = rows.unit.size(), J = rows.nclusters, elements = p * (p + 1) / 2;
  ClusterArrays out{VectorXd(J), (vectors.values.colwise() + vectors.origin).transpose(), MatrixXd()};
  for (ptrdiff_t j = 0; j < J; ++j) out.sizes[j] = static_cast<double>(clusters.size[j]);
  if (p == 0) {
    out.within.resize(J, 0);
    return out;
  }
  // Rows in order of their clusters add to the columns of the result, others to rows of their own, which are
  // close together in memory, and which are turned over at the end.
  const bool ordered = std::is_sorted(rows.codes, rows.codes + rows.nrows);
  MatrixXd sums = MatrixXd::Zero(ordered ? J : elements, ordered ? elements : J);
  const MatrixXd means = vectors.values.topRows(p);
  const ptrdiff_t by_cluster = ordered ? 1 : elements, by_element = ordered ? J : 1;
  const std::vector<ptrdiff_t> starts = ordered ? piece_starts(rows) : std::vector<ptrdiff_t>{0, rows.nrows};
  in_pieces(static_cast<ptrdiff_t>(starts.size()) - 1, 0, [&](ptrdiff_t i) {
    const ClusteredRows piece = some_rows(rows, starts[i], starts[i + 1]);
    std::vector<double> row(p);
    const auto add = [&](ptrdiff_t start, const auto& block) {
      for (ptrdiff_t r = 0; r < block.cols(); ++r) {
        double* sum = sums.data() + piece.codes[start + r] * by_cluster;
        std::copy_n(&block(0, r), p, row.begin());
        for (ptrdiff_t a = 0; a < p; ++a) {
          for (ptrdiff_t b = a; b < p; ++b, sum += by_element) *sum += row[a] * row[b];
        }
      }
    };
    for_each_centred_block(piece, means, vectors.origin.head(p), add);
  });
  if (ordered) {
    out.within = std::move(sums);
    return out;
  }
  out.within.resize(J, elements);
  for (ptrdiff_t j = 0; j < J; j += kBlock) {
    const ptrdiff_t length = std::min(kBlock, J - j);
    out.within.middleRows(j, length) = sums.middleCols(j, length).transpose();
  }
  return out;
}

SimpleStatistics simple_statistics(const std::vector<Column>& columns, ptrdiff_t nrows) {
  const ptrdiff_t m = columns.size();
  const VectorXd origin = origin_of(columns, nrows);
  SimpleStatistics out{VectorXd::Zero(m), MatrixXd::Zero(m, m)};
  for_each_block(columns, nrows, origin,
                 [&](ptrdiff_t, const auto& block) { out.mean += block.rowwise().sum(); });
  if (nrows > 0) out.mean /= static_cast<double>(nrows);
  for_each_block(columns, nrows, origin, [&](ptrdiff_t, auto block) {
    block.colwise() -= out.mean;
    add_products(block, out.scatter);
  });
  out.scatter = symmetric(out.scatter);
  out.mean += origin;
  return out;
}

}  // namespace msem
