// Symmetric matrices that are kept as their lower triangle.
#pragma once

#include "base/linalg.hpp"

namespace msem {

void add_to_triangle(Matrix& triangle, ConstMatrixRef a);  // + A A'
// The whole matrix: what is above the diagonal is that below it.
void complete(Matrix& triangle);
Matrix completed(Matrix triangle);

}  // namespace msem
