// -2 log likelihood of two-level normal data with random slopes of observed covariates, given which outcomes
// are observed.
//
// A cluster is its reduced rows (data/reduced.hpp). With the columns of y whitened so that the residual
// covariance matrix within is the identity, row a has the values
//     y_a = nu R_a0 + Gamma (f_a - mu_f R_a0) + Z_a u + w_a,   w_a ~ N(0, I),   Z_a = R_a0 [E, 0] + sum_k
//     R_ac(k) lambda_k e_k',
// u the between parts of the variables at both levels, then the slopes; lambda_k is what slope k does to the
// outcomes, R_ac(k) its covariate. Given the cluster variables u has mean m = mu + B (z - mu_z) and
// covariance matrix C, so that the rho p values of the cluster are normal with covariance matrix M = I + Z C
// Z'. With
//     t = M^-1 (y - ...),   u~ = Z't,   U = Z'M^-1 Z,
// m + C u~ is the posterior mean of u and C - C U C its covariance matrix.
//
// In a row of pattern r some outcomes are observed, E_r y = E_r L_w (whitened y). With L_r L_r' = E_r Sigma_w
// E_r' the map A_r = L_r^-1 E_r L_w takes a whitened row to one with independent residuals; it is the
// identity where all are observed, and has rows of 0 for outcomes that are not, which add nothing. M is I + A
// Z C Z'A' then, and its inverse is used between A' and A, so that all sums are those of complete rows.
//
// Level 1 has one more variable for each slope: the product of slope and covariate, given with mean 0 and the
// identity as covariance matrix, so that lambda is its regression: moments, and their derivatives, are those
// of any other given variable. Level 2 has the slopes after the cluster variables.
//
// Invariants
//   * C may be indefinite: the domain is that all M are positive definite, as their factorisation says.
//   * Clusters with equal R form a class, which shares M. Classes whose clusters have rows of the same
//   patterns are handled side by side (base/lanes.hpp), and so are the clusters of a large class.
//   * Work is cut into pieces that depend on the data alone, so that results do not depend on the threads.
#pragma once

#include <array>
#include <mutex>

#include "base/lanes.hpp"
#include "data/reduced.hpp"
#include "likelihood/product_clusters.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// Clusters that are handled side by side, one in each lane: those of the first lanes, the others repeat one.
struct DesignStep {
  std::array<Index, kLanes> cluster;
  Index used = 0;
};

// Classes that are, or one of them in all lanes; all clusters of the class of a lane are in this lane, or in
// all lanes if there is one class.
struct DesignBatch {
  std::array<Index, kLanes> design, example;  // classes, and a cluster of each
  Index used = 0;
  Index first = 0, last = 0;  // steps
  Lanes weight;               // of the classes; 0 of lanes that are not used
};

// Reduced rows arranged for evaluations of the likelihood.
struct DesignClasses {
  explicit DesignClasses(const ReducedData& data);

  Index count = 0;  // classes
  std::vector<DesignBatch> batches;
  std::vector<DesignStep> steps;
  std::vector<Index> pieces;  // batches pieces[i], ..., pieces[i + 1] - 1 are handled together
  std::vector<Matrix> rest;   // by pattern, (outcomes + fixed) x n: their products are those beyond the rows
  Vector beyond;              // by pattern, units beyond the rows
  Vector of_pattern;          // units
  Matrix given_scatter;       // of the fixed covariates about their mean, over units
  Vector given_mean;          // about the origin
  Matrix z_scatter;           // the same of the cluster variables
  Vector z_mean;
  double units = 0, clusters = 0;  // weighted, as the numbers by pattern are

  Index npieces() const { return static_cast<Index>(pieces.size()) - 1; }

 private:
  void arrange(const ReducedData& data, const std::vector<Index>& classes);
  void sum_given(const ReducedData& data);
};

struct SlopeExpectation;

class SlopePoint : public TwoLevelKernel {
 public:
  // False when the moments are outside the domain.
  bool prepare(const ReducedData& data, const DesignClasses& classes, const Moments& moments);

