// Statistics of complete data whose units come in two crossed classifications: pupils' ratings of lecturers.
//
// What counts of the units are their number in each pair of clusters, their sums by cluster of either
// classification and their total products.
#pragma once

#include <array>
#include <vector>

#include "base/linalg.hpp"

namespace msem {

// One of the two classifications.
struct Classification {
  Vector sizes;   // units of each cluster
  Matrix sums;    // of the variables of units over each cluster, about the origin: p x clusters
  Matrix values;  // of the variables measured on its clusters, about the origin: q x clusters
  Index count() const { return sizes.size(); }
};

// Invariant: variables are numbered over all levels; those of units come first, then those measured on the
// clusters of the first classification.
struct CrossedData {
  std::vector<std::vector<Index>> levels;  // variables with a part: of units, of either classification
  std::vector<Index> measured;             // of each variable, the level it is measured on, from 0
  Vector origin;                           // of each variable: subtracted from all values
  double units = 0;
  Matrix products;  // of the units about the origin, p x p
  std::array<Classification, 2> classifications;
  // units in each pair of clusters that has any, by cluster of the first classification
  std::vector<Index> first, second;
  Vector pairs;

  Index nvariables() const { return static_cast<Index>(measured.size()); }
  std::vector<Index> on(Index level) const;
};

// From values of the units (N x p), the clusters they are in (`of` one pair of numbers for each), and values
// of the clusters (clusters x q). Throws std::invalid_argument unless all this fits together.
CrossedData crossed_data(std::vector<std::vector<Index>> levels, std::vector<Index> measured,
                         const Matrix& units, const std::array<std::vector<Index>, 2>& of,
                         const std::array<Matrix, 2>& values);

// The data of some variables, with other parts at the levels: positions of each among those there are.
CrossedData restrict_crossed(const CrossedData& data, const std::vector<Index>& variables,
                             std::vector<std::vector<Index>> levels);

}  // namespace msem
