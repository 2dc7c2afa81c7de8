#include "ordered/first_stage.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/normal.hpp"
#include "base/threads.hpp"
#include "ordered/rectangle.hpp"

namespace msem {

namespace {

constexpr double kSettled = 1e-11;   // change of a correlation, and decrement of a regression, to stop at
constexpr double kSeparated = 1e-6;  // -log-likelihood of a row below which nothing is left
constexpr int kSteps = 100;
constexpr Index kChunk = 2048;  // rows whose scores are kept at a time

double times_density(double z) { return std::isinf(z) ? 0.0 : z * normal_density(z); }

class Estimation {
 public:
  Estimation(const FirstStageRows& rows, const std::vector<Vector>& starts)
      : rows_(rows), p_(rows.values.cols()), q_(rows.covariates.cols()), n_(rows.values.rows()) {
    if (static_cast<Index>(rows.categories.size()) != p_ || static_cast<Index>(starts.size()) != p_ ||
        rows.covariates.rows() != n_ ||
        (!rows.cluster.empty() && static_cast<Index>(rows.cluster.size()) != n_) ||
        (rows.weight.size() && rows.weight.size() != n_))
      throw std::invalid_argument("rows, covariates, categories and clusters do not go together");
    Index at = 0;
    for (Index i = 0; i < p_; ++i) {
      const int k = rows.categories[i];
      if (k == 1 || k < 0 || starts[i].size() != std::max(k - 1, 0))
        throw std::invalid_argument(
            "an ordered variable needs two categories and the starts of its thresholds");
      out_.first.push_back(at);
      at += (k ? k - 1 : 2) + q_;
    }
    out_.first.push_back(at);
    out_.estimates.setZero(at + p_ * (p_ - 1) / 2);
    for (Index r = 0; r < n_; ++r) {
      for (Index i = 0; i < p_; ++i) {
        const double y = rows.values(r, i);
        if (rows.categories[i] && !std::isnan(y) && !(y >= 0 && y < rows.categories[i] && y == std::floor(y)))
          throw std::invalid_argument("a category is out of range");
      }
    }
    shift_.setZero(n_, p_);
    residual_.setZero(n_, p_);
    std::vector<char> settled(p_, 1);
    in_threads(p_, 0, [&](std::ptrdiff_t i) { settled[i] = ordered(i) ? probit(i, starts[i]) : regress(i); });
    for (Index i = 0; i < p_; ++i) {
      if (!settled[i]) out_.unsettled.push_back(i);
    }
  }

  FirstStage run() {
    for (Index j = 0; j < p_; ++j) {
      for (Index i = j + 1; i < p_; ++i) pairs_.push_back({i, j});
    }
    const Index count = static_cast<Index>(pairs_.size());
    tables_.resize(count);
    std::vector<char> bound(count, 0);
    in_threads(count, 0, [&](std::ptrdiff_t k) {
      check_interrupt();
      bound[k] = correlate(k);
    });
    for (Index k = 0; k < count; ++k) {
      if (bound[k]) out_.at_bound.push_back(k);
    }
    products();
    return std::move(out_);
  }

 private:
  using Pair = std::pair<Index, Index>;

  bool ordered(Index i) const { return rows_.categories[i] > 0; }
  bool missing(Index r, Index i) const { return std::isnan(rows_.values(r, i)); }
  int category(Index r, Index i) const { return static_cast<int>(rows_.values(r, i)); }
  double weight(Index r) const { return rows_.weight.size() ? rows_.weight[r] : 1; }
  double& parameter(Index i, Index k) { return out_.estimates[out_.first[i] + k]; }
  double parameter(Index i, Index k) const { return out_.estimates[out_.first[i] + k]; }
  double variance(Index i) const { return ordered(i) ? 1.0 : parameter(i, 1 + q_); }
  double threshold(Index i, int k) const {
    if (k <= 0) return -kInfinity;
    return k >= rows_.categories[i] ? kInfinity : parameter(i, k - 1);
  }
  // Where the row lies on the latent variable: between the thresholds below and above, less the shift.
  double above(Index r, Index i) const { return threshold(i, category(r, i) + 1) - shift_(r, i); }
  double below(Index r, Index i) const { return threshold(i, category(r, i)) - shift_(r, i); }

