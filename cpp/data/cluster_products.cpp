#include "data/cluster_products.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "base/lanes.hpp"
#include "base/threads.hpp"
#include "data/fourth_moments.hpp"

namespace msem {

namespace {

constexpr Index kProductRows = FourthMoments::kRows;
constexpr Index kProductPiece = 8192;  // clusters a thread takes at a time

// Products within of the given clusters, in units of the scale.
void put_within(ConstMatrixRef within, const Index* chosen, Index count, const Vector& inverse,
                FourthMoments& moments) {
  Index k = 0, p = 0;
  while (p * (p + 1) / 2 < within.cols()) ++p;
  for (Index b = 0; b < p; ++b) {
    for (Index a = b; a < p; ++a, ++k) {
      const double unit = inverse[a] * inverse[b];
      const double* s = within.col(k).data();
      double* out = moments.other(k);
      for (Index j = 0; j < count; ++j) out[j] = s[chosen[j]] * unit;
    }
  }
}

// The clusters by size, and where those of each size begin.
struct BySize {
  std::vector<Index> member, first;
};

BySize by_size(const Vector& sizes) {
  BySize out;
  out.member.resize(sizes.size());
  std::iota(out.member.begin(), out.member.end(), Index{0});
  const auto smaller = [&](Index a, Index b) { return sizes[a] < sizes[b]; };
  if (!std::is_sorted(out.member.begin(), out.member.end(), smaller))
    std::stable_sort(out.member.begin(), out.member.end(), smaller);
  for (std::size_t i = 0; i < out.member.size(); ++i) {
    if (i == 0 || smaller(out.member[i - 1], out.member[i])) out.first.push_back(static_cast<Index>(i));
  }
  out.first.push_back(sizes.size());
  return out;
}

void add_up(Vector& sum, const Vector& one) {
  if (sum.size())
    sum += one;
  else
    sum = one;
}

std::vector<Matrix> products_of(const FourthMoments& moments, const std::vector<Vector>& totals) {
  std::vector<Matrix> out;
  for (const Vector& one : totals) out.push_back(moments.products(one));
  return out;
}

}  // namespace

ClusterProducts cluster_products(ConstVectorRef sizes, ConstMatrixRef means, ConstMatrixRef within,
                                 const Vector& origin, const Vector& scale, const Vector& weights) {
  const Index total = sizes.size(), m = means.cols(), p2 = within.cols();
  if (means.rows() != total || within.rows() != total || origin.size() != m || scale.size() != m ||
      (weights.size() && weights.size() != total))
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  const BySize order = by_size(sizes);
  const Index distinct = static_cast<Index>(order.first.size()) - 1;
  struct Piece {
    Index first, last, size;
    Vector sum;
  };
  std::vector<Piece> pieces;
  for (Index s = 0; s < distinct; ++s) {
    for (Index first = order.first[s]; first < order.first[s + 1]; first += kProductPiece)
      pieces.push_back({first, std::min(first + kProductPiece, order.first[s + 1]), s, {}});
  }
  const Vector inverse = scale.cwiseInverse();
  in_threads(static_cast<Index>(pieces.size()), 0, [&](Index i) {
    Piece& piece = pieces[i];
    FourthMoments moments(m, p2);
    Vector w(weights.size() ? kProductRows : 0);
    for (Index first = piece.first; first < piece.last; first += kProductRows) {
      const Index count = std::min(kProductRows, piece.last - first);
      const Index* chosen = order.member.data() + first;
      for (Index a = 0; a < m; ++a) {
        const double* x = means.col(a).data();
        double* v = moments.variable(a);
        for (Index j = 0; j < count; ++j) v[j] = (x[chosen[j]] - origin[a]) * inverse[a];
      }
      put_within(within, chosen, count, inverse, moments);
      for (Index j = 0; w.size() && j < count; ++j) w[j] = weights[chosen[j]];
      moments.add(count, w.size() ? w.data() : nullptr);
    }
    piece.sum = moments.totals();
  });
  std::vector<Vector> sums(distinct);
  for (const Piece& piece : pieces) add_up(sums[piece.size], piece.sum);
  ClusterProducts out;
  out.sizes.resize(distinct);
  for (Index s = 0; s < distinct; ++s) out.sizes[s] = sizes[order.member[order.first[s]]];
  out.sums = products_of(FourthMoments(m, p2), sums);
  return out;
}

Matrix row_products(const std::vector<Column>& columns, Index nrows, const Vector& origin,
                    const Vector& scale, const double* weights, bool even) {
  const Index m = static_cast<Index>(columns.size()), pieces = (nrows + kProductPiece - 1) / kProductPiece;
  if (origin.size() != m || scale.size() != m)
    throw std::invalid_argument("origin and scale are of every variable");
  const Vector inverse = scale.cwiseInverse();
  std::vector<Vector> sums(pieces);
  in_threads(pieces, 0, [&](Index i) {
    FourthMoments moments(m, 0, even);
    const Index last = std::min(nrows, (i + 1) * kProductPiece);
    for (Index first = i * kProductPiece; first < last; first += kProductRows) {
      const Index count = std::min(kProductRows, last - first);
      for (Index a = 0; a < m; ++a) {
        const Column x{columns[a].data + first * columns[a].stride, columns[a].stride};
        double* v = moments.variable(a);
        if (x.stride == 1) {
          for (Index r = 0; r < count; ++r) v[r] = (x.data[r] - origin[a]) * inverse[a];
        } else {
          for (Index r = 0; r < count; ++r) v[r] = (x[r] - origin[a]) * inverse[a];
        }
      }
      moments.add(count, weights ? weights + first : nullptr);
    }
    sums[i] = moments.totals();
  });
  Vector whole;
  for (const Vector& one : sums) add_up(whole, one);
  const FourthMoments moments(m, 0, even);
  return moments.products(whole.size() ? whole : moments.totals());
}

namespace {

// Statistics of up to kProductRows clusters of one size, put among the numbers of `FourthMoments`.
class BlockOfClusters {
 public:
  BlockOfClusters(const ClusteredRows& rows, const Vector& origin, const Vector& inverse)
      : rows_(rows),
        origin_(origin),
        inverse_(inverse),
        p_(static_cast<Index>(rows.unit.size())),
        values_(Matrix::Zero(kProductRows, kTogether * p_)),
        run_(Matrix::Zero(kRun, p_)),
        mean_(p_),
        sums_(p_ * (p_ + 1) / 2) {}

