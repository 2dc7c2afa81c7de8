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
//   * Clusters with equal R form a class, which shares M.
//   * Work is cut into pieces that depend on the data alone, so that results do not depend on the threads.
#pragma once

#include "data/reduced.hpp"
#include "likelihood/product_clusters.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// Reduced rows arranged for evaluations of the likelihood.
struct DesignClasses {
  explicit DesignClasses(const ReducedData& data);

  std::vector<Index> member, first;  // clusters by class, and where each class begins
  std::vector<double> weight;        // of each class
  std::vector<Index> pieces;         // classes pieces[i], ..., pieces[i + 1] - 1 are handled together
  std::vector<Matrix> rest;  // by pattern, (outcomes + fixed) x n: their products are those beyond the rows
  Vector beyond;             // by pattern, units beyond the rows
  Vector of_pattern;         // units
  Matrix z_scatter;          // of the cluster variables about their mean
  Vector z_mean;             // about the origin
  double units = 0, clusters = 0;  // weighted, as the numbers by pattern are

  Index count() const { return static_cast<Index>(first.size()) - 1; }
};

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
  friend struct ClusterOfDesign;
  struct Sums;

  // What the outcomes of a pattern are in terms of all of them, whitened.
  struct Observed {
    Matrix map, weight;   // A_r, A_r'A_r; the map is empty where it is the identity
    double constant = 0;  // of a unit
  };

  bool prepare_within(const Moments& moments);
  bool prepare_patterns();
  bool prepare_between(const Moments& moments);
  bool sum_classes(Index piece, Sums& sums) const;
  void collect(const std::vector<Sums>& sums);
  Tangents between_rows(const Tangents& between) const;

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
  Vector mu_u_;                     // r
  Matrix residuals_;                // p x rows, of the values given f, whitened; about the mean within
  Matrix given_;                    // f x rows, L_f^-1 (f - mu_f R_0)
  std::vector<Observed> observed_;  // by pattern
  std::vector<Matrix> rest_residuals_, rest_t_,
      rest_given_;  // by pattern; A_r times the residuals, A_r' times that
  Matrix zeta_;     // q x J, L_z^-1 (z - mu_z)
  Canonical gradient_w_, gradient_b_;
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
