// -2 log likelihood of complete two-level normal data with random slopes of covariates whose within parts are
// unknown, because they stand at both levels or are latent, by adaptive quadrature over the slopes.
//
// Given its slopes s a cluster is normal. With v the within parts of all variables of units without what
// slopes do, of mean mu and covariance matrix Sigma, a unit has
//     M(s) v,   M(s) = product of (I + s_k lambda_k e_k'),   lambda_k the effects of slope k times its
//     covariate e_k,
// of which the observed rows are seen, so that the density of the units, of the cluster variables and of s
// itself is that of complete data in which s is one more cluster variable.
//
// Level 1 has the observed variables, the latent covariates of slopes, and one more variable for each slope,
// as in slopes.hpp: lambda is its regression. Level 2 has the slopes after the cluster variables.
//
// Invariants
//   * Slopes are ordered so that none changes the covariate of one before it.
#pragma once

#include "data/statistics.hpp"
#include "likelihood/integrals/integral.hpp"
#include "likelihood/product_clusters.hpp"

namespace msem {

// Complete clusters, and slopes.
struct SlopeClusterData {
  Index p = 0, nboth = 0, q = 0;
  Index latent = 0;              // covariates of slopes that are not observed
  std::vector<Index> covariate;  // of each slope, among the unit variables and the latent ones after them
  Index nodes = 15;              // in each dimension
  Vector sizes, weight;          // J
  Matrix means;                  // (p + q) x J
  Matrix within;                 // p^2 x J: products about the means

  Index nclusters() const { return sizes.size(); }
  Index nslopes() const { return static_cast<Index>(covariate.size()); }
};

void require_products(const Matrix& products, const SlopeClusterData& data);
SlopeClusterData weighted(const SlopeClusterData& data, const Matrix& products, const Vector& weights);
SlopeClusterData single_cluster(const SlopeClusterData& data, const Matrix& products, Index cluster);
Integration integration(const SlopeClusterData& data);

class QuadraturePoint : public IntegralPoint {
 public:
  bool prepare(const SlopeClusterData& data, const Integration& over, const Moments& moments) {
    data_ = &data;
    return IntegralPoint::prepare(over, moments);
  }

 protected:
  std::unique_ptr<NodeDensity> density() const override;
  std::unique_ptr<IntegralPoint> another() const override {
    auto out = std::make_unique<QuadraturePoint>();
    out->data_ = data_;
    return out;
  }

 private:
  friend class SlopeDensity;
  const SlopeClusterData* data_ = nullptr;
};

class QuadratureLikelihood : public Likelihood {
 public:
  using Data = SlopeClusterData;
  using Point = QuadraturePoint;
  explicit QuadratureLikelihood(std::shared_ptr<const SlopeClusterData> data)
      : data_(std::move(data)), over_(integration(*data_)) {}
  Layout layout() const override { return shape().layout(); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  bool costly_information() const override { return true; }
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
