// -2 log likelihood of complete normal data in two crossed classifications.
//
//     y_i = mu + a_g(i) + b_h(i) + w_i,   w ~ N(0, Sigma_w),   a_g ~ N(B (z_g - mu_z), C_a),   b_h alike,
// z the variables measured on clusters. With C = L L' and W = Sigma_w^-1, the effects in units of L have the
// precision S = I + L'Z'(I x W)Z L. The classification with the larger part of S is eliminated cluster by
// cluster: with L_a turned so that L_a'W L_a = diag(d), its block is diagonal, D_g^-1 = 1 + n_g d, and what
// is left is
//     S_b = diag(I + n_h L_b'W L_b) - sum_g n_gh n_gh' K'D_g K,   K = L_a'W L_b,
// dense, n_b r_b square (Henderson's equations; Bates, Machler, Bolker & Walker, 2015, for the elimination).
//
// Invariants
//   * The domain is that Sigma_w and the covariance matrices of z are positive definite and C_a, C_b positive
//   semidefinite.
//   * There are no independent clusters: nothing here is a sum over them.
//   * The information that steps are made with is the average information, half way between the observed and
//   the expected one (Gilmour, Thompson & Cullis, 1995), the observed one the derivative of the gradient by
//   differences.
#pragma once

#include "data/crossed.hpp"
#include "likelihood/likelihood.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// Data arranged for evaluations: classification 0 is the one that is eliminated.
struct CrossedArrangement {
  explicit CrossedArrangement(const CrossedData& data);

  struct Side {
    Index level;                     // of the model
    std::vector<Index> open, order;  // variables of units with a part there; rows of the level: those, then z
    std::vector<Index> z;            // variables measured there
    const Classification* data;
  };
  std::array<Side, 2> sides;
  Index p = 0;
  std::vector<Index> units;          // of the variables of units, the rows of level 1
  std::vector<Index> begin, column;  // pairs by cluster of side 0
  Vector count;

  // Rows about the open variables of a side among those about all variables of units.
  Matrix of_units(const Side& side, const Matrix& x) const;
  // sum_h n_gh x_h, and its transpose
  Matrix to_first(const Matrix& x) const;
  Matrix to_second(const Matrix& x) const;
};

class CrossedLikelihood;

class CrossedPoint : public LikelihoodPoint {
 public:
  // False when the moments are outside the domain.
  bool prepare(const CrossedLikelihood& whole, Implied moments);

  Implied gradient() const override;
  LevelBlocks information(Information kind, const LevelTangents& tangents) const override;
  std::vector<Matrix> factor(const LevelTangents& tangents) const override;

 private:
  struct Side {
    ConditionalLevel given;
    Matrix effects;                   // L, p x r
    Matrix shift, zeta;               // what z says of the means, p x n; z whitened
    Vector in_units;                  // L'W L, which is diagonal
    Matrix residual, sum, posterior;  // sums less their means, then less the effects; L x
    bool regular = false;             // whether C is
  };
  class Directions;

  bool prepare_side(int s, const Vector& mean);
  bool prepare_schur();
  void solve(Matrix& first, Matrix& second) const;
  Matrix covariance_of_first(const Matrix& inverse, Matrix& shares, Matrix& units, Matrix& between) const;
  Matrix second_products(const Matrix& inverse) const;
  Matrix average(const LevelTangents& tangents) const;
  Matrix observed(const LevelTangents& tangents, const Matrix& average) const;

  const CrossedLikelihood* whole_ = nullptr;
  const CrossedData* data_ = nullptr;
  const CrossedArrangement* at_ = nullptr;
  Implied moments_;
  Matrix w_;                   // Sigma_w^-1
  Matrix squares_;             // of the units about everything
  Vector total_;               // their sum
  Matrix eliminated_, cross_;  // D by cluster, r_a x n_a; K
  Cholesky schur_;
  std::array<Side, 2> sides_;
};

class CrossedLikelihood : public Likelihood {
 public:
  explicit CrossedLikelihood(std::shared_ptr<const CrossedData> data)
      : data_(std::move(data)), arranged_(*data_) {}
  Layout layout() const override { return {data_->levels, data_->nvariables()}; }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  const CrossedData& data() const { return *data_; }
  const CrossedArrangement& arranged() const { return arranged_; }

 private:
  std::shared_ptr<const CrossedData> data_;
  CrossedArrangement arranged_;
};

}  // namespace msem