  // -- one variable ----------------------------------------------------------------------------------------

  bool regress(Index i) {
    std::vector<Index> known;
    for (Index r = 0; r < n_; ++r) {
      if (!missing(r, i)) known.push_back(r);
    }
    const Index m = static_cast<Index>(known.size());
    Matrix design(m, 1 + q_);
    Vector y(m);
    double total = 0, sum = 0;
    for (Index k = 0; k < m; ++k) {
      const double w = weight(known[k]), root = std::sqrt(w);
      design(k, 0) = root;
      for (Index c = 0; c < q_; ++c) design(k, 1 + c) = root * rows_.covariates(known[k], c);
      y[k] = root * rows_.values(known[k], i);
      total += w;
      sum += root * y[k];
    }
    const Vector beta = q_ ? shortest_solution(design, y) : Vector::Constant(1, sum / total);
    double squares = 0;
    for (Index k = 0; k <= q_; ++k) parameter(i, k) = beta[k];
    for (Index r = 0; r < n_; ++r) {
      shift_(r, i) = beta[0];
      for (Index c = 0; c < q_; ++c) shift_(r, i) += beta[1 + c] * rows_.covariates(r, c);
      if (missing(r, i)) continue;
      residual_(r, i) = rows_.values(r, i) - shift_(r, i);
      squares += weight(r) * residual_(r, i) * residual_(r, i);
    }
    parameter(i, 1 + q_) = squares / total;
    return squares > 0;
  }

  // Ordered probit by Newton's method; the log-likelihood is concave.
  bool probit(Index i, const Vector& start) {
    const Index m = start.size();
    for (Index k = 0; k < m; ++k) parameter(i, k) = start[k];
    if (!q_) return true;
    double value = loglik(i);
    for (int step = 0; step < kSteps; ++step) {
      Vector gradient = Vector::Zero(m + q_);
      Matrix hessian = Matrix::Zero(m + q_, m + q_);
      for (Index r = 0; r < n_; ++r) {
        if (!missing(r, i)) add_curvature(r, i, gradient, hessian);
      }
      Cholesky chol;
      if (!chol.compute(hessian)) return false;
      const Vector change = chol.solve(gradient);
      const Vector before = out_.estimates.segment(out_.first[i], m + q_);
      double size = 1, now = -kInfinity;
      for (int half = 0; half < 40; ++half, size *= 0.5) {
        out_.estimates.segment(out_.first[i], m + q_) = before + size * change;
        now = loglik(i);
        if (now >= value) break;
      }
      value = now;
      // covariates that separate the categories: the maximum is at infinity, and nothing is left to explain
      if (!(value < -kSeparated * static_cast<double>(n_))) return false;
      if (shift_.col(i).maxCoeff() - shift_.col(i).minCoeff() > kFarthest) return false;
      if (gradient.dot(change) < kSettled) return std::isfinite(value);
    }
    return false;
  }

  double loglik(Index i) {
    const Index m = rows_.categories[i] - 1;
    for (Index k = 1; k < m; ++k) {
      if (!(parameter(i, k) > parameter(i, k - 1))) return -kInfinity;
    }
    double sum = 0;
    for (Index r = 0; r < n_; ++r) {
      shift_(r, i) = 0;
      for (Index c = 0; c < q_; ++c) shift_(r, i) += parameter(i, m + c) * rows_.covariates(r, c);
      if (!missing(r, i))
        sum += weight(r) * std::log(std::max(normal_between(below(r, i), above(r, i)), kLeastProbability));
    }
    return sum;
  }

