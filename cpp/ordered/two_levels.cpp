#include "ordered/two_levels.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "ordered/line.hpp"
#include "ordered/plane.hpp"

namespace msem {

namespace {

constexpr int kSingle = 15;              // nodes for one effect
constexpr int kCoarse = 7;               // and in each direction for two, while their pair is estimated
constexpr int kFine = 9;                 // and at the end
constexpr double kLowest = 1e-6;         // between variance, in units of the within one
constexpr double kSettledLevels = 1e-9;  // decrement of the last step: 3e-5 of the standard errors
constexpr double kExact = 1e-14;         // and of the steps after it, where these are cheap
constexpr int kPolish = 8;
constexpr double kNear = 1e-3;   // while nodes are coarse
constexpr double kCloser = 0.5;  // least share of 1 - r^2 that a step may leave
constexpr int kMostSteps = 200;
constexpr double kDifference = 1e-4;  // in standard deviations, of parameters for differences of scores

// Log-likelihoods of all clusters and their derivatives, a row for each cluster. products: what stands for
// the information; the products of the rows if it is empty. `weight`: how often each cluster counts in sums.
struct Scores {
  explicit Scores(const Vector* weight = nullptr) : weight(weight) {}
  double value = 0;
  Matrix rows, products;
  const Vector* weight;

  Vector sum() const {
    return weight ? apply_transposed(rows, *weight) : Vector(rows.colwise().sum().transpose());
  }
  Matrix information() const {
    if (products.size()) return products;
    return weight ? weighted_cross(rows, *weight, rows) : cross(rows, rows);
  }
};

// Ascends by the information (Fisher scoring, or Berndt, Hall, Hall & Hausman, 1974), within what `inside`
// allows. Whether it got there.
template <class Evaluate, class Inside>
bool ascend(Vector& theta, Scores& now, const Evaluate& evaluate, const Inside& inside) {
  now = evaluate(theta);
  int polished = 0;
  for (int step = 0; step < kMostSteps; ++step) {
    check_interrupt();
    const Vector gradient = now.sum();
    const ScaledInverse information = scaled_inverse(now.information());
    if (!(information.pivot > 0)) return false;
    const Vector change = apply(information.inverse, gradient);
    const double decrement = gradient.dot(change);
    if (decrement < kExact) return true;
    // from here on values tell little: whole steps, which converge linearly, as long as they are no worse
    const bool settled = decrement < kSettledLevels;
    double size = 1;
    bool moved = false;
    for (int half = 0; half < (settled ? 1 : 40); ++half, size *= 0.5) {
      const Vector next = theta + size * change;
      if (!inside(next)) continue;
      Scores there = evaluate(next);
      if (!(there.value >= now.value - 1e-13 * std::abs(now.value))) continue;
      theta = next;
      now = std::move(there);
      moved = true;
      break;
    }
    if (!moved) return decrement < 1e-6;
    if (settled && ++polished == kPolish) return true;
  }
  return false;
}

// The information about the parameters of a pair, improved by how the score changed (symmetric rank one).
void update(Matrix& information, const Vector& step, const Vector& change, const Scores& there) {
  const Vector rest = change - apply(information, step);
  const double size = rest.dot(step);
  if (std::abs(size) > 1e-8 * rest.norm() * step.norm()) add_outer(information, 1 / size, rest, rest);
  if (!positive_definite(information)) information = there.information();
}

struct Cell {
  int category;
  double count;
  Index row;  // one of its units
};

class TwoLevels {
 public:
  TwoLevels(const OrderedClusterRows& rows, const std::vector<Vector>& starts)
      : rows_(rows),
        starts_(starts),
        units_(rows.values.cols()),
        p_(units_ + rows.cluster_values.cols()),
        n_(rows.values.rows()),
        nclusters_(rows.cluster_values.rows()),
        single_(kSingle),
        coarse_(kCoarse),
        fine_(kFine) {
    require();
    order_rows();
    Index at = 0;
    for (Index i = 0; i < p_; ++i) {
      variables_.push_back(variable(i, at));
      out_.first.push_back(at);
      at += variables_.back().width;
    }
    out_.first.push_back(at);
    for (Index j = 0; j < p_; ++j) {
      for (Index i = j + 1; i < p_; ++i) {
        const Variable &a = variables_[i], &c = variables_[j];
        Pair pair{i, j, at, -1, -1, 0};
        if (a.unit && c.unit) pair.within = pair.count++;
        if (a.between && c.between) pair.between = pair.count++;
        at += pair.count;
        pairs_.push_back(pair);
      }
    }
    out_.estimates.setZero(at);
    scores_.setZero(nclusters_, at);
    mean_.setZero(nclusters_, p_);
    spread_.setOnes(nclusters_, p_);
  }

  FirstStage run() {
    const Index m = out_.estimates.size();
    out_.bread.setZero(m, m);
    std::vector<char> settled(p_, 1);
    in_threads(p_, 0, [&](std::ptrdiff_t i) { settled[i] = estimate(variables_[i]); });
    for (Index i = 0; i < p_; ++i) {
      if (!settled[i]) out_.unsettled.push_back(i);
    }
    if (!out_.unsettled.empty()) return std::move(out_);
    for (const Variable& v : variables_) {
      if (rows_.weight.size()) continue;  // made of differences
      const auto own = scores_.middleCols(v.at, v.width);
      out_.bread.block(v.at, v.at, v.width, v.width) =
          weighted() ? weighted_cross(own, *weighted(), own) : cross(own, own);
    }
    const Index count = static_cast<Index>(pairs_.size());
    std::vector<char> state(count, kFound);
    in_threads(count, 0, [&](std::ptrdiff_t k) {
      if (pairs_[k].count) state[k] = estimate(pairs_[k]);
    });
    for (Index k = 0; k < count; ++k) {
      if (state[k] == kAtBound) out_.at_bound.push_back(k);
      if (state[k] == kUnknown) out_.unknown.push_back(k);
    }
    if (weighted()) scores_ = scale_rows(*weighted(), scores_);
    out_.meat = cross(scores_, scores_);
    out_.scores = std::move(scores_);
    return std::move(out_);
  }

