// Expressions of parameters, constraints and quadratic programmes.
#include "bind/bind.hpp"
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
      .def(py::init(
               [](const Expressions& equalities, const Expressions& inequalities, std::vector<int> linear) {
                 for (const int i : linear) {
                   if (i < 0 || i >= equalities.size()) throw std::invalid_argument("no such equality");
                 }
                 return Constraints{equalities, inequalities, std::move(linear)};
               }),
           "equalities"_a, "inequalities"_a, "linear"_a)
      .def(
          "project", [](const Constraints& self, const Vector& theta) { return project(self, theta); },
          "theta"_a, release());
  m.def("solve_quadratic", &solve_programme, "hessian"_a, "gradient"_a, "equalities"_a, "equality_values"_a,
        "inequalities"_a, "inequality_values"_a);
}
