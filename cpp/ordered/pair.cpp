#include "ordered/pair.hpp"

#include <array>

#include "ordered/line.hpp"
#include "ordered/plane.hpp"

namespace msem {

namespace {

constexpr int kNodes[] = {5, 7, 9};    // in each direction for two effects, by `Nodes`
constexpr double kWide = 2;            // variance of effects, beside that of residuals,
constexpr int kWider[] = {9, 15, 25};  // from which there are more
constexpr int kFinest = 25;            // at the end, for correlations close to 1
constexpr double kSurest = 0.8;        // correlation to start with
constexpr double kLeastRest = 1e-12;   // of a variance of 1

Vector limits_of(const ClusterVariable& i, const ClusterVariable& j) {
  Vector out(pair_parameters(i, j));
  if (i.unit != j.unit) {
    const ClusterVariable &unit = i.unit ? i : j, &above = i.unit ? j : i;
    out.setConstant(std::sqrt(unit.effect_variance() * above.residual_variance()));
    return out;
  }
  out[0] = std::sqrt(i.residual_variance() * j.residual_variance());
  if (out.size() > 1) out[1] = std::sqrt(i.effect_variance() * j.effect_variance());
  return out;
}

// What each value says of the variable behind it, and how much of its variance that is.
struct Expected {
  Expected(const ClusterVariables& rows, const ClusterVariable& v) : values(v.values.size()) {
    const double variance = v.residual_variance() + v.effect_variance(), sd = std::sqrt(variance);
    const Vector cuts = v.ordered ? v.cuts() : Vector();
    double squares = 0, n = 0;
    for (Index r = 0; r < values.size(); ++r) {
      if (!v.known(r)) continue;
      values[r] =
          v.ordered ? variance * category_kernel(cuts, v.category(r), v.shift[r], sd).shift() : v.error(r);
      squares += rows.weight(v, r) * values[r] * values[r];
      n += rows.weight(v, r);
    }
    if (n > 0) share = v.ordered ? squares / (n * variance) : 1;
  }
  Vector values;
  double share = 0;
};

class Pair : public PairLikelihood {
 public:
  Pair(const ClusterVariables& rows, const ClusterVariable& i, const ClusterVariable& j)
      : PairLikelihood(limits_of(i, j)), rows_(rows), i_(i), j_(j) {}

  // Covariances within and between clusters of what is expected of each value, which for small correlations
  // are those of the variables times how much the expected values vary.
  Vector start() const override {
    Vector out = Vector::Zero(count());
    if (i_.unit != j_.unit) return out;
    const Expected one(rows_, i_), other(rows_, j_);
    double n = 0, clusters = 0, within = 0, between = 0;
    for (Index c = 0; c < rows_.nclusters(); ++c) {
      double size = 0, x = 0, y = 0, xy = 0;
      for (Index r = begin(i_, c); r < end(i_, c); ++r) {
        if (!i_.known(r) || !j_.known(r)) continue;
        const double w = rows_.weight(i_, r);
        size += w;
        x += w * one.values[r];
        y += w * other.values[r];
        xy += w * one.values[r] * other.values[r];
      }
      if (!(size > 0)) continue;
      const double w = rows_.weight(c);
      n += w * size;
      clusters += w;
      within += w * (xy - x * y / size);
      between += w * x * y / size;
    }
    const double shrunk = one.share * other.share;
    if (!(shrunk > 0)) return out;
    // each variable has mean 0
    const double mean = i_.unit && n > clusters ? within / (n - clusters) : 0;
    const auto set = [&](Index k, double covariance) {
      const double most = kSurest * limits()[k];
      if (std::isfinite(covariance)) out[k] = std::min(std::max(covariance / shrunk, -most), most);
    };
    if (related_effects()) {
      set(0, mean);
      set(1, (between - clusters * mean) / n);
    } else {
      set(0, (within + between) / n);
    }
    return out;
  }

 protected:
  // Columns of the scores for the parameters of a variable of the pair.
  auto columns(const ClusterVariable& v, Matrix& rows, Index cluster) const {
    return rows.row(cluster).segment(count() + (&v == &i_ ? 0 : i_.width), v.width);
  }

  ClusterScores empty(bool all) const {
    ClusterScores out(rows_.weights());
    out.rows.setZero(rows_.nclusters(), count() + (all ? i_.width + j_.width : 0));
    return out;
  }

