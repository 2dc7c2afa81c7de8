#include "ordered/two_levels.hpp"

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "ordered/marginal.hpp"
#include "ordered/pair.hpp"

namespace msem {

namespace {

constexpr double kNear = 1e-3;      // decrement while nodes are few, and error of values then
constexpr double kNewton = 1e-6;    // and before the last step of those that square it
constexpr double kSettled = 1e-10;  // decrement where the scores are those of the maximum
constexpr double kSteepest = 0.9;   // correlation from which a distribution is a ridge
constexpr double kRidge = 1e-4;     // decrement to look at it more closely
constexpr double kCloser = 0.5;     // least share of 1 - r^2 that a step may leave

// The information about the parameters of a pair: less their second derivatives, where there are any and they
// have a maximum before them, else products of scores.
Matrix pair_information(const ClusterScores& at, Index m) {
  if (at.products.size() && positive_definite(at.products)) return at.products;
  return at.products_of(m).leftCols(m);
}

// A step may not leave the correlations much closer to 1 than nodes are fit for: where the distribution is
// far narrower than they are apart, a node that happens to lie on it makes a maximum of its own.
bool near(const Vector& from, const Vector& to, const Vector& limits) {
  for (Index k = 0; k < to.size(); ++k) {
    const double before = from[k] / limits[k], after = to[k] / limits[k];
    if (!(std::abs(after) <= kLargestCorrelation) || 1 - after * after < kCloser * (1 - before * before))
      return false;
  }
  return true;
}

// Ascends with nodes that are placed anew after every step: few of them at first, all of them at the end,
// where `last` are the scores for all parameters. False if nothing is known about a parameter.
bool ascend(PairLikelihood& pair, Vector& theta, ClusterScores& last) {
  const Index m = pair.count();
  Nodes nodes = Nodes::kRough;
  bool refined = false;
  const auto at = [&](const Vector& here) { return pair.at(here, nodes, nodes == Nodes::kFinal); };
  ClusterScores now = at(theta);
  pair.accept();
  Matrix information = pair_information(now, m);
  for (int step = 0; step < kMostSteps; ++step) {
    check_interrupt();
    const Vector gradient = now.sum().head(m);
    const ScaledInverse inverse = scaled_inverse(information);
    if (!(inverse.pivot > 0)) return false;
    const Vector change = apply(inverse.inverse, gradient);
    const double decrement = gradient.dot(change);
    const bool rough = nodes == Nodes::kRough, final = nodes == Nodes::kFinal;
    if (final && decrement < kRidge && !refined &&
        theta.cwiseQuotient(pair.limits()).cwiseAbs().maxCoeff() > kSteepest) {
      refined = true;
      pair.refine();
      now = at(theta);
      pair.accept();
      information = pair_information(now, m);
      continue;
    }
    if (final && decrement < kSettled) {
      last = std::move(now);
      if (near(theta, theta + change, pair.limits())) theta += change;
      return true;
    }
    const bool finer = !final && decrement < (rough                 ? kNear
                                              : now.products.size() ? kNewton
                                                                    : kSmallDecrement);
    if (finer) nodes = rough ? Nodes::kClose : Nodes::kFinal;
    // values at different nodes differ by the errors of the quadrature
    const double slack = rough || finer ? kNear : 1e-7;
    const int halves = decrement < kNear ? 3 : 30;
    double size = 1;
    bool moved = false;
    for (int half = 0; half < halves && !moved; ++half, size *= 0.5) {
      const Vector next = theta + size * change;
      if (!near(theta, next, pair.limits())) continue;
      ClusterScores there = at(next);
      if (!(there.value >= now.value - slack - 1e-12 * std::abs(now.value))) continue;
      if (there.products.size())
        information = pair_information(there, m);
      else if (!finer && !update_information(information, next - theta, gradient - there.sum().head(m)))
        information = pair_information(there, m);
      theta = next;
      now = std::move(there);
      moved = true;
      // nodes stay where they are for the last steps, whose values are then of one function
      if (finer || decrement > kNear) pair.accept();
    }
    if (moved) continue;
    if (final && !finer && refined) break;
    if (final && !finer) {
      refined = true;
      pair.refine();
    }
    nodes = Nodes::kFinal;
    now = at(theta);
    pair.accept();
    information = pair_information(now, m);
  }
  if (nodes != Nodes::kFinal) {
    nodes = Nodes::kFinal;
    now = at(theta);
  }
  last = std::move(now);
  return true;
}

// Rows of the information for the parameters of a pair, columns for all it knows, by differences of scores.
Matrix curvature(PairLikelihood& pair, const Vector& theta, Index width) {
  Matrix out(pair.count(), width);
  for (Index k = 0; k < pair.count(); ++k) {
    const double limit = pair.limits()[k], room = 1 - std::abs(theta[k]) / limit;
    const double h = std::min(kDifference, 0.5 * room) * limit;
    Vector up = theta, down = theta;
    up[k] += h;
    down[k] -= h;
    const Vector above = pair.at(up, Nodes::kFinal, true).sum(),
                 below = pair.at(down, Nodes::kFinal, true).sum();
    out.row(k) = ((below - above) / (2 * h)).transpose();
  }
  return out;
}

class TwoLevels {
 public:
  TwoLevels(const OrderedClusterRows& rows, const std::vector<Vector>& starts)
      : variables_(rows, starts), starts_(starts) {
    Index at = 0;
    for (Index i = 0; i < variables_.size(); ++i) {
      out_.first.push_back(at);
      at += variables_[i].width;
    }
    out_.first.push_back(at);
    for (Index j = 0; j < variables_.size(); ++j) {
      for (Index i = j + 1; i < variables_.size(); ++i) {
        pairs_.push_back({i, j, at});
        at += pair_parameters(variables_[i], variables_[j]);
      }
    }
    out_.estimates.setZero(at);
    out_.bread.setZero(at, at);
    scores_.setZero(variables_.nclusters(), at);
  }

