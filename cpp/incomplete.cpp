#include "incomplete.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <unordered_map>

namespace msem {
namespace {

using std::ptrdiff_t;

constexpr std::size_t kBits = 64;  // variables in a word of a key

// Which variables a row has, one bit for each.
using Key = std::vector<std::uint64_t>;

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t h = 1469598103934665603ULL;
    for (const std::uint64_t word : key) {
      h ^= word + (h >> 29);
      h *= 0x9E3779B97F4A7C15ULL;
    }
    return static_cast<std::size_t>(h ^ (h >> 32));
  }
};

Pattern pattern_of(const Key& key, Index count) {
  Pattern out;
  for (Index k = 0; k < count; ++k) {
    if (key[k / kBits] >> (k % kBits) & 1) out.push_back(k);
  }
  return out;
}

// Those with most variables first, then by position.
bool before(const Pattern& a, const Pattern& b) { return a.size() != b.size() ? a.size() > b.size() : a < b; }

// Patterns in order, and the number of each of `found`.
std::vector<Pattern> ordered(const std::vector<Pattern>& found, std::vector<Index>& rank) {
  std::vector<Index> order(found.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::sort(order.begin(), order.end(), [&](Index a, Index b) { return before(found[a], found[b]); });
  std::vector<Pattern> out;
  rank.resize(found.size());
  for (const Index k : order) {
    rank[k] = static_cast<Index>(out.size());
    out.push_back(found[k]);
  }
  return out;
}

// Numbers patterns as they are found.
class PatternNumbers {
 public:
  explicit PatternNumbers(Index count) : count_(count), key_(count / kBits + 1, 0) {}
  Key& key() {
    std::fill(key_.begin(), key_.end(), 0);
    return key_;
  }
  static void mark(Key& key, Index k) { key[k / kBits] |= std::uint64_t{1} << (k % kBits); }
  Index number() {
    if (!last_.empty() && last_ == key_) return last_number_;
    const auto [at, fresh] = numbers_.try_emplace(key_, static_cast<Index>(found_.size()));
    if (fresh) found_.push_back(pattern_of(key_, count_));
    last_ = key_;
    last_number_ = at->second;
    return last_number_;
  }
  const std::vector<Pattern>& found() const { return found_; }

 private:
  Index count_;
  Key key_, last_;
  Index last_number_ = 0;
  std::unordered_map<Key, Index, KeyHash> numbers_;
  std::vector<Pattern> found_;
};

// A point inside the data: the mean of about a thousand observed values spread over all rows.
Vector observed_origin(const std::vector<Column>& columns, ptrdiff_t nrows) {
  const ptrdiff_t step = std::max<ptrdiff_t>(1, nrows / 1024);
  Vector origin(static_cast<Index>(columns.size()));
  for (std::size_t k = 0; k < columns.size(); ++k) {
    double sum = 0;
    ptrdiff_t used = 0;
    for (const ptrdiff_t stride : {step, ptrdiff_t{1}}) {
      for (ptrdiff_t i = 0; i < nrows && used < 1024; i += stride) {
        const double x = columns[k][i];
        if (!std::isnan(x)) {
          sum += x;
          ++used;
        }
      }
      if (used) break;
    }
    origin[static_cast<Index>(k)] = used ? sum / static_cast<double>(used) : 0.0;
  }
  return origin;
}

void require_codes(const ClusteredRows& rows) {
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (rows.codes[i] < 0 || rows.codes[i] >= rows.nclusters)
      throw std::invalid_argument("cluster code out of range");
  }
}

// Pattern of every row among `patterns`, -1 where nothing is observed.
std::vector<std::int32_t> row_patterns(const ClusteredRows& rows, std::vector<Pattern>& patterns) {
  const Index p = static_cast<Index>(rows.unit.size());
  PatternNumbers numbers(p);
  std::vector<std::int32_t> out(rows.nrows);
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    Key& key = numbers.key();
    for (Index k = 0; k < p; ++k) {
      if (!std::isnan(rows.unit[k][i])) PatternNumbers::mark(key, k);
    }
    out[i] = static_cast<std::int32_t>(numbers.number());
  }
  std::vector<Index> rank;
  patterns = ordered(numbers.found(), rank);
  const bool empty = !patterns.empty() && patterns.back().empty();
  const std::int32_t none = static_cast<std::int32_t>(patterns.size()) - 1;
  for (std::int32_t& r : out) {
    r = static_cast<std::int32_t>(rank[r]);
    if (empty && r == none) r = -1;
  }
  if (empty) patterns.pop_back();
  return out;
}

