#include "fit/iterative.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/interrupt.hpp"

namespace msem {

namespace {

// The blocks of a group: of each there are two.
int below(const Group& g) { return g.levels.front(); }
int above(const Group& g) { return g.levels.back(); }

constexpr double kSolved = 0.03;      // relative residual of a system that counts as solved
constexpr int kProducts = 200;        // at most so many for one system
constexpr double kSlow = 0.2;         // ratio of decrements above which expected information is not enough
constexpr double kDifference = 1e-4;  // in standard errors, of points whose gradients are compared
constexpr double kKeptPivot = 1e-7;   // smallest squared pivot of the information of the kept level

// The model at one point, with what products of its information with vectors need.
class Point {
 public:
  // False outside the domain.
  bool prepare(const Objective& objective, const std::vector<bool>& saturated, const Vector& theta,
               std::vector<BlockPoint> known = {}) {
    objective_ = &objective;
    saturated_ = &saturated;
    blocks = std::move(known);
    const bool evaluated = !blocks.empty();
    blocks.resize(objective.blocks().size());
    for (std::size_t b = 0; !evaluated && b < blocks.size(); ++b) {
      if (!objective.blocks()[b].evaluate(theta, blocks[b])) return false;
    }
    value = 0;
    gradient.setZero(objective.npar());
    groups.clear();
    for (const Group& g : objective.groups()) {
      groups.push_back(g.likelihood->at({observed(below(g)), observed(above(g))}));
      if (!groups.back()) return false;
      value += groups.back()->value();
      Implied slope = groups.back()->gradient();
      settle_means(g, slope);
      pull_back(g, slope, gradient);
    }
    return std::isfinite(value) && gradient.allFinite();
  }

  // What the parameters do when x is a step: the intercepts of a saturated between level move on by what the
  // means of the within level change.
  Vector resolve(Vector x) const {
    Vector out = x;
    for (const Group& g : objective_->groups()) {
      if (!(*saturated_)[above(g)]) continue;
      const LevelImplied d = push_forward(below(g), x);
      const Index both = g.likelihood->layout().shared();
      for (const Entry& e : objective_->blocks()[above(g)].free_entries()) {
        if (e.slot == Slot::kIntercept && e.row < both) out[e.parameter] -= d.mean(e.row);
      }
    }
    return out;
  }

  // Expected information times a vector.
  Vector product(const Vector& x) const {
    Vector out = Vector::Zero(x.size());
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const Group& g = objective_->groups()[i];
      Implied d = {push_forward(below(g), x), push_forward(above(g), x)};
      settle_means(g, d);
      Implied m = groups[i]->expected_product(d);
      settle_means(g, m);
      pull_back(g, m, out);
    }
    return out;
  }

  // Half the second derivatives times a vector, from the gradients here and `length` times the vector further
  // on; zero if that is outside the domain.
  Vector observed_product(const Vector& theta, const Vector& x, double length) const {
    Point further;
    if (!further.prepare(*objective_, *saturated_, theta + length * resolve(x)))
      return Vector::Zero(x.size());
    return (further.gradient - gradient) / (2 * length);
  }

  std::vector<BlockPoint> blocks;
  std::vector<std::unique_ptr<LikelihoodPoint>> groups;
  double value = 0;
  Vector gradient;  // in the coordinates of `resolve`

 private:
  LevelImplied observed(int b) const {
    const Index n = objective_->blocks()[b].nobserved();
    return {blocks[b].mean.head(n), blocks[b].total.topLeftCorner(n, n)};
  }

  // Where the between level is saturated, the means of variables at both levels are parameters of their own:
  // those of the within level count for nothing, however far its covariates are from zero.
  void settle_means(const Group& g, Implied& m) const {
    if ((*saturated_)[above(g)]) m.front().mean.head(g.likelihood->layout().shared()).setZero();
  }

  void pull_back(const Group& g, const Implied& m, Vector& out) const {
    objective_->blocks()[below(g)].pull_back(blocks[below(g)], m.front().mean, m.front().cov, out);
    objective_->blocks()[above(g)].pull_back(blocks[above(g)], m.back().mean, m.back().cov, out);
  }

