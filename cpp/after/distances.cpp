#include <algorithm>
#include <stdexcept>

#include "after/cell_units.hpp"
#include "after/conditional.hpp"
#include "after/posterior_cells.hpp"

namespace msem {

namespace {

// Those of some variables that are observed, as positions among the observed.
std::vector<Index> positions_of(const std::vector<Index>& some, const Pattern& seen) {
  std::vector<Index> out;
  for (std::size_t k = 0; k < seen.size(); ++k) {
    if (std::find(some.begin(), some.end(), seen[k]) != some.end()) out.push_back(static_cast<Index>(k));
  }
  return out;
}

void require_within_only(const Covariates& covariates, const IncompleteData& d) {
  for (const Index k : covariates.unit) {
    if (k < d.nboth || k >= d.p) throw std::invalid_argument("covariates must be within-only variables");
  }
}

// T'T at the positions of a pattern for T the whitener of what it observes given the covariates.
Matrix conditional_weight(const Matrix& cov, const Pattern& seen, const std::vector<Index>& covariates) {
  const Matrix root = conditional_whitener(select(cov, seen, seen), positions_of(covariates, seen));
  Matrix out = Matrix::Zero(cov.rows(), cov.cols());
  put(out, seen, seen, cross(root, root));
  return out;
}

// The cells of a class of clusters given the covariates.
struct ClassDistance {
  std::vector<Index> free;  // observed variables that are no covariates
  Matrix inverse;           // covariance of the estimate of their means within a cluster
  Cholesky whole;           // the same with that of the between parts
  double nvalues = 0;       // observed values of units that are no covariates

  ClassDistance(const Arranged& a, Index cluster, const std::vector<Matrix>& weights,
                const std::vector<Index>& covariates) {
    const IncompleteData& d = a.d;
    Matrix precision = Matrix::Zero(d.p, d.p);
    std::vector<char> seen(d.p);
    for (Index c = d.first_cell[cluster]; c < d.first_cell[cluster + 1]; ++c) {
      precision += d.cell_rows[c] * weights[d.cell_pattern[c]];
      for (const Index k : d.unit_patterns[d.cell_pattern[c]]) {
        if (std::find(covariates.begin(), covariates.end(), k) != covariates.end()) continue;
        nvalues += d.cell_rows[c];
        seen[k] = 1;
      }
    }
    for (Index k = 0; k < d.p; ++k) {
      if (seen[k]) free.push_back(k);
    }
    if (free.empty()) return;
    Cholesky chol;
    const bool fine = chol.compute(select(precision, free, free));
    if (fine) inverse = chol.inverse();
    Matrix effects = Matrix::Zero(d.p, d.p);
    effects.topLeftCorner(a.b, a.b) = a.level(cluster).cov;
    if (!fine || !whole.compute(inverse + select(effects, free, free)))
      throw std::domain_error("the covariance matrix of a cluster is not positive definite");
  }
  double df() const { return static_cast<double>(free.size()); }
};

}  // namespace

Distances cluster_distances(const GroupMoments& m, const Covariates& covariates, const IncompleteData& data,
                            const Matrix& products) {
  require_within_only(covariates, data);
  const Index p = data.p, b = data.nboth, total = data.nclusters();
  if (products.rows() != p * (p + 1) / 2 || products.cols() != data.ncells())
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  const Arranged a(m, data, between_observed(m));
  const Matrix packed = products.transpose();
  std::vector<Matrix> weights, of_z;
  for (const Pattern& seen : data.unit_patterns)
    weights.push_back(conditional_weight(a.within, seen, covariates.unit));
  const Matrix cov_z = m.cov_b.block(b, b, m.q, m.q);
  for (const Pattern& seen : data.cluster_patterns)
    of_z.push_back(conditional_whitener(select(cov_z, seen, seen), positions_of(covariates.cluster, seen)));
  Distances out{Vector::Zero(total), Vector::Zero(total), Vector::Zero(total), Vector::Zero(total)};
  Vector z, centre, q(p), off(p), estimate;
  for (const ClusterClass& own : a.index.classes) {
    const ClassDistance one(a, own.members[0], weights, covariates.unit);
    const ConditionalLevel& level = a.levels[own.pattern];
    for (const Index j : own.members) {
      z = data.cluster_values(data.cluster_patterns[own.pattern], j) - level.mu_z;
      out.between[j] = apply(of_z[own.pattern], z).squaredNorm();
      out.between_df[j] = one.df() + static_cast<double>(of_z[own.pattern].rows());
      out.within_df[j] = one.nvalues - one.df();
      if (one.free.empty()) continue;
      centre = a.mu;
      if (z.size()) add_applied(centre.head(b), 1, level.slopes, level.chol_z.whiten(z).col(0));
      q.setZero();
      for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c)
        add_applied(q, data.cell_rows[c], weights[data.cell_pattern[c]], data.cell_means.col(c) - centre);
      estimate = apply(one.inverse, select(q, one.free));
      out.between[j] += one.whole.whiten(estimate).squaredNorm();
      centre(one.free) += estimate;
      for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
        const Matrix& weight = weights[data.cell_pattern[c]];
        off = data.cell_means.col(c) - centre;
        out.within[j] += data.cell_rows[c] * off.dot(apply(weight, off)) +
                         weight.cwiseProduct(unpack_lower(packed, c, p)).sum();
      }
    }
  }
  return out;
}

UnitDistances unit_distances(const GroupMoments& m, const Covariates& covariates, const ClusteredRows& rows,
                             const IncompleteData& data) {
  require_within_only(covariates, data);
  const Index p = data.p;
  const Arranged a(m, data, between_observed(m));
  ClusterEvidence others;
  const UnitMap nothing{Matrix::Zero(p, p), Matrix::Zero(p, a.b), {}};
  const UnitMaps found = unit_maps(a, nothing, [&](Index r, Index cluster, const ClusterEvidence&) {
    const Pattern& seen = data.unit_patterns[r];
    a.gather(cluster, others, r);
    const Matrix root =
        conditional_whitener(with_others(a, others, a.within, seen), positions_of(covariates.unit, seen));
    Matrix left = Matrix::Zero(p, p);  // as many rows for every pattern
    for (Index k = 0; k < root.cols(); ++k) left.col(seen[k]).head(root.rows()) = root.col(k);
    return others_map(a, others, r, left, {});
  });
  UnitDistances out{Vector(rows.nrows), Vector(rows.nrows)};
  for_each_unit(a, found, rows, [&](std::ptrdiff_t i, Index which, const Vector& row) {
    out.distance[i] = row.squaredNorm();
    const Index r = found.pattern[which];
    out.df[i] = 0;
    if (r < 0) return;
    const Pattern& seen = data.unit_patterns[r];
    out.df[i] = static_cast<double>(seen.size() - positions_of(covariates.unit, seen).size());
  });
  return out;
}

}  // namespace msem
