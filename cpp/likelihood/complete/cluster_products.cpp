#include "likelihood/complete/cluster_products.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "base/threads.hpp"
#include "data/fourth_moments.hpp"

namespace msem {

namespace {

constexpr Index kBlock = FourthMoments::kRows;
constexpr Index kPiece = 16384;  // clusters a thread takes at a time

// Products within of the given clusters, in units of the scale.
void fill_within(const ClusterData& clusters, const Index* chosen, Index count, const Vector& inverse,
                 Eigen::Ref<Matrix> products) {
  Index k = 0, p = 0;
  while (p * (p + 1) / 2 < products.cols()) ++p;
  for (Index b = 0; b < p; ++b) {
    for (Index a = b; a < p; ++a, ++k) {
      const double unit = inverse[a] * inverse[b];
      const double* s = clusters.within.col(k).data();
      double* out = products.col(k).data();
      for (Index j = 0; j < count; ++j) out[j] = s[chosen[j]] * unit;
    }
  }
}

// Sums of t t' from those of means and values, and from the rows of products within.
Matrix joined(const Matrix& of_means, const Matrix& of_products) {
  const Index own = of_means.rows(), p2 = of_products.rows();
  Matrix out(own + p2, own + p2);
  out.topLeftCorner(own, own) = of_means;
  out.bottomRows(p2) = of_products;
  out.topRightCorner(own, p2) = of_products.leftCols(own).transpose();
  return out;
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

}  // namespace

ClusterProducts cluster_products(const ClusterData& clusters, const Vector& origin, const Vector& scale,
                                 const Vector& weights) {
  const Index total = clusters.sizes.size(), m = clusters.means.cols(), p2 = clusters.within.cols();
  if (clusters.means.rows() != total || clusters.within.rows() != total || origin.size() != m ||
      scale.size() != m || (weights.size() && weights.size() != total))
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  const BySize order = by_size(clusters.sizes);
  const Index distinct = static_cast<Index>(order.first.size()) - 1;
  struct Piece {
    Index first, last, size;
    Matrix sum;
  };
  std::vector<Piece> pieces;
  for (Index s = 0; s < distinct; ++s) {
    for (Index first = order.first[s]; first < order.first[s + 1]; first += kPiece)
      pieces.push_back({first, std::min(first + kPiece, order.first[s + 1]), s, {}});
  }
  const Index dim = 1 + m + m * (m + 1) / 2 + p2;
  const Vector inverse = scale.cwiseInverse();
  in_threads(static_cast<Index>(pieces.size()), 0, [&](Index i) {
    Piece& piece = pieces[i];
    const Index own = dim - p2;
    FourthMoments moments(m);
    Matrix t(kBlock, dim), of_products = Matrix::Zero(p2, dim);
    Vector w(weights.size() ? kBlock : 0);
    for (Index first = piece.first; first < piece.last; first += kBlock) {
      const Index count = std::min(kBlock, piece.last - first);
      const Index* chosen = order.member.data() + first;
      for (Index a = 0; a < m; ++a) {
        const double* means = clusters.means.col(a).data();
        double* v = moments.variable(a);
        for (Index j = 0; j < count; ++j) v[j] = (means[chosen[j]] - origin[a]) * inverse[a];
      }
      for (Index j = 0; w.size() && j < count; ++j) w[j] = weights[chosen[j]];
      moments.add(count, w.size() ? w.data() : nullptr);
      if (!p2) continue;
      moments.copy(count, t.leftCols(own));
      fill_within(clusters, chosen, count, inverse, t.rightCols(p2));
      if (w.size()) t.topRightCorner(count, p2) = scale_rows(w.head(count), t.topRightCorner(count, p2));
      add_cross(of_products, 1, t.topRightCorner(count, p2), t.topRows(count));
    }
    piece.sum = joined(moments.sums(), of_products);
  });
  ClusterProducts out;
  out.sizes.resize(distinct);
  out.sums.assign(distinct, Matrix::Zero(dim, dim));
  for (Index s = 0; s < distinct; ++s) out.sizes[s] = clusters.sizes[order.member[order.first[s]]];
  for (const Piece& piece : pieces) out.sums[piece.size] += piece.sum;
  return out;
}

Matrix row_products(const std::vector<Column>& columns, Index nrows, const Vector& origin,
                    const Vector& scale, const double* weights, bool even) {
  const Index m = static_cast<Index>(columns.size()), pieces = (nrows + kPiece - 1) / kPiece;
  if (origin.size() != m || scale.size() != m)
    throw std::invalid_argument("origin and scale are of every variable");
  const Vector inverse = scale.cwiseInverse();
  std::vector<Matrix> sums(pieces);
  in_threads(pieces, 0, [&](Index i) {
    FourthMoments moments(m, even);
    const Index last = std::min(nrows, (i + 1) * kPiece);
    for (Index first = i * kPiece; first < last; first += kBlock) {
      const Index count = std::min(kBlock, last - first);
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
    sums[i] = moments.sums();
  });
  const Index dim = (m + 1) * (m + 2) / 2;
  Matrix out = Matrix::Zero(dim, dim);
  for (const Matrix& one : sums) out += one;
  return out;
}

namespace {

// Statistics of up to kBlock clusters of one size, a row of memory for each variable.
class BlockOfClusters {
 public:
  BlockOfClusters(const ClusteredRows& rows, const Vector& origin, const Vector& inverse)
      : rows_(rows), origin_(origin), inverse_(inverse), values_(kBlock, rows.unit.size()), mean_(values_) {}

  // Puts means and values of clusters among the variables of `moments`, products within into `products`.
  void read(const std::ptrdiff_t* start, Index count, Index size, FourthMoments& moments,
            Eigen::Ref<Matrix> products) {
    const Index p = values_.cols(), q = static_cast<Index>(rows_.cluster.size());
    mean_.setZero();
    for (Index i = 0; i < size; ++i) {
      gather(start, count, i);
      mean_ += values_;
    }
    mean_ /= static_cast<double>(size);
    products.setZero();
    for (Index i = 0; i < size && size > 1; ++i) {
      gather(start, count, i);
      values_ -= mean_;
      Index k = 0;
      for (Index b = 0; b < p; ++b) {
        for (Index a = b; a < p; ++a, ++k)
          products.col(k).array() += values_.col(a).array() * values_.col(b).array();
      }
    }
    for (Index a = 0; a < p; ++a) std::copy_n(mean_.col(a).data(), count, moments.variable(a));
    for (Index c = 0; c < q; ++c) {
      double* z = moments.variable(p + c);
      for (Index j = 0; j < count; ++j)
        z[j] = (rows_.cluster[c][start[j]] - origin_[p + c]) * inverse_[p + c];
    }
  }

 private:
  // The i-th rows of the clusters.
  void gather(const std::ptrdiff_t* start, Index count, Index i) {
    for (Index a = 0; a < values_.cols(); ++a) {
      const Column x = rows_.unit[a];
      double* v = values_.col(a).data();
      for (Index j = 0; j < count; ++j) v[j] = (x[start[j] + i] - origin_[a]) * inverse_[a];
    }
  }

  const ClusteredRows& rows_;
  const Vector &origin_, &inverse_;
  Matrix values_, mean_;
};

// Where each cluster begins if the rows come cluster by cluster, and the end; otherwise nothing.
std::vector<std::ptrdiff_t> starts_of(const ClusteredRows& rows) {
  std::vector<std::ptrdiff_t> starts;
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (i > 0 && rows.codes[i] < rows.codes[i - 1]) return {};
    if (i == 0 || rows.codes[i] != rows.codes[i - 1]) starts.push_back(i);
  }
  if (static_cast<std::ptrdiff_t>(starts.size()) != rows.nclusters) return {};
  starts.push_back(rows.nrows);
  return starts;
}

}  // namespace

ClusterProducts products_of_rows(const ClusteredRows& rows, const Vector& origin, const Vector& scale) {
  const Index p = static_cast<Index>(rows.unit.size()), m = p + static_cast<Index>(rows.cluster.size());
  if (origin.size() != m || scale.size() != m)
    throw std::invalid_argument("origin and scale are of every variable");
  const std::vector<std::ptrdiff_t> starts = starts_of(rows);
  ClusterProducts out;
  if (starts.empty()) return out;
  const Index total = rows.nclusters, pieces = (total + kPiece - 1) / kPiece;
  std::vector<std::ptrdiff_t> sizes(total);
  for (Index j = 0; j < total; ++j) sizes[j] = starts[j + 1] - starts[j];
  std::vector<std::ptrdiff_t> distinct = sizes;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  const Index p2 = p * (p + 1) / 2, own = (m + 1) * (m + 2) / 2, dim = own + p2;
  const Vector inverse = scale.cwiseInverse();
  std::vector<std::vector<Matrix>> sums(pieces);
  in_threads(pieces, 0, [&](Index piece) {
    const Index last = std::min(total, (piece + 1) * kPiece);
    std::vector<std::vector<std::ptrdiff_t>> members(distinct.size());
    for (Index j = piece * kPiece; j < last; ++j)
      members[std::lower_bound(distinct.begin(), distinct.end(), sizes[j]) - distinct.begin()].push_back(
          starts[j]);
    BlockOfClusters block(rows, origin, inverse);
    Matrix t(kBlock, dim);
    for (std::size_t s = 0; s < distinct.size(); ++s) {
      FourthMoments moments(m);
      Matrix of_products = Matrix::Zero(p2, dim);
      const Index here = static_cast<Index>(members[s].size());
      for (Index first = 0; first < here; first += kBlock) {
        const Index count = std::min(kBlock, here - first);
        block.read(members[s].data() + first, count, distinct[s], moments, t.rightCols(p2));
        moments.add(count, nullptr);
        moments.copy(count, t.leftCols(own));
        add_cross(of_products, 1, t.topRightCorner(count, p2), t.topRows(count));
      }
      sums[piece].push_back(joined(moments.sums(), of_products));
    }
  });
  out.sizes.resize(distinct.size());
  out.sums.assign(distinct.size(), Matrix::Zero(dim, dim));
  for (std::size_t s = 0; s < distinct.size(); ++s) {
    out.sizes[s] = static_cast<double>(distinct[s]);
    for (Index piece = 0; piece < pieces; ++piece) out.sums[s] += sums[piece][s];
  }
  return out;
}

}  // namespace msem
