// The saturated model.
#include "bind/bind.hpp"
#include "fit/saturated_cells.hpp"

using namespace msem;

namespace {

py::dict as_dict(const SaturatedFit& fit) {
  py::dict out;
  out["mean_w"] = fit.moments.mean_w;
  out["cov_w"] = fit.moments.cov_w;
  out["mean_b"] = fit.moments.mean_b;
  out["cov_b"] = fit.moments.cov_b;
  out["loglik"] = fit.loglik;
  out["converged"] = fit.converged;
  out["iterations"] = fit.iterations;
  out["em_steps"] = fit.em_steps;
  out["decrement"] = fit.decrement;
  return out;
}

SaturatedOptions options_of(bool em, int max_iterations, double tolerance, bool cone) {
  if (max_iterations < 0 || !(tolerance >= 0))
    throw std::invalid_argument("iterations are counted from 0, and the tolerance is not negative");
  SaturatedOptions out{em ? SaturatedMethod::kEm : SaturatedMethod::kScoring, max_iterations, tolerance};
  out.cone = cone;
  return out;
}

py::dict run_saturated(const CompleteLikelihood& likelihood, bool em, int max_iterations, double tolerance,
                       bool cone) {
  SaturatedFit fit;
  {
    py::gil_scoped_release release;
    fit = fit_saturated(likelihood.data(), options_of(em, max_iterations, tolerance, cone));
  }
  return as_dict(fit);
}

py::dict run_missing(const IncompleteLikelihood& likelihood, bool em, int max_iterations, double tolerance,
                     bool cone) {
  SaturatedFit fit;
  {
    py::gil_scoped_release release;
    fit = fit_saturated(likelihood, options_of(em, max_iterations, tolerance, cone));
  }
  return as_dict(fit);
}

}  // namespace

void bind_saturated(py::module_& m) {
  using namespace py::literals;
  m.def("fit_saturated", &run_saturated, "likelihood"_a, "em"_a = false, "max_iterations"_a = 0,
        "tolerance"_a = 1e-12, "cone"_a = false);
  m.def("fit_saturated", &run_missing, "likelihood"_a, "em"_a = false, "max_iterations"_a = 0,
        "tolerance"_a = 1e-12, "cone"_a = false);
}
