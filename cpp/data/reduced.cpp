#include "data/reduced.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"

namespace msem {

namespace {

constexpr double kConstant = 1e-12;   // of a covariate's largest value: variation that is rounding
constexpr double kDependent = 1e-18;  // share of its squared length that a dependent covariate leaves
constexpr Index kPieces = 64;         // of clusters, at most
constexpr Index kPieceRows = 20000;

Vector mean_of(const std::vector<Column>& columns, std::ptrdiff_t nrows) {
  Vector out = Vector::Zero(static_cast<Index>(columns.size()));
  const std::ptrdiff_t step = std::max<std::ptrdiff_t>(1, nrows / 1024);
  for (std::size_t k = 0; k < columns.size(); ++k) {
    std::ptrdiff_t used = 0;
    for (std::ptrdiff_t i = 0; i < nrows; i += step, ++used) out[static_cast<Index>(k)] += columns[k][i];
    if (used) out[static_cast<Index>(k)] /= static_cast<double>(used);
  }
  return out;
}

// Rows of every cluster one after the other.
struct Order {
  std::vector<std::ptrdiff_t> first, row;  // J + 1; rows, empty where they are in order already
  std::ptrdiff_t at(std::ptrdiff_t i) const { return row.empty() ? i : row[i]; }
};

Order order_of(const ClusteredRows& rows) {
  Order out{std::vector<std::ptrdiff_t>(rows.nclusters + 1, 0), {}};
  bool sorted = true;
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const std::int64_t code = rows.codes[i];
    if (code < 0 || code >= rows.nclusters) throw std::invalid_argument("a cluster code is out of range");
    sorted = sorted && (i == 0 || rows.codes[i - 1] <= code);
    ++out.first[code + 1];
  }
  std::partial_sum(out.first.begin(), out.first.end(), out.first.begin());
  if (sorted) return out;
  out.row.resize(rows.nrows);
  std::vector<std::ptrdiff_t> next(out.first.begin(), out.first.end() - 1);
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) out.row[next[rows.codes[i]]++] = i;
  return out;
}

// The decomposition of one cluster by modified Gram-Schmidt, which is as stable for Q'y as reflections are
// when y is carried along (Bjorck, 1967). The first column, ones, is the mean.
class Reduction {
 public:
  Reduction(const ClusteredRows& rows, const std::vector<Column>& slopes, const Order& order,
            const Vector& value_origin, const Vector& slope_origin)
      : rows_(rows),
        slopes_(slopes),
        order_(order),
        value_origin_(value_origin),
        slope_origin_(slope_origin),
        k_(static_cast<Index>(slopes.size())),
        m_(static_cast<Index>(rows.unit.size())) {}

