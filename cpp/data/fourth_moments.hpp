// Sums of the products of four of some variables and a constant, or of two and four without it.
#pragma once

#include <vector>

#include "base/large_pages.hpp"
#include "base/linalg.hpp"

namespace msem {

// Sums of t t' over rows, t = (1, x, vech(x x'), s) of m variables x and n numbers s, which stand for
// products of two themselves. Of the elements of those of x only C(m + 4, 4) differ, the sums of x_a x_b x_c
// x_d with a <= b <= c <= d, x_0 = 1, and only these are formed. Functions of t that have no part in x itself
// do without odd products, which are then left 0; this is for samples without s.
class FourthMoments {
 public:
  static constexpr Index kRows = 128;  // taken at a time, so that their products stay near

  explicit FourthMoments(Index variables, Index others = 0, bool even = false);
  // Where the values of variable a, and the numbers s_k, of the next rows are to be put.
  double* variable(Index a) { return factors_.data() + (first_ + a) * kRows; }
  double* other(Index k) { return others_.data() + k * kRows; }
  // Adds the products of up to kRows rows, each times the square of its weight. Weights may be null.
  void add(Index count, const double* weights);
  // The different sums of all that was added; those of several parts of the rows add up.
  Vector totals() const;
  // The sums t t' in which these are, of length 1 + m + m (m + 1) / 2 + n on both sides.
  Matrix products(const Vector& totals) const;

 private:
  using Doubles = std::vector<double, LargePages<double>>;  // for its alignment

  void form_products(Index padded, bool weighted);

  Index first_;                // factors before x: 1, or 0 without odd products
  Index width_;                // factors: m + first_
  Index npairs_, nothers_;     // products of two, and numbers s
  std::vector<Index> column_;  // of the pair a <= b in t, at a * width + b
  std::vector<Index> pair_;    // of the same among the products
  std::vector<Index> start_;   // of the sums of products with second factor b, and of those with s
  Doubles factors_;            // 1 and x, kRows of each
  Doubles pairs_;              // products of two, ordered by the first
  Doubles others_;             // s
  Doubles weights_, counted_;  // of the rows, and one factor times them
  Doubles fourth_;             // sums of products of four, kLanes for each
  Doubles second_;             // without odd products: of two, kLanes for each, ordered as `pairs_`,
  double number_ = 0;          // and of the weights
};

}  // namespace msem
