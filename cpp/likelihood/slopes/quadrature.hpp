// -2 log likelihood of two-level normal data with random slopes of covariates whose within parts are unknown,
// because they stand at both levels or are latent, by adaptive quadrature over the slopes.
//
// Given its slopes s a cluster is normal. With v the within parts of all variables of units without what
// slopes do, of mean mu and covariance matrix Sigma, a unit has
//     M(s) v,   M(s) = product of (I + s_k lambda_k e_k'),   lambda_k the effects of slope k times its
//     covariate e_k,
// of which the observed rows are seen, so that the density of the units, of the cluster variables and of s
// itself is that of data in which s is one more cluster variable.
//
// Level 1 has the observed variables, the latent covariates of slopes, and one more variable for each slope,
// as in slopes.hpp: lambda is its regression. Level 2 has the slopes after the cluster variables.
//
// Invariants
//   * Slopes are ordered so that none changes the covariate of one before it.
#pragma once

#include "data/slope_clusters.hpp"
#include "likelihood/integrals/integral.hpp"
#include "likelihood/product_clusters.hpp"

namespace msem {

Integration integration(const SlopeClusterData& data);

class SlopeDensity;

class QuadraturePoint : public IntegralPoint {
 public:
  bool prepare(const SlopeClusterData& data, const Integration& over, const Moments& moments) {
    data_ = &data;
    return IntegralPoint::prepare(over, moments);
  }
  const SlopeClusterData& data() const { return *data_; }

 protected:
  std::unique_ptr<NodeDensity> density() const override;
  std::unique_ptr<IntegralPoint> another() const override {
    auto out = std::make_unique<QuadraturePoint>();
    out->data_ = data_;
    return out;
  }
  Vector negligible_spread() const override;

 private:
  const SlopeClusterData* data_ = nullptr;
};

class QuadratureLikelihood : public Likelihood {
 public:
  using Data = SlopeClusterData;
  using Point = QuadraturePoint;
  // With nodes other than those of the data if it is said how many.
  explicit QuadratureLikelihood(std::shared_ptr<const SlopeClusterData> data, Index nodes = 0)
      : data_(std::move(data)), over_(integration(*data_)) {
    if (nodes) over_.nodes = nodes;
  }
  Layout layout() const override { return shape().layout(); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  bool costly_information() const override { return true; }
  bool integrated() const override { return true; }
  std::shared_ptr<const Likelihood> coarse() const override {
    if (over_.nodes <= kFewNodes) return nullptr;
    return std::make_shared<const QuadratureLikelihood>(data_, kFewNodes);
  }
  const SlopeClusterData& data() const { return *data_; }
  TwoLevels shape() const { return over_.shape; }
  bool prepare(Implied moments, QuadraturePoint& point) const {
    return point.prepare(*data_, over_, shape().moments(std::move(moments)));
  }

 private:
  std::shared_ptr<const SlopeClusterData> data_;
  Integration over_;
};

using QuadratureClusters = ProductClusters<QuadratureLikelihood>;
extern template class ProductClusters<QuadratureLikelihood>;

}  // namespace msem
