// How the moments of the coordinates of nested levels move with the parameters of the levels.
#pragma once

#include "likelihood/nested/nested.hpp"

namespace msem {

class NestedDirections {
 public:
  using Full = NestedPoint::Full;
  NestedDirections(const NestedData& data, const NestedArrangement& arranged, const Implied& moments,
                   const LevelTangents& tangents);

  Index count() const { return count_; }
  // The change along one parameter; of levels that do not change, empty covariance matrices.
  Full along(Index parameter) const;
  bool moves_cov(Index parameter) const { return moves_cov_[parameter]; }
  bool moves_mean(Index parameter) const { return moves_mean_[parameter]; }
  // Derivatives along all parameters of what has these derivatives with respect to the coordinates; of what
  // comes from covariance matrices, and from means, by itself.
  Vector along_all(const Full& gradient) const { return along_cov(gradient) + along_mean(gradient); }
  Vector along_cov(const Full& gradient) const;
  Vector along_mean(const Full& gradient) const;
  // Second derivatives along pairs of parameters that are not linear in the moments, for these derivatives.
  Matrix second(const Full& gradient) const;

 private:
  const NestedData& data_;
  const NestedArrangement& arranged_;
  const Implied& moments_;
  const LevelTangents& tangents_;
  Index count_ = 0;
  std::vector<Index> first_;            // where the parameters of each level begin
  std::vector<Matrix> moment_covs_;     // of the moments, by level, stacked
  std::vector<Matrix> cov_, open_, z_;  // of the coordinates, by level, a column for each parameter
  std::vector<bool> moves_cov_, moves_mean_;
};

}  // namespace msem