 private:
  enum State : char { kFound, kAtBound, kUnknown };

  // A variable and where its parameters are among its own.
  struct Variable {
    Index number, at, width;
    bool ordered, unit, between;  // between: has a part at the level of clusters
    int categories;
    Index unit_slopes, cluster_slopes, residual, above;  // the last two -1 without
    Vector values, shift;  // of units or clusters; shift: what thresholds, or the mean, are taken from
    bool effect() const { return above >= 0; }
  };

  struct Pair {
    Index i, j, at;
    Index within, between;  // which of its parameters; -1 without
    Index count;
  };

  // A pair's parameters on their way; derivatives with respect to those of both variables only if `all`.
  struct Question {
    const Pair& pair;
    const Vector& theta;
    bool fine, all;
    double within() const { return pair.within < 0 ? 0 : theta[pair.within]; }
    double between() const { return pair.between < 0 ? 0 : theta[pair.between]; }
  };

  void require() const {
    const std::size_t p = static_cast<std::size_t>(p_);
    if (rows_.categories.size() != p || starts_.size() != p ||
        static_cast<Index>(rows_.both.size()) != units_ || static_cast<Index>(rows_.cluster.size()) != n_ ||
        rows_.covariates.rows() != n_ || rows_.cluster_covariates.rows() != nclusters_ || !n_ ||
        !nclusters_ || (rows_.weight.size() && rows_.weight.size() != n_) ||
        (rows_.cluster_weight.size() && rows_.cluster_weight.size() != nclusters_))
      throw std::invalid_argument("rows, covariates, categories and clusters do not go together");
    for (const int c : rows_.cluster) {
      if (c < 0 || c >= nclusters_) throw std::invalid_argument("there is no such cluster");
    }
    for (Index i = 0; i < p_; ++i) {
      const int k = rows_.categories[i];
      if (k == 1 || k < 0 || starts_[i].size() != std::max(k - 1, 0))
        throw std::invalid_argument(
            "an ordered variable needs two categories and the starts of its thresholds");
      const Vector own = i < units_ ? rows_.values.col(i) : rows_.cluster_values.col(i - units_);
      for (const double y : own) {
        if (k && !std::isnan(y) && !(y >= 0 && y < k && y == std::floor(y)))
          throw std::invalid_argument("a category is out of range");
      }
    }
  }

  // Rows by cluster, and in it by their covariates.
  void order_rows() {
    order_.resize(n_);
    std::iota(order_.begin(), order_.end(), Index{0});
    const Matrix& x = rows_.covariates;
    const auto differ = [&](Index a, Index b) {
      if (rows_.cluster[a] != rows_.cluster[b]) return rows_.cluster[a] < rows_.cluster[b] ? -1 : 1;
      for (Index c = 0; c < x.cols(); ++c) {
        if (x(a, c) != x(b, c)) return x(a, c) < x(b, c) ? -1 : 1;
      }
      return 0;
    };
    std::stable_sort(order_.begin(), order_.end(), [&](Index a, Index b) { return differ(a, b) < 0; });
    first_unit_.assign(nclusters_ + 1, 0);
    kind_.resize(n_);
    for (Index r = 0; r < n_; ++r) {
      kind_[r] = r && !differ(order_[r - 1], order_[r]) ? kind_[r - 1] : r;
      ++first_unit_[rows_.cluster[order_[r]] + 1];
    }
    std::partial_sum(first_unit_.begin(), first_unit_.end(), first_unit_.begin());
    first_cluster_.resize(nclusters_ + 1);
    std::iota(first_cluster_.begin(), first_cluster_.end(), Index{0});
    covariates_ = select_rows(x, order_);
    if (rows_.weight.size()) weight_ = select(rows_.weight, order_);
  }

  const Vector* weighted() const { return rows_.cluster_weight.size() ? &rows_.cluster_weight : nullptr; }
  double weight(Index cluster) const { return weighted() ? rows_.cluster_weight[cluster] : 1; }
  double weight(const Variable& v, Index row) const { return v.unit && weight_.size() ? weight_[row] : 1; }

  Variable variable(Index i, Index at) const {
    Variable v{};
    v.number = i;
    v.at = at;
    v.categories = rows_.categories[i];
    v.ordered = v.categories > 0;
    v.unit = i < units_;
    v.between = !v.unit || rows_.both[i];
    v.values = v.unit ? select(rows_.values.col(i), order_) : Vector(rows_.cluster_values.col(i - units_));
    v.unit_slopes = v.ordered ? v.categories - 1 : 1;
    v.cluster_slopes = v.unit_slopes + (v.unit ? covariates_.cols() : 0);
    Index next = v.cluster_slopes + (v.between ? rows_.cluster_covariates.cols() : 0);
    v.residual = v.ordered ? -1 : next++;
    v.above = v.unit && v.between ? next++ : -1;
    v.width = next;
    v.shift.setZero(v.values.size());
    return v;
  }

  const std::vector<Index>& first(const Variable& v) const { return v.unit ? first_unit_ : first_cluster_; }
  static bool known(const Variable& v, Index row) { return !std::isnan(v.values[row]); }
  static int category(const Variable& v, Index row) { return static_cast<int>(v.values[row]); }
  Index kind(const Variable& v, Index row) const { return v.unit ? kind_[row] : row; }
  double parameter(const Variable& v, Index k) const { return k < 0 ? 0 : out_.estimates[v.at + k]; }
  double residual_variance(const Variable& v) const { return v.ordered ? 1 : parameter(v, v.residual); }
  double effect_variance(const Variable& v) const { return parameter(v, v.above); }
  // Of its part at the level of clusters.
  double between_variance(const Variable& v) const {
    return v.unit ? effect_variance(v) : residual_variance(v);
  }
  Vector cuts(const Variable& v) const { return out_.estimates.segment(v.at, v.categories - 1); }

