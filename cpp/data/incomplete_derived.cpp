// What follows from cells without the rows they were made of.
#include <algorithm>
#include <stdexcept>

#include "data/incomplete.hpp"

namespace msem {
namespace {

void require_positions(const std::vector<Index>& positions, Index count) {
  for (const Index k : positions) {
    if (k < 0 || k >= count) throw std::invalid_argument("position of a variable out of range");
  }
}

// How the patterns of the chosen variables follow from those of all.
struct Renumbered {
  std::vector<Pattern> patterns;
  std::vector<Index> number;             // of each old pattern among the new ones
  std::vector<std::vector<Index>> kept;  // positions of the chosen among those each old pattern observes
};

Renumbered renumbered(const std::vector<Pattern>& old, const std::vector<Index>& chosen) {
  Renumbered out{{}, {}, std::vector<std::vector<Index>>(old.size())};
  PatternNumbers numbers(static_cast<Index>(chosen.size()));
  PatternKey key(PatternNumbers::words(static_cast<Index>(chosen.size())));
  for (std::size_t r = 0; r < old.size(); ++r) {
    std::fill(key.begin(), key.end(), 0);
    for (std::size_t k = 0; k < chosen.size(); ++k) {
      const auto at = std::lower_bound(old[r].begin(), old[r].end(), chosen[k]);
      if (at == old[r].end() || *at != chosen[k]) continue;
      PatternNumbers::mark(key.data(), static_cast<Index>(k));
      out.kept[r].push_back(at - old[r].begin());
    }
    out.number.push_back(numbers.number(key.data()));
  }
  SortedPatterns order = sorted(numbers.patterns());
  for (Index& r : out.number) r = order.rank[r];
  out.patterns = std::move(order.patterns);
  return out;
}

// The same for units: those with nothing observed are in no cell, and their pattern is -1.
Renumbered renumbered_units(const std::vector<Pattern>& old, const std::vector<Index>& chosen) {
  Renumbered out = renumbered(old, chosen);
  if (out.patterns.empty() || !out.patterns.back().empty()) return out;
  out.patterns.pop_back();
  for (Index& r : out.number) r = r < static_cast<Index>(out.patterns.size()) ? r : -1;
  return out;
}

// Builds the cells of some of the variables, cluster by cluster.
class CellMerger {
 public:
  CellMerger(const IncompleteData& data, const std::vector<Index>& unit, const Renumbered& patterns,
             IncompleteData& out)
      : data_(data), unit_(unit), number_(patterns.number), out_(out) {
    out_.cell_rows.resize(data.ncells());
    out_.cell_means.setZero(out.p, data.ncells());
    out_.first_cell.assign(1, 0);
  }

  void add_cluster(Index cluster) {
    cells_.clear();
    for (Index c = data_.first_cell[cluster]; c < data_.first_cell[cluster + 1]; ++c) {
      const Index r = number_[data_.cell_pattern[c]];
      if (r >= 0) cells_.push_back({r, c});
    }
    std::sort(cells_.begin(), cells_.end());
    for (const auto& [r, c] : cells_) {
      if (out_.ncells() > out_.first_cell.back() && out_.cell_pattern.back() == r) {
        merge(r, c, data_.weight[cluster]);
      } else {
        add(r, c);
      }
    }
    out_.first_cell.push_back(out_.ncells());
  }

  void finish() {
    out_.cell_rows.conservativeResize(out_.ncells());
    if (out_.cell_means.cols() > out_.ncells())
      out_.cell_means = Matrix(out_.cell_means.leftCols(out_.ncells()));
  }

 private:
  void add(Index r, Index c) {
    const Index at = out_.ncells();
    out_.cell_pattern.push_back(r);
    out_.cell_rows[at] = data_.cell_rows[c];
    for (const Index k : out_.unit_patterns[r]) out_.cell_means(k, at) = data_.cell_means(unit_[k], c);
  }

  // Join a cell to the last one; their means then differ from the common one (Chan, Golub & LeVeque, 1983).
  void merge(Index r, Index c, double weight) {
    const Index at = out_.ncells() - 1;
    const Pattern& seen = out_.unit_patterns[r];
    const double n = data_.cell_rows[c], total = out_.cell_rows[at] + n;
    gap_.resize(static_cast<Index>(seen.size()));
    for (Index a = 0; a < gap_.size(); ++a) {
      double& mean = out_.cell_means(seen[a], at);
      gap_[a] = data_.cell_means(unit_[seen[a]], c) - mean;
      mean += n / total * gap_[a];
    }
    add_outer(out_.scatter[r], weight * out_.cell_rows[at] * n / total, gap_, gap_);
    out_.cell_rows[at] = total;
  }

