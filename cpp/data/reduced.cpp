#include "data/reduced.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/lanes.hpp"
#include "base/threads.hpp"
#include "base/triangle.hpp"
#include "data/incomplete.hpp"

namespace msem {

namespace {

constexpr double kConstant = 1e-12;         // of a covariate's largest value: variation that is rounding
constexpr double kDependent = 1e-18;        // share of its squared length that a dependent covariate leaves
constexpr double kDependentSquare = 1e-10;  // the same of products, which have half the digits
constexpr Index kPieces = 64;               // of clusters, at most
constexpr Index kPieceRows = 20000;
constexpr std::ptrdiff_t kRowsAtOnce = 1 << 16;  // of a pass over all rows

// Sums whose order does not hang on where in memory the values are.
double dot(const double* x, const double* y, std::ptrdiff_t n) {
  Lanes sum = Lanes::Zero();
  std::ptrdiff_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum += Eigen::Map<const Lanes>(x + i) * Eigen::Map<const Lanes>(y + i);
  double out = sum.sum();
  for (; i < n; ++i) out += x[i] * y[i];
  return out;
}

double total(const double* x, std::ptrdiff_t n) {
  Lanes sum = Lanes::Zero();
  std::ptrdiff_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum += Eigen::Map<const Lanes>(x + i);
  double out = sum.sum();
  for (; i < n; ++i) out += x[i];
  return out;
}

double largest(const double* x, std::ptrdiff_t n) {
  Lanes most = Lanes::Zero();
  std::ptrdiff_t i = 0;
  for (; i + kLanes <= n; i += kLanes) most = most.max(Eigen::Map<const Lanes>(x + i).abs());
  double out = most.maxCoeff();
  for (; i < n; ++i) out = std::max(out, std::abs(x[i]));
  return out;
}

Vector mean_of(const std::vector<Column>& columns, std::ptrdiff_t nrows) {
  Vector out = Vector::Zero(static_cast<Index>(columns.size()));
  for (std::size_t k = 0; k < columns.size(); ++k) {
    for (const std::ptrdiff_t step : {std::max<std::ptrdiff_t>(1, nrows / 1024), std::ptrdiff_t{1}}) {
      std::ptrdiff_t used = 0;
      double sum = 0;
      for (std::ptrdiff_t i = 0; i < nrows && used < 2048; i += step) {
        if (std::isnan(columns[k][i])) continue;
        sum += columns[k][i];
        ++used;
      }
      if (!used) continue;
      out[static_cast<Index>(k)] = sum / static_cast<double>(used);
      break;
    }
  }
  return out;
}

// Rows of every cluster one after the other, those of a cell together.
struct Order {
  std::vector<std::ptrdiff_t> first, row;  // cells + 1; rows, empty where they are in order already
  std::vector<Index> first_cell, pattern;  // J + 1; of each cell
  std::vector<Pattern> patterns;
  std::ptrdiff_t at(std::ptrdiff_t i) const { return row.empty() ? i : row[i]; }
  std::ptrdiff_t cluster(std::ptrdiff_t j) const { return first[first_cell[j]]; }
  Index ncells() const { return static_cast<Index>(pattern.size()); }
};

// Whether something is true of any of the rows, which `any` is asked of some at a time.
template <class Any>
bool any_rows(std::ptrdiff_t nrows, const Any& any) {
  std::atomic<bool> found{false};
  in_threads((nrows + kRowsAtOnce - 1) / kRowsAtOnce, 0, [&](std::ptrdiff_t piece) {
    const std::ptrdiff_t begin = piece * kRowsAtOnce;
    if (!found && any(begin, std::min(begin + kRowsAtOnce, nrows))) found = true;
  });
  return found;
}

bool has_holes(const Column& column, std::ptrdiff_t nrows) {
  return any_rows(nrows, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    int holes = 0;
    for (std::ptrdiff_t i = begin; i < end; ++i) holes |= std::isnan(column[i]);
    return holes != 0;
  });
}

// Clusters in order are given; the rows of each are put in order of their patterns.
void find_cells(const std::vector<Column>& outcomes, std::ptrdiff_t nrows, Order& out) {
  RowPatterns found = row_patterns(outcomes, nrows);
  const auto none = static_cast<std::int32_t>(found.patterns.size());
  bool any = false;
  for (std::int32_t& pattern : found.of_row) {
    if (pattern >= 0) continue;
    pattern = none;
    any = true;
  }
  out.patterns = std::move(found.patterns);
  if (any) out.patterns.emplace_back();
  if (out.row.empty()) {
    out.row.resize(nrows);
    std::iota(out.row.begin(), out.row.end(), std::ptrdiff_t{0});
  }
  const std::vector<std::ptrdiff_t> clusters = std::move(out.first);
  out.first.clear();
  out.first_cell.assign(1, 0);
  for (std::size_t j = 0; j + 1 < clusters.size(); ++j) {
    const auto begin = out.row.begin() + clusters[j], end = out.row.begin() + clusters[j + 1];
    std::stable_sort(begin, end, [&](auto a, auto b) { return found.of_row[a] < found.of_row[b]; });
    for (std::ptrdiff_t i = clusters[j]; i < clusters[j + 1]; ++i) {
      const std::int32_t own = found.of_row[out.row[i]];
      if (i > clusters[j] && own == out.pattern.back()) continue;
      out.first.push_back(i);
      out.pattern.push_back(own);
    }
    out.first_cell.push_back(out.ncells());
  }
  out.first.push_back(clusters.back());
}

Order order_of_clusters(const ClusteredRows& rows) {
  Order out;
  out.first.assign(rows.nclusters + 1, rows.nrows);
  const auto before = [&](std::ptrdiff_t i) { return i > 0 ? rows.codes[i - 1] : std::int64_t{-1}; };
  const auto check = [&](std::int64_t code) {
    if (code < 0 || code >= rows.nclusters) throw std::invalid_argument("a cluster code is out of range");
  };
  const bool descends = any_rows(rows.nrows, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t i = begin; i < end; ++i) {
      const std::int64_t last = before(i);
      if (rows.codes[i] == last) continue;
      check(rows.codes[i]);
      if (rows.codes[i] < last) return true;
      for (std::int64_t code = last + 1; code <= rows.codes[i]; ++code) out.first[code] = i;
    }
    return false;
  });
  if (!descends) return out;
  std::fill(out.first.begin(), out.first.end(), 0);
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
    check(rows.codes[i]);
    ++out.first[rows.codes[i] + 1];
  }
  std::partial_sum(out.first.begin(), out.first.end(), out.first.begin());
  out.row.resize(rows.nrows);
  std::vector<std::ptrdiff_t> next(out.first.begin(), out.first.end() - 1);
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) out.row[next[rows.codes[i]]++] = i;
  return out;
}

