// Samples drawn unit by unit from a population, also from one that is not normal, and their statistics.
#pragma once

#include <array>

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

// A random slope: the last variables of the law between are slopes, in the order of their covariates'
// dependence.
struct DrawnSlope {
  Index covariate;  // among the unit variables, one of those within only
  Vector effects;   // of the product on the unit variables
};

// One group: sizes of its clusters in order, and the laws of its levels.
struct RowPopulation {
  std::vector<Index> sizes;
  Index nboth = 0;
  LevelLaw within,
      between;  // of the p unit variables; of those at both levels, the q cluster variables, slopes
  std::vector<DrawnSlope> slopes = {};

  Index p() const { return within.size(); }
  Index q() const { return between.size() - nboth - static_cast<Index>(slopes.size()); }
};

// Values of one sample of one group: units in order of their clusters.
struct DrawnRows {
  Matrix unit;     // N x p
  Matrix cluster;  // J x q
};

class RowDraws : public Draws {
 public:
  RowDraws(std::vector<RowPopulation> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;
  DrawnRows rows(std::uint64_t replicate, Index group) const;

 private:
  std::vector<RowPopulation> groups_;
  std::vector<std::vector<std::int64_t>> codes_;
  std::uint64_t seed_;
};

// One group of two crossed classifications: clusters of its units, and the laws of units and of the clusters
// of either classification, whose first variables are added to those of units.
struct CrossedPopulation {
  std::array<std::vector<Index>, 2> of;
  LevelLaw units;
  std::array<LevelLaw, 2> clusters;
  std::array<std::vector<Index>, 2> open;  // which variables of units these are
};

class CrossedRowDraws {
 public:
  CrossedRowDraws(std::vector<CrossedPopulation> groups, std::uint64_t seed);
  // Values of units (N x p), and of the clusters of either classification beside these (clusters x q).
  std::array<Matrix, 3> rows(std::uint64_t replicate, Index group) const;

 private:
  std::vector<CrossedPopulation> groups_;
  std::vector<std::array<Index, 2>> counts_;
  std::uint64_t seed_;
};

}  // namespace msem
