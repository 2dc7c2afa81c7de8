#include "base/lattice.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/normal.hpp"

namespace msem {

namespace {

constexpr double kBetween = 0.5;                         // of knots, about 0
constexpr double kFirst = -2.75;                         // where the straight ends begin, and minus it
constexpr double kSmooth = 0.4;                          // scale that steps are smoothed with
constexpr double kFlattest = 0.02, kFlattestEnd = 0.05,  // least slopes, in units of the average one,
    kFlattestFirst = 0.4;                                // and while little is known
constexpr double kStep = 0.8, kRoughStep = 1.2;          // of each half of the lattice
constexpr double kGone = 24, kRoughGone = 12;            // fall that ends it, in logarithms
// Difference of the halves, by dimensions; the error of both together is about its square.
constexpr std::array<double, 3> kSame = {1e-6, 1e-5, 1e-4};
constexpr double kCoarse = 1e-2;                          // beyond which it is no integral
constexpr int kRounds = 8;                                // of looking for the scales
constexpr double kOff = 0.7, kNarrow = 0.6, kWide = 1.6;  // mean and standard deviation that ask for another
constexpr double kDependent = 0.999;                      // greatest share of correlations that is kept
constexpr std::array<std::size_t, 3> kMost = {4000, 30000, 60000};
constexpr std::array<std::size_t, 3> kFew = {200, 1000, 8000};  // while the scales are looked for
constexpr int kTries = 30;
constexpr double kWider = 2, kNarrower = 0.3, kAlone = 0.7;  // share of a point that is alone
constexpr int kReach = 511;                                  // of a point, in each direction
constexpr std::size_t kTable = 1 << 12;

double knot(int k) { return kBetween * (k - 5); }

std::uint32_t hash(std::uint32_t key) {
  key *= 2654435761U;
  return key ^ (key >> 15);
}

}  // namespace

bool Lattice::Scale::set(const double* values, const double* shares, const std::vector<Index>& order,
                         Index stride, bool first) {
  static const std::array<double, kKnots> at_knot = [] {
    std::array<double, kKnots> out{};
    for (int k = 0; k < kKnots; ++k) out[k] = normal_cdf(knot(k));
    return out;
  }();
  jumps.fill(0);
  double below = 0;
  median = values[order[0] * stride];
  int k = 0;
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    const double here = values[order[i] * stride], jump = values[order[i + 1] * stride] - here;
    below += shares[order[i]];
    if (below < 0.5) median = here + jump;
    if (!(below > at_knot[0])) continue;
    while (k + 1 < kKnots && below >= at_knot[k + 1]) ++k;
    if (k + 1 == kKnots) break;
    const double past = (below - at_knot[k]) / (at_knot[k + 1] - at_knot[k]);
    jumps[k] += (1 - past) * jump;
    jumps[k + 1] += past * jump;
  }
  double average = std::accumulate(jumps.begin(), jumps.end(), 0.0) / kKnots;
  if (!(average > 0)) {
    // all of it is at one value: within what is next to it
    double gap = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < order.size(); ++i) {
      const double off = std::abs(values[order[i] * stride] - median);
      if (off > 0) gap = std::min(gap, off);
    }
    average = kNarrower * kBetween * gap;
    jumps.fill(average);
  }
  if (!(average > 0) || !std::isfinite(average)) return false;
  const double least = average * (first ? kFlattestFirst : kFlattest),
               least_end = average * (first ? kFlattestFirst : kFlattestEnd);
  for (double& jump : jumps) jump = std::max(jump, least);
  // knots at the ends get half of what is theirs
  low = std::max((jumps[1] + jumps[2]) / 2, least_end) / kBetween;
  high = std::max((jumps[kKnots - 2] + jumps[kKnots - 3]) / 2, least_end) / kBetween;
  jumps[0] = low * kBetween;
  jumps[kKnots - 1] = high * kBetween;
  centre();
  return std::isfinite(start);
}

void Lattice::Scale::stretch(double by, double around) {
  for (double& jump : jumps) jump *= by;
  low *= by;
  high *= by;
  median = around;
  centre();
}

void Lattice::Scale::centre() {
  double slope;
  start = 0;
  start = median - at(0, slope);
}