Order order_of(const ClusteredRows& rows, Index outcomes) {
  Order out = order_of_clusters(rows);
  const std::vector<Column> columns(rows.unit.begin(), rows.unit.begin() + outcomes);
  for (const Column& column : columns) {
    if (!has_holes(column, rows.nrows)) continue;
    find_cells(columns, rows.nrows, out);
    return out;
  }
  out.first_cell.resize(rows.nclusters + 1);
  std::iota(out.first_cell.begin(), out.first_cell.end(), Index{0});
  out.pattern.assign(rows.nclusters, 0);
  out.patterns.resize(1);
  out.patterns[0].resize(outcomes);
  std::iota(out.patterns[0].begin(), out.patterns[0].end(), Index{0});
  return out;
}

// The decomposition of one cell by modified Gram-Schmidt, which is as stable for Q'y as reflections are
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
  Index run(std::ptrdiff_t cell) {
    const std::ptrdiff_t begin = order_.first[cell], n = order_.first[cell + 1] - begin;
    const Index width = k_ + m_;
    n_ = n;
    work_.resize(static_cast<std::size_t>(n * width));
    design.assign(static_cast<std::size_t>((1 + k_) * (1 + k_)), 0.0);
    values.assign(static_cast<std::size_t>((1 + k_) * m_), 0.0);
    total_ = static_cast<double>(n);
    const double* weights = nullptr;
    if (rows_.weights) {
      weight_.resize(static_cast<std::size_t>(n));
      total_ = 0;
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        const double w = rows_.weights[order_.at(begin + i)];
        total_ += w;
        weight_[i] = std::sqrt(w);
      }
      weights = weight_.data();
    }
    const double root = std::sqrt(total_);
    size_.assign(k_, 0.0);
    before_.assign(k_, 0.0);
    design[0] = root;
    for (Index c = 0; c < width; ++c) {
      const bool slope = c < k_;
      const Column& x = slope ? slopes_[c] : rows_.unit[c - k_];
      const double origin = slope ? slope_origin_[c] : value_origin_[c - k_];
      double* v = column(c);
      if (std::isnan(x[order_.at(begin)])) {  // and so in the whole cell
        std::fill(v, v + n, 0.0);
        continue;
      }
      read(x, begin, origin, v);
      if (slope) size_[c] = largest(v, n);
      double sum = 0;
      if (weights) {
        for (std::ptrdiff_t i = 0; i < n; ++i) sum += weights[i] * weights[i] * v[i];
      } else {
        sum = total(v, n);
      }
      const double mean = sum / total_;
      for (std::ptrdiff_t i = 0; i < n; ++i) v[i] -= mean;
      for (std::ptrdiff_t i = 0; weights && i < n; ++i) v[i] *= weights[i];
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
      if (!(length > least * least * total_) || !(length > kDependent * before_[c])) continue;
      const double norm = std::sqrt(length);
      for (std::ptrdiff_t i = 0; i < n; ++i) x[i] /= norm;
      design[rho * (1 + k_) + 1 + c] = norm;
      for (Index other = c + 1; other < width; ++other) {
        double* v = column(other);
        const double product = dot(x, v, n);
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

  // Units of the cell: the sum of the weights of its rows.
  double units() const { return total_; }

  // Products of what is left, lower triangle by column, added to `out` so often.
  void add_products(double weight, double* out) const {
    for (Index a = 0; a < m_; ++a) {
      for (Index b = a; b < m_; ++b, ++out) *out += weight * dot(column(k_ + a), column(k_ + b), n_);
    }
  }

  std::vector<double> design, values;

 private:
  double* column(Index c) { return work_.data() + c * n_; }
  const double* column(Index c) const { return work_.data() + c * n_; }
  double squares(const double* x) const { return dot(x, x, n_); }
  void read(const Column& x, std::ptrdiff_t begin, double origin, double* v) const {
    if (order_.row.empty() && x.stride == 1) {
      const double* values = x.data + begin;
      for (std::ptrdiff_t i = 0; i < n_; ++i) v[i] = values[i] - origin;
    } else {
      for (std::ptrdiff_t i = 0; i < n_; ++i) v[i] = x[order_.at(begin + i)] - origin;
    }
  }

  const ClusteredRows& rows_;
  const std::vector<Column>& slopes_;
  const Order& order_;
  const Vector& value_origin_;
  const Vector& slope_origin_;
  const Index k_, m_;
  std::ptrdiff_t n_ = 0;
  double total_ = 0;
  std::vector<double> work_, size_, before_, weight_;  // weight_: roots of those of the rows
};

// Work on clusters first, ..., last - 1 of each piece; the pieces depend on the data alone.
struct Pieces {
  std::vector<std::ptrdiff_t> bound;
  explicit Pieces(const Order& order) {
    const auto clusters = static_cast<std::ptrdiff_t>(order.first_cell.size()) - 1;
    const std::ptrdiff_t rows = order.first.back();
    const std::ptrdiff_t least = std::max<std::ptrdiff_t>(kPieceRows, rows / kPieces);
    bound.push_back(0);
    std::ptrdiff_t start = 0;
    for (std::ptrdiff_t j = 0; j < clusters; ++j) {
      if (order.cluster(j + 1) - start >= least || j + 1 == clusters) {
        bound.push_back(j + 1);
        start = order.cluster(j + 1);
      }
    }
  }
  std::ptrdiff_t count() const { return static_cast<std::ptrdiff_t>(bound.size()) - 1; }
};

// Products of single cells, each as often as its cluster counts, summed by pattern.
std::vector<Matrix> pool(const Matrix& products, const ReducedData& data) {
  Matrix sums = Matrix::Zero(static_cast<Index>(data.patterns.size()), products.cols());
  for (Index j = 0; j < data.nclusters(); ++j) {
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c)
      sums.row(data.cell_pattern[c]) += data.weight[j] * products.row(c);
  }
  std::vector<Matrix> out;
  for (Index r = 0; r < sums.rows(); ++r) out.push_back(unpack_lower(sums, r, data.nvalues()));
  return out;
}