// Cell of every row, -1 where nothing is observed, and the cells themselves.
std::vector<std::int32_t> number_cells(const ClusteredRows& rows, const std::vector<std::int32_t>& pattern,
                                       IncompleteData& out) {
  // rows by cluster: a counting sort of the (cluster, pattern) pairs that occur
  std::vector<std::vector<Index>> seen(rows.nclusters);
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (pattern[i] < 0) continue;
    std::vector<Index>& own = seen[rows.codes[i]];
    if (std::find(own.begin(), own.end(), pattern[i]) == own.end()) own.push_back(pattern[i]);
  }
  out.first_cell.assign(1, 0);
  for (std::vector<Index>& own : seen) {
    std::sort(own.begin(), own.end());
    out.cell_pattern.insert(out.cell_pattern.end(), own.begin(), own.end());
    out.first_cell.push_back(static_cast<Index>(out.cell_pattern.size()));
    std::vector<Index>().swap(own);
  }
  std::vector<std::int32_t> cell(rows.nrows, -1);
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (pattern[i] < 0) continue;
    const auto first = out.cell_pattern.begin() + out.first_cell[rows.codes[i]];
    const auto last = out.cell_pattern.begin() + out.first_cell[rows.codes[i] + 1];
    cell[i] = static_cast<std::int32_t>(std::lower_bound(first, last, Index{pattern[i]}) -
                                        out.cell_pattern.begin());
  }
  return cell;
}

// Calls visit(row, cell, observed values less the mean of the cell) for rows in cells of more than one unit.
template <class Visit>
void for_each_deviation(const ClusteredRows& rows, const std::vector<std::int32_t>& cell,
                        const IncompleteData& d, Visit visit) {
  Vector off(d.p);
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const Index c = cell[i];
    if (c < 0 || d.cell_rows[c] < 2) continue;
    const Pattern& seen = d.unit_patterns[d.cell_pattern[c]];
    const double* mean = d.cell_means.data() + c * d.p;
    for (std::size_t a = 0; a < seen.size(); ++a)
      off[static_cast<Index>(a)] = (rows.unit[seen[a]][i] - d.origin[seen[a]]) - mean[seen[a]];
    visit(c, seen, off.data());
  }
}

void add_cluster_variables(const ClusteredRows& rows, const Matrix& values, IncompleteData& out) {
  PatternNumbers numbers(out.q);
  std::vector<Index> found(rows.nclusters), rank;
  out.cluster_values.setZero(out.q, rows.nclusters);
  for (ptrdiff_t j = 0; j < rows.nclusters; ++j) {
    Key& key = numbers.key();
    for (Index k = 0; k < out.q; ++k) {
      if (std::isnan(values(j, k))) continue;
      PatternNumbers::mark(key, k);
      out.cluster_values(k, j) = values(j, k) - out.origin[out.p + k];
    }
    found[j] = numbers.number();
  }
  out.cluster_patterns = ordered(numbers.found(), rank);
  for (const Index r : found) out.cluster_pattern.push_back(rank[r]);
}

}  // namespace

ClusterValues cluster_values(const ClusteredRows& rows) {
  require_codes(rows);
  const Index q = static_cast<Index>(rows.cluster.size());
  ClusterValues out{RowMatrix::Constant(rows.nclusters, q, std::numeric_limits<double>::quiet_NaN()),
                    std::vector<Varying>(rows.cluster.size())};
  std::vector<char> varies(rows.nclusters);
  for (Index k = 0; k < q; ++k) {
    std::fill(varies.begin(), varies.end(), 0);
    for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
      const double x = rows.cluster[k][i];
      if (std::isnan(x)) continue;
      double& known = out.values(rows.codes[i], k);
      if (std::isnan(known)) {
        known = x;
      } else if (known != x) {
        varies[rows.codes[i]] = 1;
      }
    }
    for (ptrdiff_t j = 0; j < rows.nclusters; ++j) {
      if (varies[j] && out.varying[k].count++ < 5) out.varying[k].codes.push_back(j);
    }
  }
  return out;
}

