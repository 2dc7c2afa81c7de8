// Sums of products of the rows of small blocks.
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/triangle.hpp"

namespace msem {

constexpr std::ptrdiff_t kLane = 4;   // doubles in a register
constexpr std::ptrdiff_t kSmall = 8;  // rows, below which a product of matrices does not pay

inline std::ptrdiff_t whole_lanes(std::ptrdiff_t p) { return (p + kLane - 1) / kLane * kLane; }

// Add the products of a block's rows with each other to the lower triangle of `sum`.
template <class Block>
void add_products(const Block& block, Eigen::MatrixXd& sum) {
  if (block.cols() >= kSmall && sum.size() > 0) {
    add_to_triangle(sum, block);
    return;
  }
  for (Eigen::Index r = 0; r < block.cols(); ++r) {
    const double* x = block.data() + r * block.outerStride();
    for (Eigen::Index b = 0; b < block.rows(); ++b) {
      for (Eigen::Index a = b; a < block.rows(); ++a) sum(a, b) += x[a] * x[b];
    }
  }
}

// Add the products of `count` rows of `width` doubles, a multiple of kLane, to the lower triangle of `sum`.
// Each block is summed by itself first, which keeps rounding errors from adding up.
inline void add_block_products(const double* rows, std::ptrdiff_t count, std::ptrdiff_t width,
                               Eigen::MatrixXd& sum) {
  if (width > 4 * kLane) {
    add_to_triangle(sum, Eigen::Map<const Eigen::MatrixXd>(rows, width, count));
    return;
  }
  using Lane = Eigen::Map<const Eigen::Matrix<double, kLane, 1>>;
  for (std::ptrdiff_t b = 0; b < width; b += kLane) {
    for (std::ptrdiff_t a = b; a < width; a += kLane) {
      Eigen::Matrix<double, kLane, kLane> block = Eigen::Matrix<double, kLane, kLane>::Zero();
      for (const double* row = rows; row != rows + count * width; row += width)
        block.noalias() += Lane(row + a) * Lane(row + b).transpose();
      sum.block<kLane, kLane>(a, b) += block;
    }
  }
}

// The same, added to a lower triangle of p variables that is stored by columns.
inline void add_packed_products(const double* rows, std::ptrdiff_t count, std::ptrdiff_t width,
                                std::ptrdiff_t p, double* sum) {
  using Lane = Eigen::Map<const Eigen::Matrix<double, kLane, 1>>;
  for (std::ptrdiff_t b = 0; b < p; b += kLane) {
    for (std::ptrdiff_t a = b; a < p; a += kLane) {
      Eigen::Matrix<double, kLane, kLane> block = Eigen::Matrix<double, kLane, kLane>::Zero();
      for (const double* row = rows; row != rows + count * width; row += width)
        block.noalias() += Lane(row + a) * Lane(row + b).transpose();
      const std::ptrdiff_t columns = std::min(kLane, p - b), last = std::min(kLane, p - a);
      for (std::ptrdiff_t j = 0; j < columns; ++j) {
        const std::ptrdiff_t column = b + j;
        double* out = sum + column * p - column * (column - 1) / 2 + (a - column);  // at row a
        for (std::ptrdiff_t i = a == b ? j : 0; i < last; ++i) out[i] += block(i, j);
      }
    }
  }
}

}  // namespace msem
