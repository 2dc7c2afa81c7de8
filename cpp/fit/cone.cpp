#include "fit/cone.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/random.hpp"

namespace msem {

namespace {

constexpr double kSingular = 1e-7;  // that counts as zero where a search ends
constexpr double kNothing =
    1e-5;                         // loading, in standard deviations of its variable, that is rounding of zero
constexpr double kMarker = 1e-7;  // loading of a marker relative to the greatest that still scales a factor
constexpr double kLeast = 1e-4;   // standard deviation of a factor at a start, about that of its marker
constexpr double kShare = 0.05;   // least share of the variance that a principal component starts with
constexpr std::uint64_t kSeed = 20;  // of random starts

bool is_variance(const Entry& e) { return e.slot == Slot::kSymmetric && e.row == e.col; }
bool is_zero(const Entry& e) { return e.parameter < 0 && e.value == 0; }
bool concerns(const Entry& e, int v) { return e.row == v || (e.slot != Slot::kIntercept && e.col == v); }

void multiply(Program& p, int parameter, double factor = 1) {
  p.push_back({Op::kParameter, parameter, 0});
  if (factor != 1) {
    p.push_back({Op::kConstant, 0, factor});
    p.push_back({Op::kMultiply, 0, 0});
  }
  p.push_back({Op::kMultiply, 0, 0});
}

void divide(Program& p, int parameter, double factor) {
  p.push_back({Op::kParameter, parameter, 0});
  p.push_back({Op::kDivide, 0, 0});
  p.push_back({Op::kConstant, 0, 1 / factor});
  p.push_back({Op::kMultiply, 0, 0});
}

// Sum over the columns of L of the products of two of its rows.
Program row_product(const std::vector<int>& a, const std::vector<int>& b) {
  Program out;
  bool first = true;
  for (std::size_t c = 0; c < std::min(a.size(), b.size()); ++c) {
    if (a[c] < 0 || b[c] < 0) continue;
    out.push_back({Op::kParameter, a[c], 0});
    out.push_back({Op::kParameter, b[c], 0});
    out.push_back({Op::kMultiply, 0, 0});
    if (!first) out.push_back({Op::kAdd, 0, 0});
    first = false;
  }
  if (first) out.push_back({Op::kConstant, 0, 0});
  return out;
}

// The covariance matrix with correlations shrunk so that it is well within the cone.
Matrix regular(const Matrix& cov, double least) {
  const Vector sd = cov.diagonal().cwiseSqrt();
  Matrix r = scale_both(sd.cwiseInverse(), cov);
  const double smallest = SymmetricEigen(r).values[0];
  if (smallest < least) {
    r *= (1 - least) / (1 - smallest);
    r.diagonal().setOnes();
  }
  return scale_both(sd, r);
}

// An order in which a symmetric matrix of this pattern has a triangular root without further elements; empty
// if there is none. Variables that are eliminated have neighbours that are all neighbours of each other.
std::vector<int> perfect_order(const std::vector<std::vector<bool>>& linked) {
  const std::size_t m = linked.size();
  std::vector<bool> done(m, false);
  std::vector<int> out;
  while (out.size() < m) {
    bool found = false;
    for (std::size_t v = 0; v < m && !found; ++v) {
      if (done[v]) continue;
      std::vector<std::size_t> near;
      for (std::size_t u = 0; u < m; ++u) {
        if (u != v && !done[u] && linked[v][u]) near.push_back(u);
      }
      found = true;
      for (const std::size_t a : near) {
        for (const std::size_t b : near) found = found && (a == b || linked[a][b]);
      }
      if (found) {
        done[v] = true;
        out.push_back(static_cast<int>(v));
      }
    }
    if (!found) return {};
  }
  return out;
}

}  // namespace

// Takes a model to its coordinates, block by block.
class SearchModel::Builder {
 public:
  Builder(SearchModel& to, const Objective& objective, const Vector& lower, const Vector& upper,
          const Constraints& constraints, const std::vector<double>& signs, const Vector* sorted)
      : to_(to), signs_(signs), sorted_(sorted), uses_(objective.npar(), 0), held_(objective.npar(), false) {
    to.npar_ = next_ = objective.npar();
    to.original_ = objective.blocks();
    lower_.assign(lower.begin(), lower.end());
    upper_.assign(upper.begin(), upper.end());
    for (const Block& block : to.original_) {
      for (const Entry& e : block.free_entries()) ++uses_[e.parameter];
    }
    for (const Expressions* set : {&constraints.equalities, &constraints.inequalities}) {
      for (int i = 0; i < set->size(); ++i) {
        for (const int k : set->variables(i)) held_[k] = true;
      }
    }
    programs_.resize(objective.npar());
    for (std::size_t g = 0; g < objective.groups().size(); ++g) {
      const std::vector<int>& levels = objective.levels(g);
      last_.insert(last_.end(), levels.begin() + lowest_changed(objective, g), levels.end());
    }
    for (int b = 0; b < static_cast<int>(to.original_.size()); ++b) block(b);
    for (int k = 0; k < objective.npar(); ++k) {
      if (programs_[k].empty()) programs_[k] = {{Op::kParameter, k, 0}};
    }
    to.lower_ = Eigen::Map<const Vector>(lower_.data(), next_);
    to.upper_ = Eigen::Map<const Vector>(upper_.data(), next_);
    to.back_ = Expressions(next_, programs_);
    to.constraints_ = {constraints.equalities.extended(next_, equalities_),
                       constraints.inequalities.extended(next_, {}), constraints.linear};
    to.objective_.emplace(next_, blocks_, objective.groups());
    find_loadings(objective);
  }