  void add_curvature(Index r, Index i, Vector& gradient, Matrix& hessian) const {
    const int k = category(r, i);
    const Index m = rows_.categories[i] - 1;
    const double z1 = above(r, i), z2 = below(r, i), pi = std::max(normal_between(z2, z1), kLeastProbability);
    const double w = weight(r), u1 = normal_density(z1) / pi, l1 = normal_density(z2) / pi;
    // with respect to z1 and z2
    const double uu = w * (times_density(z1) / pi + u1 * u1), ll = w * (l1 * l1 - times_density(z2) / pi),
                 ul = -w * u1 * l1, u = w * u1, l = w * l1;
    const auto at = [&](Index a) { return a < m ? a : -1; };
    const Index up = at(k), low = k - 1;
    if (up >= 0) {
      gradient[up] += u;
      hessian(up, up) += uu;
    }
    if (low >= 0) {
      gradient[low] -= l;
      hessian(low, low) += ll;
    }
    if (up >= 0 && low >= 0) {
      hessian(up, low) += ul;
      hessian(low, up) += ul;
    }
    for (Index c = 0; c < q_; ++c) {
      const double x = rows_.covariates(r, c);
      gradient[m + c] -= x * (u - l);
      if (up >= 0) {
        hessian(m + c, up) -= x * (uu + ul);
        hessian(up, m + c) -= x * (uu + ul);
      }
      if (low >= 0) {
        hessian(m + c, low) -= x * (ll + ul);
        hessian(low, m + c) -= x * (ll + ul);
      }
      for (Index d = 0; d < q_; ++d) hessian(m + c, m + d) += x * rows_.covariates(r, d) * (uu + ll + 2 * ul);
    }
  }

  RowSlope slope(Index r, Index i) const {
    RowSlope out;
    if (!ordered(i)) {
      const double v = variance(i), e = residual_(r, i);
      out.shift = e / v;
      out.variance = 0.5 * (e * e / v - 1) / v;
      return out;
    }
    const double z1 = above(r, i), z2 = below(r, i), pi = std::max(normal_between(z2, z1), kLeastProbability);
    out.upper = normal_density(z1) / pi;
    out.lower = -normal_density(z2) / pi;
    out.shift = -out.upper - out.lower;
    return out;
  }

  // -- pairs -----------------------------------------------------------------------------------------------

  // The rectangle that two categories are, given the correlation.
  static PairSlope of_rectangle(double a1, double a2, double c1, double c2, double rho, bool all) {
    const double p = std::max(binormal_between(a1, a2, c1, c2, rho), kLeastProbability);
    if (all) return rectangle_slope(a1, a2, c1, c2, rho, p);
    PairSlope out;
    out.covariance = correlation_slope(a1, a2, c1, c2, rho, p);
    return out;
  }

  // A continuous variable a and an ordered one c.
  PairSlope of_mixed(Index r, Index a, Index c, double covariance) const {
    PairSlope out;
    const double v = variance(a), e = residual_(r, a), b = covariance / v;
    const double rest = std::max(1 - covariance * b, 1e-12), s = std::sqrt(rest);
    const double z1 = (above(r, c) - b * e) / s, z2 = (below(r, c) - b * e) / s;
    const double pi = std::max(normal_between(z2, z1), kLeastProbability);
    const double u = normal_density(z1) / (pi * s), l = normal_density(z2) / (pi * s), g = l - u;
    const double of_rest = -0.5 * (times_density(z1) - times_density(z2)) / (pi * rest);
    out.covariance = e * g / v - 2 * b * of_rest;
    out.other.upper = u;
    out.other.lower = -l;
    out.other.shift = g;
    out.one = slope(r, a);
    out.one.shift -= b * g;
    out.one.variance += -b / v * e * g + b * b * of_rest;
    return out;
  }

