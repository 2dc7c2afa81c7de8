// Rotation of loadings to simple structure, and the conditions that rotated loadings meet.
//
// Oblique: Lambda = A T'^-1, Phi = T'T, diag(Phi) = I; orthogonal: Lambda = A T, T'T = I. The criterion is
// minimised by gradient projection (Jennrich, 2001, 2002; Bernaards & Jennrich, 2005), then by Newton steps.
#pragma once

#include <cstdint>

#include "base/linalg.hpp"

namespace msem {

// A function of loadings with its first and second derivatives.
//
// kQuartic: <X, L(X)> / 4 of the squared loadings X, with the linear map L(X) = own X + column (sums over
// rows)
// + row (sums over columns) + total (sum of all): oblimin, the Crawford-Ferguson family, varimax.
// kGeomin: the sum over rows of geometric means of squares + epsilon. kTarget: half the sum of squared
// deviations from a target where the mask is 1.
struct RotationCriterion {
  enum class Kind : int { kQuartic = 0, kGeomin = 1, kTarget = 2 };
  Kind kind = Kind::kGeomin;
  double own = 0, column = 0, row = 0, total = 0;
  double epsilon = 0.001;
  Matrix target, mask;

  // Throws std::invalid_argument unless a target has the shape of the loadings.
  void check(Index rows, Index cols) const;
  // The value; `gradient` has the shape of the loadings.
  double evaluate(const Matrix& loadings, Matrix& gradient) const;
  // The derivative of the gradient in a direction.
  void change(const Matrix& loadings, const Matrix& direction, Matrix& out) const;
};

struct RotationOptions {
  bool orthogonal = false;
  int starts = 30;  // the first from the loadings as they are, the others random
  std::uint64_t seed = 1;
  int max_iterations = 10000;
};

// A minimum of the criterion, and how many of the starts ended there.
struct RotationMinimum {
  Matrix transformation;  // T
  Matrix loadings;        // Lambda
  double value = 0;
  int count = 0;
  bool converged = false;
};

// The distinct minima, the lowest first; columns in any order and with any sign are the same minimum.
std::vector<RotationMinimum> rotate(const Matrix& unrotated, const RotationCriterion& criterion,
                                    const RotationOptions& options);

// The largest difference of two matrices of loadings after columns have been matched, with their signs.
double loading_distance(const Matrix& a, const Matrix& b);

// What is zero at a minimum, h(Lambda, Phi) (Jennrich, 1973): the off-diagonal elements of Lambda'G Phi^-1 by
// column, G the gradient of the criterion; orthogonal: those of Lambda'G - G'Lambda below the diagonal.
// The derivatives are by the loadings, column by column, then by the correlations below the diagonal, by
// column; there are none of these in the orthogonal case.
struct RotationConditions {
  Vector values;
  Matrix jacobian;
};
RotationConditions rotation_conditions(const RotationCriterion& criterion, const Matrix& loadings,
                                       const Matrix& correlations, bool orthogonal);

}  // namespace msem
