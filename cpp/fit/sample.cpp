#include "fit/sample.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "data/measured_moments.hpp"
#include "data/slope_moments.hpp"
#include "fit/saturated_cells.hpp"
#include "likelihood/slopes/quadrature.hpp"
#include "likelihood/slopes/slopes.hpp"

namespace msem {

namespace {

// Of random slopes, which have no saturated moments: some to start from.
SaturatedFit without_maximum(Implied start) { return {std::move(start), kNaN, false, 0}; }

// Moments of another sample, with the covariates of this one: fixed ones of units, of which there are `given`
// from `first` on, and variables of clusters after those that level 1 shares with them.
Implied with_covariates(Implied levels, const ReducedMoments& own, Index first, Index given, Index shared) {
  LevelImplied &units = levels.front(), &clusters = levels.back();
  units.mean.segment(first, given) = own.mean.tail(given);
  units.cov.block(first, first, given, given) = own.cov.bottomRightCorner(given, given);
  const Index q = own.cluster_mean.size();
  clusters.mean.segment(shared, q) = own.cluster_mean;
  clusters.cov.block(shared, shared, q, q) = own.cluster_cov;
  return levels;
}

class CompleteGroup : public GroupSample {
 public:
  CompleteGroup(const TwoLevelStatistics& s, Index shared) {
    const Index m = s.means.cols();
    const Eigen::Map<const Matrix> stacked(s.scatter.data(), m * m, s.sizes.size());
    likelihood_ = std::make_shared<const CompleteLikelihood>(
        TwoLevelData(shared, s.ssw, s.sizes, s.counts, s.means, stacked));
    units_ = {s.sizes.dot(s.counts), s.counts.sum()};
    if (!s.ssw.size()) units_.erase(units_.begin());
  }
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedFit saturated(const SaturatedOptions& options, const Implied*) const override {
    return fit_saturated(likelihood_->data(), options);
  }
  std::vector<double> units_with_covariates() const override { return units_; }

 private:
  std::shared_ptr<const CompleteLikelihood> likelihood_;
  std::vector<double> units_;
};

class IncompleteGroup : public GroupSample {
 public:
  explicit IncompleteGroup(std::shared_ptr<const IncompleteData> data)
      : likelihood_(std::make_shared<const IncompleteLikelihood>(std::move(data))) {}
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedFit saturated(const SaturatedOptions& options, const Implied* known) const override {
    return fit_saturated(*likelihood_, options, options.cone ? nullptr : known);
  }

 private:
  std::shared_ptr<const IncompleteLikelihood> likelihood_;
};

class SlopeGroup : public GroupSample {
 public:
  explicit SlopeGroup(std::shared_ptr<const ReducedData> data)
      : data_(std::move(data)), likelihood_(std::make_shared<const SlopeLikelihood>(data_)) {}
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedFit saturated(const SaturatedOptions&, const Implied* known) const override {
    if (!known) return without_maximum({});
    return without_maximum(with_covariates(*known, reduced_moments(*data_), data_->outcomes, data_->fixed,
                                           likelihood_->layout().shared()));
  }
  bool has_saturated() const override { return false; }

 private:
  std::shared_ptr<const ReducedData> data_;
  std::shared_ptr<const SlopeLikelihood> likelihood_;
};

class IntegratedGroup : public GroupSample {
 public:
  explicit IntegratedGroup(std::shared_ptr<const SlopeClusterData> data)
      : data_(std::move(data)), likelihood_(std::make_shared<const QuadratureLikelihood>(data_)) {}
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedFit saturated(const SaturatedOptions&, const Implied* known) const override {
    if (!known) return without_maximum({});
    return without_maximum(with_covariates(*known, msem::moments(*data_), data_->p - data_->fixed,
                                           data_->fixed, likelihood_->layout().shared()));
  }
  bool has_saturated() const override { return false; }

 private:
  std::shared_ptr<const SlopeClusterData> data_;
  std::shared_ptr<const QuadratureLikelihood> likelihood_;
};

// Three levels and more, nested or crossed: saturated moments unless there are slopes.
template <class Data, class Kind>
class LevelsGroup : public GroupSample {
 public:
  explicit LevelsGroup(std::shared_ptr<const Data> data)
      : data_(std::move(data)), likelihood_(std::make_shared<const Kind>(data_)) {}
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedFit saturated(const SaturatedOptions& options, const Implied* known) const override {
    if (has_saturated()) return fit_saturated(likelihood_, options);
    return without_maximum(known ? with_covariates(*known) : Implied{});
  }
  bool has_saturated() const override { return data_->slopes.empty(); }
  std::vector<double> units_with_covariates() const override { return data_->units_by_level(); }

