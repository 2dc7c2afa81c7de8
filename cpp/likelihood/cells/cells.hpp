// -2 log likelihood of two-level normal data with holes, given which values are observed.
//
// With the between parts b of the variables at both levels, what the units of a cluster say about b is a
// quadratic form, -2 log f(Y_j | b) = c_j - 2 b'q_j + b'P_j b with
//     P_j = sum over cells n W_r,   q_j = sum over cells n W_r (ybar - m_j),   W_r = E' (E Sigma_w E')^-1 E,
// E the rows of the identity that pattern r observes and m_j = mu_y + B(z_j - mu_z). Integrating b ~ N(0, C)
// out,
//     -2 log L_j = c_j + log|I + P_j C| - q_j' V_j q_j + (cluster variables),    V_j = C (I + P_j C)^-1.
// The same step would take the result one level further up; random slopes would change E only.
//
// Invariants
//   * C and B are those given the cluster variables that the cluster has: there is one of each for every
//   pattern of
//     cluster variables.
//   * Clusters with the same cells and the same pattern of cluster variables form a class, which shares P, V
//   and all
//     second-order work.
//   * Work is cut into pieces that depend on the data alone, so that results do not depend on the threads.
#pragma once

#include "likelihood/cells/evidence.hpp"
#include "likelihood/product_clusters.hpp"

namespace msem {

struct ClusterClass {
  Index pattern = 0;           // of the cluster variables
  double weight = 0;           // clusters, weighted
  std::vector<Index> members;  // never empty: the first gives the cells
};

// Statistics arranged for evaluations of the likelihood.
struct MissingIndex {
  explicit MissingIndex(const IncompleteData& data);

  std::vector<ClusterClass> classes;
  std::vector<Index> pieces;      // classes pieces[i], ..., pieces[i + 1] - 1 are handled together
  std::vector<Vector> z_mean;     // by pattern of cluster variables, about origin
  std::vector<Matrix> z_scatter;  // about that mean
  std::vector<double> z_count;    // clusters, weighted
  std::vector<std::vector<Index>>
      rows;  // of a between block: the variables at both levels, then those observed
};

class MissingPoint : public TwoLevelKernel {
 public:
  // False when the moments are outside the domain.
  bool prepare(const IncompleteData& data, const MissingIndex& index, const Moments& moments);

  // Derivatives of the log-likelihood of each cluster with respect to the parameters of the two blocks (J x
  // k_w, J x k_b), and these log-likelihoods. `products` are those within cells: see `cell_products`.
  std::pair<Matrix, Matrix> cluster_scores(const Matrix& products, const Tangents& within,
                                           const Tangents& between) const;
  Vector cluster_loglik(const Matrix& products) const;

 protected:
  Moments moment_gradient() const override { return gradient_; }
  BlockInformation expected(const Tangents& within, const Tangents& between) const override;
  BlockInformation observed(const Tangents& within, const Tangents& between) const override;
  BlockInformation approximate(const Tangents& within, const Tangents& between) const override;
  std::pair<Matrix, Matrix> factors(const Tangents& within, const Tangents& between) const override;

 private:
  friend class MissingInformation;
  struct Sums;

  bool prepare_levels(const Moments& moments);
  bool prepare_patterns(const Moments& moments);
  bool sum_classes(Index piece, Sums& sums) const;
  void observe(Index cluster, const ClusterEvidence& evidence, ClusterView& out) const {
    view_cluster(*data_, cluster, mu_, levels_[data_->cluster_pattern[cluster]], weights_, evidence, out);
  }
  Moments collect(const std::vector<Sums>& sums);

  const IncompleteData* data_ = nullptr;
  const MissingIndex* index_ = nullptr;
  Vector mu_;                             // p, about origin
  std::vector<ConditionalLevel> levels_;  // by pattern of cluster variables
  std::vector<Matrix> weights_;           // W_r, p x p
  Vector log_dets_;                       // of E Sigma_w E'
  std::vector<Matrix>
      residual_products_;  // by unit pattern: sum of n (d d' + V), d the cell mean less its expectation
  std::vector<Matrix> posterior_sums_;  // by unit pattern: sum of n V, b x b
  std::vector<Canonical> between_;      // by pattern of cluster variables: c, m and b
  Moments gradient_;
};

class IncompleteLikelihood : public Likelihood {
 public:
  using Data = IncompleteData;
  using Point = MissingPoint;
  explicit IncompleteLikelihood(std::shared_ptr<const IncompleteData> data)
      : data_(std::move(data)), index_(*data_) {}
  Layout layout() const override { return shape().layout(); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  bool costly_information() const override { return true; }
  const IncompleteData& data() const { return *data_; }
  TwoLevels shape() const { return {data_->p, data_->nboth, data_->q}; }
  // False when the moments are outside the domain.
  bool prepare(Implied moments, MissingPoint& point) const {
    return point.prepare(*data_, index_, shape().moments(std::move(moments)));
  }

 private:
  std::shared_ptr<const IncompleteData> data_;
  MissingIndex index_;
};

// Its products: those within cells, see `cell_products`.
using IncompleteClusters = ProductClusters<IncompleteLikelihood>;
extern template class ProductClusters<IncompleteLikelihood>;

}  // namespace msem
