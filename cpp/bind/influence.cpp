// Influence of clusters on the estimates.
#include "after/influence.hpp"

#include "bind/bind.hpp"

using namespace msem;

namespace {

py::tuple steps(const Objective& objective, const Vector& theta, const Matrix& basis,
                const std::vector<int>& intercepts, const Clusters& clusters,
                const std::vector<Index>& chosen, int group, int corrections, int threads) {
  LeaveOneOutSteps out;
  {
    py::gil_scoped_release release;
    out = leave_one_out_steps(objective, theta, {basis, intercepts}, clusters, chosen, group, corrections,
                              threads);
  }
  return py::make_tuple(out.change, out.displacement);
}

}  // namespace

void bind_influence(py::module_& m) {
  using namespace py::literals;
  m.def("leave_one_out_steps", &steps, "objective"_a, "theta"_a, "basis"_a, "intercepts"_a, "clusters"_a,
        "chosen"_a, "group"_a = 0, "corrections"_a = 8, "threads"_a = 1);
}
