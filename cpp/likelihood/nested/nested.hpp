// -2 log likelihood of normal data with any number of nested levels, given which variables are observed, with
// random slopes of observed covariates.
//
// Seen from above, what is below a cluster is a quadratic form in its open vector, the parts above its level
// of all variables measured below: with precision P and score q about the mean that is expected given the
// variables of all higher clusters. At level l the cluster has variables z of its own, and the parts u of the
// open variables; with B = Sigma_uz Sigma_zz^-1 and C = Sigma_uu - B Sigma_zu
//     U = (I + P C)^-1 P,   u~ = (I + P C)^-1 q,   e = C u~,   V = C - C U C,
// and the next level sees, with H and J what its open vector does to u and z and T = H - B J,
//     P' = sum T'U T + J'Sigma_zz^-1 J,   q' = sum T'u~ + J'Sigma_zz^-1 e_z.
// Level 1 is the same step without anything below: its "clusters" are the cells, of which means and products
// are known, or their reduced rows. Derivatives go downwards with the posterior mean and covariance matrix of
// the open vector.
//
// Where variables of a level are missing, Sigma_zz^-1 is that of the observed ones, with rows of 0 for
// others.
//
// Slopes: the open vector has a coefficient of every variable that they may reach on 1 and on every covariate
// of the levels below, so that H and J are given by the data: with covariates x they are [I, x I] for those.
// What the model says of slopes is in the covariance matrix and the mean of these coefficients, M S M' with S
// that of the variables of the level and M made of what slopes do to them (`NestedMap`).
//
// Invariants
//   * C may be indefinite: the domain is that Sigma_zz of all levels and all I + P C are positive definite.
//   * Clusters with the same holes and covariates, and the same numbers of the same kinds of clusters below,
//     form a class, and share P, U, V.
//   * The expected information is what the derivative of the gradient gives where all residuals are zero:
//     -H for changes of covariances, H for those of means. It needs one cluster of each class only. The
//     covariance matrix of the data is linear in those of the levels, M S M' included, so that this is exact.
#pragma once

#include "data/nested.hpp"
#include "likelihood/likelihood.hpp"
#include "likelihood/nested/map.hpp"

namespace msem {

// Clusters with their parents, sorted by class at every level; of level 1 the cells of each lowest cluster.
struct NestedTree {
  struct Level {
    Matrix values;              // measured here, by cluster
    std::vector<Index> parent;  // at the next level
    Vector multiple, weight;    // how often a cluster is there in its parent, and in the sample
    std::vector<Index> first;   // where each class begins
    std::vector<Index> top;     // the highest cluster
    Index count() const { return weight.size(); }
  };
  std::vector<Level> levels;
};

struct NestedClasses {
  using Members = std::vector<std::pair<Index, double>>;  // classes below, and how many clusters of each
  std::vector<std::vector<Members>> levels;
  std::vector<std::vector<Index>> kind;  // of each class
  std::vector<Vector> weight;            // of the clusters of each class
  Index count(Index level) const { return static_cast<Index>(levels[level].size()); }
};

// Clusters of a level with the same variables observed and the same covariates.
struct NestedKind {
  Index pattern = 0;
  Matrix h, j;      // what the open vector above does to the open vector and to the variables measured here
  Vector constant;  // what a mean does to these: 0 where not observed
};

// Data arranged for evaluations of the likelihood.
struct NestedArrangement {
  explicit NestedArrangement(const NestedData& data);

  std::vector<NestedCoordinates> coordinates;  // by level
  std::vector<std::vector<NestedKind>> kinds;
  std::vector<std::vector<Vector>> observed;  // by level and pattern, 1 or 0 for variables measured there
  std::vector<Vector> of_pattern;             // clusters, or units, weighted
  NestedClasses classes;
  NestedTree data;                        // the clusters
  NestedTree shape;                       // one highest cluster of each class
  std::vector<Matrix> products;           // by pattern of level 1, pooled
  Vector beyond;                          // units that are in products only
  std::vector<std::vector<Index>> place;  // of the clusters of each level, where they are in `data`
  std::vector<Index> top_class;           // and its class
  double constant = 0;                    // N log 2 pi
};

class NestedPoint : public LikelihoodPoint {
 public:
  // False when the moments are outside the domain.
  bool prepare(const NestedData& data, const NestedArrangement& arranged, Implied moments);

