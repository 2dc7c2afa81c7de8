#include "ordered/plane.hpp"

#include <limits>

namespace msem {

namespace {

constexpr double kCancelled = 1e-10;  // probability below which four corners do not give it

template <class Table>
void grow(Table& table, Index rows, Index cols) {
  if (table.rows() != rows || table.cols() < cols) table.resize(rows, std::max(cols, Index{1}));
}

}  // namespace

// Nodes, and the logarithms of their weights and of the density of the effects.
void Plane::place(const PlaneModel& model, const Placed& placed) {
  const bool a = model.variance_one > 0, c = model.variance_other > 0;
  const Index na = a ? rule_.size() : 1, nc = c ? rule_.size() : 1;
  n_ = na * nc;
  for (Array* x :
       {&one_, &other_, &logs_, &shares_, &slope_, &bend_, &p_, &s_, &c_, &low_, &high_, &at_low_, &at_high_})
    x->resize(n_);
  const double va = model.variance_one, vc = model.variance_other, cov = a && c ? model.covariance : 0;
  const double det = (a ? va : 1) * (c ? vc : 1) - cov * cov;
  const double constant = std::log((a ? placed.root[0] : 1) * (c ? placed.root[2] : 1)) - 0.5 * std::log(det);
  Index q = 0;
  for (Index s = 0; s < na; ++s) {
    for (Index t = 0; t < nc; ++t, ++q) {
      const double x = a ? rule_.nodes[s] : 0, y = c ? rule_.nodes[t] : 0;
      const double b = a ? placed.mean[0] + placed.root[0] * x : 0;
      const double d = c ? placed.mean[1] + (a ? placed.root[1] * x : 0) + placed.root[2] * y : 0;
      one_[q] = b;
      other_[q] = d;
      logs_[q] = constant + (a ? rule_.log_weights[s] : 0) + (c ? rule_.log_weights[t] : 0);
    }
  }
  logs_ -= (0.5 / det) *
           ((c ? vc : 1) * one_.square() - (2 * cov) * one_ * other_ + (a ? va : 1) * other_.square());
}

void Plane::corners(const PlaneModel& model, const std::vector<PlaneCell>& cells, const PlaneKind& kind,
                    bool all) {
  const Index nk = model.cuts_one.size(), nl = model.cuts_other.size();
  need_one_.assign(nk + 2, 0);
  need_other_.assign(nl + 2, 0);
  need_.assign(std::max<Index>(nk * nl, 1), 0);
  for (std::size_t i = kind.begin; i < kind.end; ++i) {
    const auto [k, l, count, row] = cells[i];
    for (const int up : {0, 1}) {
      if (k >= 0) need_one_[k + up] = 1;
      if (l >= 0) need_other_[l + up] = 1;
      for (const int right : {0, 1}) {
        if (k >= 0 && l >= 0 && k + up >= 1 && k + up <= nk && l + right >= 1 && l + right <= nl)
          need_[corner(k + up, l + right)] = 1;
      }
    }
  }
  // the effects of the first variable are the same for `same` nodes of the second one
  const Index same = model.variance_other > 0 ? rule_.size() : 1;
  for (Index k = 1; k <= nk; ++k) {
    if (!need_one_[k]) continue;
    auto z = z_one_.col(k - 1);
    z = (model.cuts_one[k - 1] - kind.shift_one) - one_;
    for (Index s = 0; s * same < n_; ++s) low_[s] = z[s * same];
    normal_cdfs(low_.data(), n_ / same, at_low_.data(), at_high_.data());
    for (Index s = 0; s * same < n_; ++s) {
      cdf_one_.col(k - 1).segment(s * same, same).setConstant(at_low_[s]);
      phi_one_.col(k - 1).segment(s * same, same).setConstant(at_high_[s]);
    }
  }
  for (Index l = 1; l <= nl; ++l) {
    if (!need_other_[l]) continue;
    z_other_.col(l - 1) = (model.cuts_other[l - 1] - kind.shift_other) - other_;
    normal_cdfs(z_other_.col(l - 1).data(), n_, cdf_other_.col(l - 1).data(), phi_other_.col(l - 1).data());
  }
  const double rho = model.correlation, rest = (1 - rho) * (1 + rho), root = std::sqrt(rest);
  for (int l = 1; l <= nl; ++l) {
    for (int k = 1; k <= nk; ++k) {
      const Index at = corner(k, l);
      if (!need_[at]) continue;
      const auto x = z_one_.col(k - 1), y = z_other_.col(l - 1);
      binormal_.cdf(x.data(), y.data(), cdf_one_.col(k - 1).data(), cdf_other_.col(l - 1).data(), n_,
                    cdf_.col(at).data(), density_.col(at).data());
      bent_.col(at) =
          density_.col(at) *
          (rho / rest + ((1 + rho * rho) * x * y - rho * (x.square() + y.square())) / (rest * rest));
      if (!all) continue;
      // the density of one variable, times the distribution function of the other one there
      p_ = (y - rho * x) / root;
      normal_cdfs(p_.data(), n_, edge_one_.col(at).data(), s_.data());
      edge_one_.col(at) *= phi_one_.col(k - 1);
      p_ = (x - rho * y) / root;
      normal_cdfs(p_.data(), n_, edge_other_.col(at).data(), s_.data());
      edge_other_.col(at) *= phi_other_.col(l - 1);
    }
  }
}

// One node where the corners cancel.
void Plane::far_node(const PlaneModel& model, const PlaneKind& kind, const PlaneCell& cell, Index q,
                     std::size_t number, bool all) {
  const double a1 = threshold(model.cuts_one, cell.one + 1) - kind.shift_one - one_[q];
  const double a2 = threshold(model.cuts_one, cell.one) - kind.shift_one - one_[q];
  const double c1 = threshold(model.cuts_other, cell.other + 1) - kind.shift_other - other_[q];
  const double c2 = threshold(model.cuts_other, cell.other) - kind.shift_other - other_[q];
  p_[q] = std::max(binormal_between(a1, a2, c1, c2, model.correlation), kLeastProbability);
  const PairSlope s = rectangle_slope(a1, a2, c1, c2, model.correlation, p_[q]);
  s_[q] = s.covariance;
  c_[q] = 0;  // little, of a node of little weight
  if (!all) return;
  const Index i = static_cast<Index>(number);
  upper_one_(q, i) = s.one.upper;
  lower_one_(q, i) = s.one.lower;
  upper_other_(q, i) = s.other.upper;
  lower_other_(q, i) = s.other.lower;
}

void Plane::cell(const PlaneModel& model, const PlaneKind& kind, const PlaneCell& cell, std::size_t number,
                 bool all) {
  const int k = cell.one, l = cell.other, nk = rows_ - 1, nl = cols_ - 1;
  const Index i = static_cast<Index>(number);
  if (k < 0 || l < 0) {
    const bool first = k >= 0;
    const Vector& cuts = first ? model.cuts_one : model.cuts_other;
    const Array& effect = first ? one_ : other_;
    const double shift = first ? kind.shift_one : kind.shift_other;
    low_ = threshold(cuts, std::max(k, l)) - shift - effect;
    high_ = threshold(cuts, std::max(k, l) + 1) - shift - effect;
    normal_intervals(low_.data(), high_.data(), n_, p_.data(), at_low_.data(), at_high_.data());
    p_ = p_.max(kLeastProbability);
    if (all) {
      (first ? upper_one_ : upper_other_).col(i) = at_high_ / p_;
      (first ? lower_one_ : lower_other_).col(i) = -at_low_ / p_;
      (first ? upper_other_ : upper_one_).col(i).setZero();
      (first ? lower_other_ : lower_one_).col(i).setZero();
    }
    logs_ += cell.count * p_.log();
    return;
  }
  // the value at a corner of a function that is that of one variable, or nothing, at infinity
  const auto add = [&](int a, int c, double sign) {
    if (a == 0 || c == 0) return;
    if (a > nk && c > nl) {
      p_ += sign;
    } else if (a > nk) {
      p_ += sign * cdf_other_.col(c - 1);
    } else if (c > nl) {
      p_ += sign * cdf_one_.col(a - 1);
    } else {
      p_ += sign * cdf_.col(corner(a, c));
      s_ += sign * density_.col(corner(a, c));
      c_ += sign * bent_.col(corner(a, c));
    }
  };
  p_.setZero();
  s_.setZero();
  c_.setZero();
  add(k + 1, l + 1, 1);
  add(k, l + 1, -1);
  add(k + 1, l, -1);
  add(k, l, 1);
  if (all) {
    const auto edge = [&](const Arrays& edges, const Arrays& density, int a, int high, int low, bool first,
                          double sign, Arrays& out) {
      out.col(i).setZero();
      if (a == 0 || a > (first ? nk : nl)) return;
      const int most = first ? nl : nk;
      const auto at = [&](int b) { return first ? corner(a, b) : corner(b, a); };
      if (high > most) {
        out.col(i) = sign * density.col(a - 1) / p_;
      } else {
        out.col(i) = sign * edges.col(at(high)) / p_;
      }
      if (low > 0) out.col(i) -= sign * edges.col(at(low)) / p_;
    };
    edge(edge_one_, phi_one_, k + 1, l + 1, l, true, 1, upper_one_);
    edge(edge_one_, phi_one_, k, l + 1, l, true, -1, lower_one_);
    edge(edge_other_, phi_other_, l + 1, k + 1, k, false, 1, upper_other_);
    edge(edge_other_, phi_other_, l, k + 1, k, false, -1, lower_other_);
  }
  s_ /= p_;
  c_ = c_ / p_ - s_.square();
  if (!(p_.minCoeff() > kCancelled)) {
    for (Index q = 0; q < n_; ++q) {
      if (!(p_[q] > kCancelled)) far_node(model, kind, cell, q, number, all);
    }
  }
  slope_ += cell.count * s_;
  bend_ += cell.count * c_;
  logs_ += cell.count * p_.log();
}

void Plane::integrate(const PlaneModel& model, const std::vector<PlaneCell>& units,
                      const std::vector<PlaneKind>& kinds, const Placed& placed, bool all) {
  rows_ = static_cast<int>(model.cuts_one.size()) + 1;
  cols_ = static_cast<int>(model.cuts_other.size()) + 1;
  place(model, placed);
  for (Arrays* x : {&z_one_, &cdf_one_, &phi_one_}) grow(*x, n_, rows_ - 1);
  for (Arrays* x : {&z_other_, &cdf_other_, &phi_other_}) grow(*x, n_, cols_ - 1);
  for (Arrays* x : {&cdf_, &density_, &bent_, &edge_one_, &edge_other_})
    grow(*x, n_, (rows_ - 1) * (cols_ - 1));
  if (all) {
    for (Arrays* x : {&upper_one_, &lower_one_, &upper_other_, &lower_other_})
      grow(*x, n_, static_cast<Index>(units.size()));
  }
  slope_.setZero();
  bend_.setZero();
  for (const PlaneKind& kind : kinds) {
    corners(model, units, kind, all);
    for (std::size_t i = kind.begin; i < kind.end; ++i) cell(model, kind, units[i], i, all);
  }
  value = log_sum(logs_.data(), n_, shares_.data());
  d_correlation = (shares_ * slope_).sum();
  curvature[0] = d_correlation * d_correlation - (shares_ * (bend_ + slope_.square())).sum();
  effects(model);
  if (!all) return;
  cells.resize(units.size());
  for (std::size_t i = 0; i < units.size(); ++i) {
    const Index at = static_cast<Index>(i);
    const double count = units[i].count;
    const auto mean = [&](const Arrays& x) { return count * (shares_ * x.col(at)).sum(); };
    PairSlope& s = cells[i] = {};
    s.one.upper = mean(upper_one_);
    s.one.lower = mean(lower_one_);
    s.other.upper = mean(upper_other_);
    s.other.lower = mean(lower_other_);
    s.one.shift = -s.one.upper - s.one.lower;
    s.other.shift = -s.other.upper - s.other.lower;
  }
}

// Moments of the effects given the data, and derivatives with respect to their variances and covariance.
void Plane::effects(const PlaneModel& model) {
  const bool a = model.variance_one > 0, c = model.variance_other > 0;
  const double ma = (shares_ * one_).sum(), mc = (shares_ * other_).sum();
  const double aa = (shares_ * one_.square()).sum(), ac = (shares_ * one_ * other_).sum(),
               cc = (shares_ * other_.square()).sum();
  const double va = model.variance_one, vc = model.variance_other;
  d_covariance = d_variance_one = d_variance_other = 0;
  if (a && c) {
    // D = inverse (E[bb'] - Sigma) inverse / 2
    const double cov = model.covariance, det = va * vc - cov * cov;
    const double ia = vc / det, ic = va / det, x = -cov / det;
    const double ea = aa - va, ex = ac - cov, ec = cc - vc;
    const double la = ia * ea + x * ex, lx = ia * ex + x * ec, lb = x * ea + ic * ex, lc = x * ex + ic * ec;
    d_covariance = la * x + lx * ic;
    d_variance_one = 0.5 * (la * ia + lx * x);
    d_variance_other = 0.5 * (lb * x + lc * ic);
    // the derivative of the density of the effects at each node, and its derivative
    low_ = (vc * one_.square() - (2 * cov) * one_ * other_ + va * other_.square()) / det;
    s_ = (cov * (1 - low_) + one_ * other_) / det;
    c_ = (1 - low_ - (2 * cov / det) * (cov * low_ - one_ * other_)) / det + (2 * cov / det) * s_;
    curvature[1] = d_correlation * d_covariance - (shares_ * slope_ * s_).sum();
    curvature[2] = d_covariance * d_covariance - (shares_ * (c_ + s_.square())).sum();
  } else if (a) {
    d_variance_one = 0.5 * (aa - va) / (va * va);
  } else if (c) {
    d_variance_other = 0.5 * (cc - vc) / (vc * vc);
  }
  const double s11 = std::max(aa - ma * ma, 1e-12), s21 = ac - ma * mc, s22 = cc - mc * mc;
  moved.mean[0] = ma;
  moved.mean[1] = mc;
  moved.root[0] = std::sqrt(s11);
  moved.root[1] = a ? s21 / moved.root[0] : 0;
  moved.root[2] = std::sqrt(std::max(s22 - moved.root[1] * moved.root[1], 1e-12));
}

}  // namespace msem