 private:
  bool unbounded(int k) const { return lower_[k] == -kInfinity && upper_[k] == kInfinity; }
  bool own(const Entry& e) const {
    const int k = e.parameter;
    if (uses_[k] != 1 || held_[k]) return false;
    return unbounded(k) || (is_variance(e) && lower_[k] == 0 && upper_[k] == kInfinity);
  }

  void block(int b) {
    const Block& from = to_.original_[b];
    entries_ = from.entries();
    variables_ = from.nvariables();
    observed_ = from.nobserved();
    nscales_ = to_.scales_.size();
    const bool last = std::find(last_.begin(), last_.end(), b) != last_.end();
    for (int f = observed_; (last || to_.cone_) && f < from.nvariables(); ++f) scale(b, f);
    programs(from);
    if (to_.cone_) {
      for (const std::vector<int>& members : components(from.nvariables())) component(b, members);
    }
    entries_.erase(
        std::remove_if(entries_.begin(), entries_.end(), [](const Entry& e) { return e.parameter == kGone; }),
        entries_.end());
    blocks_.emplace_back(observed_, variables_, entries_);
  }

  // Gives a factor the scale of its loadings, where nothing but a marker gives it another.
  void scale(int b, int f) {
    int marker = -1, variance = -1;
    Scale out{b, f, -1, 0, 1, {}, {}};
    for (int i = 0; i < static_cast<int>(entries_.size()); ++i) {
      const Entry& e = entries_[i];
      if (!concerns(e, f) || is_zero(e)) continue;
      if (e.slot == Slot::kDirected && e.row == f) return;
      if (e.parameter < 0) {
        if (marker >= 0 || e.slot != Slot::kDirected) return;
        marker = i;
        continue;
      }
      if (!own(e)) return;
      if (is_variance(e)) {
        variance = i;
      } else {
        (e.slot == Slot::kSymmetric ? out.covariances : out.concerned).push_back(e.parameter);
      }
    }
    if (marker < 0 || variance < 0) return;
    out.parameter = entries_[variance].parameter;
    out.marker = entries_[marker].value;
    if (!to_.cone_) {
      const bool positive = *std::min_element(signs_.begin(), signs_.end()) > 0;
      // with covariances a negative variance has no sign of its own
      if (!positive && !out.covariances.empty()) return;
      if (unbounded(out.parameter)) out.sign = signs_[to_.scales_.size() % signs_.size()];
    }
    lower_[out.parameter] = -kInfinity;
    entries_[marker].parameter = out.parameter;
    entries_[variance].parameter = -1;
    entries_[variance].value = out.sign;
    to_.scales_.push_back(std::move(out));
  }

