#include "after/rotation.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/random.hpp"

namespace msem {

namespace {

constexpr double kRough = 1e-2;  // length of the projected gradient from which Newton steps are tried
constexpr double kConverged = 1e-8;
constexpr double kNoise = 1e-12;  // of the value, relative
constexpr double kSame = 1e-3;    // of loadings: closer minima are one

// Inverse of a small matrix by elimination with row pivots; false when it is singular.
bool invert(const Matrix& a, Matrix& work, Matrix& out) {
  const Index n = a.rows();
  work = a;
  out.setIdentity(n, n);
  for (Index k = 0; k < n; ++k) {
    Index best = k;
    for (Index i = k + 1; i < n; ++i) {
      if (std::abs(work(i, k)) > std::abs(work(best, k))) best = i;
    }
    if (!(std::abs(work(best, k)) > 1e-12)) return false;
    for (Index j = 0; j < n; ++j) {
      std::swap(work(k, j), work(best, j));
      std::swap(out(k, j), out(best, j));
    }
    const double pivot = 1 / work(k, k);
    for (Index j = 0; j < n; ++j) {
      work(k, j) *= pivot;
      out(k, j) *= pivot;
    }
    for (Index i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = work(i, k);
      for (Index j = 0; j < n; ++j) {
        work(i, j) -= factor * work(k, j);
        out(i, j) -= factor * out(k, j);
      }
    }
  }
  return true;
}

// T with columns made orthonormal: by Gram and Schmidt, twice.
void orthonormalise(Matrix& t) {
  for (Index j = 0; j < t.cols(); ++j) {
    for (int again = 0; again < 2; ++again) {
      for (Index k = 0; k < j; ++k) {
        const double part = t.col(k).dot(t.col(j));
        for (Index i = 0; i < t.rows(); ++i) t(i, j) -= part * t(i, k);
      }
    }
    const double norm = t.col(j).norm();
    for (Index i = 0; i < t.rows(); ++i) t(i, j) /= norm;
  }
}

void normalise(Matrix& t) {
  for (Index j = 0; j < t.cols(); ++j) {
    const double norm = t.col(j).norm();
    for (Index i = 0; i < t.rows(); ++i) t(i, j) /= norm;
  }
}

// One descent; everything that an iteration needs is allocated once.
class Descent {
 public:
  Descent(const Matrix& unrotated, const RotationCriterion& criterion, bool orthogonal)
      : a_(unrotated),
        criterion_(criterion),
        orthogonal_(orthogonal),
        g_(unrotated.rows(), unrotated.cols()),
        direction_(g_),
        change_(g_) {
    const Index m = a_.cols();
    for (Matrix* each : {&work_, &inverse_, &cross_, &slope_, &trial_, &moved_, &phi_}) each->resize(m, m);
    trial_loadings_ = loadings_ = g_;
  }

  RotationMinimum from(const Matrix& start, int max_iterations) {
    RotationMinimum out;
    t_ = start;
    q_ = place(t_, loadings_);
    double step = 1, rough = kRough;
    int used = 0;
    for (;;) {
      used += project(step, rough, max_iterations - used);
      if (length_ > kConverged) newton();
      if (length_ <= kConverged || used >= max_iterations || stuck_) break;
      rough = std::max(0.1 * std::min(rough, length_), 0.1 * kConverged);
    }
    out.transformation = t_;
    out.loadings = loadings_;
    out.value = q_;
    out.count = 1;
    out.converged = length_ <= 100 * kConverged;
    return out;
  }

 private:
  // Loadings and value at T; infinite where T is singular. Leaves the gradient in `g_`.
  double place(const Matrix& t, Matrix& loadings) {
    if (orthogonal_) {
      set_product(loadings, a_, t);
    } else {
      if (!invert(t, work_, inverse_)) return std::numeric_limits<double>::infinity();
      for (Index j = 0; j < t.cols(); ++j) {
        for (Index i = 0; i < a_.rows(); ++i) {
          double sum = 0;
          for (Index k = 0; k < t.cols(); ++k) sum += a_(i, k) * inverse_(j, k);
          loadings(i, j) = sum;
        }
      }
    }
    return criterion_.evaluate(loadings, g_);
  }

