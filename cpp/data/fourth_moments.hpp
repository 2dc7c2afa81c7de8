// Sums of the products of four of some variables and a constant, or of two and four without it.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// Sums of t t' over rows, t = (1, x, vech(x x')) of m variables. Of its elements only C(m + 4, 4) differ, the
// sums of x_a x_b x_c x_d with a <= b <= c <= d, x_0 = 1, and only these are formed. Functions of t that have
// no part in x itself do without odd products, which are then left 0.
class FourthMoments {
 public:
  static constexpr Index kRows = 128;  // taken at a time, so that their products stay near

  explicit FourthMoments(Index variables, bool even = false);
  // Where the values of variable a for the next rows are to be put.
  double* variable(Index a) { return factors_.col(first_ + a).data(); }
  // Adds the products of up to kRows rows, each times the square of its weight. Weights may be null.
  void add(Index count, const double* weights);
  // The rows of t that were added last, times their weights.
  void copy(Index count, Eigen::Ref<Matrix> t) const;
  // The sums of all that was added, of length 1 + m + m (m + 1) / 2 on both sides.
  Matrix sums() const;

 private:
  Index first_;                // factors before x: 1, or 0 without odd products
  Index width_;                // factors: m + first_
  std::vector<Index> column_;  // of the pair a <= b in t, at a * width + b
  std::vector<Index> pair_;    // of the same among the products
  std::vector<Index> start_;   // of the sums of products with second factor b
  Matrix factors_;             // 1 and x
  Matrix pairs_;               // products of two, ordered by the first
  Vector weights_, counted_;   // of the rows, and one factor times them
  Matrix lanes_;               // sums, a register for each
  double total_ = 0;           // without odd products: of the weights,
  Vector second_;              // and of products of two, ordered as `pairs_`
};

}  // namespace msem
