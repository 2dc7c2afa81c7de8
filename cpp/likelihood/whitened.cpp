#include "likelihood/whitened.hpp"

#include "likelihood/domain.hpp"

namespace msem {

bool ConditionalLevel::compute(const Matrix& moments, const Vector& mean, Index count) {
  const Index b = count, q = moments.rows() - b;
  cov = moments.topLeftCorner(b, b);
  slopes.setZero(b, q);
  projection.setZero(b + q, b);
  projection.topRows(b).setIdentity();
  mu_z = mean.tail(q);
  const Matrix cov_z = moments.bottomRightCorner(q, q);
  if (!chol_z.compute(cov_z) || !regular(chol_z, cov_z.diagonal())) return false;
  if (!q) return true;
  slopes = chol_z.whiten(moments.bottomLeftCorner(q, b)).transpose();
  add_outer(cov, -1, slopes, slopes);
  projection.bottomRows(q) = -chol_z.whiten_transposed(slopes.transpose());
  return true;
}

Whitened whiten_between(const Tangents& t, const Matrix& projection, const Cholesky& chol_z, Index q) {
  const Index p = projection.cols(), k = t.parameters();
  Whitened out;
  if (p) {
    out.cov = rotated_cov(t, projection);
    out.mean = cross(projection, t.mean);
  } else {
    out.cov.resize(0, t.k());
    out.mean.resize(0, t.k());
  }
  out.slope.setZero(p * q, k);
  out.zcov.setZero(q * q, k);
  out.zmean.resize(q, t.k());
  if (q) {
    const Matrix left = chol_z.whiten(t.left.bottomRows(q)), right = chol_z.whiten(t.right.bottomRows(q));
    const Matrix left_y = cross(projection, t.left), right_y = cross(projection, t.right);
    for (std::size_t e = 0; e < t.parameter.size(); ++e) {
      auto zcov = slice(out.zcov, t.parameter[e], q, q);
      for (Index j = 0; j < q; ++j) zcov.col(j) += left.col(e) * right(j, e) + right.col(e) * left(j, e);
      if (!p) continue;
      // dB L = (T dSigma_b)_{.z} L^-T
      auto slope = slice(out.slope, t.parameter[e], p, q);
      for (Index j = 0; j < q; ++j) slope.col(j) += left_y.col(e) * right(j, e) + right_y.col(e) * left(j, e);
    }
    out.zmean = chol_z.whiten(t.mean.bottomRows(q));
  }
  out.slope = t.in_basis(std::move(out.slope));
  out.zcov = t.in_basis(std::move(out.zcov));
  return out;
}

BetweenGradient between_gradient(const Matrix& projection, const Cholesky& chol_z, const Matrix& g_c,
                                 const Vector& g_m, const Matrix& g_b, const Matrix& g_zz,
                                 const Vector& g_z) {
  const Index n = projection.rows(), p = projection.cols(), q = g_z.size();
  BetweenGradient out{Vector::Zero(n), Matrix::Zero(n, n)};
  if (p) {
    out.cov = outer_sandwich(projection, g_c);
    out.mean = apply(projection, g_m);
  }
  if (q) {
    if (p) {
      // dB L = (T dSigma_b)_{.z} L^-T
      const Matrix half = outer(projection, chol_z.whiten_transposed(0.5 * g_b.transpose()));
      out.cov.rightCols(q) += half;
      out.cov.bottomRows(q) += half.transpose();
    }
    const Matrix half = chol_z.whiten_transposed(g_zz);
    out.cov.bottomRightCorner(q, q) += chol_z.whiten_transposed(half.transpose());
    out.mean.tail(q) += chol_z.whiten_transposed(g_z);
  }
  symmetrise(out.cov);
  return out;
}

void add_curvature_of_conditioning(const Whitened& between, const Canonical& g, Matrix& bb) {
  // C, B and the conditional mean are not linear in Sigma_b and mu_b:
  //   d2C = -(dB_a Szz dB_b' + dB_b Szz dB_a'),  d2B = -(dB_a dSzz_b + dB_b dSzz_a) Szz^-1,
  //   d2(mu_y - B mu_z) = -(dB_a dmu_z,b + dB_b dmu_z,a) - d2B mu_z.
  const Index p = g.m.size(), q = between.zmean.rows(), k = between.k();
  if (p == 0 || q == 0) return;
  const Eigen::Map<const Matrix> slopes(between.slope.data(), p, q * k);
  const Matrix g_slopes = product(g.c, slopes);
  add_cross(bb, -2, between.slope, Eigen::Map<const Matrix>(g_slopes.data(), p * q, k));
  const Matrix g_b_slopes = cross(g.b, slopes);             // q x (q k): g_b' b~_a
  const Vector g_m_slopes = apply_transposed(slopes, g.m);  // (q k): b~_a' g_m
  add_with_transpose(bb, -1, cross(Eigen::Map<const Matrix>(g_b_slopes.data(), q * q, k), between.zcov));
  add_with_transpose(bb, -1, cross(Eigen::Map<const Matrix>(g_m_slopes.data(), q, k), between.zmean));
}

void add_cluster_curvature(const Whitened& between, const ClusterPart& z, Matrix& bb) {
  const Index q = between.zmean.rows(), k = between.k();
  if (q == 0) return;
  add_cross(bb, 2 * z.count, between.zmean, between.zmean);
  add_cross(bb, -z.count, between.zcov, between.zcov);
  const Eigen::Map<const Matrix> wide(between.zcov.data(), q, q * k);
  const Matrix s_cov = product(z.scatter, wide);
  add_cross(bb, 2, between.zcov, Eigen::Map<const Matrix>(s_cov.data(), q * q, k));
  const Vector residual_cov = 2 * z.count * apply_transposed(wide, z.residual);  // (q k)
  add_with_transpose(bb, 1, cross(Eigen::Map<const Matrix>(residual_cov.data(), q, k), between.zmean));
}

}  // namespace msem