  bool related_effects() const { return count() > 1; }
  double effects(const Vector& theta) const { return related_effects() ? theta[1] : 0; }
  Index begin(const ClusterVariable& v, Index cluster) const { return rows_.first(v)[cluster]; }
  Index end(const ClusterVariable& v, Index cluster) const { return rows_.first(v)[cluster + 1]; }

  const ClusterVariables& rows_;
  const ClusterVariable &i_, &j_;
};

// Two ordered variables of one level.
class OrderedPair : public Pair {
 public:
  OrderedPair(const ClusterVariables& rows, const ClusterVariable& i, const ClusterVariable& j)
      : Pair(rows, i, j),
        plane_effects_(i.effect() && j.effect()),
        rules_{rule(Nodes::kRough), rule(Nodes::kClose), rule(Nodes::kFinal)},
        placed_(rows.nclusters()),
        moved_(rows.nclusters()) {
    for (Index c = 0; c < rows.nclusters(); ++c)
      placed_[c] = {{i.effect_mean[c], j.effect_mean[c]}, {i.effect_sd[c], 0, j.effect_sd[c]}};
    tabulate();
  }

  void refine() override {
    if (plane_effects_) rules_[static_cast<int>(Nodes::kFinal)] = Hermite(kFinest);
  }
  void accept() override { placed_ = moved_; }

  ClusterScores at(const Vector& theta, Nodes nodes, bool all) override {
    const PlaneModel model{i_.cuts(),      j_.cuts(), i_.effect_variance(), j_.effect_variance(),
                           effects(theta), theta[0]};
    Plane plane(rules_[static_cast<int>(nodes)], theta[0]);
    std::vector<PlaneCell> cells;
    std::vector<PlaneKind> kinds;
    ClusterScores out = empty(all);
    out.products.setZero(count(), count());
    for (Index c = 0; c < rows_.nclusters(); ++c) {
      moved_[c] = placed_[c];
      if (first_[c] == first_[c + 1]) continue;
      cells.assign(cells_.begin() + first_cell_[c], cells_.begin() + first_cell_[c + 1]);
      kinds.assign(kinds_.begin() + first_[c], kinds_.begin() + first_[c + 1]);
      for (PlaneKind& kind : kinds) {
        kind.begin -= first_cell_[c];
        kind.end -= first_cell_[c];
        kind.shift_one = i_.shift[cells[kind.begin].row];
        kind.shift_other = j_.shift[cells[kind.begin].row];
      }
      plane.integrate(model, cells, kinds, placed_[c], all);
      out.value += rows_.weight(c) * plane.value;
      moved_[c] = plane.moved;
      out.rows(c, 0) = plane.d_correlation;
      out.products(0, 0) += rows_.weight(c) * plane.curvature[0];
      if (related_effects()) {
        out.rows(c, 1) = plane.d_covariance;
        out.products(1, 0) += rows_.weight(c) * plane.curvature[1];
        out.products(1, 1) += rows_.weight(c) * plane.curvature[2];
      }
      if (!all) continue;
      auto one = columns(i_, out.rows, c), other = columns(j_, out.rows, c);
      for (std::size_t k = 0; k < cells.size(); ++k) {
        if (cells[k].one >= 0) rows_.add(i_, cells[k].row, c, plane.cells[k].one, one);
        if (cells[k].other >= 0) rows_.add(j_, cells[k].row, c, plane.cells[k].other, other);
      }
      if (i_.effect()) one[i_.above] += plane.d_variance_one;
      if (j_.effect()) other[j_.above] += plane.d_variance_other;
    }
    if (related_effects()) out.products(0, 1) = out.products(1, 0);
    return out;
  }

 private:
  Hermite rule(Nodes nodes) const {
    const double variance = std::max(i_.effect_variance(), j_.effect_variance());
    if (!plane_effects_) return Hermite(kLineNodes);
    return Hermite((variance > kWide ? kWider : kNodes)[static_cast<int>(nodes)]);
  }

