#include <Eigen/LU>

#include "base/linalg.hpp"

namespace msem {

double log_abs_determinant(const Matrix& a) { return std::log(std::abs(a.determinant())); }

Matrix inverse(const Matrix& a) { return a.partialPivLu().inverse(); }

Vector solve_square(const Matrix& a, const Vector& b) { return a.partialPivLu().solve(b); }

}  // namespace msem
