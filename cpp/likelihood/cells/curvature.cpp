// The observed information of the likelihood of data with holes.
#include "base/stacked.hpp"
#include "base/threads.hpp"
#include "likelihood/cells/information.hpp"

namespace msem {

// Sum over clusters of h_a' V^-1 h_b, less what `pattern_traces` has of it, over all parameters.
Matrix MissingInformation::cluster_products(Index piece) const {
  const MissingIndex& index = *point_.index_;
  const Index k = kw_ + kb_, height = 2 * p_ + b_;
  StackedProduct stack(k, k);
  ClusterEvidence evidence;
  ClusterView one;
  // kappa = maps' (u, 1, z~) are the dC u + dm + db z~ of all between parameters
  std::vector<Matrix> maps;
  for (const Whitened& own : between_) {
    const Index q = own.zmean.rows();
    Matrix map(b_ + 1 + q, b_ * kb_);
    map.topRows(b_) = Eigen::Map<const Matrix>(own.cov.data(), b_, b_ * kb_);
    map.row(b_) = Eigen::Map<const Vector>(own.mean.data(), b_ * kb_);
    for (Index a = 0; a < kb_; ++a) {
      for (Index l = 0; l < q; ++l)
        map.row(b_ + 1 + l).segment(a * b_, b_) = own.slope.col(a).segment(l * b_, b_).transpose();
    }
    maps.push_back(std::move(map));
  }
  Matrix kappa = Matrix::Zero(p_, k), grown = Matrix::Zero(p_, k), scratch;
  kappa.leftCols(kw_) = within_.mean;
  Vector given, weighted_cell(p_), steps;
  for (Index i = index.pieces[piece]; i < index.pieces[piece + 1]; ++i) {
    const ClusterClass& own = index.classes[i];
    evidence.compute(d_, own.members[0], point_.weights_, point_.levels_[own.pattern].cov);
    const Index q = between_[own.pattern].zmean.rows();
    given.resize(b_ + 1 + q);
    for (const Index j : own.members) {
      point_.observe(j, evidence, one);
      given << one.u.head(b_), 1, one.z;
      steps.setZero(b_ * kb_);
      add_applied_transposed(steps, 1, maps[own.pattern], given);
      kappa.topRightCorner(b_, kb_) = Eigen::Map<const Matrix>(steps.data(), b_, kb_);
      one.mean.head(b_) += one.effect;
      steps.setZero(p_ * kw_);
      for (Index c = d_.first_cell[j]; kw_ && c < d_.first_cell[j + 1]; ++c) {
        weighted_cell = d_.cell_rows[c] * (d_.cell_means.col(c) - one.mean);
        const Matrix& y = weighted(d_.cell_pattern[c], scratch);
        add_applied_transposed(steps, 1, Eigen::Map<const Matrix>(y.data(), p_, p_ * kw_), weighted_cell);
      }
      grown.leftCols(kw_) = Eigen::Map<const Matrix>(steps.data(), p_, kw_);
      auto [l, r] = stack.next(height);
      l.topRows(p_) = d_.weight[j] * kappa;
      l.middleRows(p_, p_) = d_.weight[j] * grown;
      set_product(r.topRows(p_), evidence.precision, kappa);
      r.topRows(p_) += grown;
      r.middleRows(p_, p_) = kappa;
      l.bottomRows(b_) = -d_.weight[j] * r.topRows(b_);
      set_product(r.bottomRows(b_), evidence.posterior, r.topRows(b_));
    }
  }
  return stack.total();
}

BlockInformation MissingInformation::observed() {
  BlockInformation out = zero();
  if (p_) {
    const MissingIndex& index = *point_.index_;
    const Traces trace = traces(1, false);
    const Index count = static_cast<Index>(index.pieces.size()) - 1;
    std::vector<Matrix> parts(std::max<Index>(count, 0));
    in_threads(count, 0, [&](std::ptrdiff_t i) { parts[i] = cluster_products(i); });
    out.ww = -pattern_traces(true) - trace.ww;
    out.wb = -trace.wb;
    out.bb = -trace.bb;
    for (const Matrix& part : parts) {
      out.ww += part.topLeftCorner(kw_, kw_);
      out.wb += part.topRightCorner(kw_, kb_);
      out.bb += part.bottomRightCorner(kb_, kb_);
    }
  }
  Matrix curvature = Matrix::Zero(kb_, kb_);
  for (std::size_t t = 0; t < between_.size(); ++t) {
    add_curvature_of_conditioning(between_[t], point_.between_[t], curvature);
    add_cluster_curvature(between_[t], point_.levels_[t].part, curvature);
  }
  out.bb += 0.5 * curvature;
  symmetrise(out.ww);
  symmetrise(out.bb);
  return out;
}

BlockInformation MissingPoint::observed(const Tangents& within, const Tangents& between) const {
  return MissingInformation(*this, within, between).observed();
}

}  // namespace msem
