#include "data/fourth_moments.hpp"

#include <algorithm>

#include "base/lanes.hpp"

namespace msem {

namespace {

// Add products of `A` columns with `B` others, which follow each other, to registers in memory, `stride`
// apart for the next of the A. The fewer columns stay in registers beside the A B sums.
template <int A, int B>
void add_tile(const double* const* left, const double* right, Index count, double* out, Index stride) {
  constexpr int kFew = A < B ? A : B;
  const auto x = [&](int a, Index r) { return Lanes(Eigen::Map<const Lanes>(left[a] + r)); };
  const auto y = [&](int b, Index r) {
    return Lanes(Eigen::Map<const Lanes>(right + b * FourthMoments::kRows + r));
  };
  Lanes sum[A][B];
  for (int a = 0; a < A; ++a) {
    for (int b = 0; b < B; ++b) sum[a][b] = Eigen::Map<const Lanes>(out + (a * stride + b) * kLanes);
  }
  for (Index r = 0; r < count; r += kLanes) {
    Lanes few[kFew];
    for (int k = 0; k < kFew; ++k) few[k] = A < B ? x(k, r) : y(k, r);
    for (int k = 0; k < A + B - kFew; ++k) {
      const Lanes other = A < B ? y(k, r) : x(k, r);
      for (int i = 0; i < kFew; ++i) (A < B ? sum[i][k] : sum[k][i]) += few[i] * other;
    }
  }
  for (int a = 0; a < A; ++a) {
    for (int b = 0; b < B; ++b) Eigen::Map<Lanes>(out + (a * stride + b) * kLanes) = sum[a][b];
  }
}

// B at a time, and fewer of those that are left: it takes some eight sums to keep the processor busy.
template <int A, int B>
void add_strip(const double* const* left, const double* right, Index columns, Index stride, Index count,
               double* out) {
  Index b = 0;
  for (; b + B <= columns; b += B)
    add_tile<A, B>(left, right + b * FourthMoments::kRows, count, out + b * kLanes, stride);
  if constexpr (B > 1) {
    add_strip<A, B / 2>(left, right + b * FourthMoments::kRows, columns - b, stride, count, out + b * kLanes);
  }
}

Index pair_count(Index n) { return n * (n + 1) / 2; }

}  // namespace

FourthMoments::FourthMoments(Index variables, bool even)
    : first_(even ? 0 : 1), width_(variables + first_), column_(width_ * width_), pair_(width_ * width_) {
  const Index h = width_;
  Index at = 1 + variables, pair = 0, total = 0;
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b) {
      column_[a * h + b] = a < first_ ? b : at++;
      pair_[a * h + b] = pair++;
    }
    start_.push_back(total);
    total += (a + 1) * pair_count(h - a);
  }
  factors_.setZero(kRows, h);
  factors_.leftCols(first_).setOnes();
  pairs_.setZero(kRows, pair);
  weights_.setZero(kRows);
  counted_.setZero(kRows);
  lanes_.setZero(kLanes, total);
  second_.setZero(pair);
}

void FourthMoments::add(Index count, const double* weights) {
  const Index h = width_, padded = (count + kLanes - 1) / kLanes * kLanes;
  factors_.middleRows(count, padded - count).setZero();
  const auto whole = factors_.topRows(padded);
  if (weights) {
    weights_.head(count) = Eigen::Map<const Vector>(weights, count);
    weights_.segment(count, padded - count).setZero();
  }
  for (Index a = 0; a < h; ++a) {
    // the products are times the weights, those of four times their squares
    if (weights) counted_.head(padded).array() = weights_.head(padded).array() * whole.col(a).array();
    const double* left = weights ? counted_.data() : whole.col(a).data();
    for (Index b = a; b < h; ++b)
      pairs_.col(pair_[a * h + b]).head(padded).array() =
          Eigen::Map<const Vector>(left, padded).array() * whole.col(b).array();
  }
  if (count < kRows) factors_.leftCols(first_).setOnes();
  if (!first_) {
    const auto pairs = pairs_.topRows(padded);
    total_ += weights ? weights_.head(count).squaredNorm() : static_cast<double>(count);
    if (weights)
      add_applied_transposed(second_, 1, pairs, weights_.head(padded));
    else
      second_ += pairs.colwise().sum().transpose();
  }
  for (Index b = 0; b < h; ++b) {
    const Index rest = pair_count(h - b);
    const double* right = pairs_.col(pairs_.cols() - rest).data();
    double* out = lanes_.col(start_[b]).data();
    for (Index a = 0, strip = 0; a <= b; a += strip) {
      const double* left[4];
      strip = b + 1 - a == 5 ? 3 : std::min<Index>(4, b + 1 - a);
      for (Index i = 0; i < strip; ++i) left[i] = pairs_.col(pair_[(a + i) * h + b]).data();
      double* sums = out + a * rest * kLanes;
      if (strip == 4)
        add_strip<4, 3>(left, right, rest, rest, padded, sums);
      else if (strip == 3)
        add_strip<3, 4>(left, right, rest, rest, padded, sums);
      else if (strip == 2)
        add_strip<2, 6>(left, right, rest, rest, padded, sums);
      else
        add_strip<1, 12>(left, right, rest, rest, padded, sums);
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
  const Index h = width_, pairs = pair_count(h), length = pair_count(h + 1 - first_);
  const Vector total = lanes_.colwise().sum().transpose();
  Matrix out = Matrix::Zero(length, length);
  out(0, 0) = total_;  // without odd products, as those of two; otherwise among those of four
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b) {
      const Index column = column_[a * h + b];
      if (!first_) out(0, column) = out(column, 0) = second_[pair_[a * h + b]];
      for (Index c = 0; c < h; ++c) {
        for (Index d = c; d < h; ++d) {
          Index index[4] = {a, b, c, d};
          std::sort(index, index + 4);
          const Index second = index[1], rest = pair_count(h - second);
          // the last two among the pairs whose first factor is `second` or later
          const Index place = pair_[index[2] * h + index[3]] - (pairs - rest);
          out(column, column_[c * h + d]) = total[start_[second] + index[0] * rest + place];
        }
      }
    }
  }
  return out;
}

}  // namespace msem