  // How many rows there are; afterwards `design` and `values` hold them one after the other.
  Index run(std::ptrdiff_t cluster) {
    const std::ptrdiff_t begin = order_.first[cluster], n = order_.first[cluster + 1] - begin;
    const Index width = k_ + m_;
    n_ = n;
    work_.resize(static_cast<std::size_t>(n * width));
    design.assign(static_cast<std::size_t>((1 + k_) * (1 + k_)), 0.0);
    values.assign(static_cast<std::size_t>((1 + k_) * m_), 0.0);
    const double root = std::sqrt(static_cast<double>(n));
    size_.assign(k_, 0.0);
    before_.assign(k_, 0.0);
    design[0] = root;
    for (Index c = 0; c < width; ++c) {
      const bool slope = c < k_;
      const Column& x = slope ? slopes_[c] : rows_.unit[c - k_];
      const double origin = slope ? slope_origin_[c] : value_origin_[c - k_];
      double* v = column(c);
      double sum = 0;
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        v[i] = x[order_.at(begin + i)] - origin;
        sum += v[i];
        if (slope) size_[c] = std::max(size_[c], std::abs(v[i]));
      }
      const double mean = sum / static_cast<double>(n);
      for (std::ptrdiff_t i = 0; i < n; ++i) v[i] -= mean;
      if (slope) {
        design[1 + c] = root * (mean + origin);
        before_[c] = squares(v);
      } else {
        values[c - k_] = root * mean;
      }
    }
    Index rho = 1;
    for (Index c = 0; c < k_ && rho <= k_; ++c) {
      double* x = column(c);
      const double length = squares(x), least = kConstant * size_[c];
      if (!(length > least * least * static_cast<double>(n)) || !(length > kDependent * before_[c])) continue;
      const double norm = std::sqrt(length);
      for (std::ptrdiff_t i = 0; i < n; ++i) x[i] /= norm;
      design[rho * (1 + k_) + 1 + c] = norm;
      for (Index other = c + 1; other < width; ++other) {
        double* v = column(other);
        double product = 0;
        for (std::ptrdiff_t i = 0; i < n; ++i) product += x[i] * v[i];
        for (std::ptrdiff_t i = 0; i < n; ++i) v[i] -= product * x[i];
        if (other < k_)
          design[rho * (1 + k_) + 1 + other] = product;
        else
          values[rho * m_ + other - k_] = product;
      }
      ++rho;
    }
    return rho;
  }

  // Products of what is left, lower triangle by column, added to `out`.
  void add_products(double* out) const {
    for (Index a = 0; a < m_; ++a) {
      const double* x = column(k_ + a);
      for (Index b = a; b < m_; ++b, ++out) {
        const double* y = column(k_ + b);
        double sum = 0;
        for (std::ptrdiff_t i = 0; i < n_; ++i) sum += x[i] * y[i];
        *out += sum;
      }
    }
  }

  std::vector<double> design, values;

 private:
  double* column(Index c) { return work_.data() + c * n_; }
  const double* column(Index c) const { return work_.data() + c * n_; }
  double squares(const double* x) const {
    double sum = 0;
    for (std::ptrdiff_t i = 0; i < n_; ++i) sum += x[i] * x[i];
    return sum;
  }

  const ClusteredRows& rows_;
  const std::vector<Column>& slopes_;
  const Order& order_;
  const Vector& value_origin_;
  const Vector& slope_origin_;
  const Index k_, m_;
  std::ptrdiff_t n_ = 0;
  std::vector<double> work_, size_, before_;
};

// Work on clusters first, ..., last - 1 of each piece; the pieces depend on the data alone.
struct Pieces {
  std::vector<std::ptrdiff_t> bound;
  explicit Pieces(const Order& order) {
    const auto clusters = static_cast<std::ptrdiff_t>(order.first.size()) - 1;
    const std::ptrdiff_t rows = order.first.back();
    const std::ptrdiff_t least = std::max<std::ptrdiff_t>(kPieceRows, rows / kPieces);
    bound.push_back(0);
    std::ptrdiff_t start = 0;
    for (std::ptrdiff_t j = 0; j < clusters; ++j) {
      if (order.first[j + 1] - start >= least || j + 1 == clusters) {
        bound.push_back(j + 1);
        start = order.first[j + 1];
      }
    }
  }
  std::ptrdiff_t count() const { return static_cast<std::ptrdiff_t>(bound.size()) - 1; }
};

Matrix pool(const Matrix& products, const Vector& weights, Index m) {
  const Vector sums = apply_transposed(products, weights);
  Matrix packed(1, sums.size());
  packed.row(0) = sums.transpose();
  return unpack_lower(packed, 0, m);
}

}  // namespace

