// The standard normal distribution in one and two dimensions.
#pragma once

#include <cmath>
#include <cstddef>

namespace msem {

constexpr double kNormalEnd = 37;  // limits beyond it count as this: nothing is there

inline double normal_density(double x) {
  constexpr double scale = 0.39894228040143267794;  // 1 / sqrt(2 pi)
  return scale * std::exp(-0.5 * x * x);
}

inline double normal_cdf(double x) { return 0.5 * std::erfc(-0.70710678118654752440 * x); }

// P(low < X < high) without cancellation in the upper tail.
inline double normal_between(double low, double high) {
  return low + high > 0 ? normal_cdf(-low) - normal_cdf(-high) : normal_cdf(high) - normal_cdf(low);
}

// P(X > |z|) and the density at each of n places, to 2e-15 relative, several at a time.
void normal_tails(const double* z, std::ptrdiff_t n, double* tail, double* density);

// The same of P(X < z), to 2e-16.
void normal_cdfs(const double* z, std::ptrdiff_t n, double* cdf, double* density);

// P(low < X < high) of n pairs of limits, which may be infinite, without
// cancellation in the upper tail, and the densities at both.
void normal_intervals(const double* low, const double* high, std::ptrdiff_t n, double* p, double* at_low,
                      double* at_high);

// P(X < x, Y < y) for correlation r (Drezner & Wesolowsky, 1990; Genz, 2004); limits may be infinite.
double binormal_cdf(double x, double y, double r);
double binormal_density(double x, double y, double r);

// The same for one correlation at many points with finite limits, whose own distribution functions are known,
// and the density there.
class Binormal {
 public:
  explicit Binormal(double r);
  void cdf(const double* x, const double* y, const double* cdf_x, const double* cdf_y, std::ptrdiff_t n,
           double* out, double* density) const;

 private:
  struct Node {
    double s, scale, weight;
  };
  double r_;
  bool steep_;
  int count_ = 0;
  Node nodes_[20];
};

// P(x2 < X < x1, y2 < Y < y1), by another integral where the four corners would cancel.
double binormal_between(double x1, double x2, double y1, double y2, double r);

}  // namespace msem
