#include "after/posterior.hpp"

#include <algorithm>
#include <stdexcept>

#include "after/conditional.hpp"

namespace msem {

namespace {

// Distinct cluster sizes and the position of each cluster's among them.
struct Sizes {
  std::vector<double> distinct;
  std::vector<Index> index;

  explicit Sizes(const Vector& sizes) : distinct(sizes.begin(), sizes.end()) {
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    for (const double n : sizes)
      index.push_back(std::lower_bound(distinct.begin(), distinct.end(), n) - distinct.begin());
  }
};

// Between parts b of the p unit-level variables given the cluster variables z: mean B z~, covariance C.
struct Effects {
  Matrix slopes, cov;
  Cholesky chol_z;

  // `between`: covariances of the variables at both levels, then z.
  Effects(const Matrix& between, Index p, Index nboth, Index q) {
    slopes.setZero(p, q);
    cov.setZero(p, p);
    cov.topLeftCorner(nboth, nboth) = between.topLeftCorner(nboth, nboth);
    if (!q) return;
    const Matrix joint = between.block(nboth, 0, q, nboth);
    if (!chol_z.compute(between.block(nboth, nboth, q, q)))
      throw std::domain_error("the covariance matrix of the cluster variables is not positive definite");
    slopes.topRows(nboth) = chol_z.solve(joint).transpose();
    add_product(cov.topLeftCorner(nboth, nboth), -1, slopes.topRows(nboth), joint);
    symmetrise(cov);
  }
  // Sigma_zz^-1 x
  Matrix solve_z(const Matrix& x) const { return x.rows() ? chol_z.solve(x) : x; }
};

// (Sigma_w + n C)^-1 for any n, by one factorisation of Sigma_w and one for each n.
class UnitEvidence {
 public:
  UnitEvidence(const Matrix& within, const Matrix& effects) {
    if (!within.rows()) return;
    if (!chol_.compute(within))
      throw std::domain_error("the within covariance matrix is not positive definite");
    reduced_ = chol_.whiten(chol_.whiten(effects).transpose());
    symmetrise(reduced_);
  }
  Matrix resolvent(double n) const {
    const Index p = reduced_.rows();
    if (!p) return {};
    Cholesky inner;
    if (!inner.compute(Matrix::Identity(p, p) + n * reduced_))
      throw std::domain_error("the covariance matrix of a cluster is not positive definite");
    return chol_.whiten_transposed(chol_.whiten_transposed(inner.inverse()).transpose());
  }

