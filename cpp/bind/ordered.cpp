// First stage of ordered variables, and the bivariate normal distribution.
#include "base/normal.hpp"
#include "bind/bind.hpp"
#include "ordered/first_stage.hpp"
#include "ordered/two_levels.hpp"

using namespace msem;

namespace {

py::dict first_stage_parts(const FirstStage& found) {
  py::dict out;
  out["first"] = found.first;
  out["estimates"] = found.estimates;
  out["bread"] = found.bread;
  out["meat"] = found.meat;
  out["at_bound"] = found.at_bound;
  out["unsettled"] = found.unsettled;
  out["unknown"] = found.unknown;
  return out;
}

py::dict estimate_first_stage(Matrix values, Matrix covariates, std::vector<int> categories,
                              std::vector<int> cluster, const std::vector<Vector>& starts) {
  for (const int c : cluster) {
    if (c < 0) throw std::invalid_argument("clusters are numbered from 0");
  }
  FirstStage found;
  {
    py::gil_scoped_release release;
    found = first_stage({std::move(values), std::move(covariates), std::move(categories), std::move(cluster)},
                        starts);
  }
  return first_stage_parts(found);
}

py::dict estimate_two_level_first_stage(Matrix values, Matrix covariates, std::vector<int> cluster,
                                        Matrix cluster_values, Matrix cluster_covariates,
                                        std::vector<int> categories, std::vector<int> both,
                                        const std::vector<Vector>& starts) {
  FirstStage found;
  {
    py::gil_scoped_release release;
    found = two_level_first_stage(
        {std::move(values), std::move(covariates), std::move(cluster), std::move(cluster_values),
         std::move(cluster_covariates), std::move(categories), std::move(both)},
        starts);
  }
  return first_stage_parts(found);
}

}  // namespace

void bind_ordered(py::module_& m) {
  using namespace py::literals;
  m.def("first_stage", &estimate_first_stage, "values"_a, "covariates"_a, "categories"_a, "cluster"_a,
        "starts"_a);
  m.def("two_level_first_stage", &estimate_two_level_first_stage, "values"_a, "covariates"_a, "cluster"_a,
        "cluster_values"_a, "cluster_covariates"_a, "categories"_a, "both"_a, "starts"_a);
  m.def("binormal_between", py::vectorize(&binormal_between), "x1"_a, "x2"_a, "y1"_a, "y2"_a, "r"_a);
}
