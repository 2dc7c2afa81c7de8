// What every discrepancy between model-implied moments and data offers, so that the objective needs to know
// no more of a likelihood than this. Complete data, least squares and, later, missing data or random slopes
// each implement it.
//
// Invariants
//   * Unit-level variables come first, those at both levels before those within only; `mean_w`, `cov_w` are
//   over
//     all p of them. `mean_b`, `cov_b` are over the both-level variables followed by the q between-only ones.
//   * A single-level sample has p = 0: its variables are all "between" and every row is a cluster.
//   * The value is on the scale of -2 log L. `gradient` is with respect to the moments, symmetric for
//   covariances,
//     with d value = sum(gradient .* d moments) over full matrices.
//   * `expected` and `observed` are on the scale of the log-likelihood: half the (expected) second
//   derivatives.
#pragma once

#include <memory>
#include <stdexcept>

#include "model/tangents.hpp"

namespace msem {

struct Moments {
  Vector mean_w, mean_b;
  Matrix cov_w, cov_b;
};

// An information matrix by the blocks its parameters enter.
struct BlockInformation {
  Matrix ww, wb, bb;
};

// Everything that is known at one point of moment space; immutable.
class LossPoint {
 public:
  virtual ~LossPoint() = default;
  double value() const { return value_; }
  virtual Moments gradient() const = 0;
  virtual BlockInformation expected(const Tangents& within, const Tangents& between) const = 0;
  virtual BlockInformation observed(const Tangents& within, const Tangents& between) const = 0;
  // Expected information as a linear map of changes of the moments: what it gives is to be read as a
  // gradient.
  virtual Moments expected_product(const Moments&) const {
    throw std::logic_error("this discrepancy has no products of its information with a vector");
  }
  // Close to the expected information and cheaper, for steps whose target does not depend on it.
  virtual BlockInformation approximate(const Tangents& within, const Tangents& between) const {
    return expected(within, between);
  }
  // Matrices F_w, F_b of equal height with [F_w F_b]'[F_w F_b] the expected information. Its condition number
  // is the square root of the information's, which matters when covariates have huge means.
  virtual std::pair<Matrix, Matrix> factor(const Tangents& within, const Tangents& between) const = 0;

  // Derivatives of the log-likelihood of each cluster of the sample with respect to the parameters of the two
  // blocks (J x k_w, J x k_b), and these log-likelihoods, where the sample keeps its clusters apart.
  // `products` are those within cells: see `cell_products`.
  virtual std::pair<Matrix, Matrix> cluster_scores(const Matrix&, const Tangents&, const Tangents&) const {
    throw std::logic_error("this discrepancy does not keep clusters apart");
  }
  virtual Vector cluster_loglik(const Matrix&) const {
    throw std::logic_error("this discrepancy does not keep clusters apart");
  }

 protected:
  double value_ = 0;
};

class Loss {
 public:
  virtual ~Loss() = default;
  // The first so many variables of both blocks are the same; only the sum of their means enters.
  virtual Index nboth() const { return 0; }
  // Whether its information costs many times what value and gradient do, so that steps had better use it
  // again.
  virtual bool costly_information() const { return false; }
  // Null outside the domain of the discrepancy.
  virtual std::unique_ptr<LossPoint> at(const Moments& moments) const = 0;
};

}  // namespace msem
