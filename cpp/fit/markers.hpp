// The scales of factors: the same model with other indicators as markers.
//
// A factor that is scaled by an indicator which hardly measures it has loadings near infinity, and where the
// marker's loading changes sign the likelihood is continuous through infinity. Scaled by the indicator that
// it loads on most it has nothing of the kind.
#pragma once

#include <optional>

#include "fit/objective.hpp"

namespace msem {

// A model with other markers: the loading of the old marker takes the place in theta of that of the new one.
struct OtherMarkers {
  std::vector<Block> blocks;
  Vector theta;                          // the same point
  std::vector<std::vector<int>> marked;  // by block and variable, the parameter of the old marker; -1 without
  std::vector<std::vector<double>> value;  // of the marker's loading

  // Theta in the scales of the old markers.
  Vector back(const std::vector<Block>& old, const Vector& theta) const;
};

// Factors keep their marker where another one loads no less, or where their scale is not free: with equal
// parameters, bounds other than on the sign of variances, or other fixed values than 0. None if all do.
std::optional<OtherMarkers> other_markers(const std::vector<Block>& blocks, const Vector& theta,
                                          const Vector& lower, const Vector& upper);

}  // namespace msem
