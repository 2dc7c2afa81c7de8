// Roots of symmetric matrices.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// F with F'F = A for a positive semidefinite matrix; directions without information are exactly zero.
Matrix symmetric_root(const Matrix& a);

}  // namespace msem
