// Contributions of single clusters to the likelihood of data with holes and to its derivatives.
#include "base/threads.hpp"
#include "likelihood/cells/cells.hpp"

namespace msem {

namespace {

// The lower triangle of s + n d d' by column.
void add_packed_outer(const Vector& d, double n, Vector& packed) {
  Index at = 0;
  for (Index j = 0; j < d.size(); ++j) {
    for (Index i = j; i < d.size(); ++i) packed[at++] += n * d[i] * d[j];
  }
}

}  // namespace

std::pair<Matrix, Matrix> MissingPoint::cluster_scores(const Matrix& products, const Tangents& within,
                                                       const Tangents& between) const {
  const IncompleteData& d = *data_;
  const Index p = d.p, b = d.nboth, kw = within.k(), kb = between.k();
  std::pair<Matrix, Matrix> out{Matrix::Zero(kw, d.nclusters()), Matrix::Zero(kb, d.nclusters())};
  std::vector<Whitened> levels;
  for (std::size_t t = 0; t < levels_.size(); ++t)
    levels.push_back(whiten_between(rows_of(between, index_->rows[t]), levels_[t].projection,
                                    levels_[t].chol_z, levels_[t].mu_z.size()));
  std::vector<Matrix> weighted,
      packed;  // by pattern: W dSigma W over the variables at both levels, and whole
  Matrix traces(kw, static_cast<Index>(weights_.size()));
  if (p && kw) {
    const Matrix tangents = rotated_cov(within, Matrix::Identity(p, p));
    for (std::size_t r = 0; r < weights_.size(); ++r) {
      const Matrix y = rotated_cov(within, weights_[r]);
      packed.push_back(pack_doubled(y, p));
      Matrix both(b * b, kw);
      for (Index j = 0; j < b; ++j) both.middleRows(j * b, b) = y.middleRows(j * p, b);
      weighted.push_back(std::move(both));
      traces.col(static_cast<Index>(r)) =
          apply_transposed(tangents, Eigen::Map<const Vector>(weights_[r].data(), p * p));
    }
  }
  const Index count = static_cast<Index>(index_->pieces.size()) - 1;
  in_threads(count, 0, [&](std::ptrdiff_t piece) {
    ClusterEvidence evidence;
    ClusterView one;
    Vector shared_w(kw), shared_b, cell;
    for (Index i = index_->pieces[piece]; i < index_->pieces[piece + 1]; ++i) {
      const ClusterClass& own = index_->classes[i];
      const Whitened& level = levels[own.pattern];
      const Index first = own.members[0], q = level.zmean.rows();
      evidence.compute(d, first, weights_, levels_[own.pattern].cov);
      shared_w.setZero();
      for (Index c = d.first_cell[first]; kw && c < d.first_cell[first + 1]; ++c) {
        const Index r = d.cell_pattern[c];
        const Eigen::Map<const Vector> posterior(evidence.posterior.data(), b * b);
        add_applied_transposed(shared_w, 0.5 * d.cell_rows[c], weighted[r], posterior);
        shared_w -= 0.5 * d.cell_rows[c] * traces.col(r);
      }
      shared_b.setZero(kb);
      add_applied_transposed(shared_b, -0.5, level.cov,
                             Eigen::Map<const Vector>(evidence.resolvent.data(), b * b));
      for (const Index j : own.members) {
        auto score_w = out.first.col(j);
        auto score_b = out.second.col(j);
        observe(j, evidence, one);
        score_w = shared_w;
        if (p && kw) add_applied_transposed(score_w, 1, within.mean, one.u);
        one.mean.head(b) += one.effect;
        for (Index c = d.first_cell[j]; kw && c < d.first_cell[j + 1]; ++c) {
          cell = products.col(c);
          one.deviation = d.cell_means.col(c) - one.mean;
          add_packed_outer(one.deviation, d.cell_rows[c], cell);
          add_applied_transposed(score_w, 0.5, packed[d.cell_pattern[c]], cell);
        }
        score_b = shared_b;
        if (b) {
          const auto u = one.u.head(b);
          const Matrix with_u = outer(u, u), with_z = outer(u, one.z);
          add_applied_transposed(score_b, 0.5, level.cov, Eigen::Map<const Vector>(with_u.data(), b * b));
          add_applied_transposed(score_b, 1, level.mean, u);
          add_applied_transposed(score_b, 1, level.slope, Eigen::Map<const Vector>(with_z.data(), b * q));
        }
        if (q) {
          Matrix squares = outer(one.z, one.z);
          squares.diagonal().array() -= 1;
          add_applied_transposed(score_b, 0.5, level.zcov, Eigen::Map<const Vector>(squares.data(), q * q));
          add_applied_transposed(score_b, 1, level.zmean, one.z);
        }
      }
    }
  });
  return {out.first.transpose(), out.second.transpose()};
}

Vector MissingPoint::cluster_loglik(const Matrix& products) const {
  const IncompleteData& d = *data_;
  const Index p = d.p, b = d.nboth;
  std::vector<Vector> packed;
  for (const Matrix& w : weights_) {
    Matrix stacked(p * p, 1);
    stacked.col(0) = Eigen::Map<const Vector>(w.data(), p * p);
    packed.push_back(pack_doubled(stacked, p).col(0));
  }
  Vector out = Vector::Zero(d.nclusters());
  ClusterEvidence evidence;
  ClusterView one;
  for (const ClusterClass& own : index_->classes) {
    const ConditionalLevel& level = levels_[own.pattern];
    const Index q = level.mu_z.size();
    evidence.compute(d, own.members[0], weights_, level.cov);
    for (const Index j : own.members) {
      observe(j, evidence, one);
      double f = evidence.log_det + one.quadratic - one.q.head(b).dot(one.effect);
      for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) {
        const Index r = d.cell_pattern[c];
        f += d.cell_rows[c] * (log_dets_[r] + static_cast<double>(d.unit_patterns[r].size()) * kLog2Pi);
        f += packed[r].dot(products.col(c));
      }
      if (q) f += static_cast<double>(q) * kLog2Pi + level.chol_z.log_det() + one.z.squaredNorm();
      out[j] = -0.5 * f;
    }
  }
  return out;
}

template class ProductClusters<IncompleteLikelihood>;

}  // namespace msem
