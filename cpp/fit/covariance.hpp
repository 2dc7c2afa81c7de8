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

enum class ErrorKind : int { kNone = 0, kExpected = 1, kObserved = 2 };

// The inverse of the information over the directions in which theta is free and identified; NaN without a
// strict maximum. The expected information is looked at for what it cannot tell unless the observed one is
// far from singular. Without a kind only what is not identified is told.
struct InverseInformation {
  Matrix basis, inverse;
  std::vector<int> unidentified, immovable;
  bool positive_definite = true;
};
InverseInformation inverse_information(const Objective& objective, const Constraints& constraints,
                                       const Vector& theta, const Matrix& tangent, ErrorKind kind,
                                       const ObjectivePoint* at = nullptr);

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
