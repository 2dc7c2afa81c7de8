#include "fit/resampling.hpp"

#include <limits>
#include <stdexcept>

#include "base/threads.hpp"
#include "fit/filled.hpp"
#include "fit/saturated_cells.hpp"

namespace msem {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kCollinear = 1e-10;  // share of a variance that others must leave unexplained
constexpr double kConstant = 1e-13;   // share of the whole sample's variance that is rounding
constexpr double kBeyond = 1e-4;      // -2 log L below the saturated model's by more is no maximum

struct Spread {
  Vector unit, cluster;  // diagonals per degree of freedom
};

// Sums of squares and products of the variables of the between level about their mean over clusters.
Matrix between_scatter(const TwoLevelStatistics& s, Index p, Index nboth) {
  const Index m = s.means.cols();
  std::vector<Index> chosen;
  for (Index k = 0; k < m; ++k) {
    if (k < nboth || k >= p) chosen.push_back(k);
  }
  const Vector mean = s.means.transpose() * s.counts / s.counts.sum();
  Matrix total = Matrix::Zero(m, m);
  for (Index i = 0; i < s.sizes.size(); ++i) {
    const Vector d = s.means.row(i).transpose() - mean;
    total += Eigen::Map<const Matrix>(s.scatter.data() + i * m * m, m, m) + s.counts[i] * d * d.transpose();
  }
  return total(chosen, chosen);
}

Matrix between_scatter(const TwoLevelData& d) {
  std::vector<Index> chosen;
  for (Index k = 0; k < d.p + d.q; ++k) {
    if (k < d.nboth || k >= d.p) chosen.push_back(1 + k);
  }
  const Matrix rows = d.rows(Eigen::all, chosen);
  const Vector mean = rows.transpose() * d.rows.col(0) / d.nclusters;
  return rows.transpose() * rows - d.nclusters * mean * mean.transpose();
}

// Whether a scatter matrix has variances, compared with those of the whole sample, and full rank.
bool regular(const Matrix& scatter, const Vector& variance, double df) {
  if (scatter.rows() == 0) return true;
  const Vector diagonal = scatter.diagonal();
  if (!(diagonal.array() > kConstant * df * variance.array()).all()) return false;
  return scaled_inverse(scatter).pivot > kCollinear;
}

const TwoLevelLoss& two_level(const Group& group) {
  const auto* found = dynamic_cast<const TwoLevelLoss*>(group.loss.get());
  if (!found) throw std::invalid_argument("resampling needs a likelihood");
  return *found;
}

const MissingLoss* with_holes(const Group& group) {
  return dynamic_cast<const MissingLoss*>(group.loss.get());
}

}  // namespace

Refitter::Refitter(const Objective& model, Vector start, Vector lower, Vector upper,
                   std::vector<std::vector<int>> filled, ScoringOptions options, Constraints constraints)
    : model_(model),
      groups_(model.groups()),
      start_(std::move(start)),
      lower_(std::move(lower)),
      upper_(std::move(upper)),
      filled_(std::move(filled)),
      options_(options),
      constraints_(std::move(constraints)) {
  if (filled_.size() != model.blocks().size())
    throw std::invalid_argument("entries to fill must be given for each block");
  for (std::size_t b = 0; b < filled_.size(); ++b) {
    for (const int i : filled_[b]) {
      const auto& entries = model.blocks()[b].entries();
      const bool exists = i >= 0 && i < static_cast<int>(entries.size());
      if (!exists || entries[i].slot == Slot::kDirected || entries[i].parameter >= 0)
        throw std::invalid_argument("only fixed moments can be filled in");
    }
  }
  for (const Group& g : groups_) {
    if (const MissingLoss* holes = with_holes(g)) {
      unit_variance_.push_back(observed_moments(holes->data()).variance);
      cluster_variance_.emplace_back();
      whole_.push_back(fit_saturated(*holes, {}).moments);
      continue;
    }
    whole_.emplace_back();
    const TwoLevelData& d = two_level(g).data();
    unit_variance_.push_back(d.ssw.diagonal() / std::max(1.0, d.nobs - d.nclusters));
    cluster_variance_.push_back(between_scatter(d).diagonal() / d.nclusters);
  }
}