IncompleteData incomplete_data(const ClusteredRows& rows, Index nboth) {
  require_codes(rows);
  IncompleteData out;
  out.p = static_cast<Index>(rows.unit.size());
  out.q = static_cast<Index>(rows.cluster.size());
  out.nboth = nboth;
  if (nboth < 0 || nboth > out.p) throw std::invalid_argument("nboth must be between 0 and p");
  out.origin.resize(out.p + out.q);
  out.origin << observed_origin(rows.unit, rows.nrows), observed_origin(rows.cluster, rows.nrows);
  out.weight = Vector::Ones(rows.nclusters);
  add_cluster_variables(rows, cluster_values(rows).values, out);
  std::vector<std::int32_t> pattern;
  if (out.p) pattern = row_patterns(rows, out.unit_patterns);
  if (!out.p) pattern.assign(rows.nrows, -1);
  const std::vector<std::int32_t> cell = number_cells(rows, pattern, out);
  std::vector<std::int32_t>().swap(pattern);
  out.cell_rows.setZero(out.ncells());
  out.cell_means.setZero(out.p, out.ncells());
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const Index c = cell[i];
    if (c < 0) continue;
    out.cell_rows[c] += 1;
    double* sum = out.cell_means.data() + c * out.p;
    for (const Index k : out.unit_patterns[out.cell_pattern[c]]) sum[k] += rows.unit[k][i] - out.origin[k];
  }
  out.cell_means *= out.cell_rows.cwiseInverse().asDiagonal();
  out.pattern_rows.setZero(static_cast<Index>(out.unit_patterns.size()));
  for (Index c = 0; c < out.ncells(); ++c) out.pattern_rows[out.cell_pattern[c]] += out.cell_rows[c];
  for (const Pattern& seen : out.unit_patterns) {
    const Index n = static_cast<Index>(seen.size());
    out.scatter.push_back(Matrix::Zero(n, n));
  }
  for_each_deviation(rows, cell, out, [&](Index c, const Pattern& seen, const double* off) {
    Matrix& sum = out.scatter[out.cell_pattern[c]];
    const Index n = static_cast<Index>(seen.size());
    for (Index b = 0; b < n; ++b) {
      for (Index a = b; a < n; ++a) sum(a, b) += off[a] * off[b];
    }
  });
  for (Matrix& sum : out.scatter) sum = Matrix(sum.selfadjointView<Eigen::Lower>());
  return out;
}

Coverage coverage(const IncompleteData& d) {
  const Index m = d.p + d.q;
  Coverage out{Matrix::Zero(d.p, d.p), Matrix::Zero(m, m)};
  for (std::size_t r = 0; r < d.unit_patterns.size(); ++r) {
    for (const Index a : d.unit_patterns[r]) {
      for (const Index b : d.unit_patterns[r]) out.units(a, b) += d.pattern_rows[static_cast<Index>(r)];
    }
  }
  std::vector<char> seen(m);
  Pattern own;
  for (Index j = 0; j < d.nclusters(); ++j) {
    std::fill(seen.begin(), seen.end(), 0);
    for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) {
      for (const Index k : d.unit_patterns[d.cell_pattern[c]]) seen[k] = 1;
    }
    for (const Index k : d.cluster_patterns[d.cluster_pattern[j]]) seen[d.p + k] = 1;
    own.clear();
    for (Index k = 0; k < m; ++k) {
      if (seen[k]) own.push_back(k);
    }
    for (const Index a : own) {
      for (const Index b : own) out.clusters(a, b) += d.weight[j];
    }
  }
  return out;
}

ObservedMoments observed_moments(const IncompleteData& d) {
  const Index m = d.p + d.q;
  ObservedMoments out{Vector::Zero(m), Vector::Zero(m), Vector::Zero(m)};
  const auto each = [&](auto visit) {
    for (Index j = 0; j < d.nclusters(); ++j) {
      for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) {
        for (const Index k : d.unit_patterns[d.cell_pattern[c]])
          visit(k, d.weight[j] * d.cell_rows[c], d.cell_means(k, c));
      }
      for (const Index k : d.cluster_patterns[d.cluster_pattern[j]])
        visit(d.p + k, d.weight[j], d.cluster_values(k, j));
    }
  };
  each([&](Index k, double n, double x) {
    out.count[k] += n;
    out.mean[k] += n * x;
  });
  out.mean = out.mean.cwiseQuotient(out.count);
  each([&](Index k, double n, double x) { out.variance[k] += n * (x - out.mean[k]) * (x - out.mean[k]); });
  for (std::size_t r = 0; r < d.unit_patterns.size(); ++r) {
    const Pattern& seen = d.unit_patterns[r];
    for (std::size_t i = 0; i < seen.size(); ++i)
      out.variance[seen[i]] += d.scatter[r](static_cast<Index>(i), static_cast<Index>(i));
  }
  out.variance = out.variance.cwiseQuotient(out.count);
  out.mean += d.origin;
  return out;
}