  // The projected gradient at T, with `g_` and `inverse_` as `place` left them.
  void find_slope() {
    const Index m = t_.cols();
    if (orthogonal_) {
      set_cross(slope_, a_, g_);
      set_cross(cross_, t_, slope_);
      for (Index j = 0; j < m; ++j) {
        for (Index i = 0; i < m; ++i) {
          double sum = 0;
          for (Index k = 0; k < m; ++k) sum += t_(i, k) * (cross_(k, j) + cross_(j, k));
          moved_(i, j) = slope_(i, j) - 0.5 * sum;
        }
      }
      slope_.swap(moved_);
    } else {
      set_cross(cross_, loadings_, g_);
      for (Index j = 0; j < m; ++j) {
        for (Index i = 0; i < m; ++i) {
          double sum = 0;
          for (Index k = 0; k < m; ++k) sum -= cross_(j, k) * inverse_(k, i);
          slope_(i, j) = sum;
        }
      }
      for (Index j = 0; j < m; ++j) {
        const double part = t_.col(j).dot(slope_.col(j));
        for (Index i = 0; i < m; ++i) slope_(i, j) -= part * t_(i, j);
      }
    }
    length_ = slope_.norm();
  }

  // Gradient projection until the gradient is shorter than `tolerance`; returns the number of iterations.
  int project(double& step, double tolerance, int most) {
    q_ = place(t_, loadings_);
    find_slope();
    stuck_ = false;
    int used = 0;
    while (length_ > tolerance && used < most) {
      if (++used % 256 == 0) check_interrupt();
      step *= 2;
      bool fell = false;
      for (int halving = 0; halving < 60 && !fell; ++halving) {
        for (Index j = 0; j < t_.cols(); ++j) {
          for (Index i = 0; i < t_.rows(); ++i) trial_(i, j) = t_(i, j) - step * slope_(i, j);
        }
        orthogonal_ ? orthonormalise(trial_) : normalise(trial_);
        const double q = place(trial_, trial_loadings_);
        fell = q < q_ - 0.5 * step * length_ * length_;
        if (fell) {
          q_ = q;
        } else {
          step *= 0.5;
        }
      }
      if (!fell) {  // nothing but rounding is left
        stuck_ = true;
        q_ = place(t_, loadings_);
        find_slope();
        break;
      }
      t_.swap(trial_);
      loadings_.swap(trial_loadings_);
      find_slope();
    }
    return used;
  }

  // Newton steps on T -> T(I + X) as long as they shorten the gradient and do not raise the value.
  void newton() {
    const Index m = t_.cols(), free = orthogonal_ ? m * (m - 1) / 2 : m * (m - 1);
    for (int iteration = 0; iteration < 12 && length_ > 1e-3 * kConverged; ++iteration) {
      set_cross(phi_, t_, t_);
      const RotationConditions at = rotation_conditions(criterion_, loadings_, phi_, orthogonal_);
      Matrix system(free, free), x = Matrix::Zero(m, m);
      Index column = 0;
      for (Index j = 0; j < m; ++j) {
        for (Index i = orthogonal_ ? j + 1 : 0; i < m; ++i) {
          if (i == j) continue;
          x.setZero();
          set(x, i, j, 1);
          system.col(column++) = response(at, x);
        }
      }
      const Vector step = solve_square(system, at.values);
      if (!step.allFinite()) return;
      x.setZero();
      column = 0;
      for (Index j = 0; j < m; ++j) {
        for (Index i = orthogonal_ ? j + 1 : 0; i < m; ++i) {
          if (i != j) set(x, i, j, x(i, j) - step[column++]);
        }
      }
      const Matrix before = t_, old_loadings = loadings_;
      const double value = q_, length = length_;
      set_product(trial_, t_, x);
      for (Index j = 0; j < m; ++j) {
        for (Index i = 0; i < m; ++i) t_(i, j) += trial_(i, j);
      }
      orthogonal_ ? orthonormalise(t_) : normalise(t_);
      q_ = place(t_, loadings_);
      if (std::isfinite(q_)) find_slope();
      if (!(length_ < length) || !(q_ <= value + kNoise * (std::abs(value) + 1))) {
        t_ = before;
        loadings_ = old_loadings;
        q_ = place(t_, loadings_);
        find_slope();
        return;
      }
    }
  }

  // An off-diagonal element of X, and what goes with it: antisymmetric, or columns of unit length.
  void set(Matrix& x, Index i, Index j, double value) const {
    if (orthogonal_) {
      x(j, i) = -value;
    } else {
      x(j, j) += -phi_(i, j) * (value - x(i, j));
    }
    x(i, j) = value;
  }

  // Derivative of the conditions along T(I + X).
  Vector response(const RotationConditions& at, const Matrix& x) {
    const Index p = a_.rows(), m = t_.cols();
    Vector change(at.jacobian.cols());
    for (Index j = 0; j < m; ++j) {
      for (Index i = 0; i < p; ++i) {
        double sum = 0;
        for (Index k = 0; k < m; ++k) sum += loadings_(i, k) * (orthogonal_ ? x(k, j) : -x(j, k));
        change[j * p + i] = sum;
      }
    }
    if (!orthogonal_) {
      Index to = p * m;
      for (Index j = 0; j < m; ++j) {
        for (Index i = j + 1; i < m; ++i) {
          double sum = 0;
          for (Index k = 0; k < m; ++k) sum += x(k, i) * phi_(k, j) + phi_(i, k) * x(k, j);
          change[to++] = sum;
        }
      }
    }
    return apply(at.jacobian, change);
  }