  // What covariates say of every row, and the mean of a continuous variable.
  void set_shift(const Variable& v, const Vector& theta, Vector& shift) const {
    shift.setConstant(v.values.size(), v.ordered ? 0 : theta[0]);
    const Matrix &x = covariates_, &z = rows_.cluster_covariates;
    for (Index c = 0; v.unit && c < x.cols(); ++c) shift += theta[v.unit_slopes + c] * x.col(c);
    for (Index c = 0; v.between && c < z.cols(); ++c) {
      const double slope = theta[v.cluster_slopes + c];
      for (Index j = 0; j < nclusters_; ++j) {
        for (Index r = first(v)[j]; r < first(v)[j + 1]; ++r) shift[r] += slope * z(j, c);
      }
    }
  }

  // Adds the derivatives of a row of a cluster for the parameters of a variable but its between variance.
  template <class Out>
  void add(const Variable& v, Index row, Index j, const RowSlope& s, Out&& out) const {
    if (v.ordered) {
      const int k = category(v, row);
      if (k > 0) out[k - 1] += s.lower;
      if (k + 1 < v.categories) out[k] += s.upper;
    } else {
      out[0] += s.shift;
      out[v.residual] += s.variance;
    }
    add_slopes(v, row, j, s.shift, out);
  }

  template <class Out>
  void add_slopes(const Variable& v, Index row, Index j, double shift, Out&& out) const {
    for (Index c = 0; v.unit && c < covariates_.cols(); ++c)
      out[v.unit_slopes + c] += shift * covariates_(row, c);
    for (Index c = 0; v.between && c < rows_.cluster_covariates.cols(); ++c)
      out[v.cluster_slopes + c] += shift * rows_.cluster_covariates(j, c);
  }

  static double lowest(const Variable& v, const Vector& theta) {
    return kLowest * (v.ordered ? 1 : theta[v.residual]);
  }

  // -- one variable ----------------------------------------------------------------------------------------

  bool estimate(Variable& v) {
    Vector theta = Vector::Zero(v.width);
    Scores last;
    bool found = false;
    const auto inside = [&](const Vector& at) {
      for (Index k = 1; k < v.categories - 1; ++k) {
        if (!(at[k] > at[k - 1])) return false;
      }
      if (!v.ordered && !(at[v.residual] > 0)) return false;
      return !v.effect() || at[v.above] >= lowest(v, at);
    };
    if (v.ordered) {
      theta.head(v.categories - 1) = starts_[v.number] * std::sqrt(v.effect() ? 1.2 : 1.0);
      if (v.effect()) theta[v.above] = 0.2;
      const std::vector<std::vector<Cell>> cells = cells_of(v);
      std::vector<double> modes(nclusters_, std::numeric_limits<double>::quiet_NaN());
      const auto evaluate = [&](const Vector& at) { return categories(v, cells, modes, at); };
      found = ascend(theta, last, evaluate, inside);
      if (rows_.weight.size() && found) curve(v, theta, evaluate);
    } else {
      if (!start(v, theta)) return false;
      const auto evaluate = [&](const Vector& at) { return values(v, at); };
      found = ascend(theta, last, evaluate, inside);
      if (rows_.weight.size() && found) curve(v, theta, evaluate);
    }
    out_.estimates.segment(v.at, v.width) = theta;
    set_shift(v, theta, v.shift);
    scores_.middleCols(v.at, v.width) = last.rows;
    // covariates that separate the categories have their maximum at infinity
    if (v.ordered && v.shift.maxCoeff() - v.shift.minCoeff() > kFarthest) return false;
    return found && (!v.effect() || theta[v.above] > 2 * lowest(v, theta));
  }

  // The information about a variable's parameters by differences of its scores.
  template <class Evaluate>
  void curve(const Variable& v, const Vector& theta, const Evaluate& evaluate) {
    const double unit = v.ordered ? 1 : std::sqrt(theta[v.residual]);
    const auto size = [](const auto& x) { return std::max(std::sqrt(x.squaredNorm() / x.size()), 1e-300); };
    Vector steps = Vector::Constant(v.width, kDifference * unit);
    for (Index c = 0; v.unit && c < covariates_.cols(); ++c)
      steps[v.unit_slopes + c] /= size(covariates_.col(c));
    for (Index c = 0; v.between && c < rows_.cluster_covariates.cols(); ++c)
      steps[v.cluster_slopes + c] /= size(rows_.cluster_covariates.col(c));
    if (!v.ordered) steps[v.residual] *= unit;
    if (v.effect()) steps[v.above] = std::min(kDifference * unit * unit, 0.5 * theta[v.above]);
    Matrix out(v.width, v.width);
    for (Index k = 0; k < v.width; ++k) {
      const double h = steps[k];
      Vector up = theta, down = theta;
      up[k] += h;
      down[k] -= h;
      out.col(k) = (evaluate(down).sum() - evaluate(up).sum()) / (2 * h);
    }
    out_.bread.block(v.at, v.at, v.width, v.width) = 0.5 * (out + out.transpose());
  }

  static bool start(const Variable& v, Vector& theta) {
    double sum = 0, squares = 0, count = 0;
    for (const double y : v.values) {
      if (std::isnan(y)) continue;
      sum += y;
      ++count;
    }
    if (!(count > 1)) return false;
    theta[0] = sum / count;
    for (const double y : v.values) squares += std::isnan(y) ? 0 : (y - theta[0]) * (y - theta[0]);
    const double variance = squares / count;
    theta[v.residual] = variance * (v.effect() ? 0.8 : 1);
    if (v.effect()) theta[v.above] = 0.2 * variance;
    return variance > 0;
  }

  std::vector<std::vector<Cell>> cells_of(const Variable& v) const {
    std::vector<std::vector<Cell>> out(nclusters_);
    std::vector<double> counts(v.categories);
    for (Index j = 0; j < nclusters_; ++j) {
      const Index end = first(v)[j + 1];
      for (Index r = first(v)[j]; r < end;) {
        const Index begin = r, own = kind(v, r);
        counts.assign(v.categories, 0);
        for (; r < end && kind(v, r) == own; ++r) {
          if (known(v, r)) counts[category(v, r)] += weight(v, r);
        }
        for (Index s = begin; s < r; ++s) {
          if (!known(v, s) || !(counts[category(v, s)] > 0)) continue;
          out[j].push_back({category(v, s), counts[category(v, s)], s});
          counts[category(v, s)] = 0;
        }
      }
    }
    return out;
  }

