// A model fitted to many samples, in threads: saturated model, starting values, estimates, standard errors.
#pragma once

#include <string>

#include "draws/draws.hpp"
#include "fit/scoring.hpp"
#include "fit/starting.hpp"
#include "model/expression.hpp"

namespace msem {

// What is said of a fit, the most serious last.
enum class Verdict : int {
  kOk = 0,
  kBoundary = 1,
  kImproper = 2,
  kNoChiSquare = 3,
  kSaddlePoint = 4,
  kAgain = 5,    // not at a maximum from the first start, or one that takes more care: for the long way
  kUnusable = 6  // no likelihood of this sample
};

struct OneFit {
  Verdict verdict = Verdict::kUnusable;
  std::string problem;         // of a sample that cannot be used
  Vector theta, se;            // NaN unless there is a maximum
  Vector defined, defined_se;  // functions of theta
  double value = 0;            // -2 log L at theta, covariates included
  double saturated = 0;        // of the saturated model, NaN if it has not converged
  double covariates = 0;       // -2 log L of the fixed covariates
  int iterations = 0;
};

struct ManyFitsOptions {
  int max_iterations = 60;
  double tolerance = 1e-12;
  bool observed = true;  // standard errors from observed information, not expected
  bool errors = true;    // whether there are any
};

// Invariant: blocks hold the sample moments of fixed covariates in the entries `filled`. `covariates` are the
// variables of each group, among its unit and among its between-level variables, that the likelihood is
// conditional on.
class ManyFitter {
 public:
  struct Covariates {
    std::vector<Index> within, between;
  };
  ManyFitter(Objective model, StartPlan start, Vector lower, Vector upper,
             std::vector<std::vector<int>> filled, std::vector<Covariates> covariates, Expressions defined,
             ManyFitsOptions options);
  OneFit fit(const std::vector<GroupDraw>& sample) const;
  Index npar() const { return lower_.size(); }
  Index ndefined() const { return defined_.size(); }
  Index ngroups() const { return static_cast<Index>(model_.groups().size()); }

 private:
  OneFit estimate(const std::vector<GroupDraw>& sample) const;
  double covariate_value(const std::vector<std::shared_ptr<const TwoLevelLoss>>& losses,
                         const std::vector<Moments>& saturated) const;
  void judge(const Objective& objective, const Optimum& found, OneFit& out) const;
  void add_defined(const Matrix& vcov, OneFit& out) const;

  Objective model_;
  StartPlan start_;
  Vector lower_, upper_;
  std::vector<std::vector<int>> filled_;
  std::vector<Covariates> covariates_;
  Expressions defined_;
  ManyFitsOptions options_;
};

// Samples first, ..., last - 1; the result does not depend on the number of threads.
std::vector<OneFit> fit_many(const ManyFitter& fitter, const Draws& draws, std::uint64_t first,
                             std::uint64_t last, int threads);

}  // namespace msem