  Implied gradient() const override;
  LevelBlocks information(Information kind, const LevelTangents& tangents) const override;
  std::vector<Matrix> factor(const LevelTangents& tangents) const override;

  // Derivatives of the log-likelihood of each highest cluster with respect to the parameters of each level,
  // and these log-likelihoods.
  std::vector<Matrix> cluster_scores(const LevelTangents& tangents) const;
  Vector cluster_loglik() const;

  // What all data say about the variables of one level in each of its clusters: the derivatives s of the
  // log-likelihood with respect to their means there, and minus the second derivatives H, so that a variable
  // of the level with covariances C with them is expected to be its mean plus C s, with C H C' less variance.
  // Of level 1 for the mean of the units of each cell, and H for a unit.
  struct Evidence {
    Matrix scores;             // variables x clusters, in the order of the data
    Matrix information;        // of each kind of cluster, stacked
    std::vector<Index> which;  // the kind of each cluster
  };
  Evidence evidence(Index level) const;
  // The posterior mean of the open vector of the cells, less the means of observed variables, for each of the
  // lowest clusters, and its covariance matrices, of each kind of them, stacked.
  struct Open {
    Matrix mean, cov;
    std::vector<Index> which;  // the kind of each cluster
  };
  Open open() const;
  // Changes of moments and derivatives with respect to them are those of `NestedMap::full`.
  using Full = std::vector<FullLevel<double>>;

  struct Level;
  struct Vectors;
  struct Sums;
  struct Downward;

 private:
  friend class NestedTangent;
  friend struct NestedFixed;
  bool prepare_classes();
  void residuals();
  Downward downward(Index level) const;
  Sums no_sums(std::size_t level) const;
  std::vector<std::vector<Matrix>> passed_down(const Vector& tops, std::vector<Sums>& sums) const;
  void shared_by_class(Index top_class, std::vector<Sums>& sums) const;
  Full assemble(const std::vector<Sums>& sums, double scale) const;
  Matrix whole_information(bool expected, const LevelTangents& tangents) const;

  const NestedData* data_ = nullptr;
  const NestedArrangement* arranged_ = nullptr;
  Implied moments_;
  std::vector<Level> levels_;
  std::vector<Vectors> vectors_;
  Full full_gradient_;  // of the log-likelihood
};

class NestedLikelihood : public Likelihood {
 public:
  explicit NestedLikelihood(std::shared_ptr<const NestedData> data)
      : data_(std::move(data)), arranged_(*data_) {}
  Layout layout() const override { return nested_layout(*data_); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  // Where clusters do not share much.
  bool costly_information() const override { return !data_->complete() || !data_->slopes.empty(); }
  bool prepare(Implied moments, NestedPoint& point) const {
    return point.prepare(*data_, arranged_, std::move(moments));
  }
  // Throws std::domain_error outside the domain.
  NestedPoint::Evidence evidence(Implied moments, Index level) const;
  // What is known of the effects of clusters of all levels on the units of each of the lowest: sums of the
  // parts of the p variables, less their means, then of the m slopes of covariates of units. Posterior means,
  // (p + m) x clusters, and covariance matrices of each kind of them, stacked. Throws as the former.
  NestedPoint::Open effects(Implied moments) const;
  const std::shared_ptr<const NestedData>& data() const { return data_; }
  const NestedArrangement& arranged() const { return arranged_; }

 private:
  std::shared_ptr<const NestedData> data_;
  NestedArrangement arranged_;
};

// Its highest clusters.
class NestedClusters : public Clusters {
 public:
  explicit NestedClusters(std::shared_ptr<const NestedLikelihood> whole) : whole_(std::move(whole)) {}
  Index count() const override { return whole_->data()->nclusters(); }
  std::vector<Index> kinds() const override { return whole_->arranged().top_class; }
  std::vector<Matrix> scores(const Implied& moments, const LevelTangents& tangents) const override;
  Vector loglik(const Implied& moments) const override;
  std::shared_ptr<const Likelihood> alone(Index cluster) const override;
  std::shared_ptr<const Likelihood> weighted(const Vector& weights) const override;

 private:
  std::shared_ptr<const NestedLikelihood> whole_;
};

}  // namespace msem
