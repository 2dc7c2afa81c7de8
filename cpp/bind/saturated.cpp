// The saturated model.
#include "bind/bind.hpp"
#include "fit/saturated_cells.hpp"
#include "fit/saturated_nested.hpp"

using namespace msem;

namespace {

py::dict as_dict(const SaturatedFit& fit) {
  py::dict out;
  py::list levels;
  for (const LevelImplied& one : fit.levels) levels.append(py::make_tuple(one.mean, one.cov));
  out["levels"] = levels;
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

template <class Of>
py::dict run_levels(const std::shared_ptr<Of>& likelihood, bool em, int max_iterations, double tolerance,
                    bool cone) {
  if (em) throw std::invalid_argument("the saturated model of three levels and more is fitted by scoring");
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
  m.def("fit_saturated", &run_levels<NestedLikelihood>, "likelihood"_a, "em"_a = false,
        "max_iterations"_a = 0, "tolerance"_a = 1e-12, "cone"_a = false);
  m.def("fit_saturated", &run_levels<CrossedLikelihood>, "likelihood"_a, "em"_a = false,
        "max_iterations"_a = 0, "tolerance"_a = 1e-12, "cone"_a = false);
  m.def("fit_saturated", &run_missing, "likelihood"_a, "em"_a = false, "max_iterations"_a = 0,
        "tolerance"_a = 1e-12, "cone"_a = false);
}
