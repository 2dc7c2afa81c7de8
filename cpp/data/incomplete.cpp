// From rows to cells.
#include "data/incomplete.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "base/threads.hpp"
#include "base/triangle.hpp"
#include "data/block_products.hpp"

namespace msem {
namespace {

using std::ptrdiff_t;
using Row = std::uint32_t;

constexpr ptrdiff_t kCellBlock = 256;        // rows handled at a time, see statistics.cpp
constexpr ptrdiff_t kPieceOfRows = 1 << 16;  // rows in a piece of work
constexpr ptrdiff_t kPiecesOfRows = 16;      // with sums of their own, at most
constexpr ptrdiff_t kPieceSums = 1 << 18;    // doubles in all of them, at most
constexpr double kRounding = 1e-12;          // of a sum of weights

// A point inside the data: the mean of about a thousand observed values, from all parts of the rows if they
// are there.
double observed_origin(const Column& x, ptrdiff_t nrows) {
  for (const ptrdiff_t step : {std::max<ptrdiff_t>(1, nrows / 1024), ptrdiff_t{1}}) {
    double sum = 0.0;
    ptrdiff_t used = 0;
    for (ptrdiff_t i = 0; i < nrows && used < 2048; i += step) {
      if (std::isnan(x[i])) continue;
      sum += x[i];
      ++used;
    }
    if (used > 0) return sum / static_cast<double>(used);
  }
  return 0.0;
}

void require_codes(const ClusteredRows& rows) {
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (rows.codes[i] < 0 || rows.codes[i] >= rows.nclusters)
      throw std::invalid_argument("cluster code out of range");
  }
  if (rows.nrows > std::numeric_limits<std::int32_t>::max()) throw std::invalid_argument("too many rows");
}

// Number the patterns of the rows first, ..., last - 1.
void number_rows(const std::vector<Column>& columns, ptrdiff_t first, ptrdiff_t last, PatternNumbers& numbers,
                 std::int32_t* out) {
  const Index words = PatternNumbers::words(static_cast<Index>(columns.size()));
  std::vector<std::uint64_t> keys(words * kCellBlock);
  for (ptrdiff_t start = first; start < last; start += kCellBlock) {
    const ptrdiff_t length = std::min(kCellBlock, last - start);
    std::fill(keys.begin(), keys.end(), 0);
    for (Index k = 0; k < static_cast<Index>(columns.size()); ++k) {
      const Column& x = columns[k];
      std::uint64_t* word = keys.data() + k / kKeyBits;
      for (ptrdiff_t r = 0; r < length; ++r)
        word[r * words] |= static_cast<std::uint64_t>(!std::isnan(x[start + r])) << (k % kKeyBits);
    }
    for (ptrdiff_t r = 0; r < length; ++r)
      out[start + r] = static_cast<std::int32_t>(numbers.number(keys.data() + r * words));
  }
}

}  // namespace

RowPatterns row_patterns(const std::vector<Column>& columns, ptrdiff_t nrows) {
  const Index variables = static_cast<Index>(columns.size());
  const ptrdiff_t pieces = (nrows + kPieceOfRows - 1) / kPieceOfRows;
  RowPatterns out{{}, std::vector<std::int32_t>(nrows)};
  std::vector<PatternNumbers> own(pieces, PatternNumbers(variables));
  const auto end = [&](ptrdiff_t i) { return std::min(nrows, (i + 1) * kPieceOfRows); };
  in_threads(pieces, 0,
             [&](ptrdiff_t i) { number_rows(columns, i * kPieceOfRows, end(i), own[i], out.of_row.data()); });
  PatternNumbers all(variables);
  std::vector<std::vector<Index>> number(pieces);  // of the patterns of each piece
  for (ptrdiff_t i = 0; i < pieces; ++i) {
    for (const PatternKey& key : own[i].keys()) number[i].push_back(all.number(key.data()));
  }
  SortedPatterns order = sorted(all.patterns());
  if (!order.patterns.empty() && order.patterns.back().empty()) {
    order.patterns.pop_back();
    for (Index& rank : order.rank) rank = rank < static_cast<Index>(order.patterns.size()) ? rank : -1;
  }
  for (ptrdiff_t i = 0; i < pieces; ++i) {
    for (ptrdiff_t r = i * kPieceOfRows; r < end(i); ++r)
      out.of_row[r] = static_cast<std::int32_t>(order.rank[number[i][out.of_row[r]]]);
  }
  out.patterns = std::move(order.patterns);
  return out;
}

