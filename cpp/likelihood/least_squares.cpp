#include "likelihood/least_squares.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace msem {

namespace {

// One element of the moments of a level (a mean for j = -1) and how a statistic moves with it.
struct Term {
  std::size_t level;
  Index i, j;
  double slope;
};

// A level given its covariates: regressions on them, and what they leave.
struct Conditional {
  Matrix cov, slopes, precision;
  Vector mean, reach;  // reach: precision times the means of the covariates
};

}  // namespace

class LeastSquaresPoint : public LikelihoodPoint {
 public:
  LeastSquaresPoint(const LeastSquares& loss, std::vector<Conditional> levels)
      : loss_(&loss), levels_(std::move(levels)) {
    const std::size_t m = loss.statistics_.size();
    Vector residual(m);
    for (std::size_t r = 0; r < m; ++r) residual[r] = loss.values_[r] - evaluate(loss.statistics_[r]);
    const Vector whitened =
        loss.root_.size() ? apply(loss.root_, residual) : loss.diagonal_.cwiseProduct(residual);
    weighted_ =
        loss.root_.size() ? apply_transposed(loss.root_, whitened) : loss.diagonal_.cwiseProduct(whitened);
    value_ = whitened.squaredNorm();
  }

  Implied gradient() const override {
    Implied out;
    for (const Conditional& level : levels_)
      out.push_back({Vector::Zero(level.mean.size()), Matrix::Zero(level.cov.rows(), level.cov.cols())});
    for (std::size_t r = 0; r < terms_.size(); ++r) {
      for (const Term& t : terms_[r]) {
        const double g = -2 * weighted_[r] * t.slope;
        if (t.j < 0) {
          out[t.level].mean[t.i] += g;
        } else {
          out[t.level].cov(t.i, t.j) += 0.5 * g;
          out[t.level].cov(t.j, t.i) += 0.5 * g;
        }
      }
    }
    return out;
  }

  LevelBlocks information(Information kind, const LevelTangents& tangents) const override {
    const Moved moved = move(tangents);
    const std::vector<Matrix> f = factor(moved);
    LevelBlocks out(f.size());
    for (std::size_t a = 0; a < f.size(); ++a) {
      for (std::size_t b = a; b < f.size(); ++b) out(a, b) = cross(f[a], f[b]);
    }
    if (kind == Information::kObserved && curved()) add_curvature(moved, out);
    return out;
  }

  std::vector<Matrix> factor(const LevelTangents& tangents) const override { return factor(move(tangents)); }

  const std::vector<double>& fitted() const { return fitted_; }

 private:
  // Derivatives of the covariances of the variables of which some matter, and of all means, by level.
  struct Moved {
    std::vector<Matrix> cov, mean;
  };

  Moved move(const LevelTangents& tangents) const {
    Moved out;
    for (std::size_t l = 0; l < tangents.size(); ++l) {
      const Tangents own = rows_of(tangents[l], loss_->moving_[l]);
      out.cov.push_back(rotated_cov(own, Matrix::Identity(own.n(), own.n())));
      out.mean.push_back(tangents[l].mean);
    }
    return out;
  }

  bool curved() const {
    return !loss_->ordered_.empty() || std::any_of(loss_->given_.begin(), loss_->given_.end(),
                                                   [](const auto& given) { return !given.empty(); });
  }

  // Where the derivatives of a covariance are.
  Index row(std::size_t level, Index i, Index j) const {
    const std::vector<Index>& at = loss_->moving_place_[level];
    return at[i] + at[j] * static_cast<Index>(loss_->moving_[level].size());
  }
  bool is_ordered(Index variable) const {
    return std::find(loss_->ordered_.begin(), loss_->ordered_.end(), variable) != loss_->ordered_.end();
  }

  // Those of a covariance of what covariates leave, times a factor.
  void push_covariance(std::vector<Term>& out, std::size_t level, Index i, Index j, double factor) const {
    out.push_back({level, i, j, factor});
    const std::vector<Index>& given = loss_->given_[level];
    for (std::size_t q = 0; q < given.size(); ++q) {
      out.push_back({level, i, given[q], -factor * levels_[level].slopes(j, q)});
      out.push_back({level, j, given[q], -factor * levels_[level].slopes(i, q)});
    }
  }

