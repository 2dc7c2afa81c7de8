// Samples drawn unit by unit from a population of any number of levels, also from one that is not normal.
#pragma once

#include "draws/draws.hpp"

namespace msem {

// Distribution of one level: x = mean + shape(root z) with z standard normal.
//
// Polynomial: x_i = mean_i + scale_i (a_i + b_i y_i + c_i y_i^2 + d_i y_i^3) of y = root z with unit
// variances (Fleishman, 1978; Vale & Maurelli, 1983). Heavy tails: root z divided by the square root of a
// chi-square over its degrees of freedom, scaled to the covariance matrix root root'.
struct LevelLaw {
  Vector mean;        // n
  Matrix root;        // n x k
  Matrix polynomial;  // n x 4, or none
  Vector scale;       // n, with the polynomial
  double df = 0;      // of the multivariate t distribution; 0: normal

  Index size() const { return mean.size(); }
  void draw(RandomStream& random, Eigen::Ref<Vector> out) const;
};

// The product of a random slope and a covariate of a level, which is added to variables of that level.
struct DrawnSlope {
  Index slope;      // the variable of higher levels,
  Index covariate;  // position of what it is multiplied by in the law of the level,
  Vector effects;   // and what the product does to the variables there
};

// One level of one group: units or clusters, and what is drawn for each of them.
struct PopulationLevel {
  LevelLaw law;
  std::vector<Index> variables;         // its variables by number, the observed ones of the group first
  std::vector<Index> of;                // the cluster of each unit; at level 1 the units themselves
  std::vector<DrawnSlope> slopes = {};  // in the order of their covariates' dependence
};

// What makes categories of an observed variable: the number of thresholds below its value, to which a
// logistic residual is added first, unless its scale is 0.
struct DrawnCuts {
  Index variable;
  Vector thresholds;  // ascending
  double logistic = 0;
};

// One group, level 1 first. A variable is the sum of its parts at the levels where it stands; clusters may
// lie within those of the next level, or across them.
struct RowPopulation {
  std::vector<PopulationLevel> levels;
  std::vector<Index> measured;  // the level, from 0, that each observed variable is measured on
  std::vector<DrawnCuts> cuts = {};
  // What is added to what is drawn, before there are categories: of each level nothing, or a row for each of
  // its units or clusters and a column for each variable measured there.
  std::vector<Matrix> given = {};
};

// Samples of any number of levels.
class RowDraws : public Draws {
 public:
  RowDraws(std::vector<RowPopulation> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  // Of one or two levels without random slopes.
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;
  // Values of one sample of one group: by level, of its units or clusters, the variables measured there.
  std::vector<Matrix> rows(std::uint64_t replicate, Index group) const;

 private:
  struct Prepared;
  static std::shared_ptr<const Prepared> prepare(RowPopulation population);

  std::vector<std::shared_ptr<const Prepared>> groups_;
  std::uint64_t seed_;
};

}  // namespace msem
