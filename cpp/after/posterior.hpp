// Latent variables of two-level data given the data: posterior (empirical Bayes) and maximum likelihood
// (Bartlett) scores at both levels, and the distance of clusters and units from the model.
//
// With  y_ij = mu + b_j + w_ij,  z~ = z_j - mu_z,  b | z ~ N(B z~, C)  and  Q_n = (Sigma_w + n C)^-1,  the
// units of a cluster enter what is above them through  u_j = Q_n s_j  and  U_j = n Q_n  only, where s_j is
// the sum of x_ij = y_ij - mu - B z~.  These are (I + P C)^-1 q and (I + P C)^-1 P for what the units say
// about b, -2 log f(Y_j | b) = c - 2 b'q + b'P b,  here with  P = n Sigma_w^-1,  q = Sigma_w^-1 s_j.
//
// All results are linear in the data of a cluster, with coefficients that depend on its size alone: they are
// computed once for every distinct size. A single-level sample has p = 0 and a cluster for every row.
#pragma once

#include "base/linalg.hpp"
#include "data/statistics.hpp"
#include "likelihood/likelihood.hpp"

namespace msem {

// Model-implied moments of all variables of a group, observed first, and how many are observed.
struct GroupMoments {
  Index p = 0, nboth = 0, q = 0;  // unit-level variables, those of them at both levels, cluster variables
  Vector mean_w, mean_b;
  Matrix cov_w, cov_b;
};

// Of levels, level 1 first, the only one if no variable is measured on units. Throws std::invalid_argument
// unless they have the variables.
GroupMoments group_moments(Index p, Index nboth, Index q, Implied levels);

// Observed variables of a level when its latent variables are fixed: mean + loadings (eta - mean of eta) + e.
struct Measurement {
  Matrix loadings;  // observed x latent
  Matrix residual;  // covariance of e
};

// Positions of fixed covariates among the unit-level and among the cluster variables.
struct Covariates {
  std::vector<Index> unit, cluster;
};

struct Scores {
  RowMatrix mean;            // clusters or units x d
  Matrix cov;                // d^2 x S, one covariance matrix for every distinct cluster size
  std::vector<Index> which;  // covariance matrix of each row
};

// Chi-squares of p + q and (n - 1) p degrees of freedom, less those of covariates.
struct Distances {
  Vector between, within, between_df, within_df;
};
struct UnitDistances {
  Vector distance, df;
};

// All throw std::invalid_argument for shapes that do not fit, std::domain_error where the moments are no
// distribution or, with a measurement, do not determine the latent variables.

// Between parts of the variables at both levels, then the latent variables of the between level.
Scores cluster_posterior(const GroupMoments& moments, const ClusterArrays& clusters);
Scores cluster_bartlett(const GroupMoments& moments, const Measurement& measurement,
                        const ClusterArrays& clusters);
// Latent variables of the within level.
Scores unit_posterior(const GroupMoments& moments, const ClusteredRows& rows, const ClusterArrays& clusters);
Scores unit_bartlett(const GroupMoments& moments, const Measurement& measurement, const ClusteredRows& rows,
                     const ClusterArrays& clusters);
// Mahalanobis distance of each cluster's data, given its covariates.
Distances cluster_distances(const GroupMoments& moments, const Covariates& covariates,
                            const ClusterArrays& clusters);
// Of each unit given the others of its cluster, the cluster variables and its own covariates.
UnitDistances unit_distances(const GroupMoments& moments, const Covariates& covariates,
                             const ClusteredRows& rows, const ClusterArrays& clusters);

}  // namespace msem
