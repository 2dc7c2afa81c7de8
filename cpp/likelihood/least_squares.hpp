// Weighted least squares on the moments of one level: value = sum of w (s - sigma)^2 over unique elements,
// for the unweighted (w = 1) and diagonally weighted discrepancies. Never needs an inverse of the sample
// matrix.
#pragma once

#include "likelihood/likelihood.hpp"

namespace msem {

class LeastSquares : public Likelihood {
 public:
  // cov_weights: symmetric, the weight of each unique element in (i, j) and (j, i).
  LeastSquares(Vector mean, Matrix cov, Vector mean_weights, Matrix cov_weights);
  Layout layout() const override;
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;

  Vector mean, mean_weights;
  Matrix cov, cov_weights;
};

}  // namespace msem
