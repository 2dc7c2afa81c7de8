// The expected information of the two-level likelihood as a linear map of moments.
#include "likelihood/complete/twolevel.hpp"

namespace msem {

Moments TwoLevelPoint::moment_product(const Moments& d) const {
  const Index p = data_->p, q = data_->q;
  Matrix g_w, g_c, g_b, g_zz;
  Vector g_m, g_z;
  if (p) {
    const Matrix w = sandwich(v_, d.cov_w);
    const Matrix c = sandwich(projection_, d.cov_b);
    const Matrix k1 = weights(1);
    const Vector per_mean = apply_transposed(shrink_, data_->counts.cwiseProduct(data_->sizes));
    g_w = 0.5 * (weights(0).cwiseProduct(w) + k1.cwiseProduct(c));
    g_c = 0.5 * (k1.cwiseProduct(w) + weights(2).cwiseProduct(c));
    g_m = per_mean.cwiseProduct(apply_transposed(v_, d.mean_w) + apply_transposed(projection_, d.mean_b));
    if (q) {
      const Matrix slope = chol_z_.whiten(cross(d.cov_b.rightCols(q), projection_));
      g_b = scale_cols(slope, per_mean).transpose();
    }
  }
  if (q) {
    const Matrix half = chol_z_.whiten(d.cov_b.bottomRightCorner(q, q));
    g_zz = 0.5 * data_->nclusters * chol_z_.whiten(half.transpose());
    g_z = data_->nclusters * chol_z_.whiten(d.mean_b.tail(q));
  }
  return assemble(g_w, g_c, g_m, g_b, g_zz, g_z);
}

}  // namespace msem
