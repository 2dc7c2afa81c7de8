#include "likelihood/slopes/slopes.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "base/threads.hpp"
#include "likelihood/slopes/evidence.hpp"

namespace msem {

namespace {

constexpr Index kPieces = 32;         // at most
constexpr Index kPieceWork = 4000;    // values of clusters that are worth a piece
constexpr Index kThreadWork = 4000;   // values below which threads do not pay
constexpr int kRounded = 12;          // binary digits that equal designs may differ in: 12 decimal ones agree
constexpr Index kManyDesigns = 4096;  // from which steps use their information again

// A number to 12 digits, as a key; 0 and -0 are one.
std::uint64_t key_of(double x) {
  const double unsigned_zero = x + 0.0;
  std::uint64_t bits;
  std::memcpy(&bits, &unsigned_zero, sizeof bits);
  return (bits + (std::uint64_t{1} << (kRounded - 1))) >> kRounded;
}

// Numbers keys, each a run of words, by their first appearance.
class KeyNumbers {
 public:
  explicit KeyNumbers(Index expected) {
    std::size_t slots = 16;
    while (slots < 2 * static_cast<std::size_t>(expected)) slots *= 2;
    slots_.assign(slots, -1);
  }
  Index of(const std::vector<std::uint64_t>& key) {
    std::uint64_t hash = key.size();
    for (const std::uint64_t word : key) {
      hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
      hash ^= hash >> 29;
    }
    for (std::size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
      const Index known = slots_[at];
      if (known < 0) {
        slots_[at] = count();
        words_.insert(words_.end(), key.begin(), key.end());
        first_.push_back(words_.size());
        return count() - 1;
      }
      if (first_[known + 1] - first_[known] == key.size() &&
          std::equal(key.begin(), key.end(), words_.begin() + static_cast<std::ptrdiff_t>(first_[known])))
        return known;
    }
  }
  Index count() const { return static_cast<Index>(first_.size()) - 1; }

 private:
  std::vector<Index> slots_;  // twice as many as there can be keys, so that one is free
  std::vector<std::uint64_t> words_;
  std::vector<std::size_t> first_ = {0};
};

}  // namespace

bool SlopeLikelihood::costly_information() const { return classes_.count() >= kManyDesigns; }

DesignClasses::DesignClasses(const ReducedData& data) {
  const Index total = data.nclusters(), width = data.design.rows();
  KeyNumbers numbers(total);
  std::vector<Index> of(total), sizes;
  std::vector<std::uint64_t> key;
  const bool complete = data.complete();
  for (Index j = 0; j < total; ++j) {
    key.clear();
    for (Index a = data.first[j]; !complete && a < data.first[j + 1]; ++a)
      key.push_back(static_cast<std::uint64_t>(data.row_pattern[a]));
    for (Index i = data.first[j] * width; i < data.first[j + 1] * width; ++i)
      key.push_back(key_of(data.design.data()[i]));
    of[j] = numbers.of(key);
    if (of[j] == static_cast<Index>(sizes.size())) sizes.push_back(0);
    ++sizes[of[j]];
  }
  first.assign(sizes.size() + 1, 0);
  std::partial_sum(sizes.begin(), sizes.end(), first.begin() + 1);
  std::vector<Index> next(first.begin(), first.end() - 1);
  member.resize(total);
  weight.assign(sizes.size(), 0.0);
  of_pattern.setZero(static_cast<Index>(data.patterns.size()));
  beyond = of_pattern;
  for (Index j = 0; j < total; ++j) {
    member[next[of[j]]++] = j;
    weight[of[j]] += data.weight[j];
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      const double own = data.weight[j] * data.cell_sizes[c];
      of_pattern[data.cell_pattern[c]] += own;
      beyond[data.cell_pattern[c]] +=
          own - data.weight[j] * static_cast<double>(data.cell_first[c + 1] - data.cell_first[c]);
    }
  }
  clusters = data.weight.sum();
  units = data.nobs();
  const Index share = std::max(kPieceWork, data.nrows() * data.outcomes / kPieces + 1);
  pieces.push_back(0);
  Index done = 0;
  for (Index c = 0; c < count(); ++c) {
    for (Index i = first[c]; i < first[c + 1]; ++i)
      done += (data.first[member[i] + 1] - data.first[member[i]]) * data.outcomes;
    if (done < share && c + 1 < count()) continue;
    pieces.push_back(c + 1);
    done = 0;
  }
  for (const Matrix& products : data.remainder) rest.push_back(symmetric_root(products).transpose());
  z_mean = Vector::Zero(data.q);
  z_scatter = Matrix::Zero(data.q, data.q);
  if (data.q && clusters > 0) {
    z_mean = apply(data.cluster_values, data.weight) / clusters;
    const Matrix off = data.cluster_values.colwise() - z_mean;
    z_scatter = outer(scale_cols(off, data.weight), off);
  }
}

