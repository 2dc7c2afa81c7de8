#include "data/cluster_piece.hpp"

#include <algorithm>
#include <cmath>

#include "base/prefetch.hpp"
#include "data/block_products.hpp"
#include "data/weights.hpp"

namespace msem {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using std::ptrdiff_t;

// Rows handled at a time: the buffer stays in cache.
constexpr ptrdiff_t kBlock = 256;
// Random places in memory are asked for so many rows before they are needed.
constexpr ptrdiff_t kAhead = 12;

bool is_finite(double x) { return x - x == 0.0; }

bool is_packed(const TypedColumn& x) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(x.data) % alignof(double) == 0;
  return aligned && x.number == Number::f64 && x.stride == static_cast<ptrdiff_t>(sizeof(double));
}

// Values of a column less the origin, `width` apart; whether all are finite.
bool read_column(const TypedColumn& column, ptrdiff_t start, ptrdiff_t length, double origin, double* out,
                 ptrdiff_t width) {
  bool odd = false;
  for_each_value<double>(column, start, length, [&](ptrdiff_t i, double x) {
    const double value = x - origin;
    out[i * width] = value;
    odd |= !is_finite(value);
  });
  return !odd;
}

// The same for kLane columns of doubles at a time, turned over in registers.
bool read_packed(const TypedColumn* columns, ptrdiff_t start, ptrdiff_t length, const double* origin,
                 double* out, ptrdiff_t width) {
  using Lane = Eigen::Array<double, kLane, 1>;
  using Square = Eigen::Array<double, kLane, kLane>;
  const double* x[kLane];
  for (ptrdiff_t l = 0; l < kLane; ++l) x[l] = reinterpret_cast<const double*>(columns[l].data) + start;
  const Lane shift = Eigen::Map<const Lane>(origin);
  Lane zero = Lane::Zero();  // stays so while all is finite
  ptrdiff_t i = 0;
  for (; i + kLane <= length; i += kLane) {
    Square square;
    for (ptrdiff_t l = 0; l < kLane; ++l) square.col(l) = Eigen::Map<const Lane>(x[l] + i);
    square.transposeInPlace();
    square.colwise() -= shift;
    for (ptrdiff_t l = 0; l < kLane; ++l) {
      zero += square.col(l) * 0.0;
      Eigen::Map<Lane>(out + (i + l) * width) = square.col(l);
    }
  }
  for (; i < length; ++i) {
    for (ptrdiff_t l = 0; l < kLane; ++l) {
      out[i * width + l] = x[l][i] - shift[l];
      zero[l] += out[i * width + l] * 0.0;
    }
  }
  return (zero == 0.0).all();
}

}  // namespace

void RowReport::append(const RowReport& later) {
  used += later.used;
  incomplete += later.incomplete;
  no_cluster += later.no_cluster;
  for (std::size_t k = 0; k < missing.size(); ++k) {
    missing[k] += later.missing[k];
    if (infinite[k] == 0) first_infinite[k] = later.first_infinite[k];
    infinite[k] += later.infinite[k];
  }
}

RunningClusters::RunningClusters(ptrdiff_t variables, bool keep_within, bool with_tally, bool pooled)
    : p(variables), width(whole_lanes(variables)), keep(keep_within), tally(with_tally), pool(pooled) {}

void RunningClusters::grow(ptrdiff_t nclusters) {
  if (static_cast<ptrdiff_t>(count.size()) >= nclusters) return;
  count.resize(nclusters, 0.0);
  mean.resize(nclusters * width, 0.0);
  if (keep) within.resize(nclusters * elements(), 0.0);
  if (!tally) return;
  units.resize(nclusters, 0.0);
  squares.resize(nclusters, 0.0);
}

