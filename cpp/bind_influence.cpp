// Influence of clusters on the estimates.
#include "bind.hpp"
#include "influence.hpp"

using namespace msem;

namespace {

py::tuple steps(const Objective& objective, const Vector& theta, const Matrix& basis,
                const std::vector<int>& intercepts, const Vector& sizes, const Matrix& means,
                const Matrix& within, int group, int corrections, int threads) {
  LeaveOneOutSteps out;
  {
    py::gil_scoped_release release;
    out = leave_one_out_steps(objective, theta, {basis, intercepts}, ClusterData{sizes, means, within}, group,
                              corrections, threads);
  }
  return py::make_tuple(out.change, out.displacement);
}

}  // namespace

void bind_influence(py::module_& m) {
  using namespace py::literals;
  m.def("leave_one_out_steps", &steps, "objective"_a, "theta"_a, "basis"_a, "intercepts"_a, "sizes"_a,
        "means"_a, "within"_a, "group"_a = 0, "corrections"_a = 8, "threads"_a = 1);
}