  void read(const std::ptrdiff_t* start, Index count, Index size, FourthMoments& moments) {
    if (size > kTogether) {
      for (Index j = 0; j < count; ++j) read_cluster(start[j], size, j, moments);
    } else {
      read_together(start, count, size, moments);
    }
    for (Index c = 0; c < static_cast<Index>(rows_.cluster.size()); ++c) {
      double* z = moments.variable(p_ + c);
      const Column x = rows_.cluster[c];
      for (Index j = 0; j < count; ++j) z[j] = (x[start[j]] - origin_[p_ + c]) * inverse_[p_ + c];
    }
  }

 private:
  using Values = Eigen::Array<double, kProductRows, 1>;
  static constexpr Index kTogether = 8;  // rows of clusters up to which these stand side by side
  static constexpr Index kRun = 64;      // rows of a larger one

  void read_together(const std::ptrdiff_t* start, Index count, Index size, FourthMoments& moments) {
    std::vector<double*> mean;
    for (Index a = 0; a < p_; ++a) {
      mean.push_back(moments.variable(a));
      std::fill_n(mean[a], kProductRows, 0.0);
    }
    gather(start, count, size);
    for (Index a = 0; a < p_; ++a) {
      for (Index i = 0; i < size; ++i) add(value(a, i), mean[a]);
    }
    const double share = 1 / static_cast<double>(size);
    for (double* one : mean) Eigen::Map<Values>(one) *= share;
    for (Index a = 0; a < p_; ++a) {
      for (Index i = 0; i < size; ++i) Eigen::Map<Values>(value(a, i)) -= Eigen::Map<const Values>(mean[a]);
    }
    for (Index b = 0, k = 0; b < p_; ++b) {
      for (Index a = b; a < p_; ++a) form_products(value(a, 0), value(b, 0), size, moments.other(k++));
    }
  }

