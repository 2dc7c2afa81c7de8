#include "after/ordered_draws.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/random.hpp"
#include "base/threads.hpp"
#include "likelihood/integrals/small.hpp"
#include "ordered/line.hpp"

namespace msem {

namespace {

constexpr Index kDrawChunk = 16;  // clusters of a piece of work
constexpr double kTurn = 6.283185307179586477;
constexpr double kNarrow = 1e-12;  // of a turn: a slice that is no wider is the point itself

// A standard normal variable above low and below high (Robert, 1995).
double truncated_normal(RandomStream& random, double low, double high) {
  if (high < -low) return -truncated_normal(random, -high, -low);  // more of it above 0 than below
  if (low <= 0) {
    if (high - low > 1) {
      for (;;) {
        const double x = random.normal();
        if (x > low && x < high) return x;
      }
    }
    for (;;) {  // the density is greatest at 0
      const double x = low + (high - low) * random.uniform();
      if (std::log(random.uniform()) < -0.5 * x * x) return x;
    }
  }
  const double rate = 0.5 * (low + std::sqrt(low * low + 4));
  if ((high - low) * rate > 1) {
    for (;;) {
      const double x = low - std::log(random.uniform()) / rate;
      if (x < high && std::log(random.uniform()) < -0.5 * (x - rate) * (x - rate)) return x;
    }
  }
  for (;;) {
    const double x = low + (high - low) * random.uniform();
    if (std::log(random.uniform()) < 0.5 * (low * low - x * x)) return x;
  }
}

// The chain of one cluster after another.
class Chain {
 public:
  explicit Chain(const ModeProblem& p)
      : p_(p),
        l_(p.unit.reach.cols()),
        r_(p.unit.top.cols()),
        u_(r_),
        old_u_(r_),
        other_u_(r_),
        old_e_(l_),
        other_e_(l_),
        g_top_(r_),
        h_(l_, l_),
        s_(r_, r_) {}

  void run(Index cluster, RandomStream& random, int sweeps, PosteriorDraw& out) {
    cluster_ = cluster;
    from_ = p_.first[cluster];
    n_ = p_.first[cluster + 1] - from_;
    e_ = Matrix::Zero(l_, n_);
    factor_.resize(l_ * l_, n_);
    solved_.resize(l_ * r_, n_);
    u_.setZero();
    for (int k = 0; k < sweeps; ++k) {
      for (Index i = 0; i < n_ && l_; ++i) {
        slice(random, e_.col(i).data(), old_e_, other_e_, [&] { return unit_log(i); });
      }
      if (r_) slice(random, u_.data(), old_u_, other_u_, [&] { return cluster_log(); });
      draw_normal(random);
    }
    report(out);
  }

 private:
  double predictor(Index a, Index i) const {
    double out = p_.shift(a, from_ + i);
    for (Index k = 0; k < l_; ++k) out += p_.unit.reach(a, k) * e_(k, i);
    for (Index k = 0; k < r_; ++k) out += p_.unit.top(a, k) * u_[k];
    return out;
  }
  double cluster_predictor(Index a) const {
    double out = p_.cluster_shift(a, cluster_);
    for (Index k = 0; k < r_; ++k) out += p_.cluster.top(a, k) * u_[k];
    return out;
  }
  static double category_log(const ModeItems& items, Index a, double y, double mean) {
    return category_kernel(items.cuts[a], static_cast<int>(y), mean, items.sd[a]).log;
  }
  double unit_log(Index i) const {
    double out = 0;
    for (Index a = 0; a < p_.categories.rows(); ++a) {
      const double y = p_.categories(a, from_ + i);
      if (!std::isnan(y)) out += category_log(p_.unit, a, y, predictor(a, i));
    }
    return out;
  }
  double cluster_log() const {
    double out = 0;
    for (Index i = 0; i < n_; ++i) {
      out += unit_log(i);
      for (Index c = 0; c < p_.root.rows(); ++c) out -= 0.5 * std::pow(rest(c, i), 2);
    }
    for (Index a = 0; a < p_.cluster_categories.rows(); ++a) {
      const double y = p_.cluster_categories(a, cluster_);
      if (!std::isnan(y)) out += category_log(p_.cluster, a, y, cluster_predictor(a));
    }
    return out;
  }
  double rest(Index c, Index i) const {
    double out = p_.zeta(c, from_ + i);
    for (Index k = 0; k < r_; ++k) out -= p_.root(c, k) * u_[k];
    return out;
  }

  // A point of the ellipse through `at` and a draw of standard normal variables, whose density is above a
  // level.
  template <class Log>
  void slice(RandomStream& random, double* at, Vector& old, Vector& other, const Log& log) {
    const Index n = old.size();
    std::copy_n(at, n, old.data());
    for (Index k = 0; k < n; ++k) other[k] = random.normal();
    const double level = log() + std::log(random.uniform());
    double angle = kTurn * random.uniform(), low = angle - kTurn, high = angle;
    while (high - low > kNarrow) {
      for (Index k = 0; k < n; ++k) at[k] = std::cos(angle) * old[k] + std::sin(angle) * other[k];
      if (log() > level) return;
      (angle < 0 ? low : high) = angle;
      angle = low + (high - low) * random.uniform();
    }
    std::copy_n(old.data(), n, at);
  }

  // What is cut into a category, given everything else, in residual standard deviations from its mean; plus
  // the mean.
  static double cut(RandomStream& random, const ModeItems& items, Index a, double y, double mean) {
    const Vector& cuts = items.cuts[a];
    const Index k = static_cast<Index>(y);
    const double sd = items.sd[a], none = std::numeric_limits<double>::infinity();
    const double low = k > 0 ? (cuts[k - 1] - mean) / sd : -none;
    const double high = k < cuts.size() ? (cuts[k] - mean) / sd : none;
    return mean + sd * truncated_normal(random, low, high);
  }