void set_rows(ReducedData& data) {
  data.first.resize(data.nclusters() + 1);
  data.row_pattern.resize(data.cell_first.back());
  for (Index j = 0; j <= data.nclusters(); ++j) data.first[j] = data.cell_first[data.first_cell[j]];
  for (Index c = 0; c < data.ncells(); ++c) {
    for (Index r = data.cell_first[c]; r < data.cell_first[c + 1]; ++r)
      data.row_pattern[r] = data.cell_pattern[c];
  }
}

}  // namespace

ReducedData reduced_data(const ClusteredRows& rows, const std::vector<Column>& slopes, Index nboth,
                         Index fixed, std::vector<Index> covariate, const Vector& weights) {
  const Order order = order_of(rows, static_cast<Index>(rows.unit.size()) - fixed);
  const Pieces pieces(order);
  ReducedData out;
  out.patterns = order.patterns;
  out.first_cell = order.first_cell;
  out.cell_pattern = order.pattern;
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
  if (weights.size() && weights.size() != clusters)
    throw std::invalid_argument("every cluster needs a weight");
  out.weight = weights.size() ? weights : Vector::Ones(clusters);
  out.cell_sizes.resize(out.ncells());
  out.cluster_values.resize(q, clusters);
  struct Part {
    std::vector<double> design, values;
    Matrix products;  // a column for each pattern
    std::vector<Index> rows;
  };
  const auto npatterns = static_cast<Index>(out.patterns.size());
  std::vector<Part> parts(pieces.count());
  in_threads(pieces.count(), 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    Part& part = parts[piece];
    part.products.setZero(m * (m + 1) / 2, npatterns);
    Reduction reduction(rows, slopes, order, value_origin, slope_origin);
    const auto most =
        (1 + k) * (order.first_cell[pieces.bound[piece + 1]] - order.first_cell[pieces.bound[piece]]);
    part.design.reserve(most * (1 + k));
    part.values.reserve(most * m);
    part.rows.reserve(most / (1 + k));
    for (std::ptrdiff_t j = pieces.bound[piece]; j < pieces.bound[piece + 1]; ++j) {
      if (order.cluster(j) == order.cluster(j + 1)) throw std::invalid_argument("a cluster has no rows");
      double units = 0;
      for (Index c = order.first_cell[j]; c < order.first_cell[j + 1]; ++c) {
        const Index rho = reduction.run(c);
        reduction.add_products(out.weight[j], part.products.col(order.pattern[c]).data());
        part.design.insert(part.design.end(), reduction.design.begin(),
                           reduction.design.begin() + rho * (1 + k));
        part.values.insert(part.values.end(), reduction.values.begin(), reduction.values.begin() + rho * m);
        part.rows.push_back(rho);
        out.cell_sizes[c] = reduction.units();
        units += reduction.units();
      }
      out.sizes[j] = units;
      const std::ptrdiff_t row = order.at(order.cluster(j));
      for (Index c = 0; c < q; ++c) out.cluster_values(c, j) = rows.cluster[c][row] - cluster_origin[c];
    }
  });
  out.cell_first.assign(1, 0);
  Matrix products = Matrix::Zero(m * (m + 1) / 2, npatterns);
  for (const Part& part : parts) {
    for (const Index rho : part.rows) out.cell_first.push_back(out.cell_first.back() + rho);
    products += part.products;
  }
  set_rows(out);
  out.design.resize(1 + k, out.first.back());
  out.values.resize(m, out.first.back());
  in_threads(pieces.count(), 0, [&](std::ptrdiff_t piece) {
    const Part& part = parts[piece];
    const Index at = out.first[pieces.bound[piece]];
    std::copy(part.design.begin(), part.design.end(), out.design.data() + at * (1 + k));
    std::copy(part.values.begin(), part.values.end(), out.values.data() + at * m);
  });
  const Matrix packed = products.transpose();
  for (Index r = 0; r < npatterns; ++r) out.remainder.push_back(unpack_lower(packed, r, m));
  return out;
}

