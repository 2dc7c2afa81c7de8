// The penalty that keeps a covariance matrix of the between level away from singular ones (Chung,
// Rabe-Hesketh, Dorie, Gelman & Liu, 2013; Chung, Gelman, Rabe-Hesketh, Liu & Dorie, 2015): -log|S| is added
// to -2 log L, which is the logarithm of a Wishart density with p + 2 degrees of freedom and an infinite
// scale.
//
// S are the residual covariances of a block. Factors count on the scale of what they contribute to their
// indicators, so that neither markers nor rotations matter: with G = L'WL, L the effects along loadings only
// and W fixed weights of the observed variables, -log|G_A| is added for sets A of factors. |S||G| is the
// product of the nonzero eigenvalues of what uncorrelated sets of factors contribute to the covariances of
// the indicators.
#pragma once

#include "fit/term.hpp"

namespace msem {

class VariancePenalty : public Term {
 public:
  // An element of S or of the loadings (to the row from the column); parameter -1 where it is fixed.
  struct Element {
    Index row, col;
    int parameter;
    double value;
  };

  // Variables are counted in the block: those in `variances` have their rows in S; `factors` are sets of
  // them. `weights` has an element for each variable, 0 for latent ones.
  VariancePenalty(std::vector<Element> covariances, std::vector<Element> loadings,
                  std::vector<Index> variances, std::vector<std::vector<Index>> factors, Vector weights);

  const std::vector<int>& parameters() const override { return parameters_; }
  bool at(ConstVectorRef theta, TermPoint& point) const override;

 private:
  int local(int parameter) const;
  bool add_determinant(ConstVectorRef theta, TermPoint& point) const;
  bool add_factors(ConstVectorRef theta, TermPoint& point) const;
  void add_set(const std::vector<Index>& set, const Cholesky& chol, const Matrix& l, const Matrix& g,
               Index row, TermPoint& point) const;

  std::vector<Element> covariances_, loadings_;  // rows and columns of covariances among `variances`
  std::vector<std::vector<Index>> factors_;
  Vector weights_;
  Index size_, rows_;
  std::vector<int> parameters_;
};

}  // namespace msem
