// Expected and observed information of the likelihood of data with holes, given what is observed.
//
// For the covariance matrix V of a cluster and its residual e, half the second derivatives of -2 log L_j are
//     -tr(V^-1 dV_a V^-1 dV_b) / 2 + h_a' V^-1 h_b + (curvature of C and B),   h_a = dV_a V^-1 e + dmean_a,
// and the expected information is +tr / 2 + dmean' V^-1 dmean. With x_a = W_r dSigma_w,a W_r summed over the
// units of a cluster, the trace falls into sums over patterns and products of x_a, V, U and I - V P, which a
// class of clusters shares; the second term needs p numbers for each parameter and cluster.
#pragma once

#include "likelihood/cells/cells.hpp"

namespace msem {

class MissingInformation {
 public:
  MissingInformation(const MissingPoint& point, const Tangents& within, const Tangents& between);

  // Information that covariance matrices and slopes carry, and that means carry, in expectation.
  struct Parts {
    BlockInformation cov, mean;
  };
  // From every `stride`-th class.
  Parts expected(Index stride);
  BlockInformation observed();
  Index classes() const { return static_cast<Index>(point_.index_->classes.size()); }
  // Roots of the information about means, for `factor`.
  std::pair<Matrix, Matrix> mean_factor(Index stride);

 private:
  struct Traces {
    Matrix ww, wb, bb;          // tr / 2
    std::vector<Matrix> means;  // by pattern of cluster variables: sum of P - P V P, p x p
  };
  struct ClassSums {
    Matrix third;                     // k_w x k_w
    std::vector<Matrix> cross, kron;  // by pattern of cluster variables
    std::vector<Matrix> means;
    double weight = 0;
  };
  BlockInformation zero() const;
  const Matrix& weighted(Index pattern, Matrix& scratch) const;
  void add_weighted(Index pattern, double n, Matrix& scratch, Matrix& x) const;
  Traces traces(Index stride, bool patterns);
  ClassSums class_sums(Index piece, Index stride) const;
  Matrix pattern_traces(bool observed) const;
  Matrix cluster_products(Index piece) const;

  const MissingPoint& point_;
  const IncompleteData& d_;
  Index p_, b_, kw_, kb_;
  const Tangents& within_;
  std::vector<Whitened> between_;  // by pattern of cluster variables
  std::vector<Matrix> table_;      // W_r dSigma_w W_r, p^2 x k_w; empty when it would be too large
};

}  // namespace msem
