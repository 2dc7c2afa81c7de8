// Influence of clusters on the estimates.
#include "after/influence.hpp"

#include <optional>

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

// Model, clusters, used, moments, chosen, observed.
using Saturated = std::tuple<const Objective*, std::shared_ptr<Clusters>, std::vector<Index>, Matrix,
                             std::vector<Index>, bool>;

py::tuple statistics_without(const Objective& objective, const Vector& theta, const Matrix& basis,
                             const std::vector<int>& intercepts, const LeastSquares& loss,
                             const Matrix& values, const Matrix& shares, const Vector& factor, int group,
                             const std::optional<Saturated>& saturated, int corrections, int threads) {
  require_intercepts(objective, intercepts);
  require_basis(objective, basis);
  if (group < 0 || group >= static_cast<int>(objective.groups().size()))
    throw std::invalid_argument("there are fewer groups");
  const bool alike = shares.rows() == values.rows() && shares.cols() == values.cols();
  if (values.cols() != loss.values().size() || (shares.size() && !alike) || factor.size() != values.rows())
    throw std::invalid_argument("every unit needs the statistics without it");
  std::optional<SaturatedWeights> weights;
  if (saturated) {
    const auto& [model, clusters, used, moments, chosen, observed] = *saturated;
    const Index count = static_cast<Index>(chosen.size());
    if (count != values.rows() || moments.rows() != count || moments.cols() != model->npar())
      throw std::invalid_argument("every unit needs the moments without it");
    for (const Index j : chosen) {
      if (j < 0 || j >= clusters->count()) throw std::invalid_argument("there are fewer clusters");
    }
    for (const Index k : used) {
      if (k < 0 || k >= model->npar()) throw std::invalid_argument("there are fewer moments");
    }
    weights.emplace(SaturatedWeights{*model, *clusters, used, moments, chosen, observed});
  }
  LeaveOneOutSteps out;
  {
    py::gil_scoped_release release;
    out = leave_one_out_statistics(objective, theta, {basis, intercepts}, loss, {values, shares, factor},
                                   weights ? &*weights : nullptr, group, corrections, threads);
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
  m.def("leave_one_out_statistics", &statistics_without, "objective"_a, "theta"_a, "basis"_a, "intercepts"_a,
        "loss"_a, "values"_a, "shares"_a, "factor"_a, "group"_a = 0, "saturated"_a = std::nullopt,
        "corrections"_a = 60, "threads"_a = 1);
  m.def("delete_one_steps", &without_each, "objective"_a, "theta"_a, "basis"_a, "groups"_a, "count"_a,
        py::call_guard<py::gil_scoped_release>());
}