  // Change of the observed moments of a block: d Sigma = E (dA Sigma + Sigma dA' + dS E') ..., E = (I -
  // A)^-1.
  LevelImplied push_forward(int b, const Vector& x) const {
    const Block& block = objective_->blocks()[b];
    const BlockPoint& at = blocks[b];
    const Index m = block.nvariables(), n = block.nobserved();
    Matrix directed = Matrix::Zero(m, m), symmetric = Matrix::Zero(m, m);
    bool any_path = false;
    for (const Entry& e : block.free_entries()) {
      if (e.slot == Slot::kDirected) {
        directed(e.row, e.col) += x[e.parameter];
        any_path = true;
      } else if (e.slot == Slot::kSymmetric) {
        symmetric(e.row, e.col) += x[e.parameter];
        if (e.row != e.col) symmetric(e.col, e.row) += x[e.parameter];
      }
    }
    const auto top = at.paths.topRows(n);
    Matrix cov =
        at.paths.isIdentity(0) ? Matrix(symmetric.topLeftCorner(n, n)) : outer_sandwich(top, symmetric);
    if (any_path) {
      add_with_transpose(cov, 1, msem::product(msem::product(top, directed), at.total.leftCols(n)));
    }
    return {block.mean_change(at, x).head(n), std::move(cov)};
  }

  const Objective* objective_ = nullptr;
  const std::vector<bool>* saturated_ = nullptr;
};

// Approximate inverse information; see the header.
class Preconditioner {
 public:
  Preconditioner(const Objective& objective, const Point& at, const std::vector<bool>& saturated)
      : objective_(objective), saturated_(saturated), position_(objective.npar(), -1) {
    for (std::size_t b = 0; b < saturated.size(); ++b) {
      if (saturated[b]) continue;
      const auto& own = objective.blocks()[b].parameters();
      kept_.insert(kept_.end(), own.begin(), own.end());
    }
    std::sort(kept_.begin(), kept_.end());
    kept_.erase(std::unique(kept_.begin(), kept_.end()), kept_.end());
    for (std::size_t i = 0; i < kept_.size(); ++i) position_[kept_[i]] = static_cast<int>(i);
    const Index k = static_cast<Index>(kept_.size());
    Matrix information = Matrix::Zero(k, k);
    metric_.resize(saturated.size());
    size_.resize(saturated.size());
    for (std::size_t i = 0; i < objective.groups().size(); ++i) add_group(i, at, information);
    scale_ = information.diagonal().cwiseSqrt().cwiseInverse();
    positive_ = chol_.compute(scale_both(scale_, information));
  }

  // Whether the parameters can be told apart well enough for what conjugate gradients call solved to be so.
  bool valid() const {
    if (kept_.empty()) return true;
    return positive_ && chol_.pivot() > kKeptPivot;
  }

  Vector apply(const Vector& r) const {
    Vector out = Vector::Zero(r.size());
    if (!kept_.empty()) out(kept_) = scale_.cwiseProduct(chol_.solve(Vector(scale_.cwiseProduct(r(kept_)))));
    for (std::size_t b = 0; b < saturated_.size(); ++b) {
      if (saturated_[b]) apply_saturated(b, r, out);
    }
    return out;
  }

 private:
  void apply_saturated(std::size_t b, const Vector& r, Vector& out) const {
    const Matrix& a = metric_[b];
    Matrix g = Matrix::Zero(a.rows(), a.cols());
    Vector mean = Vector::Zero(a.rows());
    const auto& entries = objective_.blocks()[b].free_entries();
    for (const Entry& e : entries) {
      if (e.slot == Slot::kIntercept) {
        mean(e.row) += r[e.parameter];
      } else {
        g(e.row, e.col) += 0.5 * r[e.parameter];
        g(e.col, e.row) += 0.5 * r[e.parameter];
      }
    }
    const Matrix step = 2 / size_[b] * sandwich(a, g);  // `a` is symmetric
    const Vector shift = msem::apply(a, mean) / size_[b];
    for (const Entry& e : entries)
      out[e.parameter] += e.slot == Slot::kIntercept ? shift(e.row) : step(e.row, e.col);
  }

