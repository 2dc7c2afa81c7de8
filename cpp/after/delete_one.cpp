#include "after/delete_one.hpp"

#include <stdexcept>

#include "after/influence.hpp"
#include "base/interrupt.hpp"
#include "base/threads.hpp"

namespace msem {

namespace {

// Of the information along any direction, the share that is left without a unit, at least: where little is
// left the step would be many times what a refit takes.
constexpr double kLeft = 0.25;

// A cluster by its group and number there.
struct Member {
  int group;
  Index cluster;
};

// By a matrix whose eigenvalues count as kLeft at least.
Vector divided(const Matrix& left, const Vector& x) {
  Matrix beyond = left;
  beyond.diagonal().array() -= kLeft;
  Cholesky chol;
  if (chol.compute(beyond) && chol.compute(left)) return chol.solve(x);  // all are more
  const SymmetricEigen eigen(left);
  Vector along = apply_transposed(eigen.vectors, x);
  along.array() /= eigen.values.array().max(kLeft);
  return apply(eigen.vectors, along);
}

}  // namespace

Matrix delete_one_steps(const Objective& objective, const Vector& theta, const Matrix& basis,
                        const std::vector<SampledClusters>& groups, Index count) {
  if (groups.size() != objective.groups().size())
    throw std::invalid_argument("every group needs its clusters");
  std::vector<std::vector<Member>> members(count);
  std::vector<Matrix> scores;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const SampledClusters& own = groups[g];
    const Index total = own.clusters->count();
    if (own.weights.size() != total || static_cast<Index>(own.units.size()) != total)
      throw std::invalid_argument("every cluster needs a weight and a unit");
    for (Index j = 0; j < total; ++j) members.at(own.units[j]).push_back({static_cast<int>(g), j});
    const Matrix of_theta = objective.scores(theta, *own.clusters, static_cast<int>(g));
    if (of_theta.rows() != total) throw std::domain_error("the implied moments are not a distribution");
    scores.push_back(product(of_theta, basis));
  }
  const Matrix information = objective.observed_information_in(theta, basis);
  if (!information.size() && basis.cols())
    throw std::domain_error("the implied moments are not a distribution");
  Cholesky whole;
  if (basis.cols() && !whole.compute(information)) return {};
  Matrix out = Matrix::Zero(count, objective.npar());
  if (!basis.cols()) return out;
  in_threads(count, 0, [&](Index c) {
    check_interrupt();
    Matrix left = information;
    Vector score = Vector::Zero(basis.cols());
    for (const Member& one : members[c]) {
      const SampledClusters& own = groups[one.group];
      const double weight = own.weights[one.cluster];
      const Objective cluster = of_cluster(objective, one.group, *own.clusters, one.cluster);
      left -= weight * sandwich(basis, cluster.observed_information(theta));
      score += weight * scores[one.group].row(one.cluster).transpose();
    }
    Matrix reduced = whole.whiten(whole.whiten(left).transpose());
    symmetrise(reduced);
    const Vector along = divided(reduced, whole.whiten(score));
    out.row(c) = -apply(basis, whole.whiten_transposed(along)).transpose();
  });
  return out;
}

}  // namespace msem
