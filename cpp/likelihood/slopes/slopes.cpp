#include "likelihood/slopes/slopes.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "base/threads.hpp"
#include "base/triangle.hpp"
#include "likelihood/slopes/evidence.hpp"

namespace msem {

namespace {

constexpr Index kPieces = 32;         // at most
constexpr Index kPieceWork = 4000;    // values of clusters that are worth a piece
constexpr Index kThreadWork = 4000;   // values below which threads do not pay
constexpr int kRounded = 12;          // binary digits that equal designs may differ in: 12 decimal ones agree
constexpr Index kManyDesigns = 4096;  // from which steps use their information again
constexpr Index kSample = 4096;       // clusters whose designs are compared first,
constexpr Index kMany = 8;            // of so many times as many

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

// Classes of clusters with equal designs, numbered by first appearance.
std::vector<Index> classes_of(const ReducedData& data, const std::vector<Index>& clusters, Index& count) {
  const Index width = data.design.rows();
  KeyNumbers numbers(static_cast<Index>(clusters.size()));
  std::vector<Index> of;
  std::vector<std::uint64_t> key;
  const bool complete = data.complete();
  of.reserve(clusters.size());
  for (const Index j : clusters) {
    key.clear();
    for (Index a = data.first[j]; !complete && a < data.first[j + 1]; ++a)
      key.push_back(static_cast<std::uint64_t>(data.row_pattern[a]));
    for (Index i = data.first[j] * width; i < data.first[j + 1] * width; ++i)
      key.push_back(key_of(data.design.data()[i]));
    of.push_back(numbers.of(key));
  }
  count = numbers.count();
  return of;
}

// Kinds of clusters with rows of the same patterns.
std::vector<Index> kinds_of(const ReducedData& data, const std::vector<Index>& clusters) {
  std::vector<Index> of;
  of.reserve(clusters.size());
  if (data.patterns.size() == 1) {
    for (const Index j : clusters) of.push_back(data.first[j + 1] - data.first[j]);
    return of;
  }
  KeyNumbers numbers(static_cast<Index>(clusters.size()));
  std::vector<std::uint64_t> key;
  for (const Index j : clusters) {
    key.assign(data.row_pattern.begin() + data.first[j], data.row_pattern.begin() + data.first[j + 1]);
    of.push_back(numbers.of(key));
  }
  return of;
}

// Whether no two of some clusters that are spread over all of many have the same design: then there are
// hardly any.
bool all_differ(const ReducedData& data) {
  const Index total = data.nclusters();
  if (total < kMany * kSample) return false;
  std::vector<Index> some(kSample);
  for (Index k = 0; k < kSample; ++k) some[k] = k * total / kSample;
  Index count = 0;
  classes_of(data, some, count);
  return count == kSample;
}

}  // namespace

bool SlopeLikelihood::costly_information() const { return classes_.count >= kManyDesigns; }

DesignClasses::DesignClasses(const ReducedData& data) {
  const Index total = data.nclusters();
  std::vector<Index> every(total);
  std::iota(every.begin(), every.end(), Index{0});
  if (all_differ(data)) {
    count = total;
    arrange(data, every);
  } else {
    arrange(data, classes_of(data, every, count));
  }
  of_pattern.setZero(static_cast<Index>(data.patterns.size()));
  beyond = of_pattern;
  for (Index j = 0; j < total; ++j) {
    for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
      const double own = data.weight[j] * data.cell_sizes[c];
      of_pattern[data.cell_pattern[c]] += own;
      beyond[data.cell_pattern[c]] +=
          own - data.weight[j] * static_cast<double>(data.cell_first[c + 1] - data.cell_first[c]);
    }
  }
  clusters = data.weight.sum();
  units = data.nobs();
  for (const Matrix& products : data.remainder) rest.push_back(symmetric_root(products).transpose());
  sum_given(data);
  z_mean = Vector::Zero(data.q);
  z_scatter = Matrix::Zero(data.q, data.q);
  if (data.q && clusters > 0) {
    z_mean = apply(data.cluster_values, data.weight) / clusters;
    const Matrix off = data.cluster_values.colwise() - z_mean;
    z_scatter = outer(scale_cols(off, data.weight), off);
  }
}

