// Data of crossed classifications, and their likelihood.
#include "likelihood/crossed/crossed.hpp"

#include "bind/bind.hpp"
#include "bind/measured_moments.hpp"
#include "bind/random_slopes.hpp"
#include "bind/shapes.hpp"

using namespace msem;

namespace {

using Numbers = std::vector<std::vector<Index>>;
using PerSide = std::array<std::vector<Index>, 2>;

py::tuple crossed_state(const CrossedData& d) {
  const auto &a = d.classifications[0], &b = d.classifications[1];
  py::list patterns;
  for (const CrossedPattern& one : d.patterns)
    patterns.append(py::make_tuple(one.observed, one.units, one.products));
  return py::make_tuple(d.levels, d.measured, d.origin, d.units, patterns, py::make_tuple(a.sizes, a.values),
                        py::make_tuple(b.sizes, b.values), d.first, d.second, d.pattern, d.count, d.sums,
                        slope_state(d.slopes), d.width, d.design, d.given);
}

Classification classification(const py::tuple& t) { return {t[0].cast<Vector>(), t[1].cast<Matrix>()}; }

std::shared_ptr<CrossedData> crossed_restored(const py::tuple& t) {
  auto d = std::make_shared<CrossedData>();
  d->levels = t[0].cast<Numbers>();
  d->measured = t[1].cast<std::vector<Index>>();
  d->origin = t[2].cast<Vector>();
  d->units = t[3].cast<double>();
  for (const py::handle one : t[4].cast<py::list>()) {
    const py::tuple own = one.cast<py::tuple>();
    d->patterns.push_back({own[0].cast<std::vector<Index>>(), own[1].cast<double>(), own[2].cast<Matrix>()});
  }
  d->classifications = {classification(t[5]), classification(t[6])};
  d->first = t[7].cast<std::vector<Index>>();
  d->second = t[8].cast<std::vector<Index>>();
  d->pattern = t[9].cast<std::vector<Index>>();
  d->count = t[10].cast<Vector>();
  d->sums = t[11].cast<Matrix>();
  d->slopes = slopes_restored(t[12]);
  d->width = t[13].cast<Index>();
  d->design = t[14].cast<Matrix>();
  d->given = t[15].cast<std::vector<bool>>();
  return d;
}

std::unique_ptr<CrossedPoint> point_at(const CrossedLikelihood& self, const LevelPairs& moments) {
  auto point = self.point(implied_levels(moments));
  if (!point) throw std::invalid_argument("the moments are outside the domain of the likelihood");
  return point;
}

py::tuple crossed_evidence(const CrossedLikelihood& self, const LevelPairs& moments, Index level) {
  CrossedPoint::Evidence found;
  {
    py::gil_scoped_release released;
    found = point_at(self, moments)->evidence(level);
  }
  return py::make_tuple(std::move(found.scores), std::move(found.information));
}

py::tuple crossed_effects(const CrossedLikelihood& self, const LevelPairs& moments) {
  CrossedPoint::Effects found;
  {
    py::gil_scoped_release released;
    found = point_at(self, moments)->of_cells();
  }
  return py::make_tuple(std::move(found.mean), std::move(found.cov));
}

}  // namespace

void bind_crossed(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<Classification>(m, "Classification")
      .def_readonly("sizes", &Classification::sizes)
      .def_readonly("values", &Classification::values);
  py::class_<CrossedData, std::shared_ptr<CrossedData>>(m, "CrossedData")
      .def(py::init([](Numbers levels, std::vector<Index> measured, const Matrix& units, const PerSide& of,
                       const std::array<Matrix, 2>& values, const Matrix& covariates) {
             return std::make_shared<CrossedData>(
                 crossed_data(std::move(levels), std::move(measured), units, of, values, covariates));
           }),
           "levels"_a, "measured"_a, "units"_a, "of"_a, "values"_a, "covariates"_a = Matrix(), release())
      .def(
          "with_slopes",
          [](const CrossedData& self, const py::sequence& slopes, const std::vector<Index>& given) {
            return std::make_shared<CrossedData>(with_slopes(self, slopes_restored(slopes), given));
          },
          "slopes"_a, "given"_a)
      .def_property_readonly("slopes", [](const CrossedData& d) { return slope_state(d.slopes); })
      .def_readonly("levels", &CrossedData::levels)
      .def_readonly("measured", &CrossedData::measured)
      .def_readonly("origin", &CrossedData::origin)
      .def_readonly("nobs", &CrossedData::units)
      .def("moments", &moments_on<CrossedData>, "level"_a)
      .def_property_readonly("complete", &CrossedData::complete)
      .def_property_readonly(
          "cells", [](const CrossedData& d) { return py::make_tuple(d.first, d.second, d.pattern, d.count); })
      .def_property_readonly("patterns",
                             [](const CrossedData& d) {
                               py::list out;
                               for (const CrossedPattern& one : d.patterns) out.append(one.observed);
                               return out;
                             })
      .def_property_readonly(
          "classifications",
          [](const CrossedData& d) { return py::make_tuple(d.classifications[0], d.classifications[1]); })
      .def(
          "restrict",
          [](const CrossedData& self, const std::vector<Index>& variables, Numbers levels) {
            return std::make_shared<CrossedData>(restrict_crossed(self, variables, std::move(levels)));
          },
          "variables"_a, "levels"_a, release())
      .def(py::pickle(&crossed_state, &crossed_restored));
  py::class_<CrossedLikelihood, msem::Likelihood, std::shared_ptr<CrossedLikelihood>>(m, "CrossedLikelihood")
      .def(py::init([](const std::shared_ptr<CrossedData>& data, bool sparse) {
             return std::make_shared<CrossedLikelihood>(data, sparse);
           }),
           "data"_a, "sparse"_a = false, release())
      // rows of the equations that are left, bytes and multiplications of a factor, whether it is sparse and
      // whether it is within reach
      .def_property_readonly("size",
                             [](const CrossedLikelihood& self) {
                               const CrossedGraph& graph = self.arranged().graph;
                               return py::make_tuple(graph.nodes * graph.width, graph.bytes, graph.operations,
                                                     !graph.dense, graph.possible());
                             })
      .def("evidence", &crossed_evidence, "moments"_a, "level"_a)
      .def("effects", &crossed_effects, "moments"_a);
}
