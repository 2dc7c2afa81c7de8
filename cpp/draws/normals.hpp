// Helpers of what draws samples from models.
#pragma once

#include <algorithm>
#include <vector>

#include "base/linalg.hpp"
#include "base/random.hpp"

namespace msem {

// 0, ..., n - 1 without the chosen ones.
inline std::vector<Index> others(Index n, const std::vector<Index>& chosen) {
  std::vector<Index> out;
  for (Index k = 0; k < n; ++k) {
    if (std::find(chosen.begin(), chosen.end(), k) == chosen.end()) out.push_back(k);
  }
  return out;
}

inline Matrix normals(Index rows, Index cols, RandomStream& random) {
  Matrix out(rows, cols);
  for (Index j = 0; j < cols; ++j) {
    for (Index i = 0; i < rows; ++i) out(i, j) = random.normal();
  }
  return out;
}

// The symmetric F with F F' = cov in correlation metric; throws std::domain_error unless cov is positive
// semidefinite. Roots by eigenvectors alone depend on their signs, which differ between machines.
Matrix semidefinite_root(const Matrix& cov);

// Normal variables given some of them: the regression of the others on these.
struct ConditionalNormal {
  std::vector<Index> given, drawn;
  Matrix slopes;    // drawn x given
  Matrix residual;  // covariance matrix of what is drawn

  ConditionalNormal() = default;
  // Throws std::domain_error where the covariance matrix of the given ones is singular.
  ConditionalNormal(const Matrix& cov, std::vector<Index> given);
  // Means of the drawn ones where all have the values `at` and the means `mean`.
  Vector mean_at(const Vector& at, const Vector& mean) const;
};

}  // namespace msem