// Large classes one by one; of small ones with the same patterns those with as many clusters side by side.
void DesignClasses::arrange(const ReducedData& data, const std::vector<Index>& classes) {
  const Index total = data.nclusters();
  std::vector<Index> first(count + 1, 0), member(total), example(count), order(count);
  for (const Index c : classes) ++first[c + 1];
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<Index> next(first.begin(), first.end() - 1);
  Vector weight = Vector::Zero(count);
  for (Index j = 0; j < total; ++j) {
    member[next[classes[j]]++] = j;
    weight[classes[j]] += data.weight[j];
  }
  for (Index c = 0; c < count; ++c) example[c] = member[first[c]];
  const std::vector<Index> kind = kinds_of(data, example);
  const auto size = [&](Index c) { return first[c + 1] - first[c]; };
  std::iota(order.begin(), order.end(), Index{0});
  const auto before = [&](Index a, Index b) {
    return kind[a] != kind[b] ? kind[a] < kind[b] : size(a) > size(b);
  };
  if (!std::is_sorted(order.begin(), order.end(), before))
    std::stable_sort(order.begin(), order.end(), before);
  batches.reserve(count / kLanes + 1);
  steps.reserve(total / kLanes + 1);
  for (Index at = 0; at < count;) {
    DesignBatch batch;
    batch.weight.setZero();
    batch.first = static_cast<Index>(steps.size());
    const Index c = order[at];
    const bool alone = size(c) >= kLanes;
    batch.used = 1;
    while (!alone && batch.used < kLanes && at + batch.used < count &&
           kind[order[at + batch.used]] == kind[c])
      ++batch.used;
    for (Index lane = 0; lane < kLanes; ++lane) {
      batch.design[lane] = order[at + std::min(lane, batch.used - 1)];
      batch.example[lane] = example[batch.design[lane]];
      if (lane < batch.used) batch.weight[lane] = weight[batch.design[lane]];
    }
    const Index apart = alone ? kLanes : 1;  // of clusters that follow each other in a lane
    for (Index k = 0; k < size(c); k += apart) {
      DesignStep step;
      for (Index lane = 0; lane < kLanes; ++lane) {
        const Index own = batch.design[lane], place = alone ? k + lane : k;
        const bool there = (alone || lane < batch.used) && place < size(own);
        step.cluster[lane] = there ? member[first[own] + place] : batch.example[lane];
        step.used += there;
      }
      steps.push_back(step);
    }
    batch.last = static_cast<Index>(steps.size());
    batches.push_back(batch);
    at += batch.used;
  }
  const Index share = std::max(kPieceWork, data.nrows() * data.outcomes / kPieces + 1);
  Index done = 0;
  pieces.push_back(0);
  for (std::size_t b = 0; b < batches.size(); ++b) {
    const Index j = batches[b].example[0];
    done +=
        (data.first[j + 1] - data.first[j]) * data.outcomes * (batches[b].last - batches[b].first) * kLanes;
    if (done < share && b + 1 < batches.size()) continue;
    pieces.push_back(static_cast<Index>(b) + 1);
    done = 0;
  }
}

void DesignClasses::sum_given(const ReducedData& data) {
  const Index f = data.fixed, total = data.nclusters();
  given_mean = Vector::Zero(f);
  given_scatter = Matrix::Zero(f, f);
  if (!f || !(units > 0)) return;
  struct Part {
    Vector mean;
    Matrix scatter;  // lower triangle
  };
  const Index count = std::min(kPieces, data.nrows() / kPieceWork + 1);
  std::vector<Part> parts(count, {given_mean, given_scatter});
  in_threads(count, 0, [&](std::ptrdiff_t piece) {
    Part& part = parts[piece];
    for (Index j = total * piece / count; j < total * (piece + 1) / count; ++j) {
      const double w = data.weight[j];
      for (Index r = data.first[j]; r < data.first[j + 1]; ++r) {
        const double* own = data.values.data() + r * data.nvalues() + data.outcomes;
        const double one = w * data.design(0, r);
        for (Index b = 0; b < f; ++b) {
          part.mean[b] += one * own[b];
          for (Index a = b; a < f; ++a) part.scatter(a, b) += w * own[a] * own[b];
        }
      }
    }
  });
  for (const Part& part : parts) {
    given_mean += part.mean;
    given_scatter += part.scatter;
  }
  given_mean /= units;
  complete(given_scatter);
  for (const Matrix& products : data.remainder) given_scatter += products.bottomRightCorner(f, f);
  add_outer(given_scatter, -units, given_mean, given_mean);
}