  Scores categories(const Variable& v, const std::vector<std::vector<Cell>>& cells,
                    std::vector<double>& modes, const Vector& theta) {
    const Vector own = theta.head(v.categories - 1);
    const double variance = v.effect() ? theta[v.above] : 0;
    Vector shift;
    set_shift(v, theta, shift);
    Scores out(weighted());
    out.rows.setZero(nclusters_, v.width);
    if (!v.effect()) out.products.setZero(v.width, v.width);
    Line line(single_);
    std::vector<LineCell> units;
    for (Index j = 0; j < nclusters_; ++j) {
      if (cells[j].empty()) continue;
      units.clear();
      for (const Cell& cell : cells[j]) units.push_back({cell.category, cell.count, shift[cell.row]});
      line.integrate(own, units, nullptr, 0, variance, 1, modes[j]);
      out.value += weight(j) * line.value;
      for (std::size_t k = 0; k < units.size(); ++k) {
        const Cell& cell = cells[j][k];
        if (v.effect()) {
          add(v, cell.row, j, line.cells[k], out.rows.row(j));
          continue;
        }
        // units are independent: the products of their scores are closer to the information
        Vector one = Vector::Zero(v.width);
        add(v, cell.row, j, line.cells[k], one);
        out.rows.row(j) += one.transpose();
        add_outer(out.products, weight(j) / cell.count, one, one);
      }
      if (v.effect()) {
        out.rows(j, v.above) = line.d_variance;
        mean_(j, v.number) = line.effect;
        spread_(j, v.number) = line.spread;
      }
    }
    return out;
  }

  // What a cluster's values of a continuous variable add up to.
  struct Sums {
    double n = 0, mean = 0, squares = 0;  // of the residuals; squares about their mean
  };

  Sums sums(const Variable& v, const Vector& shift, Index j) const {
    Sums out;
    for (Index r = first(v)[j]; r < first(v)[j + 1]; ++r) {
      if (!known(v, r)) continue;
      const double w = weight(v, r);
      out.n += w;
      out.mean += w * (v.values[r] - shift[r]);
    }
    if (out.n > 0) out.mean /= out.n;
    for (Index r = first(v)[j]; r < first(v)[j + 1]; ++r) {
      if (known(v, r)) out.squares += weight(v, r) * std::pow(v.values[r] - shift[r] - out.mean, 2);
    }
    return out;
  }

  // The normal density of a cluster's values, whose effect has a mean and a variance.
  struct Normal {
    double value = 0, d_mean = 0, d_variance = 0, d_residual = 0;
    double whole = 0, deviation = 0;  // variance of n times the mean over n; of the mean from its expectation
    Normal(const Sums& s, double mean, double variance, double residual) {
      if (!(s.n > 0)) return;
      whole = residual + s.n * variance;
      deviation = s.mean - mean;
      const double square = s.n * deviation * deviation / whole;
      value = -0.5 * ((s.n - 1) * std::log(residual) + std::log(whole) + s.squares / residual + square +
                      s.n * kLog2Pi);
      d_mean = s.n * deviation / whole;
      d_variance = -0.5 * s.n * (1 - square) / whole;
      d_residual = -0.5 * ((s.n - 1) / residual + (1 - square) / whole - s.squares / (residual * residual));
    }
    // with respect to the mean of one value
    double shift(const Sums& s, double error, double residual) const {
      return (error - s.mean) / residual + deviation / whole;
    }
  };

  Scores values(const Variable& v, const Vector& theta) const {
    const double residual = theta[v.residual], variance = v.effect() ? theta[v.above] : 0;
    Vector shift;
    set_shift(v, theta, shift);
    Scores out(weighted());
    out.rows.setZero(nclusters_, v.width);
    out.products.setZero(v.width, v.width);
    for (Index j = 0; j < nclusters_; ++j) {
      const Sums s = sums(v, shift, j);
      if (!(s.n > 0)) continue;
      const Normal normal(s, 0, variance, residual);
      const double times = weight(j);
      out.value += times * normal.value;
      out.rows(j, v.residual) = normal.d_residual;
      if (v.effect()) out.rows(j, v.above) = normal.d_variance;
      // expected information
      Vector total = Vector::Zero(v.width);
      for (Index r = first(v)[j]; r < first(v)[j + 1]; ++r) {
        if (!known(v, r)) continue;
        Vector one = Vector::Zero(v.width);
        one[0] = 1;
        add_slopes(v, r, j, 1, one);
        const double own = weight(v, r);
        out.rows.row(j) += own * normal.shift(s, v.values[r] - shift[r], residual) * one.transpose();
        add_outer(out.products, times * own / residual, one, one);
        total += own * one;
      }
      add_outer(out.products, -times * variance / (residual * normal.whole), total, total);
      const double w = normal.whole, half = 0.5 * times;
      out.products(v.residual, v.residual) += half * ((s.n - 1) / (residual * residual) + 1 / (w * w));
      if (v.effect()) {
        out.products(v.above, v.above) += half * s.n * s.n / (w * w);
        out.products(v.above, v.residual) += half * s.n / (w * w);
        out.products(v.residual, v.above) += half * s.n / (w * w);
      }
    }
    return out;
  }

  // -- pairs -----------------------------------------------------------------------------------------------

