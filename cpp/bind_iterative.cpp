#include "bind.hpp"
#include "iterative.hpp"

using namespace msem;

namespace {

py::dict run(const Objective& objective, const Vector& start, const Vector& lower, const Vector& upper,
             const std::vector<bool>& saturated, int max_iterations, double tolerance) {
  Optimum best;
  {
    py::gil_scoped_release release;
    best = minimize_iteratively(objective, start, lower, upper, saturated, {max_iterations, tolerance});
  }
  py::list iterations;
  for (const Iteration& i : best.iterations)
    iterations.append(py::make_tuple(i.value, i.decrement, i.damping, i.newton));
  py::dict out;
  out["theta"] = best.theta;
  out["value"] = best.value;
  out["gradient"] = best.gradient;
  out["stop"] = static_cast<int>(best.stop);
  out["active"] = best.active;
  out["iterations"] = iterations;
  return out;
}

}  // namespace

void bind_iterative(py::module_& m) {
  using namespace py::literals;
  m.def("minimize_iteratively", &run, "objective"_a, "start"_a, "lower"_a, "upper"_a, "saturated"_a,
        "max_iterations"_a = 60, "tolerance"_a = 1e-8);
}
