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
    rows = factor.asDiagonal() * a;
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
      const Matrix n = unit_.rows(active_, Eigen::all).transpose();
      Vector r = Vector::Zero(n.cols()), z = normal;
      if (n.cols()) {
        const Eigen::HouseholderQR<Matrix> qr(n);
        Vector rotated = qr.householderQ().transpose() * normal;
        r = qr.matrixQR().topRows(n.cols()).triangularView<Eigen::Upper>().solve(rotated.head(n.cols()));
        rotated.head(n.cols()).setZero();
        z = qr.householderQ() * rotated;
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
  Eigen::ColPivHouseholderQR<Matrix> qr(n, rows.rows());
  qr.setThreshold(kRank);
  qr.compute(unit.rows.transpose());
  rank = qr.rank();
  const Matrix q = qr.householderQ() * null;
  range = q.leftCols(rank);
  null = q.rightCols(n - rank);
}

Vector RowSpace::solve(const Matrix& rows, const Vector& values) const {
  if (rank == 0) return Vector::Zero(rows.cols());
  const UnitRows unit(rows, values);
  // Rows in terms of the range: of full column rank
  return range * Matrix(unit.rows * range).householderQr().solve(unit.values);
}

Vector RowSpace::multipliers(const Matrix& rows, const Vector& gradient) const {
  Vector out = Vector::Zero(rows.rows());
  if (rank == 0) return out;
  const UnitRows unit(rows, out);
  Eigen::CompleteOrthogonalDecomposition<Matrix> inverse(range.transpose() * unit.rows.transpose());
  return unit.factor.cwiseProduct(inverse.solve(range.transpose() * gradient));
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
  const Matrix hessian = inverse.asDiagonal() * p.hessian * inverse.asDiagonal();
  const Vector gradient = inverse.cwiseProduct(p.gradient);
  const Matrix equal = p.equalities * inverse.asDiagonal();
  const Matrix unequal = p.inequalities * inverse.asDiagonal();
  const RowSpace space(equal);
  const Vector base = space.solve(equal, p.equality_values);
  Matrix reduced = space.null.transpose() * hessian * space.null;
  reduced.diagonal().array() += damping;
  const Eigen::LLT<Matrix> llt(reduced);
  const Index free = reduced.rows();
  if (free && (llt.info() != Eigen::Success || !(llt.matrixLLT().diagonal().cwiseAbs2().minCoeff() > kPivot)))
    return out;
  const auto lower = llt.matrixL();
  Vector target = Vector::Zero(free);
  Matrix normals(unequal.rows(), free);
  if (free) {
    target = -lower.solve(space.null.transpose() * (gradient + hessian * base));
    normals = lower.solve((unequal * space.null).transpose()).transpose();
  }
  const Vector offsets = p.inequality_values - unequal * base;
  Projection found = project(target, normals, offsets);
  out.feasible = found.feasible;
  if (!found.feasible) found = project_elastic(target, normals, offsets);
  Vector d = base;
  if (free) d += space.null * llt.matrixU().solve(found.x);
  out.solved = d.allFinite();
  out.inequality_multipliers = found.multipliers;
  out.equality_multipliers =
      space.multipliers(equal, gradient + hessian * d - unequal.transpose() * found.multipliers);
  out.d = inverse.cwiseProduct(d);
  return out;
}

}  // namespace msem
