// Contributions of single clusters to the likelihood with random slopes, and what is known of the clusters.
#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "likelihood/slopes/evidence.hpp"

namespace msem {

namespace {

Matrix of_row(const Matrix& products, Index cluster, Index n) { return unpack_lower(products, cluster, n); }

}  // namespace

std::pair<Matrix, Matrix> SlopePoint::cluster_scores(const Matrix& products, const Tangents& within,
                                                     const Tangents& between) const {
  const ReducedData& data = *data_;
  const Index p = p_, r = r_, g = f_ + m_, values = p_ + f_, width = data.design.rows();
  const Whitened tw = whiten_between(within, whitening_, within_.chol_z, g);
  const Whitened tb = whiten_between(between_rows(between), between_.projection, between_.chol_z, q_);
  const Index clusters = data.nclusters();
  Matrix of_within(tw.k(), clusters), of_between(tb.k(), clusters);
  const Index count = static_cast<Index>(classes_->pieces.size()) - 1;
  const Matrix whiten_given =
      f_ ? Matrix(within_.chol_z.whiten(Matrix::Identity(g, g)).topLeftCorner(f_, f_)) : Matrix(0, 0);
  in_threads(count, count > 1 ? 0 : 1, [&](std::ptrdiff_t piece) {
    DesignEvidence evidence(*this);
    ClusterOfDesign one(*this);
    Matrix g_w(p, p), g_l(p, g), g_c(r, r), g_z(g, g), shared_w(p, p), shared_l(p, g), shared_c(r, r);
    Vector g_m(p), g_zm(g);
    for (Index c = classes_->pieces[piece]; c < classes_->pieces[piece + 1]; ++c) {
      if (c % 256 == 0) check_interrupt();
      evidence.compute(classes_->member[classes_->first[c]], true);
      const Index d = evidence.d, rho = evidence.rho;
      const Eigen::Map<const Matrix> inverse(evidence.inverse.data(), d, d), half(evidence.half.data(), d, r);
      const Eigen::Map<const Matrix> solved(evidence.solved.data(), d, r);
      shared_w.setZero();
      shared_l.setZero();
      for (Index a = 0; a < rho; ++a) {
        shared_w += inverse.block(a * p, a * p, p, p);
        for (Index k = 0; k < m_; ++k)
          shared_l.col(f_ + k) +=
              2 * evidence.design[a * width + data.covariate[k]] * solved.block(a * p, nboth_ + k, p, 1);
      }
      set_cross(shared_c, half, half);
      for (Index at = classes_->first[c]; at < classes_->first[c + 1]; ++at) {
        const Index j = classes_->member[at];
        one.compute(*this, evidence, j);
        g_w = shared_w;
        g_l = shared_l;
        g_c = shared_c;
        g_m.setZero();
        g_zm.setZero();
        g_z.setZero();
        g_z.topLeftCorner(f_, f_).diagonal().array() += data.sizes[j];
        for (Index a = 0; a < rho; ++a) {
          const Eigen::Map<const Vector> t(one.t.data() + a * p, p);
          const double* row = evidence.design + a * width;
          add_outer(g_w, -1, t, t);
          g_m -= 2 * row[0] * t;
          if (f_) {
            const Vector given = given_.col(data.first[j] + a);
            add_outer(g_l.leftCols(f_), -2, t, given);
            add_outer(g_z.topLeftCorner(f_, f_), -1, given, given);
            g_zm.head(f_) -= 2 * row[0] * given;
          }
          for (Index k = 0; k < m_; ++k)
            g_l.col(f_ + k) -= 2 * row[data.covariate[k]] * one.all[nboth_ + k] * t;
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
          add_outer(g_l.leftCols(f_), -2, left.rightCols(f_), whiten_given);
          g_z.topLeftCorner(f_, f_) -= outer_sandwich(whiten_given, rest.bottomRightCorner(f_, f_));
        }
        const Eigen::Map<const Vector> u(one.u.data(), r);
        add_outer(g_c, -1, u, u);
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
        const Vector g_u = -2 * u, zeta = zeta_.col(j), g_zeta = -2 * zeta;
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
  });
  return {of_within.transpose(), of_between.transpose()};
}

Vector SlopePoint::cluster_loglik(const Matrix& products) const {
  const ReducedData& data = *data_;
  const Index values = p_ + f_, g = f_ + m_;
  Vector out(data.nclusters());
  Matrix given_weight = Matrix::Zero(values, values);
  double constant = 0;  // of the covariates of a unit
  if (f_) {
    const Matrix white = within_.chol_z.whiten(Matrix::Identity(g, g)).topLeftCorner(f_, f_);
    given_weight.bottomRightCorner(f_, f_) = cross(white, white);
    constant += static_cast<double>(f_) * kLog2Pi + within_.chol_z.log_det();
  }
  std::vector<Matrix> both;
  for (const Observed& own : observed_) both.push_back(sandwich(residual_map_, own.weight) + given_weight);
  DesignEvidence evidence(*this);
  ClusterOfDesign one(*this);
  for (Index c = 0; c < classes_->count(); ++c) {
    if (c % 1024 == 0) check_interrupt();
    evidence.compute(classes_->member[classes_->first[c]], false);
    for (Index at = classes_->first[c]; at < classes_->first[c + 1]; ++at) {
      const Index j = classes_->member[at];
      one.compute(*this, evidence, j);
      double value = data.sizes[j] * constant + evidence.log_det + one.quadratic;
      for (Index cell = data.first_cell[j]; cell < data.first_cell[j + 1]; ++cell) {
        const Index pattern = data.cell_pattern[cell];
        value += data.cell_sizes[cell] * observed_[pattern].constant +
                 both[pattern].cwiseProduct(of_row(products, cell, values)).sum();
      }
      if (f_) value += given_.middleCols(data.first[j], evidence.rho).squaredNorm();
      if (q_)
        value += static_cast<double>(q_) * kLog2Pi + between_.chol_z.log_det() + zeta_.col(j).squaredNorm();
      out[j] = -0.5 * value;
    }
  }
  return out;
}

template class ProductClusters<SlopeLikelihood>;

}  // namespace msem
