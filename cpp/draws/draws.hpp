// Sufficient statistics of replicate samples: of clusters drawn with replacement, of all clusters but one,
// and of samples drawn from a fitted model. Raw rows are not touched.
//
// Everything is const after construction, and a replicate is a function of its number: threads share a
// source.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <variant>

#include "base/random.hpp"
#include "data/crossed.hpp"
#include "data/incomplete.hpp"
#include "data/nested.hpp"
#include "data/reduced.hpp"
#include "data/slope_clusters.hpp"
#include "data/statistics.hpp"
#include "draws/normals.hpp"
#include "likelihood/complete/twolevel.hpp"

namespace msem {

// The data of one group of a replicate: statistics of complete data, or what a likelihood of holes, of random
// slopes, of slopes that are integrated over, of more than two levels or of crossed classifications is made
// of.
using GroupData = std::variant<TwoLevelStatistics, std::shared_ptr<const IncompleteData>,
                               std::shared_ptr<const ReducedData>, std::shared_ptr<const SlopeClusterData>,
                               std::shared_ptr<const NestedData>, std::shared_ptr<const CrossedData>>;

struct GroupDraw {
  GroupData data;
  Index distinct = 0;  // different clusters among them; rows of clusters of a single-level sample
};

// Data of a group that have their clusters by themselves, all of them different.
template <class Data>
GroupDraw shared_draw(Data drawn) {
  auto kept = std::make_shared<const Data>(std::move(drawn));
  const Index distinct = kept->nclusters();
  return {std::move(kept), distinct};
}

// A replicate of all groups, each drawn with a stream of its own.
template <class Group, class DrawGroup>
std::vector<GroupDraw> draw_groups(const std::vector<Group>& groups, std::uint64_t seed,
                                   std::uint64_t replicate, const DrawGroup& draw_group) {
  std::vector<GroupDraw> out;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    RandomStream random(seed, replicate, static_cast<std::uint32_t>(g));
    out.push_back(draw_group(groups[g], random));
  }
  return out;
}

// The replicates of a sample, by number.
class Draws {
 public:
  virtual ~Draws() = default;
  virtual Index ngroups() const = 0;
  virtual std::vector<GroupDraw> draw(std::uint64_t replicate) const = 0;
};

// How the statistics of clusters make those of a sample.
struct PoolForm {
  bool single_level = false;  // rows of all clusters together, dependence within clusters left aside
  bool centred = false;       // means set to zero, for models without a mean structure
};

// The clusters of one group, of which any multiset can be drawn.
class Pool {
 public:
  virtual ~Pool() = default;
  virtual Index nclusters() const = 0;
  // Every cluster as often as its weight says.
  virtual GroupDraw draw(const Vector& weights) const = 0;
  // All clusters but one.
  virtual GroupDraw draw_without(Index cluster) const;
};
using Pools = std::vector<std::shared_ptr<const Pool>>;

// Throws std::invalid_argument unless every cluster has a place among them.
inline void require_places(const std::vector<Index>& place, Index nclusters) {
  if (static_cast<Index>(place.size()) != nclusters)
    throw std::invalid_argument("every cluster needs a place");
  for (const Index k : place) {
    if (k < 0 || k >= nclusters) throw std::invalid_argument("a place is beyond the clusters");
  }
}

// Complete clusters, arranged so that the statistics of any multiset of them are quick to make.
class ClusterPool : public Pool {
 public:
  ClusterPool(const ClusterData& clusters, PoolForm form);
  Index nclusters() const override { return sizes_.size(); }
  GroupDraw draw(const Vector& weights) const override;
  GroupDraw draw_without(Index cluster) const override;
  TwoLevelStatistics weighted(const Vector& weights) const;
  // How many different values its between level can have: clusters, or the rows of a single level.
  Index distinct(const Vector& weights, const TwoLevelStatistics& drawn) const;
  TwoLevelStatistics without(Index cluster) const;