  State estimate(const Pair& pair) {
    const Variable &i = variables_[pair.i], &j = variables_[pair.j];
    Vector limit(pair.count);
    if (pair.within >= 0) limit[pair.within] = std::sqrt(residual_variance(i) * residual_variance(j));
    if (pair.between >= 0) limit[pair.between] = std::sqrt(between_variance(i) * between_variance(j));
    Vector theta = Vector::Zero(pair.count);
    Scores last;
    Matrix again;  // the pair's rows of the bread, by differences
    bool known = false;
    if (i.unit != j.unit) {
      const Variable &unit = i.unit ? i : j, &above = i.unit ? j : i;
      std::vector<double> modes(nclusters_, std::numeric_limits<double>::quiet_NaN());
      known = refine(
          pair, theta, last, again, limit, [&](const Question& q) { return across(q, unit, above, modes); },
          [] {});
    } else if (i.ordered && j.ordered) {
      std::vector<Placed> placed(nclusters_), moved(nclusters_);
      for (Index c = 0; c < nclusters_; ++c)
        placed[c] = {{mean_(c, i.number), mean_(c, j.number)},
                     {spread_(c, i.number), 0, spread_(c, j.number)}};
      const Table table = table_of(i, j);
      known = refine(
          pair, theta, last, again, limit,
          [&](const Question& q) { return two_ordered(q, i, j, table, placed, moved); },
          [&] { placed = moved; });
    } else if (i.ordered || j.ordered) {
      const Variable &a = i.ordered ? j : i, &c = i.ordered ? i : j;
      std::vector<double> modes(nclusters_, std::numeric_limits<double>::quiet_NaN());
      known = refine(
          pair, theta, last, again, limit, [&](const Question& q) { return mixed(q, a, c, modes); }, [] {});
    } else {
      known = refine(
          pair, theta, last, again, limit, [&](const Question& q) { return two_continuous(q, i, j); }, [] {});
    }
    if (!known) return kUnknown;
    const Index m = pair.count;
    out_.estimates.segment(pair.at, m) = theta;
    scores_.middleCols(pair.at, m) = last.rows.leftCols(m);
    const Matrix products = rows_.weight.size() ? again
                            : weighted() ? weighted_cross(last.rows.leftCols(m), *weighted(), last.rows)
                                         : cross(last.rows.leftCols(m), last.rows);
    out_.bread.block(pair.at, pair.at, m, m) = products.leftCols(m);
    out_.bread.block(pair.at, i.at, m, i.width) = products.middleCols(m, i.width);
    out_.bread.block(pair.at, j.at, m, j.width) = products.middleCols(m + i.width, j.width);
    const bool bound = (theta.cwiseQuotient(limit)).cwiseAbs().maxCoeff() > kLargestCorrelation - 1e-3;
    return bound ? kAtBound : kFound;
  }

  // Ascends with nodes that are placed anew after every step. A step may not leave the correlations much
  // closer to 1 than nodes are fit for: where the distribution is far narrower than they are apart, a node
  // that happens to lie on it makes a maximum of its own. False if nothing is known about a parameter.
  template <class Evaluate, class Accept>
  bool refine(const Pair& pair, Vector& theta, Scores& now, Matrix& curvature, const Vector& limit,
              const Evaluate& evaluate, const Accept& accept) const {
    const auto near = [&](const Vector& from, const Vector& to) {
      for (Index k = 0; k < to.size(); ++k) {
        const double before = from[k] / limit[k], after = to[k] / limit[k];
        if (!(std::abs(after) <= kLargestCorrelation) || 1 - after * after < kCloser * (1 - before * before))
          return false;
      }
      return true;
    };
    bool fine = false;
    const auto at = [&](const Vector& here) { return evaluate(Question{pair, here, fine, false}); };
    const Index m = pair.count;
    const auto end = [&] {
      now = evaluate(Question{pair, theta, true, true});
      if (!rows_.weight.size()) return;
      curvature.resize(m, now.rows.cols());
      for (Index k = 0; k < m; ++k) {
        const double room = 1 - std::abs(theta[k]) / limit[k],
                     h = std::min(kDifference, 0.5 * room) * limit[k];
        Vector up = theta, down = theta;
        up[k] += h;
        down[k] -= h;
        const Vector above = evaluate(Question{pair, up, true, true}).sum();
        const Vector below = evaluate(Question{pair, down, true, true}).sum();
        curvature.row(k) = ((below - above) / (2 * h)).transpose();
      }
    };
    const auto own = [&](const Scores& s) {
      Scores part(s.weight);
      part.value = s.value;
      part.rows = s.rows.leftCols(m);
      return part;
    };
    now = at(theta);
    accept();
    Matrix information = own(now).information();
    for (int step = 0; step < kMostSteps; ++step) {
      check_interrupt();
      const Vector gradient = own(now).sum();
      const ScaledInverse inverse = scaled_inverse(information);
      if (!(inverse.pivot > 0)) return false;
      const Vector change = apply(inverse.inverse, gradient);
      const double decrement = gradient.dot(change);
      if (fine && decrement < kSettledLevels) {
        const Vector next = theta + change;
        if (near(theta, next)) theta = next;
        end();
        return true;
      }
      const bool finer = !fine && decrement < kNear;
      if (finer) fine = true;
      double size = 1;
      bool moved = false;
      for (int half = 0; half < 30 && !moved; ++half, size *= 0.5) {
        const Vector next = theta + size * change;
        if (!near(theta, next)) continue;
        Scores there = at(next);
        // values at different nodes differ by the errors of the quadrature
        const double slack = finer || !fine ? kNear : 1e-7;
        if (!(there.value >= now.value - slack - 1e-12 * std::abs(now.value))) continue;
        const Vector moved_by = next - theta;
        update(information, moved_by, gradient - own(there).sum(), own(there));
        theta = next;
        now = std::move(there);
        moved = true;
        accept();
      }
      if (!moved) {
        if (fine && !finer) {
          end();
          return true;
        }
        fine = true;
        now = at(theta);
        accept();
        information = own(now).information();
      }
    }
    end();
    return true;
  }

  // Columns of a pair's scores: its own, those of variable i, of variable j.
  auto columns(const Question& q, const Variable& v, Matrix& rows, Index j) const {
    const Index at = q.pair.count + (v.number == q.pair.i ? 0 : variables_[q.pair.i].width);
    return rows.row(j).segment(at, v.width);
  }

  Scores empty(const Question& q) const {
    Scores out(weighted());
    const Index width = variables_[q.pair.i].width + variables_[q.pair.j].width;
    out.rows.setZero(nclusters_, q.pair.count + (q.all ? width : 0));
    return out;
  }