  PairSlope of_continuous(Index r, Index a, Index c, double covariance) const {
    PairSlope out;
    const double va = variance(a), vc = variance(c), det = va * vc - covariance * covariance;
    const double ua = (vc * residual_(r, a) - covariance * residual_(r, c)) / det;
    const double uc = (va * residual_(r, c) - covariance * residual_(r, a)) / det;
    out.covariance = ua * uc + covariance / det;
    out.one.shift = ua;
    out.other.shift = uc;
    out.one.variance = 0.5 * (ua * ua - vc / det);
    out.other.variance = 0.5 * (uc * uc - va / det);
    return out;
  }

  PairSlope pair_slope(Index r, const Pair& pair, double covariance, bool all) const {
    const auto [i, j] = pair;
    if (ordered(i) && ordered(j))
      return of_rectangle(above(r, i), below(r, i), above(r, j), below(r, j), covariance, all);
    if (ordered(i)) {
      PairSlope out = of_mixed(r, j, i, covariance);
      std::swap(out.one, out.other);
      return out;
    }
    return ordered(j) ? of_mixed(r, i, j, covariance) : of_continuous(r, i, j, covariance);
  }

  // Without covariates two ordered variables are a table of counts.
  bool tabulated(const Pair& pair) const { return !q_ && ordered(pair.first) && ordered(pair.second); }

  PairSlope of_cell(const Pair& pair, int k, int l, double rho, bool all) const {
    const auto [i, j] = pair;
    return of_rectangle(threshold(i, k + 1), threshold(i, k), threshold(j, l + 1), threshold(j, l), rho, all);
  }

  bool correlate(Index k) {
    const Pair& pair = pairs_[k];
    const auto [i, j] = pair;
    const int rows = rows_.categories[i], cols = rows_.categories[j];
    Matrix counts;
    if (tabulated(pair)) {
      counts = Matrix::Zero(rows, cols);
      for (Index r = 0; r < n_; ++r) {
        if (!missing(r, i) && !missing(r, j)) counts(category(r, i), category(r, j)) += weight(r);
      }
    }
    // the score and the sum of its squares
    const auto evaluate = [&](double covariance) {
      double sum = 0, squares = 0;
      if (counts.size()) {
        for (int b = 0; b < cols; ++b) {
          for (int a = 0; a < rows; ++a) {
            if (!(counts(a, b) > 0)) continue;
            const double s = of_cell(pair, a, b, covariance, false).covariance;
            sum += counts(a, b) * s;
            squares += counts(a, b) * s * s;
          }
        }
        return std::make_pair(sum, squares);
      }
      for (Index r = 0; r < n_; ++r) {
        if (missing(r, i) || missing(r, j)) continue;
        const double s = pair_slope(r, pair, covariance, false).covariance;
        sum += weight(r) * s;
        squares += weight(r) * s * s;
      }
      return std::make_pair(sum, squares);
    };
    const double unit = std::sqrt(variance(i) * variance(j));
    double low = -kLargestCorrelation * unit, high = kLargestCorrelation * unit, at = 0;
    for (int step = 0; step < kSteps; ++step) {
      const auto [score, squares] = evaluate(at);
      (score > 0 ? low : high) = at;
      double next = squares > 0 ? at + score / squares : at;
      if (!(next > low && next < high)) next = 0.5 * (low + high);
      const double change = std::abs(next - at);
      at = next;
      if (change < kSettled * unit) break;
    }
    out_.estimates[out_.first[p_] + k] = at;
    if (counts.size()) {
      std::vector<PairSlope>& table = tables_[k];
      for (int b = 0; b < cols; ++b) {
        for (int a = 0; a < rows; ++a) table.push_back(of_cell(pair, a, b, at, true));
      }
    }
    return std::abs(at) > (kLargestCorrelation - 1e-6) * unit;
  }

  PairSlope fitted(Index r, Index k) const {
    const Pair& pair = pairs_[k];
    if (!tables_[k].empty())
      return tables_[k][category(r, pair.first) + category(r, pair.second) * rows_.categories[pair.first]];
    return pair_slope(r, pair, out_.estimates[out_.first[p_] + k], true);
  }

