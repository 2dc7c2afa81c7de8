// Where random slopes stand among the variables of more than two levels.
#pragma once

#include <algorithm>
#include <utility>

#include "data/random_slope.hpp"
#include "likelihood/likelihood.hpp"

namespace msem {

// Of `variables` observed ones by level: after these come, at each level, the products with covariates of it,
// numbered after all observed variables, then the slopes that are variables of it, numbered after all
// products.
inline Layout slope_layout(std::vector<std::vector<Index>> levels, Index variables,
                           const std::vector<RandomSlope>& slopes) {
  const Index n = variables, k = static_cast<Index>(slopes.size());
  Layout out{std::move(levels), n + 2 * k};
  for (Index l = 0; l < static_cast<Index>(out.levels.size()); ++l) {
    for (Index s = 0; s < k; ++s) {
      if (slopes[s].level == l) out.levels[l].push_back(n + s);
    }
    for (Index s = 0; s < k; ++s) {
      const std::vector<Index>& at = slopes[s].at;
      if (std::find(at.begin(), at.end(), l) != at.end()) out.levels[l].push_back(n + k + s);
    }
  }
  return out;
}

}  // namespace msem
