// The standard normal distribution in one and two dimensions.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstddef>

namespace msem {

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

// P(X < x, Y < y) for correlation r (Drezner & Wesolowsky, 1990; Genz, 2004); limits may be infinite.
double binormal_cdf(double x, double y, double r);
double binormal_density(double x, double y, double r);

// The same at n points with finite limits, whose own distribution functions are known.
void binormal_cdf(Eigen::Ref<const Eigen::ArrayXd> x, Eigen::Ref<const Eigen::ArrayXd> y,
                  Eigen::Ref<const Eigen::ArrayXd> cdf_x, Eigen::Ref<const Eigen::ArrayXd> cdf_y, double r,
                  Eigen::Ref<Eigen::ArrayXd> out);

// P(x2 < X < x1, y2 < Y < y1), by another integral where the four corners would cancel.
double binormal_between(double x1, double x2, double y1, double y2, double r);

}  // namespace msem
