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

// The products of each of some columns, four at most, with others that follow each other.
void add_strip(const double* const* left, Index number, const double* right, Index columns, Index count,
               double* out) {
  if (number == 4)
    add_strip<4, 3>(left, right, columns, columns, count, out);
  else if (number == 3)
    add_strip<3, 4>(left, right, columns, columns, count, out);
  else if (number == 2)
    add_strip<2, 6>(left, right, columns, columns, count, out);
  else
    add_strip<1, 12>(left, right, columns, columns, count, out);
}

Index strip_of(Index left) { return left == 5 ? 3 : std::min<Index>(4, left); }

}  // namespace

FourthMoments::FourthMoments(Index variables, Index others, bool even)
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
  start_.push_back(total);
  total += others * (pair + others);
  factors_.setZero(kRows, h);
  factors_.leftCols(first_).setOnes();
  pairs_.setZero(kRows, pair);
  others_.setZero(kRows, others);
  weights_.setZero(kRows);
  counted_.setZero(kRows);
  lanes_.setZero(kLanes, total);
  second_.setZero(pair);
}

// Products of two, times the weights, so that those of four are times their squares.
void FourthMoments::form_products(Index padded, const double* weights) {
  const Index h = width_;
  const auto factor = [&](Index a) {
    return Eigen::Map<const Vector>(factors_.col(a).data(), padded).array();
  };
  const auto counted = counted_.head(padded).array();
  for (Index a = 0; a < h; ++a) {
    if (weights) counted_.head(padded).array() = weights_.head(padded).array() * factor(a);
    for (Index b = a; b < h; ++b) {
      auto pair = pairs_.col(pair_[a * h + b]).head(padded).array();
      if (weights)
        pair = counted * factor(b);
      else
        pair = factor(a) * factor(b);
    }
  }
  for (Index k = 0; weights && k < others_.cols(); ++k)
    others_.col(k).head(padded).array() *= weights_.head(padded).array();
}

void FourthMoments::add(Index count, const double* weights) {
  const Index h = width_, padded = (count + kLanes - 1) / kLanes * kLanes;
  factors_.middleRows(count, padded - count).setZero();
  others_.middleRows(count, padded - count).setZero();
  if (weights) {
    weights_.head(count) = Eigen::Map<const Vector>(weights, count);
    weights_.segment(count, padded - count).setZero();
  }
  form_products(padded, weights);
  if (count < kRows) factors_.leftCols(first_).setOnes();
  if (!first_) {
    total_ += weights ? weights_.head(count).squaredNorm() : static_cast<double>(count);
    if (weights)
      add_applied_transposed(second_, 1, pairs_.topRows(padded), weights_.head(padded));
    else
      second_ += pairs_.topRows(padded).colwise().sum().transpose();
  }
  const double* left[4];
  for (Index b = 0; b < h; ++b) {
    const Index rest = pair_count(h - b);
    const double* right = pairs_.col(pairs_.cols() - rest).data();
    double* out = lanes_.col(start_[b]).data();
    for (Index a = 0, strip = 0; a <= b; a += strip) {
      strip = strip_of(b + 1 - a);
      for (Index i = 0; i < strip; ++i) left[i] = pairs_.col(pair_[(a + i) * h + b]).data();
      add_strip(left, strip, right, rest, padded, out + a * rest * kLanes);
    }
  }
  const Index others = others_.cols(), pairs = pairs_.cols();
  for (Index k = 0, strip = 0; k < others; k += strip) {
    strip = strip_of(others - k);
    for (Index i = 0; i < strip; ++i) left[i] = others_.col(k + i).data();
    double* out = lanes_.col(start_[h] + k * (pairs + others)).data();
    add_strip(left, strip, pairs_.data(), pairs, padded, out);
    add_strip(left, strip, left[0], others - k, padded, out + strip * pairs * kLanes);
  }
}

Matrix FourthMoments::sums() const {
  const Index h = width_, pairs = pair_count(h), own = pair_count(h + 1 - first_), others = others_.cols();
  const Vector total = lanes_.colwise().sum().transpose();
  Matrix out = Matrix::Zero(own + others, own + others);
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
  for (Index k = 0, strip = 0; k < others; k += strip) {
    strip = strip_of(others - k);
    const double* with_pairs = total.data() + start_[h] + k * (pairs + others);
    for (Index i = 0; i < strip; ++i) {
      const Index row = own + k + i;
      for (Index a = 0; a < h; ++a) {
        for (Index b = a; b < h; ++b) {
          const Index column = column_[a * h + b];
          out(row, column) = out(column, row) = with_pairs[i * pairs + pair_[a * h + b]];
        }
      }
      const double* with_others = with_pairs + strip * pairs + i * (others - k);
      for (Index j = i; j < others - k; ++j) out(row, own + k + j) = out(own + k + j, row) = with_others[j];
    }
  }
  return out;
}

}  // namespace msem
