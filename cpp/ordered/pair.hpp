// The log-likelihood of two variables of units in clusters, or of clusters, given what is known of each: by
// quadrature over the clusters' effects where there is no closed form.
#pragma once

#include <memory>

#include "ordered/cluster_scores.hpp"
#include "ordered/cluster_variables.hpp"

namespace msem {

// How many parameters a pair has: the covariance of the residuals of two variables of one level, or of the
// effect of a variable of units, if it has one, with a variable of clusters; then, if both are of units and
// have effects, the covariance of these.
Index pair_parameters(const ClusterVariable& first, const ClusterVariable& second);

// Nodes for two effects: those for the way to a maximum, about it, and at it.
enum class Nodes { kRough, kClose, kFinal };

class PairLikelihood {
 public:
  virtual ~PairLikelihood() = default;
  // `all`: the parameters of the first variable and of the second follow in the scores.
  virtual ClusterScores at(const Vector& theta, Nodes nodes, bool all) = 0;
  // Where to begin: what moments say.
  virtual Vector start() const { return Vector::Zero(count()); }
  // With more nodes at the end, for distributions that are narrow ridges.
  virtual void refine() {}
  // Nodes are placed by what the last evaluation says of the effects.
  virtual void accept() {}

  Index count() const { return limits_.size(); }
  // What the parameters would be if the correlations were 1.
  const Vector& limits() const { return limits_; }

 protected:
  explicit PairLikelihood(Vector limits) : limits_(std::move(limits)) {}

 private:
  Vector limits_;
};

std::unique_ptr<PairLikelihood> pair_likelihood(const ClusterVariables& rows, const ClusterVariable& first,
                                                const ClusterVariable& second);

}  // namespace msem
