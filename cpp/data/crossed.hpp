// Statistics of data whose units come in two crossed classifications: pupils' ratings of lecturers. Values of
// units may be missing.
//
// What counts of the units are their numbers and sums in each pair of clusters, by which variables are
// observed, and their total products. Where covariates have random slopes, it is in each pair also their sums
// and products, and the sums of their products with the variables.
#pragma once

#include <array>
#include <vector>

#include "base/linalg.hpp"
#include "data/random_slope.hpp"

namespace msem {

// One of the two classifications.
struct Classification {
  Vector sizes;   // units of each cluster
  Matrix values;  // of the variables measured on its clusters, about the origin: q x clusters
  Index count() const { return sizes.size(); }
};

// Units in which the same variables are observed.
struct CrossedPattern {
  std::vector<Index> observed;  // among the variables of units
  double units = 0;
  Matrix products;  // about the origin, p x p, 0 where a variable is not observed
};

// Invariants
//   * Variables are numbered over all levels; those of units come first, then those measured on the clusters
//   of the first classification.
//   * A unit has a 1 and the m covariates with slopes, about their means in units of their standard
//   deviations: its design, x_0 = 1, x_1, ..., x_m.
//   * Cells come by cluster of the first classification, then of the second, then by pattern. Units without
//   any observed variable are in none.
struct CrossedData {
  std::vector<std::vector<Index>> levels;  // variables with a part: of units, of either classification
  std::vector<Index> measured;             // of each variable, the level it is measured on, from 0
  std::vector<RandomSlope> slopes;         // of covariates of units
  std::vector<bool> given;                 // with slopes, of each variable: whether it is a fixed covariate
  Vector origin;                           // of each variable: subtracted from all values
  double units = 0;
  Index width = 1;  // 1 + m
  std::vector<CrossedPattern> patterns;
  std::array<Classification, 2> classifications;
  std::vector<Index> first, second, pattern;  // of each cell
  Vector count;                               // units of each cell
  Matrix design;                              // sums of x x', width^2 x cells
  Matrix sums;                                // of values times x_0, then times x_1, ...: (p width) x cells

  Index nunit() const { return sums.rows() / width; }  // p, variables of units
  Index nvariables() const { return static_cast<Index>(measured.size()); }
  std::vector<Index> on(Index level) const;
  bool complete() const;
  // Units of each level, clusters above the first.
  std::vector<double> units_by_level() const {
    std::vector<double> out{units};
    for (const auto& one : classifications) out.push_back(static_cast<double>(one.count()));
    return out;
  }
  // Over all patterns; how many units have each pair of variables.
  Matrix products() const;
  Matrix observed() const;
};

// From values of the units (N x p, nan where missing), the clusters they are in (`of` one pair of numbers for
// each), values of the clusters (clusters x q), and covariates with slopes (N x m). Throws
// std::invalid_argument unless all this fits together.
CrossedData crossed_data(std::vector<std::vector<Index>> levels, std::vector<Index> measured,
                         const Matrix& units, const std::array<std::vector<Index>, 2>& of,
                         const std::array<Matrix, 2>& values, const Matrix& covariates = Matrix());

// The same data for a model with slopes of the covariates; `given` are fixed covariates of any level.
CrossedData with_slopes(const CrossedData& data, std::vector<RandomSlope> slopes,
                        const std::vector<Index>& given);

// The data of some variables, with other parts at the levels, and without slopes: positions of each among
// those there are.
CrossedData restrict_crossed(const CrossedData& data, const std::vector<Index>& variables,
                             std::vector<std::vector<Index>> levels);

}  // namespace msem