ReducedData reduced_data(const ClusteredRows& rows, const std::vector<Column>& slopes, Index nboth,
                         Index fixed, std::vector<Index> covariate) {
  const Order order = order_of(rows);
  const Pieces pieces(order);
  ReducedData out;
  const auto m = static_cast<Index>(rows.unit.size()), k = static_cast<Index>(slopes.size());
  const auto q = static_cast<Index>(rows.cluster.size()), clusters = static_cast<Index>(rows.nclusters);
  out.outcomes = m - fixed;
  out.nboth = nboth;
  out.fixed = fixed;
  out.q = q;
  out.covariate = std::move(covariate);
  const Vector value_origin = mean_of(rows.unit, rows.nrows), slope_origin = mean_of(slopes, rows.nrows);
  const Vector cluster_origin = mean_of(rows.cluster, rows.nrows);
  out.origin.resize(m + q);
  out.origin << value_origin, cluster_origin;
  out.sizes.resize(clusters);
  out.weight.setOnes(clusters);
  out.cluster_values.resize(q, clusters);
  struct Part {
    std::vector<double> design, values, products;
    std::vector<Index> rows;
  };
  std::vector<Part> parts(pieces.count());
  in_threads(pieces.count(), 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    Part& part = parts[piece];
    part.products.assign(static_cast<std::size_t>(m * (m + 1) / 2), 0.0);
    Reduction reduction(rows, slopes, order, value_origin, slope_origin);
    for (std::ptrdiff_t j = pieces.bound[piece]; j < pieces.bound[piece + 1]; ++j) {
      if (order.first[j] == order.first[j + 1]) throw std::invalid_argument("a cluster has no rows");
      const Index rho = reduction.run(j);
      reduction.add_products(part.products.data());
      part.design.insert(part.design.end(), reduction.design.begin(),
                         reduction.design.begin() + rho * (1 + k));
      part.values.insert(part.values.end(), reduction.values.begin(), reduction.values.begin() + rho * m);
      part.rows.push_back(rho);
      out.sizes[j] = static_cast<double>(order.first[j + 1] - order.first[j]);
      const std::ptrdiff_t row = order.at(order.first[j]);
      for (Index c = 0; c < q; ++c) out.cluster_values(c, j) = rows.cluster[c][row] - cluster_origin[c];
    }
  });
  out.first.assign(1, 0);
  Vector products = Vector::Zero(m * (m + 1) / 2);
  for (const Part& part : parts) {
    for (const Index rho : part.rows) out.first.push_back(out.first.back() + rho);
    products += Eigen::Map<const Vector>(part.products.data(), products.size());
  }
  out.design.resize(1 + k, out.first.back());
  out.values.resize(m, out.first.back());
  Index at = 0;
  for (const Part& part : parts) {
    const Index count = static_cast<Index>(part.design.size()) / (1 + k);
    std::copy(part.design.begin(), part.design.end(), out.design.data() + at * (1 + k));
    std::copy(part.values.begin(), part.values.end(), out.values.data() + at * m);
    at += count;
  }
  Matrix packed(1, products.size());
  packed.row(0) = products.transpose();
  out.remainder = unpack_lower(packed, 0, m);
  return out;
}

Matrix reduced_products(const ClusteredRows& rows, const std::vector<Column>& slopes,
                        const ReducedData& data) {
  const Order order = order_of(rows);
  const Pieces pieces(order);
  const Index m = data.nvalues(), elements = m * (m + 1) / 2;
  const Vector value_origin = data.origin.head(m), slope_origin = mean_of(slopes, rows.nrows);
  Matrix out = Matrix::Zero(elements, data.nclusters());
  in_threads(pieces.count(), 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    Reduction reduction(rows, slopes, order, value_origin, slope_origin);
    for (std::ptrdiff_t j = pieces.bound[piece]; j < pieces.bound[piece + 1]; ++j) {
      reduction.run(j);
      reduction.add_products(out.data() + j * elements);
    }
  });
  return out.transpose();
}

ReducedData with_slopes(const ReducedData& data, std::vector<Index> covariate) {
  ReducedData out = data;
  out.covariate = std::move(covariate);
  return out;
}

