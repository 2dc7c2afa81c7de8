// The border between a sequence of levels and likelihoods that know of two of them.
//
// Their unit-level variables come first, p of them, those at both levels before those within only, then q
// between-only ones. A sample of one level has either kind only: its rows are clusters (p = 0), or units
// without differences between clusters (all of them within only).
#pragma once

#include "likelihood/likelihood.hpp"

namespace msem {

// Moments of the p unit-level variables, and of the both-level variables followed by the between-only ones.
struct Moments {
  Vector mean_w, mean_b;
  Matrix cov_w, cov_b;
};

// An information matrix by the blocks its parameters enter.
struct BlockInformation {
  Matrix ww, wb, bb;
};

struct TwoLevels {
  Index p = 0, nboth = 0, q = 0;

  bool within() const { return p > 0; }
  bool between() const { return nboth + q > 0; }
  Layout layout() const;
  // Throws std::invalid_argument unless the levels have these variables.
  Moments moments(Implied levels) const;
  Implied levels(Moments moments) const;
  const Tangents& within(const LevelTangents& tangents) const;
  const Tangents& between(const LevelTangents& tangents) const;
  std::vector<Matrix> by_level(std::pair<Matrix, Matrix> parts) const;
};

// A point of such a likelihood, in its own terms.
class TwoLevelKernel : public LikelihoodPoint {
 public:
  Implied gradient() const final { return shape_.levels(moment_gradient()); }
  LevelBlocks information(Information kind, const LevelTangents& tangents) const final;
  std::vector<Matrix> factor(const LevelTangents& tangents) const final;
  Implied expected_product(const Implied& change) const final;

 protected:
  virtual Moments moment_gradient() const = 0;
  virtual BlockInformation expected(const Tangents& within, const Tangents& between) const = 0;
  virtual BlockInformation observed(const Tangents& within, const Tangents& between) const = 0;
  virtual BlockInformation approximate(const Tangents& within, const Tangents& between) const {
    return expected(within, between);
  }
  virtual std::pair<Matrix, Matrix> factors(const Tangents& within, const Tangents& between) const = 0;
  virtual Moments moment_product(const Moments&) const {
    throw std::logic_error("this discrepancy has no products of its information with a vector");
  }

  TwoLevels shape_;
};

}  // namespace msem
