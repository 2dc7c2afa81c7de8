// Statistics of complete data in nested clusters: units in classes in schools, and so on.
//
// Of the units the means and products within the lowest clusters are kept, of higher clusters the values that
// are measured on them. The highest clusters are independent.
#pragma once

#include <vector>

#include "base/linalg.hpp"

namespace msem {

// Invariant: variables are numbered over all levels, and those measured on a lower level come first.
struct NestedData {
  std::vector<std::vector<Index>> levels;  // variables with a part at each level, level 1 first
  std::vector<Index> measured;             // of each variable, the level it is measured on, from 0
  Vector origin;                           // of each variable: subtracted from all values
  Vector sizes;                            // units of the lowest clusters
  std::vector<Matrix> values;  // by level, variables measured on it x clusters; of level 1 means of clusters
  std::vector<std::vector<Index>> parent;  // of the clusters of level 2, 3, ..., those they are in
  Matrix products;  // of the units about the means of the lowest clusters, summed over each highest cluster:
                    // lower triangles by column, as rows
  Vector weight;    // of each highest cluster

  Index nvariables() const { return static_cast<Index>(measured.size()); }
  Index nlevels() const { return static_cast<Index>(levels.size()); }
  Index nclusters() const { return products.rows(); }
  // How many units a level has, weighted.
  double units(Index level) const;
  // Variables measured on a level, ascending.
  std::vector<Index> on(Index level) const;
};

// From the lowest clusters: their sizes, the means of all variables (J x n), and products of the variables of
// level 1 (J x p (p + 1) / 2). `highest` are the clusters of level 2, 3, ... that those of the level below
// are in. Throws std::invalid_argument unless all this fits together.
NestedData nested_data(std::vector<std::vector<Index>> levels, std::vector<Index> measured,
                       const Vector& sizes, const Matrix& means, const Matrix& products,
                       std::vector<std::vector<Index>> parent);

// The data of some highest clusters, each counted so many times.
NestedData weighted_nested(const NestedData& data, const Vector& weights);

// The data of some variables, with other parts at the levels: positions of each among those there are.
NestedData restrict_nested(const NestedData& data, const std::vector<Index>& variables,
                           std::vector<std::vector<Index>> levels);

}  // namespace msem
