// One thread's share of rows, merged into the running statistics of their clusters.
//
// A cluster is its size and its mean less an origin near the data. Rows of a cluster that follow each other
// are centred about their own mean and merged into their cluster (Chan, Golub & LeVeque, 1983); a row by
// itself is the case of Welford (1962). What a merge adds within clusters is the product of one vector, so
// that all products are formed from blocks of centred rows, and no sum of squares is a difference of large
// numbers. Rows count by their weights: about the weighted mean, times the root of the weight.
#pragma once

#include <Eigen/Dense>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/large_pages.hpp"
#include "base/prefetch.hpp"
#include "base/typed.hpp"

namespace msem {

struct CodedRows {
  std::vector<TypedColumn> columns;  // p
  const std::int64_t* codes;         // of the cluster of each row; negative: none; null: all of cluster 0
  std::ptrdiff_t nrows;
  const double* weights = nullptr;  // nrows, positive: a row of weight 2 counts as two; none: 1
};

// What became of rows: only those with a cluster and all values are used.
struct RowReport {
  std::ptrdiff_t used = 0;
  std::ptrdiff_t incomplete = 0;  // with a cluster, but a value is missing
  std::ptrdiff_t no_cluster = 0;
  std::vector<std::ptrdiff_t> missing;         // p: rows without a value
  std::vector<std::ptrdiff_t> infinite;        // p
  std::vector<std::ptrdiff_t> first_infinite;  // p: row, if there is one

  void append(const RowReport& later);
};

constexpr std::ptrdiff_t kLine = 8;  // doubles in a line of the cache

// Statistics of clusters by code. A cluster without units has a mean of 0. Units are counted by their
// weights.
struct RunningClusters {
  using Doubles = std::vector<double, LargePages<double>>;

  std::ptrdiff_t p = 0;
  std::ptrdiff_t width = 0;  // p rounded up to whole registers; what is beyond p is 0
  bool keep = false;
  bool tally = false;
  bool pool = true;  // whether products within clusters are added up over all of them
  Doubles count;     // J
  Doubles mean;      // J x width, less the origin
  Doubles within;    // J x p(p+1)/2, lower triangle by columns; empty unless they are kept
  Doubles units;     // J, rows whatever they weigh; empty unless there is a tally
  Doubles squares;   // J, sums of squared weights; empty unless there is a tally

  RunningClusters(std::ptrdiff_t variables, bool keep_within, bool with_tally = false, bool pooled = true);
  std::ptrdiff_t elements() const { return p * (p + 1) / 2; }
  void grow(std::ptrdiff_t nclusters);
  void ask_for(std::int64_t code) const {
    msem::ask_for(&count[code]);
    for (std::ptrdiff_t at = 0; at < width; at += kLine) msem::ask_for(&mean[code * width + at]);
  }
};

class ClusterPiece {
 public:
  // Both arguments outlive the piece.
  ClusterPiece(RunningClusters& clusters, const Eigen::VectorXd& origin);
  void add(const CodedRows& rows, std::ptrdiff_t first, std::ptrdiff_t last);
  // n units of a cluster with this mean less the origin; `within` are their products, if products are kept.
  void add_cluster(std::int64_t code, double n, const double* mean, const double* within);
  // Rows of a cluster, and the sum of their squared weights, where there is a tally.
  void add_tally(std::int64_t code, double units, double squares);
  const RowReport& report() const { return report_; }
  // Products within clusters of all that was added, width x width, lower triangle.
  Eigen::MatrixXd take_products();

 private:
  bool read(const CodedRows& rows, std::ptrdiff_t start, std::ptrdiff_t length);
  std::ptrdiff_t select(const CodedRows& rows, std::ptrdiff_t start, std::ptrdiff_t length);
  void count(std::ptrdiff_t k, std::ptrdiff_t row, double value);
  void add_block(std::ptrdiff_t length, bool weighted);
  void absorb(std::int64_t code, double* row, double weight);
  void absorb_run(std::int64_t code, double* rows, std::ptrdiff_t n, const double* weights);
  void merge(std::int64_t code, double n, double* vector);
  void add_within(std::int64_t code, const double* rows, std::ptrdiff_t n);
  void flush();

  RunningClusters& clusters_;
  const Eigen::VectorXd& origin_;
  const std::ptrdiff_t p_, width_;
  RowReport report_;
  Eigen::MatrixXd products_;
  std::vector<double> values_;  // of a block, a row after the other
  std::vector<std::int64_t> codes_;
  std::vector<double> weights_;  // of the block, if rows have any
  std::vector<double> roots_;    // of the weights of a run
  std::vector<double> merges_;   // vectors whose products merges add
  std::ptrdiff_t nmerges_ = 0;
  std::vector<double> mean_;
};

}  // namespace msem