struct SlopePoint::Sums {
  bool in_domain = true;
  double value = 0;
  // As derivatives of -2 log L, of the covariance matrices lower triangles; `given` with respect to the paths
  // from covariates, and what is between, to values about the origin.
  Canonical within, between;
  Matrix given;
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
  const Index count = classes.npieces();
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
  residual_mean_ = apply(residual_map_, mean.head(values));
  mu_f_ = mean.segment(p_, f_);
  if (!prepare_patterns()) return false;

  // The covariates, independent over units; the products have a distribution that is fitted perfectly.
  const Index g = f_ + m_;
  within_.part = {classes_->units, Vector::Zero(g), classes_->units * Matrix::Identity(g, g)};
  if (!f_) return std::isfinite(value_);
  for (std::size_t r = 0; r < classes_->rest.size(); ++r)
    rest_given_[r] = whiten_given(classes_->rest[r].bottomRows(f_));
  const Vector off = whiten_given(classes_->given_mean - mu_f_);
  Matrix scatter = whiten_given(whiten_given(classes_->given_scatter).transpose());
  add_outer(scatter, classes_->units, off, off);
  within_.part.scatter.topLeftCorner(f_, f_) = scatter;
  within_.part.residual.head(f_) = off;
  value_ +=
      classes_->units * (static_cast<double>(f_) * kLog2Pi + within_.chol_z.log_det()) + scatter.trace();
  return std::isfinite(value_);
}

// L_f^-1 and L_f^-T times the columns. The products with slopes, which are given too, are independent of
// covariates.
Matrix SlopePoint::whiten_given(const Matrix& x) const {
  Matrix padded = Matrix::Zero(f_ + m_, x.cols());
  padded.topRows(f_) = x;
  return within_.chol_z.whiten(std::move(padded)).topRows(f_);
}

Matrix SlopePoint::whiten_given_transposed(const Matrix& x) const {
  Matrix padded = Matrix::Zero(f_ + m_, x.cols());
  padded.topRows(f_) = x;
  return within_.chol_z.whiten_transposed(std::move(padded)).topRows(f_);
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
  mu_u_ = mean_of_u_ = mean.head(r_);
  paths_of_u_ = -between_.projection.bottomRows(q_).transpose();
  between_.part = {classes_->clusters, Vector(q_), Matrix(q_, q_)};
  if (!q_) return true;
  mean_of_u_ -= apply(paths_of_u_, between_.mu_z);
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
  const Index p = p_, r = r_;
  const auto zero = [](Index n) { return LaneVector(n, Lanes::Zero()); };
  LaneVector g_w = zero(p * p), g_m = zero(p), g_f = zero(p * f_), g_l = zero(p * m_);
  LaneVector g_c = zero(r * r), g_u = zero(r), g_z = zero(r * q_);
  Lanes value = Lanes::Zero();
  DesignEvidence evidence(*this);
  ClustersOfDesign one(*this);
  for (Index b = classes_->pieces[piece]; b < classes_->pieces[piece + 1]; ++b) {
    if (b % 1024 == 0) check_interrupt();
    const DesignBatch& batch = classes_->batches[b];
    const Lanes weight = batch.weight;
    if (!evidence.compute(batch, true)) return false;
    evidence.with_shape([&](const auto& shape) {
      const Index p = shape.p, r = shape.r, m = shape.m, nb = r - m, rho = shape.rho, d = rho * p;
      value += weight * evidence.log_det;
      for (Index a = 0; a < rho; ++a) {
        for (Index j = 0; j < p; ++j) {
          const Lanes* column = evidence.inverse.data() + (a * p + j) * d + a * p;
          for (Index i = j; i < p; ++i) g_w[j * p + i] += weight * column[i];
        }
        for (Index k = 0; k < m; ++k) {
          const Lanes x = weight * evidence.covariate(a, k);
          const Lanes* column = evidence.solved.data() + (nb + k) * d + a * p;
          for (Index i = 0; i < p; ++i) g_l[k * p + i] += x * column[i];
        }
      }
      for (Index j = 0; j < r; ++j) {
        const Lanes* y = evidence.half.data() + j * d;
        for (Index k = j; k < r; ++k) {
          const Lanes* x = evidence.half.data() + k * d;
          Lanes sum = Lanes::Zero();
          for (Index i = 0; i < d; ++i) sum += x[i] * y[i];
          g_c[j * r + k] += weight * sum;
        }
      }
      for (Index at = batch.first; at < batch.last; ++at) {
        one.compute(evidence, classes_->steps[at]);
        const Lanes w = one.weight;
        value += w * one.quadratic;
        for (Index a = 0; a < rho; ++a) {
          const Lanes* t = one.t.data() + a * p;
          for (Index j = 0; j < p; ++j) {
            const Lanes y = w * t[j];
            for (Index i = j; i < p; ++i) g_w[j * p + i] -= y * t[i];
          }
          const Lanes ones = w * evidence.ones(a);
          for (Index i = 0; i < p; ++i) g_m[i] -= ones * t[i];
          for (Index k = 0; k < f_; ++k) {
            const Lanes given = w * one.value(a, p + k);
            for (Index i = 0; i < p; ++i) g_f[k * p + i] -= given * t[i];
          }
          for (Index k = 0; k < m; ++k) {
            const Lanes x = w * evidence.covariate(a, k) * one.all[nb + k];
            for (Index i = 0; i < p; ++i) g_l[k * p + i] -= x * t[i];
          }
        }
        for (Index j = 0; j < r; ++j) {
          const Lanes y = w * one.u[j];
          for (Index k = j; k < r; ++k) g_c[j * r + k] -= y * one.u[k];
          g_u[j] -= y;
          for (Index l = 0; l < q_; ++l) g_z[l * r + j] -= y * one.cluster_values[l];
        }
      }
    });
  }
  s.value = value.sum();
  s.within = {lane_sums(g_w, p, p), {}, 2 * lane_sums(g_m, p, 1), 2 * lane_sums(g_l, p, m_)};
  s.between = {{}, lane_sums(g_c, r, r), 2 * lane_sums(g_u, r, 1), 2 * lane_sums(g_z, r, q_)};
  s.given = 2 * lane_sums(g_f, p, f_);
  return std::isfinite(s.value);
}

