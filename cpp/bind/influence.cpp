// Influence of clusters on the estimates.
#include "after/influence.hpp"

#include "bind/bind.hpp"

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

py::tuple steps_with_holes(const Objective& objective, const Vector& theta, const Matrix& basis,
                           const std::vector<int>& intercepts, const IncompleteData& data,
                           const Matrix& products, const std::vector<Index>& clusters, int group,
                           int corrections, int threads) {
  LeaveOneOutSteps out;
  {
    py::gil_scoped_release release;
    out = leave_one_out_steps(objective, theta, {basis, intercepts}, data, products, clusters, group,
                              corrections, threads);
  }
  return py::make_tuple(out.change, out.displacement);
}

}  // namespace

void bind_influence(py::module_& m) {
  using namespace py::literals;
  m.def("leave_one_out_steps", &steps, "objective"_a, "theta"_a, "basis"_a, "intercepts"_a, "sizes"_a,
        "means"_a, "within"_a, "group"_a = 0, "corrections"_a = 8, "threads"_a = 1);
  m.def("leave_one_out_steps_with_holes", &steps_with_holes, "objective"_a, "theta"_a, "basis"_a,
        "intercepts"_a, "data"_a, "products"_a, "clusters"_a, "group"_a = 0, "corrections"_a = 8,
        "threads"_a = 1);
}
