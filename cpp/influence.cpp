#include "influence.hpp"

#include <limits>
#include <map>
#include <stdexcept>

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
  Objective of_cluster(const ClusterData& clusters, Index j) const {
    const Index m = p_ + q_;
    const Vector size = Vector::Constant(1, clusters.sizes[j]);
    TwoLevelData data(nboth_, unpack_lower(clusters.within, j, p_), size, Vector::Ones(1),
                      clusters.means.row(j), Matrix::Zero(m * m, 1));
    return Objective(npar_, blocks_, {{std::make_shared<TwoLevelLoss>(std::move(data)), within_, between_}});
  }
  void require(const ClusterData& clusters) const {
    const Index total = clusters.sizes.size();
    const bool means = clusters.means.rows() == total && clusters.means.cols() == p_ + q_;
    if (!means || clusters.within.rows() != total || clusters.within.cols() != p_ * (p_ + 1) / 2)
      throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  }

 private:
  int npar_;
  Index p_, q_, nboth_;
  std::vector<Block> blocks_;
  int within_ = -1, between_ = 0;
};

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

 private:
  const Objective& whole_;
  const Objective& cluster_;
};

// Steps along -solver * gradient, each halved until it descends; false if the first finds nothing lower.
bool descend(const Others& others, const Matrix& solver, Vector& theta, int corrections) {
  Evaluation now = others.at(theta);
  for (int count = 0; count <= corrections; ++count) {
    Vector step = -0.5 * solver * now.gradient;
    Evaluation there;
    for (int halved = 0; halved <= kHalvings; ++halved, step *= 0.5) {
      there = others.at(theta + step);
      if (there.in_domain && !(there.value > now.value)) break;
    }
    if (!there.in_domain || there.value > now.value) return count > 0;
    theta += step;
    if (-step.dot(now.gradient) < kGain) return true;
    now = std::move(there);
  }
  return true;
}

}  // namespace

LeaveOneOutSteps leave_one_out_steps(const Objective& objective, const Vector& theta, const Matrix& tangent,
                                     const ClusterData& clusters, int group, int corrections) {
  const GroupObjective own(objective, group);
  own.require(clusters);
  if (tangent.rows() != objective.npar())
    throw std::invalid_argument("the basis must have one row per parameter");
  const Matrix information = objective.observed_information(theta);
  if (!information.size()) throw std::domain_error("the implied moments are not a distribution");
  const double value = objective.value(theta), nan = std::numeric_limits<double>::quiet_NaN();
  const Index total = clusters.sizes.size();
  LeaveOneOutSteps out{Matrix::Constant(total, objective.npar(), nan), Vector::Constant(total, nan)};
  std::map<double, Matrix> solvers;  // T (T'(I - I_n) T)^-1 T' by n, empty where there is none
  for (Index j = 0; j < total; ++j) {
    const Objective cluster = own.of_cluster(clusters, j);
    auto found = solvers.find(clusters.sizes[j]);
    if (found == solvers.end()) {
      const Matrix rest = information - cluster.expected_information(theta);
      const ScaledInverse inverse = scaled_inverse(tangent.transpose() * rest * tangent);
      Matrix solver;
      if (inverse.pivot > kSingular) solver = tangent * inverse.inverse * tangent.transpose();
      found = solvers.emplace(clusters.sizes[j], std::move(solver)).first;
    }
    Vector moved = theta;
    if (!found->second.size() || !descend({objective, cluster}, found->second, moved, corrections)) continue;
    out.change.row(j) = moved - theta;
    out.displacement[j] = objective.value(moved) - value;
  }
  return out;
}

}  // namespace msem