  // -- scores ----------------------------------------------------------------------------------------------

  // visit(parameter, derivative) for the parameters of variable i.
  template <class Visit>
  void each(Index r, Index i, const RowSlope& s, const Visit& visit) const {
    const Index first = out_.first[i];
    Index slopes = first + 1;
    if (ordered(i)) {
      const int k = category(r, i);
      slopes = first + rows_.categories[i] - 1;
      if (k > 0) visit(first + k - 1, s.lower);
      if (k + 1 < rows_.categories[i]) visit(first + k, s.upper);
    } else {
      visit(first, s.shift);
      visit(first + 1 + q_, s.variance);
    }
    for (Index c = 0; c < q_; ++c) visit(slopes + c, s.shift * rows_.covariates(r, c));
  }

  void products() {
    const Index m = out_.estimates.size();
    const Index count = static_cast<Index>(pairs_.size());
    out_.bread.setZero(m, m);
    out_.meat.setZero(m, m);
    Matrix sums;
    if (!rows_.cluster.empty())
      sums.setZero(1 + *std::max_element(rows_.cluster.begin(), rows_.cluster.end()), m);
    for (Index start = 0; start < n_; start += kChunk) {
      check_interrupt();
      const Index height = std::min(kChunk, n_ - start);
      Matrix scores = Matrix::Zero(height, m);
      in_threads(p_ + count, 0, [&](std::ptrdiff_t piece) {
        for (Index r = 0; r < height; ++r) {
          if (piece < p_)
            score_variable(start + r, piece, scores, r);
          else
            score_pair(start + r, piece - p_, scores, r);
        }
      });
      // products of the scores of a variable with each other
      for (Index i = 0; i < p_; ++i) {
        const Index at = out_.first[i], width = out_.first[i + 1] - at;
        const auto own = scores.middleCols(at, width);
        out_.bread.block(at, at, width, width) +=
            rows_.weight.size() ? weighted_cross(own, rows_.weight.segment(start, height), own)
                                : cross(own, own);
      }
      if (rows_.weight.size()) scores = scale_rows(rows_.weight.segment(start, height), scores);
      if (rows_.cluster.empty()) {
        add_cross(out_.meat, 1, scores, scores);
      } else {
        for (Index r = 0; r < height; ++r) sums.row(rows_.cluster[start + r]) += scores.row(r);
      }
    }
    if (rows_.cluster.empty()) return;
    out_.meat = cross(sums, sums);
    out_.scores = std::move(sums);
  }

  void score_variable(Index r, Index i, Matrix& scores, Index at) {
    if (missing(r, i)) return;
    each(r, i, slope(r, i), [&](Index k, double value) { scores(at, k) += value; });
  }

  // The score of the pair's covariance, and its products with the scores of the same pair for all parameters.
  void score_pair(Index r, Index k, Matrix& scores, Index at) {
    const auto [i, j] = pairs_[k];
    if (missing(r, i) || missing(r, j)) return;
    const PairSlope s = fitted(r, k);
    const Index own = out_.first[p_] + k;
    scores(at, own) = s.covariance;
    const double w = weight(r);
    const auto multiply = [&](Index l, double value) { out_.bread(own, l) += w * s.covariance * value; };
    out_.bread(own, own) += w * s.covariance * s.covariance;
    each(r, i, s.one, multiply);
    each(r, j, s.other, multiply);
  }

  const FirstStageRows& rows_;
  Index p_, q_, n_;
  Matrix shift_, residual_;  // means given covariates (0 without for ordered variables), and what they leave
  std::vector<Pair> pairs_;
  std::vector<std::vector<PairSlope>> tables_;  // of pairs without covariates: by cell
  FirstStage out_;
};

}  // namespace

FirstStage first_stage(const FirstStageRows& rows, const std::vector<Vector>& starts) {
  return Estimation(rows, starts).run();
}

}  // namespace msem
