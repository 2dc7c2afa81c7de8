#include "fit/manyfits.hpp"

#include <limits>
#include <stdexcept>

#include "base/threads.hpp"
#include "fit/filled.hpp"
#include "likelihood/complete/saturated.hpp"

namespace msem {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kBeyond = 1e-4;      // -2 log L below the saturated model's by more is no maximum
constexpr double kSmallPivot = 1e-8;  // of the information: below it more care is taken
constexpr double kSafePivot = 1e-4;   // of observed information: above it the expected is not asked
constexpr double kSingular = 1e-10;   // below it a matrix is not positive definite
constexpr double kForeseen = 100;     // for the saturated model, of which only the value has to be exact
constexpr double kEigenvalue = 1e-8;  // of a correlation matrix, that still counts as rounding of zero
constexpr double kNothing = 1e-11;    // standard error relative to the estimate that is rounding of zero

// Whether a matrix has a negative eigenvalue in the metric of correlations; variances are not negative.
bool indefinite(const Matrix& matrix) {
  const Index n = matrix.rows();
  if (n < 2) return false;
  const Vector scale = matrix.diagonal().unaryExpr([](double v) { return v > 0 ? 1 / std::sqrt(v) : 1.0; });
  Matrix shifted = scale.asDiagonal() * matrix * scale.asDiagonal();
  shifted.diagonal().array() += kEigenvalue;
  return Eigen::LLT<Matrix>(shifted).info() != Eigen::Success;
}

// Whether a block at its parameters is no distribution; see inference/problems.py.
bool improper(const Block& block, const Vector& theta, const BlockPoint& point) {
  const Index n = block.nvariables(), observed = block.nobserved(), latent = n - observed;
  Matrix residual = Matrix::Zero(n, n);
  bool diagonal = true;
  for (const Entry& e : block.entries()) {
    if (e.slot != Slot::kSymmetric) continue;
    const double x = e.parameter < 0 ? e.value : theta[e.parameter];
    residual(e.row, e.col) = residual(e.col, e.row) = x;
    diagonal = diagonal && (e.row == e.col || x == 0);
  }
  if ((residual.diagonal().array() < 0).any()) return true;
  if (!diagonal && (indefinite(residual.topLeftCorner(observed, observed)) ||
                    indefinite(residual.bottomRightCorner(latent, latent))))
    return true;
  const Matrix total = point.total.bottomRightCorner(latent, latent);
  return (total.diagonal().array() >= 0).all() && indefinite(total);
}

double normal_value(const Matrix& cov, double n) {
  Cholesky chol;
  if (!chol.compute(cov)) throw std::domain_error("the covariance matrix of the covariates is singular");
  return n * (static_cast<double>(cov.rows()) * (kLog2Pi + 1) + chol.log_det());
}

}  // namespace

ManyFitter::ManyFitter(Objective model, StartPlan start, Vector lower, Vector upper,
                       std::vector<std::vector<int>> filled, std::vector<Covariates> covariates,
                       Expressions defined, ManyFitsOptions options)
    : model_(std::move(model)),
      start_(std::move(start)),
      lower_(std::move(lower)),
      upper_(std::move(upper)),
      filled_(std::move(filled)),
      covariates_(std::move(covariates)),
      defined_(std::move(defined)),
      options_(options) {
  if (filled_.size() != model_.blocks().size() || covariates_.size() != model_.groups().size())
    throw std::invalid_argument("entries to fill are given by block, covariates by group");
  if (defined_.npar() != model_.npar() || lower_.size() != model_.npar() || upper_.size() != model_.npar())
    throw std::invalid_argument("bounds and definitions must be those of all parameters");
  for (std::size_t b = 0; b < filled_.size(); ++b) {
    const auto& entries = model_.blocks()[b].entries();
    for (const int i : filled_[b]) {
      if (i < 0 || i >= static_cast<int>(entries.size()) || entries[i].parameter >= 0 ||
          entries[i].slot == Slot::kDirected)
        throw std::invalid_argument("only fixed moments can be filled in");
    }
  }
}

double ManyFitter::covariate_value(const std::vector<std::shared_ptr<const TwoLevelLoss>>& losses,
                                   const std::vector<Moments>& saturated) const {
  double out = 0;
  for (std::size_t g = 0; g < covariates_.size(); ++g) {
    const auto& [within, between] = covariates_[g];
    const TwoLevelData& d = losses[g]->data();
    if (!within.empty()) out += normal_value(saturated[g].cov_w(within, within), d.nobs);
    if (!between.empty()) out += normal_value(saturated[g].cov_b(between, between), d.nclusters);
  }
  return out;
}

