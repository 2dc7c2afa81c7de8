// Where likelihoods end: nearer to a singular covariance matrix there is nothing but rounding.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// A variance between clusters may be negative as long as this share is left of that within.
constexpr double kEdge = 1e-10;
constexpr double kRounding = 1e-11;  // share of a variance that may be nothing but rounding

// Whether each variable of a factored covariance matrix has more than that of these variances beside those
// before it.
inline bool regular(const Cholesky& chol, ConstVectorRef variances) {
  for (Index i = 0; i < variances.size(); ++i) {
    if (!(chol.pivot(i) > kRounding * variances[i])) return false;
  }
  return true;
}

}  // namespace msem