TotalCov total_cov(const IncompleteData& d) {
  if (d.unit_patterns.size() > 1 || d.cluster_patterns.size() > 1)
    throw std::invalid_argument("total covariance matrices need variables without holes");
  TotalCov out{Matrix::Zero(d.p, d.p), Matrix::Zero(d.q, d.q)};
  if (d.p && d.ncells()) {
    Vector weight = d.cell_rows;
    for (Index j = 0; j < d.nclusters(); ++j) {
      for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) weight[c] *= d.weight[j];
    }
    const double total = weight.sum();
    const Matrix off = d.cell_means.colwise() - Vector(d.cell_means * weight / total);
    out.units = (d.scatter[0] + off * weight.asDiagonal() * off.transpose()) / total;
  }
  if (d.q && d.nclusters()) {
    const double total = d.weight.sum();
    const Matrix off = d.cluster_values.colwise() - Vector(d.cluster_values * d.weight / total);
    out.clusters = off * d.weight.asDiagonal() * off.transpose() / total;
  }
  return out;
}

Matrix cell_products(const ClusteredRows& rows, const IncompleteData& d) {
  require_codes(rows);
  if (static_cast<Index>(rows.unit.size()) != d.p || rows.nclusters != d.nclusters())
    throw std::invalid_argument("rows are not those of the statistics");
  Matrix out = Matrix::Zero(d.p * (d.p + 1) / 2, d.ncells());
  if (!d.p) return out;
  std::vector<Pattern> patterns;
  const std::vector<std::int32_t> pattern = row_patterns(rows, patterns);
  IncompleteData own;
  const std::vector<std::int32_t> cell = number_cells(rows, pattern, own);
  if (patterns != d.unit_patterns || own.cell_pattern != d.cell_pattern)
    throw std::invalid_argument("rows are not those of the statistics");
  std::vector<Index> column(
      d.p);  // where the columns of packed lower triangles begin, less the diagonal's row
  for (Index k = 0, at = 0; k < d.p; at += d.p - k, ++k) column[k] = at - k;
  for_each_deviation(rows, cell, d, [&](Index c, const Pattern& seen, const double* off) {
    double* sum = out.data() + c * out.rows();
    for (std::size_t b = 0; b < seen.size(); ++b) {
      for (std::size_t a = b; a < seen.size(); ++a) sum[column[seen[b]] + seen[a]] += off[a] * off[b];
    }
  });
  return out;
}

IncompleteData weighted(const IncompleteData& data, const Matrix& products, const Vector& weights) {
  if (weights.size() != data.nclusters() || products.cols() != data.ncells())
    throw std::invalid_argument("weights or products have inconsistent shapes");
  IncompleteData out = data;
  out.weight = weights;
  out.pattern_rows.setZero();
  for (Matrix& sum : out.scatter) sum.setZero();
  std::vector<Vector> packed(out.scatter.size(), Vector::Zero(products.rows()));
  for (Index j = 0; j < data.nclusters(); ++j) {
    if (weights[j] == 0) continue;
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      out.pattern_rows[data.cell_pattern[c]] += weights[j] * data.cell_rows[c];
      packed[data.cell_pattern[c]] += weights[j] * products.col(c);
    }
  }
  for (std::size_t r = 0; r < packed.size(); ++r) {
    const Matrix whole = unpack_lower(Matrix(packed[r].transpose()), 0, data.p);
    out.scatter[r] = whole(data.unit_patterns[r], data.unit_patterns[r]);
  }
  return out;
}

