#include "data/fourth_moments.hpp"

#include <algorithm>

#include "base/lanes.hpp"

namespace msem {

namespace {

constexpr Index kTwice = 2 * kLanes;  // rows that are taken together

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
    : first_(even ? 0 : 1),
      width_(variables + first_),
      npairs_(pair_count(width_)),
      nothers_(others),
      column_(width_ * width_),
      pair_(width_ * width_) {
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
  total += nothers_ * (npairs_ + nothers_);
  factors_.resize(kRows * h);
  std::fill_n(factors_.data(), first_ * kRows, 1.0);
  pairs_.resize(kRows * npairs_);
  others_.resize(kRows * nothers_);
  weights_.resize(kRows, 1.0);
  counted_.resize(kRows);
  fourth_.resize(kLanes * total);
  second_.resize(even ? kLanes * npairs_ : 0);
}

// Products of two, times the weights, so that those of four are times their squares. Without odd products
// they are added up, too.
void FourthMoments::form_products(Index padded, bool weighted) {
  const Index h = width_;
  const double* w = weights_.data();
  const auto lanes = [](const double* at) { return Eigen::Map<const Lanes>(at); };
  for (Index a = 0; a < h; ++a) {
    const double* x = factors_.data() + a * kRows;
    if (weighted) {
      for (Index r = 0; r < padded; r += kLanes)
        Eigen::Map<Lanes>(counted_.data() + r) = lanes(x + r) * lanes(w + r);
      x = counted_.data();
    }
    for (Index b = a; b < h; ++b) {
      const double* y = factors_.data() + b * kRows;
      double* out = pairs_.data() + pair_[a * h + b] * kRows;
      if (first_) {
        for (Index r = 0; r < padded; r += kLanes) Eigen::Map<Lanes>(out + r) = lanes(x + r) * lanes(y + r);
        continue;
      }
      Lanes sum = Lanes::Zero(), other = Lanes::Zero();
      for (Index r = 0; r < padded; r += kTwice) {
        const Lanes one = lanes(x + r) * lanes(y + r), two = lanes(x + r + kLanes) * lanes(y + r + kLanes);
        Eigen::Map<Lanes>(out + r) = one;
        Eigen::Map<Lanes>(out + r + kLanes) = two;
        sum += weighted ? Lanes(one * lanes(w + r)) : one;
        other += weighted ? Lanes(two * lanes(w + r + kLanes)) : two;
      }
      Eigen::Map<Lanes>(second_.data() + pair_[a * h + b] * kLanes) += sum + other;
    }
  }
  for (Index k = 0; weighted && k < nothers_; ++k) {
    for (Index r = 0; r < padded; r += kLanes)
      Eigen::Map<Lanes>(others_.data() + k * kRows + r) *= lanes(w + r);
  }
}

void FourthMoments::add(Index count, const double* weights) {
  const Index h = width_, padded = (count + kTwice - 1) / kTwice * kTwice;
  for (Index a = 0; a < h; ++a) std::fill_n(factors_.data() + a * kRows + count, padded - count, 0.0);
  for (Index k = 0; k < nothers_; ++k) std::fill_n(others_.data() + k * kRows + count, padded - count, 0.0);
  if (weights) {
    std::copy_n(weights, count, weights_.data());
    std::fill_n(weights_.data() + count, padded - count, 0.0);
  }
  form_products(padded, weights != nullptr);
  std::fill_n(factors_.data() + count, first_ * (padded - count), 1.0);
  if (!first_)
    number_ += weights ? Eigen::Map<const Vector>(weights, count).squaredNorm() : static_cast<double>(count);
  const double* left[4];
  for (Index b = 0; b < h; ++b) {
    const Index rest = pair_count(h - b);
    const double* right = pairs_.data() + (npairs_ - rest) * kRows;
    double* out = fourth_.data() + start_[b] * kLanes;
    for (Index a = 0, strip = 0; a <= b; a += strip) {
      strip = strip_of(b + 1 - a);
      for (Index i = 0; i < strip; ++i) left[i] = pairs_.data() + pair_[(a + i) * h + b] * kRows;
      add_strip(left, strip, right, rest, padded, out + a * rest * kLanes);
    }
  }
  for (Index k = 0, strip = 0; k < nothers_; k += strip) {
    strip = strip_of(nothers_ - k);
    for (Index i = 0; i < strip; ++i) left[i] = others_.data() + (k + i) * kRows;
    double* out = fourth_.data() + (start_[h] + k * (npairs_ + nothers_)) * kLanes;
    add_strip(left, strip, pairs_.data(), npairs_, padded, out);
    add_strip(left, strip, left[0], nothers_ - k, padded, out + strip * npairs_ * kLanes);
  }
}

Vector FourthMoments::totals() const {
  const Index fourth = static_cast<Index>(fourth_.size()) / kLanes;
  const Index second = static_cast<Index>(second_.size()) / kLanes;
  Vector out(1 + second + fourth);
  out[0] = number_;
  for (Index i = 0; i < second; ++i) out[1 + i] = Eigen::Map<const Lanes>(second_.data() + i * kLanes).sum();
  for (Index i = 0; i < fourth; ++i)
    out[1 + second + i] = Eigen::Map<const Lanes>(fourth_.data() + i * kLanes).sum();
  return out;
}

Matrix FourthMoments::products(const Vector& totals) const {
  const Index h = width_, pairs = npairs_, own = pair_count(h + 1 - first_), others = nothers_;
  const double *second = totals.data() + 1, *fourth = second + (first_ ? 0 : pairs);
  Matrix out = Matrix::Zero(own + others, own + others);
  out(0, 0) = totals[0];  // without odd products, as those of two; otherwise among those of four
  for (Index a = 0; a < h; ++a) {
    for (Index b = a; b < h; ++b) {
      const Index column = column_[a * h + b];
      if (!first_) out(0, column) = out(column, 0) = second[pair_[a * h + b]];
      for (Index c = 0; c < h; ++c) {
        for (Index d = c; d < h; ++d) {
          Index index[4] = {a, b, c, d};
          std::sort(index, index + 4);
          const Index next = index[1], rest = pair_count(h - next);
          // the last two among the pairs whose first factor is `next` or later
          const Index place = pair_[index[2] * h + index[3]] - (pairs - rest);
          out(column, column_[c * h + d]) = fourth[start_[next] + index[0] * rest + place];
        }
      }
    }
  }
  for (Index k = 0, strip = 0; k < others; k += strip) {
    strip = strip_of(others - k);
    const double* with_pairs = fourth + start_[h] + k * (pairs + others);
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
