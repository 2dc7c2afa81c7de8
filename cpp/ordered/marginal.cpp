#include "ordered/marginal.hpp"

#include "base/interrupt.hpp"
#include "ordered/line.hpp"

namespace msem {

namespace {

constexpr double kLowest = 1e-6;  // variance of the effect, in units of the residual one
constexpr double kExact = 1e-14;  // decrement of the steps after the last one, where these are cheap
constexpr int kPolish = 8;

// The log-likelihood of one variable: an integral over its effect if it is ordered, else a normal density.
class MarginalLikelihood {
 public:
  MarginalLikelihood(const ClusterVariables& rows, ClusterVariable& v)
      : rows_(rows), v_(v), rule_(kLineNodes), modes_(rows.nclusters(), kNaN) {
    if (v.ordered) collect();
  }

  ClusterScores at(const Vector& theta) {
    ClusterScores out(rows_.weights());
    out.rows.setZero(rows_.nclusters(), v_.width);
    if (v_.ordered)
      ordered(theta, out);
    else
      continuous(theta, out);
    return out;
  }

 private:
  // Units of a cluster of one category with the same covariates.
  struct Cell {
    int category;
    double count;
    Index row;  // one of them
  };

  void collect() {
    cells_.resize(rows_.nclusters());
    std::vector<double> counts(v_.categories);
    for (Index j = 0; j < rows_.nclusters(); ++j) {
      const Index end = rows_.first(v_)[j + 1];
      for (Index r = rows_.first(v_)[j]; r < end;) {
        const Index begin = r, own = rows_.kind(v_, r);
        counts.assign(v_.categories, 0);
        for (; r < end && rows_.kind(v_, r) == own; ++r) {
          if (v_.known(r)) counts[v_.category(r)] += rows_.weight(v_, r);
        }
        for (Index s = begin; s < r; ++s) {
          if (!v_.known(s) || !(counts[v_.category(s)] > 0)) continue;
          cells_[j].push_back({v_.category(s), counts[v_.category(s)], s});
          counts[v_.category(s)] = 0;
        }
      }
    }
  }

  void ordered(const Vector& theta, ClusterScores& out) {
    const Vector cuts = theta.head(v_.categories - 1), shift = rows_.shift(v_, theta);
    const double variance = v_.effect() ? theta[v_.above] : 0;
    if (!v_.effect()) out.products.setZero(v_.width, v_.width);
    Line line(rule_);
    std::vector<LineCell> units;
    for (Index j = 0; j < rows_.nclusters(); ++j) {
      if (cells_[j].empty()) continue;
      units.clear();
      for (const Cell& cell : cells_[j]) units.push_back({cell.category, cell.count, shift[cell.row]});
      line.integrate(cuts, units, nullptr, 0, variance, 1, modes_[j]);
      out.value += rows_.weight(j) * line.value;
      for (std::size_t k = 0; k < units.size(); ++k) {
        const Cell& cell = cells_[j][k];
        if (v_.effect()) {
          rows_.add(v_, cell.row, j, line.cells[k], out.rows.row(j));
          continue;
        }
        // units are independent: the products of their scores are closer to the information
        Vector one = Vector::Zero(v_.width);
        rows_.add(v_, cell.row, j, line.cells[k], one);
        out.rows.row(j) += one.transpose();
        add_outer(out.products, rows_.weight(j) / cell.count, one, one);
      }
      if (v_.effect()) {
        out.rows(j, v_.above) = line.d_variance;
        v_.effect_mean[j] = line.effect;
        v_.effect_sd[j] = line.spread;
      }
    }
  }

  // The products are the expected information.
  void continuous(const Vector& theta, ClusterScores& out) const {
    const double residual = theta[v_.residual], variance = v_.effect() ? theta[v_.above] : 0;
    const Vector shift = rows_.shift(v_, theta);
    out.products.setZero(v_.width, v_.width);
    for (Index j = 0; j < rows_.nclusters(); ++j) {
      const ClusterSums s(rows_, v_, shift, j);
      if (!(s.n > 0)) continue;
      const ClusterNormal normal(s, 0, variance, residual);
      const double times = rows_.weight(j);
      out.value += times * normal.value;
      out.rows(j, v_.residual) = normal.d_residual;
      if (v_.effect()) out.rows(j, v_.above) = normal.d_variance;
      Vector total = Vector::Zero(v_.width);
      for (Index r = rows_.first(v_)[j]; r < rows_.first(v_)[j + 1]; ++r) {
        if (!v_.known(r)) continue;
        Vector one = Vector::Zero(v_.width);
        one[0] = 1;
        rows_.add_slopes(v_, r, j, 1, one);
        const double own = rows_.weight(v_, r);
        out.rows.row(j) += own * normal.shift(s, v_.values[r] - shift[r], residual) * one.transpose();
        add_outer(out.products, times * own / residual, one, one);
        total += own * one;
      }
      add_outer(out.products, -times * variance / (residual * normal.whole), total, total);
      const double w = normal.whole, half = 0.5 * times;
      out.products(v_.residual, v_.residual) += half * ((s.n - 1) / (residual * residual) + 1 / (w * w));
      if (v_.effect()) {
        out.products(v_.above, v_.above) += half * s.n * s.n / (w * w);
        out.products(v_.above, v_.residual) += half * s.n / (w * w);
        out.products(v_.residual, v_.above) += half * s.n / (w * w);
      }
    }
  }