  const Scale* scale_in_block(int v) const {
    for (std::size_t i = nscales_; i < to_.scales_.size(); ++i) {
      if (to_.scales_[i].factor == v) return &to_.scales_[i];
    }
    return nullptr;
  }

  void times_scale(Program& p, int v) const {
    if (const Scale* s = scale_in_block(v)) multiply(p, s->parameter, 1 / s->marker);
  }

  // What the parameters of the model are, of entries whose variables have other scales.
  void programs(const Block& from) {
    for (const Entry& e : from.free_entries()) {
      Program p;
      if (is_variance(e) && scale_in_block(e.row)) {
        p = {{Op::kConstant, 0, scale_in_block(e.row)->sign}};
        times_scale(p, e.row);
        times_scale(p, e.row);
      } else if (scale_in_block(e.row) || (e.slot != Slot::kIntercept && scale_in_block(e.col))) {
        p = {{Op::kParameter, e.parameter, 0}};
        times_scale(p, e.row);
        if (e.slot == Slot::kSymmetric) times_scale(p, e.col);
        const Scale* s = e.slot == Slot::kDirected ? scale_in_block(e.col) : nullptr;
        if (s) {
          p.push_back({Op::kConstant, 0, s->marker});
          p.push_back({Op::kMultiply, 0, 0});
          divide(p, s->parameter, 1);
        }
      }
      if (!p.empty()) programs_[e.parameter] = std::move(p);
    }
  }

  // Variables with covariances among them.
  std::vector<std::vector<int>> components(int n) const {
    std::vector<int> root(n);
    std::iota(root.begin(), root.end(), 0);
    const auto find = [&](int v) {
      while (root[v] != v) v = root[v];
      return v;
    };
    for (const Entry& e : entries_) {
      if (e.slot == Slot::kSymmetric && e.row != e.col && !is_zero(e)) root[find(e.row)] = find(e.col);
    }
    std::vector<std::vector<int>> all(n), out;
    for (int v = 0; v < n; ++v) all[find(v)].push_back(v);
    for (auto& one : all) {
      if (!one.empty()) out.push_back(std::move(one));
    }
    return out;
  }

  void keep_nonnegative(const Entry& e) {
    const int k = e.parameter;
    lower_[k] = std::min(std::max(lower_[k], 0.0), upper_[k]);
    to_.variances_.push_back(k);
  }

  void component(int b, const std::vector<int>& members) {
    const std::size_t m = members.size();
    std::vector<std::vector<int>> at(m, std::vector<int>(m, -1));  // entries of the matrix
    std::vector<std::vector<bool>> linked(m, std::vector<bool>(m, false));
    std::vector<int> place(variables_, -1);
    for (std::size_t i = 0; i < m; ++i) place[members[i]] = static_cast<int>(i);
    bool free = true, fixed = true;  // whether the matrix is free but for the lengths of variables
    for (int k = 0; k < static_cast<int>(entries_.size()); ++k) {
      const Entry& e = entries_[k];
      if (e.slot != Slot::kSymmetric || place[e.row] < 0 || is_zero(e)) continue;
      const int i = place[e.row], j = place[e.col];
      free = free && at[i][j] < 0 && (e.parameter < 0 ? i == j && e.value > 0 : own(e));
      fixed = fixed && e.parameter < 0;
      at[i][j] = at[j][i] = k;
      linked[i][j] = linked[j][i] = true;
    }
    if (fixed) return;
    for (std::size_t i = 0; i < m; ++i) free = free && at[i][i] >= 0;
    std::vector<int> order = m > 1 && free ? perfect_order(linked) : std::vector<int>();
    if (sorted_ && !order.empty()) order = by_pivots(at, std::move(order));
    if (order.empty()) {
      for (std::size_t i = 0; i < m; ++i) {
        if (at[i][i] >= 0 && entries_[at[i][i]].parameter >= 0) keep_nonnegative(entries_[at[i][i]]);
      }
      return;
    }
    const auto length = [&](int i) {
      const Entry& e = entries_[at[i][i]];
      return e.parameter < 0 ? std::sqrt(e.value) : 0.0;
    };
    if (m == 2 && length(0) > 0 && length(1) > 0) {
      const int k = entries_[at[0][1]].parameter;
      const double most = length(0) * length(1);
      lower_[k] = -most;
      upper_[k] = most;
      to_.pairs_.push_back({b, members[0], members[1], k, most});
      return;
    }
    root(b, members, order, at, linked, length);
  }