struct SlopePoint::Sums {
  bool in_domain = true;
  double value = 0;
  Canonical within, between;  // as derivatives of -2 log L
};

bool SlopePoint::prepare(const ReducedData& data, const DesignClasses& classes, const Moments& moments) {
  data_ = &data;
  classes_ = &classes;
  p_ = data.outcomes;
  f_ = data.fixed;
  m_ = data.nslopes();
  nboth_ = data.nboth;
  r_ = nboth_ + m_;
  q_ = data.q;
  shape_ = {p_ + f_ + m_, nboth_, q_ + m_};
  value_ = 0;
  if (!prepare_within(moments) || !prepare_between(moments)) return false;
  const Index count = static_cast<Index>(classes.pieces.size()) - 1;
  std::vector<Sums> sums(count);
  const bool many = data.nrows() * p_ >= kThreadWork;
  in_threads(count, many ? 0 : 1, [&](std::ptrdiff_t i) { sums[i].in_domain = sum_classes(i, sums[i]); });
  for (const Sums& s : sums) {
    if (!s.in_domain) return false;
    value_ += s.value;
  }
  collect(sums);
  return std::isfinite(value_);
}

bool SlopePoint::prepare_within(const Moments& moments) {
  const Index values = p_ + f_;
  if (!moments.cov_w.bottomRightCorner(m_, m_).isIdentity(0) ||
      !moments.cov_w.block(p_, values, f_, m_).isZero(0) || !moments.mean_w.tail(m_).isZero(0))
    throw std::invalid_argument("products with slopes must be standardized and independent of covariates");
  Vector mean = moments.mean_w;
  mean.head(values) -= data_->origin.head(values);
  if (!mean.allFinite() || !within_.compute(moments.cov_w, mean, p_) || !chol_w_.compute(within_.cov))
    return false;
  whitener_ = chol_w_.whiten(Matrix::Identity(p_, p_));
  whitening_ = product(within_.projection, whitener_.transpose());
  residual_map_ = whitening_.topRows(values).transpose();
  lambda_ = chol_w_.whiten(within_.slopes.rightCols(m_));
  const Eigen::RowVectorXd ones = data_->design.row(0);
  residuals_ = product(residual_map_, data_->values) -
               outer(apply(residual_map_, mean.head(values)), ones.transpose());
  if (!prepare_patterns()) return false;

  // The covariates, independent over units; the products have a distribution that is fitted perfectly.
  const Index g = f_ + m_;
  within_.part = {classes_->units, Vector::Zero(g), classes_->units * Matrix::Identity(g, g)};
  if (!f_) return std::isfinite(value_);
  Matrix off = data_->values.bottomRows(f_) - outer(mean.segment(p_, f_), ones.transpose());
  const auto white = [&](const Matrix& x) {
    Matrix padded = Matrix::Zero(g, x.cols());
    padded.topRows(f_) = x;
    const Matrix out = within_.chol_z.whiten(std::move(padded));
    return Matrix(out.topRows(f_));
  };
  given_ = white(off);
  for (std::size_t r = 0; r < classes_->rest.size(); ++r)
    rest_given_[r] = white(classes_->rest[r].bottomRows(f_));
  Vector weights(data_->nrows());
  for (Index j = 0; j < data_->nclusters(); ++j)
    weights.segment(data_->first[j], data_->first[j + 1] - data_->first[j]).setConstant(data_->weight[j]);
  const Matrix scaled = scale_cols(given_, weights);
  Matrix scatter = outer(scaled, given_);
  for (const Matrix& rest : rest_given_) add_outer(scatter, 1, rest, rest);
  within_.part.scatter.topLeftCorner(f_, f_) = scatter;
  within_.part.residual.head(f_) = apply(scaled, ones.transpose()) / classes_->units;
  value_ +=
      classes_->units * (static_cast<double>(f_) * kLog2Pi + within_.chol_z.log_det()) + scatter.trace();
  return std::isfinite(value_);
}

