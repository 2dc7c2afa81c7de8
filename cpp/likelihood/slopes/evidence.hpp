// What the clusters of one design share, and one cluster given it: see slopes.hpp for the quantities.
//
// A cluster has few values, so that loops are written out: nothing is allocated once the largest design has
// been seen.
#pragma once

#include "likelihood/slopes/slopes.hpp"

namespace msem {

class DesignEvidence {
 public:
  explicit DesignEvidence(const SlopePoint& point) : point_(point) {}
  // False when M is not positive definite. `inverses`: whether `inverse` and `solved` are wanted.
  bool compute(Index cluster, bool inverses);

  // x := L^-1 x, and x := L^-T x, of length d.
  void whiten(double* x) const;
  void whiten_transposed(double* x) const;

  Index rho = 0, d = 0;
  const double* design = nullptr;  // (1 + covariates) x rho
  double log_det = 0;
  std::vector<double> z, zc;    // d x r: Z, Z C
  std::vector<double> root;     // d x d, lower
  std::vector<double> half;     // d x r: L^-1 Z
  std::vector<double> inverse;  // d x d
  std::vector<double> solved;   // d x r: M^-1 Z C

 private:
  const SlopePoint& point_;
};

struct ClusterOfDesign {
  explicit ClusterOfDesign(const SlopePoint& point);
  void compute(const SlopePoint& point, const DesignEvidence& evidence, Index cluster);

  double quadratic = 0;
  std::vector<double> t;     // d
  std::vector<double> mean;  // r: m
  std::vector<double> u;     // r: Z't
  std::vector<double> all;   // r: m + C u, the posterior mean
};

}  // namespace msem
