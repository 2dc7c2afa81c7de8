#include "fit/saturated_cone.hpp"

#include <algorithm>
#include <cmath>

#include "base/interrupt.hpp"

namespace msem {

namespace {

constexpr double kRaised = 0.01;       // of the total variance, of a level in any direction, at the start
constexpr double kMostShare = 1e3;     // of a level at a maximum: beyond the data there is none
constexpr double kRadius = 1;          // of the first step, in roots of such shares
constexpr double kLeastRadius = 1e-9;  // where steps do not move anything
constexpr double kRounding = 1e-7;     // gain that may be less than rounding of the value
constexpr double kForeseen = 1e-6;     // of the tolerance, for a gain that is foreseen and not computed
constexpr double kPoor = 0.25, kGood = 0.75, kEnough = 1e-4;  // gains of a step, of what it foresaw
constexpr double kNear = 0.1;                                 // error of the length of a step
constexpr int kLengths = 60;                                  // tries to find it

struct Step {
  Vector x;
  double gain = 0;
  bool newton = false;  // whether it is the minimum without a radius
};

bool try_damped(const Matrix& h, const Vector& g, double damping, Cholesky& chol, Vector& x) {
  Matrix damped = h;
  damped.diagonal().array() += damping;
  if (!chol.compute(damped)) return false;
  x = -chol.solve(g);
  return x.allFinite();
}

// Minimum of g'x + x'H x / 2 among the x no longer than a radius, nearly. False where H is beyond rounding.
bool step_within(const Matrix& h, const Vector& g, double radius, Step& out) {
  Cholesky chol;
  Vector x;
  bool found = try_damped(h, g, 0, chol, x);
  out.newton = found && x.norm() <= radius;
  double low = 0, high = h.cwiseAbs().rowwise().sum().maxCoeff() + g.norm() / radius;
  double damping = 0;
  for (int k = 0; !out.newton && k < kLengths; ++k) {
    const double length = found ? x.norm() : kInfinity;
    if (found && std::abs(length - radius) <= kNear * radius) break;
    (length > radius ? low : high) = damping;
    double next = std::sqrt(std::max(low, 1e-12 * high) * high);
    if (found) {  // Newton for 1 / |x| = 1 / radius
      Vector half = x;
      chol.whiten_in_place(half);
      const double better = damping + (length / half.norm()) * (length / half.norm()) * (length / radius - 1);
      if (better > low && better < high) next = better;
    }
    if (!(next > damping || next < damping)) break;
    damping = next;
    found = try_damped(h, g, damping, chol, x);
  }
  if (!found && !try_damped(h, g, high, chol, x)) return false;
  out.x = std::move(x);
  out.gain = -(2 * g.dot(out.x) + out.x.dot(apply(h, out.x)));
  return true;
}

class ConeSearch {
 public:
  ConeSearch(const Likelihood& likelihood, const Implied& start)
      : likelihood_(likelihood), layout_(likelihood.layout()) {
    const std::size_t depth = layout_.levels.size();
    std::vector<std::size_t> highest(layout_.nvariables, 0);
    Matrix total = Matrix::Zero(layout_.nvariables, layout_.nvariables);
    for (std::size_t l = 0; l < depth; ++l) {
      add(total, layout_.levels[l], start[l].cov);
      for (const Index v : layout_.levels[l]) highest[v] = l;
    }
    levels_.resize(depth);
    for (std::size_t l = 0; l < depth; ++l) {
      Level& own = levels_[l];
      const std::vector<Index>& here = layout_.levels[l];
      own.unit = unit_of(select(total, here, here));
      std::vector<Index> variables;
      for (Index i = 0; i < static_cast<Index>(here.size()); ++i) {
        if (highest[here[i]] != l) continue;
        own.means.push_back(i);
        variables.push_back(here[i]);
      }
      own.mean_unit = unit_of(select(total, variables, variables)).lower();
      own.first = count_;
      own.n = static_cast<Index>(here.size());
      count_ += own.covariances() + static_cast<Index>(own.means.size());
    }
  }