  double push_mean(std::vector<Term>& out, Index variable, double factor) const {
    double sum = 0;
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      const Index i = loss_->place_[l][variable];
      if (i < 0) continue;
      sum += levels_[l].mean[i];
      out.push_back({l, i, -1, factor});
      const std::vector<Index>& given = loss_->given_[l];
      for (std::size_t q = 0; q < given.size(); ++q)
        out.push_back({l, i, given[q], -factor * levels_[l].reach[q]});
    }
    return sum;
  }

  double evaluate(const Statistic& s) {
    std::vector<Term> terms;
    std::vector<Index> scaled;
    double value = 0;
    const std::size_t level = s.level;
    if (s.kind == Statistic::Kind::kCovariance) {
      const Index i = loss_->place_[level][s.i], j = loss_->place_[level][s.j];
      push_covariance(terms, level, i, j, 1);
      value = levels_[level].cov(i, j);
      for (const Index v : {s.i, s.j}) {
        if (is_ordered(v)) scaled.push_back(v);
      }
    } else if (s.kind == Statistic::Kind::kSlope) {
      const Index i = loss_->place_[level][s.i];
      const std::vector<Index>& given = loss_->given_[level];
      const Index column = std::find(given.begin(), given.end(), loss_->place_[level][s.j]) - given.begin();
      value = levels_[level].slopes(i, column);
      for (std::size_t q = 0; q < given.size(); ++q)
        terms.push_back({level, i, given[q], levels_[level].precision(q, column)});
      if (is_ordered(s.i)) scaled.push_back(s.i);
    } else if (s.kind == Statistic::Kind::kMean) {
      value = push_mean(terms, s.i, 1);
      if (is_ordered(s.i)) scaled.push_back(s.i);
    } else {
      value = push_mean(terms, s.i, 1) - push_mean(terms, s.j, -1);
      if (is_ordered(s.j)) scaled.push_back(s.j);
    }
    double f = 1;
    for (const Index v : scaled) f /= std::sqrt(variance(v));
    for (Term& t : terms) t.slope *= f;
    unscaled_.push_back(terms);
    value *= f;
    for (const Index v : scaled) push_variance(terms, v, -0.5 * value / variance(v));
    terms_.push_back(std::move(terms));
    scaled_.push_back(std::move(scaled));
    scale_.push_back(f);
    fitted_.push_back(value);
    return value;
  }

  // Of an ordered variable, which it is scaled by.
  double variance(Index variable) const {
    const std::size_t level = loss_->lowest_[variable];
    const Index i = loss_->place_[level][variable];
    return levels_[level].cov(i, i);
  }
  void push_variance(std::vector<Term>& out, Index variable, double factor) const {
    const std::size_t level = loss_->lowest_[variable];
    const Index i = loss_->place_[level][variable];
    push_covariance(out, level, i, i, factor);
  }

  // Derivatives of one statistic along the parameters of each level, side by side.
  Vector along(const std::vector<Term>& terms, const Moved& moved, const std::vector<Index>& first) const {
    Vector out = Vector::Zero(first.back());
    for (const Term& t : terms) {
      const Index k = moved.mean[t.level].cols(), at = first[t.level];
      for (Index c = 0; c < k; ++c)
        out[at + c] +=
            t.slope * (t.j < 0 ? moved.mean[t.level](t.i, c) : moved.cov[t.level](row(t.level, t.i, t.j), c));
    }
    return out;
  }

  static std::vector<Index> starts(const Moved& moved) {
    std::vector<Index> first{0};
    for (const Matrix& m : moved.mean) first.push_back(first.back() + m.cols());
    return first;
  }

  std::vector<Matrix> factor(const Moved& moved) const {
    const std::vector<Index> first = starts(moved);
    const Index m = weighted_.size();
    Matrix jacobian(first.back(), m);
    for (Index r = 0; r < m; ++r) jacobian.col(r) = along(terms_[r], moved, first);
    const Matrix whole = loss_->root_.size() ? outer(loss_->root_, jacobian)
                                             : scale_rows(loss_->diagonal_, jacobian.transpose());
    std::vector<Matrix> out;
    for (std::size_t l = 0; l + 1 < first.size(); ++l)
      out.push_back(whole.middleCols(first[l], first[l + 1] - first[l]));
    return out;
  }

  // Second derivatives of the covariance that covariates leave, k x k over the parameters of its level.
  Matrix bent(const Moved& moved, std::size_t level, Index i, Index j) const {
    const std::vector<Index>& given = loss_->given_[level];
    const Index k = moved.mean[level].cols(), q = static_cast<Index>(given.size());
    if (!q) return Matrix::Zero(k, k);
    Matrix a(q, k), b(q, k);
    for (Index g = 0; g < q; ++g) {
      a.row(g) = moved.cov[level].row(row(level, i, given[g]));
      b.row(g) = moved.cov[level].row(row(level, j, given[g]));
    }
    const Matrix half = cross(a, product(levels_[level].precision, b));
    return -(half + half.transpose());
  }

  // Less the residuals times the second derivatives of the statistics with respect to the moments.
  void add_curvature(const Moved& moved, LevelBlocks& out) const {
    const std::vector<Index> first = starts(moved);
    Matrix total = Matrix::Zero(first.back(), first.back());
    const auto add_bent = [&](std::size_t level, Index i, Index j, double factor) {
      if (loss_->given_[level].empty()) return;
      const Index k = first[level + 1] - first[level];
      total.block(first[level], first[level], k, k) += factor * bent(moved, level, i, j);
    };
    std::vector<Vector> relative(loss_->layout_.nvariables);
    for (const Index v : loss_->ordered_) {
      std::vector<Term> terms;
      push_variance(terms, v, 1 / variance(v));
      relative[v] = along(terms, moved, first);
    }
    for (std::size_t r = 0; r < terms_.size(); ++r) {
      const Statistic& s = loss_->statistics_[r];
      const double c = -weighted_[r];
      if (s.kind == Statistic::Kind::kCovariance)
        add_bent(s.level, loss_->place_[s.level][s.i], loss_->place_[s.level][s.j], c * scale_[r]);
      if (scaled_[r].empty()) continue;
      const Vector slope = along(unscaled_[r], moved, first);
      Vector sum = Vector::Zero(first.back());
      for (const Index v : scaled_[r]) {
        sum += relative[v];
        add_outer(total, 0.5 * c * fitted_[r], relative[v], relative[v]);
        const std::size_t level = loss_->lowest_[v];
        const Index i = loss_->place_[level][v];
        add_bent(level, i, i, -0.5 * c * fitted_[r] / variance(v));
      }
      add_outer(total, 0.25 * c * fitted_[r], sum, sum);
      add_outer(total, -0.5 * c, slope, sum);
      add_outer(total, -0.5 * c, sum, slope);
    }
    for (std::size_t a = 0; a + 1 < first.size(); ++a) {
      for (std::size_t b = a; b + 1 < first.size(); ++b)
        out(a, b) += total.block(first[a], first[b], first[a + 1] - first[a], first[b + 1] - first[b]);
    }
  }

  const LeastSquares* loss_;
  std::vector<Conditional> levels_;
  std::vector<std::vector<Term>> terms_, unscaled_;  // of the statistics; with the scale held
  std::vector<std::vector<Index>> scaled_;           // ordered variables that scale each
  std::vector<double> scale_, fitted_;
  Vector weighted_;  // W e
};