namespace {

// The given rows in order of their keys 0, ..., count - 1, those with equal keys as they were.
template <class Key>
std::vector<Row> sorted_by(const std::vector<Row>& rows, Index count, Key key) {
  std::vector<Row> at(count + 1, 0), out(rows.size());
  for (const Row i : rows) ++at[key(i) + 1];
  std::partial_sum(at.begin(), at.end(), at.begin());
  for (const Row i : rows) out[at[key(i)]++] = i;
  return out;
}

// The rows of each cell: rows[start[c]], ..., rows[start[c + 1] - 1].
struct CellRows {
  std::vector<Row> rows;
  std::vector<Row> start;

  ptrdiff_t size(Index cell) const { return start[cell + 1] - start[cell]; }
  // Cells with about a share i / pieces of the rows before them.
  Index cell_at(ptrdiff_t i, ptrdiff_t pieces) const {
    if (i == pieces) return static_cast<Index>(start.size()) - 1;
    const Row row = static_cast<Row>(static_cast<ptrdiff_t>(rows.size()) * i / pieces);
    return std::lower_bound(start.begin(), start.end(), row) - start.begin();
  }
};

// Find the cells and fill in which there are.
CellRows find_cells(const ClusteredRows& rows, const std::vector<std::int32_t>& pattern,
                    IncompleteData& out) {
  const Index R = static_cast<Index>(out.unit_patterns.size());
  CellRows cells;
  for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
    if (pattern[i] >= 0) cells.rows.push_back(static_cast<Row>(i));
  }
  cells.rows = sorted_by(cells.rows, R, [&](Row i) { return pattern[i]; });
  cells.rows = sorted_by(cells.rows, rows.nclusters, [&](Row i) { return rows.codes[i]; });
  out.first_cell.assign(rows.nclusters + 1, 0);
  for (std::size_t at = 0; at < cells.rows.size(); ++at) {
    const Row i = cells.rows[at], last = at > 0 ? cells.rows[at - 1] : 0;
    if (at > 0 && rows.codes[i] == rows.codes[last] && pattern[i] == pattern[last]) continue;
    cells.start.push_back(static_cast<Row>(at));
    out.cell_pattern.push_back(pattern[i]);
    ++out.first_cell[rows.codes[i] + 1];
  }
  cells.start.push_back(static_cast<Row>(cells.rows.size()));
  std::partial_sum(out.first_cell.begin(), out.first_cell.end(), out.first_cell.begin());
  return cells;
}

// Values of the rows of cells less the origin, a block of rows at a time.
class CellValues {
 public:
  CellValues(const ClusteredRows& rows, const CellRows& cells, const IncompleteData& data)
      : rows_(rows), cells_(cells), data_(data), buffer_(data.p, kCellBlock), sum_(data.p) {}

  // Number of the rows, counted by their weights. A sum of weights that is a whole number but for rounding is
  // that number, so that cells of one size stay cells of one size.
  double count(Index cell) const {
    if (!rows_.weights) return static_cast<double>(cells_.size(cell));
    double sum = 0;
    for (ptrdiff_t at = cells_.start[cell]; at < cells_.start[cell + 1]; ++at)
      sum += rows_.weights[cells_.rows[at]];
    const double whole = std::round(sum);
    return std::abs(sum - whole) <= kRounding * sum ? whole : sum;
  }

  // Mean of the observed variables, written where they stand among all.
  void mean(Index cell, const Pattern& seen, double* out) {
    const Index n = static_cast<Index>(seen.size());
    for (const Index k : seen) out[k] = 0;
    double total = 0;
    for_each_block(cell, seen, [&](const Row* row, ptrdiff_t length) {
      std::fill_n(sum_.data(), n, 0.0);
      for (ptrdiff_t r = 0; r < length; ++r) {
        const double weight = rows_.weights ? rows_.weights[row[r]] : 1.0;
        total += weight;
        for (Index a = 0; a < n; ++a) sum_[a] += weight * buffer_(a, r);
      }
      for (Index a = 0; a < n; ++a) out[seen[a]] += sum_[a];
    });
    for (const Index k : seen) out[k] /= total;
  }

  // visit(observed values less those of `mean`, times the square root of the weight) for blocks of rows.
  template <class Visit>
  void deviations(Index cell, const Pattern& seen, const double* mean, Visit visit) {
    const Index n = static_cast<Index>(seen.size());
    for_each_block(cell, seen, [&](const Row* row, ptrdiff_t length) {
      for (ptrdiff_t r = 0; r < length; ++r) {
        const double root = rows_.weights ? std::sqrt(rows_.weights[row[r]]) : 1.0;
        for (Index a = 0; a < n; ++a) buffer_(a, r) = root * (buffer_(a, r) - mean[seen[a]]);
      }
      visit(buffer_.topLeftCorner(n, length));
    });
  }

