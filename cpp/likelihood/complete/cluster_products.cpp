#include "likelihood/complete/cluster_products.hpp"

#include <map>
#include <stdexcept>

#include "base/threads.hpp"

namespace msem {

namespace {

constexpr Index kBlock = 256;   // clusters handled together
constexpr Index kPiece = 8192;  // clusters a thread takes at a time

// One row t for each of the given clusters.
void fill(const ClusterData& clusters, const Index* chosen, Index count, const Vector& origin,
          const Vector& inverse, Matrix& t) {
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
}

}  // namespace

ClusterProducts cluster_products(const ClusterData& clusters, const Vector& origin, const Vector& scale) {
  const Index total = clusters.sizes.size(), m = clusters.means.cols(), p2 = clusters.within.cols();
  if (clusters.means.rows() != total || clusters.within.rows() != total || origin.size() != m ||
      scale.size() != m)
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  std::map<double, std::vector<Index>> by_size;
  for (Index j = 0; j < total; ++j) by_size[clusters.sizes[j]].push_back(j);
  struct Piece {
    const std::vector<Index>* members;
    Index first, size;
    Matrix sum;
  };
  std::vector<Piece> pieces;
  Index s = 0;
  for (const auto& entry : by_size) {
    const auto count = static_cast<Index>(entry.second.size());
    for (Index first = 0; first < count; first += kPiece) pieces.push_back({&entry.second, first, s, {}});
    ++s;
  }
  const Index dim = 1 + m + m * (m + 1) / 2 + p2;
  const Vector inverse = scale.cwiseInverse();
  in_threads(static_cast<Index>(pieces.size()), 0, [&](Index i) {
    Piece& piece = pieces[i];
    piece.sum.setZero(dim, dim);
    Matrix t(kBlock, dim);
    const Index last = std::min<Index>(piece.first + kPiece, piece.members->size());
    for (Index first = piece.first; first < last; first += kBlock) {
      const Index count = std::min(kBlock, last - first);
      fill(clusters, piece.members->data() + first, count, origin, inverse, t);
      piece.sum.selfadjointView<Eigen::Lower>().rankUpdate(t.topRows(count).transpose());
    }
  });
  ClusterProducts out;
  out.sizes.resize(s);
  out.sums.assign(s, Matrix::Zero(dim, dim));
  s = 0;
  for (const auto& entry : by_size) out.sizes[s++] = entry.first;
  for (const Piece& piece : pieces) out.sums[piece.size] += piece.sum;
  for (Matrix& sum : out.sums) sum = Matrix(sum.selfadjointView<Eigen::Lower>());
  return out;
}

}  // namespace msem
