// Data of nested levels, and their likelihood.
#include "likelihood/nested/nested.hpp"

#include "bind/bind.hpp"
#include "bind/measured_moments.hpp"
#include "bind/random_slopes.hpp"
#include "bind/shapes.hpp"

using namespace msem;

namespace {

using Numbers = std::vector<std::vector<Index>>;

py::tuple nested_state(const NestedData& d) {
  return py::make_tuple(d.levels, d.measured, slope_state(d.slopes), d.given, d.origin, d.sizes, d.values,
                        d.patterns, d.pattern, d.parent, d.multiple, d.design, d.products, d.product_top,
                        d.product_pattern, d.beyond, d.weight);
}

std::shared_ptr<NestedData> nested_restored(const py::tuple& t) {
  auto d = std::make_shared<NestedData>();
  d->levels = t[0].cast<Numbers>();
  d->measured = t[1].cast<std::vector<Index>>();
  d->slopes = slopes_restored(t[2]);
  d->given = t[3].cast<std::vector<bool>>();
  d->origin = t[4].cast<Vector>();
  d->sizes = t[5].cast<Vector>();
  d->values = t[6].cast<std::vector<Matrix>>();
  d->patterns = t[7].cast<std::vector<std::vector<Pattern>>>();
  d->pattern = t[8].cast<Numbers>();
  d->parent = t[9].cast<Numbers>();
  d->multiple = t[10].cast<std::vector<Vector>>();
  d->design = t[11].cast<std::vector<Matrix>>();
  d->products = t[12].cast<Matrix>();
  d->product_top = t[13].cast<std::vector<Index>>();
  d->product_pattern = t[14].cast<std::vector<Index>>();
  d->beyond = t[15].cast<Vector>();
  d->weight = t[16].cast<Vector>();
  return d;
}

py::array_t<Index> as_array(const std::vector<Index>& of) {
  return py::array_t<Index>(static_cast<py::ssize_t>(of.size()), of.data());
}

std::shared_ptr<NestedClusters> nested_clusters(const std::shared_ptr<NestedLikelihood>& self) {
  return std::make_shared<NestedClusters>(self);
}

py::tuple nested_evidence(const NestedLikelihood& self, const LevelPairs& levels, Index level) {
  NestedPoint::Evidence found;
  {
    py::gil_scoped_release release;
    found = self.evidence(implied_levels(levels), level);
  }
  const auto count = static_cast<py::ssize_t>(found.which.size());
  return py::make_tuple(found.scores, found.information, py::array_t<Index>(count, found.which.data()));
}

py::tuple nested_effects(const NestedLikelihood& self, const LevelPairs& levels) {
  NestedPoint::Open found;
  {
    py::gil_scoped_release release;
    found = self.effects(implied_levels(levels));
  }
  return py::make_tuple(found.mean, found.cov, as_array(found.which));
}

}  // namespace

