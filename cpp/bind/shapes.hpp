// Shapes of what Python hands over, where the kernels take them for granted. All throw std::invalid_argument.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

#include "fit/objective.hpp"
#include "likelihood/likelihood.hpp"

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

// Means and covariances of each level, level 1 first.
using LevelPairs = std::vector<std::pair<Vector, Matrix>>;

inline Implied implied_levels(const LevelPairs& levels) {
  Implied out;
  for (const auto& [mean, cov] : levels) {
    if (!square(cov, mean.size())) throw std::invalid_argument("moments of a level have inconsistent shapes");
    out.push_back({mean, cov});
  }
  return out;
}

inline void require_among(const std::vector<Index>& chosen, Index count) {
  for (const Index k : chosen) {
    if (k < 0 || k >= count) throw std::invalid_argument("a position is beyond the variables");
  }
}

}  // namespace msem