ClusterPiece::ClusterPiece(RunningClusters& clusters, const VectorXd& origin)
    : clusters_(clusters),
      origin_(origin),
      p_(clusters.p),
      width_(clusters.width),
      products_(MatrixXd::Zero(width_, width_)),
      values_(kBlock * width_, 0.0),
      codes_(kBlock),
      weights_(kBlock, 1.0),
      roots_(kBlock, 1.0),
      merges_(kBlock * width_, 0.0),
      mean_(width_, 0.0) {
  report_.missing.assign(p_, 0);
  report_.infinite.assign(p_, 0);
  report_.first_infinite.assign(p_, -1);
}

void ClusterPiece::add(const CodedRows& rows, ptrdiff_t first, ptrdiff_t last) {
  for (ptrdiff_t start = first; start < last; start += kBlock) {
    const ptrdiff_t length = std::min(kBlock, last - start);
    if (rows.codes) std::copy_n(rows.codes + start, length, codes_.begin());
    if (rows.weights) std::copy_n(rows.weights + start, length, weights_.begin());
    const bool finite = read(rows, start, length);
    const bool coded = *std::min_element(codes_.begin(), codes_.begin() + length) >= 0;
    add_block(finite && coded ? length : select(rows, start, length), rows.weights != nullptr);
  }
}

void ClusterPiece::add_cluster(std::int64_t code, double n, const double* mean, const double* within) {
  std::copy_n(mean, p_, mean_.begin());
  merge(code, n, mean_.data());
  if (!clusters_.keep) return;
  double* sum = &clusters_.within[code * clusters_.elements()];
  for (ptrdiff_t e = 0; e < clusters_.elements(); ++e) sum[e] += within[e];
}

void ClusterPiece::add_tally(std::int64_t code, double units, double squares) {
  clusters_.units[code] += units;
  clusters_.squares[code] += squares;
}

MatrixXd ClusterPiece::take_products() {
  flush();
  return std::move(products_);
}

// Values less the origin; whether all are finite.
bool ClusterPiece::read(const CodedRows& rows, ptrdiff_t start, ptrdiff_t length) {
  bool finite = true;
  for (ptrdiff_t k = 0; k < p_; k += kLane) {
    const auto columns = rows.columns.begin() + k;
    if (k + kLane <= p_ && std::all_of(columns, columns + kLane, is_packed))
      finite &= read_packed(&rows.columns[k], start, length, &origin_[k], &values_[k], width_);
    else
      for (ptrdiff_t i = k; i < std::min(k + kLane, p_); ++i)
        finite &= read_column(rows.columns[i], start, length, origin_[i], &values_[i], width_);
  }
  return finite;
}

// Count what is missing, and keep the complete rows of the block; how many there are.
ptrdiff_t ClusterPiece::select(const CodedRows& rows, ptrdiff_t start, ptrdiff_t length) {
  ptrdiff_t used = 0;
  for (ptrdiff_t i = 0; i < length; ++i) {
    bool complete = true;
    for (ptrdiff_t k = 0; k < p_; ++k) {
      if (is_finite(values_[i * width_ + k])) continue;
      complete = false;
      count(k, start + i, number_at(rows.columns[k], start + i));
    }
    const bool coded = codes_[i] >= 0;
    report_.no_cluster += !coded;
    report_.incomplete += coded && !complete;
    if (!coded || !complete) continue;
    codes_[used] = codes_[i];
    weights_[used] = weights_[i];
    std::copy_n(&values_[i * width_], width_, &values_[used++ * width_]);
  }
  return used;
}

void ClusterPiece::count(ptrdiff_t k, ptrdiff_t row, double value) {
  if (std::isnan(value))
    ++report_.missing[k];
  else if (report_.infinite[k]++ == 0)
    report_.first_infinite[k] = row;
}