 private:
  template <class Visit>
  void for_each_block(Index cell, const Pattern& seen, Visit visit) {
    for (ptrdiff_t at = cells_.start[cell], end = cells_.start[cell + 1]; at < end; at += kCellBlock) {
      const ptrdiff_t length = std::min(kCellBlock, end - at);
      const Row* row = cells_.rows.data() + at;
      for (std::size_t a = 0; a < seen.size(); ++a) {
        const Column& x = rows_.unit[seen[a]];
        const double origin = data_.origin[seen[a]];
        for (ptrdiff_t r = 0; r < length; ++r) buffer_(static_cast<Index>(a), r) = x[row[r]] - origin;
      }
      visit(row, length);
    }
  }

  const ClusteredRows& rows_;
  const CellRows& cells_;
  const IncompleteData& data_;
  Matrix buffer_;
  Vector sum_;
};

std::vector<Matrix> zeros_of(const std::vector<Pattern>& patterns) {
  std::vector<Matrix> out;
  for (const Pattern& seen : patterns) out.push_back(Matrix::Zero(seen.size(), seen.size()));
  return out;
}

// How many pieces may have sums of products of their own.
ptrdiff_t pieces_of(const CellRows& cells, const std::vector<Pattern>& patterns) {
  ptrdiff_t sums = 1;
  for (const Pattern& seen : patterns) sums += static_cast<ptrdiff_t>(seen.size() * seen.size());
  const ptrdiff_t rows = static_cast<ptrdiff_t>(cells.rows.size()) / kPieceOfRows;
  return std::max<ptrdiff_t>(1, std::min({kPiecesOfRows, rows, kPieceSums / sums}));
}

// The weight of the cluster of every cell.
Vector cluster_weight_of_cells(const IncompleteData& d) {
  Vector out(d.ncells());
  for (Index j = 0; j < d.nclusters(); ++j)
    out.segment(d.first_cell[j], d.first_cell[j + 1] - d.first_cell[j]).setConstant(d.weight[j]);
  return out;
}

void add_cells(const ClusteredRows& rows, const CellRows& cells, IncompleteData& out) {
  const Vector weight = cluster_weight_of_cells(out);
  out.cell_rows.resize(out.ncells());
  out.cell_means.setZero(out.p, out.ncells());
  const ptrdiff_t pieces = pieces_of(cells, out.unit_patterns);
  std::vector<std::vector<Matrix>> sums(pieces);
  in_threads(pieces, 0, [&](ptrdiff_t i) {
    sums[i] = zeros_of(out.unit_patterns);
    CellValues values(rows, cells, out);
    for (Index c = cells.cell_at(i, pieces); c < cells.cell_at(i + 1, pieces); ++c) {
      const Index r = out.cell_pattern[c];
      const Pattern& seen = out.unit_patterns[r];
      double* mean = out.cell_means.data() + c * out.p;
      out.cell_rows[c] = values.count(c);
      values.mean(c, seen, mean);
      if (cells.size(c) < 2) continue;
      values.deviations(c, seen, mean, [&](auto block) {
        if (weight[c] != 1) block *= std::sqrt(weight[c]);
        add_products(block, sums[i][r]);
      });
    }
  });
  out.scatter = std::move(sums[0]);
  for (std::size_t r = 0; r < out.scatter.size(); ++r) {
    for (ptrdiff_t i = 1; i < pieces; ++i) out.scatter[r] += sums[i][r];
    complete(out.scatter[r]);
  }
  out.pattern_rows.setZero(static_cast<Index>(out.unit_patterns.size()));
  for (Index c = 0; c < out.ncells(); ++c)
    out.pattern_rows[out.cell_pattern[c]] += weight[c] * out.cell_rows[c];
}

// The first observed value of each cluster, q x J, NaN where there is none; visit(variable, cluster) where
// another is observed.
template <class Visit>
Matrix first_values(const ClusteredRows& rows, Visit differs) {
  const Index q = static_cast<Index>(rows.cluster.size());
  Matrix out = Matrix::Constant(q, rows.nclusters, std::numeric_limits<double>::quiet_NaN());
  for (Index k = 0; k < q; ++k) {
    const Column& column = rows.cluster[k];
    for (ptrdiff_t i = 0; i < rows.nrows; ++i) {
      const double x = column[i];
      double& known = out(k, rows.codes[i]);
      if (std::isnan(x) || known == x) continue;
      if (std::isnan(known)) {
        known = x;
      } else {
        differs(k, rows.codes[i]);
      }
    }
  }
  return out;
}