Matrix reduced_products(const ClusteredRows& rows, const std::vector<Column>& slopes,
                        const ReducedData& data) {
  const Order order = order_of(rows, data.outcomes);
  if (order.first_cell != data.first_cell || order.pattern != data.cell_pattern)
    throw std::invalid_argument("rows are not those of the data");
  const Pieces pieces(order);
  const Index m = data.nvalues(), elements = m * (m + 1) / 2;
  const Vector value_origin = data.origin.head(m), slope_origin = mean_of(slopes, rows.nrows);
  Matrix out = Matrix::Zero(elements, data.ncells());
  in_threads(pieces.count(), 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    Reduction reduction(rows, slopes, order, value_origin, slope_origin);
    const Index end = order.first_cell[pieces.bound[piece + 1]];
    for (Index c = order.first_cell[pieces.bound[piece]]; c < end; ++c) {
      reduction.run(c);
      reduction.add_products(1, out.data() + c * elements);
    }
  });
  return out.transpose();
}

ReducedClusters reduced_clusters(const ClusterArrays& clusters, const std::vector<Index>& slopes, Index nboth,
                                 Index fixed, std::vector<Index> covariate, const Vector& weights) {
  const Index J = clusters.sizes.size(), k = static_cast<Index>(slopes.size());
  Index m = 0;
  while (m * (m + 1) / 2 < clusters.within.cols()) ++m;
  const Index q = clusters.means.cols() - m;
  if (m * (m + 1) / 2 != clusters.within.cols() || q < 0 || clusters.means.rows() != J ||
      clusters.within.rows() != J)
    throw std::invalid_argument("the statistics of single clusters do not fit together");
  if (weights.size() && weights.size() != J) throw std::invalid_argument("every cluster needs a weight");
  ReducedClusters out;
  ReducedData& data = out.data;
  data.outcomes = m - fixed;
  data.nboth = nboth;
  data.fixed = fixed;
  data.q = q;
  data.covariate = std::move(covariate);
  data.origin = apply_transposed(clusters.means, clusters.sizes) / clusters.sizes.sum();
  data.origin.tail(q) = clusters.means.rightCols(q).colwise().mean();
  data.sizes = data.cell_sizes = clusters.sizes;
  data.weight = weights.size() ? weights : Vector::Ones(J);
  data.patterns.resize(1);
  data.patterns[0].resize(data.outcomes);
  std::iota(data.patterns[0].begin(), data.patterns[0].end(), Index{0});
  data.cell_pattern.assign(J, 0);
  data.first_cell.resize(J + 1);
  std::iota(data.first_cell.begin(), data.first_cell.end(), Index{0});
  data.cell_first.assign(1, 0);
  data.cluster_values = (clusters.means.rightCols(q).rowwise() - data.origin.tail(q).transpose()).transpose();
  data.design.setZero(1 + k, J * (1 + k));
  data.values.setZero(m, J * (1 + k));
  out.products.resize(J, clusters.within.cols());
  Index rows = 0;
  for (Index j = 0; j < J; ++j) {
    if (j % 1024 == 0) check_interrupt();
    const double n = clusters.sizes[j], root = std::sqrt(n);
    const Vector mean = clusters.means.row(j).head(m).transpose();
    Matrix left = unpack_lower(clusters.within, j, m);
    const Vector before = left.diagonal();
    data.design(0, rows) = root;
    for (Index c = 0; c < k; ++c) data.design(1 + c, rows) = root * mean[slopes[c]];
    data.values.col(rows++) = root * (mean - data.origin.head(m));
    for (Index c = 0; c < k; ++c) {
      const Index at = slopes[c];
      const double length = left(at, at), least = kConstant * mean[at];
      if (!(length > least * least * n) || !(length > kDependentSquare * before[at])) continue;
      const Vector row = left.col(at) / std::sqrt(length);
      for (Index other = c; other < k; ++other) data.design(1 + other, rows) = row[slopes[other]];
      data.values.col(rows++) = row;
      add_outer(left, -1, row, row);
      left.row(at).setZero();
      left.col(at).setZero();
    }
    data.cell_first.push_back(rows);
    Index element = 0;
    for (Index a = 0; a < m; ++a) {
      for (Index b = a; b < m; ++b) out.products(j, element++) = left(b, a);
    }
  }
  data.design.conservativeResize(Eigen::NoChange, rows);
  data.values.conservativeResize(Eigen::NoChange, rows);
  set_rows(data);
  data.remainder = pool(out.products, data);
  return out;
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
  for (Matrix& products : out.remainder) products = select(products, values, values);
  for (Pattern& pattern : out.patterns) {
    Pattern kept;
    for (Index i = 0; i < out.outcomes; ++i) {
      if (std::binary_search(pattern.begin(), pattern.end(), outcomes[i])) kept.push_back(i);
    }
    pattern = std::move(kept);
  }
  std::vector<Index> every = values;
  for (const Index c : cluster) every.push_back(data.nvalues() + c);
  out.origin = select(data.origin, every);
  return out;
}

