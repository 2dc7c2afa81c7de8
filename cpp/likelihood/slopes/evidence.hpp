// What the clusters of one design share, and one cluster given it, of several designs at once: see slopes.hpp
// for the quantities.
//
// A cluster has few values, so that loops are written out, each lane of which is a cluster: nothing is
// allocated once the largest design has been seen.
#pragma once

#include "base/lanes.hpp"
#include "likelihood/slopes/slopes.hpp"

namespace msem {

// Numbers of outcomes, of parts between and slopes among them, and of rows.
struct AnyShape {
  Index p, r, m, rho;
};
// One outcome with one slope, as constants: so many data are of this kind that its loops are worth unrolling.
struct OneSlope {
  static constexpr Index p = 1, r = 2, m = 1, rho = 2;
};

class DesignEvidence {
 public:
  explicit DesignEvidence(const SlopePoint& point);
  // Of the classes of a batch. False when an M is not positive definite. `inverses`: whether `inverse` and
  // `solved` are wanted.
  bool compute(const DesignBatch& batch, bool inverses);

  // x := L^-1 A x, of length d.
  void whiten(Lanes* x) const;

  // work(shape) of the designs that have been computed.
  template <class Work>
  auto with_shape(const Work& work) const;

  // The first column of the design in a row, and the covariate of a slope.
  const Lanes& ones(Index row) const { return design[row * width_]; }
  const Lanes& covariate(Index row, Index slope) const {
    return design[row * width_ + point_.data_->covariate[slope]];
  }

  Index rho = 0, d = 0;
  Lanes log_det;
  LaneVector design;   // (1 + covariates) x rho
  LaneVector z, zc;    // d x r: Z, Z C
  LaneVector half;     // d x r: L^-1 A Z
  LaneVector inverse;  // d x d: A'M^-1 A
  LaneVector solved;   // d x r: A'M^-1 A Z C

 private:
  friend class ClustersOfDesign;
  template <class Shape>
  bool compute(const Shape& shape, bool inverses);
  template <class Shape>
  bool factor(const Shape& shape);
  template <class Shape>
  void whiten(const Shape& shape, Lanes* x) const;
  template <class Shape>
  void whiten_transposed(const Shape& shape, Lanes* x) const;  // x := A'L^-T x
  void map_rows(Lanes* x, bool transposed) const;

  const SlopePoint& point_;
  Index width_;
  LaneVector root_, reciprocal_;                   // d x d, lower; of its diagonal
  LaneVector mapped_, mapped_c_;                   // A Z, A Z C
  LaneVector whitened_;                            // d x d: L^-1 A
  mutable LaneVector row_;                         // p
  std::vector<const SlopePoint::Observed*> seen_;  // of the rows
  bool holes_ = false;                             // in any of them
};

template <class Work>
auto DesignEvidence::with_shape(const Work& work) const {
  using S = OneSlope;
  if (point_.p_ == S::p && point_.r_ == S::r && point_.m_ == S::m && rho == S::rho) return work(S{});
  return work(AnyShape{point_.p_, point_.r_, point_.m_, rho});
}

class ClustersOfDesign {
 public:
  explicit ClustersOfDesign(const SlopePoint& point);
  void compute(const DesignEvidence& evidence, const DesignStep& step);
  // Weights and values alone.
  void read(const DesignEvidence& evidence, const DesignStep& step);

  // The value of a variable of units in a row, and that of a cluster variable, about the origin.
  const Lanes& value(Index row, Index variable) const { return values_[row * nvalues_ + variable]; }

  Lanes weight;  // how often each counts; 0 of lanes that are not used
  Lanes quadratic;
  LaneVector t;               // d: A'M^-1 A (y - ...)
  LaneVector cluster_values;  // q, about the origin
  LaneVector mean;            // r: m
  LaneVector u;               // r: Z't
  LaneVector all;             // r: m + C u, the posterior mean

 private:
  template <class Shape>
  void compute(const Shape& shape, const DesignEvidence& evidence);

  const SlopePoint& point_;
  Index nvalues_;
  LaneVector values_;  // nvalues x rho
};

}  // namespace msem