  FirstStage run() {
    const Index p = variables_.size(), count = static_cast<Index>(pairs_.size());
    std::vector<char> settled(p, 1);
    in_threads(p, 0, [&](std::ptrdiff_t i) { settled[i] = estimate(i); });
    for (Index i = 0; i < p; ++i) {
      if (!settled[i]) out_.unsettled.push_back(i);
    }
    if (!out_.unsettled.empty()) return std::move(out_);
    std::vector<char> state(count, kFound);
    in_threads(count, 0, [&](std::ptrdiff_t k) { state[k] = estimate(pairs_[k]); });
    for (Index k = 0; k < count; ++k) {
      if (state[k] == kAtBound) out_.at_bound.push_back(k);
      if (state[k] == kUnknown) out_.unknown.push_back(k);
    }
    if (variables_.weights()) scores_ = scale_rows(*variables_.weights(), scores_);
    out_.meat = cross(scores_, scores_);
    out_.scores = std::move(scores_);
    return std::move(out_);
  }

 private:
  enum State : char { kFound, kAtBound, kUnknown };

  struct Place {
    Index i, j, at;  // two variables; the first of their parameters among all
  };

  bool estimate(Index i) {
    ClusterVariable& v = variables_[i];
    const Marginal found = estimate_marginal(variables_, v, starts_[i]);
    const Index at = out_.first[i];
    out_.estimates.segment(at, v.width) = v.estimates;
    out_.bread.block(at, at, v.width, v.width) = found.bread;
    scores_.middleCols(at, v.width) = found.scores;
    return found.found;
  }

  State estimate(const Place& place) {
    const ClusterVariable &i = variables_[place.i], &j = variables_[place.j];
    const std::unique_ptr<PairLikelihood> pair = pair_likelihood(variables_, i, j);
    const Index m = pair->count();
    if (!m) return kFound;
    Vector theta = pair->start();
    ClusterScores last;
    if (!ascend(*pair, theta, last)) return kUnknown;
    const Matrix products =
        variables_.weighted_rows() ? curvature(*pair, theta, last.rows.cols()) : last.products_of(m);
    out_.estimates.segment(place.at, m) = theta;
    scores_.middleCols(place.at, m) = last.rows.leftCols(m);
    out_.bread.block(place.at, place.at, m, m) = products.leftCols(m);
    out_.bread.block(place.at, out_.first[place.i], m, i.width) = products.middleCols(m, i.width);
    out_.bread.block(place.at, out_.first[place.j], m, j.width) = products.middleCols(m + i.width, j.width);
    const double largest = theta.cwiseQuotient(pair->limits()).cwiseAbs().maxCoeff();
    return largest > kLargestCorrelation - 1e-3 ? kAtBound : kFound;
  }

  ClusterVariables variables_;
  const std::vector<Vector>& starts_;
  std::vector<Place> pairs_;
  Matrix scores_;  // of clusters, for all parameters
  FirstStage out_;
};

}  // namespace

FirstStage two_level_first_stage(const OrderedClusterRows& rows, const std::vector<Vector>& starts) {
  return TwoLevels(rows, starts).run();
}

}  // namespace msem