void SlopePoint::collect(const std::vector<Sums>& sums) {
  gradient_w_ = {Matrix::Zero(p_, p_), {}, Vector::Zero(p_), Matrix::Zero(p_, f_ + m_)};
  gradient_b_ = {{}, Matrix::Zero(r_, r_), Vector::Zero(r_), Matrix::Zero(r_, q_)};
  Matrix given = Matrix::Zero(p_, f_), of_z = Matrix::Zero(r_, q_);
  for (const Sums& s : sums) {
    gradient_w_.w += s.within.w;
    gradient_w_.m += s.within.m;
    gradient_w_.b.rightCols(m_) += s.within.b;
    gradient_b_.c += s.between.c;
    gradient_b_.m += s.between.m;
    given += s.given;
    of_z += s.between.b;
  }
  for (Matrix* lower : {&gradient_w_.w, &gradient_b_.c}) complete(*lower);
  if (f_) {
    add_outer(given, -1, gradient_w_.m, mu_f_);
    gradient_w_.b.leftCols(f_) = whiten_given(given.transpose()).transpose();
  }
  if (q_) {
    add_outer(of_z, -1, gradient_b_.m, between_.mu_z);
    gradient_b_.b = between_.chol_z.whiten(of_z.transpose()).transpose();
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
  Evidence out{Matrix(r_, data_->nclusters()), Matrix(r_ * r_, classes_->count),
               std::vector<Index>(data_->nclusters())};
  DesignEvidence evidence(*this);
  ClustersOfDesign one(*this);
  std::vector<double> half;
  for (std::size_t b = 0; b < classes_->batches.size(); ++b) {
    if (b % 1024 == 0) check_interrupt();
    const DesignBatch& batch = classes_->batches[b];
    evidence.compute(batch, false);
    half.resize(evidence.half.size());
    for (Index lane = 0; lane < batch.used; ++lane) {
      copy_lane(evidence.half, lane, half.data());
      const Eigen::Map<const Matrix> own(half.data(), evidence.d, r_);
      set_cross(slice(out.information, batch.design[lane], r_, r_), own, own);
    }
    for (Index at = batch.first; at < batch.last; ++at) {
      const DesignStep& step = classes_->steps[at];
      one.compute(evidence, step);
      for (Index lane = 0; lane < step.used; ++lane) {
        copy_lane(one.u, lane, out.scores.col(step.cluster[lane]).data());
        out.which[step.cluster[lane]] = batch.design[lane];
      }
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
