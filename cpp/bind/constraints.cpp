// Expressions of parameters, quadratic programmes and the constrained minimiser.
#include "bind/optimum.hpp"
#include "fit/constrained.hpp"
#include "fit/quadratic.hpp"

using namespace msem;

namespace {

using Step = std::tuple<std::string, int, double>;

Expressions make_expressions(int npar, const std::vector<std::vector<Step>>& programs, int first) {
  std::vector<Program> out;
  for (const auto& steps : programs) {
    Program program;
    for (const auto& [name, index, value] : steps) program.push_back({op_named(name), index, value});
    out.push_back(std::move(program));
  }
  return Expressions(npar, std::move(out), first);
}

py::dict run(const Objective& objective, const Expressions& equalities, const Expressions& inequalities,
             const Vector& start, const Vector& lower, const Vector& upper, int max_iterations,
             double tolerance) {
  ConstrainedOptimum best;
  {
    py::gil_scoped_release release;
    best = minimize_constrained(objective, {equalities, inequalities, {}}, start, lower, upper,
                                {max_iterations, tolerance});
  }
  py::dict out = optimum_dict(best);
  out["equality_multipliers"] = best.equality_multipliers;
  out["inequality_multipliers"] = best.inequality_multipliers;
  out["bound_multipliers"] = best.bound_multipliers;
  out["violation"] = best.violation;
  return out;
}

py::tuple solve_programme(const Matrix& hessian, const Vector& gradient, const Matrix& equalities,
                          const Vector& equality_values, const Matrix& inequalities,
                          const Vector& inequality_values) {
  const Vector scale = hessian.diagonal().unaryExpr([](double d) { return d > 0 ? std::sqrt(d) : 1.0; });
  const QuadraticSolution q =
      solve({hessian, gradient, equalities, equality_values, inequalities, inequality_values}, scale);
  return py::make_tuple(q.solved, q.feasible, q.d, q.equality_multipliers, q.inequality_multipliers);
}

}  // namespace

void bind_constraints(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<Expressions>(m, "Expressions")
      .def(py::init(&make_expressions), "npar"_a, "programs"_a, "first"_a = 0)
      .def_property_readonly("npar", &Expressions::npar)
      .def("__len__", &Expressions::size)
      .def("variables", &Expressions::variables, "result"_a)
      .def("values", &Expressions::values, "theta"_a, release())
      .def("values_of_rows", &Expressions::values_of_rows, "thetas"_a, release())
      .def("jacobian", &Expressions::jacobian, "theta"_a, release())
      .def("curvature", &Expressions::curvature, "theta"_a, "weights"_a, release());
  py::class_<Constraints>(m, "Constraints")
      .def(py::init([](const Expressions& equalities, const Expressions& inequalities, const Matrix& basis) {
             return Constraints{equalities, inequalities, basis};
           }),
           "equalities"_a, "inequalities"_a, "basis"_a = Matrix());
  m.def("solve_quadratic", &solve_programme, "hessian"_a, "gradient"_a, "equalities"_a, "equality_values"_a,
        "inequalities"_a, "inequality_values"_a);
  m.def("minimize_constrained", &run, "objective"_a, "equalities"_a, "inequalities"_a, "start"_a, "lower"_a,
        "upper"_a, "max_iterations"_a = 500, "tolerance"_a = 1e-12);
}
