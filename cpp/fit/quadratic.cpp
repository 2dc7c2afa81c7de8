#include "fit/quadratic.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace msem {

namespace {

constexpr double kRank = 1e-10;       // relative, of rows of unit length
constexpr double kPivot = 1e-13;      // of a Hessian in correlation metric: below it there is no curvature
constexpr double kDependent = 1e-10;  // length that is left of a unit normal when it depends on others
constexpr double kSatisfied = 1e-12;  // violation that counts as none, relative to the point
constexpr double kElastic = 1e-4;     // length of the slack in a row: its price is the inverse square

// Rows of unit length; rows of zeros stay.
struct UnitRows {
  Matrix rows;
  Vector values, factor;
  UnitRows(const Matrix& a, const Vector& b) : rows(a), values(b) {
    factor = a.rowwise().norm().unaryExpr([](double x) { return x > 0 ? 1 / x : 1.0; });
    rows = scale_rows(factor, a);
    values = factor.cwiseProduct(b);
  }
};

// The dual active-set method, one constraint at a time.
class Projector {
 public:
  Projector(const Vector& target, const Matrix& normals, const Vector& offsets)
      : unit_(normals, offsets), x_(target) {}

  Projection run() {
    Projection out;
    out.feasible = iterate();
    out.x = x_;
    out.multipliers = Vector::Zero(unit_.values.size());
    for (std::size_t i = 0; i < active_.size(); ++i)
      out.multipliers[active_[i]] = std::max(0.0, u_[i]) * unit_.factor[active_[i]];
    return out;
  }

 private:
  // The row that is violated most; -1 if none.
  Index worst() const {
    Index at = -1;
    double most = 0;
    for (Index i = 0; i < unit_.values.size(); ++i) {
      const double gap = unit_.values[i] - unit_.rows.row(i).dot(x_);
      const double room = kSatisfied * (1 + x_.norm() + std::abs(unit_.values[i]));
      if (gap > room && gap > most && std::find(active_.begin(), active_.end(), i) == active_.end()) {
        at = i;
        most = gap;
      }
    }
    return at;
  }

  bool iterate() {
    const Index limit = 50 * (unit_.values.size() + 1);
    for (Index count = 0; count < limit; ++count) {
      const Index next = worst();
      if (next < 0) return true;
      if (!add(next)) return false;
    }
    return false;
  }

  // Moves until row p holds, giving up active rows whose multiplier would turn negative.
  bool add(Index p) {
    const Vector normal = unit_.rows.row(p).transpose();
    double mine = 0;
    while (true) {
      const Matrix n = select_rows(unit_.rows, active_).transpose();
      Vector r = Vector::Zero(n.cols()), z = normal;
      if (n.cols()) {
        // The active normals are independent: only such rows are added.
        const PivotedQr qr(n);
        r = qr.solve(normal);
        Vector rotated = qr.rotate_back(normal);
        rotated.head(n.cols()).setZero();
        z = qr.rotate(rotated);
      }
      double dual = std::numeric_limits<double>::infinity();
      Index drop = -1;
      for (Index j = 0; j < r.size(); ++j) {
        if (r[j] > 0 && u_[j] / r[j] < dual) {
          dual = u_[j] / r[j];
          drop = j;
        }
      }
      const double length = z.squaredNorm();
      const bool independent = length > kDependent * kDependent;
      const double gap = unit_.values[p] - normal.dot(x_);
      const double primal = independent ? gap / length : std::numeric_limits<double>::infinity();
      const double t = std::min(dual, primal);
      if (!std::isfinite(t)) return false;
      if (independent) x_ += t * z;
      for (Index j = 0; j < r.size(); ++j) u_[j] -= t * r[j];
      mine += t;
      if (primal <= dual) {
        active_.push_back(p);
        u_.push_back(mine);
        return true;
      }
      active_.erase(active_.begin() + drop);
      u_.erase(u_.begin() + drop);
    }
  }

