// First stage of ordered variables, modes of posterior distributions given them, and the bivariate normal
// distribution.
#include "after/ordered_draws.hpp"
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
  out["scores"] = found.scores;
  out["at_bound"] = found.at_bound;
  out["unsettled"] = found.unsettled;
  out["unknown"] = found.unknown;
  return out;
}

py::dict estimate_first_stage(Matrix values, Matrix covariates, std::vector<int> categories,
                              std::vector<int> cluster, const std::vector<Vector>& starts, Vector weight) {
  for (const int c : cluster) {
    if (c < 0) throw std::invalid_argument("clusters are numbered from 0");
  }
  FirstStage found;
  {
    py::gil_scoped_release release;
    found = first_stage({std::move(values), std::move(covariates), std::move(categories), std::move(cluster),
                         std::move(weight)},
                        starts);
  }
  return first_stage_parts(found);
}

py::dict estimate_two_level_first_stage(Matrix values, Matrix covariates, std::vector<int> cluster,
                                        Matrix cluster_values, Matrix cluster_covariates,
                                        std::vector<int> categories, std::vector<int> both,
                                        const std::vector<Vector>& starts, Vector weight,
                                        Vector cluster_weight) {
  FirstStage found;
  {
    py::gil_scoped_release release;
    found = two_level_first_stage(
        {std::move(values), std::move(covariates), std::move(cluster), std::move(cluster_values),
         std::move(cluster_covariates), std::move(categories), std::move(both), std::move(weight),
         std::move(cluster_weight)},
        starts);
  }
  return first_stage_parts(found);
}

ModeProblem make_problem(bool logistic, std::vector<Vector> cuts, Matrix reach, Matrix top, Vector sd,
                         std::vector<Vector> cluster_cuts, Matrix cluster_top, Vector cluster_sd, Matrix root,
                         std::vector<Index> first, Matrix categories, Matrix shift, Matrix zeta,
                         Matrix cluster_categories, Matrix cluster_shift, Matrix unit_map,
                         Matrix cluster_map) {
  const ModeProblem problem{logistic,
                            {std::move(cuts), std::move(reach), std::move(top), std::move(sd)},
                            {std::move(cluster_cuts), {}, std::move(cluster_top), std::move(cluster_sd)},
                            std::move(root),
                            std::move(first),
                            std::move(categories),
                            std::move(shift),
                            std::move(zeta),
                            std::move(cluster_categories),
                            std::move(cluster_shift),
                            std::move(unit_map),
                            std::move(cluster_map)};
  problem.require();
  return problem;
}

py::dict modes_of(const ModeProblem& problem) {
  PosteriorModes found;
  {
    py::gil_scoped_release release;
    found = posterior_modes(problem);
  }
  py::dict out;
  out["unit"] = found.unit;
  out["unit_var"] = found.unit_var;
  out["cluster"] = found.cluster;
  out["cluster_var"] = found.cluster_var;
  out["unsettled"] = found.unsettled;
  return out;
}

py::tuple draw_of(const ModeProblem& problem, std::uint64_t seed, std::uint32_t group, int sweeps) {
  PosteriorDraw found;
  {
    py::gil_scoped_release release;
    found = posterior_draw(problem, seed, group, sweeps);
  }
  return py::make_tuple(found.unit, found.cluster);
}

}  // namespace

void bind_ordered(py::module_& m) {
  using namespace py::literals;
  m.def("first_stage", &estimate_first_stage, "values"_a, "covariates"_a, "categories"_a, "cluster"_a,
        "starts"_a, "weight"_a = Vector());
  m.def("two_level_first_stage", &estimate_two_level_first_stage, "values"_a, "covariates"_a, "cluster"_a,
        "cluster_values"_a, "cluster_covariates"_a, "categories"_a, "both"_a, "starts"_a,
        "weight"_a = Vector(), "cluster_weight"_a = Vector());
  py::class_<ModeProblem>(m, "LatentGivenOrdered")
      .def(py::init(&make_problem), py::kw_only(), "logistic"_a, "cuts"_a, "reach"_a, "top"_a, "sd"_a,
           "cluster_cuts"_a, "cluster_top"_a, "cluster_sd"_a, "root"_a, "first"_a, "categories"_a, "shift"_a,
           "zeta"_a, "cluster_categories"_a, "cluster_shift"_a, "unit_map"_a, "cluster_map"_a)
      .def("modes", &modes_of)
      .def("draw", &draw_of, "seed"_a, "group"_a, "sweeps"_a);
  m.def("binormal_between", py::vectorize(&binormal_between), "x1"_a, "x2"_a, "y1"_a, "y2"_a, "r"_a);
}
