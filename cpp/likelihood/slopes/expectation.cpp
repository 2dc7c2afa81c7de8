#include "likelihood/slopes/expectation.hpp"

#include <algorithm>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "likelihood/slopes/evidence.hpp"

namespace msem {

namespace {

// Element ((i, l), (j, k)) of a matrix with `rows` x `others` rows gains w x(i, j) y(l, k), by column.
template <class Number>
void add_kronecker(Number* out, const Number& w, const Number* x, Index rows, Index columns, const Number* y,
                   Index others, Index other_columns) {
  for (Index j = 0; j < columns; ++j) {
    for (Index k = 0; k < other_columns; ++k) {
      Number* column = out + (k * columns + j) * rows * others;
      for (Index l = 0; l < others; ++l) {
        const Number s = w * y[k * others + l];
        for (Index i = 0; i < rows; ++i) column[l * rows + i] += s * x[j * rows + i];
      }
    }
  }
}

// Rows or columns of blocks of a matrix scaled: block (c, d) of n x m by w(c, d).
Matrix scale_blocks(const Matrix& x, const Matrix& weights) {
  Matrix out = x;
  const Index n = weights.rows() ? x.rows() / weights.rows() : 0,
              m = weights.cols() ? x.cols() / weights.cols() : 0;
  for (Index d = 0; d < weights.cols(); ++d) {
    for (Index c = 0; c < weights.rows(); ++c) out.block(c * n, d * m, n, m) *= weights(c, d);
  }
  return out;
}

// A times I_n
Matrix kronecker_identity(const Matrix& a, Index n) {
  Matrix out = Matrix::Zero(a.rows() * n, a.cols() * n);
  for (Index j = 0; j < a.cols(); ++j) {
    for (Index i = 0; i < a.rows(); ++i) out.block(i * n, j * n, n, n).diagonal().setConstant(a(i, j));
  }
  return out;
}

}  // namespace

// Of some clusters. The columns of a design are 1 and the covariates of slopes.
class ExpectationSums {
 public:
  explicit ExpectationSums(const SlopePoint& point)
      : point_(point),
        p(point.p_),
        f(point.f_),
        m(point.m_),
        r(point.r_),
        c1(1 + m),
        shapes_{{{p * p, p * p},
                 {p * p, r * r},
                 {p * p, p * m},
                 {r * r, r * r},
                 {r * r, p * m},
                 {p * m, p * m},
                 {c1 * p, c1 * p},
                 {c1 * p, r},
                 {r, r},
                 {f * p, c1 * p},
                 {f * p, f * p},
                 {f * p, r}}} {}

  // Traces of changes of w~, C and lambda; N = M^-1 by columns D of the design, fixed covariates f and U.
  enum Sum { kWW, kWC, kWL, kCC, kCL, kLL, kDD, kDZ, kU, kFD, kFF, kFZ, kSums };
  using Sums = std::array<Matrix, kSums>;

  Sums of_piece(Index piece) const;
  Sums total() const {
    const Index count = point_.classes_->npieces();
    std::vector<Sums> parts(count);
    in_threads(count, count > 1 ? 0 : 1, [&](std::ptrdiff_t i) { parts[i] = of_piece(i); });
    Sums out;
    for (int s = 0; s < kSums; ++s) {
      out[s] = Matrix::Zero(shapes_[s].first, shapes_[s].second);
      for (const Sums& part : parts) out[s] += part[s];
    }
    return out;
  }
  Matrix means(const Sums& sums) const;
  // What remains beyond the rows, by pattern.
  void add_rest(Matrix& ww) const {
    for (std::size_t k = 0; k < point_.observed_.size(); ++k) {
      const double* weight = point_.observed_[k].weight.data();
      add_kronecker(ww.data(), point_.classes_->beyond[static_cast<Index>(k)], weight, p, p, weight, p, p);
    }
  }

 private:
  // Block (a, b) of p x p of a matrix with d rows, and `s` times it added.
  static void block(Index p, const Lanes* x, Index d, Index a, Index b, Lanes* out) {
    for (Index j = 0; j < p; ++j) std::copy_n(x + (b * p + j) * d + a * p, p, out + j * p);
  }
  static void add_block(Index p, const Lanes& s, const Lanes* x, Index d, Index a, Index b, Lanes* out) {
    for (Index j = 0; j < p; ++j) {
      const Lanes* column = x + (b * p + j) * d + a * p;
      for (Index i = 0; i < p; ++i) out[j * p + i] += s * column[i];
    }
  }

