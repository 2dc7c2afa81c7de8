#include "likelihood/complete/fourth_moments.hpp"

#include <algorithm>

namespace msem {

namespace {

constexpr Index kLanes = 4;  // doubles in a register
using Lanes = Eigen::Array<double, kLanes, 1>;

// Add products of `A` columns with `B` others to registers in memory, `stride` apart for the next of the A.
template <int A, int B>
void add_tile(const double* left, const double* right, Index height, Index count, double* out, Index stride) {
  Lanes sum[A][B];
  for (int a = 0; a < A; ++a) {
    for (int b = 0; b < B; ++b) sum[a][b] = Eigen::Map<const Lanes>(out + (a * stride + b) * kLanes);
  }
  for (Index r = 0; r < count; r += kLanes) {
    Lanes x[A];
    for (int a = 0; a < A; ++a) x[a] = Eigen::Map<const Lanes>(left + a * height + r);
    for (int b = 0; b < B; ++b) {
      const Lanes y = Eigen::Map<const Lanes>(right + b * height + r);
      for (int a = 0; a < A; ++a) sum[a][b] += x[a] * y;
    }
  }
  for (int a = 0; a < A; ++a) {
    for (int b = 0; b < B; ++b) Eigen::Map<Lanes>(out + (a * stride + b) * kLanes) = sum[a][b];
  }
}

template <int A>
void add_strip(const double* left, const double* right, Index columns, Index height, Index count, double* out,
               Index stride) {
  Index b = 0;
  for (; b + 3 <= columns; b += 3)
    add_tile<A, 3>(left, right + b * height, height, count, out + b * kLanes, stride);
  for (; b < columns; ++b) add_tile<A, 1>(left, right + b * height, height, count, out + b * kLanes, stride);
}

Index pairs(Index n) { return n * (n + 1) / 2; }

}  // namespace

FourthMoments::FourthMoments(Index variables)
    : width_(variables + 1), column_(width_ * width_), left_(kRows, pairs(width_)), right_(left_) {
  const Index m = variables;
  for (Index b = 0; b < width_; ++b) column_[b] = b;
  Index at = width_;
  for (Index a = 1; a <= m; ++a) {
    for (Index b = a; b <= m; ++b) column_[a * width_ + b] = at++;
  }
  Index total = 0;
  for (Index b = 0; b < width_; ++b) {
    start_.push_back(total);
    total += (b + 1) * pairs(width_ - b);
  }
  lanes_.setZero(kLanes, total);
}

void FourthMoments::add(const Matrix& x, Index count, const double* weights, Eigen::Ref<Matrix> t) {
  const Index h = width_, padded = (count + kLanes - 1) / kLanes * kLanes;
  const auto factor = [&](Index a, Index r) { return a ? x(r, a - 1) : 1.0; };
  Index of_first = 0;
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b, ++of_first) {
      double *right = right_.col(of_first).data(), *left = left_.col(pairs(b) + a).data();
      for (Index r = 0; r < count; ++r) right[r] = factor(a, r) * factor(b, r);
      t.col(column_[a * h + b]).head(count) = right_.col(of_first).head(count);
      for (Index r = 0; r < count; ++r) left[r] = weights ? weights[r] * right[r] : right[r];
      std::fill(right + count, right + padded, 0.0);
      std::fill(left + count, left + padded, 0.0);
    }
  }
  for (Index b = 0; b < h; ++b) {
    const Index rest = pairs(h - b), height = left_.rows();
    const double* right = right_.col(pairs(h) - rest).data();
    Index a = 0;
    for (; a + 4 <= b + 1; a += 4)
      add_strip<4>(left_.col(pairs(b) + a).data(), right, rest, height, padded,
                   lanes_.col(start_[b] + a * rest).data(), rest);
    for (; a + 2 <= b + 1; a += 2)
      add_strip<2>(left_.col(pairs(b) + a).data(), right, rest, height, padded,
                   lanes_.col(start_[b] + a * rest).data(), rest);
    for (; a <= b; ++a)
      add_strip<1>(left_.col(pairs(b) + a).data(), right, rest, height, padded,
                   lanes_.col(start_[b] + a * rest).data(), rest);
  }
}

Matrix FourthMoments::sums() const {
  const Index h = width_;
  const Vector total = lanes_.colwise().sum().transpose();
  Matrix out(pairs(h), pairs(h));
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b) {
      for (Index c = 0; c < h; ++c) {
        for (Index d = c; d < h; ++d) {
          Index index[4] = {a, b, c, d};
          std::sort(index, index + 4);
          const Index second = index[1], rest = pairs(h - second);
          // of the pair of the last two among those whose first factor is `second` or later
          const Index place = rest - pairs(h - index[2]) + index[3] - index[2];
          out(column_[a * h + b], column_[c * h + d]) = total[start_[second] + index[0] * rest + place];
        }
      }
    }
  }
  return out;
}

}  // namespace msem
