#include "model/tangents.hpp"

namespace msem {

Tangents rows_of(const Tangents& t, const std::vector<Index>& rows) {
  return {select_rows(t.mean, rows), select_rows(t.left, rows), select_rows(t.right, rows), t.parameter,
          t.basis};
}

Matrix rotated_cov(const Tangents& tangents, const Matrix& r) {
  const Index m = r.cols();
  const Matrix left = cross(r, tangents.left), right = cross(r, tangents.right);
  Matrix out = Matrix::Zero(m * m, tangents.parameters());
  for (std::size_t e = 0; e < tangents.parameter.size(); ++e) {
    auto cov = slice(out, tangents.parameter[e], m, m);
    for (Index j = 0; j < m; ++j) {
      cov.col(j) += left.col(e) * right(j, e) + right.col(e) * left(j, e);
    }
  }
  return tangents.in_basis(std::move(out));
}

Matrix rotated_cov(const Tangents& tangents, const Matrix& r, const Matrix& s) {
  const Index m = r.cols();
  const Matrix left_r = cross(r, tangents.left), right_r = cross(r, tangents.right);
  const Matrix left_s = cross(s, tangents.left), right_s = cross(s, tangents.right);
  Matrix out = Matrix::Zero(m * m, tangents.parameters());
  for (std::size_t e = 0; e < tangents.parameter.size(); ++e) {
    auto cov = slice(out, tangents.parameter[e], m, m);
    for (Index j = 0; j < m; ++j) {
      cov.col(j) += left_r.col(e) * right_s(j, e) + right_r.col(e) * left_s(j, e) +
                    right_s.col(e) * left_r(j, e) + left_s.col(e) * right_r(j, e);
    }
  }
  return tangents.in_basis(std::move(out));
}

}  // namespace msem
