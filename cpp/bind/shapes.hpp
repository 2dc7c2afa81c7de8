// Shapes of what Python hands over, where the kernels take them for granted. All throw std::invalid_argument.
#pragma once

#include <stdexcept>
#include <vector>

#include "fit/objective.hpp"
#include "likelihood/two_levels.hpp"

namespace msem {

inline bool square(const Matrix& a, Index n) { return a.rows() == n && a.cols() == n; }

inline void require_intercepts(const Objective& objective, const std::vector<int>& intercepts) {
  for (const int k : intercepts) {
    if (k < 0 || k >= objective.npar()) throw std::invalid_argument("an intercept is beyond the parameters");
  }
}

inline void require_basis(const Objective& objective, const Matrix& basis) {
  if (basis.rows() != objective.npar())
    throw std::invalid_argument("a basis must have a row for each parameter");
}

// Means and covariances of p variables within and of b + q between.
inline void require_moments(const Moments& m, Index p, Index nboth, Index q) {
  const Index n = nboth + q;
  if (nboth < 0 || nboth > p || m.mean_w.size() != p || !square(m.cov_w, p) || m.mean_b.size() != n ||
      !square(m.cov_b, n))
    throw std::invalid_argument("the moments must be those of the variables");
}

inline void require_among(const std::vector<Index>& chosen, Index count) {
  for (const Index k : chosen) {
    if (k < 0 || k >= count) throw std::invalid_argument("a position is beyond the variables");
  }
}

}  // namespace msem
