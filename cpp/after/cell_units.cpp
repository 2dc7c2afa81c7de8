#include "after/cell_units.hpp"

#include <cmath>
#include <stdexcept>

#include "after/conditional.hpp"

namespace msem {

Arranged::Arranged(const GroupMoments& m, const IncompleteData& data, const Matrix& between)
    : d(data), index(data), b(data.nboth) {
  if (m.p != d.p || m.nboth != d.nboth || m.q != d.q)
    throw std::invalid_argument("moments and data have different variables");
  const Vector mean = observed_mean(m) - d.origin;
  mu = mean.head(d.p);
  for (std::size_t t = 0; t < index.rows.size(); ++t) {
    const std::vector<Index>& rows = index.rows[t];
    Vector own = Vector::Zero(static_cast<Index>(rows.size()));
    for (Index k = b; k < own.size(); ++k) own[k] = mean[d.p + rows[k] - b];
    ConditionalLevel level;
    if (!level.compute(select(between, rows, rows), own, b))
      throw std::domain_error("the covariance matrix of the cluster variables is not positive definite");
    levels.push_back(std::move(level));
  }
  within = m.cov_w.topLeftCorner(d.p, d.p);
  Cholesky chol;
  if (d.p && !chol.compute(within))
    throw std::domain_error("the within covariance matrix is not positive definite");
  for (const Pattern& seen : d.unit_patterns) {
    if (!chol.compute(select(within, seen, seen)))
      throw std::domain_error("the within covariance matrix is not positive definite");
    Matrix weight = Matrix::Zero(d.p, d.p);
    put(weight, seen, seen, chol.inverse());
    weights.push_back(std::move(weight));
  }
}

RowCells::RowCells(const IncompleteData& d, const ClusteredRows& rows) : d_(&d), rows_(&rows) {
  if (static_cast<Index>(rows.unit.size()) != d.p || rows.nclusters != d.nclusters())
    throw std::invalid_argument("rows are not those of the statistics");
}

Index RowCells::find(std::ptrdiff_t row) {
  const Index j = rows_->codes[row];
  if (j < 0 || j >= d_->nclusters()) throw std::invalid_argument("cluster code out of range");
  seen_.clear();
  for (Index k = 0; k < d_->p; ++k) {
    if (!std::isnan(rows_->unit[k][row])) seen_.push_back(k);
  }
  if (seen_.empty()) return -1;
  for (Index c = d_->first_cell[j]; c < d_->first_cell[j + 1]; ++c) {
    if (d_->unit_patterns[d_->cell_pattern[c]] == seen_) return c;
  }
  throw std::invalid_argument("rows are not those of the statistics");
}

// A unit's x less what the others of its cluster predict, which is V (q - W_r x) with V and q theirs.
UnitMap others_map(const Arranged& a, const ClusterEvidence& others, Index pattern, const Matrix& left,
                   Matrix cov) {
  const Matrix back = product(left.leftCols(a.b), others.posterior);
  return {left + product(back, a.weights[pattern].topRows(a.b)), -back, std::move(cov)};
}

// Covariance matrix of what a unit with some pattern has observed, between parts given the others included.
Matrix with_others(const Arranged& a, const ClusterEvidence& others, const Matrix& own, const Pattern& seen) {
  Matrix whole = own;
  whole.topLeftCorner(a.b, a.b) += others.posterior;
  return select(whole, seen, seen);
}

}  // namespace msem