ReducedData weighted(const ReducedData& data, const Matrix& products, const Vector& weights) {
  if (weights.size() != data.nclusters()) throw std::invalid_argument("every cluster needs a weight");
  ReducedData out = data;
  out.weight = weights;
  out.remainder = pool(products, out);
  return out;
}

void require_products(const Matrix& products, const ReducedData& data) {
  const Index m = data.nvalues();
  if (products.rows() != data.ncells() || products.cols() != m * (m + 1) / 2)
    throw std::invalid_argument("the products are not those of these clusters");
}

ReducedData resampled(const ReducedData& data, const Matrix& products, const Vector& weights) {
  ReducedData out = weighted(data, products, weights);
  std::vector<Index> clusters, rows;
  std::vector<Index> first_cell = {0}, pattern, cell_first = {0};
  std::vector<double> sizes;
  for (Index j = 0; j < data.nclusters(); ++j) {
    if (weights[j] == 0) continue;
    clusters.push_back(j);
    for (Index r = data.first[j]; r < data.first[j + 1]; ++r) rows.push_back(r);
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      pattern.push_back(data.cell_pattern[c]);
      sizes.push_back(data.cell_sizes[c]);
      cell_first.push_back(cell_first.back() + data.cell_first[c + 1] - data.cell_first[c]);
    }
    first_cell.push_back(static_cast<Index>(pattern.size()));
  }
  out.design = select_cols(data.design, rows);
  out.values = select_cols(data.values, rows);
  out.cluster_values = select_cols(data.cluster_values, clusters);
  out.sizes = select(data.sizes, clusters);
  out.weight = select(weights, clusters);
  out.first_cell = std::move(first_cell);
  out.cell_pattern = std::move(pattern);
  out.cell_first = std::move(cell_first);
  out.cell_sizes = Eigen::Map<const Vector>(sizes.data(), static_cast<Index>(sizes.size()));
  set_rows(out);
  return out;
}

ReducedData single_cluster(const ReducedData& data, const Matrix& products, Index cluster) {
  ReducedData out = data;
  const Index begin = data.first[cluster], count = data.first[cluster + 1] - begin;
  const Index cell = data.first_cell[cluster], cells = data.first_cell[cluster + 1] - cell;
  out.first_cell = {0, cells};
  out.cell_pattern.assign(data.cell_pattern.begin() + cell, data.cell_pattern.begin() + cell + cells);
  out.cell_sizes = data.cell_sizes.segment(cell, cells);
  out.cell_first.clear();
  for (Index c = cell; c <= cell + cells; ++c) out.cell_first.push_back(data.cell_first[c] - begin);
  out.design = data.design.middleCols(begin, count);
  out.values = data.values.middleCols(begin, count);
  out.cluster_values = data.cluster_values.col(cluster);
  out.sizes = data.sizes.segment(cluster, 1);
  out.weight.setOnes(1);
  set_rows(out);
  out.remainder = pool(products.middleRows(cell, cells), out);
  return out;
}

}  // namespace msem
