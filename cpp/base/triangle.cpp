#include "base/triangle.hpp"

namespace msem {

void add_to_triangle(Matrix& triangle, ConstMatrixRef a) {
  if (a.cols() == 0) return;  // Eigen's choice of blocks divides by their number
  triangle.selfadjointView<Eigen::Lower>().rankUpdate(a);
}

void complete(Matrix& triangle) {
  for (Index j = 1; j < triangle.cols(); ++j) {
    for (Index i = 0; i < j; ++i) triangle(i, j) = triangle(j, i);
  }
}

Matrix completed(Matrix triangle) {
  complete(triangle);
  return triangle;
}

}  // namespace msem