bool SlopePoint::prepare_patterns() {
  const Matrix lower = chol_w_.lower();
  for (std::size_t r = 0; r < data_->patterns.size(); ++r) {
    const Pattern& seen = data_->patterns[r];
    const auto count = static_cast<Index>(seen.size());
    Observed own;
    own.constant = static_cast<double>(count) * kLog2Pi;
    const Matrix residuals = product(residual_map_, classes_->rest[r]);
    if (count == p_) {
      own.constant += chol_w_.log_det();
      own.weight = Matrix::Identity(p_, p_);
      rest_residuals_.push_back(residuals);
      rest_t_.push_back(residuals);
    } else {
      own.map = Matrix::Zero(p_, p_);
      Cholesky chol;
      if (count) {
        if (!chol.compute(select(within_.cov, seen, seen))) return false;
        own.constant += chol.log_det();
        put_rows(own.map, seen, chol.whiten(select_rows(lower, seen)));
      }
      own.weight = cross(own.map, own.map);
      rest_residuals_.push_back(product(own.map, residuals));
      rest_t_.push_back(product(own.weight, residuals));
    }
    value_ += classes_->of_pattern[static_cast<Index>(r)] * own.constant + rest_residuals_[r].squaredNorm();
    observed_.push_back(std::move(own));
  }
  rest_given_.resize(data_->patterns.size());
  return true;
}

bool SlopePoint::prepare_between(const Moments& moments) {
  order_.resize(r_ + q_);
  for (Index k = 0; k < r_ + q_; ++k) order_[k] = k < nboth_ ? k : k < r_ ? q_ + k : k - m_;
  Vector mean = select(moments.mean_b, order_);
  mean.tail(q_) -= data_->origin.tail(q_);
  if (!mean.allFinite() || !between_.compute(select(moments.cov_b, order_, order_), mean, r_)) return false;
  if (!between_.cov.allFinite()) return false;
  mu_u_ = mean.head(r_);
  zeta_.resize(0, data_->nclusters());
  between_.part = {classes_->clusters, Vector(q_), Matrix(q_, q_)};
  if (!q_) return true;
  zeta_ = between_.chol_z.whiten(data_->cluster_values.colwise() - between_.mu_z);
  ClusterPart& part = between_.part;
  part.residual = between_.chol_z.whiten(classes_->z_mean - between_.mu_z);
  const Matrix half = between_.chol_z.whiten(classes_->z_scatter);
  part.scatter = between_.chol_z.whiten(half.transpose());
  add_outer(part.scatter, part.count, part.residual, part.residual);
  value_ +=
      part.count * (static_cast<double>(q_) * kLog2Pi + between_.chol_z.log_det()) + part.scatter.trace();
  return std::isfinite(value_);
}

bool SlopePoint::sum_classes(Index piece, Sums& s) const {
  const ReducedData& data = *data_;
  const Index p = p_, r = r_, width = data.design.rows();
  s.within = {Matrix::Zero(p, p), {}, Vector::Zero(p), Matrix::Zero(p, f_ + m_)};
  s.between = {{}, Matrix::Zero(r, r), Vector::Zero(r), Matrix::Zero(r, q_)};
  double *g_w = s.within.w.data(), *g_m = s.within.m.data(), *g_l = s.within.b.data() + p * f_;
  double *g_c = s.between.c.data(), *g_u = s.between.m.data();
  DesignEvidence evidence(*this);
  ClusterOfDesign one(*this);
  for (Index c = classes_->pieces[piece]; c < classes_->pieces[piece + 1]; ++c) {
    if (c % 1024 == 0) check_interrupt();
    const double weight = classes_->weight[c];
    if (!evidence.compute(classes_->member[classes_->first[c]], true)) return false;
    const Index d = evidence.d, rho = evidence.rho;
    s.value += weight * evidence.log_det;
    for (Index a = 0; a < rho; ++a) {
      for (Index j = 0; j < p; ++j) {
        const double* column = evidence.inverse.data() + (a * p + j) * d + a * p;
        for (Index i = 0; i < p; ++i) g_w[j * p + i] += weight * column[i];
      }
      for (Index k = 0; k < m_; ++k) {
        const double x = 2 * weight * evidence.design[a * width + data.covariate[k]];
        const double* column = evidence.solved.data() + (nboth_ + k) * d + a * p;
        for (Index i = 0; i < p; ++i) g_l[k * p + i] += x * column[i];
      }
    }
    for (Index j = 0; j < r; ++j) {
      const double* y = evidence.half.data() + j * d;
      for (Index k = 0; k < r; ++k) {
        const double* x = evidence.half.data() + k * d;
        double sum = 0;
        for (Index i = 0; i < d; ++i) sum += x[i] * y[i];
        g_c[j * r + k] += weight * sum;
      }
    }
    for (Index at = classes_->first[c]; at < classes_->first[c + 1]; ++at) {
      const Index cluster = classes_->member[at];
      const double w = data.weight[cluster];
      one.compute(*this, evidence, cluster);
      s.value += w * one.quadratic;
      for (Index a = 0; a < rho; ++a) {
        const double* t = one.t.data() + a * p;
        const double* row = evidence.design + a * width;
        for (Index j = 0; j < p; ++j) {
          const double y = w * t[j];
          for (Index i = 0; i < p; ++i) g_w[j * p + i] -= y * t[i];
        }
        for (Index i = 0; i < p; ++i) g_m[i] -= 2 * w * row[0] * t[i];
        const double* given = given_.data() + (data.first[cluster] + a) * f_;
        for (Index k = 0; k < f_; ++k) {
          for (Index i = 0; i < p; ++i) s.within.b(i, k) -= 2 * w * given[k] * t[i];
        }
        for (Index k = 0; k < m_; ++k) {
          const double x = 2 * w * row[data.covariate[k]] * one.all[nboth_ + k];
          for (Index i = 0; i < p; ++i) g_l[k * p + i] -= x * t[i];
        }
      }
      for (Index j = 0; j < r; ++j) {
        const double y = w * one.u[j];
        for (Index k = 0; k < r; ++k) g_c[j * r + k] -= y * one.u[k];
        g_u[j] -= 2 * y;
        for (Index l = 0; l < q_; ++l) s.between.b(j, l) -= 2 * y * zeta_(l, cluster);
      }
    }
  }
  return std::isfinite(s.value);
}