  // Counts of the units of each cluster that have the same covariates, by their two categories.
  void tabulate() {
    const int rows = i_.categories, cols = j_.categories;
    Matrix counts(rows + 1, cols + 1);
    for (Index c = 0; c < rows_.nclusters(); ++c) {
      first_cell_.push_back(cells_.size());
      first_.push_back(kinds_.size());
      for (Index r = begin(i_, c); r < end(i_, c);) {
        const Index before = r, own = rows_.kind(i_, r);
        counts.setZero();
        const auto place = [&](Index s) -> double& {
          return counts(i_.known(s) ? i_.category(s) : rows, j_.known(s) ? j_.category(s) : cols);
        };
        for (; r < end(i_, c) && rows_.kind(i_, r) == own; ++r) place(r) += rows_.weight(i_, r);
        const std::size_t start = cells_.size();
        for (Index s = before; s < r; ++s) {
          if (!i_.known(s) && !j_.known(s)) continue;
          double& count = place(s);
          if (!(count > 0)) continue;
          cells_.push_back({i_.known(s) ? i_.category(s) : -1, j_.known(s) ? j_.category(s) : -1, count, s});
          count = 0;
        }
        if (cells_.size() > start) kinds_.push_back({start, cells_.size(), 0, 0});
      }
    }
    first_cell_.push_back(cells_.size());
    first_.push_back(kinds_.size());
  }

  bool plane_effects_;
  std::array<Hermite, 3> rules_;
  std::vector<PlaneCell> cells_;
  std::vector<PlaneKind> kinds_;                 // rows of the cells in the place of shifts
  std::vector<std::size_t> first_cell_, first_;  // of each cluster: cells, kinds
  std::vector<Placed> placed_, moved_;           // nodes of the clusters, now and after `accept`
};

// A continuous variable a and an ordered one c of the same units, or both of clusters. Given all values of a
// in the cluster, c is cut from a variable with one effect. Units with c alone are left out.
class MixedPair : public Pair {
 public:
  MixedPair(const ClusterVariables& rows, const ClusterVariable& i, const ClusterVariable& j)
      : Pair(rows, i, j), rule_(kLineNodes), modes_(rows.nclusters(), kNaN) {}

  ClusterScores at(const Vector& theta, Nodes /*nodes*/, bool all) override {
    const ClusterVariable &a = i_.ordered ? j_ : i_, &c = i_.ordered ? i_ : j_;
    const double cov = theta[0], cb = effects(theta);
    const double vw = a.residual_variance(), va = a.effect_variance(), vc = c.effect_variance();
    const double slope = cov / vw, rest = std::max(1 - cov * slope, kLeastRest), sd = std::sqrt(rest);
    const double cg = cb - slope * va, vg = vc + slope * slope * va - 2 * slope * cb;
    const Vector own = c.cuts();
    Line line(rule_);
    std::vector<LineCell> units;
    std::vector<Index> rows;
    ClusterScores out = empty(all);
    for (Index j = 0; j < rows_.nclusters(); ++j) {
      const ClusterSums s(rows_, a, a.shift, j);
      if (!(s.n > 0)) continue;
      const ClusterNormal normal(s, 0, va, vw);
      units.clear();
      rows.clear();
      for (Index r = begin(a, j); r < end(a, j); ++r) {
        if (!a.known(r) || !c.known(r)) continue;
        units.push_back({c.category(r), rows_.weight(c, r), c.shift[r] + slope * a.error(r)});
        rows.push_back(r);
      }
      const double whole = normal.whole, share = s.n / whole;
      const double mean = cg * share * s.mean, variance = std::max(vg - cg * cg * share, 0.0);
      double d_slope = 0, d_rest = 0;
      line.value = line.d_mean = line.d_variance = 0;
      if (!units.empty()) line.integrate(own, units, nullptr, mean, variance, sd, modes_[j]);
      out.value += rows_.weight(j) * (line.value + normal.value);
      for (std::size_t k = 0; k < units.size(); ++k) {
        d_slope += a.error(rows[k]) * line.cells[k].shift;
        d_rest += line.cells[k].variance;
      }
      // the chain rule through slope, residual variance, mean and variance of the effect
      const auto chain = [&](double da, double ds, double dcg, double dvg, double dwhole) {
        const double dm = share * s.mean * (dcg - cg * dwhole / whole);
        const double du = dvg - share * (2 * cg * dcg - cg * cg * dwhole / whole);
        return d_slope * da + d_rest * ds + line.d_mean * dm + line.d_variance * du;
      };
      out.rows(j, 0) = chain(1 / vw, -2 * slope, -va / vw, 2 * (slope * va - cb) / vw, 0);
      if (related_effects()) out.rows(j, 1) = chain(0, 0, 1, -2 * slope, 0);
      if (!all) continue;
      auto one = columns(a, out.rows, j), other = columns(c, out.rows, j);
      std::size_t k = 0;
      for (Index r = begin(a, j); r < end(a, j); ++r) {
        if (!a.known(r)) continue;
        double shift = rows_.weight(a, r) * (normal.shift(s, a.error(r), vw) - line.d_mean * cg / whole);
        if (k < rows.size() && rows[k] == r) {
          shift -= slope * line.cells[k].shift;
          rows_.add(c, r, j, line.cells[k], other);
          ++k;
        }
        one[0] += shift;
        rows_.add_slopes(a, r, j, shift, one);
      }
      const double da = -slope / vw;
      one[a.residual] +=
          normal.d_residual + chain(da, slope * slope, -va * da, 2 * (slope * va - cb) * da, 1);
      if (a.effect()) one[a.above] += normal.d_variance + chain(0, 0, -slope, slope * slope, s.n);
      if (c.effect()) other[c.above] += chain(0, 0, 0, 1, 0);
    }
    return out;
  }

