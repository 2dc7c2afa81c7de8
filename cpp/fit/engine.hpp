// From a model and a sample to estimates: starts, attempts, restarts, verdict, standard errors. Every fit is
// made here, one by one or by the thousand in threads.
#pragma once

#include <string>

#include "fit/covariance.hpp"
#include "fit/sample.hpp"
#include "fit/starting.hpp"
#include "likelihood/two_levels.hpp"

namespace msem {

// A model and what fitting it takes beside a sample. Const, so that threads share one.
//
// Invariant: blocks hold the sample moments of fixed covariates in the entries `filled`. `covariates` are the
// variables of each level of each group that the likelihood is conditional on. `judged` are the variables of
// each block whose covariance matrices have to be proper.
struct Plan {
  int npar;
  std::vector<Block> blocks;
  std::vector<std::vector<int>> groups;  // of each, the blocks of its levels, level 1 first
  std::vector<Index> shared;             // of each, variables of level 1 that have a part at a higher one
  StartPlan start;
  Vector lower, upper;
  Constraints constraints;
  Expressions defined;
  std::vector<std::vector<int>> filled;
  std::vector<std::vector<std::vector<Index>>> covariates;
  std::vector<std::vector<Index>> judged;
  Terms terms = {};  // that the objective has beside likelihoods

  // Throws std::invalid_argument unless all this fits together.
  void check() const;
};

struct FitOptions {
  int max_iterations = 500;
  double tolerance = 1e-12;  // on the decrement g' I^-1 g
  ErrorKind errors = ErrorKind::kNone;
  std::vector<bool> saturated = {};  // which blocks are, for conjugate gradients before anything else
  Space space = Space::kAuto;
  int starts = 0;     // random ones, 0: as many as are worth while
  Vector known = {};  // where parameters start, in place of the plan's; NaN or empty: the plan says
};

// What is said of a fit, the most serious last.
enum class Verdict : int {
  kOk = 0,
  kBoundary = 1,
  kImproper = 2,
  kNoChiSquare = 3,
  kSaddlePoint = 4,
  kUnidentified = 5,
  kNotConverged = 6,
  kUnusable = 7  // no estimates at all: constraints that cannot hold, or a sample without a likelihood
};

// What keeps a block from being a distribution.
struct Impropriety {
  enum class Part : int { kNone = 0, kResiduals = 1, kLatentResiduals = 2, kLatent = 3 };
  int block;
  std::vector<int> negative;  // variables with a negative variance
  Part indefinite;            // covariance matrix that is not positive definite
};

struct Solution {
  Optimum optimum;
  SamplingCovariance sampling;
  std::vector<Impropriety> improper;
  Verdict verdict = Verdict::kUnusable;
  std::string problem;          // of a sample that cannot be used,
  bool few_clusters = false;    // where it has no more different clusters than variables
  std::vector<int> flat;        // without a maximum: see `flat_direction`
  Vector defined, defined_se;   // functions of theta
  double saturated_value = 0;   // -2 log L of the saturated model, NaN without
  bool saturated_cone = false;  // where that is a maximum in the cone alone
  double covariate_value = 0;   // -2 log L of the fixed covariates
};

// An objective for one sample: its likelihoods, and its moments of fixed covariates in the blocks.
Objective objective_of(const Plan& plan, const SampleLikelihood& sample);

// The highest maximum that is found from the starts of the plan, and from others where few clusters, an
// improper solution or one on bounds make it likely that there are several. -2 log L below that of the
// saturated model shows that the likelihood is unbounded: with few clusters of the largest size their
// covariance matrix can become singular where the data do not vary.
Optimum estimate(const Plan& plan, const Objective& objective, const SampleLikelihood& sample,
                 const FitOptions& options);

// The starts of a plan, the first one and those of restarts in their order.
std::vector<Vector> all_starts(const Plan& plan, const Objective& objective, const SampleLikelihood& sample);

// `at` is what is known of theta already.
std::vector<Impropriety> improprieties(const Plan& plan, const Objective& objective, const Vector& theta,
                                       const ObjectivePoint* at = nullptr);

// Whether latent variables can have their covariance matrices. A negative variance of a factor that has no
// covariance with others counts as that of a residual does, as a negative correlation of its indicators.
bool latent_distribution(const Plan& plan, const Objective& objective, const Vector& theta);

// The parameters with the largest part in the direction that the likelihood changes least in, largest first.
std::vector<int> flat_direction(const Objective& objective, const Vector& theta);

Solution fit(const Plan& plan, const std::vector<GroupDraw>& sample, const FitOptions& options,
             const std::vector<Implied>& first = {});

// Samples first, ..., last - 1; the result does not depend on the number of threads.
std::vector<Solution> fit_many(const Plan& plan, const Draws& draws, const FitOptions& options,
                               std::uint64_t first, std::uint64_t last, int threads,
                               const std::vector<Implied>& saturated = {});

}  // namespace msem