  // The order of the pivots of a matrix without zeros, the variables that others determine last.
  std::vector<int> by_pivots(const std::vector<std::vector<int>>& at, std::vector<int> order) const {
    const Index m = static_cast<Index>(order.size());
    Matrix cov(m, m);
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < m; ++j) {
        if (at[i][j] < 0) return order;
        const Entry& e = entries_[at[i][j]];
        cov(i, j) = variance_of(e);
      }
    }
    const Vector scale = cov.diagonal().unaryExpr([](double v) { return v > 0 ? 1 / std::sqrt(v) : 0.0; });
    cov = scale_both(scale, cov);
    std::vector<bool> done(m, false);
    for (Index k = 0; k < m; ++k) {
      Index pivot = -1;
      for (Index i = 0; i < m; ++i) {
        if (!done[i] && (pivot < 0 || cov(i, i) > cov(pivot, pivot) + 1e-12)) pivot = i;
      }
      done[pivot] = true;
      order[k] = static_cast<int>(pivot);
      if (!(cov(pivot, pivot) > kSingular)) continue;
      const Vector column = cov.col(pivot);
      add_outer(cov, -1 / column[pivot], column, column);
    }
    return order;
  }

  // A variance or covariance at the point that is sorted by; a factor with a scale of its loadings has its
  // variance where the loading of its marker is now.
  double variance_of(const Entry& e) const {
    const Scale* s = e.row == e.col ? scale_in_block(e.row) : nullptr;
    const int k = s ? s->parameter : e.parameter;
    return k < 0 ? e.value : (*sorted_)[k];
  }

  template <class Length>
  void root(int b, const std::vector<int>& members, const std::vector<int>& order,
            const std::vector<std::vector<int>>& at, const std::vector<std::vector<bool>>& linked,
            const Length& length) {
    Root out;
    out.block = b;
    const int m = static_cast<int>(order.size()), first = variables_;
    variables_ += m;
    for (int i = 0; i < m; ++i) {
      out.order.push_back(members[order[i]]);
      out.length.push_back(length(order[i]));
      out.parameter.emplace_back();
      out.covariance.emplace_back();
      for (int j = 0; j <= i; ++j) {
        const int entry = at[order[i]][order[j]];
        int k = linked[order[i]][order[j]] ? entries_[entry].parameter : -1;
        out.covariance.back().push_back(k);
        if (k >= 0) lower_[k] = -kInfinity;
        if (i == j && k < 0) k = added();
        out.parameter.back().push_back(k);
      }
    }
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j <= i; ++j) {
        const int k = out.covariance[i][j];
        if (k < 0) continue;
        Program p = row_product(out.parameter[i], out.parameter[j]);
        times_scale(p, out.order[i]);
        times_scale(p, out.order[j]);
        programs_[k] = std::move(p);
      }
      if (out.length[i] > 0) {
        Program p = row_product(out.parameter[i], out.parameter[i]);
        p.push_back({Op::kConstant, 0, out.length[i] * out.length[i]});
        p.push_back({Op::kSubtract, 0, 0});
        equalities_.push_back(std::move(p));
      }
    }
    for (const auto& row : at) {
      for (const int entry : row) {
        if (entry >= 0) entries_[entry].parameter = kGone;
      }
    }
    for (int i = 0; i < m; ++i) {
      entries_.push_back({Slot::kSymmetric, first + i, first + i, -1, 1});
      for (int j = 0; j <= i; ++j) {
        if (out.parameter[i][j] >= 0)
          entries_.push_back({Slot::kDirected, out.order[i], first + j, out.parameter[i][j], 0});
      }
    }
    to_.roots_.push_back(std::move(out));
  }

  int added() {
    lower_.push_back(-kInfinity);
    upper_.push_back(kInfinity);
    return next_++;
  }

  // Loadings of levels above the first and of no other, whose starts may be others.
  void find_loadings(const Objective& objective) {
    std::vector<bool> below(next_, false);
    for (std::size_t g = 0; g < objective.groups().size(); ++g) {
      if (!lowest_changed(objective, g)) continue;
      for (const int k : objective.blocks()[objective.levels(g).front()].parameters()) below[k] = true;
    }
    for (std::size_t g = 0; g < objective.groups().size(); ++g) {
      for (std::size_t l = lowest_changed(objective, g); l < objective.levels(g).size(); ++l)
        find_loadings(objective, g, l, below);
    }
  }

  void find_loadings(const Objective& objective, std::size_t g, std::size_t level,
                     const std::vector<bool>& below) {
    const int b = objective.levels(g)[level];
    const Vector sizes = total_variance(to_.saturated_[g], level, objective.layout(g)).cwiseSqrt();
    const Block& block = to_.original_[b];
    const std::vector<Entry>& entries = to_.objective_->blocks()[b].entries();
    for (const Entry& e : entries) {
      const bool loads = e.slot == Slot::kDirected && e.parameter >= 0 && e.row < block.nobserved() &&
                         e.col >= block.nobserved() && e.col < block.nvariables();
      if (!loads || below[e.parameter] || held_of(e.parameter)) continue;
      double marker = 1;
      for (const Entry& other : entries) {
        const bool marks = other.slot == Slot::kDirected && other.col == e.col && other.parameter < 0 &&
                           other.value != 0 && other.row < block.nobserved();
        if (marks && sizes[other.row] > 0) marker = sizes[other.row] / std::abs(other.value);
      }
      to_.loadings_.push_back({b, e.col, e.row, e.parameter, sizes[e.row] / marker});
    }
  }

  bool held_of(int k) const { return k < static_cast<int>(held_.size()) && held_[k]; }

  static constexpr int kGone = -2;

  SearchModel& to_;
  const std::vector<double>& signs_;
  const Vector* sorted_;
  std::vector<int> uses_, last_;  // blocks of levels above the first
  std::vector<bool> held_;
  int next_ = 0, variables_ = 0, observed_ = 0;
  std::size_t nscales_ = 0;  // before this block
  std::vector<double> lower_, upper_;
  std::vector<Entry> entries_;
  std::vector<Block> blocks_;
  std::vector<Program> programs_, equalities_;
};