 private:
  // Moments of another sample, with the covariates of this one.
  Implied with_covariates(Implied moments) const {
    for (std::size_t l = 0; l < data_->levels.size(); ++l) {
      const std::vector<Index>& level = data_->levels[l];
      const std::vector<Index> own = data_->on(static_cast<Index>(l));
      std::vector<Index> rows,
          here;  // among the variables measured on the level, and those with a part there
      for (std::size_t i = 0; i < level.size(); ++i) {
        const Index v = level[i];
        if (!data_->given[v] || data_->measured[v] != static_cast<Index>(l)) continue;
        rows.push_back(v - own[0]);
        here.push_back(static_cast<Index>(i));
      }
      if (rows.empty()) continue;
      const MeasuredMoments known = measured_moments(*data_, static_cast<Index>(l));
      put(moments[l].cov, here, here, select(known.cov, rows, rows));
      for (std::size_t i = 0; i < rows.size(); ++i) moments[l].mean[here[i]] = known.mean[rows[i]];
    }
    return moments;
  }

  std::shared_ptr<const Data> data_;
  std::shared_ptr<const Kind> likelihood_;
};

using NestedGroup = LevelsGroup<NestedData, NestedLikelihood>;
using CrossedGroup = LevelsGroup<CrossedData, CrossedLikelihood>;

struct MakeGroup {
  Index shared;

  std::unique_ptr<GroupSample> operator()(const TwoLevelStatistics& s) const {
    return std::make_unique<CompleteGroup>(s, shared);
  }
  std::unique_ptr<GroupSample> operator()(const std::shared_ptr<const IncompleteData>& data) const {
    return std::make_unique<IncompleteGroup>(data);
  }
  std::unique_ptr<GroupSample> operator()(const std::shared_ptr<const ReducedData>& data) const {
    return std::make_unique<SlopeGroup>(data);
  }
  std::unique_ptr<GroupSample> operator()(const std::shared_ptr<const SlopeClusterData>& data) const {
    return std::make_unique<IntegratedGroup>(data);
  }
  std::unique_ptr<GroupSample> operator()(const std::shared_ptr<const NestedData>& data) const {
    return std::make_unique<NestedGroup>(data);
  }
  std::unique_ptr<GroupSample> operator()(const std::shared_ptr<const CrossedData>& data) const {
    return std::make_unique<CrossedGroup>(data);
  }
};

}  // namespace

GroupSamples group_samples(const std::vector<GroupDraw>& sample, const std::vector<Index>& shared) {
  GroupSamples out;
  for (std::size_t g = 0; g < sample.size(); ++g)
    out.push_back(std::visit(MakeGroup{shared[g]}, sample[g].data));
  return out;
}

SampleLikelihood sample_likelihood(const GroupSamples& sample, bool clustered,
                                   const std::vector<Implied>& first, Space space) {
  const auto solve = [&](bool cone) {
    SaturatedOptions options;
    options.cone = cone;
    SampleLikelihood out;
    out.cone = cone;
    for (std::size_t g = 0; g < sample.size(); ++g) {
      SaturatedFit h1 = sample[g]->saturated(options, first.empty() ? nullptr : &first[g]);
      out.likelihoods.push_back(sample[g]->likelihood());
      out.saturated_value += h1.converged ? -2 * h1.loglik : kNaN;
      out.saturated.push_back(std::move(h1.levels));
    }
    return out;
  };
  if (space == Space::kCone) return solve(true);
  SampleLikelihood natural = solve(false);
  const bool has_saturated =
      std::all_of(sample.begin(), sample.end(), [](const auto& group) { return group->has_saturated(); });
  if (space == Space::kAuto && clustered && has_saturated && std::isnan(natural.saturated_value)) {
    SampleLikelihood in_cone = solve(true);
    if (!std::isnan(in_cone.saturated_value)) return in_cone;
  }
  return natural;
}

}  // namespace msem