IncompleteData restrict_variables(const IncompleteData& data, const std::vector<Index>& unit,
                                  const std::vector<Index>& cluster, Index nboth) {
  IncompleteData out;
  out.p = static_cast<Index>(unit.size());
  out.q = static_cast<Index>(cluster.size());
  out.nboth = nboth;
  if (nboth < 0 || nboth > out.p) throw std::invalid_argument("nboth must be between 0 and p");
  out.weight = data.weight;
  out.origin.resize(out.p + out.q);
  for (Index k = 0; k < out.p; ++k) out.origin[k] = data.origin[unit.at(k)];
  for (Index k = 0; k < out.q; ++k) out.origin[out.p + k] = data.origin[data.p + cluster.at(k)];
  // positions of the kept variables of each old pattern among those it observes, in the new order
  PatternNumbers numbers(out.p);
  std::vector<Index> found(data.unit_patterns.size()), rank;
  std::vector<std::vector<Index>> kept(data.unit_patterns.size());
  for (std::size_t r = 0; r < data.unit_patterns.size(); ++r) {
    const Pattern& seen = data.unit_patterns[r];
    Key& key = numbers.key();
    for (Index k = 0; k < out.p; ++k) {
      const auto at = std::lower_bound(seen.begin(), seen.end(), unit[k]);
      if (at == seen.end() || *at != unit[k]) continue;
      PatternNumbers::mark(key, k);
      kept[r].push_back(at - seen.begin());
    }
    found[r] = numbers.number();
  }
  out.unit_patterns = ordered(numbers.found(), rank);
  Index none = -1;
  if (!out.unit_patterns.empty() && out.unit_patterns.back().empty()) {
    none = static_cast<Index>(out.unit_patterns.size()) - 1;
    out.unit_patterns.pop_back();
  }
  for (Index& r : found) r = rank[r];
  out.pattern_rows.setZero(static_cast<Index>(out.unit_patterns.size()));
  for (const Pattern& seen : out.unit_patterns) {
    const Index n = static_cast<Index>(seen.size());
    out.scatter.push_back(Matrix::Zero(n, n));
  }
  for (std::size_t r = 0; r < found.size(); ++r) {
    if (found[r] != none) out.scatter[found[r]] += data.scatter[r](kept[r], kept[r]);
  }
  // Cells that become one add the products of their means about the common one.
  out.first_cell.assign(1, 0);
  std::vector<double> rows;
  std::vector<Vector> means;
  for (Index j = 0; j < data.nclusters(); ++j) {
    std::vector<Index> own(data.first_cell[j + 1] - data.first_cell[j]);
    std::iota(own.begin(), own.end(), data.first_cell[j]);
    std::stable_sort(own.begin(), own.end(), [&](Index a, Index b) {
      return found[data.cell_pattern[a]] < found[data.cell_pattern[b]];
    });
    const Index first = out.first_cell.back();
    for (const Index c : own) {
      const Index r = found[data.cell_pattern[c]];
      if (r == none) continue;
      const double n = data.cell_rows[c];
      Vector mean = Vector::Zero(out.p);
      for (const Index k : out.unit_patterns[r]) mean[k] = data.cell_means(unit[k], c);
      out.pattern_rows[r] += data.weight[j] * n;
      if (out.ncells() > first && out.cell_pattern.back() == r) {
        const Vector gap = mean - means.back();
        const double total = rows.back() + n;
        const Vector off = gap(out.unit_patterns[r]);
        out.scatter[r] += data.weight[j] * (rows.back() * n / total) * off * off.transpose();
        means.back() += (n / total) * gap;
        rows.back() = total;
      } else {
        out.cell_pattern.push_back(r);
        rows.push_back(n);
        means.push_back(std::move(mean));
      }
    }
    out.first_cell.push_back(out.ncells());
  }
  out.cell_rows = Eigen::Map<const Vector>(rows.data(), static_cast<Index>(rows.size()));
  out.cell_means.resize(out.p, static_cast<Index>(means.size()));
  for (std::size_t c = 0; c < means.size(); ++c) out.cell_means.col(static_cast<Index>(c)) = means[c];
  PatternNumbers z_numbers(out.q);
  std::vector<Index> z_found(data.nclusters());
  out.cluster_values.setZero(out.q, data.nclusters());
  for (Index j = 0; j < data.nclusters(); ++j) {
    const Pattern& seen = data.cluster_patterns[data.cluster_pattern[j]];
    Key& key = z_numbers.key();
    for (Index k = 0; k < out.q; ++k) {
      if (!std::binary_search(seen.begin(), seen.end(), cluster[k])) continue;
      PatternNumbers::mark(key, k);
      out.cluster_values(k, j) = data.cluster_values(cluster[k], j);
    }
    z_found[j] = z_numbers.number();
  }
  out.cluster_patterns = ordered(z_numbers.found(), rank);
  for (const Index r : z_found) out.cluster_pattern.push_back(rank[r]);
  return out;
}

}  // namespace msem
