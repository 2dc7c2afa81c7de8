// Convex quadratic programmes, dense and small: the steps of the constrained optimiser.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// Smallest |x - target|^2 subject to normals x >= offsets, rows of any length.
struct Projection {
  bool feasible = false;  // false: the rows contradict each other, x is meaningless
  Vector x;
  Vector multipliers;  // of every row, >= 0; x - target = normals' multipliers
};

// Dual active-set method (Goldfarb & Idnani, 1983, Mathematical Programming 27, 1-33) where the Hessian is
// the identity. Rows may be linearly dependent, repeated or zero.
Projection project(const Vector& target, const Matrix& normals, const Vector& offsets);

// min 1/2 d'G d + g'd subject to E d = e and A d >= a.
struct QuadraticProgramme {
  Matrix hessian;  // positive semidefinite, and positive definite where E d = 0
  Vector gradient;
  Matrix equalities;
  Vector equality_values;
  Matrix inequalities;
  Vector inequality_values;
};

struct QuadraticSolution {
  bool solved = false;   // false: no curvature in a direction that the equalities leave free
  bool feasible = true;  // false: d violates rows as little as can be
  Vector d;
  Vector equality_multipliers, inequality_multipliers;  // g + G d = E' lambda + A' mu
};

// Equalities that depend on others are left out; those that contradict each other are met in the sense of
// least squares. Inequalities that cannot all hold are met as far as a high price on their violation brings
// them. The solution does not depend on the units of the variables: `scale` are positive sizes of them.
QuadraticSolution solve(const QuadraticProgramme& programme, const Vector& scale, double damping = 0);

// Orthogonal split of the variables by the rows of a matrix.
struct RowSpace {
  Matrix range, null;  // n x r and n x (n - r), orthonormal
  Index rank = 0;

  explicit RowSpace(const Matrix& rows);
  // Shortest solution of rows x = values, in the sense of least squares.
  Vector solve(const Matrix& rows, const Vector& values) const;
  // Shortest multipliers m with rows' m = gradient on the range.
  Vector multipliers(const Matrix& rows, const Vector& gradient) const;
};

}  // namespace msem
