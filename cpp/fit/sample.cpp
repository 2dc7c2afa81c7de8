#include "fit/sample.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "fit/saturated_cells.hpp"
#include "likelihood/slopes/quadrature.hpp"
#include "likelihood/slopes/slopes.hpp"

namespace msem {

namespace {

// Moments of one level or two.
Moments moments_of(const Implied& levels) {
  Moments out{Vector(0), levels.back().mean, Matrix(0, 0), levels.back().cov};
  if (levels.size() == 2) {
    out.mean_w = levels.front().mean;
    out.cov_w = levels.front().cov;
  }
  return out;
}

// Moments of the levels that have any.
Implied levels_of(Moments moments) {
  Implied out;
  if (moments.mean_w.size()) out.push_back({std::move(moments.mean_w), std::move(moments.cov_w)});
  if (moments.mean_b.size()) out.push_back({std::move(moments.mean_b), std::move(moments.cov_b)});
  return out;
}

SaturatedLevels by_level(SaturatedFit fit) {
  return {levels_of(std::move(fit.moments)), fit.loglik, fit.converged, fit.iterations};
}

// Of random slopes, which have no saturated moments: some to start from.
SaturatedLevels without_maximum(Implied start) { return {std::move(start), kNaN, false, 0}; }

// Moments of another sample, with the covariates of this one: fixed ones of units, of which there are `given`
// from `first` on, and cluster variables after those at both levels.
Moments with_covariates(Moments moments, const ReducedMoments& own, Index first, Index given, Index nboth) {
  moments.mean_w.segment(first, given) = own.mean.tail(given);
  moments.cov_w.block(first, first, given, given) = own.cov.bottomRightCorner(given, given);
  const Index q = own.cluster_mean.size();
  moments.mean_b.segment(nboth, q) = own.cluster_mean;
  moments.cov_b.block(nboth, nboth, q, q) = own.cluster_cov;
  return moments;
}

class CompleteGroup : public GroupSample {
 public:
  CompleteGroup(const TwoLevelStatistics& s, Index nboth) {
    const Index m = s.means.cols();
    const Eigen::Map<const Matrix> stacked(s.scatter.data(), m * m, s.sizes.size());
    likelihood_ = std::make_shared<const CompleteLikelihood>(
        TwoLevelData(nboth, s.ssw, s.sizes, s.counts, s.means, stacked));
    units_ = {s.sizes.dot(s.counts), s.counts.sum()};
    if (!s.ssw.size()) units_.erase(units_.begin());
  }
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedLevels saturated(const SaturatedOptions& options, const Implied*) const override {
    return by_level(fit_saturated(likelihood_->data(), options));
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
  SaturatedLevels saturated(const SaturatedOptions& options, const Implied* known) const override {
    Moments start;
    const bool any = known && !options.cone;
    if (any) start = moments_of(*known);
    return by_level(fit_saturated(*likelihood_, options, any ? &start : nullptr));
  }

 private:
  std::shared_ptr<const IncompleteLikelihood> likelihood_;
};

class SlopeGroup : public GroupSample {
 public:
  explicit SlopeGroup(std::shared_ptr<const ReducedData> data)
      : data_(std::move(data)), likelihood_(std::make_shared<const SlopeLikelihood>(data_)) {}
  std::shared_ptr<const Likelihood> likelihood() const override { return likelihood_; }
  SaturatedLevels saturated(const SaturatedOptions&, const Implied* known) const override {
    if (!known) return without_maximum({});
    return without_maximum(levels_of(with_covariates(moments_of(*known), reduced_moments(*data_),
                                                     data_->outcomes, data_->fixed, data_->nboth)));
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
  SaturatedLevels saturated(const SaturatedOptions&, const Implied* known) const override {
    if (!known) return without_maximum({});
    return without_maximum(levels_of(with_covariates(moments_of(*known), msem::moments(*data_),
                                                     data_->p - data_->fixed, data_->fixed, data_->nboth)));
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
  SaturatedLevels saturated(const SaturatedOptions& options, const Implied* known) const override {
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
  SaturatedLevels saturated(const SaturatedOptions& options, const Implied*) const override {
    return fit_saturated(likelihood_, options);
  }
  std::vector<double> units_with_covariates() const override { return data_->units_by_level(); }

 private:
  std::shared_ptr<const CrossedData> data_;
  std::shared_ptr<const CrossedLikelihood> likelihood_;
};

struct MakeGroup {
  Index nboth;

  std::unique_ptr<GroupSample> operator()(const TwoLevelStatistics& s) const {
    return std::make_unique<CompleteGroup>(s, nboth);
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

GroupSamples group_samples(const std::vector<GroupDraw>& sample, const std::vector<Index>& nboth) {
  GroupSamples out;
  for (std::size_t g = 0; g < sample.size(); ++g)
    out.push_back(std::visit(MakeGroup{nboth[g]}, sample[g].data));
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
      SaturatedLevels h1 = sample[g]->saturated(options, first.empty() ? nullptr : &first[g]);
      out.likelihoods.push_back(sample[g]->likelihood());
      out.saturated_value += h1.converged ? -2 * h1.loglik : kNaN;
      out.saturated.push_back(std::move(h1.moments));
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