  SaturatedFit run(Implied start, const ConeSearchOptions& options) {
    SaturatedFit out;
    raise(start);
    here_ = std::move(start);
    point_ = likelihood_.at(here_);
    if (point_) out.converged = climb(options, out);
    out.loglik = point_ ? -0.5 * point_->value() : kNaN;
    out.converged = out.converged && plausible();
    out.levels = std::move(here_);
    return out;
  }

 private:
  struct Level {
    Index n = 0, first = 0;    // variables, and where the coordinates of the level begin
    std::vector<Index> means;  // variables whose mean is that of this level
    Cholesky unit;             // C C' of the total covariance matrix
    Matrix mean_unit;          // and of that of variables whose mean is here
    Matrix f;                  // eigenvectors in these units
    Vector root;               // of the eigenvalues
    Matrix slope;              // F'G F
    Index covariances() const { return n * (n + 1) / 2; }
    // w moves element ij of the root by this
    double share(Index i, Index j) const {
      if (i == j) return 1;
      const double both = std::hypot(root[i], root[j]);
      return both > 0 ? root[j] / both : std::sqrt(0.5);
    }
  };

  static Cholesky unit_of(const Matrix& cov) {
    Cholesky out;
    if (!out.compute(cov)) out.compute(Matrix(cov.diagonal().asDiagonal()));
    return out;
  }

  // In units of the total covariance matrix.
  static SymmetricEigen shares(const Level& level, const Matrix& cov) {
    Matrix reduced = level.unit.whiten(level.unit.whiten(cov).transpose());
    symmetrise(reduced);
    return SymmetricEigen(reduced);
  }

  void raise(Implied& start) const {
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      if (!levels_[l].n) continue;
      const SymmetricEigen eigen = shares(levels_[l], start[l].cov);
      if (eigen.values[0] >= kRaised) continue;
      const Matrix f = product(levels_[l].unit.lower(), eigen.vectors);
      start[l].cov = outer(scale_cols(f, eigen.values.cwiseMax(kRaised)), f);
    }
  }

  bool plausible() const {
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      if (levels_[l].n && !(shares(levels_[l], here_[l].cov).values.maxCoeff() < kMostShare)) return false;
    }
    return true;
  }

