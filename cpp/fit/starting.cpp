#include "fit/starting.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace msem {

namespace {

constexpr double kFloor =
    0.05;                       // smallest share of the total variance that a level's variance is taken to be
constexpr double kSmall = 0.2;  // correlations closer to zero are too uncertain to divide by
constexpr double kClip = 0.9;   // largest correlation that starting values are derived from
constexpr double kLittle = 0.05;  // share of the total variance that a cautious start gives to the last level
constexpr double kTypical = 0.7;  // standardized loading of a latent indicator

double clipped(double x, double low, double high) { return std::min(std::max(x, low), high); }

double median(std::vector<double> values) {
  const std::size_t half = values.size() / 2;
  std::sort(values.begin(), values.end());
  return values.size() % 2 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

// A positive definite stand-in for a level's saturated matrix, which may be indefinite.
Matrix regular_covariance(const Matrix& cov, const Vector& total) {
  const Index n = cov.rows();
  const Vector sd = cov.diagonal().cwiseMax(kFloor * total).cwiseSqrt();
  Matrix correlation(n, n);
  for (Index j = 0; j < n; ++j) {
    for (Index i = 0; i < n; ++i)
      correlation(i, j) = i == j ? 1.0 : clipped(cov(i, j) / (sd[i] * sd[j]), -kClip, kClip);
  }
  Matrix shifted = correlation;
  shifted.diagonal().array() -= 1 - kClip;
  if (!positive_definite(shifted)) {
    const double smallest = SymmetricEigen(correlation).values[0];
    if (smallest < 1 - kClip) {
      const double share = kClip / (1 - smallest);
      correlation *= share;
      correlation.diagonal().array() += 1 - share;
    }
  }
  return scale_both(sd, correlation);
}

// Starting values of the rows of one block.
class LevelStart {
 public:
  LevelStart(const std::vector<StartRow>& rows, Index nobserved, Index nvariables, const Matrix& cov)
      : rows_(rows),
        n_(nobserved),
        cov_(cov),
        variance_(Vector::Ones(nvariables)),
        known_(nvariables, false) {
    variance_.head(n_) = cov.diagonal();
    joint_.setZero(nvariables, nvariables);
    joint_.topLeftCorner(n_, n_) = cov;
    std::fill_n(known_.begin(), n_, true);
    residual_ = variance_;
    endogenous_.assign(nvariables, false);
    for (const StartRow& r : rows) {
      if (r.relation == Relation::kRegression) endogenous_[r.lhs] = true;
      if (r.relation == Relation::kMeasures) endogenous_[r.rhs] = true;
    }
    value_.assign(rows.size(), 0.0);
    loadings(nvariables);
    slopes();
    for (const bool latent : {true, false}) {
      if (covariances(latent)) break;
    }
  }
  const std::vector<double>& values() const { return value_; }

 private:
  // Factors that measure observed variables only come first; of the others in order of the variables.
  void loadings(Index nvariables) {
    std::vector<std::vector<std::size_t>> members(nvariables);
    for (std::size_t k = 0; k < rows_.size(); ++k) {
      if (rows_[k].relation == Relation::kMeasures) members[rows_[k].lhs].push_back(k);
    }
    for (const bool higher : {false, true}) {
      for (Index f = n_; f < nvariables; ++f) {
        const bool of_factors = std::any_of(members[f].begin(), members[f].end(),
                                            [&](std::size_t k) { return !members[rows_[k].rhs].empty(); });
        if (!members[f].empty() && of_factors == higher) factor(f, members[f]);
      }
    }
  }

  void factor(Index f, const std::vector<std::size_t>& members) {
    std::vector<double> sizes = standard_loadings(members);
    for (std::size_t k = 0; k < members.size(); ++k) sizes[k] *= std::sqrt(variance_[rows_[members[k]].rhs]);
    const double scale = factor_sd(f, members, sizes);
    for (std::size_t k = 0; k < members.size(); ++k) {
      const StartRow& r = rows_[members[k]];
      value_[members[k]] = r.parameter < 0 ? r.value : sizes[k] / scale;
      const double part = value_[members[k]] * scale;
      residual_[r.rhs] = std::max(residual_[r.rhs] - part * part, 0.2 * variance_[r.rhs]);
    }
    variance_[f] = residual_[f] = scale * scale;
    relate(f, members);
  }

  // Covariances of a factor with the variables before it, as its indicators have them.
  void relate(Index f, const std::vector<std::size_t>& members) {
    Vector covariance = Vector::Zero(variance_.size());
    double norm = 0;
    for (const std::size_t k : members) {
      const Index i = rows_[k].rhs;
      if (!known_[i]) continue;
      const double weight = value_[k] / residual_[i];
      covariance += weight * joint_.col(i);
      norm += weight * value_[k];
    }
    if (!(norm > 0)) return;
    for (Index i = 0; i < variance_.size(); ++i) {
      const double most = kClip * std::sqrt(variance_[i] * variance_[f]);
      joint_(i, f) = joint_(f, i) = clipped(covariance[i] / norm, -most, most);
    }
    joint_(f, f) = variance_[f];
    known_[f] = true;
  }

  // Standardized loadings by the triads r_1j r_1k / r_jk (Spearman, 1904).
  std::vector<double> standard_loadings(const std::vector<std::size_t>& members) const {
    const std::size_t m = members.size();
    std::vector<double> out(m, kTypical);
    std::vector<Index> at;
    for (const std::size_t k : members) at.push_back(rows_[k].rhs);
    if (m < 2 || std::any_of(at.begin(), at.end(), [&](Index i) { return i >= n_; })) return out;
    const auto r = [&](std::size_t j, std::size_t k) {
      return cov_(at[j], at[k]) / std::sqrt(cov_(at[j], at[j]) * cov_(at[k], at[k]));
    };
    std::vector<double> triads;
    for (std::size_t j = 1; j < m; ++j) {
      for (std::size_t k = j + 1; k < m; ++k) {
        if (std::abs(r(j, k)) > kSmall) triads.push_back(r(0, j) * r(0, k) / r(j, k));
      }
    }
    const double first = triads.empty() ? kTypical : std::sqrt(clipped(median(triads), 0.3, kClip * kClip));
    for (std::size_t k = 0; k < m; ++k) {
      double x = k == 0 ? first : r(0, k) / first;
      if (std::abs(x) < kSmall) x = x < 0 ? -kSmall : kSmall;
      out[k] = clipped(x, -kClip, kClip);
    }
    return out;
  }

  // Standard deviation of a factor in the metric that its fixed loadings, or its fixed variance, give it.
  double factor_sd(Index f, const std::vector<std::size_t>& members, const std::vector<double>& sizes) const {
    for (const StartRow& r : rows_) {
      if (r.relation == Relation::kCovariance && r.lhs == f && r.rhs == f && r.parameter < 0 && r.value > 0)
        return std::sqrt(r.value);
    }
    std::vector<double> known;
    for (std::size_t k = 0; k < members.size(); ++k) {
      const StartRow& r = rows_[members[k]];
      if (r.parameter < 0 && r.value != 0) known.push_back(std::abs(sizes[k] / r.value));
    }
    return known.empty() ? 1.0 : median(known);
  }

  // Whether another variable stands for this one as its indicator.
  bool measured(Index i) const {
    return std::any_of(rows_.begin(), rows_.end(),
                       [&](const StartRow& r) { return r.relation == Relation::kMeasures && r.rhs == i; });
  }

  // Least squares from the covariances of variables and factors; 0 where a latent variable has no indicators.
  void slopes() {
    std::vector<bool> done(variance_.size(), false);
    for (const StartRow& first : rows_) {
      if (first.relation != Relation::kRegression || done[first.lhs]) continue;
      const Index y = first.lhs;
      done[y] = true;
      std::vector<Index> x;
      std::vector<std::size_t> at;
      for (std::size_t k = 0; k < rows_.size(); ++k) {
        if (rows_[k].relation != Relation::kRegression || rows_[k].lhs != y) continue;
        x.push_back(rows_[k].rhs);
        at.push_back(k);
      }
      std::vector<Index> all = x;
      all.push_back(y);
      const bool latent = std::any_of(all.begin(), all.end(), [&](Index i) { return i >= n_; });
      if (latent && (measured(y) || std::any_of(all.begin(), all.end(), [&](Index i) { return !known_[i]; })))
        continue;
      Matrix cov = select(joint_, all, all);
      if (latent) cov = regular_covariance(cov, cov.diagonal());
      const Index m = static_cast<Index>(x.size());
      const Vector cross = cov.col(m).head(m);
      const Vector slope = solve_square(cov.topLeftCorner(m, m), cross);
      for (std::size_t k = 0; k < at.size(); ++k) value_[at[k]] = slope[k];
      residual_[y] = std::max(residual_[y] - slope.dot(cross), 0.1 * cov(m, m));
    }
  }

  // Variances, and covariances of exogenous variables: those of factors only where asked for. Whether a
  // distribution has them.
  bool covariances(bool latent) {
    Matrix all = variance_.asDiagonal();
    for (std::size_t k = 0; k < rows_.size(); ++k) {
      const StartRow& r = rows_[k];
      if (r.relation != Relation::kCovariance) continue;
      const bool usable = latent ? known_[r.lhs] && known_[r.rhs] : r.lhs < n_ && r.rhs < n_;
      const bool free = usable && !endogenous_[r.lhs] && !endogenous_[r.rhs];
      value_[k] = r.lhs == r.rhs ? residual_[r.lhs] : free ? joint_(r.lhs, r.rhs) : 0.0;
      if (r.lhs != r.rhs) all(r.lhs, r.rhs) = all(r.rhs, r.lhs) = value_[k];
    }
    const Vector scale = variance_.cwiseSqrt().cwiseInverse();
    all = scale_both(scale, all);
    all.diagonal().array() -= 0.5 * (1 - kClip);
    return positive_definite(all);
  }

  const std::vector<StartRow>& rows_;
  Index n_;
  const Matrix& cov_;
  Vector variance_, residual_;
  Matrix joint_;  // covariances of the variables that are `known_`: observed ones, factors with indicators
  std::vector<bool> endogenous_, known_;
  std::vector<double> value_;
};

}  // namespace

Vector total_variance(const Implied& moments, std::size_t level, const Layout& layout) {
  Vector out = Vector::Zero(static_cast<Index>(layout.levels[level].size()));
  for (std::size_t l = 0; l < moments.size(); ++l) {
    const std::vector<Index>& there = layout.levels[l];
    for (Index i = 0; i < out.size(); ++i) {
      const auto at = std::find(there.begin(), there.end(), layout.levels[level][i]);
      if (at != there.end()) out[i] += std::max(moments[l].cov(at - there.begin(), at - there.begin()), 0.0);
    }
  }
  return out;
}

std::size_t lowest_changed(const Objective& model, std::size_t group) {
  return model.levels(group).size() > 1 ? 1 : 0;
}

StartPlan::StartPlan(int npar, const std::vector<Block>& blocks, std::vector<std::vector<StartRow>> rows,
                     Vector lower, Vector upper)
    : rows_(std::move(rows)), lower_(std::move(lower)), upper_(std::move(upper)) {
  if (rows_.size() != blocks.size() || lower_.size() != npar || upper_.size() != npar)
    throw std::invalid_argument("starting values need the rows of every block and all bounds");
  given_.setConstant(npar, kNaN);
  nonnegative_ = lower_;
  std::vector<bool> intercept(npar, false);
  for (std::size_t b = 0; b < rows_.size(); ++b) {
    for (const StartRow& r : rows_[b]) {
      const int n = blocks[b].nvariables();
      if (r.lhs < 0 || r.lhs >= n || r.rhs >= n || r.parameter >= npar)
        throw std::invalid_argument("a row is beyond the variables or parameters of its block");
      if (r.parameter < 0) continue;
      if (std::isfinite(r.start)) given_[r.parameter] = r.start;
      if (r.relation == Relation::kIntercept) intercept[r.parameter] = true;
      if (r.relation == Relation::kCovariance && r.lhs == r.rhs)
        nonnegative_[r.parameter] = std::min(std::max(lower_[r.parameter], 0.0), upper_[r.parameter]);
    }
  }
  for (int k = 0; k < npar; ++k) {
    if (intercept[k] && std::isnan(given_[k])) settled_.push_back(k);
  }
}

StartPlan StartPlan::from(const Vector& known) const {
  if (known.size() != given_.size()) throw std::invalid_argument("starts must be those of all parameters");
  StartPlan out = *this;
  for (Index k = 0; k < known.size(); ++k) {
    if (!std::isnan(known[k])) out.given_[k] = known[k];
  }
  const auto given = [&](int k) { return !std::isnan(out.given_[k]); };
  out.settled_.erase(std::remove_if(out.settled_.begin(), out.settled_.end(), given), out.settled_.end());
  return out;
}

// Whether nothing is to be found out about a block but intercepts, which come last.
bool StartPlan::all_given(std::size_t block) const {
  const std::vector<StartRow>& rows = rows_[block];
  return std::all_of(rows.begin(), rows.end(), [&](const StartRow& r) {
    return r.parameter < 0 || r.relation == Relation::kIntercept || !std::isnan(given_[r.parameter]);
  });
}

Vector StartPlan::values(const Objective& model, const std::vector<Implied>& saturated) const {
  Vector theta = Vector::Constant(model.npar(), kNaN);
  for (std::size_t g = 0; g < model.groups().size(); ++g) {
    for (std::size_t l = 0; l < model.levels(g).size(); ++l) {
      const int b = model.levels(g)[l];
      const Block& block = model.blocks()[b];
      if (all_given(b)) continue;
      const Vector total = total_variance(saturated[g], l, model.layout(g));
      // latent variables that a likelihood knows of have no moments, and count as what they are
      std::vector<Index> known, place(block.nvariables());
      for (Index i = 0; i < total.size(); ++i) {
        if (!std::isnan(total[i])) known.push_back(i);
      }
      Index in = 0, out = static_cast<Index>(known.size());
      for (Index i = 0; i < block.nvariables(); ++i)
        place[i] = i < total.size() && !std::isnan(total[i]) ? in++ : out++;
      std::vector<StartRow> rows = rows_[b];
      for (StartRow& r : rows) {
        r.lhs = static_cast<int>(place[r.lhs]);
        r.rhs = static_cast<int>(place[r.rhs]);
      }
      const Matrix cov = regular_covariance(select(saturated[g][l].cov, known, known), select(total, known));
      const LevelStart level(rows, in, block.nvariables(), cov);
      for (std::size_t k = 0; k < rows_[b].size(); ++k) {
        const int at = rows_[b][k].parameter;
        if (at >= 0 && std::isnan(theta[at])) theta[at] = level.values()[k];
      }
    }
  }
  for (Index k = 0; k < theta.size(); ++k) {
    if (!std::isnan(given_[k])) theta[k] = given_[k];
    if (std::isnan(theta[k])) theta[k] = 0;
  }
  clip(theta);
  settle_intercepts(model, saturated, theta);
  return theta;
}

// Free parameters of levels above the first and of no other (of a single level, its own), without a start of
// the user's.
std::vector<bool> StartPlan::changeable(const Objective& model) const {
  std::vector<bool> out(given_.size(), false);
  for (std::size_t g = 0; g < model.groups().size(); ++g) {
    for (std::size_t l = lowest_changed(model, g); l < model.levels(g).size(); ++l) {
      for (const int k : model.blocks()[model.levels(g)[l]].parameters()) out[k] = std::isnan(given_[k]);
    }
  }
  for (std::size_t g = 0; g < model.groups().size(); ++g) {
    if (!lowest_changed(model, g)) continue;
    for (const int k : model.blocks()[model.levels(g).front()].parameters()) out[k] = false;
  }
  return out;
}

Vector StartPlan::cautious(const Objective& model, const std::vector<Implied>& saturated,
                           const Vector& first) const {
  Vector theta = first;
  const std::vector<bool> free = changeable(model);
  for (std::size_t g = 0; g < model.groups().size(); ++g) {
    for (std::size_t l = lowest_changed(model, g); l < model.levels(g).size(); ++l)
      be_cautious(model, saturated, g, l, free, theta);
  }
  clip(theta);
  settle_intercepts(model, saturated, theta);
  return theta;
}

void StartPlan::be_cautious(const Objective& model, const std::vector<Implied>& saturated, std::size_t g,
                            std::size_t level, const std::vector<bool>& free, Vector& theta) const {
  const int b = model.levels(g)[level];
  const std::vector<StartRow>& rows = rows_[b];
  const Index observed = model.blocks()[b].nobserved();
  Vector variance = Vector::Constant(model.blocks()[b].nvariables(), kNaN);
  variance.head(observed) = total_variance(saturated[g], level, model.layout(g));
  std::vector<bool> standardized(variance.size(), false);
  for (const StartRow& r : rows) {
    if (r.relation == Relation::kMeasures && r.rhs < observed && std::isnan(variance[r.lhs]))
      variance[r.lhs] = variance[r.rhs];
    if (r.relation == Relation::kCovariance && r.lhs == r.rhs && r.parameter < 0) standardized[r.lhs] = true;
  }
  for (const StartRow& r : rows) {
    if (r.parameter < 0 || !free[r.parameter] || r.relation == Relation::kIntercept) continue;
    double& x = theta[r.parameter];
    if (r.relation == Relation::kMeasures) {
      const double size = variance[r.rhs] / (standardized[r.lhs] ? 1 / kLittle : variance[r.lhs]);
      if (!std::isnan(size)) x = std::sqrt(size);
    } else if (r.relation == Relation::kCovariance && r.lhs == r.rhs) {
      if (!std::isnan(variance[r.lhs])) x = kLittle * variance[r.lhs];
    } else {
      x = 0;
    }
  }
}

Vector StartPlan::shrunk(const Objective& model, const std::vector<Implied>& saturated, const Vector& first,
                         double share) const {
  Vector theta = first;
  for (const std::vector<StartRow>& rows : rows_) {
    for (const StartRow& r : rows) {
      const bool relates =
          r.relation == Relation::kRegression || (r.relation == Relation::kCovariance && r.lhs != r.rhs);
      if (relates && r.parameter >= 0) theta[r.parameter] = share * first[r.parameter];
    }
  }
  clip(theta);
  settle_intercepts(model, saturated, theta);
  return theta;
}

Vector StartPlan::rescaled(const Objective& model, const std::vector<Implied>& saturated, const Vector& first,
                           const std::vector<double>& factors) const {
  Vector theta = first;
  const std::vector<bool> free = changeable(model);
  std::size_t next = 0;
  for (std::size_t g = 0; g < model.groups().size(); ++g) {
    for (std::size_t l = lowest_changed(model, g); l < model.levels(g).size(); ++l) {
      for (const StartRow& r : rows_[model.levels(g)[l]]) {
        if (r.relation == Relation::kMeasures && r.parameter >= 0 && free[r.parameter])
          theta[r.parameter] *= factors[next++ % factors.size()];
      }
    }
  }
  clip(theta);
  settle_intercepts(model, saturated, theta);
  return theta;
}

// Sets the free intercepts to reproduce the saturated means as well as they can, given all other values.
void StartPlan::settle_intercepts(const Objective& model, const std::vector<Implied>& saturated,
                                  Vector& theta) const {
  if (settled_.empty()) return;
  std::vector<Matrix> columns(model.blocks().size()), gaps(columns.size()), variances(columns.size());
  for (std::size_t g = 0; g < model.groups().size(); ++g) {
    for (std::size_t l = 0; l < model.levels(g).size(); ++l) {
      const int b = model.levels(g)[l];
      BlockPoint point;
      if (!model.implied(theta, b, point)) return;
      const auto& [mean, cov] = saturated[g][l];
      columns[b] = model.blocks()[b].intercept_columns(point, settled_);
      gaps[b] = mean - point.mean.head(mean.size());
      variances[b] = cov.diagonal().cwiseAbs();
      for (Index i = 0; i < mean.size(); ++i) {
        if (!std::isnan(cov(i, i))) continue;
        columns[b].row(i).setZero();
        gaps[b](i, 0) = 0;
        variances[b](i, 0) = 1;
      }
    }
  }
  const Vector inverse = model.stack(variances).cwiseSqrt().cwiseInverse();
  const Matrix design = scale_rows(inverse, model.stack(columns));
  const Vector moved = shortest_solution(design, inverse.cwiseProduct(model.stack(gaps).col(0)));
  for (std::size_t i = 0; i < settled_.size(); ++i) theta[settled_[i]] += moved[i];
  clip(theta);
}

}  // namespace msem
