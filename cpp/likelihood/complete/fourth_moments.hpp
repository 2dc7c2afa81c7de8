// Sums of the products of four of some variables and a constant.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// Sums of t t' over rows, t = (1, x, vech(x x')) of m variables. Of its elements only C(m + 4, 4) differ, the
// sums of x_a x_b x_c x_d with a <= b <= c <= d, x_0 = 1, and only these are formed.
class FourthMoments {
 public:
  static constexpr Index kRows = 256;  // rows taken at a time

  explicit FourthMoments(Index variables);
  // Products of up to kRows rows, of which x(., a) is variable a; t becomes their rows of t. Weights of the
  // rows, or null.
  void add(const Matrix& x, Index count, const double* weights, Eigen::Ref<Matrix> t);
  // The sums of all that was added, of length 1 + m + m (m + 1) / 2 on both sides.
  Matrix sums() const;

 private:
  Index width_;                // m + 1
  std::vector<Index> column_;  // of the pair a <= b in t, at a * width + b
  std::vector<Index> start_;   // of the products with second factor b
  Matrix left_;                // pairs by their second factor, weighted
  Matrix right_;               // pairs by their first factor
  Matrix lanes_;               // sums, a register for each
};

}  // namespace msem
