// The objective: theta -> implied moments of every block -> sum over groups of a likelihood of these moments,
// and of further terms of theta. Const throughout, so that threads can share one; what is known of a maximum
// may be kept for what is asked at it afterwards.
#pragma once

#include <optional>

#include "fit/term.hpp"
#include "likelihood/likelihood.hpp"
#include "model/block.hpp"

namespace msem {

using Terms = std::vector<std::shared_ptr<const Term>>;

struct Group {
  std::shared_ptr<const Likelihood> likelihood;
  std::vector<int> levels;  // indices into blocks, level 1 first
};

// What is known of an objective at one theta.
struct ObjectivePoint {
  std::vector<BlockPoint> blocks;
  std::vector<std::unique_ptr<LikelihoodPoint>> groups;
  std::vector<TermPoint> terms;
  std::vector<Implied> gradients;  // of the groups, where the gradient has been evaluated
  double value = 0;
};

// Where a step leads to, and the blocks there, if they have been evaluated.
struct Settled {
  Vector theta;
  std::vector<BlockPoint> blocks;
};

struct Evaluation {
  bool in_domain = false;
  double value = 0;                             // -2 log L, +infinity outside the domain
  Vector gradient;                              // of value, NaN outside the domain
  std::shared_ptr<const ObjectivePoint> point;  // from which information is cheaper; null outside the domain
};

class Objective {
 public:
  Objective(int npar, std::vector<Block> blocks, std::vector<Group> groups, Terms terms = {});