// Steps are smoothed by logistic densities, whose exponentials are multiples of one.
double Lattice::Scale::at(double z, double& log_slope) const {
  static const std::array<double, kKnots + 2> at_knot = [] {
    std::array<double, kKnots + 2> out{};
    for (int k = 0; k < kKnots + 2; ++k)
      out[k] = std::exp((k == 0 ? kFirst : k > kKnots ? -kFirst : knot(k - 1)) / kSmooth);
    return out;
  }();
  const double e = std::exp(std::min(std::max(z / kSmooth, -300.0), 300.0));
  double out = start, slope = 0;
  for (int k = 0; k < kKnots; ++k) {
    const double whole = 1 / (e + at_knot[k + 1]), above = e * whole;
    out += jumps[k] * above;
    slope += jumps[k] * above * at_knot[k + 1] * whole;
  }
  // straight ends
  const double first = at_knot[0], last = at_knot[kKnots + 1];
  out += kSmooth * (high * std::log1p(e / last) - low * std::log1p(first / e));
  log_slope = std::log(slope / kSmooth + high * e / (e + last) + low * first / (e + first));
  return out;
}

bool Lattice::set_scales(const double* at, const double* shares, Index n, bool first) {
  order_.resize(n);
  for (int i = 0; i < d_; ++i) {
    std::iota(order_.begin(), order_.end(), Index{0});
    std::sort(order_.begin(), order_.end(), [&](Index a, Index b) {
      const double x = at[a * d_ + i], y = at[b * d_ + i];
      return x < y || (x == y && a < b);
    });
    if (!scales_[i].set(at + i, shares, order_, d_, first)) return false;
  }
  double mean[kDimensions] = {}, cov[kDimensions * kDimensions] = {};
  for (Index k = 0; k < n; ++k) {
    for (int i = 0; i < d_; ++i) mean[i] += shares[k] * at[k * d_ + i];
  }
  for (Index k = 0; k < n; ++k) {
    for (int i = 0; i < d_; ++i) {
      for (int j = 0; j <= i; ++j)
        cov[j * d_ + i] += shares[k] * (at[k * d_ + i] - mean[i]) * (at[k * d_ + j] - mean[j]);
    }
  }
  root_.fill(0);
  for (int j = 0; j < d_; ++j) {
    for (int i = j; i < d_; ++i) {
      const double scale = std::sqrt(cov[i * d_ + i] * cov[j * d_ + j]);
      double rest = i == j ? 1 : kDependent * cov[j * d_ + i] / scale;
      for (int k = 0; k < j; ++k) rest -= root_[k * d_ + i] * root_[k * d_ + j];
      if (i == j && !(rest > 0)) return false;
      root_[j * d_ + i] = i == j ? std::sqrt(rest) : rest / root_[j * d_ + j];
      if (!std::isfinite(root_[j * d_ + i])) return false;
    }
  }
  return true;
}

// False if the point is known.
bool Lattice::add(const Point& point) {
  std::uint32_t key = 0;
  for (int i = 0; i < d_; ++i) key = key * 1024 + static_cast<std::uint32_t>(point[i] + kReach);
  ++key;
  const auto look = [&](std::uint32_t own) {
    std::size_t at = hash(own) & (seen_.size() - 1);
    while (seen_[at] && seen_[at] != own) at = (at + 1) & (seen_.size() - 1);
    return at;
  };
  const std::size_t at = look(key);
  if (seen_[at]) return false;
  seen_[at] = key;
  points_.push_back(point);
  if (2 * points_.size() > seen_.size()) {
    std::vector<std::uint32_t> old(2 * seen_.size(), 0);
    old.swap(seen_);
    for (const std::uint32_t own : old) {
      if (own) seen_[look(own)] = own;
    }
  }
  return true;
}

