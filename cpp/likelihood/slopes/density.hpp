// The density of a cluster given its slopes, for `QuadratureLikelihood`. Given these and the cluster
// variables the parts of level 2 are normal with mean m and covariance matrix C; with P and q what the units
// say about them (sums of n W and n W (mean - expected) over the cells),
//     -2 log f = sum n log|Sigma(s)| + tr W (S + n r r') + log|I + P C| - q'C u,   u = q - U C q,
// U = (I + P C)^-1 P. Nothing is divided by C, which may be indefinite.
#pragma once

#include "likelihood/integrals/small.hpp"
#include "likelihood/slopes/quadrature.hpp"

namespace msem {

class SlopeDensity : public NodeDensity {
 public:
  explicit SlopeDensity(const QuadraturePoint& point);
  double value(Index cluster, const double* s) override;
  void add_gradient(Index cluster, const double* s, double weight, double* within, double* between) override;

  // Of the node that `value` was asked for last: what the units say about the mean of the parts of level 2,
  // as score and information, and the posterior mean of a part.
  const Vector& score() const { return u_; }
  const Matrix& information();
  double part(Index k) const { return expected_[k] - mean_[k] + e_[k]; }

 private:
  // -2 log of the units of a cell, the first, second, ... of its cluster, and what it says about level 2;
  // false where there is no density.
  bool add_cell(Index cell, Index place, double& out);
  bool add_second_level(double& out);
  double constant(double values) const;

  const SlopeClusterData& data_;
  const IntegrandMoments& t_;
  Index p_, l_, m_, b_, g_;
  IntegrandColumns at_;
  SlopeMap map_;
  Matrix half_, sigma_, of_sigma_, wide_, of_map_, precision_, root_, reach_, information_, variance_;
  Matrix w_, off_;  // by cell of the cluster: inverse covariance matrices, means less their expectations
  Matrix work_, solved_, spread_;
  Vector mean_, expected_, q_, cq_, u_, e_, z_, rest_, of_mean_, short_, gain_;
};

}  // namespace msem
