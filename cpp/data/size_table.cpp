#include "data/size_table.hpp"

#include <algorithm>

#include "base/triangle.hpp"
#include "data/block_products.hpp"

namespace msem {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using std::ptrdiff_t;

constexpr ptrdiff_t kSizeBlock = 256;

Eigen::Map<const VectorXd> mean_of(const RunningClusters& clusters, std::int64_t code) {
  return Eigen::Map<const VectorXd>(&clusters.mean[code * clusters.width], clusters.width);
}

// Mean of some clusters' means, and their sums of squares and products about it, lower triangle.
struct Spread {
  VectorXd mean;
  MatrixXd scatter;
};

Spread spread_of(const RunningClusters& clusters, const std::int64_t* first, const std::int64_t* last) {
  const ptrdiff_t width = clusters.width;
  Spread out{VectorXd::Zero(width), MatrixXd::Zero(width, width)};
  for (const std::int64_t* j = first; j != last; ++j) out.mean += mean_of(clusters, *j);
  out.mean /= static_cast<double>(last - first);
  MatrixXd buffer(width, std::min<ptrdiff_t>(kSizeBlock, last - first));
  for (const std::int64_t* start = first; start != last;) {
    const ptrdiff_t length = std::min<ptrdiff_t>(kSizeBlock, last - start);
    for (ptrdiff_t r = 0; r < length; ++r) buffer.col(r) = mean_of(clusters, start[r]) - out.mean;
    add_block_products(buffer.data(), length, width, out.scatter);
    start += length;
  }
  return out;
}

}  // namespace

SizeTable size_table(const RunningClusters& clusters, std::vector<std::int64_t> codes) {
  const auto smaller = [&](std::int64_t a, std::int64_t b) { return clusters.count[a] < clusters.count[b]; };
  if (!std::is_sorted(codes.begin(), codes.end(), smaller))
    std::stable_sort(codes.begin(), codes.end(), smaller);
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (i == 0 || smaller(codes[i - 1], codes[i])) starts.push_back(i);
  }
  const ptrdiff_t S = starts.size(), p = clusters.p;
  starts.push_back(codes.size());
  SizeTable out{VectorXd(S), VectorXd(S), RowMatrix(S, p), std::vector<double>(S * p * p)};
  for (ptrdiff_t s = 0; s < S; ++s) {
    const std::int64_t *first = codes.data() + starts[s], *last = codes.data() + starts[s + 1];
    const Spread one = spread_of(clusters, first, last);
    out.sizes[s] = clusters.count[*first];
    out.counts[s] = static_cast<double>(last - first);
    out.means.row(s) = one.mean.head(p).transpose();
    const MatrixXd full = completed(one.scatter).topLeftCorner(p, p);
    std::copy(full.data(), full.data() + p * p, out.scatter.begin() + s * p * p);
  }
  return out;
}

}  // namespace msem