  struct Table {
    std::vector<PlaneCell> cells;
    std::vector<PlaneKind> kinds;                // rows of the cells in the place of shifts
    std::vector<std::size_t> first_cell, first;  // of each cluster: cells, kinds
  };

  Table table_of(const Variable& a, const Variable& c) const {
    Table out;
    const int rows = a.categories, cols = c.categories;
    Matrix counts(rows + 1, cols + 1);
    for (Index j = 0; j < nclusters_; ++j) {
      out.first_cell.push_back(out.cells.size());
      out.first.push_back(out.kinds.size());
      const Index end = first(a)[j + 1];
      for (Index r = first(a)[j]; r < end;) {
        const Index begin = r, own = kind(a, r);
        counts.setZero();
        const auto place = [&](Index s) -> double& {
          return counts(known(a, s) ? category(a, s) : rows, known(c, s) ? category(c, s) : cols);
        };
        for (; r < end && kind(a, r) == own; ++r) place(r) += weight(a, r);
        const std::size_t before = out.cells.size();
        for (Index s = begin; s < r; ++s) {
          if (!known(a, s) && !known(c, s)) continue;
          double& count = place(s);
          if (!(count > 0)) continue;
          out.cells.push_back(
              {known(a, s) ? category(a, s) : -1, known(c, s) ? category(c, s) : -1, count, s});
          count = 0;
        }
        if (out.cells.size() > before) out.kinds.push_back({before, out.cells.size(), 0, 0});
      }
    }
    out.first_cell.push_back(out.cells.size());
    out.first.push_back(out.kinds.size());
    return out;
  }

  Scores two_ordered(const Question& q, const Variable& a, const Variable& c, const Table& table,
                     const std::vector<Placed>& placed, std::vector<Placed>& moved) const {
    // variables of clusters have one residual, which is what their covariance is of
    const double rho = q.pair.within >= 0 ? q.within() : q.between();
    const PlaneModel model{
        cuts(a), cuts(c), effect_variance(a), effect_variance(c), q.pair.within >= 0 ? q.between() : 0, rho};
    Plane plane(!(a.effect() && c.effect()) ? single_ : q.fine ? fine_ : coarse_);
    std::vector<PlaneCell> cells;
    std::vector<PlaneKind> kinds;
    Scores out = empty(q);
    for (Index j = 0; j < nclusters_; ++j) {
      moved[j] = placed[j];
      if (table.first[j] == table.first[j + 1]) continue;
      cells.assign(table.cells.begin() + table.first_cell[j], table.cells.begin() + table.first_cell[j + 1]);
      kinds.assign(table.kinds.begin() + table.first[j], table.kinds.begin() + table.first[j + 1]);
      for (PlaneKind& kind : kinds) {
        kind.begin -= table.first_cell[j];
        kind.end -= table.first_cell[j];
        kind.shift_one = a.shift[cells[kind.begin].row];
        kind.shift_other = c.shift[cells[kind.begin].row];
      }
      plane.integrate(model, cells, kinds, placed[j], q.all);
      out.value += weight(j) * plane.value;
      moved[j] = plane.moved;
      out.rows(j, 0) = plane.d_correlation;
      if (q.pair.within >= 0 && q.pair.between >= 0) out.rows(j, q.pair.between) = plane.d_covariance;
      if (!q.all) continue;
      auto one = columns(q, a, out.rows, j), other = columns(q, c, out.rows, j);
      for (std::size_t k = 0; k < cells.size(); ++k) {
        if (cells[k].one >= 0) add(a, cells[k].row, j, plane.cells[k].one, one);
        if (cells[k].other >= 0) add(c, cells[k].row, j, plane.cells[k].other, other);
      }
      if (a.effect()) one[a.above] += plane.d_variance_one;
      if (c.effect()) other[c.above] += plane.d_variance_other;
    }
    return out;
  }

  // A continuous variable a and an ordered one c of the same units. Given all values of a in the cluster, c
  // is cut from a variable with one effect. Units with c alone are left out.
  Scores mixed(const Question& q, const Variable& a, const Variable& c, std::vector<double>& modes) const {
    const double cov = q.pair.within >= 0 ? q.within() : q.between();
    const double cb = q.pair.within >= 0 ? q.between() : 0;
    const double vw = residual_variance(a), va = effect_variance(a), vc = effect_variance(c);
    const double slope = cov / vw, rest = std::max(1 - cov * slope, 1e-12), sd = std::sqrt(rest);
    const double cg = cb - slope * va, vg = vc + slope * slope * va - 2 * slope * cb;
    const Vector own = cuts(c);
    Line line(single_);
    std::vector<LineCell> units;
    std::vector<Index> rows;
    Scores out = empty(q);
    for (Index j = 0; j < nclusters_; ++j) {
      const Sums s = sums(a, a.shift, j);
      if (!(s.n > 0)) continue;
      const Normal normal(s, 0, va, vw);
      units.clear();
      rows.clear();
      for (Index r = first(a)[j]; r < first(a)[j + 1]; ++r) {
        if (!known(a, r) || !known(c, r)) continue;
        units.push_back({category(c, r), weight(c, r), c.shift[r] + slope * (a.values[r] - a.shift[r])});
        rows.push_back(r);
      }
      const double whole = normal.whole, share = s.n / whole;
      const double mean = cg * share * s.mean, variance = std::max(vg - cg * cg * share, 0.0);
      double d_slope = 0, d_rest = 0;
      line.value = line.d_mean = line.d_variance = 0;
      if (!units.empty()) line.integrate(own, units, nullptr, mean, variance, sd, modes[j]);
      out.value += weight(j) * (line.value + normal.value);
      for (std::size_t k = 0; k < units.size(); ++k) {
        d_slope += (a.values[rows[k]] - a.shift[rows[k]]) * line.cells[k].shift;
        d_rest += line.cells[k].variance;
      }
      // the chain rule through slope, residual variance, mean and variance of the effect
      const auto chain = [&](double da, double ds, double dcg, double dvg, double dwhole) {
        const double dm = share * s.mean * (dcg - cg * dwhole / whole);
        const double du = dvg - share * (2 * cg * dcg - cg * cg * dwhole / whole);
        return d_slope * da + d_rest * ds + line.d_mean * dm + line.d_variance * du;
      };
      out.rows(j, 0) = chain(1 / vw, -2 * slope, -va / vw, 2 * (slope * va - cb) / vw, 0);
      if (q.pair.within >= 0 && q.pair.between >= 0)
        out.rows(j, q.pair.between) = chain(0, 0, 1, -2 * slope, 0);
      if (!q.all) continue;
      auto one = columns(q, a, out.rows, j), other = columns(q, c, out.rows, j);
      std::size_t k = 0;
      for (Index r = first(a)[j]; r < first(a)[j + 1]; ++r) {
        if (!known(a, r)) continue;
        double shift =
            weight(a, r) * (normal.shift(s, a.values[r] - a.shift[r], vw) - line.d_mean * cg / whole);
        if (k < rows.size() && rows[k] == r) {
          shift -= slope * line.cells[k].shift;
          add(c, r, j, line.cells[k], other);
          ++k;
        }
        one[0] += shift;
        add_slopes(a, r, j, shift, one);
      }
      const double da = -slope / vw;
      one[a.residual] +=
          normal.d_residual + chain(da, slope * slope, -va * da, 2 * (slope * va - cb) * da, 1);
      if (a.effect()) one[a.above] += normal.d_variance + chain(0, 0, -slope, slope * slope, s.n);
      if (c.effect()) other[c.above] += chain(0, 0, 0, 1, 0);
    }
    return out;
  }