void ClusterPiece::add_block(ptrdiff_t length, bool weighted) {
  report_.used += length;
  for (ptrdiff_t i = 0; clusters_.tally && i < length; ++i)
    add_tally(codes_[i], 1.0, weights_[i] * weights_[i]);
  for (ptrdiff_t i = 0; i < length;) {
    if (i + kAhead < length) clusters_.ask_for(codes_[i + kAhead]);
    ptrdiff_t end = i + 1;
    while (end < length && codes_[end] == codes_[i]) ++end;
    if (end == i + 1)
      absorb(codes_[i], &values_[i * width_], weights_[i]);
    else
      absorb_run(codes_[i], &values_[i * width_], end - i, weighted ? &weights_[i] : nullptr);
    i = end;
  }
  if (clusters_.pool) add_block_products(values_.data(), length, width_, products_);
}

// Merge a row into its cluster, and put in its place the vector whose product this adds within the cluster.
void ClusterPiece::absorb(std::int64_t code, double* row, double weight) {
  const double n = clusters_.count[code], share = weight / (n + weight), scale = std::sqrt(n * share);
  double* mean = &clusters_.mean[code * width_];
  for (ptrdiff_t k = 0; k < width_; ++k) {
    const double delta = row[k] - mean[k];
    mean[k] += delta * share;
    row[k] = delta * scale;
  }
  clusters_.count[code] = n + weight;
  if (clusters_.keep && n > 0.0) add_within(code, row, 1);
}

// The same for rows of a cluster that follow each other. About the first of them, equal values stay equal.
void ClusterPiece::absorb_run(std::int64_t code, double* rows, ptrdiff_t n, const double* weights) {
  double total = static_cast<double>(n);
  if (weights) {
    total = total_weight(weights, n);
    for (ptrdiff_t i = 0; i < n; ++i) roots_[i] = std::sqrt(weights[i]);
  }
  const double share = 1.0 / total;
  for (ptrdiff_t at = 0; at < width_; at += kLane) {
    using Lane = Eigen::Array<double, kLane, 1>;
    const Lane first = Eigen::Map<const Lane>(rows + at);
    Lane sum = Lane::Zero();
    for (ptrdiff_t i = 0; i < n; ++i) {
      const Lane off = Eigen::Map<const Lane>(rows + i * width_ + at) - first;
      sum += weights ? Lane(weights[i] * off) : off;
    }
    const Lane offset = sum * share;
    for (ptrdiff_t i = 0; i < n; ++i) {
      Eigen::Map<Lane> row(rows + i * width_ + at);
      row = (row - first) - offset;
      if (weights) row *= roots_[i];
    }
    Eigen::Map<Lane> mean(&mean_[at]);
    mean = first + offset;
  }
  if (clusters_.keep) add_within(code, rows, n);
  merge(code, total, mean_.data());
}

// Merge n units with this mean into their cluster; `vector` is overwritten.
void ClusterPiece::merge(std::int64_t code, double n, double* vector) {
  const double before = clusters_.count[code], total = before + n;
  const double share = n / total, scale = std::sqrt(before * share);
  double* mean = &clusters_.mean[code * width_];
  for (ptrdiff_t k = 0; k < width_; ++k) {
    const double delta = vector[k] - mean[k];
    mean[k] += delta * share;
    vector[k] = delta * scale;
  }
  clusters_.count[code] = total;
  if (before == 0.0) return;
  if (clusters_.keep) add_within(code, vector, 1);
  if (!clusters_.pool) return;
  std::copy_n(vector, width_, &merges_[nmerges_ * width_]);
  if (++nmerges_ == kBlock) flush();
}

void ClusterPiece::flush() {
  add_block_products(merges_.data(), nmerges_, width_, products_);
  nmerges_ = 0;
}

// Add the products of centred rows to those of their cluster: of several by blocks, in registers.
void ClusterPiece::add_within(std::int64_t code, const double* rows, ptrdiff_t n) {
  double* sum = &clusters_.within[code * clusters_.elements()];
  if (n == 1) {
    for (ptrdiff_t a = 0; a < p_; ++a) {
      for (ptrdiff_t b = a; b < p_; ++b) *sum++ += rows[a] * rows[b];
    }
    return;
  }
  add_packed_products(rows, n, width_, p_, sum);
}

}  // namespace msem