  // Derivatives of the log-likelihood of each cluster with respect to the parameters of the two blocks (J x
  // k_w, J x k_b), and these log-likelihoods. `products` are those of `reduced_products`.
  std::pair<Matrix, Matrix> cluster_scores(const Matrix& products, const Tangents& within,
                                           const Tangents& between) const;
  Vector cluster_loglik(const Matrix& products) const;
  // What the units of every cluster say about u: u~, r x J, and U, r x r of each class of clusters.
  struct Evidence {
    Matrix scores, information;
    std::vector<Index> which;  // the class of each cluster
  };
  Evidence evidence() const;

 protected:
  Moments moment_gradient() const override { return gradient_; }
  BlockInformation expected(const Tangents& within, const Tangents& between) const override;
  BlockInformation observed(const Tangents& within, const Tangents& between) const override;
  std::pair<Matrix, Matrix> factors(const Tangents& within, const Tangents& between) const override;

 private:
  friend class DesignEvidence;
  friend class SlopeInformation;
  friend class ExpectationSums;
  friend class ClustersOfDesign;
  struct Sums;

  // What the outcomes of a pattern are in terms of all of them, whitened.
  struct Observed {
    Matrix map, weight;   // A_r, A_r'A_r; the map is empty where it is the identity
    double constant = 0;  // of a unit
  };

  bool prepare_within(const Moments& moments);
  bool prepare_patterns();
  Matrix whiten_given(const Matrix& x) const;
  Matrix whiten_given_transposed(const Matrix& x) const;
  bool prepare_between(const Moments& moments);
  bool sum_classes(Index piece, Sums& sums) const;
  void collect(const std::vector<Sums>& sums);
  Tangents between_rows(const Tangents& between) const;
  const SlopeExpectation& expectation() const;  // made when it is asked for first
  Matrix whitened_cluster_values() const;

  const ReducedData* data_ = nullptr;
  const DesignClasses* classes_ = nullptr;
  Index p_ = 0, f_ = 0, m_ = 0, r_ = 0, q_ = 0, nboth_ = 0;
  std::vector<Index>
      order_;  // of the moments of level 2: variables at both levels, slopes, cluster variables
  ConditionalLevel within_, between_;  // given f and the products; given z
  Cholesky chol_w_;
  Matrix whitener_;                 // L_w^-1
  Matrix whitening_;                // [I, -B]' L_w^-T at level 1
  Matrix residual_map_;             // L_w^-1 [I, -Gamma]
  Matrix lambda_;                   // p x m, whitened
  Vector residual_mean_;            // p: that map of the mean within
  Vector mu_f_, mu_u_;              // f, r; about the origin
  Matrix paths_of_u_;               // r x q: B
  Vector mean_of_u_;                // r: mu - B mu_z
  std::vector<Observed> observed_;  // by pattern
  std::vector<Matrix> rest_residuals_, rest_t_,
      rest_given_;  // by pattern; A_r times the residuals, A_r' times that, L_f^-1 f
  Canonical gradient_w_, gradient_b_;
  mutable std::once_flag expected_once_;
  mutable std::shared_ptr<const SlopeExpectation> expected_;
  Moments gradient_;
};

class SlopeLikelihood : public Likelihood {
 public:
  using Data = ReducedData;
  using Point = SlopePoint;
  explicit SlopeLikelihood(std::shared_ptr<const ReducedData> data)
      : data_(std::move(data)), classes_(*data_) {}
  Layout layout() const override { return shape().layout(); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  bool costly_information() const override;
  const ReducedData& data() const { return *data_; }
  const DesignClasses& classes() const { return classes_; }
  TwoLevels shape() const {
    const Index m = data_->nslopes();
    return {data_->nvalues() + m, data_->nboth, data_->q + m};
  }
  // False when the moments are outside the domain.
  bool prepare(Implied moments, SlopePoint& point) const {
    return point.prepare(*data_, classes_, shape().moments(std::move(moments)));
  }

 private:
  std::shared_ptr<const ReducedData> data_;
  DesignClasses classes_;
};

// Its products: those of `reduced_products`.
using SlopeClusters = ProductClusters<SlopeLikelihood>;
extern template class ProductClusters<SlopeLikelihood>;

}  // namespace msem