 private:
  struct SizeClass {
    Index first, last;  // positions in order_
  };
  TwoLevelStatistics one_level(const Vector& weights) const;
  SimpleStatistics about_mean(const SizeClass& one, const Vector& weights, double& count) const;
  Matrix pooled_within(const Vector& weights) const;
  void append(double size, double count, const SimpleStatistics& one, TwoLevelStatistics& out) const;
  TwoLevelStatistics downdated(Index cluster) const;

  Index p_ = 0, m_ = 0;  // unit variables; all variables
  PoolForm form_;
  Vector sizes_;               // J
  Vector origin_;              // m
  Matrix values_;              // m x J, cluster vectors less the origin
  Matrix within_;              // p(p+1)/2 x J
  std::vector<Index> order_;   // clusters by size
  std::vector<SizeClass> by_;  // size classes, ascending
  TwoLevelStatistics all_;
};

// Clusters with holes. `unit` says which of those that are drawn each cluster of the data belongs to: itself
// in any order, or, for rows of a single level that are drawn by cluster, the cluster of the row.
class IncompletePool : public Pool {
 public:
  IncompletePool(std::shared_ptr<const IncompleteData> data, Matrix products, std::vector<Index> unit);
  Index nclusters() const override { return nunits_; }
  GroupDraw draw(const Vector& weights) const override;

 private:
  std::shared_ptr<const IncompleteData> data_;
  Matrix products_;
  std::vector<Index> unit_;
  Index nunits_ = 0;
};

// Clusters reduced for random slopes, in any order: cluster `place[j]` of those drawn is cluster j of the
// data.
class SlopePool : public Pool {
 public:
  SlopePool(std::shared_ptr<const ReducedData> data, Matrix products, std::vector<Index> place);
  Index nclusters() const override { return data_->nclusters(); }
  GroupDraw draw(const Vector& weights) const override;

 private:
  std::shared_ptr<const ReducedData> data_;
  Matrix products_;
  std::vector<Index> place_;
};

// Clusters of a likelihood that is integrated over slopes, in any order, as `SlopePool` has them.
class IntegratedPool : public Pool {
 public:
  IntegratedPool(std::shared_ptr<const SlopeClusterData> data, std::vector<Index> place);
  Index nclusters() const override { return data_->nclusters(); }
  GroupDraw draw(const Vector& weights) const override;

 private:
  std::shared_ptr<const SlopeClusterData> data_;
  std::vector<Index> place_;
};

// Highest clusters of more than two levels, in any order, as `SlopePool` has them.
class NestedPool : public Pool {
 public:
  NestedPool(std::shared_ptr<const NestedData> data, std::vector<Index> place);
  Index nclusters() const override { return data_->nclusters(); }
  GroupDraw draw(const Vector& weights) const override;

 private:
  std::shared_ptr<const NestedData> data_;
  std::vector<Index> place_;
};

// Clusters drawn with replacement, as many as there are.
class OrdinaryDraws : public Draws {
 public:
  OrdinaryDraws(Pools groups, std::uint64_t seed) : groups_(std::move(groups)), seed_(seed) {}
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;
  // How often each cluster of a group is drawn.
  Vector weights(std::uint64_t replicate, Index group) const;

 private:
  Pools groups_;
  std::uint64_t seed_;
};

// Replicate r leaves out cluster r, counted through the groups one after the other.
class LeaveOneOut : public Draws {
 public:
  explicit LeaveOneOut(Pools groups);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  Pools groups_;
  std::vector<GroupDraw> whole_;
};

// What is kept of a sample, and the distribution of the rest, in one group.
struct Design {
  TwoLevelStatistics observed;
  Implied moments;               // of the model, by level
  std::vector<Index> covariate;  // positions among the p + q variables whose values are kept
  bool centred = false;
};

