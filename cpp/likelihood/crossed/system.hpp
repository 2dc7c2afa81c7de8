// The equations that are left of two crossed classifications when one is eliminated: a symmetric positive
// definite matrix with a block of rows for each cluster of the other one, dense where crossing is rich,
// sparse where each eliminated cluster meets few of them.
//
// Of the inverse of a sparse one only blocks are known that the Cholesky factor has, which are all that
// gradients ask for (Takahashi, Fagan & Chin, 1973; Erisman & Tinney, 1975).
#pragma once

#include <memory>
#include <vector>

#include "base/linalg.hpp"

namespace msem {

// Which blocks there are, and in which order they are eliminated; the same for all values.
class CrossedGraph {
 public:
  CrossedGraph() = default;
  // Blocks of `width` rows for each node; nodes that stand together in `column` between two of `begin` are
  // joined. Nothing is laid out for a matrix that is too large, see `possible`. `sparse` whatever is faster.
  CrossedGraph(Index nodes, Index width, const std::vector<Index>& begin, const std::vector<Index>& column,
               bool sparse = false);

  Index nodes = 0, width = 0;
  bool dense = true;
  double bytes = 0, operations = 0;  // of a factor and its inverse; multiplications
  // Whether this is not more than a machine can be expected to have.
  bool possible() const;

  // Of a sparse one: place of each node in the elimination, and node of each place; for each place the later
  // places that its column of the factor has, and for each place where these stand as rows.
  std::vector<Index> place, node, begin, row;
  struct Use {
    Index column, at;  // an earlier place, and where in `row` this one stands there
  };
  std::vector<Index> use_begin;
  std::vector<Use> uses;

  // Where the block of two places, the first not after the second, stands; -1 if there is none.
  Index find(Index column, Index row_place) const;
};

class CrossedSystem {
 public:
  // Everything 0.
  void reset(const CrossedGraph& graph);
  // Blocks of some nodes in ascending order: subtracts a symmetric matrix whose blocks are theirs.
  void subtract(const Index* nodes, Index count, ConstMatrixRef blocks);
  void add_diagonal(Index node, ConstMatrixRef block);
  // False unless it is positive definite. After it nothing may be added.
  bool factor();
  double log_det() const { return log_det_; }
  // Rows come by node.
  Matrix solve(Matrix right) const;
  // Before `gather` and `diagonal`.
  void invert();
  // Blocks of the inverse between nodes, in ascending order, that are joined.
  void gather(const Index* nodes, Index count, MatrixRef out) const;

 private:
  double* block(Index at) { return values_.data() + at * width_ * width_; }
  const double* block(Index at) const { return values_.data() + at * width_ * width_; }
  bool factor_sparse();
  void invert_sparse();

  const CrossedGraph* graph_ = nullptr;
  Index width_ = 0;
  double log_det_ = 0;
  Matrix dense_;  // lower triangle, then the inverse
  Cholesky cholesky_;
  std::vector<double> diagonal_, values_;                  // of the factor, by place
  std::vector<double> inverse_diagonal_, inverse_values_;  // of the inverse, by place
};

}  // namespace msem