  // One cluster, its rows side by side.
  void read_cluster(std::ptrdiff_t start, Index size, Index j, FourthMoments& moments) {
    mean_.setZero();
    for (Index first = 0; first < size; first += kRun) {
      const Index number = std::min(kRun, size - first);
      put_run(start + first, number);
      for (Index a = 0; a < p_; ++a) mean_[a] += run_.col(a).head(number).sum();
    }
    mean_ /= static_cast<double>(size);
    std::fill(sums_.begin(), sums_.end(), Lanes(Lanes::Zero()));
    for (Index first = 0; first < size; first += kRun) {
      const Index number = std::min(kRun, size - first);
      if (size > kRun) put_run(start + first, number);
      for (Index a = 0; a < p_; ++a) run_.col(a).head(number).array() -= mean_[a];
      add_run_products((number + kLanes - 1) / kLanes * kLanes);
    }
    for (Index a = 0; a < p_; ++a) moments.variable(a)[j] = mean_[a];
    for (std::size_t k = 0; k < sums_.size(); ++k) moments.other(k)[j] = sums_[k].sum();
  }

  // Rows of a cluster, and zeros up to whole registers.
  void put_run(std::ptrdiff_t start, Index number) {
    for (Index a = 0; a < p_; ++a) {
      const Column x{rows_.unit[a].data + start * rows_.unit[a].stride, rows_.unit[a].stride};
      const double origin = origin_[a], inverse = inverse_[a];
      double* v = run_.col(a).data();
      if (x.stride == 1) {
        for (Index i = 0; i < number; ++i) v[i] = (x.data[i] - origin) * inverse;
      } else {
        for (Index i = 0; i < number; ++i) v[i] = (x[i] - origin) * inverse;
      }
      for (Index i = number; i % kLanes; ++i) v[i] = 0.0;
    }
  }

  void add_run_products(Index padded) {
    Lanes* sum = sums_.data();
    for (Index b = 0; b < p_; ++b) {
      const double* y = run_.col(b).data();
      Index a = b;
      for (; a + 4 <= p_; a += 4, sum += 4) add_run_products<4>(a, y, padded, sum);
      for (; a < p_; ++a, ++sum) add_run_products<1>(a, y, padded, sum);
    }
  }
  template <int A>
  void add_run_products(Index first, const double* y, Index padded, Lanes* out) const {
    Lanes sum[A];
    for (int a = 0; a < A; ++a) sum[a] = out[a];
    const double* x = run_.col(first).data();
    for (Index i = 0; i < padded; i += kLanes) {
      for (int a = 0; a < A; ++a)
        sum[a] += Eigen::Map<const Lanes>(x + a * kRun + i) * Eigen::Map<const Lanes>(y + i);
    }
    for (int a = 0; a < A; ++a) out[a] = sum[a];
  }

  double* value(Index a, Index i) { return values_.col(a * kTogether + i).data(); }
  static void add(const double* x, double* sum) { Eigen::Map<Values>(sum) += Eigen::Map<const Values>(x); }
  // The sum over rows stays in a register.
  static void form_products(const double* x, const double* y, Index size, double* out) {
    for (Index j = 0; j < kProductRows; j += kLanes) {
      Lanes sum = Lanes::Zero();
      for (Index i = 0; i < size; ++i)
        sum += Eigen::Map<const Lanes>(x + i * kProductRows + j) *
               Eigen::Map<const Lanes>(y + i * kProductRows + j);
      Eigen::Map<Lanes>(out + j) = sum;
    }
  }
  void gather(const std::ptrdiff_t* start, Index count, Index size) {
    for (Index a = 0; a < p_; ++a) {
      const Column x = rows_.unit[a];
      const double origin = origin_[a], inverse = inverse_[a];
      for (Index i = 0; i < size; ++i) {
        const double* from = x.data + i * x.stride;
        double* v = value(a, i);
        for (Index j = 0; j < count; ++j) v[j] = (from[start[j] * x.stride] - origin) * inverse;
      }
    }
  }

