// What every discrepancy between model-implied moments and data offers, so that the objective needs to know
// no more of a likelihood than this. Complete data, data with holes, least squares and, later, random slopes
// each implement it.
//
// Invariants
//   * Moments come as a sequence of levels, level 1 first; a sample of one level has one element. A variable
//   with parts
//     at several levels stands in each of them: `Layout` says where. Only the sum of its means enters.
//   * The value is on the scale of -2 log L. `gradient` is with respect to the moments, symmetric for
//   covariances,
//     with d value = sum(gradient .* d moments) over full matrices.
//   * `information` is on the scale of the log-likelihood: half the (expected) second derivatives.
#pragma once

#include <memory>
#include <stdexcept>
#include <vector>

#include "model/tangents.hpp"

namespace msem {

// Moments of the observed variables of one level, changes of them, or derivatives with respect to them.
struct LevelImplied {
  Vector mean;
  Matrix cov;
};
using Implied = std::vector<LevelImplied>;
using LevelTangents = std::vector<Tangents>;

// The variables of each level by their positions among all variables of a sample, level 1 first.
struct Layout {
  std::vector<std::vector<Index>> levels;
  Index nvariables = 0;

  // Variables that level 1 shares with the next one; they come first at both.
  Index shared() const;
};

// An information matrix by the levels its parameters enter: block (a, b) for a <= b, the others are
// transposes.
class LevelBlocks {
 public:
  explicit LevelBlocks(std::size_t levels) : levels_(levels), blocks_(levels * levels) {}
  std::size_t levels() const { return levels_; }
  Matrix& operator()(std::size_t a, std::size_t b) { return blocks_[a * levels_ + b]; }
  const Matrix& operator()(std::size_t a, std::size_t b) const { return blocks_[a * levels_ + b]; }

 private:
  std::size_t levels_;
  std::vector<Matrix> blocks_;
};

enum class Information {
  kExpected,
  kObserved,
  kApproximate  // close to the expected one and cheaper, for steps whose target does not depend on it
};

// Everything that is known at one point of moment space; immutable.
class LikelihoodPoint {
 public:
  virtual ~LikelihoodPoint() = default;
  double value() const { return value_; }
  virtual Implied gradient() const = 0;
  virtual LevelBlocks information(Information kind, const LevelTangents& tangents) const = 0;
  // Matrices F_1, F_2, ... of equal height, one for each level, with [F_1 F_2 ...]'[F_1 F_2 ...] the expected
  // information. Its condition number is the square root of the information's, which matters when covariates
  // have huge means.
  virtual std::vector<Matrix> factor(const LevelTangents& tangents) const = 0;
  // Expected information as a linear map of changes of the moments: what it gives is to be read as a
  // gradient.
  virtual Implied expected_product(const Implied&) const {
    throw std::logic_error("this discrepancy has no products of its information with a vector");
  }

 protected:
  double value_ = 0;
};

class Likelihood {
 public:
  virtual ~Likelihood() = default;
  virtual Layout layout() const = 0;
  // Null outside the domain of the discrepancy.
  virtual std::unique_ptr<LikelihoodPoint> at(Implied moments) const = 0;
  // Whether its information costs many times what value and gradient do, so that steps had better use it
  // again.
  virtual bool costly_information() const { return false; }
  // What the last steps to a maximum are made with. Where the observed information is made of differences of
  // many gradients another one, with the curvature of the moments themselves, takes a few steps more that
  // cost a fraction.
  virtual Information step_information() const { return Information::kObserved; }
  // Whether values take so long that random starts are for who asks for them.
  virtual bool costly_value() const { return false; }
  // Whether it is an integral by quadrature, and the same with few nodes: where a search ends does not depend
  // on these. Null where there are no more.
  virtual bool integrated() const { return false; }
  virtual std::shared_ptr<const Likelihood> coarse() const { return nullptr; }
  // Units of each level, level 1 first; empty where there is no `expected_product`.
  virtual std::vector<double> units() const { return {}; }
};

// The independent units of a sample, each with statistics of its own: whatever is asked of single ones, of
// some of them, or of them with other weights. A likelihood makes them from the data it was made of, and they
// know it, so that nobody has to know which kind they are.
class Clusters {
 public:
  virtual ~Clusters() = default;
  virtual Index count() const = 0;
  // Clusters of one kind share their expected information.
  virtual std::vector<Index> kinds() const = 0;
  // Derivatives of the log-likelihood of each with respect to the parameters of each level (J x k by level),
  // and these log-likelihoods. Both are empty outside the domain.
  virtual std::vector<Matrix> scores(const Implied& moments, const LevelTangents& tangents) const = 0;
  virtual Vector loglik(const Implied& moments) const = 0;
  // The likelihood of one by itself, and of all of them, each counted so many times.
  virtual std::shared_ptr<const Likelihood> alone(Index cluster) const = 0;
  virtual std::shared_ptr<const Likelihood> weighted(const Vector& weights) const = 0;
};

}  // namespace msem
