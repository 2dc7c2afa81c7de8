#include "fit/covariance.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

namespace msem {

namespace {

constexpr double kDependentRow = 1e-10;  // of rows of unit length: below it a row depends on others
constexpr double kInvolved = 0.05;       // share in a null direction from which a parameter is named
// Squared pivots of an information matrix in correlation metric:
constexpr double kFactoredBelow = 1e-8;   // below it the factored form of the expected information is used
constexpr double kSafePivot = 1e-4;       // of observed information: above it the expected is not asked
constexpr double kSingularPivot = 1e-10;  // below it a matrix is not positive definite

bool is_identity(const Matrix& t) { return t.rows() == t.cols() && t.isIdentity(0); }

Matrix along(const Matrix& matrix, const Matrix& t) { return is_identity(t) ? matrix : sandwich(t, matrix); }

Matrix expected(const Objective& objective, const Vector& theta, const ObjectivePoint* at) {
  return at ? objective.expected_information(*at) : objective.expected_information(theta);
}

Matrix observed(const Objective& objective, const Vector& theta, const ObjectivePoint* at) {
  return at ? objective.observed_information(*at, {}) : objective.observed_information(theta);
}

bool none_in_row(const Matrix& a, Index row) {
  for (Index j = 0; j < a.cols(); ++j) {
    if (a(row, j) != 0) return false;
  }
  return true;
}

// 1 / x; `otherwise` where x is not positive.
Vector reciprocal(Vector x, double otherwise) {
  for (double& v : x) v = v > 0 ? 1 / v : otherwise;
  return x;
}

// Standard errors of the parameters with all others known; 1 where there is no information.
Vector conditional_errors(const Objective& objective, const Vector& theta) {
  Vector out = objective.expected_information(theta).diagonal();
  for (double& v : out) v = v > 0 ? 1 / std::sqrt(v) : 1.0;
  return out;
}

// Parameters that could not move, but for those that equality constraints determine, which have no error.
std::vector<int> immovable(const Constraints& constraints, const Vector& theta, const Matrix& tangent) {
  std::vector<int> out;
  for (Index k = 0; k < theta.size(); ++k) {
    if (none_in_row(tangent, k)) out.push_back(static_cast<int>(k));
  }
  if (constraints.none() || out.empty()) return out;
  const Matrix free = elimination_basis(constraints.equalities.jacobian(theta), Vector::Ones(theta.size()));
  out.erase(std::remove_if(out.begin(), out.end(), [&](int k) { return none_in_row(free, k); }), out.end());
  return out;
}

}  // namespace

Matrix elimination_basis(const Matrix& rows, const Vector& sizes) {
  const Index n = rows.cols();
  // Transposed, so that a row of the equations is a column of memory.
  Matrix left(n, rows.rows());
  Index count = 0;
  for (Index i = 0; i < rows.rows(); ++i) {
    const Vector row = rows.row(i).transpose();
    const double norm = row.cwiseProduct(sizes).norm();
    if (norm > 0) left.col(count++) = row / norm;
  }
  std::vector<Index> pivots;
  for (Index k = 0; k < std::min(count, n); ++k) {
    Index row = k, col = 0;
    double most = -1;
    for (Index i = k; i < count; ++i) {
      for (Index j = 0; j < n; ++j) {
        const double part = std::abs(left(j, i) * sizes[j]);
        if (part > most) {
          most = part;
          row = i;
          col = j;
        }
      }
    }
    if (!(most > kDependentRow)) break;
    left.col(k).swap(left.col(row));
    left.col(k) /= left(col, k);
    for (Index i = 0; i < count; ++i) {
      if (i != k) left.col(i) -= left(col, i) * left.col(k);
    }
    pivots.push_back(col);
  }
  std::vector<Index> free;
  for (Index j = 0; j < n; ++j) {
    if (std::find(pivots.begin(), pivots.end(), j) == pivots.end()) free.push_back(j);
  }
  Matrix basis = Matrix::Zero(n, static_cast<Index>(free.size()));
  for (std::size_t j = 0; j < free.size(); ++j) {
    basis(free[j], j) = 1;
    for (std::size_t i = 0; i < pivots.size(); ++i) basis(pivots[i], j) = -left(free[j], i);
  }
  return basis;
}

Matrix tangent(const Objective& objective, const Constraints& constraints, const Vector& theta,
               const std::vector<int>& active, const std::vector<int>& active_inequalities) {
  const Index n = theta.size();
  std::vector<Index> moving;
  for (Index k = 0; k < n; ++k) {
    if (!active[k]) moving.push_back(k);
  }
  const Matrix identity = select_cols(Matrix::Identity(n, n), moving);
  if (constraints.none()) return identity;
  const Matrix equal = constraints.equalities.jacobian(theta);
  const Matrix unequal = select_rows(constraints.inequalities.jacobian(theta), active_inequalities);
  Matrix rows(equal.rows() + unequal.rows(), n);
  rows.topRows(equal.rows()) = equal;
  rows.bottomRows(unequal.rows()) = unequal;
  const Vector sizes = conditional_errors(objective, theta);
  return product(identity, elimination_basis(select_cols(rows, moving), select(sizes, moving)));
}

double remaining_gain(const Objective& objective, const Matrix& tangent, const Vector& theta,
                      const Vector& gradient) {
  if (tangent.cols() == 0) return 0;
  const Matrix factor = product(objective.information_factor(theta), tangent);
  const Vector scale = reciprocal(column_norms(factor), 0);
  const Vector slope = scale.cwiseProduct(apply_transposed(tangent, gradient));
  return shortest_solution(scale_cols(factor, scale).transpose(), slope, kRankTolerance).squaredNorm() / 4;
}

Whitening whitening_basis(const Matrix& factor) {
  const Vector scale = reciprocal(column_norms(factor), 0);
  const auto [singular, right] = RightSingular(scale_cols(factor, scale));
  // A covariate with mean 1e8 gives a singular value of 1e-8, which the QR factorisation still resolves.
  Index rank = 0;
  while (rank < singular.size() && singular[rank] > kRankTolerance * singular[0]) ++rank;
  Whitening out;
  out.basis = scale_cols(scale_rows(scale, right.leftCols(rank)), reciprocal(singular.head(rank), 0));
  Vector sizes = scale;
  for (double& v : sizes) v = v > 0 ? v : 1.0;
  out.null = scale_rows(sizes, right.rightCols(right.cols() - rank));
  return out;
}

namespace {

// A tangent less what the information cannot tell; `at` is what is known of theta already.
struct IdentifiedDirections {
  Matrix basis;                   // columns of the tangent, or a basis in which the expected information is 1
  Matrix inverse;                 // of the expected information over it
  std::vector<int> unidentified;  // parameters with a part in what is not identified
  std::vector<int> immovable;     // at bounds; not those that equality constraints determine
  bool whitened = false;          // the expected information was close to singular, and the factor was used
};

IdentifiedDirections identified_directions(const Objective& objective, const Constraints& constraints,
                                           const Vector& theta, const Matrix& tangent,
                                           const ObjectivePoint* at) {
  IdentifiedDirections out;
  out.immovable = immovable(constraints, theta, tangent);
  out.basis = tangent;
  out.inverse = Matrix::Zero(tangent.cols(), tangent.cols());
  if (tangent.cols() == 0) return out;
  const ScaledInverse found = scaled_inverse(along(expected(objective, theta, at), tangent));
  if (found.pivot > kFactoredBelow) {
    out.inverse = found.inverse;
    return out;
  }
  const Matrix factor = objective.information_factor(theta);
  const Whitening white = whitening_basis(product(factor, tangent));
  out.whitened = true;
  out.basis = product(tangent, white.basis);
  out.inverse = Matrix::Identity(out.basis.cols(), out.basis.cols());
  const Matrix null = product(tangent, white.null);
  for (Index k = 0; k < null.rows(); ++k) {
    const double norm = factor.col(k).norm();
    Vector part = null.row(k).transpose();
    for (double& x : part) x = norm == 0 && x != 0 ? 1.0 : norm * x;  // 1: no information at all
    if (part.norm() > kInvolved) out.unidentified.push_back(static_cast<int>(k));
  }
  return out;
}

}  // namespace

InverseInformation inverse_information(const Objective& objective, const Constraints& constraints,
                                       const Vector& theta, const Matrix& tangent, ErrorKind kind,
                                       const ObjectivePoint* at) {
  InverseInformation out;
  out.basis = tangent;
  if (tangent.cols() && kind == ErrorKind::kObserved) {
    ScaledInverse found = scaled_inverse(along(observed(objective, theta, at), tangent));
    if (found.pivot > kSafePivot) {
      out.inverse = std::move(found.inverse);
      out.immovable = immovable(constraints, theta, tangent);
      return out;
    }
  }
  IdentifiedDirections directions = identified_directions(objective, constraints, theta, tangent, at);
  out.basis = std::move(directions.basis);
  out.inverse = std::move(directions.inverse);
  out.unidentified = std::move(directions.unidentified);
  out.immovable = std::move(directions.immovable);
  if (kind != ErrorKind::kObserved || !tangent.cols()) return out;
  ScaledInverse found =
      scaled_inverse(directions.whitened ? objective.observed_information_in(theta, out.basis)
                                         : along(observed(objective, theta, at), out.basis));
  out.positive_definite = found.pivot > kSingularPivot;
  if (out.positive_definite) {
    out.inverse = std::move(found.inverse);
  } else {
    out.inverse.setConstant(out.basis.cols(), out.basis.cols(), kNaN);
  }
  return out;
}

SamplingCovariance sampling_covariance(const Objective& objective, const Constraints& constraints,
                                       const Vector& theta, const Matrix& tangent, ErrorKind kind,
                                       const ObjectivePoint* at) {
  const Index n = theta.size();
  const InverseInformation found = inverse_information(objective, constraints, theta, tangent, kind, at);
  SamplingCovariance out;
  out.unidentified = found.unidentified;
  out.positive_definite = found.positive_definite;
  if (kind == ErrorKind::kNone) {
    out.vcov.setConstant(n, n, kNaN);
    return out;
  }
  out.vcov = is_identity(found.basis) ? found.inverse : outer_sandwich(found.basis, found.inverse);
  for (const std::vector<int>* none : {&found.immovable, &found.unidentified}) {
    for (const int k : *none) {
      out.vcov.row(k).setConstant(kNaN);
      out.vcov.col(k).setConstant(kNaN);
    }
  }
  return out;
}

}  // namespace msem
