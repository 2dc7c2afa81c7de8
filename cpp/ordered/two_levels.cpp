#include "ordered/two_levels.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "ordered/rectangle.hpp"

namespace msem {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kSingle = 15;         // nodes for one variable
constexpr int kCoarse = 7;          // and in each direction for two, while they are estimated
constexpr int kFine = 9;            // and at the end
constexpr double kLowest = 1e-6;    // between variance, in units of the within one
constexpr double kBound = 0.999;    // largest correlation
constexpr double kSettled = 1e-10;  // decrement to stop at: 1e-5 of the standard errors
constexpr double kNear = 1e-5;      // while nodes are coarse
constexpr int kSteps = 200;

// Nodes and log weights, times exp(x^2 / 2), of Gauss-Hermite quadrature for N(0, 1), from the eigenvalues of
// its Jacobi matrix (Golub & Welsch, 1969).
struct Rule {
  explicit Rule(int n) : nodes(n), log_weights(n) {
    Matrix jacobi = Matrix::Zero(n, n);
    for (int i = 1; i < n; ++i) jacobi(i, i - 1) = jacobi(i - 1, i) = std::sqrt(static_cast<double>(i));
    const SymmetricEigen eigen(jacobi);
    for (int i = 0; i < n; ++i) {
      nodes[i] = eigen.values[i];
      log_weights[i] = 2 * std::log(std::abs(eigen.vectors(0, i))) + 0.5 * nodes[i] * nodes[i];
    }
  }
  std::vector<double> nodes, log_weights;
};

double log_sum(const std::vector<double>& values, std::vector<double>& shares) {
  const double most = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (std::size_t q = 0; q < values.size(); ++q) sum += shares[q] = std::exp(values[q] - most);
  for (double& share : shares) share /= sum;
  return most + std::log(sum);
}

// A cluster's counts of the cells that occur in it.
struct Cell {
  int one, other;
  double count;
};

// Log-likelihoods of all clusters and their derivatives, a row for each cluster.
struct Scores {
  double value = 0;
  Matrix rows;
};

// Ascends by the products of scores, which stand for the information (Berndt, Hall, Hall & Hausman, 1974),
// within what `inside` allows. Whether it got there.
template <class Evaluate, class Inside>
bool ascend(Vector& theta, const Evaluate& evaluate, const Inside& inside, double settled = kSettled) {
  Scores now = evaluate(theta);
  for (int step = 0; step < kSteps; ++step) {
    check_interrupt();
    const Vector gradient = now.rows.colwise().sum().transpose();
    Matrix products = cross(now.rows, now.rows);
    products.diagonal() *= 1 + 1e-12;
    Cholesky chol;
    if (!chol.compute(products)) return false;
    const Vector change = chol.solve(gradient);
    if (gradient.dot(change) < settled) return true;
    double size = 1;
    bool moved = false;
    for (int half = 0; half < 40; ++half, size *= 0.5) {
      const Vector next = theta + size * change;
      if (!inside(next)) continue;
      Scores there = evaluate(next);
      if (!(there.value >= now.value - 1e-13 * std::abs(now.value))) continue;
      theta = next;
      now = std::move(there);
      moved = true;
      break;
    }
    if (!moved) return gradient.dot(change) < 1e-6;
  }
  return false;
}

class TwoLevels {
 public:
  TwoLevels(const OrderedRows& rows, const std::vector<Vector>& starts)
      : rows_(rows),
        starts_(starts),
        p_(rows.values.cols()),
        single_(kSingle),
        coarse_(kCoarse),
        fine_(kFine) {
    const Index n = rows.values.rows();
    if (static_cast<Index>(rows.categories.size()) != p_ || static_cast<Index>(starts.size()) != p_ ||
        static_cast<Index>(rows.cluster.size()) != n || rows.covariates.cols() || !n)
      throw std::invalid_argument("rows, categories and clusters do not go together");
    nclusters_ = 1 + *std::max_element(rows.cluster.begin(), rows.cluster.end());
    Index at = 0;
    for (Index i = 0; i < p_; ++i) {
      const int k = rows.categories[i];
      if (k < 2 || starts[i].size() != k - 1)
        throw std::invalid_argument(
            "an ordered variable needs two categories and the starts of its thresholds");
      for (Index r = 0; r < n; ++r) {
        const double y = rows.values(r, i);
        if (!(y >= 0 && y < k && y == std::floor(y)))
          throw std::invalid_argument("a category is out of range");
      }
      out_.first.push_back(at);
      at += k;
    }
    out_.first.push_back(at);
    const Index m = at + p_ * (p_ - 1);
    out_.estimates.setZero(m);
    scores_.setZero(nclusters_, m);
    mean_.setZero(nclusters_, p_);
    sd_.setZero(nclusters_, p_);
  }

