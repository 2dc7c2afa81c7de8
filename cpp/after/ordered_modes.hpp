// Modes of the posterior distribution of latent variables given ordered and continuous ones, at one level or
// in clusters, with the normal distributions that touch it there (Laplace).
//
// The log-density is concave in the effects of a cluster, u, and of its units, e_i, which are standard
// normal:
//     - |u|^2 / 2 - sum_i { |e_i|^2 + |zeta_i - root u|^2 } / 2 + sum log P(category | shift + reach e_i +
//     top u)
// zeta_i the whitened residuals of continuous variables. Newton's method finds the maximum from anywhere; its
// matrix is an arrow, of which the units are eliminated first.
#pragma once

#include <vector>

#include "base/linalg.hpp"

namespace msem {

// Ordered variables of units, or of clusters: thresholds, how effects reach them, residual deviations.
struct ModeItems {
  std::vector<Vector> cuts;
  Matrix reach;  // items x effects of units; none for variables of clusters
  Matrix top;    // items x effects of clusters
  Vector sd;
};

struct ModeProblem {
  bool logistic = false;
  ModeItems unit, cluster;
  Matrix root;               // continuous variables x effects of clusters
  std::vector<Index> first;  // rows of cluster j: first[j], ..., first[j + 1] - 1 of the arrays below
  Matrix categories, shift;  // items x units; NaN where missing
  Matrix zeta;               // continuous variables x units
  Matrix cluster_categories, cluster_shift;
  Matrix unit_map;     // what is wanted of units: linear functions of (e, u)
  Matrix cluster_map;  // and of clusters: of u

  Index nclusters() const { return static_cast<Index>(first.size()) - 1; }
  // Throws std::invalid_argument for shapes that do not fit.
  void require() const;
};

// Values and variances of what is wanted, a column for each unit or cluster.
struct PosteriorModes {
  Matrix unit, unit_var, cluster, cluster_var;
  Index unsettled = 0;  // clusters whose maximum was not found
};

// Throws std::invalid_argument for shapes that do not fit.
PosteriorModes posterior_modes(const ModeProblem& problem);

}  // namespace msem
