#include "after/influence.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "after/conditional.hpp"
#include "base/threads.hpp"

namespace msem {

namespace {

constexpr int kHalvings = 4;
constexpr double kGain = 1e-9;   // in -2 log L: a step that promises less is the last
constexpr Index kTogether = 64;  // clusters of a kind that one piece of work takes

// Some clusters of a kind, which share what they are solved with.
struct Task {
  Index first, count;
};

std::vector<Task> tasks_of(const std::vector<Index>& order, const std::vector<Index>& kinds) {
  std::vector<Task> out;
  for (Index i = 0; i < static_cast<Index>(order.size()); ++i) {
    const bool same =
        !out.empty() && out.back().count < kTogether && kinds[order[i]] == kinds[order[out.back().first]];
    if (!same) out.push_back({i, 0});
    ++out.back().count;
  }
  return out;
}

// An objective, less that of one of its clusters if there is one.
class OtherClusters {
 public:
  explicit OtherClusters(const Objective& whole, const Objective* cluster = nullptr)
      : whole_(whole), cluster_(cluster) {}
  Evaluation at(const Vector& theta) const {
    Evaluation out = whole_.evaluate(theta);
    if (!cluster_) return out;
    const Evaluation own = cluster_->evaluate(theta);
    out.in_domain = out.in_domain && own.in_domain;
    out.value -= own.value;
    out.gradient -= own.gradient;
    return out;
  }
  const Objective& whole() const { return whole_; }

 private:
  const Objective& whole_;
  const Objective* cluster_;
};

// Steps along -solver * slope in the directions that are free, each halved until it descends; false if the
// first finds nothing lower.
bool descend(const OtherClusters& others, const Directions& free, const Matrix& solver, Vector& theta,
             int corrections) {
  Evaluation now = others.at(theta);
  const Vector start = theta;
  Matrix basis = free.basis;
  for (int count = 0; count <= corrections; ++count) {
    if (count > 0) basis = others.whole().follow(start, theta, free.basis, free.intercepts);
    const Vector slope = apply_transposed(basis, now.gradient);
    Vector step = -0.5 * apply(solver, slope), next;
    Evaluation there;
    for (int halved = 0; halved <= kHalvings; ++halved, step *= 0.5) {
      next = others.whole().settle(theta, apply(basis, step), free.intercepts);
      there = others.at(next);
      if (there.in_domain && !(there.value > now.value)) break;
    }
    if (!there.in_domain || there.value > now.value) return count > 0;
    theta = next;
    if (-step.dot(slope) < kGain) return true;
    now = std::move(there);
  }
  return true;
}

// W where the covariance matrix that it is the inverse of, or the diagonal of that, loses an outer product
// (Sherman & Morrison, 1950); nothing where that is not positive.
Matrix weight_without(const Matrix& weight, const Vector& share, double factor) {
  if (weight.cols() == 1 && weight.rows() != 1) {
    const Vector left = 1 - weight.col(0).array() * share.array().square();
    if (!(left.minCoeff() > kSingular)) return {};
    return factor * weight.col(0).cwiseQuotient(left);
  }
  const Vector reach = apply(weight, share);
  const double left = 1 - share.dot(reach);
  if (!(left > kSingular)) return {};
  Matrix out = weight;
  add_outer(out, 1 / left, reach, reach);
  return factor * out;
}

// Information of all units but one about the moments that are used; nothing outside the domain.
Matrix information_without(const SaturatedWeights& w, Index at) {
  const Objective own = of_cluster(w.model, 0, w.clusters, w.chosen[at]);
  const Vector moments = w.moments.row(at);
  const Matrix all =
      w.observed ? w.model.observed_information(moments) : w.model.expected_information(moments);
  const Matrix part = w.observed ? own.observed_information(moments) : own.expected_information(moments);
  if (!all.size() || !part.size()) return {};
  const Matrix out = select(all, w.used, w.used) - select(part, w.used, w.used);
  return positive_definite(out) ? out : Matrix();
}

}  // namespace

Objective of_cluster(const Objective& whole, int group, const Clusters& clusters, Index j) {
  const Group& g = whole.groups()[group];
  std::vector<Block> blocks;
  std::vector<int> levels;
  for (const int b : g.levels) {
    levels.push_back(static_cast<int>(blocks.size()));
    blocks.push_back(whole.blocks()[b]);
  }
  return Objective(whole.npar(), std::move(blocks), {{clusters.alone(j), levels}});
}

LeaveOneOutSteps leave_one_out_steps(const Objective& objective, const Vector& theta, const Directions& free,
                                     const Clusters& clusters, const std::vector<Index>& chosen, int group,
                                     int corrections, int threads) {
  const std::vector<Index> all = clusters.kinds();
  std::vector<Index> kinds, order(chosen.size());
  for (const Index j : chosen) kinds.push_back(all.at(j));
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return kinds[a] < kinds[b]; });
  const std::vector<Task> tasks = tasks_of(order, kinds);
  objective.groups().at(group);
  const Matrix information = objective.observed_information_in(theta, free.basis);
  if (!information.size() && free.basis.cols())
    throw std::domain_error("the implied moments are not a distribution");
  const double value = objective.value(theta), nan = std::numeric_limits<double>::quiet_NaN();
  const Index total = static_cast<Index>(chosen.size());
  LeaveOneOutSteps out{Matrix::Constant(total, objective.npar(), nan), Vector::Constant(total, nan)};
  in_threads(static_cast<Index>(tasks.size()), threads, [&](Index t) {
    ScaledInverse inverse;  // of T'(I - I_j) T
    for (Index i = tasks[t].first; i < tasks[t].first + tasks[t].count; ++i) {
      const Index at = order[i];
      const Objective cluster = of_cluster(objective, group, clusters, chosen[at]);
      if (i == tasks[t].first) {
        const Matrix factor = product(cluster.information_factor(theta), free.basis);
        inverse = scaled_inverse(information - cross(factor, factor));
      }
      Vector moved = theta;
      if (!(inverse.pivot > kSingular)) continue;
      if (!descend(OtherClusters(objective, &cluster), free, inverse.inverse, moved, corrections)) continue;
      out.change.row(at) = moved - theta;
      out.displacement[at] = objective.value(moved) - value;
    }
  });
  return out;
}