ReducedData restrict_reduced(const ReducedData& data, const std::vector<Index>& outcomes, Index nboth,
                             const std::vector<Index>& fixed, const std::vector<Index>& cluster) {
  ReducedData out = data;
  std::vector<Index> values = outcomes;
  values.insert(values.end(), fixed.begin(), fixed.end());
  out.outcomes = static_cast<Index>(outcomes.size());
  out.nboth = nboth;
  out.fixed = static_cast<Index>(fixed.size());
  out.q = static_cast<Index>(cluster.size());
  out.values = select_rows(data.values, values);
  out.cluster_values = select_rows(data.cluster_values, cluster);
  out.remainder = select(data.remainder, values, values);
  std::vector<Index> every = values;
  for (const Index c : cluster) every.push_back(data.nvalues() + c);
  out.origin = select(data.origin, every);
  return out;
}

ReducedData weighted(const ReducedData& data, const Matrix& products, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every cluster needs a weight");
  ReducedData out = data;
  out.weight = weights;
  out.remainder = pool(products, weights, data.nvalues());
  return out;
}

void require_products(const Matrix& products, const ReducedData& data) {
  const Index m = data.nvalues();
  if (products.rows() != data.nclusters() || products.cols() != m * (m + 1) / 2)
    throw std::invalid_argument("the products are not those of these clusters");
}

ReducedData single_cluster(const ReducedData& data, const Matrix& products, Index cluster) {
  ReducedData out = data;
  const Index begin = data.first[cluster], count = data.first[cluster + 1] - begin;
  out.first = {0, count};
  out.design = data.design.middleCols(begin, count);
  out.values = data.values.middleCols(begin, count);
  out.cluster_values = data.cluster_values.col(cluster);
  out.sizes = data.sizes.segment(cluster, 1);
  out.weight.setOnes(1);
  out.remainder = pool(products.row(cluster), out.weight, data.nvalues());
  return out;
}

ClusterCoefficients cluster_coefficients(const ReducedData& data) {
  const Index c = data.design.rows(), m = data.nvalues(), q = data.q, n = c * m + q;
  ClusterCoefficients out;
  const double df = data.nobs() - static_cast<double>(data.nrows());
  out.residual = data.remainder / std::max(df, 1.0);
  Vector sum = Vector::Zero(n);
  Matrix products = Matrix::Zero(n, n), error = Matrix::Zero(c, c);
  Vector one(n), origin = Vector::Zero(n);
  bool begun = false;
  for (Index j = 0; j < data.nclusters(); ++j) {
    const Index begin = data.first[j], rho = data.first[j + 1] - begin;
    const double w = data.weight[j];
    if (rho < c || w == 0) continue;
    const Matrix r = data.design.middleCols(begin, rho).transpose();  // upper triangle
    const Matrix back = inverse(r);
    if (!back.allFinite()) continue;
    const Matrix beta = outer(back, data.values.middleCols(begin, rho));  // c x m
    one.head(c * m) = Eigen::Map<const Vector>(beta.data(), c * m);
    one.tail(q) = data.cluster_values.col(j);
    if (!begun) origin = one;
    begun = true;
    one -= origin;
    out.clusters += w;
    sum += w * one;
    add_outer(products, w, one, one);
    add_outer(error, w, back, back);
  }
  if (!(out.clusters > 0)) return out;
  const Vector mean = sum / out.clusters;
  out.cov = products / out.clusters;
  add_outer(out.cov, -1, mean, mean);
  error /= out.clusters;
  for (Index a = 0; a < m; ++a) {
    for (Index b = 0; b < m; ++b) out.cov.block(a * c, b * c, c, c) -= out.residual(a, b) * error;
  }
  symmetrise(out.cov);
  out.mean = mean + origin;
  for (Index a = 0; a < m; ++a) out.mean[a * c] += data.origin[a];
  out.mean.tail(q) += data.origin.tail(q);
  return out;
}

}  // namespace msem