 private:
  const Hermite rule_;
  std::vector<double> modes_;
};

// Normal densities, with units that have one of the two values only; the effects may be degenerate.
class ContinuousPair : public Pair {
 public:
  using Pair::Pair;

  ClusterScores at(const Vector& theta, Nodes /*nodes*/, bool all) override {
    const ClusterVariable &a = i_, &c = j_;
    const Two residual{a.residual_variance(), theta[0], c.residual_variance()};
    const Two effect{a.effect_variance(), effects(theta), c.effect_variance()};
    const Two both = residual.inverse();
    const Two alone_a{1 / residual.a, 0, 0}, alone_c{0, 0, 1 / residual.c};
    ClusterScores out = empty(all);
    for (Index j = 0; j < rows_.nclusters(); ++j) {
      Two sum{0, 0, 0};
      double qa = 0, qc = 0, value = 0;
      const auto unit = [&](Index r, double& ea, double& ec) -> const Two* {
        const bool ka = a.known(r), kc = c.known(r);
        ea = ka ? a.error(r) : 0;
        ec = kc ? c.error(r) : 0;
        return ka && kc ? &both : ka ? &alone_a : kc ? &alone_c : nullptr;
      };
      for (Index r = begin(a, j); r < end(a, j); ++r) {
        double ea = 0, ec = 0;
        const Two* p = unit(r, ea, ec);
        if (!p) continue;
        const double ua = p->a * ea + p->x * ec, uc = p->x * ea + p->c * ec, w = rows_.weight(a, r);
        sum = {sum.a + w * p->a, sum.x + w * p->x, sum.c + w * p->c};
        qa += w * ua;
        qc += w * uc;
        value -= 0.5 * w *
                 (ea * ua + ec * uc +
                  (p == &both      ? std::log(residual.det())
                   : p == &alone_a ? std::log(residual.a)
                                   : std::log(residual.c)));
      }
      // V = (I + B P)^-1 B, the effects' covariance matrix given the data
      const double t11 = 1 + effect.a * sum.a + effect.x * sum.x;
      const double t12 = effect.a * sum.x + effect.x * sum.c;
      const double t21 = effect.x * sum.a + effect.c * sum.x;
      const double t22 = 1 + effect.x * sum.x + effect.c * sum.c, det = t11 * t22 - t12 * t21;
      if (!(det > 0)) {
        out.value = -kInfinity;
        return out;
      }
      const Two v{(t22 * effect.a - t12 * effect.x) / det, (t22 * effect.x - t12 * effect.c) / det,
                  (t11 * effect.c - t21 * effect.x) / det};
      const double ma = v.a * qa + v.x * qc, mc = v.x * qa + v.c * qc;
      out.value += rows_.weight(j) * (value - 0.5 * std::log(det) + 0.5 * (qa * ma + qc * mc));
      // derivatives for the effects' covariance matrix: ((q - P m)(q - P m)' - P + P V P) / 2
      const double wa = qa - sum.a * ma - sum.x * mc, wc = qc - sum.x * ma - sum.c * mc;
      const double pa1 = sum.a * v.a + sum.x * v.x, pa2 = sum.a * v.x + sum.x * v.c;
      const double pc1 = sum.x * v.a + sum.c * v.x, pc2 = sum.x * v.x + sum.c * v.c;
      if (related_effects()) out.rows(j, 1) = wa * wc - sum.x + pa1 * sum.x + pa2 * sum.c;
      double da = 0, dx = 0, dc = 0;
      for (Index r = begin(a, j); r < end(a, j); ++r) {
        double ea = 0, ec = 0;
        const Two* p = unit(r, ea, ec);
        if (!p) continue;
        const double ua = p->a * (ea - (p->a > 0 ? ma : 0)) + p->x * (ec - mc);
        const double uc = p->x * (ea - ma) + p->c * (ec - (p->c > 0 ? mc : 0));
        const double k11 = p->a * v.a + p->x * v.x, k12 = p->a * v.x + p->x * v.c;
        const double k21 = p->x * v.a + p->c * v.x, k22 = p->x * v.x + p->c * v.c;
        const double w = rows_.weight(a, r);
        da += 0.5 * w * (ua * ua + k11 * p->a + k12 * p->x - p->a);
        dx += w * (ua * uc + k11 * p->x + k12 * p->c - p->x);
        dc += 0.5 * w * (uc * uc + k21 * p->x + k22 * p->c - p->c);
        if (!all) continue;
        auto one = columns(a, out.rows, j), other = columns(c, out.rows, j);
        one[0] += w * ua;
        other[0] += w * uc;
        rows_.add_slopes(a, r, j, w * ua, one);
        rows_.add_slopes(c, r, j, w * uc, other);
      }
      out.rows(j, 0) = dx;
      if (!all) continue;
      auto one = columns(a, out.rows, j), other = columns(c, out.rows, j);
      one[a.residual] += da;
      other[c.residual] += dc;
      if (a.effect()) one[a.above] += 0.5 * (wa * wa - sum.a + pa1 * sum.a + pa2 * sum.x);
      if (c.effect()) other[c.above] += 0.5 * (wc * wc - sum.c + pc1 * sum.x + pc2 * sum.c);
    }
    return out;
  }