LeaveOneOutSteps leave_one_out_statistics(const Objective& objective, const Vector& theta,
                                          const Directions& free, const LeastSquares& loss,
                                          const StatisticsWithout& without, const SaturatedWeights* weights,
                                          int group, int corrections, int threads) {
  const Index total = without.values.rows();
  const ScaledInverse inverse = scaled_inverse(objective.observed_information_in(theta, free.basis));
  const double value = objective.value(theta), nan = std::numeric_limits<double>::quiet_NaN();
  LeaveOneOutSteps out{Matrix::Constant(total, objective.npar(), nan), Vector::Constant(total, nan)};
  if (free.basis.cols() && !(inverse.pivot > kSingular)) return out;
  in_threads(total, threads, [&](Index i) {
    if (!without.values.row(i).allFinite()) return;
    const Matrix weight = weights ? information_without(*weights, i)
                          : without.shares.rows()
                              ? weight_without(loss.weight(), without.shares.row(i), without.factor[i])
                              : Matrix(without.factor[i] * loss.weight());
    if (!weight.size()) return;
    std::vector<Group> groups = objective.groups();
    groups[group].likelihood = std::make_shared<LeastSquares>(
        loss.layout(), loss.statistics(), without.values.row(i), weight, loss.given(), loss.ordered());
    const Objective others(objective.npar(), objective.blocks(), std::move(groups), objective.terms());
    Vector moved = theta;
    if (!descend(OtherClusters(others), free, inverse.inverse, moved, corrections)) return;
    out.change.row(i) = moved - theta;
    out.displacement[i] = objective.value(moved) - value;
  });
  return out;
}

}  // namespace msem
