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

// F with F F' = cov; throws std::domain_error unless that is positive semidefinite.
Matrix semidefinite_root(const Matrix& cov);

}  // namespace msem
