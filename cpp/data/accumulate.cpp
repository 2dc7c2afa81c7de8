#include "data/accumulate.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "base/threads.hpp"
#include "base/triangle.hpp"
#include "data/block_products.hpp"

namespace msem {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using std::ptrdiff_t;

constexpr ptrdiff_t kPiece = 1 << 16;      // rows of a piece when clusters do not straddle pieces
constexpr ptrdiff_t kNearPiece = 1 << 13;  // the same where clusters are handed on while they are near
constexpr ptrdiff_t kMostParts = 4;

bool is_complete(const CodedRows& rows, ptrdiff_t row) {
  return (!rows.codes || rows.codes[row] >= 0) &&
         std::all_of(rows.columns.begin(), rows.columns.end(), [&](const TypedColumn& x) {
           const double value = number_at(x, row);
           return value - value == 0.0;
         });
}

// Whether codes ascend; a code that is too large is refused.
bool check_codes(const CodedRows& rows, ptrdiff_t nclusters) {
  bool ascending = true, known = true;
  std::int64_t last = rows.nrows > 0 ? rows.codes[0] : 0;
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const std::int64_t code = rows.codes[i];
    ascending &= code >= last;
    known &= code < nclusters;
    last = code;
  }
  if (!known) throw std::invalid_argument("cluster code out of range");
  return ascending;
}

// Pieces of rows whose codes ascend, cut where clusters end.
std::vector<ptrdiff_t> starts_between_clusters(const CodedRows& rows, ptrdiff_t piece = kPiece) {
  std::vector<ptrdiff_t> starts{0};
  for (ptrdiff_t at = piece; at < rows.nrows; at += piece) {
    at = std::upper_bound(rows.codes + at, rows.codes + rows.nrows, rows.codes[at]) - rows.codes;
    if (at < rows.nrows) starts.push_back(at);
  }
  starts.push_back(rows.nrows);
  return starts;
}

std::vector<ptrdiff_t> equal_starts(ptrdiff_t nrows, ptrdiff_t pieces) {
  std::vector<ptrdiff_t> starts;
  for (ptrdiff_t i = 0; i <= pieces; ++i) starts.push_back(nrows * i / pieces);
  return starts;
}

// Equal values less different origins differ by rounding, which must not count as variation within a cluster.
void take_equal(double* values, const double* other, const VectorXd& one_origin,
                const VectorXd& other_origin) {
  constexpr double kRounding = 8.0 * std::numeric_limits<double>::epsilon();
  for (ptrdiff_t k = 0; k < one_origin.size(); ++k) {
    const double size = std::abs(one_origin[k]) + std::abs(other_origin[k]) + std::abs(other[k]);
    if (std::abs(values[k] - other[k]) <= kRounding * size) values[k] = other[k];
  }
}

// Some of the numbers of clusters that are `stride` apart, to rows of a matrix with a column for each.
template <class CodeOf>
void put_columns(const RunningClusters::Doubles& from, ptrdiff_t stride, ptrdiff_t count, CodeOf code_of,
                 const std::vector<ptrdiff_t>& elements, ptrdiff_t first, MatrixXd& out) {
  constexpr ptrdiff_t kBlock = 64;  // clusters, so that both sides of the transposition stay in cache
  for (ptrdiff_t start = 0; start < count; start += kBlock) {
    const ptrdiff_t end = std::min(start + kBlock, count);
    for (std::size_t k = 0; k < elements.size(); ++k) {
      double* to = out.data() + k * out.rows() + first;
      for (ptrdiff_t j = start; j < end; ++j) to[j] = from[code_of(j) * stride + elements[k]];
    }
  }
}

MatrixXd large_matrix(ptrdiff_t rows, std::size_t cols) {
  MatrixXd out(rows, cols);
  wish_large_pages(out.data(), out.size() * sizeof(double));
  return out;
}

