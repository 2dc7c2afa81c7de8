#include "after/posterior_cells.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "after/cell_units.hpp"
#include "after/conditional.hpp"

namespace msem {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Covariance matrix of the latent variables with this information, NaN for those that it does not determine.
Matrix determined_cov(const Matrix& information) {
  const Index n = information.rows();
  std::vector<Index> some;
  for (Index k = 0; k < n; ++k) {
    if (information(k, k) > 0) some.push_back(k);
  }
  Matrix out = Matrix::Constant(n, n, kNone);
  const ScaledInverse found = scaled_inverse(select(information, some, some));
  if (!some.empty() && found.pivot > kSingular) put(out, some, some, found.inverse);
  return out;
}

// cov * x, NaN in the rows of latent variables that are not determined and without them in the others.
Matrix determined_product(const Matrix& cov, const Matrix& x) {
  std::vector<Index> some;
  for (Index k = 0; k < cov.rows(); ++k) {
    if (!std::isnan(cov(k, k))) some.push_back(k);
  }
  Matrix out = Matrix::Constant(x.rows(), x.cols(), kNone);
  if (!some.empty()) put_rows(out, some, product(select(cov, some, some), select_rows(x, some)));
  return out;
}

// Refuse latent variables that complete data would not determine either; `noise` is any covariance matrix.
void require_determined(const Matrix& loadings, const Matrix& noise) {
  if (!loadings.cols()) return;
  const Vector scale = noise.diagonal().cwiseMax(std::numeric_limits<double>::min()).cwiseInverse();
  const ScaledInverse found = scaled_inverse(weighted_cross(loadings, scale, loadings));
  if (!(found.pivot > kSingular))
    throw std::domain_error("the observed variables do not determine the latent variables");
}

// Calls map(class, evidence) for the covariance matrix of a class, then one(row of scores, view, map's
// result) for its clusters.
template <class Map, class One>
Scores map_classes(const Arranged& a, Index d, Map map, One one) {
  const Index total = a.d.nclusters();
  Scores out{RowMatrix::Constant(total, d, kNone), Matrix(d * d, std::max<Index>(a.nclasses(), 1)),
             std::vector<Index>(total, 0)};
  ClusterEvidence evidence;
  ClusterView view;
  Vector row(d);
  for (Index c = 0; c < a.nclasses(); ++c) {
    const ClusterClass& own = a.index.classes[c];
    a.gather(own.members[0], evidence);
    slice(out.cov, c, d, d) = map(own.pattern, evidence);
    const Matrix cov = slice(out.cov, c, d, d);
    for (const Index j : own.members) {
      a.view(j, evidence, view);
      one(own.pattern, cov, view, row);
      out.mean.row(j) = row;
      out.which[j] = c;
    }
  }
  return out;
}

Scores map_units(const Arranged& a, const Vector& centre, const UnitMaps& found, const ClusteredRows& rows) {
  const Index d = centre.size(), count = static_cast<Index>(found.maps.size());
  Scores out{RowMatrix(rows.nrows, d), Matrix(d * d, count), std::vector<Index>(rows.nrows)};
  for (Index k = 0; k < count; ++k) slice(out.cov, k, d, d) = found.maps[k].cov;
  for_each_unit(a, found, rows, [&](std::ptrdiff_t i, Index which, const Vector& row) {
    out.mean.row(i) = centre + row;
    out.which[i] = which;
  });
  return out;
}

}  // namespace

GroupMoments group_moments(const IncompleteData& data, Implied levels) {
  return group_moments(data.p, data.nboth, data.q, std::move(levels));
}

Scores cluster_posterior(const GroupMoments& m, const IncompleteData& data) {
  const Arranged a(m, data, between_observed(m));
  const Index b = a.b, first = b + m.q, latent = m.mean_b.size() - first, d = b + latent;
  std::vector<Index> targets(d);
  for (Index k = 0; k < d; ++k) targets[k] = k < b ? k : k + m.q;
  const Vector centre = select(m.mean_b, targets);
  std::vector<Matrix> slopes, cov;  // of the targets given z, by pattern
  for (std::size_t t = 0; t < a.levels.size(); ++t) {
    const std::vector<Index> z(a.index.rows[t].begin() + b, a.index.rows[t].end());
    slopes.push_back(Matrix::Zero(d, static_cast<Index>(z.size())));
    cov.push_back(select(m.cov_b, targets, targets));
    if (z.empty()) continue;
    slopes[t] = a.levels[t].chol_z.whiten(select(m.cov_b, z, targets)).transpose();
    add_outer(cov[t], -1, slopes[t], slopes[t]);
  }
  return map_classes(
      a, d,
      [&](Index t, const ClusterEvidence& evidence) {
        Matrix out = cov[t];
        if (b) out -= outer_sandwich(cov[t].leftCols(b), evidence.resolvent);
        symmetrise(out);
        return out;
      },
      [&](Index t, const Matrix&, const ClusterView& view, Vector& row) {
        row = centre;
        add_applied(row, 1, slopes[t], view.z);
        add_applied(row, 1, cov[t].leftCols(b), view.u.head(b));
      });
}

