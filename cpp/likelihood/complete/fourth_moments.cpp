#include "likelihood/complete/fourth_moments.hpp"

#include <algorithm>

namespace msem {

namespace {

constexpr Index kLanes = 4;  // doubles in a register
using Lanes = Eigen::Array<double, kLanes, 1>;

// Add products of `A` columns with `B` others, which follow each other, to registers in memory, `stride`
// apart for the next of the A.
template <int A, int B>
void add_tile(const double* const* left, const double* right, Index count, double* out, Index stride) {
  Lanes sum[A][B];
  for (int a = 0; a < A; ++a) {
    for (int b = 0; b < B; ++b) sum[a][b] = Eigen::Map<const Lanes>(out + (a * stride + b) * kLanes);
  }
  for (Index r = 0; r < count; r += kLanes) {
    Lanes x[A];
    for (int a = 0; a < A; ++a) x[a] = Eigen::Map<const Lanes>(left[a] + r);
    for (int b = 0; b < B; ++b) {
      const Lanes y = Eigen::Map<const Lanes>(right + b * FourthMoments::kRows + r);
      for (int a = 0; a < A; ++a) sum[a][b] += x[a] * y;
    }
  }
  for (int a = 0; a < A; ++a) {
    for (int b = 0; b < B; ++b) Eigen::Map<Lanes>(out + (a * stride + b) * kLanes) = sum[a][b];
  }
}

template <int A>
void add_strip(const double* const* left, const double* right, Index columns, Index count, double* out) {
  Index b = 0;
  for (; b + 3 <= columns; b += 3)
    add_tile<A, 3>(left, right + b * FourthMoments::kRows, count, out + b * kLanes, columns);
  for (; b < columns; ++b)
    add_tile<A, 1>(left, right + b * FourthMoments::kRows, count, out + b * kLanes, columns);
}

Index pair_count(Index n) { return n * (n + 1) / 2; }

}  // namespace

FourthMoments::FourthMoments(Index variables)
    : width_(variables + 1), column_(width_ * width_), pair_(width_ * width_) {
  const Index h = width_;
  Index at = h, pair = 0, total = 0;
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b) {
      column_[a * h + b] = a ? at++ : b;
      pair_[a * h + b] = pair++;
    }
    start_.push_back(total);
    total += (a + 1) * pair_count(h - a);
  }
  factors_.setZero(kRows, h);
  factors_.col(0).setOnes();
  pairs_.setZero(kRows, pair);
  lanes_.setZero(kLanes, total);
}

void FourthMoments::add(Index count, const double* weights) {
  const Index h = width_, padded = (count + kLanes - 1) / kLanes * kLanes;
  factors_.middleRows(count, padded - count).setZero();
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b)
      pairs_.col(pair_[a * h + b]).array() = factors_.col(a).array() * factors_.col(b).array();
  }
  if (weights) {
    Vector w = Vector::Zero(kRows);
    std::copy_n(weights, count, w.data());
    counted_.resize(kRows, pairs_.cols());
    for (Index k = 0; k < pairs_.cols(); ++k) counted_.col(k).array() = w.array() * pairs_.col(k).array();
  }
  if (count < kRows) factors_.col(0).setOnes();
  const Matrix& weighted = weights ? counted_ : pairs_;
  for (Index b = 0; b < h; ++b) {
    const Index rest = pair_count(h - b);
    const double* right = pairs_.col(pairs_.cols() - rest).data();
    double* out = lanes_.col(start_[b]).data();
    for (Index a = 0; a <= b; a += 4) {
      const double* left[4];
      const Index strip = std::min<Index>(4, b + 1 - a);
      for (Index i = 0; i < strip; ++i) left[i] = weighted.col(pair_[(a + i) * h + b]).data();
      double* sums = out + a * rest * kLanes;
      if (strip == 4)
        add_strip<4>(left, right, rest, padded, sums);
      else if (strip == 3)
        add_strip<3>(left, right, rest, padded, sums);
      else if (strip == 2)
        add_strip<2>(left, right, rest, padded, sums);
      else
        add_strip<1>(left, right, rest, padded, sums);
    }
  }
}

void FourthMoments::copy(Index count, Eigen::Ref<Matrix> t) const {
  for (Index a = 0; a < width_; ++a) {
    for (Index b = a; b < width_; ++b)
      t.col(column_[a * width_ + b]).head(count) = pairs_.col(pair_[a * width_ + b]).head(count);
  }
}

Matrix FourthMoments::sums() const {
  const Index h = width_, length = pair_count(h);
  const Vector total = lanes_.colwise().sum().transpose();
  Matrix out(length, length);
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b) {
      for (Index c = 0; c < h; ++c) {
        for (Index d = c; d < h; ++d) {
          Index index[4] = {a, b, c, d};
          std::sort(index, index + 4);
          const Index second = index[1], rest = pair_count(h - second);
          // the last two among the pairs whose first factor is `second` or later
          const Index place = pair_[index[2] * h + index[3]] - (length - rest);
          out(column_[a * h + b], column_[c * h + d]) = total[start_[second] + index[0] * rest + place];
        }
      }
    }
  }
  return out;
}

}  // namespace msem
