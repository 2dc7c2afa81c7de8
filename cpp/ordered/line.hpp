// The integral of a cluster's categories over one normal effect, by adaptive Gauss-Hermite quadrature
// (Liu & Pierce, 1994) or, where its distribution given the data is far from normal, by the trapezoid rule,
// with its derivatives.
#pragma once

#include "base/hermite.hpp"
#include "ordered/rectangle.hpp"

namespace msem {

constexpr int kLineNodes = 15;  // for one effect

// Units of one category with one linear predictor.
struct LineCell {
  int category;
  double count, shift;
};

// An ordered variable of the cluster itself: its latent variable has mean shift + slope times the effect.
struct LineFactor {
  const Vector* cuts;
  int category;
  double shift, slope, sd;
};

// The probability of a category given everything, and its derivatives: with respect to the thresholds
// (upper and, negative, lower), the mean, the variance, and twice the mean.
struct Kernel {
  double log, upper, lower, variance, curvature;
  double shift() const { return -upper - lower; }
};
Kernel category_kernel(const Vector& cuts, int category, double mean, double sd);

class Line {
 public:
  explicit Line(const Hermite& rule) : rule_(rule) {}

  // log of the integral over the effect g ~ N(mean, variance) of the probabilities of all cells, with shift
  // + g and residual standard deviation sd. `mode`: where to start looking for the mode; takes it.
  void integrate(const Vector& cuts, const std::vector<LineCell>& cells, const LineFactor* factor,
                 double mean, double variance, double sd, double& mode);

  double value = 0, d_mean = 0, d_variance = 0;  // and derivatives with respect to the moments of the effect
  double effect = 0, spread = 0;                 // its mean and standard deviation given the data
  std::vector<RowSlope> cells;                   // derivatives of each cell, times its count
  RowSlope factor;
  double factor_slope = 0;

 private:
  // Kernels of all cells at n values of the effect, those of a cell beside each other.
  void tabulate(const Vector& cuts, const std::vector<LineCell>& cells, const double* at, Index n, double sd);
  void evaluate(const Vector& cuts, const std::vector<LineCell>& cells, const LineFactor* factor, double sd);
  double find_mode(const Vector& cuts, const std::vector<LineCell>& cells, const LineFactor* factor,
                   double mean, double variance, double sd, double& mode);

  using Array = Eigen::ArrayXd;

  const Hermite& rule_;
  Array low_, high_, p_, log_, upper_, lower_, variance_, curvature_;  // of cells
  std::vector<Kernel> factors_;
  Array at_, logs_, shares_, slopes_, curvatures_;  // of nodes
  Vector spread_out_;
};

}  // namespace msem