  const IncompleteData& data_;
  const std::vector<Index>& unit_;
  const std::vector<Index>& number_;
  IncompleteData& out_;
  std::vector<std::pair<Index, Index>> cells_;  // new pattern and old cell
  Vector gap_;
};

void restrict_units(const IncompleteData& data, const std::vector<Index>& unit, IncompleteData& out) {
  Renumbered patterns = renumbered_units(data.unit_patterns, unit);
  out.unit_patterns = std::move(patterns.patterns);
  out.pattern_rows.setZero(static_cast<Index>(out.unit_patterns.size()));
  for (const Pattern& seen : out.unit_patterns) out.scatter.push_back(Matrix::Zero(seen.size(), seen.size()));
  for (std::size_t old = 0; old < patterns.number.size(); ++old) {
    const Index r = patterns.number[old];
    if (r < 0) continue;
    out.pattern_rows[r] += data.pattern_rows[static_cast<Index>(old)];
    out.scatter[r] += data.scatter[old](patterns.kept[old], patterns.kept[old]);
  }
  CellMerger merger(data, unit, patterns, out);
  for (Index j = 0; j < data.nclusters(); ++j) merger.add_cluster(j);
  merger.finish();
}

void restrict_clusters(const IncompleteData& data, const std::vector<Index>& cluster, IncompleteData& out) {
  Renumbered patterns = renumbered(data.cluster_patterns, cluster);
  out.cluster_patterns = std::move(patterns.patterns);
  out.cluster_pattern.resize(data.nclusters());
  out.cluster_values.resize(out.q, data.nclusters());
  for (Index j = 0; j < data.nclusters(); ++j) {
    out.cluster_pattern[j] = patterns.number[data.cluster_pattern[j]];
    for (Index k = 0; k < out.q; ++k) out.cluster_values(k, j) = data.cluster_values(cluster[k], j);
  }
}

}  // namespace

Coverage coverage(const IncompleteData& d) {
  const Index m = d.p + d.q;
  Coverage out{Matrix::Zero(d.p, d.p), Matrix::Zero(m, m)};
  for (std::size_t r = 0; r < d.unit_patterns.size(); ++r) {
    for (const Index a : d.unit_patterns[r]) {
      for (const Index b : d.unit_patterns[r]) out.units(a, b) += d.pattern_rows[static_cast<Index>(r)];
    }
  }
  // clusters by what is observed in them, then pairs once for each kind
  PatternNumbers numbers(m);
  PatternKey key(PatternNumbers::words(m));
  std::vector<double> weight;
  for (Index j = 0; j < d.nclusters(); ++j) {
    std::fill(key.begin(), key.end(), 0);
    for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) {
      for (const Index k : d.unit_patterns[d.cell_pattern[c]]) PatternNumbers::mark(key.data(), k);
    }
    for (const Index k : d.cluster_patterns[d.cluster_pattern[j]]) PatternNumbers::mark(key.data(), d.p + k);
    const std::size_t kind = numbers.number(key.data());
    if (kind == weight.size()) weight.push_back(0);
    weight[kind] += d.weight[j];
  }
  const std::vector<Pattern> kinds = numbers.patterns();
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    for (const Index a : kinds[i]) {
      for (const Index b : kinds[i]) out.clusters(a, b) += weight[i];
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
    const Matrix off = d.cell_means.colwise() - Vector(apply(d.cell_means, weight) / total);
    out.units = (d.scatter[0] + outer(scale_cols(off, weight), off)) / total;
  }
  if (d.q && d.nclusters()) {
    const double total = d.weight.sum();
    const Matrix off = d.cluster_values.colwise() - Vector(apply(d.cluster_values, d.weight) / total);
    out.clusters = outer(scale_cols(off, d.weight), off) / total;
  }
  return out;
}