void bind_nested(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<NestedData, std::shared_ptr<NestedData>>(m, "NestedData")
      .def(py::init([](Numbers levels, std::vector<Index> measured, std::vector<RowMatrix> values,
                       Numbers parent, std::vector<Vector> times, const Vector& sizes, const Matrix& means,
                       const Matrix& products) {
             return std::make_shared<NestedData>(
                 nested_data({std::move(levels), std::move(measured), std::move(values), std::move(parent),
                              std::move(times)},
                             sizes, means, products));
           }),
           "levels"_a, "measured"_a, "values"_a, "parent"_a, "times"_a, "sizes"_a, "means"_a, "products"_a,
           release())
      .def(py::init([](Numbers levels, std::vector<Index> measured, std::vector<RowMatrix> values,
                       Numbers parent, std::vector<Vector> times, const IncompleteData& cells,
                       const Matrix& products) {
             return std::make_shared<NestedData>(
                 nested_data({std::move(levels), std::move(measured), std::move(values), std::move(parent),
                              std::move(times)},
                             cells, products));
           }),
           "levels"_a, "measured"_a, "values"_a, "parent"_a, "times"_a, "cells"_a, "products"_a, release())
      .def(py::init([](Numbers levels, std::vector<Index> measured, std::vector<RowMatrix> values,
                       Numbers parent, std::vector<Vector> times, const ReducedData& rows,
                       const Matrix& products, const std::vector<Index>& place) {
             return std::make_shared<NestedData>(
                 nested_data({std::move(levels), std::move(measured), std::move(values), std::move(parent),
                              std::move(times)},
                             rows, products, place));
           }),
           "levels"_a, "measured"_a, "values"_a, "parent"_a, "times"_a, "rows"_a, "products"_a, "place"_a,
           release())
      .def(
          "with_slopes",
          [](const NestedData& self, const py::sequence& slopes, const std::vector<Matrix>& designs,
             const std::vector<Index>& given) {
            std::vector<RandomSlope> own = slopes_restored(slopes);
            py::gil_scoped_release released;
            return std::make_shared<NestedData>(with_slopes(self, std::move(own), designs, given));
          },
          "slopes"_a, "designs"_a, "given"_a)
      .def_readonly("levels", &NestedData::levels)
      .def_readonly("measured", &NestedData::measured)
      .def_readonly("sizes", &NestedData::sizes)
      .def_readonly("weight", &NestedData::weight)
      .def_readonly("origin", &NestedData::origin)
      .def_readonly("values", &NestedData::values)
      .def_readonly("multiple", &NestedData::multiple)
      .def_readonly("design", &NestedData::design)
      .def_readonly("beyond", &NestedData::beyond)
      .def("weights", &NestedData::weights, "level"_a)
      .def_property_readonly("complete", &NestedData::complete)
      .def("moments", &moments_on<NestedData>, "level"_a)
      .def_property_readonly("products_within_cells", &products_within_cells)
      .def_property_readonly("products_within_clusters", &products_within_clusters)
      .def("clusters_with_pairs", &clusters_with_pairs, "level"_a)
      .def_property_readonly("slopes", [](const NestedData& d) { return slope_state(d.slopes); })
      .def_property_readonly("cluster_of_cell", [](const NestedData& d) { return as_array(d.parent[0]); })
      .def_property_readonly("parent",
                             [](const NestedData& d) {
                               std::vector<py::array_t<Index>> out;
                               for (std::size_t l = 1; l < d.parent.size(); ++l)
                                 out.push_back(as_array(d.parent[l]));
                               return out;
                             })
      .def_readonly("patterns", &NestedData::patterns)
      .def_property_readonly("pattern",
                             [](const NestedData& d) {
                               std::vector<py::array_t<Index>> out;
                               for (const auto& of : d.pattern) out.push_back(as_array(of));
                               return out;
                             })
      .def_property_readonly("product_top", [](const NestedData& d) { return as_array(d.product_top); })
      .def_property_readonly("product_pattern",
                             [](const NestedData& d) { return as_array(d.product_pattern); })
      .def_readonly("products", &NestedData::products)
      .def(
          "expected",
          [](const NestedData& self, const std::vector<std::pair<Vector, Matrix>>& moments,
             const Vector& sizes) {
            return std::make_shared<NestedData>(expected_nested(self, moments, sizes));
          },
          "moments"_a, "sizes"_a, release())
      .def(
          "restrict",
          [](const NestedData& self, const std::vector<Index>& variables, Numbers levels) {
            return std::make_shared<NestedData>(restrict_nested(self, variables, std::move(levels)));
          },
          "variables"_a, "levels"_a, release())
      .def(
          "weighted",
          [](const NestedData& self, const Vector& weights) {
            return std::make_shared<NestedData>(weighted_nested(self, weights));
          },
          "weights"_a, release())
      .def(py::pickle(&nested_state, &nested_restored));
  py::class_<NestedLikelihood, msem::Likelihood, std::shared_ptr<NestedLikelihood>>(m, "NestedLikelihood")
      .def(py::init([](const std::shared_ptr<NestedData>& data) {
             return std::make_shared<NestedLikelihood>(data);
           }),
           "data"_a, release())
      .def("clusters", &nested_clusters)
      .def("evidence", &nested_evidence, "moments"_a, "level"_a)
      .def("effects", &nested_effects, "moments"_a);
  py::class_<NestedClusters, msem::Clusters, std::shared_ptr<NestedClusters>>(m, "NestedClusters");
}