 private:
  Cholesky chol_;
  Matrix reduced_;
};

void require_clusters(const GroupMoments& m, const ClusterArrays& c) {
  const Index total = c.sizes.size();
  if (c.means.rows() != total || c.means.cols() != m.p + m.q)
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
}

void require_rows(const GroupMoments& m, const ClusteredRows& rows, const ClusterArrays& clusters) {
  if (static_cast<Index>(rows.unit.size()) != m.p || rows.nclusters != clusters.sizes.size())
    throw std::invalid_argument("rows and statistics of clusters have inconsistent shapes");
}

// ---- cluster level ---------------------------------------------------------------------------------------

// Coefficients of z~ and of the cluster's mean of x for clusters of one size, and the covariance that goes
// with them.
struct ClusterMap {
  Matrix z, x, cov;
};

// z~ and the mean of x of every cluster as columns: (p + q) x J, x first.
Matrix deviations(const Effects& effects, const Vector& mean, const ClusterArrays& clusters) {
  Matrix out = clusters.means.transpose();
  out.colwise() -= mean;
  const Index p = effects.slopes.rows(), q = effects.slopes.cols();
  if (q) out.topRows(p) -= product(effects.slopes, out.bottomRows(q));
  return out;
}

template <class Map>
Scores map_clusters(const GroupMoments& m, const Effects& effects, const Vector& centre,
                    const ClusterArrays& clusters, Map map) {
  const Sizes sizes(clusters.sizes);
  const Matrix x = deviations(effects, observed_mean(m), clusters);
  const Index d = centre.size();
  Scores out{RowMatrix(x.cols(), d), Matrix(d * d, static_cast<Index>(sizes.distinct.size())), sizes.index};
  std::vector<ClusterMap> maps;
  for (const double n : sizes.distinct) {
    maps.push_back(map(n));
    slice(out.cov, static_cast<Index>(maps.size()) - 1, d, d) = maps.back().cov;
  }
  for (Index j = 0; j < x.cols(); ++j) {
    const ClusterMap& one = maps[sizes.index[j]];
    Vector row = centre;
    if (m.q) add_applied(row, 1, one.z, x.col(j).tail(m.q));
    if (m.p) add_applied(row, 1, one.x, x.col(j).head(m.p));
    out.mean.row(j) = row;
  }
  return out;
}

// (L' W^-1 L)^-1 for information L' W^-1 L; the latent variables must be determined by it.
Matrix latent_cov(const Matrix& information) {
  const ScaledInverse found = scaled_inverse(information);
  if (information.rows() && !(found.pivot > kSingular))
    throw std::domain_error("the observed variables do not determine the latent variables");
  return found.inverse;
}

// ---- unit level ------------------------------------------------------------------------------------------

// Coefficients of a unit's x and of the sum of x over its cluster, and the covariance that goes with them.
struct CompleteUnitMap {
  Matrix unit, sum, cov;
};

template <class Visit>
void for_each_unit(const GroupMoments& m, const Effects& effects, const std::vector<CompleteUnitMap>& maps,
                   const std::vector<Index>& size_index, const ClusteredRows& rows,
                   const ClusterArrays& clusters, Visit visit) {
  const Vector mean = observed_mean(m);
  const Matrix x = deviations(effects, mean, clusters);
  const Index total = x.cols(), d = maps.empty() ? 0 : maps[0].unit.rows();
  Matrix shift(m.p, total);  // what x of a cluster's units is measured from
  Matrix share(d, total);    // what the cluster contributes to each of them
  for (Index j = 0; j < total; ++j) {
    shift.col(j) = clusters.means.row(j).head(m.p).transpose() - x.col(j).head(m.p);
    share.col(j) = clusters.sizes[j] * apply(maps[size_index[j]].sum, x.col(j).head(m.p));
  }
  Vector unit(m.p), row(d);
  for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
    const Index j = rows.codes[i];
    if (j < 0 || j >= total) throw std::invalid_argument("cluster code out of range");
    for (Index k = 0; k < m.p; ++k) unit[k] = rows.unit[k][i] - shift(k, j);
    row = share.col(j);
    add_applied(row, 1, maps[size_index[j]].unit, unit);
    visit(i, row);
  }
}

template <class Map>
Scores map_units(const GroupMoments& m, const Effects& effects, const ClusteredRows& rows,
                 const ClusterArrays& clusters, Map map) {
  const Sizes sizes(clusters.sizes);
  const Vector centre = m.mean_w.tail(m.mean_w.size() - m.p);
  const Index d = centre.size();
  Scores out{RowMatrix(rows.nrows, d), Matrix(d * d, static_cast<Index>(sizes.distinct.size())),
             std::vector<Index>(rows.nrows)};
  std::vector<CompleteUnitMap> maps;
  for (const double n : sizes.distinct) {
    maps.push_back(map(n));
    slice(out.cov, static_cast<Index>(maps.size()) - 1, d, d) = maps.back().cov;
  }
  for_each_unit(m, effects, maps, sizes.index, rows, clusters, [&](std::ptrdiff_t i, const Vector& row) {
    out.mean.row(i) = centre + row;
    out.which[i] = sizes.index[rows.codes[i]];
  });
  return out;
}

// A unit's x less what the others of its cluster predict: (I + C Q) x - C Q s with Q = Q_(n-1), and the
// covariance C - (n - 1) C Q C of the between parts given the others.
struct OtherUnits {
  Matrix cq, cov;

  OtherUnits(const UnitEvidence& evidence, const Matrix& effects, double n)
      : cq(product(effects, evidence.resolvent(n - 1))), cov(effects) {
    add_product(cov, 1 - n, cq, effects);
  }
  CompleteUnitMap map(const Matrix& left) const {
    const Matrix predicted = product(left, cq);
    return {left + predicted, -predicted, {}};
  }
};

}  // namespace

