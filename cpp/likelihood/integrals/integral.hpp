// Likelihoods that are integrals over some variables of each cluster, by adaptive Gauss-Hermite quadrature.
//
// Given the values s of these variables the density of a cluster's data, and of s itself, is known
// (`NodeDensity`). Integrals over s are sums over nodes a + tau x_q, a and tau the posterior mean and a root
// of the posterior covariance matrix of s, found by the rule itself (Naylor & Smith, 1982; Pinheiro & Bates,
// 1995). Where the posterior distribution of up to three variables is far from normal, nodes are the points
// of a lattice (`base/lattice.hpp`). Derivatives are those of the sum with its nodes held fixed.
//
// Of the variables of level 2 some are known, some are integrated over, and the rest depends on these. Level
// 1 has one more variable for each random slope, last: the product of slope and covariate, standardized,
// whose regression lambda is what the slope does to the others.
//
// Invariants
//   * The covariance matrix of what is known or integrated over is positive definite in the domain.
//   * Nodes are a function of the moments and the data of the cluster alone.
#pragma once

#include <memory>
#include <vector>

#include "likelihood/two_levels.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// What an integral is over, and what is the same for integrands of all kinds.
constexpr Index kFewNodes = 5;  // in each dimension, for steps whose target does not depend on them

struct Integration {
  TwoLevels shape;
  Index p = 0, m = 0;        // variables of level 1, without and with the m products that come last
  std::vector<Index> order;  // of level 2: the rest, what is known, what is integrated over
  std::vector<Index> cut;    // variables of level 2 of which there is nothing but the mean
  Index rest = 0, known = 0, integrated = 0;
  Index nodes = 15;     // in each dimension
  Vector weight;        // J
  Matrix known_values;  // known x J

  Index nclusters() const { return weight.size(); }
  Index given() const { return known + integrated; }
};

// Moments in the terms of an integrand.
struct IntegrandMoments {
  Moments moments;
  Matrix sigma, lambda, root_z;  // p x p without slopes; p x m; lower, of what is known or integrated over
  Vector mu;
  ConditionalLevel between;  // given what is known or integrated over
  Vector mean_rest;
  Vector cut;
};

// Where the derivatives of -2 log of an integrand stand in a column of a cluster. Of level 1 those with
// respect to mean, sigma and lambda; of level 2 those about `IntegrandMoments::between`: covariance matrix,
// mean and whitened regression of the rest, covariance matrix and mean of the others, whitened; then the
// cuts.
struct IntegrandColumns {
  Index p, m, rest, given, cuts;
  Index within() const { return p + p * p + p * m; }
  Index between() const { return rest * rest + rest + rest * given + given * given + given + cuts; }
  Eigen::Map<Vector> mean(double* w) const { return {w, p}; }
  Eigen::Map<Matrix> cov(double* w) const { return {w + p, p, p}; }
  Eigen::Map<Matrix> lambda(double* w) const { return {w + p + p * p, p, m}; }
  Eigen::Map<Matrix> c(double* b) const { return {b, rest, rest}; }
  Eigen::Map<Vector> rest_mean(double* b) const { return {b + rest * rest, rest}; }
  Eigen::Map<Matrix> slope(double* b) const { return {b + rest * rest + rest, rest, given}; }
  Eigen::Map<Matrix> zz(double* b) const { return {b + rest * (rest + 1 + given), given, given}; }
  Eigen::Map<Vector> z(double* b) const { return {b + rest * (rest + 1 + given) + given * given, given}; }
  Eigen::Map<Vector> cut(double* b) const {
    return {b + rest * (rest + 1 + given) + given * given + given, cuts};
  }
};

// Density of the data of a cluster and of what is integrated over. Used by one thread.
class NodeDensity {
 public:
  virtual ~NodeDensity() = default;
  // -2 log; infinite where there is none.
  virtual double value(Index cluster, const double* s) = 0;
  // Adds derivatives of -2 log at the node that `value` was asked for last, times a weight.
  virtual void add_gradient(Index cluster, const double* s, double weight, double* within,
                            double* between) = 0;
};

// Adds the derivatives of -2 log of the normal density of whitened z = L^-1 (known and integrated - mean),
// and those of the rest's mean, `rest`, by which its regression moves too.
void add_between(const IntegrandColumns& at, ConstVectorRef z, ConstVectorRef rest, double weight,
                 double* between);