MatrixXd by_columns(const RunningClusters::Doubles& from, ptrdiff_t stride,
                    const std::vector<std::int64_t>& codes, const std::vector<ptrdiff_t>& elements) {
  const auto count = static_cast<ptrdiff_t>(codes.size());
  MatrixXd out = large_matrix(count, elements.size());
  put_columns(from, stride, count, [&](ptrdiff_t j) { return codes[j]; }, elements, 0, out);
  return out;
}

std::vector<ptrdiff_t> each_of(ptrdiff_t count) {
  std::vector<ptrdiff_t> every(count);
  std::iota(every.begin(), every.end(), ptrdiff_t{0});
  return every;
}

// Of a lower triangle by columns, those of the first p of `size` variables.
std::vector<ptrdiff_t> triangle_of(ptrdiff_t p, ptrdiff_t size) {
  std::vector<ptrdiff_t> elements;
  for (ptrdiff_t b = 0, e = 0; b < size; ++b) {
    for (ptrdiff_t a = b; a < size; ++a, ++e) {
      if (a < p) elements.push_back(e);
    }
  }
  return elements;
}

// A point inside the data: the mean of about a thousand complete rows, spread over those that come first.
// Nothing if there are none.
std::optional<VectorXd> point_inside(const CodedRows& rows) {
  const ptrdiff_t step = std::max<ptrdiff_t>(1, rows.nrows / 1024), p = rows.columns.size();
  ptrdiff_t used = 0;
  VectorXd sum = VectorXd::Zero(p);
  const auto take = [&](ptrdiff_t row) {
    if (!is_complete(rows, row)) return;
    ++used;
    for (ptrdiff_t k = 0; k < p; ++k) sum[k] += number_at(rows.columns[k], row);
  };
  for (ptrdiff_t i = 0; i < rows.nrows; i += step) take(i);
  for (ptrdiff_t i = 0; i < rows.nrows && used == 0; ++i) take(i);
  if (used == 0) return {};
  sum /= static_cast<double>(used);
  return sum.allFinite() ? sum : VectorXd(VectorXd::Zero(p));
}

}  // namespace

std::vector<std::uint8_t> complete_rows(const CodedRows& rows, int threads) {
  std::vector<std::uint8_t> complete(rows.nrows);
  in_threads((rows.nrows + kPiece - 1) / kPiece, threads, [&](ptrdiff_t i) {
    const ptrdiff_t first = i * kPiece, length = std::min(kPiece, rows.nrows - first);
    std::uint8_t* out = complete.data() + first;
    for (ptrdiff_t r = 0; r < length; ++r) out[r] = rows.codes[first + r] >= 0;
    for (const TypedColumn& column : rows.columns)
      for_each_value<double>(column, first, length, [&](ptrdiff_t r, double x) { out[r] &= x - x == 0.0; });
  });
  return complete;
}

bool all_finite(const TypedColumn& column, ptrdiff_t count, int threads) {
  std::atomic<bool> finite{true};
  in_threads((count + kPiece - 1) / kPiece, threads, [&](ptrdiff_t i) {
    const ptrdiff_t first = i * kPiece, length = std::min(kPiece, count - first);
    std::int64_t odd = 0;
    for_each_value<double>(column, first, length, [&](ptrdiff_t, double x) { odd |= !(x - x == 0.0); });
    if (odd) finite = false;
  });
  return finite;
}