  FirstStage run() {
    std::vector<char> settled(p_, 1);
    in_threads(p_, 0, [&](std::ptrdiff_t i) { settled[i] = variable(i); });
    for (Index i = 0; i < p_; ++i) {
      if (!settled[i]) out_.unsettled.push_back(i);
    }
    const Index m = out_.estimates.size();
    out_.bread.setZero(m, m);
    if (!out_.unsettled.empty()) return std::move(out_);
    for (Index i = 0; i < p_; ++i) {
      const Index at = out_.first[i], width = out_.first[i + 1] - at;
      out_.bread.block(at, at, width, width) =
          cross(scores_.middleCols(at, width), scores_.middleCols(at, width));
    }
    std::vector<std::pair<Index, Index>> pairs;
    for (Index j = 0; j < p_; ++j) {
      for (Index i = j + 1; i < p_; ++i) pairs.push_back({i, j});
    }
    const Index count = static_cast<Index>(pairs.size());
    std::vector<char> bound(count, 0);
    in_threads(count, 0, [&](std::ptrdiff_t k) { bound[k] = pair(k, pairs[k].first, pairs[k].second); });
    for (Index k = 0; k < count; ++k) {
      if (bound[k]) out_.at_bound.push_back(k);
    }
    out_.meat = cross(scores_, scores_);
    return std::move(out_);
  }

 private:
  static double threshold(const Vector& cuts, int k) {
    if (k <= 0) return -kInfinity;
    return k > cuts.size() ? kInfinity : cuts[k - 1];
  }

  // -- one variable ----------------------------------------------------------------------------------------

  bool variable(Index i) {
    const int categories = rows_.categories[i];
    Matrix counts = Matrix::Zero(categories, nclusters_);
    for (Index r = 0; r < rows_.values.rows(); ++r)
      counts(static_cast<int>(rows_.values(r, i)), rows_.cluster[r]) += 1;
    Vector theta(categories);
    theta.head(categories - 1) = starts_[i] * std::sqrt(1.2);
    theta[categories - 1] = 0.2;
    const auto evaluate = [&](const Vector& at) { return single(i, counts, at); };
    const auto inside = [&](const Vector& at) {
      for (Index k = 1; k + 1 < categories; ++k) {
        if (!(at[k] > at[k - 1])) return false;
      }
      return at[categories - 1] >= kLowest;
    };
    const bool found = ascend(theta, evaluate, inside);
    out_.estimates.segment(out_.first[i], categories) = theta;
    scores_.middleCols(out_.first[i], categories) = evaluate(theta).rows;
    return found && theta[categories - 1] > 2 * kLowest;
  }