  struct Two {
    double a, x, c;  // a symmetric matrix ((a, x), (x, c))
    double det() const { return a * c - x * x; }
    Two inverse() const { return {c / det(), -x / det(), a / det()}; }
  };

  // Normal densities, with units that have one of the two values only; the effects may be degenerate.
  Scores two_continuous(const Question& q, const Variable& a, const Variable& c) const {
    const Two within{residual_variance(a), q.pair.within >= 0 ? q.within() : q.between(),
                     residual_variance(c)};
    const Two between{effect_variance(a), q.pair.within >= 0 ? q.between() : 0, effect_variance(c)};
    const Two both = within.inverse();
    const Two alone_a{1 / within.a, 0, 0}, alone_c{0, 0, 1 / within.c};
    Scores out = empty(q);
    for (Index j = 0; j < nclusters_; ++j) {
      Two sum{0, 0, 0};
      double qa = 0, qc = 0, value = 0;
      const auto unit = [&](Index r, double& ea, double& ec) -> const Two* {
        const bool ka = known(a, r), kc = known(c, r);
        ea = ka ? a.values[r] - a.shift[r] : 0;
        ec = kc ? c.values[r] - c.shift[r] : 0;
        return ka && kc ? &both : ka ? &alone_a : kc ? &alone_c : nullptr;
      };
      for (Index r = first(a)[j]; r < first(a)[j + 1]; ++r) {
        double ea = 0, ec = 0;
        const Two* p = unit(r, ea, ec);
        if (!p) continue;
        const double ua = p->a * ea + p->x * ec, uc = p->x * ea + p->c * ec, w = weight(a, r);
        sum = {sum.a + w * p->a, sum.x + w * p->x, sum.c + w * p->c};
        qa += w * ua;
        qc += w * uc;
        value -= 0.5 * w *
                 (ea * ua + ec * uc +
                  (p == &both      ? std::log(within.det())
                   : p == &alone_a ? std::log(within.a)
                                   : std::log(within.c)));
      }
      // V = (I + B P)^-1 B, the effects' covariance matrix given the data
      const double t11 = 1 + between.a * sum.a + between.x * sum.x;
      const double t12 = between.a * sum.x + between.x * sum.c;
      const double t21 = between.x * sum.a + between.c * sum.x;
      const double t22 = 1 + between.x * sum.x + between.c * sum.c, det = t11 * t22 - t12 * t21;
      if (!(det > 0)) {
        out.value = -kInfinity;
        return out;
      }
      const Two v{(t22 * between.a - t12 * between.x) / det, (t22 * between.x - t12 * between.c) / det,
                  (t11 * between.c - t21 * between.x) / det};
      const double ma = v.a * qa + v.x * qc, mc = v.x * qa + v.c * qc;
      out.value += weight(j) * (value - 0.5 * std::log(det) + 0.5 * (qa * ma + qc * mc));
      // derivatives for the effects' covariance matrix: ((q - P m)(q - P m)' - P + P V P) / 2
      const double wa = qa - sum.a * ma - sum.x * mc, wc = qc - sum.x * ma - sum.c * mc;
      const double pa1 = sum.a * v.a + sum.x * v.x, pa2 = sum.a * v.x + sum.x * v.c;
      const double pc1 = sum.x * v.a + sum.c * v.x, pc2 = sum.x * v.x + sum.c * v.c;
      if (q.pair.within >= 0 && q.pair.between >= 0)
        out.rows(j, q.pair.between) = wa * wc - sum.x + pa1 * sum.x + pa2 * sum.c;
      double da = 0, dx = 0, dc = 0;
      for (Index r = first(a)[j]; r < first(a)[j + 1]; ++r) {
        double ea = 0, ec = 0;
        const Two* p = unit(r, ea, ec);
        if (!p) continue;
        const double ua = p->a * (ea - (p->a > 0 ? ma : 0)) + p->x * (ec - mc);
        const double uc = p->x * (ea - ma) + p->c * (ec - (p->c > 0 ? mc : 0));
        const double k11 = p->a * v.a + p->x * v.x, k12 = p->a * v.x + p->x * v.c;
        const double k21 = p->x * v.a + p->c * v.x, k22 = p->x * v.x + p->c * v.c;
        const double w = weight(a, r);
        da += 0.5 * w * (ua * ua + k11 * p->a + k12 * p->x - p->a);
        dx += w * (ua * uc + k11 * p->x + k12 * p->c - p->x);
        dc += 0.5 * w * (uc * uc + k21 * p->x + k22 * p->c - p->c);
        if (!q.all) continue;
        auto one = columns(q, a, out.rows, j), other = columns(q, c, out.rows, j);
        one[0] += w * ua;
        other[0] += w * uc;
        add_slopes(a, r, j, w * ua, one);
        add_slopes(c, r, j, w * uc, other);
      }
      out.rows(j, 0) = dx;
      if (!q.all) continue;
      auto one = columns(q, a, out.rows, j), other = columns(q, c, out.rows, j);
      one[a.residual] += da;
      other[c.residual] += dc;
      if (a.effect()) one[a.above] += 0.5 * (wa * wa - sum.a + pa1 * sum.a + pa2 * sum.x);
      if (c.effect()) other[c.above] += 0.5 * (wc * wc - sum.c + pc1 * sum.x + pc2 * sum.c);
    }
    return out;
  }

