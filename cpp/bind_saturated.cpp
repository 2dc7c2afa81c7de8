// The saturated model.
#include "bind.hpp"
#include "saturated.hpp"

using namespace msem;

namespace {

py::dict run(const TwoLevelLoss& loss, bool em, int max_iterations, double tolerance) {
  SaturatedFit fit;
  {
    py::gil_scoped_release release;
    fit = fit_saturated(loss.data(),
                        {em ? SaturatedMethod::kEm : SaturatedMethod::kScoring, max_iterations, tolerance});
  }
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

}  // namespace

void bind_saturated(py::module_& m) {
  using namespace py::literals;
  m.def("fit_saturated", &run, "loss"_a, "em"_a = false, "max_iterations"_a = 0, "tolerance"_a = 1e-12);
}
