// Weighted least squares on statistics that are functions of the moments: value = e'We with e = s - sigma.
// Never needs an inverse of a sample matrix.
#pragma once

#include "likelihood/likelihood.hpp"

namespace msem {

// One function of the moments, scaled by the standard deviations of the ordered variables it is of, at the
// lowest level that they stand at.
// Where there are covariates that are given, moments are those of the other variables conditional on them.
struct Statistic {
  enum class Kind : int {
    kCovariance = 0,  // of variables i and j of a level
    kMean = 1,        // of variable i, summed over levels
    kThreshold = 2,   // the mean of i, which stands for a threshold of variable j, less the mean of j
    kSlope = 3        // of variable i on covariate j of a level
  };
  Kind kind;
  int level;
  Index i, j;  // among all variables of the sample
};

class LeastSquares : public Likelihood {
 public:
  // weight: W, or its diagonal in one column. given: covariates, whose moments are those of the sample and do
  // not move. ordered: variables that are scaled to variance 1 at their lowest level.
  LeastSquares(Layout layout, std::vector<Statistic> statistics, Vector values, const Matrix& weight,
               std::vector<Index> given, std::vector<Index> ordered);
  // All moments of one level; cov_weights: symmetric, the weight of each unique element in (i, j) and (j, i).
  LeastSquares(const Vector& mean, const Matrix& cov, const Vector& mean_weights, const Matrix& cov_weights);
  Layout layout() const override { return layout_; }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  // The statistics that moments imply; empty outside the domain.
  Vector fitted(Implied moments) const;
  // What it was made of.
  const std::vector<Statistic>& statistics() const { return statistics_; }
  const Vector& values() const { return values_; }
  const Matrix& weight() const { return weight_; }
  const std::vector<Index>& given() const { return covariates_; }
  const std::vector<Index>& ordered() const { return ordered_; }

 private:
  friend class LeastSquaresPoint;
  void settle(const Matrix& weight);

  Layout layout_;
  std::vector<Statistic> statistics_;
  Vector values_;
  Matrix weight_;
  std::vector<Index> covariates_;
  Vector diagonal_;  // roots of the weights, if W is diagonal
  Matrix root_;      // R with R'R = W otherwise
  std::vector<Index> ordered_;
  std::vector<std::size_t> lowest_;        // of each variable: the first level that it stands at
  std::vector<std::vector<Index>> place_;  // by level: position of each variable there, or -1
  std::vector<std::vector<Index>> given_;  // by level: positions of the covariates
  // By level: positions of the variables whose covariances matter, and where each position is among these.
  std::vector<std::vector<Index>> moving_, moving_place_;
};

}  // namespace msem
