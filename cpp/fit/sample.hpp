// What a model is fitted to: the likelihoods of the groups of a sample and their saturated models.
//
// Kinds of data are told apart here, and nowhere else in the engine: each answers what is asked of a group by
// itself.
#pragma once

#include "draws/draws.hpp"
#include "fit/saturated_nested.hpp"

namespace msem {

// One group of a sample.
class GroupSample {
 public:
  virtual ~GroupSample() = default;
  virtual std::shared_ptr<const Likelihood> likelihood() const = 0;
  // Without a maximum where there is no saturated model; then, or where it takes many steps, `known` is what
  // it starts from: the saturated moments of another sample of the same model, if there are any.
  virtual SaturatedFit saturated(const SaturatedOptions& options, const Implied* known) const = 0;
  virtual bool has_saturated() const { return true; }
  // Units of each level, where the likelihood is that of fixed covariates, too; empty where they are given.
  virtual std::vector<double> units_with_covariates() const { return {}; }
};
using GroupSamples = std::vector<std::unique_ptr<const GroupSample>>;

// `shared`: of each group, variables of level 1 that have a part at a higher one. Throws
// std::invalid_argument where there are not so many.
GroupSamples group_samples(const std::vector<GroupDraw>& sample, const std::vector<Index>& shared);

struct SampleLikelihood {
  std::vector<std::shared_ptr<const Likelihood>> likelihoods;
  std::vector<Implied> saturated;
  // -2 log L of the saturated model; NaN where that has no maximum, or the discrepancy is no likelihood.
  double saturated_value = 0;
  bool cone = false;  // whether the saturated moments are a maximum in the cone, because there is no other
};

// Where the maximum is looked for: where the covariance matrices of whole clusters are positive definite, or
// where those of residuals and latent variables are positive semidefinite. A likelihood always has a maximum
// in the cone. By default the natural one counts where there is one of the model and of the saturated model
// and latent variables can have its covariance matrix.
enum class Space : int { kAuto = 0, kNatural = 1, kCone = 2 };

// The saturated models of a sample, in the cone where a group of `clustered` ones has no maximum otherwise,
// or where it is asked for; where there are holes they start from `first`, if given: saturated moments of
// what the sample is drawn from.
SampleLikelihood sample_likelihood(const GroupSamples& sample, bool clustered,
                                   const std::vector<Implied>& first = {}, Space space = Space::kAuto);

}  // namespace msem
