#include "likelihood/complete/cluster_products.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "base/threads.hpp"
#include "likelihood/complete/fourth_moments.hpp"

namespace msem {

namespace {

constexpr Index kBlock = FourthMoments::kRows;
constexpr Index kPiece = 16384;  // clusters a thread takes at a time

// Means of the given clusters about the origin, and products within, both in units of the scale.
void fill(const ClusterData& clusters, const Index* chosen, Index count, const Vector& origin,
          const Vector& inverse, Matrix& x, Eigen::Ref<Matrix> products) {
  for (Index a = 0; a < x.cols(); ++a) {
    const double* means = clusters.means.col(a).data();
    double* v = x.col(a).data();
    for (Index j = 0; j < count; ++j) v[j] = (means[chosen[j]] - origin[a]) * inverse[a];
  }
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
    Matrix x(kBlock, m), t(kBlock, dim), counted(kBlock, p2), of_products = Matrix::Zero(p2, dim);
    Vector w(weights.size() ? kBlock : 0);
    for (Index first = piece.first; first < piece.last; first += kBlock) {
      const Index count = std::min(kBlock, piece.last - first);
      const Index* chosen = order.member.data() + first;
      fill(clusters, chosen, count, origin, inverse, x, t.rightCols(p2));
      for (Index j = 0; w.size() && j < count; ++j) w[j] = weights[chosen[j]];
      moments.add(x, count, w.size() ? w.data() : nullptr, t.leftCols(own));
      if (!p2) continue;
      counted.topRows(count) = t.topRightCorner(count, p2);
      if (w.size()) counted.topRows(count) = scale_rows(w.head(count), counted.topRows(count));
      add_cross(of_products, 1, counted.topRows(count), t.topRows(count));
    }
    piece.sum.resize(dim, dim);
    piece.sum.topLeftCorner(own, own) = moments.sums();
    piece.sum.bottomRows(p2) = of_products;
    piece.sum.topRightCorner(own, p2) = of_products.leftCols(own).transpose();
  });
  ClusterProducts out;
  out.sizes.resize(distinct);
  out.sums.assign(distinct, Matrix::Zero(dim, dim));
  for (Index s = 0; s < distinct; ++s) out.sizes[s] = clusters.sizes[order.member[order.first[s]]];
  for (const Piece& piece : pieces) out.sums[piece.size] += piece.sum;
  return out;
}

}  // namespace msem
