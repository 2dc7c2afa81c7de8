#include "after/influence.hpp"

#include <limits>
#include <map>
#include <stdexcept>

#include "base/threads.hpp"

namespace msem {

namespace {

constexpr int kHalvings = 4;
constexpr double kGain = 1e-9;       // in -2 log L: a step that promises less is the last
constexpr double kSingular = 1e-12;  // squared pivot in correlation metric

// The likelihood of one group by itself, for statistics that are given later.
class GroupObjective {
 public:
  GroupObjective(const Objective& whole, int group) : npar_(whole.npar()) {
    const Group& g = whole.groups().at(group);
    const auto* loss = dynamic_cast<const TwoLevelLoss*>(g.loss.get());
    if (!loss) throw std::invalid_argument("influence needs a two-level likelihood");
    p_ = loss->data().p;
    q_ = loss->data().q;
    nboth_ = loss->nboth();
    if (g.within >= 0) {
      blocks_.push_back(whole.blocks()[g.within]);
      within_ = 0;
    }
    between_ = static_cast<int>(blocks_.size());
    blocks_.push_back(whole.blocks()[g.between]);
  }
  // The likelihood of cluster j; of its rows, taken as independent, for a single level.
  Objective of_cluster(const ClusterData& clusters, Index j) const {
    const Index m = p_ + q_;
    const bool rows = p_ == 0;
    Matrix scatter = Matrix::Zero(m * m, 1);
    if (rows && clusters.within.cols()) slice(scatter, 0, m, m) = unpack_lower(clusters.within, j, m);
    TwoLevelData data(nboth_, unpack_lower(clusters.within, j, p_),
                      Vector::Constant(1, rows ? 1.0 : clusters.sizes[j]),
                      Vector::Constant(1, rows ? clusters.sizes[j] : 1.0), clusters.means.row(j), scatter);
    return Objective(npar_, blocks_, {{std::make_shared<TwoLevelLoss>(std::move(data)), within_, between_}});
  }
  void require(const ClusterData& clusters) const {
    const Index total = clusters.sizes.size(), packed = clusters.within.cols();
    const bool means = clusters.means.rows() == total && clusters.means.cols() == p_ + q_;
    const bool within = packed == p_ * (p_ + 1) / 2 || (p_ == 0 && packed == q_ * (q_ + 1) / 2);
    if (!means || clusters.within.rows() != total || !within)
      throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  }

 private:
  int npar_;
  Index p_, q_, nboth_;
  std::vector<Block> blocks_;
  int within_ = -1, between_ = 0;
};

// The likelihood of one cluster with holes; `g` is its group in the whole.
Objective of_incomplete(const Objective& whole, const Group& g, IncompleteData cluster) {
  const bool by_row = g.within < 0 && cluster.p > 0;  // rows of a single level that are taken together
  const auto loss = std::make_shared<MissingLoss>(std::make_shared<const IncompleteData>(std::move(cluster)));
  std::vector<Block> blocks;
  if (g.within >= 0) blocks.push_back(whole.blocks()[g.within]);
  blocks.push_back(whole.blocks()[g.between]);
  if (by_row) blocks.push_back(Block(0, 0, {}));
  const int last = static_cast<int>(blocks.size()) - 1;
  return Objective(whole.npar(), std::move(blocks), {{loss, last - 1, last}});
}

// The likelihood of all clusters but one.
class Others {
 public:
  Others(const Objective& whole, const Objective& cluster) : whole_(whole), cluster_(cluster) {}
  Evaluation at(const Vector& theta) const {
    Evaluation out = whole_.evaluate(theta);
    const Evaluation own = cluster_.evaluate(theta);
    out.in_domain = out.in_domain && own.in_domain;
    out.value -= own.value;
    out.gradient -= own.gradient;
    return out;
  }
  const Objective& whole() const { return whole_; }

 private:
  const Objective& whole_;
  const Objective& cluster_;
};

// Steps along -solver * slope in the directions that are free, each halved until it descends; false if the
// first finds nothing lower.
bool descend(const Others& others, const Directions& free, const Matrix& solver, Vector& theta,
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

}  // namespace

LeaveOneOutSteps leave_one_out_steps(const Objective& objective, const Vector& theta, const Directions& free,
                                     const ClusterData& clusters, int group, int corrections, int threads) {
  const GroupObjective own(objective, group);
  own.require(clusters);
  const Matrix information = objective.observed_information_in(theta, free.basis);
  if (!information.size() && free.basis.cols())
    throw std::domain_error("the implied moments are not a distribution");
  const double value = objective.value(theta), nan = std::numeric_limits<double>::quiet_NaN();
  const Index total = clusters.sizes.size();
  std::map<double, Matrix> solvers;  // (T'(I - I_n) T)^-1 by n, empty where there is none
  for (Index j = 0; j < total; ++j) {
    const auto [solver, fresh] = solvers.try_emplace(clusters.sizes[j]);
    if (!fresh) continue;
    const Matrix factor = product(own.of_cluster(clusters, j).information_factor(theta), free.basis);
    const ScaledInverse inverse = scaled_inverse(information - cross(factor, factor));
    if (inverse.pivot > kSingular) solver->second = inverse.inverse;
  }
  LeaveOneOutSteps out{Matrix::Constant(total, objective.npar(), nan), Vector::Constant(total, nan)};
  in_threads(total, threads, [&](Index j) {
    const Matrix& solver = solvers.at(clusters.sizes[j]);
    const Objective cluster = own.of_cluster(clusters, j);
    Vector moved = theta;
    if (!solver.size() || !descend({objective, cluster}, free, solver, moved, corrections)) return;
    out.change.row(j) = moved - theta;
    out.displacement[j] = objective.value(moved) - value;
  });
  return out;
}

LeaveOneOutSteps leave_one_out_steps(const Objective& objective, const Vector& theta, const Directions& free,
                                     const IncompleteData& data, const Matrix& products,
                                     const std::vector<Index>& clusters, int group, int corrections,
                                     int threads) {
  const Group& own = objective.groups().at(group);
  const Matrix information = objective.observed_information_in(theta, free.basis);
  if (!information.size() && free.basis.cols())
    throw std::domain_error("the implied moments are not a distribution");
  const double value = objective.value(theta), nan = std::numeric_limits<double>::quiet_NaN();
  const Index total = static_cast<Index>(clusters.size());
  LeaveOneOutSteps out{Matrix::Constant(total, objective.npar(), nan), Vector::Constant(total, nan)};
  in_threads(total, threads, [&](Index j) {
    const Objective cluster = of_incomplete(objective, own, single_cluster(data, products, clusters[j]));
    const Matrix factor = product(cluster.information_factor(theta), free.basis);
    const ScaledInverse inverse = scaled_inverse(information - cross(factor, factor));
    Vector moved = theta;
    if (!(inverse.pivot > kSingular)) return;
    if (!descend({objective, cluster}, free, inverse.inverse, moved, corrections)) return;
    out.change.row(j) = moved - theta;
    out.displacement[j] = objective.value(moved) - value;
  });
  return out;
}

}  // namespace msem
