// Contributions of single clusters to the likelihood with random slopes, and what is known of the clusters.
#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "likelihood/slopes/evidence.hpp"

namespace msem {

namespace {

Matrix of_row(const Matrix& products, Index cluster, Index n) { return unpack_lower(products, cluster, n); }

// One lane of what is known of some clusters.
struct OneCluster {
  void take(const DesignEvidence& evidence, const ClustersOfDesign& clusters, Index lane) {
    const auto copy = [&](const LaneVector& from, std::vector<double>& to) {
      to.resize(from.size());
      copy_lane(from, lane, to.data());
    };
    copy(evidence.half, half);
    copy(evidence.inverse, inverse);
    copy(evidence.solved, solved);
    copy(clusters.t, t);
    copy(clusters.u, u);
    copy(clusters.all, all);
  }
  std::vector<double> half, inverse, solved, t, u, all;
};

}  // namespace

std::pair<Matrix, Matrix> SlopePoint::cluster_scores(const Matrix& products, const Tangents& within,
                                                     const Tangents& between) const {
  const ReducedData& data = *data_;
  const Index p = p_, r = r_, g = f_ + m_, values = p_ + f_, width = data.design.rows();
  const Whitened tw = whiten_between(within, whitening_, within_.chol_z, g);
  const Whitened tb = whiten_between(between_rows(between), between_.projection, between_.chol_z, q_);
  const Index clusters = data.nclusters();
  Matrix of_within(tw.k(), clusters), of_between(tb.k(), clusters);
  const Matrix whiten_values = f_ ? whiten_given(Matrix::Identity(f_, f_)) : Matrix(0, 0);
  const Matrix zetas = whitened_cluster_values();
  in_threads(classes_->npieces(), classes_->npieces() > 1 ? 0 : 1, [&](std::ptrdiff_t piece) {
    DesignEvidence evidence(*this);
    ClustersOfDesign one(*this);
    OneCluster own;
    Matrix g_w(p, p), g_l(p, g), g_c(r, r), g_z(g, g);
    Vector g_m(p), g_zm(g);
    for (Index i = classes_->pieces[piece]; i < classes_->pieces[piece + 1]; ++i) {
      if (i % 256 == 0) check_interrupt();
      const DesignBatch& batch = classes_->batches[i];
      evidence.compute(batch, true);
      const Index d = evidence.d, rho = evidence.rho;
      for (Index at = batch.first; at < batch.last; ++at) {
        const DesignStep& step = classes_->steps[at];
        one.compute(evidence, step);
        for (Index lane = 0; lane < step.used; ++lane) {
          const Index j = step.cluster[lane];
          own.take(evidence, one, lane);
          const Eigen::Map<const Matrix> inverse(own.inverse.data(), d, d), half(own.half.data(), d, r);
          const Eigen::Map<const Matrix> solved(own.solved.data(), d, r);
          const Eigen::Map<const Vector> u(own.u.data(), r);
          set_cross(g_c, half, half);
          add_outer(g_c, -1, u, u);
          g_w.setZero();
          g_l.setZero();
          g_m.setZero();
          g_zm.setZero();
          g_z.setZero();
          g_z.topLeftCorner(f_, f_).diagonal().array() += data.sizes[j];
          for (Index a = 0; a < rho; ++a) {
            const Eigen::Map<const Vector> t(own.t.data() + a * p, p);
            const double* row = data.design.data() + (data.first[j] + a) * width;
            g_w += inverse.block(a * p, a * p, p, p);
            add_outer(g_w, -1, t, t);
            g_m -= 2 * row[0] * t;
            if (f_) {
              const Vector given =
                  apply(whiten_values, data.values.col(data.first[j] + a).tail(f_) - row[0] * mu_f_);
              add_outer(g_l.leftCols(f_), -2, t, given);
              add_outer(g_z.topLeftCorner(f_, f_), -1, given, given);
              g_zm.head(f_) -= 2 * row[0] * given;
            }
            for (Index k = 0; k < m_; ++k)
              g_l.col(f_ + k) += 2 * row[data.covariate[k]] *
                                 (solved.block(a * p, nboth_ + k, p, 1) - own.all[nboth_ + k] * t);
          }
          for (Index cell = data.first_cell[j]; cell < data.first_cell[j + 1]; ++cell) {
            const Matrix rest = of_row(products, cell, values);
            const Matrix& weight = observed_[data.cell_pattern[cell]].weight;
            const Matrix map = product(weight, residual_map_), left = product(map, rest);
            g_w += (data.cell_sizes[cell] -
                    static_cast<double>(data.cell_first[cell + 1] - data.cell_first[cell])) *
                   weight;
            add_outer(g_w, -1, left, map);
            if (!f_) continue;
            add_outer(g_l.leftCols(f_), -2, left.rightCols(f_), whiten_values);
            g_z.topLeftCorner(f_, f_) -= outer_sandwich(whiten_values, rest.bottomRightCorner(f_, f_));
          }
          auto w = of_within.col(j);
          auto b = of_between.col(j);
          w.setZero();
          b.setZero();
          const auto put = [](auto out, const Matrix& tangents, const auto& x) {
            if (x.size() && out.size())
              add_applied_transposed(out, -0.5, tangents, Eigen::Map<const Vector>(x.data(), x.size()));
          };
          put(w, tw.cov, g_w);
          put(w, tw.mean, g_m);
          put(w, tw.slope, g_l);
          put(w, tw.zcov, g_z);
          put(w, tw.zmean, g_zm);
          put(b, tb.cov, g_c);
          const Vector g_u = -2 * u, zeta = zetas.col(j), g_zeta = -2 * zeta;
          put(b, tb.mean, g_u);
          if (!q_) continue;
          const Matrix slope = -2 * outer(u, zeta);
          Matrix squares = -outer(zeta, zeta);
          squares.diagonal().array() += 1;
          put(b, tb.slope, slope);
          put(b, tb.zcov, squares);
          put(b, tb.zmean, g_zeta);
        }
      }
    }
  });
  return {of_within.transpose(), of_between.transpose()};
}

// L_z^-1 (z - mu_z), q x J
Matrix SlopePoint::whitened_cluster_values() const {
  if (!q_) return Matrix(0, data_->nclusters());
  return between_.chol_z.whiten(data_->cluster_values.colwise() - between_.mu_z);
}

Vector SlopePoint::cluster_loglik(const Matrix& products) const {
  const ReducedData& data = *data_;
  const Index values = p_ + f_;
  Vector out(data.nclusters());
  Matrix given_weight = Matrix::Zero(values, values);
  double constant = 0;  // of the covariates of a unit
  if (f_) {
    const Matrix white = whiten_given(Matrix::Identity(f_, f_));
    given_weight.bottomRightCorner(f_, f_) = cross(white, white);
    constant += static_cast<double>(f_) * kLog2Pi + within_.chol_z.log_det();
  }
  std::vector<Matrix> both;
  for (const Observed& own : observed_) both.push_back(sandwich(residual_map_, own.weight) + given_weight);
  DesignEvidence evidence(*this);
  ClustersOfDesign one(*this);
  for (std::size_t b = 0; b < classes_->batches.size(); ++b) {
    if (b % 1024 == 0) check_interrupt();
    const DesignBatch& batch = classes_->batches[b];
    evidence.compute(batch, false);
    for (Index at = batch.first; at < batch.last; ++at) {
      const DesignStep& step = classes_->steps[at];
      one.compute(evidence, step);
      for (Index lane = 0; lane < step.used; ++lane)
        out[step.cluster[lane]] = evidence.log_det[lane] + one.quadratic[lane];
    }
  }
  const Matrix zetas = whitened_cluster_values();
  for (Index j = 0; j < data.nclusters(); ++j) {
    double value = out[j] + data.sizes[j] * constant;
    for (Index cell = data.first_cell[j]; cell < data.first_cell[j + 1]; ++cell) {
      const Index pattern = data.cell_pattern[cell];
      value += data.cell_sizes[cell] * observed_[pattern].constant +
               both[pattern].cwiseProduct(of_row(products, cell, values)).sum();
    }
    for (Index a = data.first[j]; f_ && a < data.first[j + 1]; ++a)
      value += whiten_given(data.values.col(a).tail(f_) - data.design(0, a) * mu_f_).squaredNorm();
    if (q_)
      value += static_cast<double>(q_) * kLog2Pi + between_.chol_z.log_det() + zetas.col(j).squaredNorm();
    out[j] = -0.5 * value;
  }
  return out;
}

template class ProductClusters<SlopeLikelihood>;

}  // namespace msem