// M = product of (I + s_k lambda_k e_k'), e_k the covariate of slope k: what slopes make of the variables of
// level 1 without them. Slopes are ordered so that none changes the covariate of one before it.
class SlopeMap {
 public:
  SlopeMap(const Matrix& lambda, const std::vector<Index>& covariate);
  void set(const double* s);
  const Matrix& map() const { return map_; }
  // Derivatives with respect to lambda and s, from those with respect to M; `lambda` is added to.
  void add_gradient(const double* s, const Matrix& of_map, double weight, MatrixRef lambda, double* of_s);

 private:
  void apply(Matrix& x, Index k, double s);
  const Matrix& lambda_;
  const std::vector<Index>& covariate_;
  Matrix map_, before_, after_;
  Eigen::RowVectorXd row_;
  Vector column_;
};

class IntegralPoint : public TwoLevelKernel {
 public:
  // False when the moments are outside the domain. With `nodes` these are taken as they are.
  bool prepare(const Integration& over, const Moments& moments, const IntegralPoint* nodes = nullptr);

  std::pair<Matrix, Matrix> cluster_scores(const Matrix& products, const Tangents& within,
                                           const Tangents& between) const;
  Vector cluster_loglik(const Matrix&) const { return loglik_; }
  // Posterior means of what is integrated over, d x J, and covariance matrices, d^2 x J.
  const Matrix& posterior_means() const { return centre_; }
  const Matrix& posterior_covs() const { return spread_; }
  // Nodes of a cluster, their posterior weights by another pass, and the integrand at them.
  template <class Visit>
  void at_nodes(Index cluster, NodeDensity& integrand, const Visit& visit) const {
    const Index d = over_->integrated;
    const Vector& log_weights = log_weights_[cluster];
    for (Index k = 0; k < log_weights.size(); ++k) {
      const double* s = nodes_[cluster].data() + k * d;
      const double weight = std::exp(log_weights[k] - 0.5 * integrand.value(cluster, s) - loglik_[cluster]);
      if (weight > 1e-14) visit(s, weight);
    }
  }
  const IntegrandMoments& integrand() const { return at_; }

 protected:
  Moments moment_gradient() const override { return gradient_; }
  BlockInformation expected(const Tangents& within, const Tangents& between) const override;
  BlockInformation observed(const Tangents& within, const Tangents& between) const override;
  std::pair<Matrix, Matrix> factors(const Tangents& within, const Tangents& between) const override;

  virtual std::unique_ptr<NodeDensity> density() const = 0;
  // Another point of the same data.
  virtual std::unique_ptr<IntegralPoint> another() const = 0;
  // Standard deviations, of what is integrated over, that are as good as none: the least that nodes are told
  // apart at. With them the likelihood goes on to where a variance is 0; what they do to the value is taken
  // off it again.
  virtual Vector negligible_spread() const { return Vector::Zero(over_->integrated); }
  // What has to be known of the moments before there are densities; false outside the domain.
  virtual bool prepare_integrand() { return true; }

  const Integration* over_ = nullptr;
  IntegrandMoments at_;

 private:
  class Search;
  bool prepare_moments(const Moments& moments);
  bool add_spread(MatrixRef cov);
  Moments from_columns(ConstVectorRef within, ConstVectorRef between) const;
  IntegrandColumns columns() const {
    return {over_->p, over_->m, over_->rest, over_->given(), static_cast<Index>(over_->cut.size())};
  }
  // Where among the variables of level 2 one stands that is integrated over.
  Index place(Index k) const { return over_->order[over_->rest + over_->known + k]; }
  Matrix curvature(const Tangents& within, const Tangents& between, bool rough) const;
  Matrix regular_root(const Tangents& within, const Tangents& between) const;

  // `negligible_spread`; variances given all else that is known or integrated over, what is added to them,
  // and the combinations of variables that they are the variances of.
  Vector least_, alone_, added_;
  Matrix combination_;
  std::vector<Vector> nodes_, log_weights_;  // of each cluster
  Matrix centre_, spread_;
  Vector loglik_;
  Matrix of_within_, of_between_;  // derivatives of -2 log L of each cluster, by element
  Moments gradient_;
};

}  // namespace msem
