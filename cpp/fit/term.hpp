// Anything beside likelihoods that adds to an objective over theta: penalties, priors. Const: threads share
// it.
#pragma once

#include "base/linalg.hpp"

namespace msem {

// A term at one theta, over some of the parameters. `factor` is a matrix F with F'F half the part of the
// second derivatives that is positive semidefinite, the information that steps are made with; `observed` is
// half of all of them.
struct TermPoint {
  double value = 0;  // on the scale of -2 log L
  Vector gradient;
  Matrix factor, observed;
};

class Term {
 public:
  virtual ~Term() = default;
  // Which parameters it depends on: columns of what a point has.
  virtual const std::vector<int>& parameters() const = 0;
  // False outside the domain.
  virtual bool at(ConstVectorRef theta, TermPoint& point) const = 0;
};

}  // namespace msem