  UnitRows unit_;
  Vector x_;
  std::vector<Index> active_;
  std::vector<double> u_;
};

// The same with a slack in every row, which always has a solution.
Projection project_elastic(const Vector& target, const Matrix& normals, const Vector& offsets) {
  const UnitRows unit(normals, offsets);
  const Index n = target.size(), m = offsets.size();
  Matrix rows(m, n + m);
  rows << unit.rows, kElastic * Matrix::Identity(m, m);
  Vector wide = Vector::Zero(n + m);
  wide.head(n) = target;
  Projection out = project(wide, rows, unit.values);
  out.x = out.x.head(n).eval();
  out.multipliers = out.multipliers.cwiseProduct(unit.factor);
  return out;
}

}  // namespace

Projection project(const Vector& target, const Matrix& normals, const Vector& offsets) {
  return Projector(target, normals, offsets).run();
}

RowSpace::RowSpace(const Matrix& rows) {
  const Index n = rows.cols();
  null = Matrix::Identity(n, n);
  range = null.leftCols(0);
  if (rows.rows() == 0 || n == 0) return;
  const UnitRows unit(rows, Vector::Zero(rows.rows()));
  const PivotedQr qr(unit.rows.transpose(), kRank);
  rank = qr.rank();
  const Matrix q = qr.q();
  range = q.leftCols(rank);
  null = q.rightCols(n - rank);
}

Vector RowSpace::solve(const Matrix& rows, const Vector& values) const {
  if (rank == 0) return Vector::Zero(rows.cols());
  const UnitRows unit(rows, values);
  // Rows in terms of the range: of full column rank
  return apply(range, PivotedQr(product(unit.rows, range)).solve(unit.values));
}

Vector RowSpace::multipliers(const Matrix& rows, const Vector& gradient) const {
  Vector out = Vector::Zero(rows.rows());
  if (rank == 0) return out;
  const UnitRows unit(rows, out);
  const Matrix reduced = product(unit.rows, range).transpose();
  return unit.factor.cwiseProduct(shortest_solution(reduced, apply_transposed(range, gradient)));
}

QuadraticSolution solve(const QuadraticProgramme& p, const Vector& scale, double damping) {
  const Index n = p.gradient.size();
  const bool square = p.hessian.rows() == n && p.hessian.cols() == n && scale.size() == n;
  const bool equalities = p.equalities.cols() == n && p.equalities.rows() == p.equality_values.size();
  const bool inequalities = p.inequalities.cols() == n && p.inequalities.rows() == p.inequality_values.size();
  if (!square || !equalities || !inequalities)
    throw std::invalid_argument("the parts of a quadratic programme have inconsistent shapes");
  QuadraticSolution out;
  const Vector inverse = scale.cwiseInverse();
  const Matrix hessian = scale_both(inverse, p.hessian);
  const Vector gradient = inverse.cwiseProduct(p.gradient);
  const Matrix equal = scale_cols(p.equalities, inverse);
  const Matrix unequal = scale_cols(p.inequalities, inverse);
  const RowSpace space(equal);
  const Vector base = space.solve(equal, p.equality_values);
  Matrix reduced = sandwich(space.null, hessian);
  reduced.diagonal().array() += damping;
  Cholesky chol;
  const Index free = reduced.rows();
  if (free && (!chol.compute(reduced) || !(chol.pivot() > kPivot))) return out;
  Vector target = Vector::Zero(free);
  Matrix normals(unequal.rows(), free);
  if (free) {
    target = -apply_transposed(space.null, gradient + apply(hessian, base));
    chol.whiten_in_place(target);
    normals = chol.whiten(product(unequal, space.null).transpose()).transpose();
  }
  const Vector offsets = p.inequality_values - apply(unequal, base);
  Projection found = project(target, normals, offsets);
  out.feasible = found.feasible;
  if (!found.feasible) found = project_elastic(target, normals, offsets);
  Vector d = base;
  if (free) add_applied(d, 1, space.null, chol.whiten_transposed(found.x).col(0));
  out.solved = d.allFinite();
  out.inequality_multipliers = found.multipliers;
  out.equality_multipliers =
      space.multipliers(equal, gradient + apply(hessian, d) - apply_transposed(unequal, found.multipliers));
  out.d = inverse.cwiseProduct(d);
  return out;
}

}  // namespace msem