 private:
  struct Two {
    double a, x, c;  // a symmetric matrix ((a, x), (x, c))
    double det() const { return a * c - x * x; }
    Two inverse() const { return {c / det(), -x / det(), a / det()}; }
  };
};

// A variable of units that has an effect, and one of clusters.
class PairAcross : public Pair {
 public:
  PairAcross(const ClusterVariables& rows, const ClusterVariable& i, const ClusterVariable& j)
      : Pair(rows, i, j), rule_(kLineNodes), modes_(rows.nclusters(), kNaN) {}

  ClusterScores at(const Vector& theta, Nodes /*nodes*/, bool all) override {
    const ClusterVariable &unit = i_.unit ? i_ : j_, &above = i_.unit ? j_ : i_;
    const double cov = theta[0], vb = unit.effect_variance(), vz = above.residual_variance();
    const double vw = unit.residual_variance();
    const Vector own = unit.ordered ? unit.cuts() : Vector(),
                 others = above.ordered ? above.cuts() : Vector();
    Line line(rule_);
    std::vector<LineCell> cells;
    std::vector<Index> rows;
    ClusterScores out = empty(all);
    for (Index j = 0; j < rows_.nclusters(); ++j) {
      if (!above.known(j)) continue;
      cells.clear();
      rows.clear();
      for (Index r = begin(unit, j); r < end(unit, j); ++r) {
        if (!unit.known(r)) continue;
        if (unit.ordered) cells.push_back({unit.category(r), rows_.weight(unit, r), unit.shift[r]});
        rows.push_back(r);
      }
      if (rows.empty()) continue;
      const ClusterSums s = unit.ordered ? ClusterSums() : ClusterSums(rows_, unit, unit.shift, j);
      // the units' derivatives, when the effect is N(mean, variance)
      const auto units = [&](auto&& to, const ClusterNormal& normal) {
        for (std::size_t k = 0; k < rows.size(); ++k) {
          RowSlope slope;
          if (unit.ordered)
            slope = line.cells[k];
          else
            slope.shift = rows_.weight(unit, rows[k]) * normal.shift(s, unit.error(rows[k]), vw);
          rows_.add(unit, rows[k], j, slope, to);
        }
        if (!unit.ordered) to[unit.residual] += normal.d_residual;
      };
      if (!above.ordered) {
        const double slope = cov / vz, error = above.error(j);
        const double mean = slope * error, variance = std::max(vb - cov * slope, 0.0);
        if (unit.ordered) line.integrate(own, cells, nullptr, mean, variance, 1, modes_[j]);
        const ClusterNormal normal(s, mean, variance, vw);
        const double dm = unit.ordered ? line.d_mean : normal.d_mean;
        const double du = unit.ordered ? line.d_variance : normal.d_variance;
        out.value += rows_.weight(j) * (unit.ordered ? line.value : normal.value);
        out.rows(j, 0) = dm * error / vz - 2 * du * slope;
        if (!all) continue;
        auto one = columns(unit, out.rows, j), other = columns(above, out.rows, j);
        units(one, normal);
        one[unit.above] += du;
        RowSlope z;
        z.shift = error / vz - dm * slope;
        z.variance = 0.5 * (error * error / vz - 1) / vz - dm * mean / vz + du * slope * slope;
        rows_.add(above, j, j, z, other);
        continue;
      }
      const int k = above.category(j);
      if (unit.ordered) {
        const double slope = cov / vb, rest = std::max(1 - cov * slope, kLeastRest);
        const LineFactor factor{&others, k, above.shift[j], slope, std::sqrt(rest)};
        line.integrate(own, cells, &factor, 0, vb, 1, modes_[j]);
        out.value += rows_.weight(j) * line.value;
        out.rows(j, 0) = line.factor_slope / vb - 2 * slope * line.factor.variance;
        if (!all) continue;
        auto one = columns(unit, out.rows, j), other = columns(above, out.rows, j);
        units(one, ClusterNormal(s, 0, vb, 1));
        one[unit.above] +=
            line.d_variance - line.factor_slope * slope / vb + slope * slope * line.factor.variance;
        rows_.add(above, j, j, line.factor, other);
        continue;
      }
      const ClusterNormal normal(s, 0, vb, vw);
      const double share = s.n / normal.whole, mean = cov * share * s.mean;
      const double rest = std::max(1 - cov * cov * share, kLeastRest);
      const Kernel kernel = category_kernel(others, k, above.shift[j] + mean, std::sqrt(rest));
      const double g = kernel.shift();
      out.value += rows_.weight(j) * (kernel.log + normal.value);
      out.rows(j, 0) = g * share * s.mean - 2 * kernel.variance * cov * share;
      if (!all) continue;
      auto one = columns(unit, out.rows, j), other = columns(above, out.rows, j);
      units(one, normal);
      for (const Index r : rows) {
        const double shift = -rows_.weight(unit, r) * g * cov / normal.whole;
        one[0] += shift;
        rows_.add_slopes(unit, r, j, shift, one);
      }
      const double d_whole = (-g * mean + kernel.variance * cov * cov * share) / normal.whole;
      one[unit.residual] += d_whole;
      one[unit.above] += normal.d_variance + s.n * d_whole;
      rows_.add(above, j, j, {kernel.upper, kernel.lower, g, kernel.variance}, other);
    }
    return out;
  }

 private:
  const Hermite rule_;
  std::vector<double> modes_;
};

}  // namespace

Index pair_parameters(const ClusterVariable& first, const ClusterVariable& second) {
  if (first.unit != second.unit) return (first.unit ? first : second).effect();
  return first.effect() && second.effect() ? 2 : 1;
}

std::unique_ptr<PairLikelihood> pair_likelihood(const ClusterVariables& rows, const ClusterVariable& first,
                                                const ClusterVariable& second) {
  if (first.unit != second.unit) return std::make_unique<PairAcross>(rows, first, second);
  if (first.ordered && second.ordered) return std::make_unique<OrderedPair>(rows, first, second);
  if (first.ordered || second.ordered) return std::make_unique<MixedPair>(rows, first, second);
  return std::make_unique<ContinuousPair>(rows, first, second);
}

}  // namespace msem