GroupMoments group_moments(Index p, Index nboth, Index q, Implied levels) {
  GroupMoments out{p, nboth, q, Vector(0), Vector(0), Matrix(0, 0), Matrix(0, 0)};
  bool fits = 0 <= nboth && nboth <= p && 0 <= q && levels.size() == (p ? 2u : 1u);
  for (const LevelImplied& one : levels)
    fits = fits && one.cov.rows() == one.mean.size() && one.cov.cols() == one.mean.size();
  if (fits && p) {
    out.mean_w = std::move(levels.front().mean);
    out.cov_w = std::move(levels.front().cov);
  }
  if (fits) {
    out.mean_b = std::move(levels.back().mean);
    out.cov_b = std::move(levels.back().cov);
  }
  if (!fits || out.mean_w.size() < p || out.mean_b.size() < nboth + q)
    throw std::invalid_argument("the moments must be those of the variables");
  return out;
}

Scores cluster_posterior(const GroupMoments& m, const ClusterArrays& clusters) {
  require_clusters(m, clusters);
  const Index p = m.p, q = m.q, b = m.nboth, latent = m.mean_b.size() - b - q, d = b + latent;
  const Effects effects(between_observed(m), p, b, q);
  const UnitEvidence evidence(m.cov_w.topLeftCorner(p, p), effects.cov);
  std::vector<Index> targets;
  for (Index k = 0; k < b + q + latent; ++k) {
    if (k < b || k >= b + q) targets.push_back(k);
  }
  Matrix cov = select(m.cov_b, targets, targets), slopes = Matrix::Zero(d, q);  // of the targets given z
  if (q) {
    const Matrix joint = select_cols(m.cov_b.middleRows(b, q), targets);
    slopes = effects.solve_z(joint).transpose();
    add_product(cov, -1, slopes, joint);
  }
  Matrix joint = Matrix::Zero(d, p);
  joint.leftCols(b) = cov.leftCols(b);
  return map_clusters(m, effects, select(m.mean_b, targets), clusters, [&](double n) {
    ClusterMap out{slopes, {}, cov};
    if (!p) return out;
    out.x = n * product(joint, evidence.resolvent(n));
    add_outer(out.cov, -1, out.x, joint);
    symmetrise(out.cov);
    return out;
  });
}

Scores cluster_bartlett(const GroupMoments& m, const Measurement& measurement,
                        const ClusterArrays& clusters) {
  require_clusters(m, clusters);
  const Index p = m.p, q = m.q, b = m.nboth, latent = m.mean_b.size() - b - q;
  require_measurement(measurement, b + q, latent);
  const Effects effects(measurement.residual, p, b, q);
  const UnitEvidence evidence(m.cov_w.topLeftCorner(p, p), effects.cov);
  const Matrix on_z = measurement.loadings.bottomRows(q);
  const Matrix weighted_z = effects.solve_z(on_z).transpose();
  Matrix loadings = -product(effects.slopes, on_z);  // of x
  loadings.topRows(b) += measurement.loadings.topRows(b);
  return map_clusters(m, effects, m.mean_b.tail(latent), clusters, [&](double n) {
    Matrix weighted = Matrix::Zero(latent, 0), information = product(weighted_z, on_z);
    if (p) {
      weighted = n * cross(loadings, evidence.resolvent(n));
      add_product(information, 1, weighted, loadings);
    }
    const Matrix cov = latent_cov(information);
    return ClusterMap{product(cov, weighted_z), product(cov, weighted), cov};
  });
}

Scores unit_posterior(const GroupMoments& m, const ClusteredRows& rows, const ClusterArrays& clusters) {
  require_clusters(m, clusters);
  require_rows(m, rows, clusters);
  const Index p = m.p, latent = m.mean_w.size() - p;
  const Effects effects(between_observed(m), p, m.nboth, m.q);
  const Matrix within = m.cov_w.topLeftCorner(p, p);
  const UnitEvidence evidence(within, effects.cov);
  Cholesky chol;
  chol.compute(within);
  const Matrix joint = m.cov_w.topRightCorner(p, latent);
  const Matrix factor = chol.solve(joint).transpose();  // F: of eta on w
  const Matrix left = m.cov_w.bottomRightCorner(latent, latent) - product(factor, joint);
  return map_units(m, effects, rows, clusters, [&](double n) {
    const Matrix cq = product(effects.cov, evidence.resolvent(n));
    CompleteUnitMap out{factor, -product(factor, cq), left};
    out.cov += outer_sandwich(factor, effects.cov - n * product(cq, effects.cov));
    symmetrise(out.cov);
    return out;
  });
}

