#include "fit/sample.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

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

class NestedGroup : public GroupSample {
 public:
  explicit NestedGroup(std::shared_ptr<const NestedData> data)
      : data_(std::move(data)), likelihood_(std::make_shared<const NestedLikelihood>(data_)) {}
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedFit saturated(const SaturatedOptions& options, const Implied* known) const override {
    if (has_saturated()) return fit_saturated(likelihood_, options);
    return without_maximum(known ? with_covariates(*known) : Implied{});
  }
  bool has_saturated() const override { return data_->slopes.empty(); }
  std::vector<double> units_with_covariates() const override { return data_->units_by_level(); }

 private:
  Implied with_covariates(Implied moments) const;

  std::shared_ptr<const NestedData> data_;
  std::shared_ptr<const NestedLikelihood> likelihood_;
};

// Moments of another sample, with the covariates of this one.
Implied NestedGroup::with_covariates(Implied moments) const {
  const NestedData& data = *data_;
  for (Index l = 0; l < data.nlevels(); ++l) {
    const std::vector<Index> own = data.on(l);
    std::vector<Index> given, rows, here;
    for (std::size_t i = 0; i < data.levels[l].size(); ++i) {
      const Index v = data.levels[l][i];
      if (!data.given[v] || data.measured[v] != l) continue;
      given.push_back(v);
      rows.push_back(v - own[0]);
      here.push_back(static_cast<Index>(i));
    }
    if (given.empty()) continue;
    const Matrix values = select_rows(data.values[l], rows);
    const Vector weight = data.weights(l);
    Vector of_mean = weight;
    if (data.design[l].size()) of_mean = of_mean.cwiseProduct(Vector(data.design[l].row(0).transpose()));
    const double units = data.units(l);
    const Vector mean = apply(values, of_mean) / units;
    Matrix cov = outer(scale_cols(values, weight), values);
    if (l == 0) {
      const Vector parts = select(data.weight, data.product_top);
      const Matrix pooled = apply_transposed(data.products, parts).transpose();
      cov += select(unpack_lower(pooled, 0, static_cast<Index>(own.size())), rows, rows);
    }
    cov /= units;
    add_outer(cov, -1, mean, mean);
    put(moments[l].cov, here, here, cov);
    for (std::size_t i = 0; i < given.size(); ++i)
      moments[l].mean[here[i]] = mean[static_cast<Index>(i)] + data.origin[given[i]];
  }
  return moments;
}

class CrossedGroup : public GroupSample {
 public:
  explicit CrossedGroup(std::shared_ptr<const CrossedData> data)
      : data_(std::move(data)), likelihood_(std::make_shared<const CrossedLikelihood>(data_)) {}
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedFit saturated(const SaturatedOptions& options, const Implied* known) const override {
    if (has_saturated()) return fit_saturated(likelihood_, options);
    return without_maximum(known ? with_covariates(*known) : Implied{});
  }
  bool has_saturated() const override { return data_->slopes.empty(); }
  std::vector<double> units_with_covariates() const override { return data_->units_by_level(); }

 private:
  Implied with_covariates(Implied moments) const;

  std::shared_ptr<const CrossedData> data_;
  std::shared_ptr<const CrossedLikelihood> likelihood_;
};

// Moments of another sample, with the covariates of this one.
Implied CrossedGroup::with_covariates(Implied moments) const {
  const CrossedData& data = *data_;
  for (Index l = 0; l < 3; ++l) {
    const std::vector<Index> own = data.on(l);
    std::vector<Index> rows, here;
    for (std::size_t i = 0; i < data.levels[l].size(); ++i) {
      const Index v = data.levels[l][i];
      if (!data.given[v] || data.measured[v] != l) continue;
      rows.push_back(v - own[0]);
      here.push_back(static_cast<Index>(i));
    }
    if (rows.empty()) continue;
    Vector mean;
    Matrix cov;
    if (l == 0) {
      const double units = data.count.sum();
      mean = select(Vector(data.sums.topRows(data.nunit()).rowwise().sum()), rows) / units;
      cov = select(data.products(), rows, rows) / units;
    } else {
      const Matrix values = select_rows(data.classifications[l - 1].values, rows);
      const double clusters = static_cast<double>(values.cols());
      mean = values.rowwise().sum() / clusters;
      cov = outer(values, values) / clusters;
    }
    add_outer(cov, -1, mean, mean);
    put(moments[l].cov, here, here, cov);
    for (std::size_t i = 0; i < rows.size(); ++i)
      moments[l].mean[here[i]] = mean[static_cast<Index>(i)] + data.origin[data.levels[l][here[i]]];
  }
  return moments;
}

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