std::optional<ClusterColumns> columns_of_runs(const CodedRows& rows, ptrdiff_t nclusters,
                                              ptrdiff_t of_units) {
  if (!check_codes(rows, nclusters) || rows.nrows == 0 || rows.codes[0] < 0) return {};
  const std::optional<VectorXd> origin = point_inside(rows);
  if (!origin) return {};
  const auto m = static_cast<ptrdiff_t>(rows.columns.size());
  const std::vector<ptrdiff_t> every = each_of(m), products = triangle_of(of_units, m);
  const std::vector<ptrdiff_t> starts = starts_between_clusters(rows, kNearPiece);
  ClusterColumns out{VectorXd::Zero(nclusters), large_matrix(nclusters, every.size()),
                     large_matrix(nclusters, products.size())};
  std::atomic<ptrdiff_t> used{0};
  in_threads(static_cast<ptrdiff_t>(starts.size()) - 1, 0, [&](ptrdiff_t i) {
    const ptrdiff_t start = starts[i], end = starts[i + 1];
    const std::int64_t first = rows.codes[start], count = rows.codes[end - 1] - first + 1;
    std::vector<std::int64_t> codes(end - start);  // from the first cluster here
    for (ptrdiff_t r = start; r < end; ++r) codes[r - start] = rows.codes[r] - first;
    CodedRows own{rows.columns, codes.data(), end - start, rows.weights ? rows.weights + start : nullptr};
    for (TypedColumn& x : own.columns) x.data += start * x.stride;
    RunningClusters here(m, true, false, false);
    here.grow(count);
    ClusterPiece piece(here, *origin);
    piece.add(own, 0, own.nrows);
    used += piece.report().used;
    const auto code_of = [](ptrdiff_t j) { return j; };
    std::copy_n(here.count.data(), count, out.sizes.data() + first);
    put_columns(here.mean, here.width, count, code_of, every, first, out.means);
    put_columns(here.within, here.elements(), count, code_of, products, first, out.within);
  });
  if (used != rows.nrows || !(out.sizes.array() > 0).all()) return {};
  out.means.rowwise() += origin->transpose();
  return out;
}

Accumulator::Accumulator(ptrdiff_t p, bool keep, bool tally, bool pool)
    : origin_(VectorXd::Zero(p)),
      products_(MatrixXd::Zero(whole_lanes(p), whole_lanes(p))),
      parts_{RunningClusters(p, keep, tally, pool)} {}

void Accumulator::require_origin(const CodedRows& rows) {
  if (has_origin_) return;
  if (std::optional<VectorXd> found = point_inside(rows)) {
    origin_ = std::move(*found);
    has_origin_ = true;
  }
}

// Pieces of rows in any order, each with statistics of its own: as many as together take no more than an
// eighth of the space of the rows so far.
ptrdiff_t Accumulator::most_pieces(ptrdiff_t nclusters) const {
  const ptrdiff_t of_cluster = parts_[0].width + (keeps() ? parts_[0].elements() : 0);
  const double share =
      static_cast<double>(nrows_) * size() / (8.0 * std::max<ptrdiff_t>(nclusters, 1) * of_cluster);
  return static_cast<ptrdiff_t>(std::clamp(share, 1.0, static_cast<double>(kMostParts)));
}

RowReport Accumulator::add(const CodedRows& rows, ptrdiff_t nclusters, int threads) {
  const bool ascending = rows.codes && check_codes(rows, nclusters);
  require_origin(rows);
  nrows_ += rows.nrows;
  const std::vector<ptrdiff_t> starts =
      ascending ? starts_between_clusters(rows) : equal_starts(rows.nrows, most_pieces(nclusters));
  const ptrdiff_t count = static_cast<ptrdiff_t>(starts.size()) - 1;
  const std::size_t parts = ascending ? 1 : count;
  if (parts_.size() < parts)
    parts_.resize(parts, RunningClusters(size(), keeps(), tallies(), parts_[0].pool));
  for (std::size_t i = 0; i < parts; ++i) parts_[i].grow(nclusters);
  std::vector<MatrixXd> products(count);
  std::vector<RowReport> reports(count);
  in_threads(count, threads, [&](ptrdiff_t i) {
    ClusterPiece piece(parts_[ascending ? 0 : i], origin_);
    piece.add(rows, starts[i], starts[i + 1]);
    products[i] = piece.take_products();
    reports[i] = piece.report();
  });
  for (const MatrixXd& one : products) products_ += one;
  for (ptrdiff_t i = 1; i < count; ++i) reports[0].append(reports[i]);
  return reports[0];
}