  const ClusteredRows& rows_;
  const Vector &origin_, &inverse_;
  const Index p_;
  Matrix values_;  // of a variable, row by row of the clusters; what is beyond their number stays as it was
  Matrix run_;     // of one cluster
  Vector mean_;
  LaneVector sums_;  // of products of two variables
};

// Where each cluster begins if the rows come cluster by cluster, and the end; otherwise nothing.
std::vector<std::ptrdiff_t> starts_of(const ClusteredRows& rows) {
  std::vector<std::ptrdiff_t> starts;
  starts.reserve(rows.nclusters + 1);
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (i > 0 && rows.codes[i] < rows.codes[i - 1]) return {};
    if (i == 0 || rows.codes[i] != rows.codes[i - 1]) starts.push_back(i);
  }
  if (static_cast<std::ptrdiff_t>(starts.size()) != rows.nclusters) return {};
  starts.push_back(rows.nrows);
  return starts;
}

std::vector<std::ptrdiff_t> distinct_sizes(const std::vector<std::ptrdiff_t>& starts) {
  std::vector<std::ptrdiff_t> found;  // few, ascending
  for (std::size_t j = 1; j < starts.size(); ++j) {
    const std::ptrdiff_t size = starts[j] - starts[j - 1];
    const auto at = std::lower_bound(found.begin(), found.end(), size);
    if (at == found.end() || *at != size) found.insert(at, size);
  }
  return found;
}

}  // namespace

ClusterProducts products_of_rows(const ClusteredRows& rows, const Vector& origin, const Vector& scale) {
  const Index p = static_cast<Index>(rows.unit.size()), m = p + static_cast<Index>(rows.cluster.size());
  if (origin.size() != m || scale.size() != m)
    throw std::invalid_argument("origin and scale are of every variable");
  const std::vector<std::ptrdiff_t> starts = starts_of(rows);
  ClusterProducts out;
  if (starts.empty()) return out;
  const Index total = rows.nclusters, pieces = (total + kProductPiece - 1) / kProductPiece;
  const std::vector<std::ptrdiff_t> distinct = distinct_sizes(starts);
  const Index p2 = p * (p + 1) / 2;
  const Vector inverse = scale.cwiseInverse();
  std::vector<std::vector<Vector>> sums(pieces);
  in_threads(pieces, 0, [&](Index piece) {
    const Index last = std::min(total, (piece + 1) * kProductPiece);
    std::vector<std::vector<std::ptrdiff_t>> members(distinct.size());
    for (Index j = piece * kProductPiece; j < last; ++j)
      members[std::lower_bound(distinct.begin(), distinct.end(), starts[j + 1] - starts[j]) -
              distinct.begin()]
          .push_back(starts[j]);
    BlockOfClusters block(rows, origin, inverse);
    for (std::size_t s = 0; s < distinct.size(); ++s) {
      FourthMoments moments(m, p2);
      const Index here = static_cast<Index>(members[s].size());
      for (Index first = 0; first < here; first += kProductRows) {
        const Index count = std::min(kProductRows, here - first);
        block.read(members[s].data() + first, count, distinct[s], moments);
        moments.add(count, nullptr);
      }
      sums[piece].push_back(moments.totals());
    }
  });
  std::vector<Vector> whole(distinct.size());
  out.sizes.resize(distinct.size());
  for (std::size_t s = 0; s < distinct.size(); ++s) {
    out.sizes[s] = static_cast<double>(distinct[s]);
    for (Index piece = 0; piece < pieces; ++piece) add_up(whole[s], sums[piece][s]);
  }
  out.sums = products_of(FourthMoments(m, p2), whole);
  return out;
}

}  // namespace msem
