// -2 log likelihood of complete two-level normal data from sufficient statistics.
//
// With C = Sigma_yy - B Sigma_zy the between covariance of the unit-level variables given the between-only
// ones (B = Sigma_yz Sigma_zz^-1), one generalised eigenproblem  C v = lambda Sigma_w v,  V' Sigma_w V = I,
// serves every cluster size n:  (Sigma_w + n C)^-1 = V diag(1 / (1 + n lambda)) V'.
//
// Invariants
//   * The statistics enter as `rows`: for each cluster size, rows r of length 1 + p + q over (1, ybar, z)
//   with
//     sum r r' equal to that size's raw cross-products about `origin`. There are never more of them than
//     clusters.
//   * All tangents are taken to the same whitened coordinates before any second-order work:
//         w~ = V' dSigma_w V,   c~ = V' dC V,   m~ = V'(dmu_y - B dmu_z),   b~ = V' dB L,
//         z~ = L^-1 dSigma_zz L^-T,   u~ = L^-1 dmu_z,          Sigma_zz = L L'.
//   * C may be indefinite: the domain is Sigma_w > 0, Sigma_zz > 0 and 1 + n lambda > 0 for every size n.
#pragma once

#include <memory>

#include "likelihood/whitened.hpp"

namespace msem {

// Sufficient statistics of a group: likelihood.md-style notation N, J, (n_s, J_s), SSW, (m_s, SS_s).
struct TwoLevelData {
  Index p = 0, nboth = 0, q = 0;
  double nobs = 0, nclusters = 0;
  Vector sizes, counts;           // S
  Matrix ssw;                     // p x p
  Vector origin;                  // p + q, subtracted from all means
  Matrix rows;                    // R x (1 + p + q)
  Vector row_size;                // R, the cluster size each row belongs to
  Vector row_sign;                // R, 1, or -1 for rows whose products are taken away
  std::vector<Index> size_index;  // R, its position in `sizes`
  Vector z_mean;                  // q, about origin
  Matrix z_scatter;               // q x q, about z_mean

  // means: S x (p+q); scatter: S matrices (p+q)^2 about these means, stacked as columns.
  TwoLevelData(Index nboth, const Matrix& ssw, const Vector& sizes, const Vector& counts, const Matrix& means,
               const Matrix& scatter);
  TwoLevelData() = default;

  // The same with few sizes in place of very many, for eigenvalues lambda from `least_eigenvalue` on; or
  // null.
  std::shared_ptr<const TwoLevelData> condensed;
  double least_eigenvalue = 0;

  // K[i,k] = sum_s J_s n_s^r D_si D_sk for the shrinkage D of each size, N - J added for r = 0.
  Matrix shrinkage_weights(const Matrix& shrink, int power) const;
};

// Data whose likelihood is that of these to rounding, with as many sizes as take to interpolate functions of
// the size; null where these are not many fewer. Sets `least_eigenvalue`.
std::shared_ptr<const TwoLevelData> condensed_sizes(TwoLevelData& data);

// Statistics of single clusters: a view of arrays that somebody else keeps.
struct ClusterData {
  ConstVectorRef sizes;   // J
  ConstMatrixRef means;   // J x (p + q)
  ConstMatrixRef within;  // J x p(p+1)/2: lower triangles by column of the within-cluster cross-products

  // Throws std::invalid_argument unless these are clusters of p unit and q cluster variables.
  void require(Index p, Index q) const;
};

class TwoLevelPoint : public TwoLevelKernel {
 public:
  // False when the moments are outside the domain.
  bool prepare(const TwoLevelData& data, const Moments& moments);

  // Derivatives of each cluster's log-likelihood with respect to the parameters of the two blocks: J x k_w, J
  // x k_b.
  std::pair<Matrix, Matrix> scores(const ClusterData& clusters, const Tangents& within,
                                   const Tangents& between) const;
  // Log-likelihood of each cluster.
  Vector cluster_loglik(const ClusterData& clusters) const;

 protected:
  Moments moment_gradient() const override;
  BlockInformation expected(const Tangents& within, const Tangents& between) const override;
  BlockInformation observed(const Tangents& within, const Tangents& between) const override;
  Moments moment_product(const Moments& change) const override;
  std::pair<Matrix, Matrix> factors(const Tangents& within, const Tangents& between) const override;

 private:
  Canonical canonical_gradient() const;
  bool diagonalise(const Moments& moments, double& log_det);
  void prepare_cluster_part();
  bool prepare_unit_part(double log_det);
  Moments assemble(const Matrix& g_w, const Matrix& g_c, const Vector& g_m, const Matrix& g_b,
                   const Matrix& g_zz, const Vector& g_z) const;
  Whitened whiten_within(const Tangents& t) const;
  ClusterPart cluster_part() const { return {data_->nclusters, z_residual_, z_scatter_}; }
  Matrix weights(int power) const { return data_->shrinkage_weights(shrink_, power); }  // K_r
  void add_row_terms(const Whitened& within, const Whitened& between, BlockInformation& out) const;

  const TwoLevelData* data_ = nullptr;
  Vector lambda_;      // p
  Matrix v_;           // p x p, V
  Matrix slopes_;      // p x q, B
  Matrix projection_;  // (nboth + q) x p, R with c~ = R' dSigma_b R
  Cholesky chol_z_;    // Sigma_zz
  Vector z_residual_;  // L^-1 (z_mean - mu_z)
  Matrix z_scatter_;   // L^-1 SS_zz(mu_z) L^-T
  Vector mu_;          // p + q about origin
  Matrix shrink_;      // S x p, D
  Matrix scaled_;      // R x p, Y = n D X
  Matrix rows_z_;      // R x q, whitened (z - mu_z)
  Matrix ssw_;         // V' SSW V
};

class CompleteLikelihood : public Likelihood {
 public:
  explicit CompleteLikelihood(TwoLevelData data) : data_(std::move(data)) {
    data_.condensed = condensed_sizes(data_);
  }
  Layout layout() const override { return shape().layout(); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  std::vector<double> units() const override;
  const TwoLevelData& data() const { return data_; }
  TwoLevels shape() const { return {data_.p, data_.nboth, data_.q}; }

 private:
  TwoLevelData data_;
};

// The arrays must live as long.
class CompleteClusters : public Clusters {
 public:
  CompleteClusters(std::shared_ptr<const CompleteLikelihood> whole, const ClusterData& clusters);
  Index count() const override { return clusters_.sizes.size(); }
  std::vector<Index> kinds() const override;
  std::vector<Matrix> scores(const Implied& moments, const LevelTangents& tangents) const override;
  Vector loglik(const Implied& moments) const override;
  std::shared_ptr<const Likelihood> alone(Index cluster) const override;
  std::shared_ptr<const Likelihood> weighted(const Vector& weights) const override;
  const CompleteLikelihood& whole() const { return *whole_; }
  const ClusterData& data() const { return clusters_; }

 private:
  std::shared_ptr<const CompleteLikelihood> whole_;
  ClusterData clusters_;
};

}  // namespace msem
