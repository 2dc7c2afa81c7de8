// -2 log likelihood of normal data in two crossed classifications, values of units missing at random.
//
//     y_i = mu + a_g(i) + b_h(i) + w_i,   w ~ N(0, Sigma_w),   a_g ~ N(B (z_g - mu_z), C_a),   b_h alike,
// z the variables measured on clusters, and of y_i what is observed. With C = L L' and W_i the inverse of the
// part of Sigma_w that unit i observes, 0 elsewhere, the effects in units of L have the precision
// S = I + L'Z'W Z L. The classification with the larger part of S is eliminated cluster by cluster,
// D_g = I + sum_i L_a'W_i L_a, and what is left is
//     S_b = diag(I + sum_i L_b'W_i L_b) - sum_g K_g'D_g^-1 K_g,   K_gh = sum_i L_a'W_i L_b over the units of
// a pair of clusters (Henderson's equations; Bates, Machler, Bolker & Walker, 2015, for the elimination),
// dense or sparse (`CrossedSystem`). Units count by cells: pair of clusters and what is observed.
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
#include "likelihood/crossed/system.hpp"
#include "likelihood/likelihood.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// Data arranged for evaluations: classification 0 is the one that is eliminated.
struct CrossedArrangement {
  explicit CrossedArrangement(const CrossedData& data, bool sparse = false);

  struct Side {
    Index level;                     // of the model
    std::vector<Index> open, order;  // variables of units with a part there; rows of the level: those, then z
    std::vector<Index> z;            // variables measured there
    const Classification* data;
  };
  std::array<Side, 2> sides;
  Index p = 0;
  std::vector<Index> units;  // of the variables of units, the rows of level 1
  // cells by pair of clusters, these by cluster of side 0
  std::vector<Index> begin, column;              // pairs of each cluster of side 0; cluster of side 1 of each
  std::vector<Index> cell_begin, cell, pattern;  // cells of each pair; their numbers in the data and patterns
  Vector count;                                  // units of each cell
  std::array<std::vector<Index>, 2> cluster;     // of each cell
  CrossedGraph graph;                            // of what is left

  Index ncells() const { return count.size(); }
  // Rows about the open variables of a side among those about all variables of units.
  Matrix of_units(const Side& side, const Matrix& x) const;
};

class CrossedLikelihood;

class CrossedPoint : public LikelihoodPoint {
 public:
  // False when the moments are outside the domain.
  bool prepare(const CrossedLikelihood& whole, Implied moments);

  Implied gradient() const override;
  LevelBlocks information(Information kind, const LevelTangents& tangents) const override;
  std::vector<Matrix> factor(const LevelTangents& tangents) const override;

  // What all data say about the means of the clusters of a level (1 or 2, from 0): derivatives of the
  // log-likelihood (n x clusters) and minus the second ones (n^2 x clusters), n the variables of the level.
  struct Evidence {
    Matrix scores, information;
  };
  Evidence evidence(Index level) const;
  // The same of a unit by its cell, in the order of the data: its mean given the effects (p x cells), and of
  // W - W Cov(a + b) W the p^2 elements.
  Evidence of_units() const;

 private:
  struct Side {
    ConditionalLevel given;
    Matrix effects;        // L, p x r
    Matrix shift, zeta;    // what z says of the means, p x n; z whitened
    Matrix weighted;       // sum over the units of a cluster of W times what is left of them, p x n
    Matrix posterior;      // L x
    bool regular = false;  // whether C is
  };
  // What is eliminated, and what is left, with any effects of side 1.
  struct Elimination {
    Matrix d;                  // D^-1 by cluster of side 0, r_a x (r_a n_a)
    Matrix cross;              // K by pair, r_a x (r_b pairs)
    Matrix second;             // sum of L_b'W L_b, r_b x (r_b n_b)
    std::vector<Matrix> pair;  // L_a'W L_b by pattern
    double log_det = 0;
    CrossedSystem system;
  };
  class Directions;
  struct Sweep;

  bool prepare_side(int s, const Vector& mean);
  bool eliminate(const Matrix& effects, Elimination& out) const;
  void solve(Matrix& first, Matrix& second) const;
  void sweep(Sweep& out) const;
  Matrix second_information() const;
  Matrix average(const LevelTangents& tangents) const;
  Matrix observed(const LevelTangents& tangents, const Matrix& average) const;

  const CrossedLikelihood* whole_ = nullptr;
  const CrossedData* data_ = nullptr;
  const CrossedArrangement* at_ = nullptr;
  Implied moments_;
  Matrix within_, inverse_;      // Sigma_w in the order of the variables of units, and its inverse
  std::vector<Matrix> w_;        // by pattern, p x p
  std::vector<Matrix> squares_;  // of the units of each pattern about everything
  Matrix rest_;                  // sums of cells about everything, p x cells
  Vector mean_;                  // of the variables of units, about the origin
  mutable Elimination left_;     // whose inverse is made when it is asked for
  mutable bool inverted_ = false;
  void invert() const;
  std::array<Side, 2> sides_;
};

class CrossedLikelihood : public Likelihood {
 public:
  explicit CrossedLikelihood(std::shared_ptr<const CrossedData> data, bool sparse = false)
      : data_(std::move(data)), arranged_(*data_, sparse) {}
  Layout layout() const override { return {data_->levels, data_->nvariables()}; }
  bool costly_information() const override { return true; }
  Information step_information() const override { return Information::kApproximate; }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  // Null outside the domain.
  std::unique_ptr<CrossedPoint> point(Implied moments) const;
  const CrossedData& data() const { return *data_; }
  const CrossedArrangement& arranged() const { return arranged_; }

 private:
  std::shared_ptr<const CrossedData> data_;
  CrossedArrangement arranged_;
};

}  // namespace msem
