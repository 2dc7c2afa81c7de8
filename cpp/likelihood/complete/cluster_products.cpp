#include "likelihood/complete/cluster_products.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "base/threads.hpp"

namespace msem {

namespace {

constexpr Index kBlock = 256;   // clusters handled together
constexpr Index kPiece = 8192;  // clusters a thread takes at a time

// One row t for each of the given clusters, times the root of its weight.
void fill(const ClusterData& clusters, const Index* chosen, Index count, const Vector& origin,
          const Vector& inverse, const Vector& weights, Matrix& t) {
  const Index m = clusters.means.cols(), within = clusters.within.cols();
  t.col(0).head(count).setOnes();
  for (Index a = 0; a < m; ++a) {
    const double* means = clusters.means.col(a).data();
    double* v = t.col(1 + a).data();
    for (Index j = 0; j < count; ++j) v[j] = (means[chosen[j]] - origin[a]) * inverse[a];
  }
  Index at = 1 + m;
  for (Index b = 0; b < m; ++b) {
    for (Index a = b; a < m; ++a, ++at) {
      t.col(at).head(count) = t.col(1 + a).head(count).cwiseProduct(t.col(1 + b).head(count));
    }
  }
  Index k = 0, p = 0;
  while (p * (p + 1) / 2 < within) ++p;
  for (Index b = 0; b < p; ++b) {
    for (Index a = b; a < p; ++a, ++k, ++at) {
      const double unit = inverse[a] * inverse[b];
      const double* s = clusters.within.col(k).data();
      double* out = t.col(at).data();
      for (Index j = 0; j < count; ++j) out[j] = s[chosen[j]] * unit;
    }
  }
  if (!weights.size()) return;
  Vector root(count);
  for (Index j = 0; j < count; ++j) root[j] = std::sqrt(weights[chosen[j]]);
  for (Index c = 0; c < t.cols(); ++c) t.col(c).head(count).array() *= root.array();
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
    piece.sum.setZero(dim, dim);
    Matrix t(kBlock, dim);
    for (Index first = piece.first; first < piece.last; first += kBlock) {
      const Index count = std::min(kBlock, piece.last - first);
      fill(clusters, order.member.data() + first, count, origin, inverse, weights, t);
      piece.sum.selfadjointView<Eigen::Lower>().rankUpdate(t.topRows(count).transpose());
    }
  });
  ClusterProducts out;
  out.sizes.resize(distinct);
  out.sums.assign(distinct, Matrix::Zero(dim, dim));
  for (Index s = 0; s < distinct; ++s) out.sizes[s] = clusters.sizes[order.member[order.first[s]]];
  for (const Piece& piece : pieces) out.sums[piece.size] += piece.sum;
  for (Matrix& sum : out.sums) sum = Matrix(sum.selfadjointView<Eigen::Lower>());
  return out;
}

}  // namespace msem
