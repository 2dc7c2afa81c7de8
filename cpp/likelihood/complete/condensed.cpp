// Very many sizes of clusters, as weights of units make them, in place of which a few nodes stand.
//
// All that the likelihood and its derivatives have of a size n are smooth functions of log n: powers of n,
// D = 1 / (1 + n lambda) and its logarithm, whose singularities are at log n = -log lambda +- i pi for lambda
// > 0 and at log(1 / |lambda|) otherwise. On an interval of length h polynomials through K Chebyshev nodes of
// log n differ from them by rho^-K, with rho = z + sqrt(z^2 - 1) and z = 1 + 2 d / h for a singularity at a
// distance d on the line, about 2 pi / h + sqrt(1 + (2 pi / h)^2) for one at i pi (Trefethen, 2013, ch. 8). A
// sum over clusters of f(n_j) x_j x_j' is then one over nodes k of f(n_k) sum_j L_k(n_j) x_j x_j', L_k the
// Lagrange polynomials: the same data with few sizes, with products that may be negative.
#include <algorithm>
#include <cmath>

#include "likelihood/complete/twolevel.hpp"

namespace msem {

namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr Index kNodes = 12;
constexpr double kLength = 0.5;    // of the intervals of log n: rho is 25 for lambda > 0
constexpr double kNearest = 0.12;  // greatest -n lambda: there it is 18
constexpr Index kWorth = 8;        // sizes for each node from which it pays
constexpr double kNone = 1e-18;    // share of the greatest eigenvalue that is nothing

// Values of the Lagrange polynomials of Chebyshev nodes on [-1, 1] at x (Berrut & Trefethen, 2004).
Vector lagrange(double x, const Vector& nodes, const Vector& weights) {
  Vector out = Vector::Zero(nodes.size());
  for (Index k = 0; k < nodes.size(); ++k) {
    if (x == nodes[k]) {
      out.setZero();
      out[k] = 1;
      return out;
    }
    out[k] = weights[k] / (x - nodes[k]);
  }
  return out / out.sum();
}

// Rows and their signs whose products add up to a symmetric matrix, in units of `scale`.
void append_rows(const Matrix& products, const Vector& scale, std::vector<Vector>& rows,
                 std::vector<double>& signs) {
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, products));
  const double greatest = eigen.values.cwiseAbs().maxCoeff();
  for (Index i = 0; i < eigen.values.size(); ++i) {
    const double value = eigen.values[i];
    if (!(std::abs(value) > kNone * greatest)) continue;
    rows.push_back(std::sqrt(std::abs(value)) * scale.cwiseProduct(eigen.vectors.col(i)));
    signs.push_back(value > 0 ? 1.0 : -1.0);
  }
}

}  // namespace

std::shared_ptr<const TwoLevelData> condensed_sizes(TwoLevelData& data) {
  const Index distinct = data.sizes.size();
  if (!data.p || distinct < kWorth * kNodes) return nullptr;
  if (!std::is_sorted(data.sizes.begin(), data.sizes.end())) return nullptr;
  const double least = std::log(data.sizes.minCoeff()), range = std::log(data.sizes.maxCoeff()) - least;
  const Index bins = std::max<Index>(1, static_cast<Index>(std::ceil(range / kLength)));
  if (!std::isfinite(range) || distinct < kWorth * kNodes * bins) return nullptr;
  const double length = std::max(range / static_cast<double>(bins), 1e-6);
  Vector nodes(kNodes), weights(kNodes);
  for (Index k = 0; k < kNodes; ++k) {
    const double angle = (2.0 * static_cast<double>(k) + 1) * kPi / (2.0 * kNodes);
    nodes[k] = std::cos(angle);
    weights[k] = (k % 2 ? -1 : 1) * std::sin(angle);
  }
  auto out = std::make_shared<TwoLevelData>();
  out->p = data.p;
  out->nboth = data.nboth;
  out->q = data.q;
  out->nobs = data.nobs;
  out->nclusters = data.nclusters;
  out->ssw = data.ssw;
  out->origin = data.origin;
  out->z_mean = data.z_mean;
  out->z_scatter = data.z_scatter;
  out->sizes.resize(bins * kNodes);
  out->counts.setZero(bins * kNodes);
  const Index width = data.rows.cols(), packed = width * (width + 1) / 2;
  const auto bin_of = [&](double size) {
    return std::clamp<Index>(static_cast<Index>((std::log(size) - least) / length), 0, bins - 1);
  };
  std::vector<Vector> rows;
  std::vector<double> signs;
  Index size = 0, row = 0;  // sizes and their rows ascend
  for (Index bin = 0; bin < bins; ++bin) {
    const double middle = least + (static_cast<double>(bin) + 0.5) * length;
    Matrix products = Matrix::Zero(packed, kNodes);
    Vector scale = Vector::Zero(width);
    Vector term(packed);
    for (; size < distinct && (bin == bins - 1 || bin_of(data.sizes[size]) == bin); ++size) {
      const Vector share = lagrange((std::log(data.sizes[size]) - middle) / (0.5 * length), nodes, weights);
      out->counts.segment(bin * kNodes, kNodes) += data.counts[size] * share;
      term.setZero();
      for (; row < data.rows.rows() && data.size_index[row] == size; ++row) {
        Index at = 0;
        for (Index b = 0; b < width; ++b) {
          const double x = data.rows(row, b);
          scale[b] += x * x;
          for (Index a = b; a < width; ++a) term[at++] += x * data.rows(row, a);
        }
      }
      for (Index k = 0; k < kNodes; ++k) products.col(k) += share[k] * term;
    }
    for (Index k = 0; k < kNodes; ++k) {
      const Index node = bin * kNodes + k;
      out->sizes[node] = std::exp(middle + 0.5 * length * nodes[k]);
      append_rows(unpack_lower(products.col(k).transpose(), 0, width), scale.cwiseSqrt(), rows, signs);
      out->size_index.resize(rows.size(), node);
    }
  }
  const Index count = static_cast<Index>(rows.size());
  out->rows.resize(count, width);
  out->row_size.resize(count);
  out->row_sign = Eigen::Map<const Vector>(signs.data(), count);
  for (Index r = 0; r < count; ++r) {
    out->rows.row(r) = rows[r];
    out->row_size[r] = out->sizes[out->size_index[r]];
  }
  data.least_eigenvalue = -kNearest / data.sizes.maxCoeff();
  return out;
}

}  // namespace msem