void Accumulator::add_clusters(const CodedClusters& clusters, ptrdiff_t nclusters) {
  if (!has_origin_ && clusters.sizes.size() > 0) {
    origin_ = clusters.origin;
    has_origin_ = true;
  }
  parts_[0].grow(nclusters);
  ClusterPiece piece(parts_[0], origin_);
  const Eigen::RowVectorXd shift = (clusters.origin - origin_).transpose();
  Eigen::RowVectorXd mean(size());
  for (ptrdiff_t j = 0; j < clusters.sizes.size(); ++j) {
    const std::int64_t code = clusters.codes[j];
    if (code < 0 || code >= nclusters) throw std::invalid_argument("cluster code out of range");
    mean = clusters.means.row(j) + shift;
    if (parts_[0].count[code] > 0.0)
      take_equal(mean.data(), &parts_[0].mean[code * parts_[0].width], origin_, clusters.origin);
    piece.add_cluster(code, clusters.sizes[j], mean.data(),
                      keeps() ? clusters.within.row(j).data() : nullptr);
    if (tallies()) piece.add_tally(code, clusters.tally(j, 0), clusters.tally(j, 1));
  }
  products_ += piece.take_products();
  products_.topLeftCorner(size(), size()) += clusters.ssw;
}

void Accumulator::finish() {
  for (std::size_t i = 1; i < parts_.size(); ++i) {
    const RunningClusters& part = parts_[i];
    const auto nclusters = static_cast<ptrdiff_t>(part.count.size());
    parts_[0].grow(nclusters);
    ClusterPiece piece(parts_[0], origin_);
    for (ptrdiff_t j = 0; j < nclusters; ++j) {
      if (part.count[j] == 0.0) continue;
      piece.add_cluster(j, part.count[j], &part.mean[j * part.width],
                        part.keep ? &part.within[j * part.elements()] : nullptr);
      if (part.tally) piece.add_tally(j, part.units[j], part.squares[j]);
    }
    products_ += piece.take_products();
  }
  parts_.erase(parts_.begin() + 1, parts_.end());
}

std::vector<std::int64_t> Accumulator::codes() const {
  std::vector<std::int64_t> codes;
  for (std::size_t j = 0; j < parts_[0].count.size(); ++j) {
    if (parts_[0].count[j] > 0.0) codes.push_back(static_cast<std::int64_t>(j));
  }
  return codes;
}

MatrixXd Accumulator::ssw() const { return completed(products_).topLeftCorner(size(), size()); }

VectorXd Accumulator::sizes() const {
  const std::vector<std::int64_t> in_use = codes();
  VectorXd sizes(in_use.size());
  for (std::size_t j = 0; j < in_use.size(); ++j) sizes[j] = parts_[0].count[in_use[j]];
  return sizes;
}

RowMatrix Accumulator::means() const {
  const std::vector<std::int64_t> in_use = codes();
  RowMatrix means(in_use.size(), size());
  for (std::size_t j = 0; j < in_use.size(); ++j)
    std::copy_n(&parts_[0].mean[in_use[j] * parts_[0].width], size(), means.row(j).data());
  return means;
}

RowMatrix Accumulator::tally() const {
  const std::vector<std::int64_t> in_use = codes();
  RowMatrix tally(in_use.size(), 2);
  for (std::size_t j = 0; j < in_use.size(); ++j)
    tally.row(j) << parts_[0].units[in_use[j]], parts_[0].squares[in_use[j]];
  return tally;
}

MatrixXd Accumulator::within() const { return within_of(size()); }

MatrixXd Accumulator::within_of(ptrdiff_t p) const {
  return by_columns(parts_[0].within, parts_[0].elements(), codes(), triangle_of(p, size()));
}

MatrixXd Accumulator::whole_means() const {
  MatrixXd means = by_columns(parts_[0].mean, parts_[0].width, codes(), each_of(size()));
  means.rowwise() += origin_.transpose();
  return means;
}

}  // namespace msem