  // Information of the kept block of a group about its own parameters; the metric of the saturated one.
  void add_group(std::size_t i, const Point& at, Matrix& information) {
    const Group& g = objective_.groups()[i];
    const std::vector<double> units = g.likelihood->units();
    const Index both = g.likelihood->layout().shared();
    const Matrix within = observed(at, below(g)), between = observed(at, above(g));
    const bool keeps_within = saturated_[above(g)];
    const int kept = keeps_within ? below(g) : above(g);
    Tangents own = objective_.blocks()[kept].tangents(at.blocks[kept]);
    Tangents none;
    const Index other = keeps_within ? between.rows() : within.rows();
    none.mean.resize(other, 0);
    none.left.resize(other, 0);
    none.right.resize(other, 0);
    if (keeps_within) own.mean.topRows(both).setZero();
    const LevelTangents tangents = {keeps_within ? own : none, keeps_within ? none : own};
    const LevelBlocks found = at.groups[i]->information(Information::kExpected, tangents);
    const std::size_t level = keeps_within ? 0 : 1;
    const Matrix& part = found(level, level);
    const auto& parameters = objective_.blocks()[kept].parameters();
    for (std::size_t c = 0; c < parameters.size(); ++c) {
      for (std::size_t d = 0; d < parameters.size(); ++d)
        information(position_[parameters[c]], position_[parameters[d]]) += part(c, d);
    }
    if (keeps_within) {
      metric_[above(g)] = between;
      metric_[above(g)].topLeftCorner(both, both) += within.topLeftCorner(both, both) * (units[1] / units[0]);
      size_[above(g)] = units[1];
    } else {
      metric_[below(g)] = within;
      size_[below(g)] = units[0];
    }
  }

  Matrix observed(const Point& at, int b) const {
    const Index n = objective_.blocks()[b].nobserved();
    return at.blocks[b].total.topLeftCorner(n, n);
  }

  const Objective& objective_;
  const std::vector<bool>& saturated_;
  std::vector<int> kept_, position_;
  Vector scale_;
  Cholesky chol_;
  bool positive_ = false;
  std::vector<Matrix> metric_;
  std::vector<double> size_;
};

// Preconditioned conjugate gradients over the parameters that are free to move; empty if they fail. `product`
// has the information times a vector of this squared length in the metric of the preconditioner.
template <typename Product>
Vector solve(const Preconditioner& preconditioner, const Vector& free, const Vector& g,
             const Product& product) {
  Vector x = Vector::Zero(g.size()), r = g.cwiseProduct(free);
  Vector z = preconditioner.apply(r).cwiseProduct(free), direction = z;
  double norm = r.dot(z);
  const double target = kSolved * kSolved * norm;
  for (int count = 0; count < kProducts && norm > target && norm > 0; ++count) {
    const Vector image = product(direction, norm).cwiseProduct(free);
    const double curvature = direction.dot(image);
    if (!(curvature > 0)) return {};
    const double length = norm / curvature;
    x += length * direction;
    r -= length * image;
    z = preconditioner.apply(r).cwiseProduct(free);
    const double next = r.dot(z);
    if (!std::isfinite(next) || next < 0) return {};
    direction = z + next / norm * direction;
    norm = next;
  }
  return norm <= target ? x : Vector();
}

class Iterative {
 public:
  Iterative(const Objective& objective, const Vector& lower, const Vector& upper)
      : objective_(objective), lower_(lower), upper_(upper) {
    for (const int k : objective.intercepts()) {
      if (!std::isfinite(lower[k]) && !std::isfinite(upper[k])) intercepts_.push_back(k);
    }
  }