  // A variable of units that has an effect, and one of clusters.
  Scores across(const Question& q, const Variable& unit, const Variable& above,
                std::vector<double>& modes) const {
    const double cov = q.between(), vb = effect_variance(unit), vz = residual_variance(above);
    const double vw = residual_variance(unit);
    const Vector own = unit.ordered ? cuts(unit) : Vector(), others = above.ordered ? cuts(above) : Vector();
    Line line(single_);
    std::vector<LineCell> cells;
    std::vector<Index> rows;
    Scores out = empty(q);
    for (Index j = 0; j < nclusters_; ++j) {
      if (!known(above, j)) continue;
      cells.clear();
      rows.clear();
      for (Index r = first_unit_[j]; r < first_unit_[j + 1]; ++r) {
        if (!known(unit, r)) continue;
        if (unit.ordered) cells.push_back({category(unit, r), weight(unit, r), unit.shift[r]});
        rows.push_back(r);
      }
      if (rows.empty()) continue;
      const Sums s = unit.ordered ? Sums() : sums(unit, unit.shift, j);
      // the units' derivatives, when the effect is N(mean, variance)
      const auto units = [&](auto&& to, const Normal& normal) {
        for (std::size_t k = 0; k < rows.size(); ++k) {
          RowSlope slope;
          if (unit.ordered)
            slope = line.cells[k];
          else
            slope.shift =
                weight(unit, rows[k]) * normal.shift(s, unit.values[rows[k]] - unit.shift[rows[k]], vw);
          add(unit, rows[k], j, slope, to);
        }
        if (!unit.ordered) to[unit.residual] += normal.d_residual;
      };
      if (!above.ordered) {
        const double slope = cov / vz, error = above.values[j] - above.shift[j];
        const double mean = slope * error, variance = std::max(vb - cov * slope, 0.0);
        if (unit.ordered) line.integrate(own, cells, nullptr, mean, variance, 1, modes[j]);
        const Normal normal(s, mean, variance, vw);
        const double dm = unit.ordered ? line.d_mean : normal.d_mean;
        const double du = unit.ordered ? line.d_variance : normal.d_variance;
        out.value += weight(j) * (unit.ordered ? line.value : normal.value);
        out.rows(j, 0) = dm * error / vz - 2 * du * slope;
        if (!q.all) continue;
        auto one = columns(q, unit, out.rows, j), other = columns(q, above, out.rows, j);
        units(one, normal);
        one[unit.above] += du;
        RowSlope z;
        z.shift = error / vz - dm * slope;
        z.variance = 0.5 * (error * error / vz - 1) / vz - dm * mean / vz + du * slope * slope;
        add(above, j, j, z, other);
        continue;
      }
      const int k = category(above, j);
      if (unit.ordered) {
        const double slope = cov / vb, rest = std::max(1 - cov * slope, 1e-12);
        const LineFactor factor{&others, k, above.shift[j], slope, std::sqrt(rest)};
        line.integrate(own, cells, &factor, 0, vb, 1, modes[j]);
        out.value += weight(j) * line.value;
        out.rows(j, 0) = line.factor_slope / vb - 2 * slope * line.factor.variance;
        if (!q.all) continue;
        auto one = columns(q, unit, out.rows, j), other = columns(q, above, out.rows, j);
        units(one, Normal(s, 0, vb, 1));
        one[unit.above] +=
            line.d_variance - line.factor_slope * slope / vb + slope * slope * line.factor.variance;
        add(above, j, j, line.factor, other);
        continue;
      }
      const Normal normal(s, 0, vb, vw);
      const double share = s.n / normal.whole, mean = cov * share * s.mean;
      const double rest = std::max(1 - cov * cov * share, 1e-12);
      const Kernel kernel = category_kernel(others, k, above.shift[j] + mean, std::sqrt(rest));
      const double g = kernel.shift();
      out.value += weight(j) * (kernel.log + normal.value);
      out.rows(j, 0) = g * share * s.mean - 2 * kernel.variance * cov * share;
      if (!q.all) continue;
      auto one = columns(q, unit, out.rows, j), other = columns(q, above, out.rows, j);
      units(one, normal);
      for (const Index r : rows) {
        const double shift = -weight(unit, r) * g * cov / normal.whole;
        one[0] += shift;
        add_slopes(unit, r, j, shift, one);
      }
      const double d_whole = (-g * mean + kernel.variance * cov * cov * share) / normal.whole;
      one[unit.residual] += d_whole;
      one[unit.above] += normal.d_variance + s.n * d_whole;
      add(above, j, j, {kernel.upper, kernel.lower, g, kernel.variance}, other);
    }
    return out;
  }

  const OrderedClusterRows& rows_;
  const std::vector<Vector>& starts_;
  Index units_, p_, n_, nclusters_;  // variables of units, and all
  Rule single_, coarse_, fine_;
  std::vector<Index> order_, kind_, first_unit_, first_cluster_;
  Matrix covariates_;  // of the rows in order
  Vector weight_;      // alike; empty: all count once
  std::vector<Variable> variables_;
  std::vector<Pair> pairs_;
  Matrix scores_;         // of clusters, for all parameters
  Matrix mean_, spread_;  // of each cluster's effect given one variable
  FirstStage out_;
};

}  // namespace

FirstStage two_level_first_stage(const OrderedClusterRows& rows, const std::vector<Vector>& starts) {
  return TwoLevels(rows, starts).run();
}

}  // namespace msem
