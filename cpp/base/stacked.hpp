// Sums of products of many short ones, formed by few products of tall ones.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// Adds L'R over many short pieces L, R of equal height, a block at a time.
class StackedProduct {
  static constexpr Index kRows = 1000;  // no power of 2: columns would share the same few lines of the cache

 public:
  StackedProduct(Index left, Index right)
      : sum_(Matrix::Zero(left, right)), l_(kRows, left), r_(kRows, right) {}
  // The next `height` rows of both, to be filled.
  std::pair<Eigen::Block<Matrix>, Eigen::Block<Matrix>> next(Index height) {
    if (used_ + height > l_.rows()) {
      flush();
      if (height > l_.rows()) {
        l_.resize(height, l_.cols());
        r_.resize(height, r_.cols());
      }
    }
    used_ += height;
    return {l_.middleRows(used_ - height, height), r_.middleRows(used_ - height, height)};
  }
  const Matrix& total() {
    flush();
    return sum_;
  }

 private:
  void flush() {
    if (used_) add_cross(sum_, 1, l_.topRows(used_), r_.topRows(used_));
    used_ = 0;
  }
  Matrix sum_, l_, r_;
  Index used_ = 0;
};

}  // namespace msem