  Optimum run(const Vector& start, const std::vector<bool>& saturated, const ScoringOptions& options) {
    Optimum out;
    out.theta = start.cwiseMax(lower_).cwiseMin(upper_);
    out.gradient.setZero(start.size());
    out.active.assign(start.size(), 0);
    if (!current_.prepare(objective_, saturated, out.theta)) {
      out.stop = Stop::kBadStart;
      return out;
    }
    const Preconditioner preconditioner(objective_, current_, saturated);
    out.stop = preconditioner.valid() ? iterate(out, preconditioner, saturated, options) : Stop::kNoProgress;
    out.value = current_.value;
    out.gradient = objective_.evaluate(out.theta).gradient;
    out.active = active(out.theta);
    return out;
  }

 private:
  std::vector<int> active(const Vector& theta) const {
    return active_bounds(theta, current_.gradient, lower_, upper_);
  }

  Stop iterate(Optimum& out, const Preconditioner& preconditioner, const std::vector<bool>& saturated,
               const ScoringOptions& options) {
    double before = 0;
    bool newton = false;
    for (int count = 0; count < options.max_iterations; ++count) {
      check_interrupt();
      const std::vector<int> bound = active(out.theta);
      Vector free(out.theta.size());
      for (Index i = 0; i < free.size(); ++i) free[i] = bound[i] ? 0 : 1;
      const Vector uphill = -0.5 * current_.gradient;
      Vector delta;
      if (newton) {
        delta = solve(preconditioner, free, uphill, [&](const Vector& x, double norm) {
          return current_.observed_product(out.theta, x, kDifference / std::sqrt(norm));
        });
      }
      if (!delta.size())
        delta =
            solve(preconditioner, free, uphill, [&](const Vector& x, double) { return current_.product(x); });
      if (!delta.size()) return Stop::kNoProgress;
      const Vector clipped = (out.theta + delta).cwiseMax(lower_).cwiseMin(upper_) - out.theta;
      const double decrement = -0.5 * current_.gradient.dot(clipped);
      const bool last = std::abs(decrement) < options.tolerance;
      const bool moved = step(out, saturated, current_.resolve(clipped), decrement);
      out.iterations.push_back({current_.value, decrement, 0, newton});
      newton = newton || (count > 1 && decrement > kSlow * before);
      before = decrement;
      if (last) return Stop::kConverged;
      if (!moved) return Stop::kNoProgress;
    }
    return Stop::kMaxIterations;
  }

  // Halve the step until the value falls.
  bool step(Optimum& out, const std::vector<bool>& saturated, const Vector& straight, double decrement) {
    const double noise = 1e-13 * (1 + std::abs(current_.value));
    for (double length = 1; length > 1e-3; length *= 0.5) {
      Settled next = objective_.settle(current_.blocks, out.theta, length * straight, intercepts_);
      Point trial;
      if (!trial.prepare(objective_, saturated, next.theta, std::move(next.blocks))) continue;
      if (trial.value > current_.value - 2e-4 * length * decrement + (decrement < 1e-4 ? noise : 0.0))
        continue;
      current_ = std::move(trial);
      out.theta = next.theta;
      return true;
    }
    return false;
  }

  const Objective& objective_;
  const Vector &lower_, &upper_;
  std::vector<int> intercepts_;  // without bounds
  Point current_;
};

}  // namespace

Optimum minimize_iteratively(const Objective& objective, const Vector& start, const Vector& lower,
                             const Vector& upper, const std::vector<bool>& saturated,
                             const ScoringOptions& options) {
  const Index n = objective.npar();
  if (start.size() != n || lower.size() != n || upper.size() != n)
    throw std::invalid_argument("start and bounds must have one element per parameter");
  if (saturated.size() != objective.blocks().size())
    throw std::invalid_argument("one mark per block says whether it is saturated");
  for (const Group& g : objective.groups()) {
    const bool two = g.levels.size() == 2 && g.likelihood->units().size() == 2;
    if (!two || saturated[below(g)] == saturated[above(g)])
      throw std::invalid_argument("one level of each group of a two-level model is saturated");
  }
  return Iterative(objective, lower, upper).run(start, saturated, options);
}

}  // namespace msem
