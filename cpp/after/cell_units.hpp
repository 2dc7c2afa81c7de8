// The moments of a group arranged for data with holes, and combinations of the data that are linear in every
// unit and in what its cluster says.
#pragma once

#include <utility>
#include <vector>

#include "after/posterior.hpp"
#include "likelihood/cells/cells.hpp"

namespace msem {

// The moments of a group arranged for data with holes.
class Arranged {
 public:
  // `between`: covariances of the variables at both levels, then the cluster variables.
  Arranged(const GroupMoments& m, const IncompleteData& data, const Matrix& between);

  const ConditionalLevel& level(Index cluster) const { return levels[d.cluster_pattern[cluster]]; }
  void gather(Index cluster, ClusterEvidence& out, Index left_out = -1) const {
    if (!out.compute(d, cluster, weights, level(cluster).cov, left_out))
      throw std::domain_error("the covariance matrix of a cluster is not positive definite");
  }
  void view(Index cluster, const ClusterEvidence& evidence, ClusterView& out) const {
    view_cluster(d, cluster, mu, level(cluster), weights, evidence, out);
  }
  Index nclasses() const { return static_cast<Index>(index.classes.size()); }

  const IncompleteData& d;
  MissingIndex index;
  Index b;
  Vector mu;
  Matrix within;
  std::vector<ConditionalLevel> levels;
  std::vector<Matrix> weights;
};

// Coefficients of a unit's x and of what its cluster says, q, and the covariance that goes with them.
struct UnitMap {
  Matrix unit, evidence, cov;
};

// One for every pair of class and pattern; the last is for units without an observed value.
struct UnitMaps {
  std::vector<UnitMap> maps;
  std::vector<Index> pattern;  // of units
  std::vector<Index> first;    // of each class
};

// `map(pattern, cluster, evidence)`, where a cluster stands for its class.
template <class Map>
UnitMaps unit_maps(const Arranged& a, UnitMap nothing, Map map) {
  UnitMaps out;
  ClusterEvidence evidence;
  for (const ClusterClass& own : a.index.classes) {
    const Index j = own.members[0];
    a.gather(j, evidence);
    out.first.push_back(static_cast<Index>(out.maps.size()));
    for (Index c = a.d.first_cell[j]; c < a.d.first_cell[j + 1]; ++c) {
      const Index r = a.d.cell_pattern[c];
      out.maps.push_back(map(r, j, evidence));
      out.pattern.push_back(r);
    }
  }
  out.maps.push_back(std::move(nothing));
  out.pattern.push_back(-1);
  return out;
}

// Which of its cluster's cells a row is in; -1 without an observed value. Rows are those of the statistics.
class RowCells {
 public:
  RowCells(const IncompleteData& d, const ClusteredRows& rows);
  Index find(std::ptrdiff_t row);

 private:
  const IncompleteData* d_;
  const ClusteredRows* rows_;
  Pattern seen_;
};

// Calls visit(row, number of its map, map's linear combination of x and q).
template <class Visit>
void for_each_unit(const Arranged& a, const UnitMaps& found, const ClusteredRows& rows, Visit visit) {
  const IncompleteData& d = a.d;
  const Index last = static_cast<Index>(found.maps.size()) - 1, size = found.maps[last].unit.rows();
  std::vector<Index> map_of(d.ncells(), last);
  Matrix share(size, d.ncells());    // what the cluster contributes to the units of a cell
  Matrix shift(d.p, d.nclusters());  // what x of a cluster's units is measured from
  ClusterEvidence evidence;
  ClusterView view;
  for (Index i = 0; i < a.nclasses(); ++i) {
    const ClusterClass& own = a.index.classes[i];
    a.gather(own.members[0], evidence);
    for (const Index j : own.members) {
      a.view(j, evidence, view);
      shift.col(j) = d.origin.head(d.p) + view.mean;
      for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) {
        map_of[c] = found.first[i] + c - d.first_cell[j];
        share.col(c) = apply(found.maps[map_of[c]].evidence, view.q.head(a.b));
      }
    }
  }
  RowCells cells(d, rows);
  Vector unit(d.p), row(size);
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const Index c = cells.find(i), j = rows.codes[i];
    const Index which = c < 0 ? last : map_of[c];
    unit.setZero();
    if (c >= 0) {
      for (const Index k : d.unit_patterns[d.cell_pattern[c]]) unit[k] = rows.unit[k][i] - shift(k, j);
    }
    row.setZero();
    if (c >= 0) row = share.col(c);
    add_applied(row, 1, found.maps[which].unit, unit);
    visit(i, which, row);
  }
}

// A unit's x less what the others of its cluster predict, which is V (q - W_r x) with V and q theirs.
UnitMap others_map(const Arranged& a, const ClusterEvidence& others, Index pattern, const Matrix& left,
                   Matrix cov);
// Covariance matrix of what a unit with some pattern has observed, between parts given the others included.
Matrix with_others(const Arranged& a, const ClusterEvidence& others, const Matrix& own, const Pattern& seen);

}  // namespace msem