  Scores single(Index i, const Matrix& counts, const Vector& theta) {
    const int categories = static_cast<int>(counts.rows());
    const Vector cuts = theta.head(categories - 1);
    const double v = theta[categories - 1];
    Scores out;
    out.rows.setZero(nclusters_, categories);
    std::vector<double> logs(kSingle), shares(kSingle), at(kSingle);
    for (Index j = 0; j < nclusters_; ++j) {
      // mode and curvature of the log-concave integrand
      double b = mean_(j, i), spread = 1;
      for (int step = 0; step < 50; ++step) {
        double slope = -b / v, curvature = -1 / v;
        for (int k = 0; k < categories; ++k) {
          if (!(counts(k, j) > 0)) continue;
          const double z1 = threshold(cuts, k + 1) - b, z2 = threshold(cuts, k) - b;
          const double p = std::max(normal_between(z2, z1), kLeastProbability);
          const double u = normal_density(z1) / p, l = normal_density(z2) / p;
          const double g = l - u;
          slope += counts(k, j) * g;
          curvature += counts(k, j) * ((std::isinf(z2) ? 0 : z2 * l) - (std::isinf(z1) ? 0 : z1 * u) - g * g);
        }
        spread = std::sqrt(-1 / curvature);
        const double change = std::min(std::max(-slope / curvature, -2.0), 2.0);
        b += change;
        if (std::abs(change) < 1e-9) break;
      }
      for (int q = 0; q < kSingle; ++q) {
        at[q] = b + spread * single_.nodes[q];
        logs[q] = single_.log_weights[q] + std::log(spread) - 0.5 * at[q] * at[q] / v - 0.5 * std::log(v);
        for (int k = 0; k < categories; ++k) {
          if (counts(k, j) > 0)
            logs[q] +=
                counts(k, j) *
                std::log(std::max(normal_between(threshold(cuts, k) - at[q], threshold(cuts, k + 1) - at[q]),
                                  kLeastProbability));
        }
      }
      out.value += log_sum(logs, shares);
      double first = 0, second = 0;
      for (int q = 0; q < kSingle; ++q) {
        first += shares[q] * at[q];
        second += shares[q] * at[q] * at[q];
        for (int k = 0; k < categories; ++k) {
          if (!(counts(k, j) > 0)) continue;
          const double z1 = threshold(cuts, k + 1) - at[q], z2 = threshold(cuts, k) - at[q];
          const double weight =
              shares[q] * counts(k, j) / std::max(normal_between(z2, z1), kLeastProbability);
          if (k + 1 < categories) out.rows(j, k) += weight * normal_density(z1);
          if (k > 0) out.rows(j, k - 1) -= weight * normal_density(z2);
        }
      }
      out.rows(j, categories - 1) = 0.5 * (second - v) / (v * v);
      mean_(j, i) = first;
      sd_(j, i) = std::sqrt(std::max(second - first * first, 1e-12));
    }
    return out;
  }

  // -- pairs -----------------------------------------------------------------------------------------------

  struct Placed {
    double mean[2], root[3];  // lower triangle: (0,0), (1,0), (1,1)
  };

  bool pair(Index k, Index i, Index j) {
    const Index own = out_.first[p_] + 2 * k;
    const int rows = rows_.categories[i], cols = rows_.categories[j];
    std::vector<std::vector<Cell>> cells(nclusters_);
    {
      std::vector<Matrix> counts(nclusters_, Matrix::Zero(rows, cols));
      for (Index r = 0; r < rows_.values.rows(); ++r)
        counts[rows_.cluster[r]](static_cast<int>(rows_.values(r, i)),
                                 static_cast<int>(rows_.values(r, j))) += 1;
      for (Index c = 0; c < nclusters_; ++c) {
        for (int b = 0; b < cols; ++b) {
          for (int a = 0; a < rows; ++a) {
            if (counts[c](a, b) > 0) cells[c].push_back({a, b, counts[c](a, b)});
          }
        }
      }
    }
    std::vector<Placed> placed(nclusters_);
    for (Index c = 0; c < nclusters_; ++c)
      placed[c] = {{mean_(c, i), mean_(c, j)}, {sd_(c, i), 0, sd_(c, j)}};
    const double unit =
        std::sqrt(out_.estimates[out_.first[i + 1] - 1] * out_.estimates[out_.first[j + 1] - 1]);
    Vector theta = Vector::Zero(2);
    refine(theta, i, j, cells, placed, unit);
    const Scores last = both(i, j, cells, theta, fine_, placed, true, nullptr);
    out_.estimates.segment(own, 2) = theta;
    scores_.middleCols(own, 2) = last.rows.leftCols(2);
    const Matrix products = cross(last.rows.leftCols(2), last.rows);
    out_.bread.block(own, own, 2, 2) = products.leftCols(2);
    out_.bread.block(own, out_.first[i], 2, rows) = products.middleCols(2, rows);
    out_.bread.block(own, out_.first[j], 2, cols) = products.middleCols(2 + rows, cols);
    return std::abs(theta[0]) > 0.998 || std::abs(theta[1]) > 0.998 * unit;
  }