Scores unit_bartlett(const GroupMoments& m, const Measurement& measurement, const ClusteredRows& rows,
                     const ClusterArrays& clusters) {
  require_clusters(m, clusters);
  require_rows(m, rows, clusters);
  require_measurement(measurement, m.p, m.mean_w.size() - m.p);
  const Effects effects(between_observed(m), m.p, m.nboth, m.q);
  const UnitEvidence evidence(m.cov_w.topLeftCorner(m.p, m.p), effects.cov);
  return map_units(m, effects, rows, clusters, [&](double n) {
    const OtherUnits others(evidence, effects.cov, n);
    Cholesky chol;
    if (!chol.compute(measurement.residual + others.cov))
      throw std::domain_error("the residual covariance matrix is not positive definite");
    const Matrix weighted = chol.solve(measurement.loadings).transpose();
    const Matrix cov = latent_cov(product(weighted, measurement.loadings));
    CompleteUnitMap out = others.map(product(cov, weighted));
    out.cov = cov;
    return out;
  });
}

Distances cluster_distances(const GroupMoments& m, const Covariates& covariates,
                            const ClusterArrays& clusters) {
  require_clusters(m, clusters);
  const Index p = m.p, q = m.q, total = clusters.sizes.size();
  if (clusters.within.rows() != total || clusters.within.cols() != p * (p + 1) / 2)
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  const Effects effects(between_observed(m), p, m.nboth, q);
  const Matrix within = m.cov_w.topLeftCorner(p, p);
  const Matrix of_z = conditional_whitener(m.cov_b.block(m.nboth, m.nboth, q, q), covariates.cluster);
  const Matrix of_w = conditional_whitener(within, covariates.unit);
  const Matrix precision = cross(of_w, of_w);
  const Sizes sizes(clusters.sizes);
  std::vector<Matrix> of_mean;
  for (const double n : sizes.distinct)
    of_mean.push_back(conditional_whitener(within / n + effects.cov, covariates.unit));
  const Matrix x = deviations(effects, observed_mean(m), clusters);
  const double unit_df = static_cast<double>(of_w.rows());
  Distances out{Vector::Zero(total), Vector::Zero(total),
                Vector::Constant(total, unit_df + static_cast<double>(of_z.rows())),
                (clusters.sizes.array() - 1) * unit_df};
  for (Index j = 0; j < total; ++j) {
    out.between[j] = apply(of_z, x.col(j).tail(q)).squaredNorm();
    if (!p) continue;
    out.between[j] += apply(of_mean[sizes.index[j]], x.col(j).head(p)).squaredNorm();
    out.within[j] = precision.cwiseProduct(unpack_lower(clusters.within, j, p)).sum();
  }
  return out;
}

UnitDistances unit_distances(const GroupMoments& m, const Covariates& covariates, const ClusteredRows& rows,
                             const ClusterArrays& clusters) {
  require_clusters(m, clusters);
  require_rows(m, rows, clusters);
  const Effects effects(between_observed(m), m.p, m.nboth, m.q);
  const Matrix within = m.cov_w.topLeftCorner(m.p, m.p);
  const UnitEvidence evidence(within, effects.cov);
  const Sizes sizes(clusters.sizes);
  std::vector<CompleteUnitMap> maps;
  for (const double n : sizes.distinct) {
    const OtherUnits others(evidence, effects.cov, n);
    maps.push_back(others.map(conditional_whitener(within + others.cov, covariates.unit)));
  }
  const Index df = m.p - static_cast<Index>(covariates.unit.size());
  UnitDistances out{Vector(rows.nrows), Vector::Constant(rows.nrows, static_cast<double>(df))};
  for_each_unit(m, effects, maps, sizes.index, rows, clusters,
                [&](std::ptrdiff_t i, const Vector& row) { out.distance[i] = row.squaredNorm(); });
  return out;
}

}  // namespace msem