// The points of a lattice, from the centre outwards.
bool Lattice::visit(const LogIntegrand& log_f, double step, double gone, std::size_t most) {
  step_ = step;
  top_ = -std::numeric_limits<double>::infinity();
  seen_.assign(kTable, 0);
  points_.clear();
  places_.clear();
  logs_.clear();
  log_slopes_.clear();
  add({});
  double log_det = 0;
  for (int i = 0; i < d_; ++i) log_det += std::log(root_[i * d_ + i] * step);
  for (std::size_t q = 0; q < points_.size(); ++q) {
    const Point point = points_[q];
    double place[kDimensions], log_scale = log_det - std::log(2.0);
    for (int i = 0; i < d_; ++i) {
      double z = 0, log_slope;
      for (int j = 0; j <= i; ++j) z += root_[j * d_ + i] * 0.5 * step * point[j];
      place[i] = scales_[i].at(z, log_slope);
      log_scale += log_slope;
    }
    const double value = log_f(place) + log_scale;
    places_.insert(places_.end(), place, place + d_);
    log_slopes_.push_back(log_scale);
    logs_.push_back(std::isnan(value) ? -std::numeric_limits<double>::infinity() : value);
    top_ = std::max(top_, logs_.back());
    if (!(logs_.back() > top_ - gone)) continue;
    for (int corner = 0; corner < 1 << d_; ++corner) {
      Point next = point;
      for (int i = 0; i < d_; ++i) {
        next[i] += corner >> i & 1 ? 1 : -1;
        if (std::abs(next[i]) > kReach) return false;
      }
      add(next);
    }
    if (points_.size() > most) return false;
  }
  if (!std::isfinite(top_)) return false;
  shares_.resize(logs_.size());
  halves_[0] = halves_[1] = 0;
  for (std::size_t q = 0; q < logs_.size(); ++q) {
    shares_[q] = std::exp(logs_[q] - top_);
    halves_[points_[q][0] & 1] += shares_[q];
  }
  for (double& share : shares_) share /= halves_[0] + halves_[1];
  return true;
}

// Whether the normal variables have about the moments they should have.
bool Lattice::centred() const {
  for (int i = 0; i < d_; ++i) {
    double mean = 0, square = 0;
    for (std::size_t q = 0; q < points_.size(); ++q) {
      const double x = 0.5 * step_ * points_[q][i];
      mean += shares_[q] * x;
      square += shares_[q] * x * x;
    }
    const double sd = std::sqrt(square - mean * mean);
    if (!(std::abs(mean) < kOff && sd > kNarrow && sd < kWide)) return false;
  }
  return true;
}

// Scales that are so narrow that there are too many points are made wider, those that are so wide that there
// is one only narrower, around it.
bool Lattice::fit_scales(const LogIntegrand& log_f) {
  for (int tries = 0; tries < kTries; ++tries) {
    if (!visit(log_f, kRoughStep, kRoughGone, kFew[d_ - 1])) {
      if (!std::isfinite(top_)) return false;
      for (int i = 0; i < d_; ++i) scales_[i].stretch(kWider, scales_[i].median);
      continue;
    }
    const auto best = std::max_element(shares_.begin(), shares_.end());
    if (*best < kAlone) return true;
    for (int i = 0; i < d_; ++i) scales_[i].stretch(kNarrower, places_[(best - shares_.begin()) * d_ + i]);
  }
  return false;
}

bool Lattice::find(const LogIntegrand& log_f, int d, const double* at, const double* shares, Index n,
                   bool rough) {
  d_ = d;
  const double gone = rough ? kRoughGone : kGone;
  double step = rough ? kRoughStep : kStep;
  std::vector<double> before;
  for (int round = 0; round < kRounds; ++round) {
    if (!set_scales(at, shares, n, round == 0)) return false;
    if (!fit_scales(log_f)) return false;
    if ((rough || round > 0) && centred()) break;
    before = places_;
    at = before.data();
    shares = shares_.data();
    n = static_cast<Index>(points_.size());
  }
  if (!rough && !visit(log_f, step, gone, kMost[d - 1])) return false;
  const auto off = [&] { return std::abs(halves_[0] - halves_[1]) / (halves_[0] + halves_[1]); };
  while (!rough && 2 * off() > kSame[d - 1]) {
    const double last = off();
    step *= std::sqrt(0.5);
    if (visit(log_f, step, gone, kMost[d - 1])) continue;
    step *= std::sqrt(2.0);
    if (last > kCoarse || !visit(log_f, step, gone, kMost[d - 1])) return false;
    break;
  }
  Index count = 0;
  for (const double log : logs_) count += log > top_ - gone;
  nodes.resize(d * count);
  log_weights.resize(count);
  Index k = 0;
  for (std::size_t q = 0; q < logs_.size(); ++q) {
    if (!(logs_[q] > top_ - gone)) continue;
    std::copy_n(&places_[q * d], d, nodes.data() + k * d);
    log_weights[k++] = log_slopes_[q];
  }
  return true;
}

}  // namespace msem