  // Ascends with nodes that are placed anew after every step. A step may not leave the correlations much
  // closer to 1 than nodes are fit for: where the distribution is far narrower than they are apart, a node
  // that happens to lie on it makes a maximum of its own.
  void refine(Vector& theta, Index i, Index j, const std::vector<std::vector<Cell>>& cells,
              std::vector<Placed>& placed, double unit) const {
    const auto room = [&](const Vector& at) {
      const double between = at[1] / unit;
      return std::array<double, 2>{1 - at[0] * at[0], 1 - between * between};
    };
    const auto near = [&](const Vector& from, const Vector& to) {
      if (std::abs(to[0]) > kBound || std::abs(to[1]) > kBound * unit) return false;
      const auto before = room(from), after = room(to);
      return after[0] >= 0.5 * before[0] && after[1] >= 0.5 * before[1];
    };
    bool fine = false;
    std::vector<Placed> moved(placed.size());
    for (int step = 0; step < kSteps; ++step) {
      check_interrupt();
      const Rule& rule = fine ? fine_ : coarse_;
      const Scores now = both(i, j, cells, theta, rule, placed, false, &moved);
      const Vector gradient = now.rows.colwise().sum().transpose();
      Cholesky chol;
      if (!chol.compute(cross(now.rows, now.rows))) return;
      const Vector change = chol.solve(gradient);
      const double decrement = gradient.dot(change);
      if (decrement < (fine ? kSettled : kNear)) {
        if (fine) return;
        fine = true;
        placed = moved;
        continue;
      }
      double size = 1;
      bool accepted = false;
      for (int half = 0; half < 30 && !accepted; ++half, size *= 0.5) {
        const Vector next = theta + size * change;
        if (!near(theta, next)) continue;
        const Scores there = both(i, j, cells, next, rule, placed, false, &moved);
        if (!(there.value >= now.value - 1e-12 * std::abs(now.value))) continue;
        theta = next;
        accepted = true;
      }
      if (!accepted) {
        if (fine) return;
        fine = true;
      }
      placed = moved;
    }
  }

  // Derivatives with respect to correlation and between covariance; `all`: and to the parameters of both
  // variables. `moved` takes the mean and the root of the covariance matrix of each cluster's effects.
  Scores both(Index i, Index j, const std::vector<std::vector<Cell>>& cells, const Vector& theta,
              const Rule& rule, const std::vector<Placed>& placed, bool all,
              std::vector<Placed>* moved) const {
    const int rows = rows_.categories[i], cols = rows_.categories[j];
    const Vector cuts_a = out_.estimates.segment(out_.first[i], rows - 1);
    const Vector cuts_c = out_.estimates.segment(out_.first[j], cols - 1);
    const double va = out_.estimates[out_.first[i + 1] - 1], vc = out_.estimates[out_.first[j + 1] - 1];
    const double rho = theta[0], cb = theta[1], det = va * vc - cb * cb;
    const int n = static_cast<int>(rule.nodes.size());
    const std::size_t grid = static_cast<std::size_t>(n) * n;
    std::vector<double> logs(grid), shares(grid), ba(grid), bc(grid), slope(grid);
    std::vector<double> p(cells.empty() ? 0 : static_cast<std::size_t>(rows) * cols * grid);
    Matrix corner(rows + 1, cols + 1);
    Scores out;
    out.rows.setZero(nclusters_, all ? 2 + rows + cols : 2);
    for (Index c = 0; c < nclusters_; ++c) {
      const Placed& place = placed[c];
      const double log_root = std::log(place.root[0] * place.root[2]);
      for (int s = 0; s < n; ++s) {
        for (int t = 0; t < n; ++t) {
          const std::size_t q = static_cast<std::size_t>(s) * n + t;
          const double x = rule.nodes[s], y = rule.nodes[t];
          ba[q] = place.mean[0] + place.root[0] * x;
          bc[q] = place.mean[1] + place.root[1] * x + place.root[2] * y;
          const double form = (vc * ba[q] * ba[q] - 2 * cb * ba[q] * bc[q] + va * bc[q] * bc[q]) / det;
          logs[q] = rule.log_weights[s] + rule.log_weights[t] + log_root - 0.5 * form - 0.5 * std::log(det);
          slope[q] = 0;
          set_corners(corner, cuts_a, cuts_c, ba[q], bc[q], rho);
          for (const Cell& cell : cells[c]) {
            const double value = probability(corner, cuts_a, cuts_c, ba[q], bc[q], rho, cell);
            p[(static_cast<std::size_t>(cell.one) + static_cast<std::size_t>(cell.other) * rows) * grid + q] =
                value;
            logs[q] += cell.count * std::log(value);
            slope[q] += cell.count * correlation_slope(threshold(cuts_a, cell.one + 1) - ba[q],
                                                       threshold(cuts_a, cell.one) - ba[q],
                                                       threshold(cuts_c, cell.other + 1) - bc[q],
                                                       threshold(cuts_c, cell.other) - bc[q], rho, value);
          }
        }
      }
      out.value += log_sum(logs, shares);
      double ma = 0, mc = 0, aa = 0, ac = 0, cc = 0;
      for (std::size_t q = 0; q < grid; ++q) {
        ma += shares[q] * ba[q];
        mc += shares[q] * bc[q];
        aa += shares[q] * ba[q] * ba[q];
        ac += shares[q] * ba[q] * bc[q];
        cc += shares[q] * bc[q] * bc[q];
        out.rows(c, 0) += shares[q] * slope[q];
      }
      // D = inverse (E[bb'] - Sigma) inverse / 2
      const double ia = vc / det, ic = va / det, x = -cb / det;
      const double ea = aa - va, ex = ac - cb, ec = cc - vc;
      const double la = ia * ea + x * ex, lx = ia * ex + x * ec, ma2 = x * ea + ic * ex,
                   mx = x * ex + ic * ec;
      out.rows(c, 1) = la * x + lx * ic;
      if (moved) {
        Placed& next = (*moved)[c];
        const double s11 = std::max(aa - ma * ma, 1e-12), s21 = ac - ma * mc, s22 = cc - mc * mc;
        next.mean[0] = ma;
        next.mean[1] = mc;
        next.root[0] = std::sqrt(s11);
        next.root[1] = s21 / next.root[0];
        next.root[2] = std::sqrt(std::max(s22 - next.root[1] * next.root[1], 1e-12));
      }
      if (!all) continue;
      out.rows(c, 2 + rows - 1) = 0.5 * (la * ia + lx * x);
      out.rows(c, 2 + rows + cols - 1) = 0.5 * (ma2 * x + mx * ic);
      for (const Cell& cell : cells[c]) {
        const double* value = p.data() + (cell.one + static_cast<std::size_t>(cell.other) * rows) * grid;
        for (std::size_t q = 0; q < grid; ++q) {
          const PairSlope s =
              rectangle_slope(threshold(cuts_a, cell.one + 1) - ba[q], threshold(cuts_a, cell.one) - ba[q],
                              threshold(cuts_c, cell.other + 1) - bc[q],
                              threshold(cuts_c, cell.other) - bc[q], rho, value[q]);
          const double weight = shares[q] * cell.count;
          if (cell.one + 1 < rows) out.rows(c, 2 + cell.one) += weight * s.one.upper;
          if (cell.one > 0) out.rows(c, 2 + cell.one - 1) += weight * s.one.lower;
          if (cell.other + 1 < cols) out.rows(c, 2 + rows + cell.other) += weight * s.other.upper;
          if (cell.other > 0) out.rows(c, 2 + rows + cell.other - 1) += weight * s.other.lower;
        }
      }
    }
    return out;
  }

