// Quadrature over one to three variables whose integrand is far from a normal density, as that of the effects
// of a cluster whose units are all in the highest category.
//
// Each variable is a smooth function of one that is about normal, by its quantiles as far as they are known,
// and these are made uncorrelated. There the integral is a sum over the points of a body-centred lattice (in
// one dimension equally spaced ones), from a centre outwards to where nothing is left. The error of such a
// sum falls exponentially with the density of the points, whatever the functions are, and the two halves of
// the lattice tell it: points get denser until they agree.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/linalg.hpp"

namespace msem {

class Lattice {
 public:
  static constexpr int kDimensions = 3;
  // Log of the integrand.
  using LogIntegrand = std::function<double(const double*)>;

  // From points (d x n) with shares that are a first idea of the distribution. `rough`: to few digits. False
  // where there are too many points, as those of an integrand that does not fall off.
  bool find(const LogIntegrand& log_f, int d, const double* at, const double* shares, Index n, bool rough);

  Vector nodes, log_weights;  // d x points

 private:
  using Point = std::array<int, kDimensions>;
  static constexpr int kKnots = 11;

  // A variable as an increasing function of a normal one: steps at knots, smoothed, and straight ends.
  struct Scale {
    bool set(const double* values, const double* shares, const std::vector<Index>& order, Index stride,
             bool first);
    double at(double z, double& log_slope) const;
    void stretch(double by, double around);
    void centre();
    double median = 0, start = 0, low = 0, high = 0;
    std::array<double, kKnots> jumps{};
  };

  bool set_scales(const double* at, const double* shares, Index n, bool first);
  bool visit(const LogIntegrand& log_f, double step, double gone, std::size_t most);
  bool add(const Point& point);
  bool fit_scales(const LogIntegrand& log_f);
  bool centred() const;

  int d_ = 0;
  std::array<Scale, kDimensions> scales_;
  std::array<double, kDimensions * kDimensions> root_{};  // of the correlations, by columns
  double step_ = 0, top_ = 0, halves_[2] = {0, 0};
  std::vector<Point> points_;
  std::vector<double> places_, logs_, log_slopes_, shares_;
  std::vector<std::uint32_t> seen_;
  std::vector<Index> order_;
};

}  // namespace msem