LevelVariation level_variation(const IncompleteData& d) {
  LevelVariation out{Vector::Zero(d.p), Vector::Zero(d.p), Vector::Zero(d.p)};
  Vector rows(d.p), mean(d.p), total = Vector::Zero(d.p), squares(d.p);
  for (std::size_t r = 0; r < d.unit_patterns.size(); ++r) {
    const Pattern& seen = d.unit_patterns[r];
    for (std::size_t i = 0; i < seen.size(); ++i)
      out.within[seen[i]] += d.scatter[r](static_cast<Index>(i), static_cast<Index>(i));
  }
  // the means of cells about that of their cluster, and those of clusters about their mean, added one by one
  for (Index j = 0; j < d.nclusters(); ++j) {
    if (d.weight[j] == 0) continue;
    rows.setZero();
    mean.setZero();
    squares.setZero();
    for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) {
      for (const Index k : d.unit_patterns[d.cell_pattern[c]]) {
        const double n = d.cell_rows[c], gap = d.cell_means(k, c) - mean[k];
        squares[k] += rows[k] * n / (rows[k] + n) * gap * gap;
        rows[k] += n;
        mean[k] += n / rows[k] * gap;
      }
    }
    for (Index k = 0; k < d.p; ++k) {
      if (rows[k] == 0) continue;
      out.within[k] += d.weight[j] * squares[k];
      const double gap = mean[k] - total[k], before = out.clusters[k];
      out.clusters[k] += d.weight[j];
      total[k] += d.weight[j] / out.clusters[k] * gap;
      out.between[k] += before * d.weight[j] / out.clusters[k] * gap * gap;
    }
  }
  return out;
}

IncompleteData weighted(const IncompleteData& data, const Matrix& products, const Vector& weights) {
  const Index p = data.p;
  if (weights.size() != data.nclusters() || products.cols() != data.ncells() ||
      products.rows() != p * (p + 1) / 2)
    throw std::invalid_argument("weights or products have inconsistent shapes");
  IncompleteData out = data;
  out.weight = weights;
  out.pattern_rows.setZero();
  std::vector<Vector> packed(out.scatter.size(), Vector::Zero(products.rows()));
  for (Index j = 0; j < data.nclusters(); ++j) {
    if (weights[j] == 0) continue;
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      out.pattern_rows[data.cell_pattern[c]] += weights[j] * data.cell_rows[c];
      packed[data.cell_pattern[c]] += weights[j] * products.col(c);
    }
  }
  for (std::size_t r = 0; r < packed.size(); ++r) {
    const Matrix whole = unpack_lower(packed[r].transpose(), 0, p);
    out.scatter[r] = whole(data.unit_patterns[r], data.unit_patterns[r]);
  }
  return out;
}

IncompleteData restrict_variables(const IncompleteData& data, const std::vector<Index>& unit,
                                  const std::vector<Index>& cluster, Index nboth) {
  require_positions(unit, data.p);
  require_positions(cluster, data.q);
  IncompleteData out;
  out.p = static_cast<Index>(unit.size());
  out.q = static_cast<Index>(cluster.size());
  out.nboth = nboth;
  if (nboth < 0 || nboth > out.p) throw std::invalid_argument("nboth must be between 0 and p");
  out.weight = data.weight;
  out.origin.resize(out.p + out.q);
  for (Index k = 0; k < out.p; ++k) out.origin[k] = data.origin[unit[k]];
  for (Index k = 0; k < out.q; ++k) out.origin[out.p + k] = data.origin[data.p + cluster[k]];
  restrict_units(data, unit, out);
  restrict_clusters(data, cluster, out);
  return out;
}

void require_products(const Matrix& products, const IncompleteData& data) {
  if (products.rows() != data.p * (data.p + 1) / 2 || products.cols() != data.ncells())
    throw std::invalid_argument("products within cells have inconsistent shapes");
}

IncompleteData single_cluster(const IncompleteData& data, const Matrix& products, Index cluster) {
  const Index first = data.first_cell[cluster], count = data.first_cell[cluster + 1] - first;
  IncompleteData out;
  out.p = data.p;
  out.nboth = data.nboth;
  out.q = data.q;
  out.origin = data.origin;
  out.cell_rows = data.cell_rows.segment(first, count);
  out.cell_means = data.cell_means.middleCols(first, count);
  out.pattern_rows = out.cell_rows;
  out.first_cell = {0, count};
  for (Index c = 0; c < count; ++c) {
    const Pattern& seen = data.unit_patterns[data.cell_pattern[first + c]];
    const Matrix whole = unpack_lower(Matrix(products.col(first + c).transpose()), 0, data.p);
    out.cell_pattern.push_back(c);
    out.unit_patterns.push_back(seen);
    out.scatter.push_back(whole(seen, seen));
  }
  out.cluster_patterns = {data.cluster_patterns[data.cluster_pattern[cluster]]};
  out.cluster_pattern = {0};
  out.cluster_values = data.cluster_values.col(cluster);
  out.weight = Vector::Ones(1);
  return out;
}

}  // namespace msem
