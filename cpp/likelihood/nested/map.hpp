// From the moments of the variables of nested levels to those of the coefficients that the likelihood is
// about.
//
// The observed variables of a level come first, then the products of slopes whose covariate is measured
// there, given with mean 0 and the identity as covariance matrix, so that what a slope does to the variables
// is their covariance with its product; then the slopes that are variables of the level.
#pragma once

#include <complex>

#include "data/nested.hpp"
#include "likelihood/likelihood.hpp"

namespace msem {

// The coefficients that make up the open vector of a level, and the variables measured on it.
struct NestedCoordinates {
  Index open = 0;        // coefficients
  std::vector<Index> z;  // variables measured here, after these
  // Of the open vector of the next level: the coordinate that each is a part of, and the covariate (0: none).
  struct Above {
    Index from, covariate;
  };
  std::vector<Above> above;
  std::vector<Index> of_variable;         // of each observed variable of the level
  std::vector<Index> products, standing;  // slopes, by the place of their variables
  Index size() const { return open + static_cast<Index>(z.size()); }
};
std::vector<NestedCoordinates> nested_coordinates(const NestedData& data);

Layout nested_layout(const NestedData& data);

// Moments of the coordinates of a level, or derivatives with respect to them. The mean of a variable that is
// measured on a level is there; that of the open vector comes from slopes alone.
template <class S>
struct FullLevel {
  Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic> cov;
  Eigen::Matrix<S, Eigen::Dynamic, 1> open, z;
};

template <class S>
class NestedMap {
 public:
  using M = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic>;
  using V = Eigen::Matrix<S, Eigen::Dynamic, 1>;
  struct Level {
    V mean;
    M cov;
  };

  // Throws std::invalid_argument unless the moments are those of the data's variables.
  NestedMap(const NestedData& data, const std::vector<NestedCoordinates>& coordinates,
            std::vector<Level> moments);
  std::vector<FullLevel<S>> full() const;
  // Derivatives with respect to the moments, from those with respect to the coordinates.
  std::vector<Level> back(const std::vector<FullLevel<S>>& gradient) const;
  // What a change of the variables of a level, slopes included and products not, does to the coordinates.
  const M& matrix(Index level) const { return matrix_[level]; }

 private:
  const NestedData& data_;
  const std::vector<NestedCoordinates>& coordinates_;
  std::vector<Level> moments_;
  std::vector<M> matrix_, paths_, residual_;  // by level: M, Lambda, S - Lambda Lambda'
};

extern template class NestedMap<double>;
extern template class NestedMap<std::complex<double>>;

}  // namespace msem
