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

  // x := L^-1 A x, and x := A'L^-T x, of length d.
  void whiten(double* x) const;
  void whiten_transposed(double* x) const;

  Index rho = 0, d = 0;
  const double* design = nullptr;  // (1 + covariates) x rho
  double log_det = 0;
  std::vector<double> z, zc;    // d x r: Z, Z C
  std::vector<double> root;     // d x d, lower
  std::vector<double> half;     // d x r: L^-1 A Z
  std::vector<double> inverse;  // d x d: A'M^-1 A
  std::vector<double> solved;   // d x r: A'M^-1 A Z C

 private:
  void map_rows(double* x, bool transposed) const;

  std::vector<double> mapped_, mapped_c_;          // A Z, A Z C
  mutable std::vector<double> row_;                // p
  std::vector<const SlopePoint::Observed*> seen_;  // of the rows
  bool holes_ = false;                             // in any of them
  const SlopePoint& point_;
};

struct ClusterOfDesign {
  explicit ClusterOfDesign(const SlopePoint& point);
  void compute(const SlopePoint& point, const DesignEvidence& evidence, Index cluster);

  double quadratic = 0;
  std::vector<double> t;     // d: A'M^-1 A (y - ...)
  std::vector<double> mean;  // r: m
  std::vector<double> u;     // r: Z't
  std::vector<double> all;   // r: m + C u, the posterior mean
};

}  // namespace msem