// The same of data that are kept as the likelihood has them.
template <class Data>
struct LevelsDesign {
  std::shared_ptr<const Data> data;
  Implied moments;  // of the model, by level; with random slopes their products and they themselves last
  std::vector<std::vector<Index>>
      fixed;  // covariates whose values are kept, among the variables of each level
};
using IncompleteDesign = LevelsDesign<IncompleteData>;
using SlopeDesign = LevelsDesign<ReducedData>;
using IntegratedDesign = LevelsDesign<SlopeClusterData>;
using CrossedDesign = LevelsDesign<CrossedData>;
using NestedDesign = LevelsDesign<NestedData>;

// What is drawn of a cluster given what is kept of it.
struct DrawnNormal {
  ConditionalNormal normal;
  Matrix root;  // of what is left

  DrawnNormal() = default;
  // Throws std::domain_error where the covariance matrix is not positive semidefinite.
  DrawnNormal(const Matrix& cov, std::vector<Index> given);
  void draw(Vector& values, const Vector& mean, RandomStream& random_numbers) const;
};

// Outcomes given covariates, for cross-products of the covariates that are known.
struct DrawnRegression {
  ConditionalNormal normal;
  Matrix lower;    // Cholesky factor of its residual covariance matrix
  Matrix scatter;  // of the covariates
  Matrix factor;   // F with F F' = scatter
  double df = 0;   // of the cross-products

  DrawnRegression(const Matrix& cov, const std::vector<Index>& fixed, const Matrix& scatter, double df);
  Matrix draw(RandomStream& random_numbers) const;
  // The same of the means of so many units.
  void draw_means(Vector& values, const Vector& mean, double count, RandomStream& random_numbers) const;
};

// Where among the variables of a pattern those stand whose values are kept.
std::vector<Index> kept_among(const Pattern& seen, const std::vector<Index>& kept);

// Samples from the model given cluster sizes and covariates.
//
// Given the design matrix X of the covariates, outcomes are Y = X B' + E with independent rows of E. About
// the mean, X = Q F' with orthonormal Q of rank r, so E'Q = G has independent columns of the distribution of
// E's rows and E'E = GG' + W with W Wishart on the remaining degrees of freedom: the cross-products are drawn
// without rows.
class ParametricDraws : public Draws {
 public:
  // Throws std::domain_error where the moments are no distribution.
  ParametricDraws(std::vector<Design> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  struct PreparedGroup {
    Design design;
    Vector mean;
    std::vector<DrawnRegression> between;  // one for each cluster size
    std::vector<DrawnRegression> within;   // one, or none for a single level
  };
  static PreparedGroup prepare(Design design);
  static TwoLevelStatistics draw_group(const PreparedGroup& group, RandomStream& random_numbers);

  std::vector<PreparedGroup> groups_;
  std::uint64_t seed_;
};

// The moments of a level without the products of slopes with covariates measured there, and what these do.
struct WithoutProducts {
  std::vector<Index> variables;  // observed ones, then slopes that are variables of the level, from n on
  std::vector<Index> products;   // slopes
  Vector mean;
  Matrix cov, paths;