OneFit ManyFitter::fit(const std::vector<GroupDraw>& sample) const {
  OneFit out;
  try {
    out = estimate(sample);
  } catch (const std::domain_error& error) {
    out.problem = error.what();
  } catch (const std::invalid_argument& error) {
    out.problem = error.what();
  }
  const bool none = out.verdict >= Verdict::kAgain;
  if (none) out.theta.setConstant(npar(), kNaN);
  if (none) out.value = kNaN;
  if (none || out.se.size() == 0) out.se.setConstant(npar(), kNaN);
  if (none || out.defined.size() == 0) out.defined.setConstant(ndefined(), kNaN);
  if (none || out.defined_se.size() == 0) out.defined_se.setConstant(ndefined(), kNaN);
  return out;
}

OneFit ManyFitter::estimate(const std::vector<GroupDraw>& sample) const {
  OneFit out;
  std::vector<std::shared_ptr<const TwoLevelLoss>> losses;
  std::vector<Moments> saturated;
  SaturatedOptions saturated_options;
  saturated_options.foreseen = kForeseen;
  for (std::size_t g = 0; g < sample.size(); ++g) {
    losses.push_back(loss_of(sample[g].statistics, model_.groups()[g].loss->nboth()));
    SaturatedFit h1 = fit_saturated(losses.back()->data(), saturated_options);
    out.saturated += h1.converged ? -2 * h1.loglik : kNaN;
    saturated.push_back(std::move(h1.moments));
  }
  out.covariates = covariate_value(losses, saturated);
  const Objective objective = filled_objective(model_, filled_, {losses.begin(), losses.end()}, saturated);
  ScoringOptions how{options_.max_iterations, options_.tolerance};
  how.reuse = true;
  const Optimum found = minimize(objective, start_.values(objective, saturated), lower_, upper_, how);
  out.iterations = static_cast<int>(found.iterations.size());
  out.verdict = Verdict::kAgain;
  if (found.stop != Stop::kConverged || found.value < out.saturated - kBeyond) return out;
  out.theta = found.theta;
  out.value = found.value;
  judge(objective, found, out);
  return out;
}

void ManyFitter::judge(const Objective& objective, const Optimum& found, OneFit& out) const {
  std::vector<Index> keep;
  for (Index k = 0; k < npar(); ++k) {
    if (!found.active[k]) keep.push_back(k);
  }
  const ObjectivePoint& at = *found.point;
  out.verdict = static_cast<Index>(keep.size()) < npar() ? Verdict::kBoundary : Verdict::kOk;
  for (std::size_t b = 0; b < objective.blocks().size(); ++b) {
    if (improper(objective.blocks()[b], found.theta, at.blocks[b])) out.verdict = Verdict::kImproper;
  }
  if (std::isnan(out.saturated)) out.verdict = Verdict::kNoChiSquare;
  Matrix vcov = Matrix::Constant(npar(), npar(), kNaN);
  if (!keep.empty()) {
    const bool observed = options_.observed && options_.errors;
    ScaledInverse inverse;
    if (observed) inverse = scaled_inverse(objective.observed_information(at, {})(keep, keep));
    if (!(inverse.pivot > kSafePivot)) {
      const ScaledInverse expected = scaled_inverse(objective.expected_information(at)(keep, keep));
      if (!(expected.pivot > kSmallPivot)) {
        out.verdict = Verdict::kAgain;
        return;
      }
      if (!observed) inverse = expected;
      if (observed && !(inverse.pivot > kSingular)) {
        out.verdict = Verdict::kSaddlePoint;
        inverse.inverse.setConstant(keep.size(), keep.size(), kNaN);
      }
    }
    if (options_.errors) vcov(keep, keep) = inverse.inverse;
  }
  out.se = vcov.diagonal().cwiseSqrt();
  add_defined(vcov, out);
}

void ManyFitter::add_defined(const Matrix& vcov, OneFit& out) const {
  if (ndefined() == 0) return;
  out.defined = defined_.values(out.theta);
  out.defined_se.resize(ndefined());
  const Matrix slopes = defined_.jacobian(out.theta);
  for (int i = 0; i < defined_.size(); ++i) {
    const std::vector<int>& on = defined_.variables(i);
    const Vector slope = slopes.row(i)(on);
    const double variance = slope.dot(vcov(on, on) * slope);
    const double se = variance >= 0 ? std::sqrt(variance) : kNaN;
    out.defined_se[i] = se <= kNothing * std::abs(out.defined[i]) ? 0 : se;
  }
}

std::vector<OneFit> fit_many(const ManyFitter& fitter, const Draws& draws, std::uint64_t first,
                             std::uint64_t last, int threads) {
  if (draws.ngroups() != fitter.ngroups())
    throw std::invalid_argument("the model and the samples must have the same groups");
  std::vector<OneFit> out(last > first ? last - first : 0);
  in_threads(static_cast<std::ptrdiff_t>(out.size()), threads,
             [&](std::ptrdiff_t r) { out[r] = fitter.fit(draws.draw(first + r)); });
  return out;
}

}  // namespace msem