SearchModel::SearchModel(const Objective& objective, const Vector& lower, const Vector& upper,
                         const Constraints& constraints, const std::vector<Implied>& saturated, bool cone,
                         const std::vector<double>& signs, const Vector* sorted)
    : cone_(cone), saturated_(saturated) {
  Builder(*this, objective, lower, upper, constraints, signs, sorted);
}

const SearchModel::Scale* SearchModel::scale_of(int block, int variable) const {
  for (const Scale& s : scales_) {
    if (s.block == block && s.factor == variable) return &s;
  }
  return nullptr;
}

bool SearchModel::vanishes(const Scale& scale, const Vector& point) const {
  bool any = false;
  for (const Loading& l : loadings_) {
    if (l.block != scale.block || l.factor != scale.factor) continue;
    any = true;
    if (std::abs(point[l.parameter]) > kNothing * l.size) return false;
  }
  return any;
}

SearchModel SearchModel::with(const std::vector<Group>& groups) const {
  SearchModel out = *this;
  out.objective_.emplace(objective_->npar(), objective_->blocks(), groups);
  return out;
}

Vector SearchModel::near(const Vector& theta, double least) const {
  Vector out = Vector::Zero(objective_->npar());
  out.head(npar_) = theta;
  Vector one = Vector::Ones(objective_->npar());
  std::vector<Vector> scale;
  for (const Block& block : original_) scale.push_back(Vector::Ones(block.nvariables()));
  for (const Scale& s : scales_) {
    double shortest = 0;
    for (const Loading& l : loadings_) {
      if (l.parameter == s.parameter) shortest = kLeast * l.size / std::abs(s.marker);
    }
    scale[s.block][s.factor] = std::max(std::sqrt(std::abs(theta[s.parameter])), shortest);
  }
  for (std::size_t b = 0; b < original_.size(); ++b) {
    for (const Entry& e : original_[b].free_entries()) {
      double by = scale[b][e.row];
      if (e.slot == Slot::kDirected) by /= scale[b][e.col];
      if (e.slot == Slot::kSymmetric) by *= scale[b][e.col];
      out[e.parameter] = theta[e.parameter] / by;
    }
  }
  for (const Scale& s : scales_) out[s.parameter] = s.marker * scale[s.block][s.factor];
  for (const Root& r : roots_) {
    const Index m = static_cast<Index>(r.order.size());
    Matrix cov = Matrix::Zero(m, m);
    double largest = 0;
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j <= i; ++j) {
        const int k = r.covariance[i][j];
        if (k >= 0) {
          cov(i, j) = cov(j, i) = theta[k] / (scale[r.block][r.order[i]] * scale[r.block][r.order[j]]);
        }
      }
      if (r.length[i] > 0) cov(i, i) = r.length[i] * r.length[i];
      largest = std::max(largest, std::abs(cov(i, i)));
    }
    for (Index i = 0; i < m; ++i) cov(i, i) = std::max(std::abs(cov(i, i)), 1e-6 * largest);
    Cholesky chol;
    if (!(largest > 0) || !chol.compute(regular(cov, least))) continue;
    const Matrix root = chol.lower();
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j <= i; ++j) {
        if (r.parameter[i][j] >= 0) out[r.parameter[i][j]] = root(i, j);
      }
    }
  }
  for (const Pair& p : pairs_) {
    const double most = (1 - least) * p.most;
    out[p.parameter] = std::min(std::max(out[p.parameter], -most), most);
  }
  return out.cwiseMax(lower_).cwiseMin(upper_);
}