  // The gradient and the curvature of half the value in the coordinates.
  void look(Vector& g, Matrix& h) {
    const Implied gradient = point_->gradient();
    LevelTangents tangents;
    g.resize(count_);
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      Level& own = levels_[l];
      const Index n = own.n, means = static_cast<Index>(own.means.size()), covariances = own.covariances();
      if (n) {
        const SymmetricEigen eigen = shares(own, here_[l].cov);
        own.f = product(own.unit.lower(), eigen.vectors);
        own.root = eigen.values.cwiseMax(0).cwiseSqrt();
        own.slope = sandwich(own.f, gradient[l].cov);
      }
      Tangents t;
      t.mean = Matrix::Zero(n, covariances + means);
      t.left.resize(n, covariances);
      t.right.resize(n, covariances);
      Index k = 0;
      for (Index j = 0; j < n; ++j) {
        for (Index i = j; i < n; ++i, ++k) {
          const double moved = i == j ? own.root[i] : std::hypot(own.root[i], own.root[j]);
          t.left.col(k) = moved * own.f.col(i);
          t.right.col(k) = own.f.col(j);
          t.parameter.push_back(static_cast<int>(k));
          g[own.first + k] = moved * own.slope(i, j);
        }
      }
      for (Index m = 0; m < means; ++m) t.mean.row(own.means[m]).tail(means) = own.mean_unit.row(m);
      g.segment(own.first + covariances, means) =
          0.5 * apply_transposed(t.mean.rightCols(means), gradient[l].mean);
      tangents.push_back(std::move(t));
    }
    const LevelBlocks blocks = point_->information(likelihood_.step_information(), tangents);
    h.resize(count_, count_);
    for (std::size_t a = 0; a < levels_.size(); ++a) {
      for (std::size_t b = a; b < levels_.size(); ++b) {
        const Matrix& part = blocks(a, b);
        h.block(levels_[a].first, levels_[b].first, part.rows(), part.cols()) = part;
        h.block(levels_[b].first, levels_[a].first, part.cols(), part.rows()) = part.transpose();
      }
      add_curvature(levels_[a], h);
    }
    symmetrise(h);
  }

  // That of the root: G E E'.
  static void add_curvature(const Level& level, Matrix& h) {
    const Index n = level.n;
    const auto place = [&](Index i, Index j) {
      const Index low = std::min(i, j), high = std::max(i, j);
      return level.first + low * n - low * (low - 1) / 2 + high - low;
    };
    for (Index j = 0; j < n; ++j) {
      for (Index i = 0; i < n; ++i) {
        for (Index k = 0; k < n; ++k)
          h(place(i, j), place(k, j)) += level.slope(i, k) * level.share(i, j) * level.share(k, j);
      }
    }
  }

  Implied moved(const Vector& x) const {
    Implied out = here_;
    for (std::size_t l = 0; l < levels_.size(); ++l) {
      const Level& own = levels_[l];
      const Index n = own.n;
      if (!n) continue;
      Matrix root = own.root.asDiagonal();
      Index k = own.first;
      for (Index j = 0; j < n; ++j) {
        for (Index i = j; i < n; ++i, ++k) {
          root(i, j) += x[k] * own.share(i, j);
          if (i != j) root(j, i) += x[k] * own.share(j, i);
        }
      }
      root = product(own.f, root);
      out[l].cov = outer(root, root);
      symmetrise(out[l].cov);
      const Vector shift = apply(own.mean_unit, x.segment(k, static_cast<Index>(own.means.size())));
      for (std::size_t m = 0; m < own.means.size(); ++m)
        out[l].mean[own.means[m]] += shift[static_cast<Index>(m)];
    }
    return out;
  }

  bool climb(const ConeSearchOptions& options, SaturatedFit& out) {
    double radius = kRadius, last = kInfinity;
    Vector g;
    Matrix h;
    for (; out.iterations < options.max_iterations; ++out.iterations) {
      check_interrupt();
      look(g, h);
      if (!g.allFinite() || !h.allFinite()) return false;
      Step step;
      while (true) {
        if (!step_within(h, g, radius, step)) return false;
        out.decrement = step.gain;
        Implied next = moved(step.x);
        std::unique_ptr<LikelihoodPoint> there = likelihood_.at(next);
        const double gain =
            there && std::isfinite(there->value()) ? point_->value() - there->value() : -kInfinity;
        const bool rounding = step.newton && step.gain < kRounding && gain > -kRounding;
        const double length = step.x.norm();
        if (!rounding && gain < kPoor * step.gain)
          radius = kPoor * std::min(radius, length);
        else if (gain > kGood * step.gain && !step.newton)
          radius = 2 * radius;
        if (rounding || (gain > 0 && gain > kEnough * step.gain)) {
          here_ = std::move(next);
          point_ = std::move(there);
          break;
        }
        if (step.newton && step.gain < kRounding) return true;  // nothing is left but rounding
        if (radius < kLeastRadius) return false;
      }
      const bool stalled = step.gain < kRounding && step.gain >= last;
      const bool foreseen =
          step.gain < kRounding && step.gain * (step.gain / last) < kForeseen * options.tolerance;
      if (step.newton && (step.gain < options.tolerance || stalled || foreseen)) {
        ++out.iterations;
        return true;
      }
      last = step.newton ? step.gain : kInfinity;
    }
    return false;
  }

  const Likelihood& likelihood_;
  const Layout layout_;
  std::vector<Level> levels_;
  Index count_ = 0;  // of the coordinates
  Implied here_;
  std::unique_ptr<LikelihoodPoint> point_;
};

}  // namespace

SaturatedFit saturated_in_cone(const Likelihood& likelihood, Implied start,
                               const ConeSearchOptions& options) {
  ConeSearch search(likelihood, start);
  return search.run(std::move(start), options);
}

}  // namespace msem