  // Columns of slope k gain the Kronecker product of a matrix with p columns and a vector.
  static void add_slope(Index p, LaneVector& out, Index height, Index k, const Lanes& weight, const Lanes* x,
                        Index rows, const Lanes* y, Index length) {
    for (Index j = 0; j < p; ++j) {
      Lanes* column = out.data() + (k * p + j) * height;
      for (Index l = 0; l < length; ++l) {
        const Lanes s = weight * y[l];
        for (Index i = 0; i < rows; ++i) column[l * rows + i] += s * x[j * rows + i];
      }
    }
  }

  static const Lanes& column(const DesignEvidence& e, Index row, Index k) {
    return k ? e.covariate(row, k - 1) : e.ones(row);
  }

  const SlopePoint& point_;
  const Index p, f, m, r, c1;
  std::array<std::pair<Index, Index>, kSums> shapes_;
};

ExpectationSums::Sums ExpectationSums::of_piece(Index piece) const {
  const DesignClasses& classes = *point_.classes_;
  const double* c = point_.between_.cov.data();
  std::array<LaneVector, kSums> sums;
  for (int s = 0; s < kSums; ++s) sums[s].assign(shapes_[s].first * shapes_[s].second, Lanes::Zero());
  LaneVector inverse_z, uc(r * r), cuc(r * r), u(r * r), within(p * p), solved(p * r), other(p * p);
  LaneVector dd(c1 * p * c1 * p), dz(c1 * p * r), reach(m * r * p), reach_c(m * p * r), given;
  DesignEvidence e(point_);
  ClustersOfDesign one(point_);
  for (Index number = classes.pieces[piece]; number < classes.pieces[piece + 1]; ++number) {
    if (number % 256 == 0) check_interrupt();
    const DesignBatch& batch = classes.batches[number];
    e.compute(batch, true);
    const Lanes weight = batch.weight;
    e.with_shape([&](const auto& shape) {
      const Index p = shape.p, r = shape.r, m = shape.m, c1 = 1 + m, nb = r - m, rho = shape.rho, d = rho * p;
      const Lanes *inverse = e.inverse.data(), *half = e.half.data();
      for (Index j = 0; j < r; ++j) {
        for (Index k = 0; k <= j; ++k) {
          Lanes sum = Lanes::Zero();
          for (Index i = 0; i < d; ++i) sum += half[j * d + i] * half[k * d + i];
          u[j * r + k] = u[k * r + j] = sum;
        }
      }
      for (Index i = 0; i < r * r; ++i) sums[kU][i] += weight * u[i];
      multiply_lanes(u.data(), c, uc.data(), r, r, r);
      multiply_lanes(c, uc.data(), cuc.data(), r, r, r);
      inverse_z.resize(d * r);
      multiply_lanes(inverse, e.z.data(), inverse_z.data(), d, d, r);
      add_kronecker(sums[kCC].data(), weight, u.data(), r, r, u.data(), r, r);
      // of two columns of the design: sum of D_ac N_ab D_bc', and of one with Z: sum of D_ac (N Z)_a
      std::fill(dd.begin(), dd.end(), Lanes::Zero());
      std::fill(dz.begin(), dz.end(), Lanes::Zero());
      for (Index k = 0; k < c1; ++k) {
        for (Index a = 0; a < rho; ++a) {
          const Lanes x = column(e, a, k);
          for (Index j = 0; j < r; ++j) {
            for (Index i = 0; i < p; ++i) dz[j * c1 * p + k * p + i] += x * inverse_z[j * d + a * p + i];
          }
          for (Index l = 0; l < c1; ++l) {
            for (Index b = 0; b < rho; ++b) {
              const Lanes both = x * column(e, b, l);
              for (Index j = 0; j < p; ++j) {
                const Lanes* from = inverse + (b * p + j) * d + a * p;
                Lanes* to = dd.data() + (l * p + j) * c1 * p + k * p;
                for (Index i = 0; i < p; ++i) to[i] += both * from[i];
              }
            }
          }
        }
      }
      for (std::size_t i = 0; i < dd.size(); ++i) sums[kDD][i] += weight * dd[i];
      for (std::size_t i = 0; i < dz.size(); ++i) sums[kDZ][i] += weight * dz[i];
      // of each slope its part of Z'M^-1, r x p, and its transpose with C, p x r
      for (Index k = 0; k < m; ++k) {
        for (Index j = 0; j < r; ++j) {
          for (Index i = 0; i < p; ++i) reach[k * r * p + i * r + j] = dz[j * c1 * p + (1 + k) * p + i];
        }
        const Lanes* own = reach.data() + k * r * p;
        Lanes* own_c = reach_c.data() + k * p * r;
        for (Index l = 0; l < r; ++l) {
          for (Index i = 0; i < p; ++i) {
            Lanes sum = Lanes::Zero();
            for (Index j = 0; j < r; ++j) sum += own[i * r + j] * c[l * r + j];
            own_c[l * p + i] = sum;
          }
        }
      }
      for (Index a = 0; a < rho; ++a) {
        for (Index b = 0; b < rho; ++b) {
          block(p, inverse, d, a, b, within.data());
          add_kronecker(sums[kWW].data(), weight, within.data(), p, p, within.data(), p, p);
        }
        for (Index j = 0; j < r; ++j) std::copy_n(inverse_z.data() + j * d + a * p, p, solved.data() + j * p);
        add_kronecker(sums[kWC].data(), weight, solved.data(), p, r, solved.data(), p, r);
        for (Index k = 0; k < m; ++k) {
          std::fill(other.begin(), other.end(), Lanes::Zero());
          for (Index b = 0; b < rho; ++b) add_block(p, e.covariate(b, k), inverse, d, a, b, other.data());
          add_slope(p, sums[kWL], p * p, k, weight, other.data(), p, e.solved.data() + (nb + k) * d + a * p,
                    p);
        }
      }
      for (Index k = 0; k < m; ++k) {
        add_slope(p, sums[kCL], r * r, k, weight, reach.data() + k * r * p, r, uc.data() + (nb + k) * r, r);
        for (Index l = 0; l < m; ++l) {
          const Lanes both = cuc[(nb + l) * r + nb + k];
          const Lanes* left = reach_c.data() + k * p * r + (nb + l) * p;
          const Lanes* right = reach_c.data() + l * p * r + (nb + k) * p;
          for (Index j = 0; j < p; ++j) {
            const Lanes* own = dd.data() + ((1 + l) * p + j) * c1 * p + (1 + k) * p;
            Lanes* to = sums[kLL].data() + (l * p + j) * p * m + k * p;
            for (Index i = 0; i < p; ++i) to[i] += weight * (both * own[i] + left[i] * right[j]);
          }
        }
      }
      // fixed covariates, which differ between the clusters of a design: N f, f'N f and f'N Z
      given.resize(f * p * d);
      for (Index at = batch.first; f && at < batch.last; ++at) {
        one.read(e, classes.steps[at]);
        std::fill(given.begin(), given.end(), Lanes::Zero());
        for (Index k = 0; k < f; ++k) {
          for (Index a = 0; a < rho; ++a) {
            const Lanes x = one.weight * one.value(a, p + k);
            for (Index j = 0; j < d; ++j) {
              for (Index i = 0; i < p; ++i) given[j * f * p + k * p + i] += x * inverse[j * d + a * p + i];
            }
          }
        }
        for (Index b = 0; b < rho; ++b) {
          for (Index j = 0; j < p; ++j) {
            const Lanes* own = given.data() + (b * p + j) * f * p;
            for (Index k = 0; k < c1 + f; ++k) {
              const Lanes x = k < c1 ? column(e, b, k) : one.value(b, p + k - c1);
              Lanes* to = k < c1 ? sums[kFD].data() + (k * p + j) * f * p
                                 : sums[kFF].data() + ((k - c1) * p + j) * f * p;
              for (Index i = 0; i < f * p; ++i) to[i] += x * own[i];
            }
            for (Index k = 0; k < r; ++k) {
              const Lanes z = e.z[k * d + b * p + j];
              for (Index i = 0; i < f * p; ++i) sums[kFZ][k * f * p + i] += z * own[i];
            }
          }
        }
      }
    });
  }
  Sums out;
  for (int s = 0; s < kSums; ++s) out[s] = lane_sums(sums[s], shapes_[s].first, shapes_[s].second);
  return out;
}

// The mean of a row is that of its intercept, of its covariates and, times the covariate of a slope, of the
// slope, whose mean given the cluster variables has these paths.
Matrix ExpectationSums::means(const Sums& sums) const {
  const Index q = point_.q_, w = p * (1 + f + m), d = p * (1 + f);
  const Matrix paths = point_.between_.slopes.bottomRows(m);
  Vector mean = Vector::Ones(c1);
  mean.tail(m) = point_.mu_u_.tail(m);
  Matrix second = outer(mean, mean);
  add_outer(second.bottomRightCorner(m, m), 1, paths, paths);
  const Matrix dd = scale_blocks(sums[kDD], second), dz = scale_blocks(sums[kDZ], mean);
  const Matrix fd = scale_blocks(sums[kFD], mean.transpose());
  // whitened covariates about their means, from those about the origin
  const Matrix whiten = kronecker_identity(f ? point_.whiten_given(Matrix::Identity(f, f)) : Matrix(0, 0), p);
  const Matrix off = kronecker_identity(point_.mu_f_, p);  // f p x p
  Matrix out = Matrix::Zero(w + r * (1 + q), w + r * (1 + q));
  out.topLeftCorner(p, p) = dd.topLeftCorner(p, p);
  out.block(0, d, p, p * m) = dd.topRightCorner(p, p * m);
  out.block(d, d, p * m, p * m) = dd.bottomRightCorner(p * m, p * m);
  out.block(0, w, p, r) = dz.topRows(p);
  out.block(d, w, p * m, r) = dz.bottomRows(p * m);
  for (Index l = 0; l < q; ++l)
    out.block(d, w + r * (1 + l), p * m, r) = scale_blocks(sums[kDZ].bottomRows(p * m), paths.col(l));
  for (Index l = 0; l <= q; ++l) out.block(w + r * l, w + r * l, r, r) = sums[kU];
  if (f) {
    const Matrix with_d = product(whiten, fd - product(off, dd.topRows(p)));
    const Matrix with_z = product(whiten, sums[kFZ] - product(off, dz.topRows(p)));
    Matrix ff = sums[kFF] - outer(fd.leftCols(p), off);
    ff -= product(off, (fd.leftCols(p) - product(off, dd.topLeftCorner(p, p))).transpose());
    out.block(p, p, f * p, f * p) = outer_sandwich(whiten, ff);
    out.block(0, p, p, f * p) = with_d.leftCols(p).transpose();
    out.block(p, d, f * p, p * m) = with_d.rightCols(p * m);
    out.block(p, w, f * p, r) = with_z;
    for (std::size_t k = 0; k < point_.observed_.size(); ++k) {
      const Matrix products = outer(point_.rest_given_[k], point_.rest_given_[k]);
      const Matrix& weight = point_.observed_[k].weight;
      for (Index b = 0; b < f; ++b) {
        for (Index a = 0; a < f; ++a) out.block(p + a * p, p + b * p, p, p) += products(a, b) * weight;
      }
    }
  }
  return out.selfadjointView<Eigen::Upper>();
}

SlopeExpectation::SlopeExpectation(const SlopePoint& point) {
  const ExpectationSums of(point);
  ExpectationSums::Sums sums = of.total();
  means = of.means(sums);
  of.add_rest(sums[ExpectationSums::kWW]);
  ww = std::move(sums[ExpectationSums::kWW]);
  wc = std::move(sums[ExpectationSums::kWC]);
  wl = std::move(sums[ExpectationSums::kWL]);
  cc = std::move(sums[ExpectationSums::kCC]);
  cl = std::move(sums[ExpectationSums::kCL]);
  ll = std::move(sums[ExpectationSums::kLL]);
}

const SlopeExpectation& SlopePoint::expectation() const {
  std::call_once(expected_once_, [&] { expected_ = std::make_shared<const SlopeExpectation>(*this); });
  return *expected_;
}

}  // namespace msem
