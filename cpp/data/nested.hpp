// Statistics of data in nested clusters: units in classes in schools, and so on.
//
// The units of a lowest cluster that have the same variables observed form a cell. Of a cell the number of
// units and their means are kept, and, for each highest cluster and pattern, the products about the means of
// cells; of clusters the values that are measured on them. With random slopes at level 1 a cell is a few rows
// instead, those of the triangle R of the QR decomposition of its covariates (data/reduced.hpp). The highest
// clusters are independent.
//
// A random slope multiplies a covariate of one level, and is a variable of levels above.
#pragma once

#include <vector>

#include "base/linalg.hpp"
#include "data/incomplete.hpp"
#include "data/patterns.hpp"
#include "data/random_slope.hpp"
#include "data/reduced.hpp"

namespace msem {

// Invariants
//   * Variables are numbered over all levels, and those measured on a lower level come first.
//   * Values are about `origin`, and 0 where nothing is observed.
//   * Patterns are by position among the variables measured on the level. A cell has at least one.
struct NestedData {
  std::vector<std::vector<Index>> levels;  // variables with a part at each level, level 1 first
  std::vector<Index> measured;             // of each variable, the level it is measured on, from 0
  std::vector<RandomSlope> slopes;
  std::vector<bool> given;  // of each variable, whether no slope reaches it: fixed covariates

  Vector origin;               // of each variable
  Vector sizes;                // of the lowest clusters: units with anything observed
  std::vector<Matrix> values;  // by level, variables measured on it x clusters; of level 1 x cells
  std::vector<std::vector<Pattern>> patterns;  // by level
  std::vector<std::vector<Index>> pattern;     // by level, of each cluster, or cell
  std::vector<std::vector<Index>> parent;      // of cells, of the clusters of level 2, ..., what they are in
  // how often a cell, or a cluster of level 2, ..., counts in what it is in: units that a cell stands for, 1
  // for rows of R; weights of clusters, given that what they are in was sampled
  std::vector<Vector> multiple;
  std::vector<Matrix> design;  // by level, (1 + covariates) x clusters; empty without slopes
  // about the means of cells, or beyond their rows, summed over the cells of one pattern in a highest
  // cluster, each as often as it counts there
  Matrix products;  // lower triangles by column, as rows; 0 where not observed
  std::vector<Index> product_top, product_pattern;
  Vector beyond;  // units that are in no cell's `multiple`
  Vector weight;  // of each highest cluster

  Index nvariables() const { return static_cast<Index>(measured.size()); }
  Index nlevels() const { return static_cast<Index>(levels.size()); }
  Index nclusters() const { return weight.size(); }
  bool complete() const;
  // How many units a level has, weighted.
  double units(Index level) const;
  std::vector<double> units_by_level() const;
  // How often each cluster of a level counts in the sample; of level 1 each cell.
  Vector weights(Index level) const;
  // Variables measured on a level, ascending.
  std::vector<Index> on(Index level) const;
};

// What is the same for all kinds of units: variables by level, the values of the clusters of level 2, 3, ...
// (clusters x variables, NaN where there is none), which cluster of the next level each of these is in, and
// how often it counts there; empty where all count once.
struct NestedFrame {
  std::vector<std::vector<Index>> levels;
  std::vector<Index> measured;
  std::vector<RowMatrix> values;
  std::vector<std::vector<Index>> parent;
  std::vector<Vector> times;
};

// From lowest clusters without holes: their sizes, means (J x p), and products (J x p (p + 1) / 2); from
// cells and the products within each (p (p + 1) / 2 x cells); from reduced rows and the products beyond those
// of each cell (cells x elements), `place` being the position of each of their values among the p variables.
// Throw std::invalid_argument unless all this fits together.
NestedData nested_data(NestedFrame frame, const Vector& sizes, const Matrix& means, const Matrix& products);
NestedData nested_data(NestedFrame frame, const IncompleteData& cells, const Matrix& products);
NestedData nested_data(NestedFrame frame, const ReducedData& rows, const Matrix& products,
                       const std::vector<Index>& place);

// The same data for a model with slopes. `designs` are the covariates of the clusters of level 2, 3, ...
// (covariates x clusters), those of level 1 being known; `given` are variables that no slope reaches.
NestedData with_slopes(const NestedData& data, std::vector<RandomSlope> slopes,
                       const std::vector<Matrix>& designs, const std::vector<Index>& given);

// Complete data of which the log-likelihood is the expected one under a distribution with
// these moments, of samples with the clusters of `data`, the lowest of these sizes. Throws std::domain_error
// unless there is such a distribution.
NestedData expected_nested(const NestedData& data, const std::vector<std::pair<Vector, Matrix>>& moments,
                           const Vector& sizes);

// The same data with more variables of level 1 that no unit has, after all others of that level.
NestedData with_unobserved(const NestedData& data, Index count);

// The data of some highest clusters, each counted so many times.
NestedData weighted_nested(const NestedData& data, const Vector& weights);

// The data of some variables, with other parts at the levels: positions of each among those there are.
NestedData restrict_nested(const NestedData& data, const std::vector<Index>& variables,
                           std::vector<std::vector<Index>> levels);

}  // namespace msem