  const ClusterVariables& rows_;
  ClusterVariable& v_;
  Hermite rule_;
  std::vector<double> modes_;             // of the effects, from one evaluation to the next
  std::vector<std::vector<Cell>> cells_;  // of clusters
};

double lowest(const ClusterVariable& v, const Vector& theta) {
  return kLowest * (v.ordered ? 1 : theta[v.residual]);
}

bool admissible(const ClusterVariable& v, const Vector& theta) {
  for (Index k = 1; k < v.categories - 1; ++k) {
    if (!(theta[k] > theta[k - 1])) return false;
  }
  if (!v.ordered && !(theta[v.residual] > 0)) return false;
  return !v.effect() || theta[v.above] >= lowest(v, theta);
}

// Ascends by the information (Fisher scoring, or Berndt, Hall, Hall & Hausman, 1974). Whether it got there.
bool ascend(const ClusterVariable& v, MarginalLikelihood& likelihood, Vector& theta, ClusterScores& now) {
  now = likelihood.at(theta);
  Matrix information = now.information();
  int polished = 0;
  for (int step = 0; step < kMostSteps; ++step) {
    check_interrupt();
    const Vector gradient = now.sum();
    const ScaledInverse inverse = scaled_inverse(information);
    if (!(inverse.pivot > 0)) return false;
    const Vector change = apply(inverse.inverse, gradient);
    const double decrement = gradient.dot(change);
    if (decrement < kExact) return true;
    // from here on values tell little: whole steps, as long as the score becomes smaller
    const bool settled = decrement < kSmallDecrement;
    double size = 1;
    bool moved = false;
    for (int half = 0; half < (settled ? 1 : 40); ++half, size *= 0.5) {
      const Vector next = theta + size * change;
      if (!admissible(v, next)) continue;
      ClusterScores there = likelihood.at(next);
      const bool better = settled ? there.sum().dot(apply(inverse.inverse, there.sum())) < decrement
                                  : there.value >= now.value - 1e-13 * std::abs(now.value);
      if (!better) continue;
      if (there.products.size() || !update_information(information, next - theta, gradient - there.sum()))
        information = there.information();
      theta = next;
      now = std::move(there);
      moved = true;
      break;
    }
    if (!moved) return decrement < 1e-6;
    if (settled && ++polished == kPolish) return true;
  }
  return false;
}

// False if a continuous variable does not vary.
bool set_start(const ClusterVariable& v, const Vector& thresholds, Vector& theta) {
  if (v.ordered) {
    theta.head(v.categories - 1) = thresholds * std::sqrt(v.effect() ? 1.2 : 1.0);
    if (v.effect()) theta[v.above] = 0.2;
    return true;
  }
  double sum = 0, squares = 0, count = 0;
  for (const double y : v.values) {
    if (std::isnan(y)) continue;
    sum += y;
    ++count;
  }
  if (!(count > 1)) return false;
  theta[0] = sum / count;
  for (const double y : v.values) squares += std::isnan(y) ? 0 : (y - theta[0]) * (y - theta[0]);
  const double variance = squares / count;
  theta[v.residual] = variance * (v.effect() ? 0.8 : 1);
  if (v.effect()) theta[v.above] = 0.2 * variance;
  return variance > 0;
}

// The information by differences of the scores.
Matrix curvature(const ClusterVariables& rows, const ClusterVariable& v, MarginalLikelihood& likelihood,
                 const Vector& theta) {
  const double unit = v.ordered ? 1 : std::sqrt(theta[v.residual]);
  Vector steps = Vector::Constant(v.width, kDifference * unit).cwiseQuotient(rows.covariate_sizes(v));
  if (!v.ordered) steps[v.residual] *= unit;
  if (v.effect()) steps[v.above] = std::min(kDifference * unit * unit, 0.5 * theta[v.above]);
  Matrix out(v.width, v.width);
  for (Index k = 0; k < v.width; ++k) {
    const double h = steps[k];
    Vector up = theta, down = theta;
    up[k] += h;
    down[k] -= h;
    out.col(k) = (likelihood.at(down).sum() - likelihood.at(up).sum()) / (2 * h);
  }
  return 0.5 * (out + out.transpose());
}

}  // namespace

Marginal estimate_marginal(const ClusterVariables& rows, ClusterVariable& v, const Vector& start) {
  Marginal out{false, Matrix::Zero(rows.nclusters(), v.width), Matrix::Zero(v.width, v.width)};
  Vector theta = Vector::Zero(v.width);
  if (!set_start(v, start, theta)) return out;
  MarginalLikelihood likelihood(rows, v);
  ClusterScores last;
  out.found = ascend(v, likelihood, theta, last);
  v.estimates = theta;
  v.shift = rows.shift(v, theta);
  if (rows.weighted_rows()) {
    if (out.found) out.bread = curvature(rows, v, likelihood, theta);
  } else {
    out.bread = last.products_of(v.width);
  }
  out.scores = std::move(last.rows);
  // covariates that separate the categories have their maximum at infinity
  if (v.ordered && v.shift.maxCoeff() - v.shift.minCoeff() > kFarthest) out.found = false;
  if (v.effect() && !(theta[v.above] > 2 * lowest(v, theta))) out.found = false;
  return out;
}

}  // namespace msem
