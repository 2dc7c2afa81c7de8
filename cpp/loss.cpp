#include "loss.hpp"

namespace msem {

Matrix rotated_cov(const Tangents& tangents, const Matrix& r) {
  const Index m = r.cols();
  const Matrix left = r.transpose() * tangents.left;
  const Matrix right = r.transpose() * tangents.right;
  Matrix out = Matrix::Zero(m * m, tangents.parameters());
  for (std::size_t e = 0; e < tangents.parameter.size(); ++e) {
    auto cov = slice(out, tangents.parameter[e], m, m);
    for (Index j = 0; j < m; ++j) {
      cov.col(j) += left.col(e) * right(j, e) + right.col(e) * left(j, e);
    }
  }
  return tangents.in_basis(std::move(out));
}

}  // namespace msem