void add_cluster_variables(const ClusteredRows& rows, IncompleteData& out) {
  out.cluster_values = first_values(rows, [](Index, std::int64_t) {});
  out.cluster_pattern.resize(rows.nclusters);
  PatternNumbers numbers(out.q);
  PatternKey key(PatternNumbers::words(out.q));
  for (Index j = 0; j < rows.nclusters; ++j) {
    std::fill(key.begin(), key.end(), 0);
    for (Index k = 0; k < out.q; ++k) {
      double& x = out.cluster_values(k, j);
      if (!std::isnan(x)) PatternNumbers::mark(key.data(), k);
      x = std::isnan(x) ? 0.0 : x - out.origin[out.p + k];
    }
    out.cluster_pattern[j] = numbers.number(key.data());
  }
  SortedPatterns order = sorted(numbers.patterns());
  for (Index& t : out.cluster_pattern) t = order.rank[t];
  out.cluster_patterns = std::move(order.patterns);
}

}  // namespace

ClusterValues cluster_values(const ClusteredRows& rows) {
  require_codes(rows);
  const Index q = static_cast<Index>(rows.cluster.size());
  std::vector<std::vector<char>> varies(q, std::vector<char>(rows.nclusters, 0));
  ClusterValues out{first_values(rows, [&](Index k, std::int64_t j) { varies[k][j] = 1; }).transpose(),
                    std::vector<Varying>(q)};
  for (Index k = 0; k < q; ++k) {
    for (ptrdiff_t j = 0; j < rows.nclusters; ++j) {
      if (varies[k][j] && out.varying[k].count++ < 5) out.varying[k].codes.push_back(j);
    }
  }
  return out;
}

IncompleteData incomplete_data(const ClusteredRows& rows, Index nboth, const Vector* cluster_weights) {
  require_codes(rows);
  IncompleteData out;
  out.p = static_cast<Index>(rows.unit.size());
  out.q = static_cast<Index>(rows.cluster.size());
  out.nboth = nboth;
  if (nboth < 0 || nboth > out.p) throw std::invalid_argument("nboth must be between 0 and p");
  out.origin.resize(out.p + out.q);
  for (Index k = 0; k < out.p; ++k) out.origin[k] = observed_origin(rows.unit[k], rows.nrows);
  for (Index k = 0; k < out.q; ++k) out.origin[out.p + k] = observed_origin(rows.cluster[k], rows.nrows);
  out.weight = cluster_weights ? *cluster_weights : Vector(Vector::Ones(rows.nclusters));
  if (out.weight.size() != rows.nclusters) throw std::invalid_argument("every cluster needs a weight");
  add_cluster_variables(rows, out);
  CellRows cells;
  if (out.p > 0) {
    RowPatterns found = row_patterns(rows.unit, rows.nrows);
    out.unit_patterns = std::move(found.patterns);
    cells = find_cells(rows, found.of_row, out);
  } else {
    out.first_cell.assign(rows.nclusters + 1, 0);
    cells.start = {0};
  }
  add_cells(rows, cells, out);
  return out;
}

Matrix cell_products(const ClusteredRows& rows, const IncompleteData& data) {
  require_codes(rows);
  const Index p = data.p;
  IncompleteData own;
  RowPatterns found;
  CellRows cells;
  bool same = static_cast<Index>(rows.unit.size()) == p && rows.nclusters == data.nclusters();
  if (same && p > 0) {
    found = row_patterns(rows.unit, rows.nrows);
    own.unit_patterns = std::move(found.patterns);
    cells = find_cells(rows, found.of_row, own);
    same = own.unit_patterns == data.unit_patterns && own.first_cell == data.first_cell &&
           own.cell_pattern == data.cell_pattern;
  }
  if (!same) throw std::invalid_argument("rows are not those of the statistics");
  Matrix out = Matrix::Zero(p * (p + 1) / 2, data.ncells());
  const ptrdiff_t pieces = std::max<ptrdiff_t>(1, static_cast<ptrdiff_t>(cells.rows.size()) / kPieceOfRows);
  if (data.ncells() == 0) return out;
  in_threads(pieces, 0, [&](ptrdiff_t i) {
    CellValues values(rows, cells, data);
    Matrix sum;
    for (Index c = cells.cell_at(i, pieces); c < cells.cell_at(i + 1, pieces); ++c) {
      if (cells.size(c) < 2) continue;
      const Pattern& seen = data.unit_patterns[data.cell_pattern[c]];
      const Index n = static_cast<Index>(seen.size());
      sum.setZero(n, n);
      values.deviations(c, seen, data.cell_means.data() + c * p,
                        [&](const auto& block) { add_products(block, sum); });
      for (Index b = 0; b < n; ++b) {
        double* column = out.data() + c * out.rows() + seen[b] * p - seen[b] * (seen[b] + 1) / 2;
        for (Index a = b; a < n; ++a) column[seen[a]] = sum(a, b);
      }
    }
  });
  return out;
}

}  // namespace msem