void SlopePoint::collect(const std::vector<Sums>& sums) {
  gradient_w_ = {Matrix::Zero(p_, p_), {}, Vector::Zero(p_), Matrix::Zero(p_, f_ + m_)};
  gradient_b_ = {{}, Matrix::Zero(r_, r_), Vector::Zero(r_), Matrix::Zero(r_, q_)};
  for (const Sums& s : sums) {
    gradient_w_.w += s.within.w;
    gradient_w_.m += s.within.m;
    gradient_w_.b += s.within.b;
    gradient_b_.c += s.between.c;
    gradient_b_.m += s.between.m;
    gradient_b_.b += s.between.b;
  }
  for (std::size_t r = 0; r < observed_.size(); ++r) {
    gradient_w_.w += classes_->beyond[static_cast<Index>(r)] * observed_[r].weight;
    add_outer(gradient_w_.w, -1, rest_t_[r], rest_t_[r]);
    if (f_) add_outer(gradient_w_.b.leftCols(f_), -2, rest_t_[r], rest_given_[r]);
  }
  gradient_w_.c = gradient_w_.w;
  const auto back = [](const Matrix& projection, const ConditionalLevel& level, const Canonical& g) {
    const Index given = level.mu_z.size();
    const Matrix g_zz = level.part.count * Matrix::Identity(given, given) - level.part.scatter;
    const Vector g_z = -2 * level.part.count * level.part.residual;
    return between_gradient(projection, level.chol_z, g.c, g.m, g.b, g_zz, g_z);
  };
  BetweenGradient within = back(whitening_, within_, gradient_w_);
  const BetweenGradient between = back(between_.projection, between_, gradient_b_);
  gradient_ = {std::move(within.mean), Vector::Zero(r_ + q_), std::move(within.cov),
               Matrix::Zero(r_ + q_, r_ + q_)};
  gradient_.mean_b(order_) += between.mean;
  add(gradient_.cov_b, order_, between.cov);
}

Tangents SlopePoint::between_rows(const Tangents& between) const { return rows_of(between, order_); }

SlopePoint::Evidence SlopePoint::evidence() const {
  Evidence out{Matrix(r_, data_->nclusters()), Matrix(r_ * r_, classes_->count()),
               std::vector<Index>(data_->nclusters())};
  DesignEvidence evidence(*this);
  ClusterOfDesign one(*this);
  for (Index c = 0; c < classes_->count(); ++c) {
    if (c % 1024 == 0) check_interrupt();
    evidence.compute(classes_->member[classes_->first[c]], false);
    const Eigen::Map<const Matrix> half(evidence.half.data(), evidence.d, r_);
    set_cross(slice(out.information, c, r_, r_), half, half);
    for (Index at = classes_->first[c]; at < classes_->first[c + 1]; ++at) {
      const Index cluster = classes_->member[at];
      one.compute(*this, evidence, cluster);
      out.scores.col(cluster) = Eigen::Map<const Vector>(one.u.data(), r_);
      out.which[cluster] = c;
    }
  }
  return out;
}

std::unique_ptr<LikelihoodPoint> SlopeLikelihood::at(Implied moments) const {
  auto point = std::make_unique<SlopePoint>();
  if (!prepare(std::move(moments), *point)) return nullptr;
  return point;
}

}  // namespace msem