  // All effects from their normal distribution given what is cut, units eliminated first.
  void draw_normal(RandomStream& random) {
    s_.setIdentity();
    g_top_.setZero();
    for (Index a = 0; a < p_.cluster_categories.rows(); ++a) {
      const double y = p_.cluster_categories(a, cluster_);
      if (std::isnan(y)) continue;
      const double sd = p_.cluster.sd[a];
      const double away =
          (cut(random, p_.cluster, a, y, cluster_predictor(a)) - p_.cluster_shift(a, cluster_)) / sd;
      add_top(p_.cluster.top, a, sd, away);
    }
    for (Index i = 0; i < n_; ++i) {
      h_.setIdentity();
      old_e_.setZero();
      double* cross = solved_.col(i).data();
      std::fill_n(cross, l_ * r_, 0.0);
      for (Index a = 0; a < p_.categories.rows(); ++a) {
        const double y = p_.categories(a, from_ + i);
        if (std::isnan(y)) continue;
        const double sd = p_.unit.sd[a];
        const double away = (cut(random, p_.unit, a, y, predictor(a, i)) - p_.shift(a, from_ + i)) / sd;
        add_top(p_.unit.top, a, sd, away);
        for (Index x = 0; x < l_; ++x) {
          const double own = p_.unit.reach(a, x) / sd;
          old_e_[x] += own * away;
          for (Index z = 0; z < l_; ++z) h_(x, z) += own * p_.unit.reach(a, z) / sd;
          for (Index z = 0; z < r_; ++z) cross[x + z * l_] += own * p_.unit.top(a, z) / sd;
        }
      }
      for (Index c = 0; c < p_.root.rows(); ++c) {
        for (Index k = 0; k < r_; ++k) {
          g_top_[k] += p_.root(c, k) * p_.zeta(c, from_ + i);
          for (Index j = 0; j < r_; ++j) s_(k, j) += p_.root(c, k) * p_.root(c, j);
        }
      }
      factorise(h_.data(), l_, log_det_);
      std::copy_n(h_.data(), l_ * l_, factor_.col(i).data());
      solve_lower(h_.data(), l_, old_e_.data());
      for (Index z = 0; z < r_; ++z) solve_lower(h_.data(), l_, cross + z * l_);
      for (Index z = 0; z < r_; ++z) {
        for (Index k = 0; k < l_; ++k) g_top_[z] -= cross[k + z * l_] * old_e_[k];
        for (Index w = 0; w < r_; ++w) {
          for (Index k = 0; k < l_; ++k) s_(z, w) -= cross[k + z * l_] * cross[k + w * l_];
        }
      }
      e_.col(i) = old_e_;
    }
    factorise(s_.data(), r_, log_det_);
    u_ = g_top_;
    solve_lower(s_.data(), r_, u_.data());
    for (Index k = 0; k < r_; ++k) u_[k] += random.normal();
    solve_upper(s_.data(), r_, u_.data());
    for (Index i = 0; i < n_; ++i) {
      const double* cross = solved_.col(i).data();
      for (Index k = 0; k < l_; ++k) {
        e_(k, i) += random.normal();
        for (Index z = 0; z < r_; ++z) e_(k, i) -= cross[k + z * l_] * u_[z];
      }
      solve_upper(factor_.col(i).data(), l_, e_.col(i).data());
    }
  }

  void add_top(const Matrix& top, Index a, double sd, double away) {
    for (Index i = 0; i < r_; ++i) {
      g_top_[i] += away * top(a, i) / sd;
      for (Index j = 0; j < r_; ++j) s_(i, j) += top(a, i) * top(a, j) / (sd * sd);
    }
  }

  void report(PosteriorDraw& out) const {
    for (Index w = 0; w < p_.cluster_map.rows(); ++w) {
      double value = 0;
      for (Index k = 0; k < r_; ++k) value += p_.cluster_map(w, k) * u_[k];
      out.cluster(w, cluster_) = value;
    }
    for (Index i = 0; i < n_; ++i) {
      for (Index w = 0; w < p_.unit_map.rows(); ++w) {
        double value = 0;
        for (Index k = 0; k < l_; ++k) value += p_.unit_map(w, k) * e_(k, i);
        for (Index k = 0; k < r_; ++k) value += p_.unit_map(w, l_ + k) * u_[k];
        out.unit(w, from_ + i) = value;
      }
    }
  }

  const ModeProblem& p_;
  Index l_, r_, cluster_ = 0, from_ = 0, n_ = 0;
  double log_det_ = 0;
  Matrix e_, factor_, solved_;
  Vector u_, old_u_, other_u_, old_e_, other_e_, g_top_;
  Matrix h_, s_;
};

}  // namespace

PosteriorDraw posterior_draw(const ModeProblem& problem, std::uint64_t seed, std::uint32_t group,
                             int sweeps) {
  problem.require();
  if (problem.logistic) throw std::invalid_argument("draws are those of probit models");
  const Index J = problem.nclusters(), N = problem.first.back();
  PosteriorDraw out{Matrix(problem.unit_map.rows(), N), Matrix(problem.cluster_map.rows(), J)};
  in_threads((J + kDrawChunk - 1) / kDrawChunk, 0, [&](std::ptrdiff_t piece) {
    Chain chain(problem);
    for (Index j = piece * kDrawChunk; j < std::min<Index>((piece + 1) * kDrawChunk, J); ++j) {
      check_interrupt();
      RandomStream random(seed, static_cast<std::uint64_t>(j), group);
      chain.run(j, random, sweeps, out);
    }
  });
  return out;
}

}  // namespace msem