  int npar() const { return npar_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const std::vector<Group>& groups() const { return groups_; }
  // Of a group: the blocks that have observed variables, level 1 first, and the variables of each.
  const std::vector<int>& levels(std::size_t group) const { return levels_[group]; }
  const Layout& layout(std::size_t group) const { return layouts_[group]; }
  const Terms& terms() const { return terms_; }

  // Whether some likelihood is an integral by quadrature, and the same with few nodes; nothing if there are
  // no more.
  bool integrated() const;
  std::optional<Objective> coarse() const;

  double value(ConstVectorRef theta) const;
  // The value at each row.
  Vector values(const Matrix& thetas) const;
  // The part of the value that is not of likelihoods; infinite outside the domain of a term.
  double penalty(ConstVectorRef theta) const;
  // `known`: the blocks at theta, if they have been evaluated.
  Evaluation evaluate(ConstVectorRef theta, std::vector<BlockPoint> known = {}) const;
  // Keeps a point that has been evaluated, in place of the one before it: functions of this theta start from
  // it.
  void keep(const Vector& theta, std::shared_ptr<const ObjectivePoint> point) const;
  // Both are empty outside the domain.
  Matrix expected_information(ConstVectorRef theta) const;
  // The same or close to it and cheaper: for steps, not for standard errors.
  Matrix approximate_information(ConstVectorRef theta) const;
  Matrix observed_information(ConstVectorRef theta) const { return observed_information(theta, {}); }
  // The same at a point that has been evaluated.
  Matrix expected_information(const ObjectivePoint& at) const;
  Matrix approximate_information(const ObjectivePoint& at) const;
  Matrix observed_information(const ObjectivePoint& at, const std::vector<int>& intercepts) const;
  // Close to it, for steps: of the kind that each likelihood has for these.
  Matrix step_information(const ObjectivePoint& at, const std::vector<int>& intercepts) const;
  // Whether that is the observed information.
  bool exact_steps() const;
  // Second derivatives along curves theta(t) = settle(theta, t delta): the same where the gradient is zero.
  Matrix observed_information(ConstVectorRef theta, const std::vector<int>& intercepts) const;
  // J' H J for the observed information H about the moments themselves and their derivatives J: the observed
  // information of a model whose moments are linear in its parameters.
  Matrix moment_information(ConstVectorRef theta) const;
  // T' H T for observed information H along such curves, with the intercepts that the basis T (npar x m)
  // moves. The change of basis is made in the tangents: exact where H itself would lose its digits to
  // covariates with huge means.
  Matrix observed_information_in(ConstVectorRef theta, const Matrix& basis) const;
  // A matrix F with F'F the expected information.
  Matrix information_factor(ConstVectorRef theta) const;
  // Derivatives of the log-likelihoods of single clusters of one group (J x npar), and these log-likelihoods;
  // empty outside the domain.
  Matrix scores(ConstVectorRef theta, const Clusters& clusters, int group) const;
  // The sum of outer products of these, each as often as `weights` say (empty: once), in the directions of
  // the columns of `basis` (empty: of the parameters). Empty outside the domain.
  Matrix score_products(ConstVectorRef theta, const Clusters& clusters, int group, const Vector& weights,
                        const Matrix& basis) const;
  Vector cluster_loglik(ConstVectorRef theta, const Clusters& clusters, int group) const;
  // Parameters that are intercepts and nothing else, ascending: the means are linear in them.
  std::vector<int> intercepts() const;
  // theta + delta, with these intercepts moved further so that they take up the curvature of the means.
  Vector settle(ConstVectorRef theta, const Vector& delta, const std::vector<int>& intercepts) const;
  // The same where the blocks at theta have been evaluated.
  Settled settle(const std::vector<BlockPoint>& here, ConstVectorRef theta, const Vector& delta,
                 const std::vector<int>& intercepts) const;
  // Directions of theta, by column, in which the means at one point change as they do at another: these
  // intercepts take up the difference.
  Matrix follow(ConstVectorRef from, ConstVectorRef to, const Matrix& directions,
                const std::vector<int>& intercepts) const;
  // One row for each mean in the likelihood of all groups, those of variables at both levels added up.
  Matrix stack(const std::vector<Matrix>& by_block) const;
  // Implied means, covariances of all variables of a block (observed first).
  bool implied(ConstVectorRef theta, int block, BlockPoint& point) const;
  // Derivatives of the observed moments of a block: mean then lower triangle by column, all npar columns.
  Matrix jacobian(ConstVectorRef theta, int block) const;

 private:
  using State = ObjectivePoint;
  void require_length(ConstVectorRef theta) const;
  bool prepare(ConstVectorRef theta, State& state, std::vector<BlockPoint> known = {}) const;
  // The point that is kept, or a new one; null outside the domain.
  std::shared_ptr<const State> at(ConstVectorRef theta) const;
  // Takes what the intercepts respond to out of the gradients of the groups with respect to the means.
  void settle_gradient(const std::vector<BlockPoint>& points, const std::vector<int>& intercepts,
                       std::vector<Implied>& gradients) const;
  std::vector<Implied> gradients(const State& state, const std::vector<int>& intercepts) const;
  bool evaluate_blocks(ConstVectorRef theta, std::vector<BlockPoint>& points) const;
  Implied implied(const std::vector<BlockPoint>& points, std::size_t group) const;
  LevelTangents tangents(const std::vector<BlockPoint>& points, std::size_t group) const;
  void gather(const LevelBlocks& part, std::size_t group, Matrix& total) const;
  void add_terms(const State& state, bool observed, Matrix& total) const;
  Matrix information(ConstVectorRef theta, Information kind) const;
  Matrix information(const State& state, Information kind) const;
  Matrix curved_information(const State& state, const std::vector<int>& intercepts,
                            const std::vector<Information>& kinds) const;

  int npar_;
  std::vector<Block> blocks_;
  std::vector<Group> groups_;
  Terms terms_;
  std::vector<std::vector<int>> levels_;  // by group: the block of each level
  std::vector<Layout> layouts_;           // by group

  struct Kept {
    Vector theta;
    std::shared_ptr<const ObjectivePoint> point;
  };
  mutable std::shared_ptr<const Kept> kept_;  // read and written as a whole
};

}  // namespace msem
