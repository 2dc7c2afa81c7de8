#include "base/root.hpp"

namespace msem {

Matrix symmetric_root(const Matrix& a) {
  const Vector scale = a.diagonal().cwiseAbs().cwiseSqrt();
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, a));
  const double least = 1e-13 * static_cast<double>(a.rows());
  const Vector root = eigen.values.unaryExpr([&](double v) { return v > least ? std::sqrt(v) : 0.0; });
  return scale_cols(scale_rows(scale, eigen.vectors), root).transpose();
}

}  // namespace msem