// A marker that measures nothing scales nothing: it measures a trace.
Vector SearchModel::with_markers(Vector point) const {
  for (const Scale& s : scales_) {
    double most = 0, size = 1;
    for (const Loading& l : loadings_) {
      if (l.block != s.block || l.factor != s.factor || !(l.size > 0)) continue;
      most = std::max(most, std::abs(point[l.parameter]) / l.size);
      if (l.parameter == s.parameter) size = l.size;
    }
    double& marker = point[s.parameter];
    if (std::abs(marker) < kMarker * most * size) marker = (marker < 0 ? -kMarker : kMarker) * most * size;
  }
  return point;
}

Vector SearchModel::parameters(const Vector& point, const Vector& otherwise) const {
  Vector out = back_.values(with_markers(point));
  for (const Scale& s : scales_) {
    if (!vanishes(s, point)) continue;
    out[s.parameter] = 0;
    for (const int k : s.covariances) out[k] = 0;
    for (const int k : s.concerned) out[k] = otherwise[k];
  }
  return out;
}

Matrix SearchModel::jacobian(const Vector& point) const {
  Matrix out = back_.jacobian(with_markers(point));
  for (const Scale& s : scales_) {
    if (!vanishes(s, point)) continue;
    out.row(s.parameter).setZero();
    for (const int k : s.covariances) out.row(k).setZero();
    for (const int k : s.concerned) out.row(k).setZero();
  }
  return out;
}

Vector SearchModel::random(const Vector& point, std::uint64_t number, double spread) const {
  RandomStream stream(kSeed, number, 0);
  Vector out = point;
  for (const Loading& l : loadings_) out[l.parameter] = spread * l.size * stream.normal();
  return out.cwiseMax(lower_).cwiseMin(upper_);
}

std::pair<std::size_t, std::size_t> SearchModel::place_of(int block) const {
  for (std::size_t g = 0; g < objective_->groups().size(); ++g) {
    const std::vector<int>& levels = objective_->levels(g);
    const auto at = std::find(levels.begin(), levels.end(), block);
    if (at != levels.end()) return {g, at - levels.begin()};
  }
  throw std::logic_error("a block belongs to no group");
}

