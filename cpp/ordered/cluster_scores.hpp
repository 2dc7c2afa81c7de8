// Log-likelihoods of clusters with their derivatives, and what an ascent makes of them.
#pragma once

#include "base/linalg.hpp"

namespace msem {

constexpr double kSmallDecrement = 1e-9;  // of the last step: 3e-5 of the standard errors
constexpr int kMostSteps = 200;
constexpr double kDifference = 1e-4;  // in standard deviations, of parameters for differences of scores

// The sum of the log-likelihoods, and their derivatives, a row for each cluster. products: what stands for
// the information; the products of the rows if it is empty. `weight`: how often each cluster counts in sums.
struct ClusterScores {
  explicit ClusterScores(const Vector* weight = nullptr) : weight(weight) {}
  double value = 0;
  Matrix rows, products;
  const Vector* weight;

  Vector sum() const {
    return weight ? apply_transposed(rows, *weight) : Vector(rows.colwise().sum().transpose());
  }
  // Of the first columns with all.
  Matrix products_of(Index first) const {
    const auto own = rows.leftCols(first);
    return weight ? weighted_cross(own, *weight, rows) : cross(own, rows);
  }
  Matrix information() const { return products.size() ? products : products_of(rows.cols()); }
  ClusterScores first_columns(Index m) const {
    ClusterScores out(weight);
    out.value = value;
    out.rows = rows.leftCols(m);
    return out;
  }
};

// The information improved by how the score changed with a step (symmetric rank one). False if it is none
// then.
inline bool update_information(Matrix& information, const Vector& step, const Vector& change) {
  const Vector rest = change - apply(information, step);
  const double size = rest.dot(step);
  if (std::abs(size) > 1e-8 * rest.norm() * step.norm()) add_outer(information, 1 / size, rest, rest);
  return positive_definite(information);
}

}  // namespace msem
