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
// Random slopes: the effects of a cluster are a coefficient of each variable on 1 and on each covariate x_c,
// so that Z_i = [I, x_i1 I, ...] and sums over units are those of x_i x_i' (x) W_i. Parts of variables and
// slopes u of a cluster have the coefficients M u, M made of what each slope does to the variables, which is
// their regression at level 1 on its product with the covariate (likelihood/slope_layout.hpp); L is M times a
// root of C.
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
#include "likelihood/slope_layout.hpp"
#include "likelihood/whitened.hpp"

namespace msem {

// Data arranged for evaluations: classification 0 is the one that is eliminated.
struct CrossedArrangement {
  explicit CrossedArrangement(const CrossedData& data, bool sparse = false);

  struct Side {
    Index level;                  // of the model
    std::vector<Index> open, z;   // variables of units with a part there; variables measured there
    std::vector<Index> standing;  // slopes that are variables of it
    std::vector<Index> order;     // rows of the level: variables of units, slopes, z
    const Classification* data;
    Index effects() const { return static_cast<Index>(open.size() + standing.size()); }
  };
  std::array<Side, 2> sides;
  Index p = 0, width = 1;       // variables of units; 1 and the covariates with slopes
  std::vector<Index> units;     // of the variables of units, the rows of level 1
  std::vector<Index> products;  // of the products of slopes and covariates
  // cells by pair of clusters, these by cluster of side 0
  std::vector<Index> begin, column;              // pairs of each cluster of side 0; cluster of side 1 of each
  std::vector<Index> cell_begin, cell, pattern;  // cells of each pair; their numbers in the data and patterns
  Matrix design;                                 // sums of x x' of each cell
  Vector mean_design;                            // over all units
  std::array<std::vector<Index>, 2> cluster;     // of each cell
  CrossedGraph graph;                            // of what is left

  Index ncells() const { return design.cols(); }
  Index coefficients() const { return p * width; }
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
  // What is known of the effects on the units of each cell, in the order of the data: sums over both
  // classifications of the parts of the p variables, and of the m slopes. Posterior means, (p + m) x cells,
  // and covariance matrices, (p + m)^2 x cells.
  struct Effects {
    Matrix mean, cov;
  };
  Effects of_cells() const;

 private:
  struct Side {
    ConditionalLevel given;
    Matrix map, root;      // M, coefficients x r; root of C, r x r
    Matrix effects;        // L
    Matrix known, zeta;    // what z says of the r means, r x n; z whitened
    Matrix shift;          // M times the former
    Matrix weighted;       // sum over the units of a cluster of x (x) W times what is left of them
    Matrix posterior;      // L x
    Matrix found;          // the same of the r effects
    bool regular = false;  // whether C is
  };
  // A'(1_c 1_d' (x) W) B of pairs c, d of the design, the first ones fastest.
  using Blocks = std::vector<Matrix>;
  // What is eliminated, and what is left, with any effects of side 1.
  struct Elimination {
    Matrix d;       // D^-1 by cluster of side 0, r_a x (r_a n_a)
    Matrix cross;   // K by pair, r_a x (r_b pairs)
    Matrix second;  // sum of L_b'W L_b, r_b x (r_b n_b)
    double log_det = 0;
    CrossedSystem system;
  };
  class Directions;
  struct Sweep;

  bool prepare_side(int s, const Vector& mean);
  Matrix slope_columns(int s, const Matrix& paths) const;
  Vector slope_means(const Matrix& paths) const;
  Matrix typical_information(const Matrix& effects) const;
  std::vector<Blocks> blocks(const Matrix& a, const Matrix& b) const;
  void subtract_design(double* x, Index cell, double scale, const double* coefficients) const;
  void add_weighted(double* x, Index cell, const double* values) const;
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
  Matrix paths_;                 // what slopes do to these, p x m
  Vector slope_mean_;            // m
  std::vector<Matrix> w_;        // by pattern, p x p
  std::vector<Matrix> squares_;  // of the units of each pattern about everything
  Matrix rest_;                  // sums of cells about everything, coefficients x cells
  Vector mean_;                  // of the coefficients, about the origin
  mutable Elimination left_;     // whose inverse is made when it is asked for
  mutable bool inverted_ = false;
  void invert() const;
  std::array<Side, 2> sides_;
};

class CrossedLikelihood : public Likelihood {
 public:
  explicit CrossedLikelihood(std::shared_ptr<const CrossedData> data, bool sparse = false)
      : data_(std::move(data)), arranged_(*data_, sparse) {}
  Layout layout() const override { return slope_layout(data_->levels, data_->nvariables(), data_->slopes); }
  bool costly_information() const override { return true; }
  Information step_information() const override { return Information::kApproximate; }
  bool costly_value() const override { return true; }
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