Vector SearchModel::principal(const Vector& point, Index which) const {
  Vector out = point;
  for (std::size_t first = 0; first < loadings_.size();) {
    const int block = loadings_[first].block, factor = loadings_[first].factor;
    std::size_t last = first;
    std::vector<Index> rows;
    while (last < loadings_.size() && loadings_[last].block == block && loadings_[last].factor == factor)
      rows.push_back(loadings_[last++].row);
    const auto [g, level] = place_of(block);
    const SymmetricEigen eigen(select(saturated_[g][level].cov, rows, rows));
    const Index m = static_cast<Index>(rows.size()), k = std::max<Index>(m - 1 - which, 0);
    const double size = std::max(eigen.values[k], kShare * eigen.values.cwiseAbs().sum());
    const bool scaled = scale_of(block, factor) != nullptr;
    for (std::size_t i = first; i < last; ++i) {
      const double loading = std::sqrt(size) * eigen.vectors(static_cast<Index>(i - first), k);
      // about a marker they have another unit
      out[loadings_[i].parameter] = scaled ? loading : loading / std::sqrt(size);
    }
    first = last;
  }
  return out.cwiseMax(lower_).cwiseMin(upper_);
}

std::vector<SearchModel::Singular> SearchModel::singular(const Vector& point) const {
  std::vector<Singular> out;
  for (const Root& r : roots_) {
    const Index m = static_cast<Index>(r.order.size());
    Matrix root = Matrix::Zero(m, m);
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j <= i; ++j) {
        if (r.parameter[i][j] >= 0) root(i, j) = point[r.parameter[i][j]];
      }
    }
    const Vector length = root.rowwise().norm();
    const Vector inverse = length.unaryExpr([](double v) { return v > 0 ? 1 / v : 0.0; });
    if (SymmetricEigen(outer(scale_rows(inverse, root), scale_rows(inverse, root))).values[0] < kSingular)
      out.push_back({r.block, r.order});
  }
  for (const Pair& p : pairs_) {
    if (std::abs(point[p.parameter]) >= (1 - kSingular) * p.most) out.push_back({p.block, {p.i, p.j}});
  }
  return out;
}

std::vector<int> SearchModel::vanished(const Vector& point) const {
  std::vector<int> out;
  for (const int k : variances_) {
    if (point[k] <= 0) out.push_back(k);
  }
  for (const Scale& s : scales_) {
    if (vanishes(s, point)) out.push_back(s.parameter);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// What the coordinates of a singular matrix do beyond that leaves the parameters where they are.
Matrix ConeOptimum::moving() const {
  const Matrix free = tangent(model.objective(), model.constraints(), optimum.theta, optimum.active,
                              optimum.active_inequalities);
  const Vector length = jacobian.rowwise().norm();
  const Vector inverse = length.unaryExpr([](double v) { return v > 0 ? 1 / v : 0.0; });
  const Matrix moved = scale_rows(inverse, product(jacobian, free));
  return select_cols(free, PivotedQr(moved, kSingular).independent());
}

SamplingCovariance sampling_covariance(const ConeOptimum& at, ErrorKind kind) {
  const Matrix free = at.moving(), moved = product(at.jacobian, free);
  SamplingCovariance own = sampling_covariance(at.model.objective(), at.model.constraints(), at.optimum.theta,
                                               free, kind, at.optimum.point.get());
  SamplingCovariance out;
  out.positive_definite = own.positive_definite;
  const Index n = at.jacobian.rows();
  for (const int k : own.unidentified) {
    if (k < n) out.unidentified.push_back(k);
  }
  if (kind == ErrorKind::kNone || !own.positive_definite) {
    out.vcov.setConstant(n, n, kNaN);
    return out;
  }
  const Matrix vcov = own.vcov.unaryExpr([](double v) { return std::isnan(v) ? 0.0 : v; });
  out.vcov = outer_sandwich(at.jacobian, vcov);
  for (Index k = 0; k < n; ++k) {
    const bool lost =
        std::find(out.unidentified.begin(), out.unidentified.end(), k) != out.unidentified.end();
    if (lost || moved.row(k).isZero(0)) {
      out.vcov.row(k).setConstant(kNaN);
      out.vcov.col(k).setConstant(kNaN);
    }
  }
  return out;
}

}  // namespace msem
