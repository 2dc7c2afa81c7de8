#include "fit/iterative.hpp"

#include "bind/optimum.hpp"

using namespace msem;

namespace {

py::dict run_iterations(const Objective& objective, const Vector& start, const Vector& lower,
                        const Vector& upper, const std::vector<bool>& saturated, int max_iterations,
                        double tolerance) {
  Optimum best;
  {
    py::gil_scoped_release release;
    best = minimize_iteratively(objective, start, lower, upper, saturated, {max_iterations, tolerance});
  }
  return optimum_dict(best);
}

}  // namespace

void bind_iterative(py::module_& m) {
  using namespace py::literals;
  m.def("minimize_iteratively", &run_iterations, "objective"_a, "start"_a, "lower"_a, "upper"_a,
        "saturated"_a, "max_iterations"_a = 60, "tolerance"_a = 1e-8);
}