  // Distribution function at all corners of the cells.
  static void set_corners(Matrix& corner, const Vector& a, const Vector& c, double ba, double bc,
                          double rho) {
    for (Index l = 0; l <= c.size() + 1; ++l) {
      for (Index k = 0; k <= a.size() + 1; ++k)
        corner(k, l) =
            binormal_cdf(threshold(a, static_cast<int>(k)) - ba, threshold(c, static_cast<int>(l)) - bc, rho);
    }
  }

  static double probability(const Matrix& corner, const Vector& a, const Vector& c, double ba, double bc,
                            double rho, const Cell& cell) {
    const int k = cell.one, l = cell.other;
    const double p = corner(k + 1, l + 1) - corner(k, l + 1) - corner(k + 1, l) + corner(k, l);
    if (p > 1e-10) return p;
    return std::max(binormal_between(threshold(a, k + 1) - ba, threshold(a, k) - ba, threshold(c, l + 1) - bc,
                                     threshold(c, l) - bc, rho),
                    kLeastProbability);
  }

  const OrderedRows& rows_;
  const std::vector<Vector>& starts_;
  Index p_, nclusters_ = 0;
  Rule single_, coarse_, fine_;
  Matrix scores_;     // of clusters, for all parameters
  Matrix mean_, sd_;  // of each cluster's effect given one variable
  FirstStage out_;
};

}  // namespace

FirstStage two_level_first_stage(const OrderedRows& rows, const std::vector<Vector>& starts) {
  return TwoLevels(rows, starts).run();
}

}  // namespace msem
