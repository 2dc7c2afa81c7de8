// A few numbers side by side, as a processor adds and multiplies them at once: what is done for each of many
// small things, of which none is long enough for it, is done for so many of them together.
#pragma once

#include <Eigen/Core>
#include <array>
#include <vector>

namespace msem {

constexpr Eigen::Index kLanes = 4;  // doubles in a register
using Lanes = Eigen::Array<double, kLanes, 1>;
using LaneVector = std::vector<Lanes>;

// Numbers of several places beside each other. They are put together in registers: a processor waits for
// numbers that are written one by one and read together.
inline Lanes beside(double a, double b, double c, double d) { return {a, b, c, d}; }
inline void gather(const std::array<const double*, kLanes>& from, Eigen::Index count, Lanes* out) {
  for (Eigen::Index i = 0; i < count; ++i) out[i] = beside(from[0][i], from[1][i], from[2][i], from[3][i]);
}

// The sums over lanes, as a matrix.
inline Eigen::MatrixXd lane_sums(const LaneVector& x, Eigen::Index rows, Eigen::Index cols) {
  Eigen::MatrixXd out(rows, cols);
  for (std::size_t i = 0; i < x.size(); ++i) out.data()[i] = x[i].sum();
  return out;
}

// One lane of many numbers.
inline void copy_lane(const LaneVector& x, Eigen::Index lane, double* out) {
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i][lane];
}

}  // namespace msem
