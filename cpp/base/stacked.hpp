// Products of small matrices; sums of products of many short ones, formed by few products of tall ones.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// A'B. A few dot products are done before a matrix product has made its preparations.
inline Matrix cross_products(const Matrix& a, const Matrix& b) {
  constexpr Index kFew = 64;
  return a.cols() * b.cols() <= kFew ? Matrix(a.transpose().lazyProduct(b)) : Matrix(a.transpose() * b);
}

// Adds L'R over many short pieces L, R of equal height, a block at a time.
class StackedProduct {
  static constexpr Index kRows = 1024;

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
    if (used_) sum_.noalias() += l_.topRows(used_).transpose() * r_.topRows(used_);
    used_ = 0;
  }
  Matrix sum_, l_, r_;
  Index used_ = 0;
};

}  // namespace msem