Scores cluster_bartlett(const GroupMoments& m, const Measurement& measurement, const IncompleteData& data) {
  const Index latent = m.mean_b.size() - m.nboth - m.q, b = m.nboth;
  require_measurement(measurement, b + m.q, latent);
  const Arranged a(m, data, measurement.residual);
  Matrix noise = measurement.residual;
  noise.topLeftCorner(b, b) += m.cov_w.topLeftCorner(b, b);
  require_determined(measurement.loadings, noise);
  const Vector centre = m.mean_b.tail(latent);
  std::vector<Matrix> of_z, of_x;  // loadings of L^-1 z and of x, by pattern
  for (std::size_t t = 0; t < a.levels.size(); ++t) {
    const std::vector<Index> z(a.index.rows[t].begin() + b, a.index.rows[t].end());
    Matrix own(static_cast<Index>(z.size()), latent);
    for (Index k = 0; k < own.rows(); ++k) own.row(k) = measurement.loadings.row(z[k]);
    of_z.push_back(z.empty() ? own : a.levels[t].chol_z.whiten(own));
    of_x.push_back(measurement.loadings.topRows(b) - product(a.levels[t].slopes, of_z[t]));
  }
  return map_classes(
      a, latent,
      [&](Index t, const ClusterEvidence& evidence) {
        Matrix information = cross(of_z[t], of_z[t]);
        if (b) information += sandwich(of_x[t], evidence.resolvent);
        return determined_cov(information);
      },
      [&](Index t, const Matrix& cov, const ClusterView& view, Vector& row) {
        const Vector said = apply_transposed(of_z[t], view.z) + apply_transposed(of_x[t], view.u.head(b));
        row = centre + determined_product(cov, said);
      });
}

Scores unit_posterior(const GroupMoments& m, const ClusteredRows& rows, const IncompleteData& data) {
  const Arranged a(m, data, between_observed(m));
  const Index p = m.p, latent = m.mean_w.size() - p;
  const Matrix joint = m.cov_w.topRightCorner(p, latent), prior = m.cov_w.bottomRightCorner(latent, latent);
  UnitMap nothing{Matrix::Zero(latent, p), Matrix::Zero(latent, a.b), prior};
  const UnitMaps found = unit_maps(a, nothing, [&](Index r, Index, const ClusterEvidence& evidence) {
    const Matrix factor = cross(joint, a.weights[r]);  // F: of eta on what is observed of w
    const Matrix back = product(factor.leftCols(a.b), evidence.posterior);
    Matrix cov = prior;
    add_product(cov, -1, factor, joint);
    add_outer(cov, 1, back, factor.leftCols(a.b));
    symmetrise(cov);
    return UnitMap{factor, -back, cov};
  });
  return map_units(a, m.mean_w.tail(latent), found, rows);
}

Scores unit_bartlett(const GroupMoments& m, const Measurement& measurement, const ClusteredRows& rows,
                     const IncompleteData& data) {
  const Index p = m.p, latent = m.mean_w.size() - p;
  require_measurement(measurement, p, latent);
  const Arranged a(m, data, between_observed(m));
  require_determined(measurement.loadings, a.within);
  UnitMap nothing{Matrix::Constant(latent, p, kNone), Matrix::Constant(latent, a.b, kNone),
                  Matrix::Constant(latent, latent, kNone)};
  ClusterEvidence others;
  const UnitMaps found = unit_maps(a, nothing, [&](Index r, Index cluster, const ClusterEvidence&) {
    const Pattern& seen = data.unit_patterns[r];
    a.gather(cluster, others, r);
    Cholesky chol;
    if (!chol.compute(with_others(a, others, measurement.residual, seen)))
      throw std::domain_error("the residual covariance matrix is not positive definite");
    Matrix loadings(static_cast<Index>(seen.size()), latent), weighted = Matrix::Zero(latent, p);
    for (Index k = 0; k < loadings.rows(); ++k) loadings.row(k) = measurement.loadings.row(seen[k]);
    const Matrix of_seen = chol.solve(loadings).transpose();
    for (Index k = 0; k < loadings.rows(); ++k) weighted.col(seen[k]) = of_seen.col(k);
    const Matrix cov = determined_cov(product(of_seen, loadings));
    return others_map(a, others, r, determined_product(cov, weighted), cov);
  });
  return map_units(a, m.mean_w.tail(latent), found, rows);
}

}  // namespace msem
