// Between-level quantities conditional on the cluster variables that a cluster has, and their derivatives.
//
// With T = [I, -B] (p x (n + q)) and Sigma_zz = L L', tangents are taken to
//     c~ = R' dSigma_b R,   m~ = R' dmu,   b~ = (R' dSigma_b)_{.z} L^-T,   z~ = L^-1 dSigma_zz L^-T,   u~ =
//     L^-1 dmu_z,
// where R = T' times any further change of basis of the unit-level variables: dC, the change of the
// conditional mean, and dB L in that basis. C, B and the conditional mean are not linear in Sigma_b and mu_b;
// what their curvature adds to second derivatives is here too.
#pragma once

#include "likelihood/two_levels.hpp"

namespace msem {

// One block's tangents in whitened coordinates; columns are its parameters.
struct Whitened {
  Matrix cov;    // p^2 x k: w~ or c~
  Matrix mean;   // p x k
  Matrix slope;  // (p q) x k: b~          (between only)
  Matrix zcov;   // q^2 x k                (between only)
  Matrix zmean;  // q x k                  (between only)
  Index k() const { return cov.cols(); }
};

// Derivatives of a value with respect to these coordinates.
struct Canonical {
  Matrix w, c;  // p x p
  Vector m;     // p
  Matrix b;     // p x q
};

// The cluster variables given the moments of the model, as second derivatives need them.
struct ClusterPart {
  double count = 0;  // clusters
  Vector residual;   // L^-1 (mean - mu_z)
  Matrix scatter;    // L^-1 SS_zz(mu_z) L^-T
};

// One level given some of its variables, the last ones: the cluster level given cluster variables.
struct ConditionalLevel {
  // `moments` are those of `count` variables, then those that are given. False when the covariance matrix of
  // the latter is not positive definite.
  bool compute(const Matrix& moments, const Vector& mean, Index count);

  Cholesky chol_z;
  Matrix slopes;      // B L, b x q
  Matrix cov;         // C, b x b
  Matrix projection;  // [I, -B]', (b + q) x b
  Vector mu_z;
  ClusterPart part;
};

// Tangents of a block in which the last q variables are cluster variables; `projection` is R, n x p.
Whitened whiten_between(const Tangents& t, const Matrix& projection, const Cholesky& chol_z, Index q);

// Gradient with respect to the moments of such a block, from those with respect to c~, m~, b~, z~ and u~.
struct BetweenGradient {
  Vector mean;  // n
  Matrix cov;   // n x n
};
BetweenGradient between_gradient(const Matrix& projection, const Cholesky& chol_z, const Matrix& g_c,
                                 const Vector& g_m, const Matrix& g_b, const Matrix& g_zz, const Vector& g_z);

// What the curvature of C, B and the conditional mean adds to twice the observed information.
void add_curvature_of_conditioning(const Whitened& between, const Canonical& g, Matrix& bb);
// What the cluster variables add to twice the observed information.
void add_cluster_curvature(const Whitened& between, const ClusterPart& z, Matrix& bb);

}  // namespace msem
