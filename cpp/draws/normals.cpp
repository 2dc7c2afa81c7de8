// Normal variables given some of them, and roots of covariance matrices to draw them by.
#include "draws/normals.hpp"

#include <stdexcept>
#include <utility>

namespace msem {

namespace {

constexpr double kNegative = -1e-8;  // eigenvalue in correlation metric below which a matrix is indefinite

}  // namespace

Matrix semidefinite_root(const Matrix& cov) {
  const Vector scale = cov.diagonal().cwiseMax(0).cwiseSqrt();
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, cov));
  if (cov.rows() && !(eigen.values(0) > kNegative && cov.diagonal().minCoeff() >= 0))
    throw std::domain_error("the model-implied between covariance matrix is not positive semidefinite");
  const Matrix half = scale_cols(eigen.vectors, eigen.values.cwiseMax(0.0).cwiseSqrt().cwiseSqrt());
  return scale_rows(scale, outer(half, half));
}

ConditionalNormal::ConditionalNormal(const Matrix& cov, std::vector<Index> given_)
    : given(std::move(given_)), drawn(others(cov.rows(), given)), residual(select(cov, drawn, drawn)) {
  slopes.setZero(residual.rows(), static_cast<Index>(given.size()));
  if (given.empty()) return;
  Cholesky chol;
  if (!chol.compute(select(cov, given, given)))
    throw std::domain_error("the covariance matrix of the covariates is singular");
  const Matrix joint = select(cov, given, drawn);
  slopes = chol.solve(joint).transpose();
  add_product(residual, -1, slopes, joint);
  symmetrise(residual);
}

Vector ConditionalNormal::mean_at(const Vector& at, const Vector& mean) const {
  Vector out = select(mean, drawn);
  add_applied(out, 1, slopes, select(at, given) - select(mean, given));
  return out;
}

}  // namespace msem
