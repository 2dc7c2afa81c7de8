// Statistics of clusters built up from rows in any order, in one pass, and merged with those of other rows.
#pragma once

#include <Eigen/Dense>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "data/cluster_piece.hpp"
#include "data/size_table.hpp"

namespace msem {

// Clusters that have statistics already: views of memory owned by the caller.
struct CodedClusters {
  const std::int64_t* codes;                // J
  Eigen::Map<const Eigen::VectorXd> sizes;  // J
  Eigen::Map<const RowMatrix> means;        // J x p, less their origin
  Eigen::Map<const RowMatrix> within;       // J x p(p+1)/2, or empty
  Eigen::VectorXd origin;                   // p
  Eigen::MatrixXd ssw;                      // p x p
  Eigen::Map<const RowMatrix> tally;        // J x 2, units and squared weights, or empty
};

// Which rows have a cluster and all values.
std::vector<std::uint8_t> complete_rows(const CodedRows& rows, int threads);
bool all_finite(const TypedColumn& column, std::ptrdiff_t count, int threads);

// Statistics of single clusters, a column for each.
struct ClusterColumns {
  Eigen::VectorXd sizes;   // J, sums of weights where rows have any
  Eigen::MatrixXd means;   // J x p
  Eigen::MatrixXd within;  // of the first variables, lower triangle by columns
};

// Those of rows that come cluster by cluster, all with a cluster and values, and with products of the first
// `of_units` variables; nothing of other rows. Throws std::invalid_argument when a code is not below
// nclusters.
std::optional<ClusterColumns> columns_of_runs(const CodedRows& rows, std::ptrdiff_t nclusters,
                                              std::ptrdiff_t of_units);

class Accumulator {
 public:
  // The products within each cluster are kept if `keep`; rows and squared weights are counted if `tally`;
  // there is no `ssw` unless `pool`.
  Accumulator(std::ptrdiff_t p, bool keep, bool tally = false, bool pool = true);
  // Rows whose codes ascend are shared by threads; others only as far as statistics of their own for each
  // thread take little space. The result does not depend on the number of threads. Throws
  // std::invalid_argument when a code is not below nclusters.
  RowReport add(const CodedRows& rows, std::ptrdiff_t nclusters, int threads);
  void add_clusters(const CodedClusters& clusters, std::ptrdiff_t nclusters);
  // Takes together what threads have apart.
  void finish();

  // Valid after `finish`; of the clusters that have rows, by code.
  std::vector<std::int64_t> codes() const;  // ascending
  const Eigen::VectorXd& origin() const { return origin_; }
  Eigen::MatrixXd ssw() const;
  SizeTable table() const { return size_table(parts_[0], codes()); }
  Eigen::VectorXd sizes() const;
  RowMatrix means() const;         // J x p, less the origin
  Eigen::MatrixXd within() const;  // J x p(p+1)/2, the lower triangle by columns
  // The same of the first p variables, and means with the origin, by columns.
  Eigen::MatrixXd within_of(std::ptrdiff_t p) const;
  Eigen::MatrixXd whole_means() const;
  RowMatrix tally() const;  // J x 2, rows and sums of squared weights
  std::ptrdiff_t size() const { return parts_[0].p; }
  bool keeps() const { return parts_[0].keep; }
  bool tallies() const { return parts_[0].tally; }

 private:
  void require_origin(const CodedRows& rows);
  std::ptrdiff_t most_pieces(std::ptrdiff_t nclusters) const;

  bool has_origin_ = false;
  std::ptrdiff_t nrows_ = 0;  // added so far
  Eigen::VectorXd origin_;
  Eigen::MatrixXd products_;  // lower triangle
  std::vector<RunningClusters> parts_;
};

}  // namespace msem
