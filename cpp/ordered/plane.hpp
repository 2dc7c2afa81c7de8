// The integral of the categories of two ordered variables over their effects of one cluster, two normal ones,
// one, or none, by quadrature whose nodes are placed at the mean and covariance matrix of the effects given
// the data (Naylor & Smith, 1982), with its derivatives.
#pragma once

#include <array>

#include "base/hermite.hpp"
#include "base/normal.hpp"
#include "ordered/rectangle.hpp"

namespace msem {

// Units in one cell of the table of two variables; -1 where one of them is missing.
struct PlaneCell {
  int one, other;
  double count;
  Index row;  // one of them
};

// Cells whose units have the same covariates.
struct PlaneKind {
  std::size_t begin, end;  // of the cells
  double shift_one, shift_other;
};

// Mean of the effects, and the lower triangle (0,0), (1,0), (1,1) of a root of their covariance matrix.
struct Placed {
  double mean[2], root[3];
};

struct PlaneModel {
  Vector cuts_one, cuts_other;
  double variance_one, variance_other;  // of the effects; 0 without one
  double covariance, correlation;       // of the effects, and of what is left of the units
};

class Plane {
 public:
  Plane(const Hermite& rule, double correlation) : rule_(rule), binormal_(correlation) {}

  // all: derivatives of cells, and with respect to the variances of the effects, too.
  void integrate(const PlaneModel& model, const std::vector<PlaneCell>& cells,
                 const std::vector<PlaneKind>& kinds, const Placed& placed, bool all);

  double value = 0, d_correlation = 0, d_covariance = 0, d_variance_one = 0, d_variance_other = 0;
  // less the second derivatives with respect to the correlation and the covariance (Louis, 1982), the nodes
  // where they are
  double curvature[3] = {0, 0, 0};  // (0,0), (1,0), (1,1)
  std::vector<PairSlope> cells;     // derivatives, times counts; of thresholds and shifts only
  Placed moved;                     // moments of the effects given the data

 private:
  using Array = Eigen::ArrayXd;
  using Arrays = Eigen::ArrayXXd;

  void place(const PlaneModel& model, const Placed& placed);
  void effects(const PlaneModel& model);
  // Of one kind: where the thresholds that are needed are, and distribution function and density there.
  void corners(const PlaneModel& model, const std::vector<PlaneCell>& cells, const PlaneKind& kind, bool all);
  void cell(const PlaneModel& model, const PlaneKind& kind, const PlaneCell& cell, std::size_t number,
            bool all);
  void far_node(const PlaneModel& model, const PlaneKind& kind, const PlaneCell& cell, Index q,
                std::size_t number, bool all);
  Index corner(int k, int l) const { return (k - 1) + (l - 1) * (rows_ - 1); }

  const Hermite& rule_;
  const Binormal binormal_;
  Index n_ = 0;
  int rows_ = 0, cols_ = 0;
  Array one_, other_, logs_, shares_, slope_, bend_, p_, s_, c_, low_, high_, at_low_, at_high_;
  std::vector<char> need_one_, need_other_, need_;
  Arrays z_one_, z_other_, cdf_one_, cdf_other_, phi_one_, phi_other_;  // by threshold
  Arrays cdf_, density_, bent_, edge_one_,
      edge_other_;  // by corner; bent: derivative of the density for the correlation
  Arrays upper_one_, lower_one_, upper_other_, lower_other_;  // of cells
};

}  // namespace msem