  const Matrix& a_;
  const RotationCriterion& criterion_;
  bool orthogonal_, stuck_ = false;
  double q_ = 0, length_ = 0;
  Matrix t_, loadings_, trial_loadings_, g_, direction_, change_;
  Matrix work_, inverse_, cross_, slope_, trial_, moved_, phi_;
};

Matrix start_of(Index m, std::uint64_t seed, int number) {
  Matrix t = Matrix::Identity(m, m);
  if (number == 0) return t;
  RandomStream random(seed, static_cast<std::uint64_t>(number), 0);
  for (Index j = 0; j < m; ++j) {
    for (Index i = 0; i < m; ++i) t(i, j) = random.normal();
  }
  orthonormalise(t);
  return t;
}

}  // namespace

void RotationCriterion::check(Index rows, Index cols) const {
  if (kind != Kind::kTarget) return;
  if (target.rows() != rows || target.cols() != cols || mask.rows() != rows || mask.cols() != cols)
    throw std::invalid_argument("a target has a row for each indicator and a column for each factor");
}

double RotationCriterion::evaluate(const Matrix& loadings, Matrix& gradient) const {
  const Index p = loadings.rows(), m = loadings.cols();
  double value = 0;
  if (kind == Kind::kGeomin) {
    for (Index i = 0; i < p; ++i) {
      double log = 0;
      for (Index j = 0; j < m; ++j) log += std::log(loadings(i, j) * loadings(i, j) + epsilon);
      const double mean = std::exp(log / static_cast<double>(m));
      value += mean;
      for (Index j = 0; j < m; ++j) {
        const double x = loadings(i, j);
        gradient(i, j) = 2 * x * mean / (static_cast<double>(m) * (x * x + epsilon));
      }
    }
    return value;
  }
  if (kind == Kind::kTarget) {
    for (Index j = 0; j < m; ++j) {
      for (Index i = 0; i < p; ++i) {
        gradient(i, j) = mask(i, j) * (loadings(i, j) - target(i, j));
        value += 0.5 * gradient(i, j) * gradient(i, j);
      }
    }
    return value;
  }
  // The sums over a row are kept in its gradient until all are known.
  double all = 0;
  for (Index i = 0; i < p; ++i) {
    double sum = 0;
    for (Index j = 0; j < m; ++j) sum += loadings(i, j) * loadings(i, j);
    all += sum;
    for (Index j = 0; j < m; ++j) gradient(i, j) = sum;
  }
  for (Index j = 0; j < m; ++j) {
    const double sum = loadings.col(j).squaredNorm();
    for (Index i = 0; i < p; ++i) {
      const double x = loadings(i, j), square = x * x;
      const double map = own * square + column * sum + row * gradient(i, j) + total * all;
      gradient(i, j) = x * map;
      value += 0.25 * square * map;
    }
  }
  return value;
}

void RotationCriterion::change(const Matrix& loadings, const Matrix& direction, Matrix& out) const {
  const Index p = loadings.rows(), m = loadings.cols();
  if (kind == Kind::kTarget) {
    for (Index j = 0; j < m; ++j) {
      for (Index i = 0; i < p; ++i) out(i, j) = mask(i, j) * direction(i, j);
    }
    return;
  }
  if (kind == Kind::kGeomin) {
    const double share = 2 / static_cast<double>(m);
    for (Index i = 0; i < p; ++i) {
      double log = 0, slope = 0;
      for (Index j = 0; j < m; ++j) {
        const double x = loadings(i, j), size = x * x + epsilon;
        log += std::log(size);
        slope += share * x * direction(i, j) / size;
      }
      const double mean = std::exp(log / static_cast<double>(m));
      for (Index j = 0; j < m; ++j) {
        const double x = loadings(i, j), size = x * x + epsilon;
        out(i, j) = share * mean * (direction(i, j) * (epsilon - x * x) / (size * size) + x / size * slope);
      }
    }
    return;
  }
  double all = 0, all_change = 0;
  std::vector<double> sums(p, 0.0), changes(p, 0.0);
  for (Index j = 0; j < m; ++j) {
    for (Index i = 0; i < p; ++i) {
      sums[i] += loadings(i, j) * loadings(i, j);
      changes[i] += 2 * loadings(i, j) * direction(i, j);
    }
  }
  for (Index i = 0; i < p; ++i) {
    all += sums[i];
    all_change += changes[i];
  }
  for (Index j = 0; j < m; ++j) {
    double sum = 0, sum_change = 0;
    for (Index i = 0; i < p; ++i) {
      sum += loadings(i, j) * loadings(i, j);
      sum_change += 2 * loadings(i, j) * direction(i, j);
    }
    for (Index i = 0; i < p; ++i) {
      const double x = loadings(i, j), d = direction(i, j);
      const double map = own * x * x + column * sum + row * sums[i] + total * all;
      const double moved = own * 2 * x * d + column * sum_change + row * changes[i] + total * all_change;
      out(i, j) = d * map + x * moved;
    }
  }
}

RotationConditions rotation_conditions(const RotationCriterion& criterion, const Matrix& loadings,
                                       const Matrix& correlations, bool orthogonal) {
  const Index p = loadings.rows(), m = loadings.cols();
  const Index pairs = m * (m - 1) / 2;
  RotationConditions out;
  Matrix g(p, m), direction = Matrix::Zero(p, m), moved(p, m);
  criterion.evaluate(loadings, g);
  const Matrix inverse = orthogonal ? Matrix(Matrix::Identity(m, m)) : msem::inverse(correlations);
  const Matrix both = product(cross(loadings, g), inverse);  // Lambda'G Phi^-1
  const auto pack = [&](const Matrix& h, auto&& to) {
    Index at = 0;
    for (Index j = 0; j < m; ++j) {
      for (Index i = orthogonal ? j + 1 : 0; i < m; ++i) {
        if (i != j) to[at++] = orthogonal ? h(i, j) - h(j, i) : h(i, j);
      }
    }
  };
  out.values.resize(orthogonal ? pairs : 2 * pairs);
  out.jacobian.resize(out.values.size(), p * m + (orthogonal ? 0 : pairs));
  pack(both, out.values);
  Matrix h(m, m);
  for (Index b = 0; b < m; ++b) {
    for (Index a = 0; a < p; ++a) {
      direction(a, b) = 1;
      criterion.change(loadings, direction, moved);
      direction(a, b) = 0;
      set_cross(h, loadings, moved);
      for (Index k = 0; k < m; ++k) h(b, k) += g(a, k);
      pack(product(h, inverse), out.jacobian.col(b * p + a));
    }
  }
  Index to = p * m;
  for (Index b = 0; b < m && !orthogonal; ++b) {
    for (Index a = b + 1; a < m; ++a) {
      for (Index j = 0; j < m; ++j) {
        for (Index i = 0; i < m; ++i) h(i, j) = -both(i, a) * inverse(b, j) - both(i, b) * inverse(a, j);
      }
      pack(h, out.jacobian.col(to++));
    }
  }
  return out;
}

double loading_distance(const Matrix& a, const Matrix& b) {
  const Index m = a.cols();
  std::vector<bool> taken(m, false);
  double largest = 0;
  for (Index j = 0; j < m; ++j) {
    double best = std::numeric_limits<double>::infinity();
    Index which = -1;
    for (Index k = 0; k < m; ++k) {
      if (taken[k]) continue;
      double plus = 0, minus = 0;
      for (Index i = 0; i < a.rows(); ++i) {
        plus = std::max(plus, std::abs(a(i, j) - b(i, k)));
        minus = std::max(minus, std::abs(a(i, j) + b(i, k)));
      }
      if (std::min(plus, minus) < best) {
        best = std::min(plus, minus);
        which = k;
      }
    }
    taken[which] = true;
    largest = std::max(largest, best);
  }
  return largest;
}

std::vector<RotationMinimum> rotate(const Matrix& unrotated, const RotationCriterion& criterion,
                                    const RotationOptions& options) {
  const Index m = unrotated.cols();
  criterion.check(unrotated.rows(), m);
  std::vector<RotationMinimum> found;
  Descent descent(unrotated, criterion, options.orthogonal);
  for (int number = 0; number < std::max(options.starts, 1); ++number) {
    check_interrupt();
    RotationMinimum one =
        descent.from(start_of(m, options.seed, number), m == 1 ? 0 : options.max_iterations);
    if (m == 1) one.converged = true;
    if (!std::isfinite(one.value)) continue;
    const auto same = [&](const RotationMinimum& other) {
      return std::abs(one.value - other.value) <= 1e-6 * (std::abs(other.value) + 1e-3) &&
             loading_distance(other.loadings, one.loadings) < kSame;
    };
    const auto known = std::find_if(found.begin(), found.end(), same);
    if (known == found.end()) {
      found.push_back(std::move(one));
    } else {
      const int count = known->count + 1;
      if (one.converged && (!known->converged || one.value < known->value)) *known = std::move(one);
      known->count = count;
    }
    if (m == 1) break;
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const RotationMinimum& a, const RotationMinimum& b) { return a.value < b.value; });
  return found;
}

}  // namespace msem