Outcome Refitter::check_holes(const GroupDraw& drawn, Index group) const {
  const IncompleteData& d = *drawn.incomplete;
  const ObservedMoments found = observed_moments(d);
  if (drawn.distinct <= d.nboth + d.q) return Outcome::kFewClusters;
  const bool fine = (found.count.array() > 1).all() &&
                    (found.variance.array() > kConstant * unit_variance_[group].array()).all();
  return fine ? Outcome::kConverged : Outcome::kSingular;
}

Outcome Refitter::check(const GroupDraw& drawn, Index group) const {
  if (drawn.incomplete) return check_holes(drawn, group);
  const TwoLevelStatistics& s = drawn.statistics;
  const TwoLevelData& whole = two_level(groups_[group]).data();
  if (s.ssw.rows() != whole.p || s.means.cols() != whole.p + whole.q)
    throw std::invalid_argument("replicates must have the variables of the model");
  const Index p = s.ssw.rows(), nboth = groups_[group].loss->nboth(), level2 = nboth + s.means.cols() - p;
  const double within = s.sizes.dot(s.counts) - s.counts.sum();
  if (drawn.distinct <= level2 || within < static_cast<double>(p)) return Outcome::kFewClusters;
  const bool fine = regular(s.ssw, unit_variance_[group], within) &&
                    regular(between_scatter(s, p, nboth), cluster_variance_[group], s.counts.sum());
  return fine ? Outcome::kConverged : Outcome::kSingular;
}

Refit Refitter::fit(const std::vector<GroupDraw>& sample) const {
  Refit out;
  out.theta.setConstant(npar(), kNaN);
  out.value = out.saturated = kNaN;
  std::vector<std::shared_ptr<const Loss>> losses;
  std::vector<Moments> saturated;
  double unrestricted = 0;
  try {
    for (std::size_t g = 0; g < sample.size(); ++g) {
      out.outcome = check(sample[g], static_cast<Index>(g));
      if (out.outcome != Outcome::kConverged) return out;
      SaturatedFit h1;
      if (sample[g].incomplete) {
        const auto loss = std::make_shared<const MissingLoss>(sample[g].incomplete);
        h1 = fit_saturated(*loss, {}, &whole_[g]);
        losses.push_back(loss);
      } else {
        const auto loss = loss_of(sample[g].statistics, groups_[g].loss->nboth());
        h1 = fit_saturated(loss->data(), {});
        losses.push_back(loss);
      }
      unrestricted += h1.converged ? -2 * h1.loglik : kNaN;
      saturated.push_back(std::move(h1.moments));
    }
  } catch (const std::domain_error&) {
    out.outcome = Outcome::kSingular;
    return out;
  }
  const Objective objective = filled_objective(model_, filled_, losses, saturated);
  const Optimum found = minimize(objective, constraints_, start_, lower_, upper_, options_);
  out.outcome = found.stop == Stop::kConverged ? Outcome::kConverged : Outcome::kNotConverged;
  if (found.value < unrestricted - kBeyond) out.outcome = Outcome::kUnbounded;
  if (out.outcome != Outcome::kConverged) return out;
  out.theta = found.theta;
  out.value = found.value;
  out.saturated = unrestricted;
  return out;
}

std::vector<Refit> refit(const Refitter& refitter, const Draws& draws, std::uint64_t first,
                         std::uint64_t last, int threads) {
  if (draws.ngroups() != refitter.ngroups())
    throw std::invalid_argument("the model and the draws must have the same groups");
  std::vector<Refit> out(last > first ? last - first : 0);
  in_threads(static_cast<std::ptrdiff_t>(out.size()), threads,
             [&](std::ptrdiff_t r) { out[r] = refitter.fit(draws.draw(first + r)); });
  return out;
}

}  // namespace msem
