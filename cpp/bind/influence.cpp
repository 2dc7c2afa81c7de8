// Influence of clusters on the estimates.
#include "after/influence.hpp"

#include "after/delete_one.hpp"
#include "bind/bind.hpp"
#include "bind/shapes.hpp"

using namespace msem;

namespace {

py::tuple steps(const Objective& objective, const Vector& theta, const Matrix& basis,
                const std::vector<int>& intercepts, const Clusters& clusters,
                const std::vector<Index>& chosen, int group, int corrections, int threads) {
  require_intercepts(objective, intercepts);
  require_basis(objective, basis);
  for (const Index j : chosen) {
    if (j < 0 || j >= clusters.count()) throw std::invalid_argument("there are fewer clusters");
  }
  if (group < 0 || group >= static_cast<int>(objective.groups().size()))
    throw std::invalid_argument("there are fewer groups");
  LeaveOneOutSteps out;
  {
    py::gil_scoped_release release;
    out = leave_one_out_steps(objective, theta, {basis, intercepts}, clusters, chosen, group, corrections,
                              threads);
  }
  return py::make_tuple(out.change, out.displacement);
}

using Given = std::tuple<std::shared_ptr<Clusters>, Vector, std::vector<Index>>;

Matrix without_each(const Objective& objective, const Vector& theta, const Matrix& basis,
                    const std::vector<Given>& groups, Index count) {
  std::vector<SampledClusters> sampled;
  for (const auto& [clusters, weights, units] : groups) sampled.push_back({clusters, weights, units});
  return delete_one_steps(objective, theta, basis, sampled, count);
}

}  // namespace

void bind_influence(py::module_& m) {
  using namespace py::literals;
  m.def("leave_one_out_steps", &steps, "objective"_a, "theta"_a, "basis"_a, "intercepts"_a, "clusters"_a,
        "chosen"_a, "group"_a = 0, "corrections"_a = 8, "threads"_a = 1);
  m.def("delete_one_steps", &without_each, "objective"_a, "theta"_a, "basis"_a, "groups"_a, "count"_a,
        py::call_guard<py::gil_scoped_release>());
}
