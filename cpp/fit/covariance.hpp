// Directions in which parameters are free and identified, and the sampling covariance of estimates.
#pragma once

#include "fit/constrained.hpp"

namespace msem {

// Basis (n x (n - rank)) of the null space of rows (k x n), which may be dependent: some variables in terms
// of the others, which are the coordinates. By Gaussian elimination with complete pivoting: variables that no
// row concerns keep a column of their own, and simple equalities hold to the last digit. `sizes` of the
// variables guide the choice of pivots.
Matrix elimination_basis(const Matrix& rows, const Vector& sizes);

// Basis of the directions in which theta was free to move: the null space of the derivatives of equality and
// active inequality constraints; parameters at active bounds do not move.
Matrix tangent(const Objective& objective, const Constraints& constraints, const Vector& theta,
               const std::vector<int>& active, const std::vector<int>& active_inequalities);

// What a scoring step along a tangent T would still gain in -2 log L, g'T (T'IT)^-1 T'g / 4, in the metric of
// the information factor, in which covariates with huge means do not hide it.
double remaining_gain(const Objective& objective, const Matrix& tangent, const Vector& theta,
                      const Vector& gradient);

// Columns T with (F T)'(F T) = I, spanning what F identifies, and directions that span the rest.
struct Whitening {
  Matrix basis, null;
};
Whitening whitening_basis(const Matrix& factor);

// A tangent less what the information cannot tell; `at` is what is known of theta already.
struct IdentifiedDirections {
  Matrix basis;                   // columns of the tangent, or a basis in which the expected information is 1
  Matrix inverse;                 // of the expected information over it
  std::vector<int> unidentified;  // parameters with a part in what is not identified
  std::vector<int> immovable;     // at bounds; not those that equality constraints determine
  bool whitened = false;          // the expected information was close to singular, and the factor was used
};
IdentifiedDirections identified_directions(const Objective& objective, const Constraints& constraints,
                                           const Vector& theta, const Matrix& tangent,
                                           const ObjectivePoint* at = nullptr);

enum class ErrorKind : int { kNone = 0, kExpected = 1, kObserved = 2 };

struct SamplingCovariance {
  Matrix vcov;  // NaN for parameters that could not move or are not identified, or without a strict maximum
  std::vector<int> unidentified;
  bool positive_definite = true;
};

// T (T'AT)^-1 T' with the information A over the directions T in which theta is free (Aitchison & Silvey,
// 1958); parameters that equality constraints determine have no variance. Without errors only what is not
// identified is told. `at` is what is known of theta already.
SamplingCovariance sampling_covariance(const Objective& objective, const Constraints& constraints,
                                       const Vector& theta, const Matrix& tangent, ErrorKind kind,
                                       const ObjectivePoint* at = nullptr);

}  // namespace msem
