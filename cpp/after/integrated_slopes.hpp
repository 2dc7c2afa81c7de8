// Posterior moments of latent variables of models whose slopes are integrated over: those of normal
// distributions given the slopes, weighted by the nodes of each cluster.
#pragma once

#include <cstdint>

#include "base/random.hpp"
#include "data/statistics.hpp"
#include "likelihood/slopes/quadrature.hpp"

namespace msem {

// Moments of all variables as the likelihood has them, latent ones last.
class IntegratedSlopes {
 public:
  // Throws std::domain_error where the moments are those of no distribution.
  IntegratedSlopes(std::shared_ptr<const SlopeClusterData> data, Implied levels);

  // Means and covariances of the parts of variables, the slopes and the other latent variables of level 2.
  struct ClusterScores {
    Matrix mean;  // d x J
    Matrix cov;   // d^2 x J
  };
  ClusterScores clusters() const;

  // Of the latent variables of level 1 of each unit; `rows.unit` are the unit variables, NaN where missing.
  struct UnitScores {
    RowMatrix mean;  // N x d
    Matrix cov;      // d^2 x N
  };
  UnitScores units(const ClusteredRows& rows) const;

  // One draw of all that is unknown given all data of the clusters, in the order of the means above: slopes
  // by a chain of independent proposals for each cluster, Student's t about the posterior mean, which starts
  // at a node with its weight; all others are normal given these.
  struct Draw {
    Matrix clusters;  // d x J
    RowMatrix units;  // N x d
  };
  Draw draw(const ClusteredRows& rows, std::uint64_t seed) const;

 private:
  struct Between;  // of level 2 given the slopes and the cluster variables
  struct Within;   // of units given the slopes and the parts of level 2
  void draw_slopes(Index cluster, SlopeDensity& density, RandomStream& random, Vector& s) const;
  std::shared_ptr<const SlopeClusterData> data_;
  Moments moments_;
  Integration over_;
  QuadraturePoint point_;
};

}  // namespace msem