LeastSquares::LeastSquares(Layout layout, std::vector<Statistic> statistics, Vector values,
                           const Matrix& weight, std::vector<Index> given, std::vector<Index> ordered)
    : layout_(std::move(layout)),
      statistics_(std::move(statistics)),
      values_(std::move(values)),
      covariates_(given),
      ordered_(std::move(ordered)) {
  for (const std::vector<Index>& own : layout_.levels) {
    std::vector<Index> place(layout_.nvariables, -1), covariates;
    for (std::size_t i = 0; i < own.size(); ++i) {
      if (own[i] < 0 || own[i] >= layout_.nvariables)
        throw std::invalid_argument("there is no such variable");
      place[own[i]] = static_cast<Index>(i);
      if (std::find(given.begin(), given.end(), own[i]) != given.end())
        covariates.push_back(static_cast<Index>(i));
    }
    place_.push_back(std::move(place));
    given_.push_back(std::move(covariates));
  }
  for (Index v = 0; v < layout_.nvariables; ++v) {
    std::size_t level = 0;
    while (level < place_.size() && place_[level][v] < 0) ++level;
    lowest_.push_back(level);
  }
  for (const Index v : ordered_) {
    if (v < 0 || v >= layout_.nvariables || lowest_[v] == place_.size())
      throw std::invalid_argument("there is no such ordered variable");
  }
  for (const Statistic& s : statistics_) {
    const bool of_level = s.kind == Statistic::Kind::kCovariance || s.kind == Statistic::Kind::kSlope;
    const bool two = s.kind != Statistic::Kind::kMean;
    const int levels = static_cast<int>(layout_.levels.size());
    if (s.level < 0 || s.level >= levels || s.i < 0 || s.i >= layout_.nvariables ||
        (two && (s.j < 0 || s.j >= layout_.nvariables)) ||
        (of_level && (place_[s.level][s.i] < 0 || place_[s.level][s.j] < 0)))
      throw std::invalid_argument("a statistic is of variables that are not there");
    if (s.kind == Statistic::Kind::kSlope) {
      const std::vector<Index>& own = given_[s.level];
      if (std::find(own.begin(), own.end(), place_[s.level][s.j]) == own.end())
        throw std::invalid_argument("a slope must be on a covariate");
    }
  }
  settle(weight);
}