  // Of n observed variables in all. Throws std::invalid_argument unless the moments are those of the level.
  WithoutProducts(const std::vector<Index>& observed, Index n, const std::vector<RandomSlope>& slopes,
                  Index level, const LevelImplied& moments);
};

// Samples from the model with the holes of the data, given cells and covariates: the between parts of each
// cluster, the means of its cells about them, and for each pattern the products within all its cells
// together, as a Wishart matrix.
class IncompleteParametricDraws : public Draws {
 public:
  // Throws std::domain_error where the moments are no distribution: both covariance matrices must be positive
  // semidefinite.
  IncompleteParametricDraws(std::vector<IncompleteDesign> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  struct PreparedGroup {
    IncompleteDesign design;
    Moments moments;
    std::vector<DrawnRegression> within;  // by pattern, over its variables
    DrawnNormal between;
  };
  static PreparedGroup prepare(IncompleteDesign design);
  static IncompleteData draw_group(const PreparedGroup& group, RandomStream& random_numbers);

  std::vector<PreparedGroup> groups_;
  std::uint64_t seed_;
};

// Samples from the model with the pairs of clusters and the holes of the data, given covariates: the effects
// of the clusters of either classification, the means of cells about them, and for each pattern the products
// within all its cells together, as a Wishart matrix.
class CrossedParametricDraws : public Draws {
 public:
  // Throws std::domain_error where the moments are no distribution.
  CrossedParametricDraws(std::vector<CrossedDesign> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  struct PreparedGroup {
    CrossedDesign design;
    Vector mean;                         // of the variables of units within clusters
    Matrix paths;                        // what slopes do to them
    std::vector<Matrix> rows;            // of each cell: R with R'R its sum of products x x'
    std::vector<DrawnRegression> cells;  // by pattern, over its variables
    std::array<DrawnNormal, 2> clusters;
  };
  static PreparedGroup prepare(CrossedDesign design);
  static CrossedData draw_group(const PreparedGroup& group, RandomStream& random_numbers);

  std::vector<PreparedGroup> groups_;
  std::uint64_t seed_;
};

// Samples from the model with the clusters and the holes of the data, given covariates: from the highest
// level down the parts of the clusters and their slopes, the means of cells about them, or their reduced
// rows, and for each pattern in a highest cluster the products within its cells, as a Wishart matrix.
class NestedParametricDraws : public Draws {
 public:
  // Throws std::domain_error where the moments are no distribution.
  NestedParametricDraws(std::vector<NestedDesign> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  struct PreparedGroup {
    NestedDesign design;
    std::vector<WithoutProducts> levels;
    Vector mean;                            // of the variables of units within clusters
    Matrix paths;                           // what products do to them
    std::vector<DrawnRegression> cells;     // by pattern, over its variables
    std::vector<DrawnRegression> products;  // of each row of them
    std::vector<DrawnNormal> clusters;      // by level, from level 2 on
  };
  static PreparedGroup prepare(NestedDesign design);
  static NestedData draw_group(const PreparedGroup& group, RandomStream& random_numbers);
  static Matrix draw_clusters(const PreparedGroup& group, NestedData& out, RandomStream& random_numbers);

  std::vector<PreparedGroup> groups_;
  std::uint64_t seed_;
};

// Samples from the model given the covariates of units, those with slopes among them: the between parts and
// the slopes of each cluster, its reduced rows given these, and for each pattern the products beyond all rows
// together, as a Wishart matrix.
class SlopeParametricDraws : public Draws {
 public:
  // Throws std::domain_error where the moments are no distribution, those of slopes included.
  SlopeParametricDraws(std::vector<SlopeDesign> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  struct PreparedGroup {
    SlopeDesign design;
    Moments moments;
    std::vector<DrawnRegression> rest;  // by pattern, of its outcomes and the fixed covariates
    Matrix paths, root;                 // of outcomes on fixed covariates and products; of what is left
    DrawnNormal between;
  };
  static PreparedGroup prepare(SlopeDesign design);
  static ReducedData draw_group(const PreparedGroup& group, RandomStream& random_numbers);

  std::vector<PreparedGroup> groups_;
  std::uint64_t seed_;
};

// Samples from the model given the fixed covariates: the between parts and the slopes of each cluster, the
// means of its cells given these, and the products about them as Wishart matrices.
class IntegratedParametricDraws : public Draws {
 public:
  // Throws std::domain_error where the moments are no distribution.
  IntegratedParametricDraws(std::vector<IntegratedDesign> groups, std::uint64_t seed);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  struct PreparedGroup {
    IntegratedDesign design;
    Moments moments;
    Matrix sigma, lambda;  // of level 1 without what slopes do, and what they do
    DrawnNormal between;
  };
  static PreparedGroup prepare(IntegratedDesign design);
  static SlopeClusterData draw_group(const PreparedGroup& group, RandomStream& random_numbers);

  std::vector<PreparedGroup> groups_;
  std::uint64_t seed_;
};

}  // namespace msem
