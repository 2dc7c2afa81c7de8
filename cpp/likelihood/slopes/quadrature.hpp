// -2 log likelihood of complete two-level normal data with random slopes of covariates that stand at both
// levels, whose within parts are unknown, by adaptive Gauss-Hermite quadrature over the slopes.
//
// Given its slopes s a cluster is normal. With v the within parts of all variables of units without what
// slopes do, of mean mu and covariance matrix Sigma, a unit has
//     M(s) v,   M(s) = product of (I + s_k lambda_k e_k'),   lambda_k the effects of slope k times its
//     covariate e_k,
// so that the density of the units, of the cluster variables and of s itself is that of complete data in
// which s is one more cluster variable. Integrals over s are sums over nodes a + tau x_q, a and tau the
// posterior mean and a root of the posterior covariance matrix of s, found by the rule itself (Naylor &
// Smith, 1982; Pinheiro & Bates, 1995). Derivatives are those of the sum with its nodes held fixed.
//
// Level 1 has one more variable for each slope, as in slopes.hpp: lambda is its regression. Level 2 has the
// slopes after the cluster variables.
//
// Invariants
//   * Slopes are ordered so that none changes the covariate of one before it.
//   * The covariance matrix of slopes and cluster variables is positive definite in the domain.
//   * Nodes are a function of the moments and the data of the cluster alone.
#pragma once

#include "data/statistics.hpp"
#include "likelihood/product_clusters.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// Complete clusters, and slopes.
struct SlopeClusterData {
  Index p = 0, nboth = 0, q = 0;
  std::vector<Index> covariate;  // of each slope, among the unit variables
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

class QuadraturePoint : public TwoLevelKernel {
 public:
  // False when the moments are outside the domain. With `nodes` (d Q x J, then Q x J of log weights) these
  // are taken as they are.
  bool prepare(const SlopeClusterData& data, const Moments& moments, const QuadraturePoint* nodes = nullptr);

  std::pair<Matrix, Matrix> cluster_scores(const Matrix& products, const Tangents& within,
                                           const Tangents& between) const;
  Vector cluster_loglik(const Matrix&) const { return loglik_; }
  // Posterior means of the slopes, m x J, and covariance matrices, m^2 x J.
  const Matrix& slope_means() const { return centre_; }
  const Matrix& slope_covs() const { return spread_; }

 protected:
  Moments moment_gradient() const override { return gradient_; }
  BlockInformation expected(const Tangents& within, const Tangents& between) const override;
  BlockInformation observed(const Tangents& within, const Tangents& between) const override;
  std::pair<Matrix, Matrix> factors(const Tangents& within, const Tangents& between) const override;

 private:
  friend class NodeDensity;
  bool prepare_moments(const Moments& moments);
  Matrix curvature(const Tangents& within, const Tangents& between, bool rough) const;
  Matrix regular_root(const Tangents& within, const Tangents& between) const;

  const SlopeClusterData* data_ = nullptr;
  Index p_ = 0, m_ = 0, nb_ = 0, g_ = 0;
  Moments moments_;
  Matrix sigma_, lambda_, root_z_;  // p x p without slopes; p x m; lower, of cluster variables and slopes
  Vector mu_;
  ConditionalLevel between_;  // given cluster variables and slopes
  Matrix nodes_, log_weights_;
  Matrix centre_, spread_;
  Vector loglik_;
  Matrix of_within_, of_between_;  // derivatives of -2 log L of each cluster, by element
  Moments gradient_;
};

class QuadratureLikelihood : public Likelihood {
 public:
  using Data = SlopeClusterData;
  using Point = QuadraturePoint;
  explicit QuadratureLikelihood(std::shared_ptr<const SlopeClusterData> data) : data_(std::move(data)) {}
  Layout layout() const override { return shape().layout(); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  bool costly_information() const override { return true; }
  const SlopeClusterData& data() const { return *data_; }
  TwoLevels shape() const {
    const Index m = data_->nslopes();
    return {data_->p + m, data_->nboth, data_->q + m};
  }
  bool prepare(Implied moments, QuadraturePoint& point) const {
    return point.prepare(*data_, shape().moments(std::move(moments)));
  }

 private:
  std::shared_ptr<const SlopeClusterData> data_;
};

using QuadratureClusters = ProductClusters<QuadratureLikelihood>;
extern template class ProductClusters<QuadratureLikelihood>;

}  // namespace msem