LeastSquares::LeastSquares(const Vector& mean, const Matrix& cov, const Vector& mean_weights,
                           const Matrix& cov_weights) {
  const Index n = cov.rows();
  if (mean.size() != n || mean_weights.size() != n || cov_weights.rows() != n || cov_weights.cols() != n ||
      cov.cols() != n)
    throw std::invalid_argument("least squares needs moments and weights of the same size");
  layout_ = {{std::vector<Index>(n)}, n};
  std::iota(layout_.levels[0].begin(), layout_.levels[0].end(), Index{0});
  place_ = layout_.levels;
  given_.resize(1);
  const Index m = n + n * (n + 1) / 2;
  Matrix weight(m, 1);
  values_.resize(m);
  Index r = 0;
  const auto push = [&](Statistic s, double value, double w) {
    statistics_.push_back(s);
    values_[r] = value;
    weight(r++, 0) = w;
  };
  for (Index i = 0; i < n; ++i) push({Statistic::Kind::kMean, 0, i, i}, mean[i], mean_weights[i]);
  for (Index j = 0; j < n; ++j) {
    for (Index i = j; i < n; ++i) push({Statistic::Kind::kCovariance, 0, i, j}, cov(i, j), cov_weights(i, j));
  }
  settle(weight);
}

void LeastSquares::settle(const Matrix& weight) {
  weight_ = weight;
  std::vector<std::vector<bool>> moves;
  for (std::size_t l = 0; l < layout_.levels.size(); ++l) {
    moves.emplace_back(layout_.levels[l].size(), false);
    for (const Index x : given_[l]) moves[l][x] = true;
  }
  for (const Index v : ordered_) moves[lowest_[v]][place_[lowest_[v]][v]] = true;
  for (const Statistic& s : statistics_) {
    if (s.kind != Statistic::Kind::kCovariance && s.kind != Statistic::Kind::kSlope) continue;
    moves[s.level][place_[s.level][s.i]] = moves[s.level][place_[s.level][s.j]] = true;
  }
  for (std::size_t l = 0; l < moves.size(); ++l) {
    std::vector<Index> own, place(moves[l].size(), -1);
    for (std::size_t i = 0; i < moves[l].size(); ++i) {
      // the mean of what depends on covariates moves with its covariances
      if (!moves[l][i] && given_[l].empty()) continue;
      place[i] = static_cast<Index>(own.size());
      own.push_back(static_cast<Index>(i));
    }
    moving_.push_back(std::move(own));
    moving_place_.push_back(std::move(place));
  }
  const Index m = static_cast<Index>(statistics_.size());
  if (values_.size() != m || weight.rows() != m || (weight.cols() != m && weight.cols() != 1))
    throw std::invalid_argument("least squares needs a value and a weight for each statistic");
  if (weight.cols() == 1 && m != 1) {
    if (m && !(weight.minCoeff() >= 0)) throw std::invalid_argument("weights must not be negative");
    diagonal_ = weight.col(0).cwiseSqrt();
    return;
  }
  Cholesky chol;
  if (m && !chol.compute(weight)) throw std::invalid_argument("the weight matrix is not positive definite");
  root_ = m ? Matrix(chol.lower().transpose()) : Matrix();
  if (!m) diagonal_.resize(0);
}

std::unique_ptr<LikelihoodPoint> LeastSquares::at(Implied moments) const {
  bool fits = moments.size() == layout_.levels.size();
  for (std::size_t l = 0; fits && l < moments.size(); ++l)
    fits = moments[l].mean.size() == static_cast<Index>(layout_.levels[l].size());
  if (!fits) throw std::invalid_argument("the block does not have the variables of the moments");
  std::vector<Conditional> levels;
  for (std::size_t l = 0; l < moments.size(); ++l) {
    Conditional own{std::move(moments[l].cov), {}, {}, std::move(moments[l].mean), {}};
    const std::vector<Index>& x = given_[l];
    if (!x.empty()) {
      Cholesky chol;
      if (!chol.compute(select(own.cov, x, x))) return nullptr;
      own.precision = chol.inverse();
      const Matrix reach = select_cols(own.cov, x);
      own.slopes = product(reach, own.precision);
      own.reach = apply(own.precision, select(own.mean, x));
      add_outer(own.cov, -1, own.slopes, reach);
      add_applied(own.mean, -1, own.slopes, select(own.mean, x));
    }
    levels.push_back(std::move(own));
  }
  for (const Index v : ordered_) {
    const Index i = place_[lowest_[v]][v];
    if (!(levels[lowest_[v]].cov(i, i) > 0)) return nullptr;
  }
  return std::make_unique<LeastSquaresPoint>(*this, std::move(levels));
}

Vector LeastSquares::fitted(Implied moments) const {
  const std::unique_ptr<LikelihoodPoint> point = at(std::move(moments));
  if (!point) return {};
  const std::vector<double>& all = static_cast<const LeastSquaresPoint&>(*point).fitted();
  return Eigen::Map<const Vector>(all.data(), static_cast<Index>(all.size()));
}

}  // namespace msem
