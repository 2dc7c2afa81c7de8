#include "likelihood/whitened.hpp"

namespace msem {

Whitened whiten_between(const Tangents& t, const Matrix& projection, const Cholesky& chol_z, Index q) {
  const Index p = projection.cols(), k = t.parameters();
  Whitened out;
  if (p) {
    out.cov = rotated_cov(t, projection);
    out.mean = projection.transpose() * t.mean;
  } else {
    out.cov.resize(0, t.k());
    out.mean.resize(0, t.k());
  }
  out.slope.setZero(p * q, k);
  out.zcov.setZero(q * q, k);
  out.zmean.resize(q, t.k());
  if (q) {
    const Matrix left = chol_z.whiten(t.left.bottomRows(q)), right = chol_z.whiten(t.right.bottomRows(q));
    const Matrix left_y = projection.transpose() * t.left, right_y = projection.transpose() * t.right;
    for (std::size_t e = 0; e < t.parameter.size(); ++e) {
      const Index a = t.parameter[e];
      slice(out.zcov, a, q, q) +=
          left.col(e) * right.col(e).transpose() + right.col(e) * left.col(e).transpose();
      // dB L = (T dSigma_b)_{.z} L^-T
      if (p) {
        slice(out.slope, a, p, q) +=
            left_y.col(e) * right.col(e).transpose() + right_y.col(e) * left.col(e).transpose();
      }
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
    out.cov = projection * g_c * projection.transpose();
    out.mean = projection * g_m;
  }
  if (q) {
    if (p) {
      // dB L = (T dSigma_b)_{.z} L^-T
      const Matrix cross = projection * chol_z.whiten_transposed(g_b.transpose()).transpose();
      out.cov.rightCols(q) += 0.5 * cross;
      out.cov.bottomRows(q) += 0.5 * cross.transpose();
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
  const Matrix g_slopes = g.c * slopes;
  bb -= 2 * between.slope.transpose() * Eigen::Map<const Matrix>(g_slopes.data(), p * q, k);
  const Matrix g_b_slopes = g.b.transpose() * slopes;  // q x (q k): g_b' b~_a
  const Matrix g_m_slopes = slopes.transpose() * g.m;  // (q k): b~_a' g_m
  const Matrix with_cov = Eigen::Map<const Matrix>(g_b_slopes.data(), q * q, k).transpose() * between.zcov;
  const Matrix with_mean = Eigen::Map<const Matrix>(g_m_slopes.data(), q, k).transpose() * between.zmean;
  bb -= with_cov + with_cov.transpose() + with_mean + with_mean.transpose();
}

void add_cluster_curvature(const Whitened& between, const ClusterPart& z, Matrix& bb) {
  const Index q = between.zmean.rows(), k = between.k();
  if (q == 0) return;
  bb += 2 * z.count * between.zmean.transpose() * between.zmean -
        z.count * between.zcov.transpose() * between.zcov;
  const Eigen::Map<const Matrix> wide(between.zcov.data(), q, q * k);
  const Matrix s_cov = z.scatter * wide;
  bb += 2 * between.zcov.transpose() * Eigen::Map<const Matrix>(s_cov.data(), q * q, k);
  const Matrix residual_cov = z.count * (wide.transpose() * z.residual);  // (q k)
  const Matrix cross = 2 * Eigen::Map<const Matrix>(residual_cov.data(), q, k).transpose() * between.zmean;
  bb += cross + cross.transpose();
}

}  // namespace msem
