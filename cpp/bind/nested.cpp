// Data of nested levels, and their likelihood.
#include "likelihood/nested/nested.hpp"

#include "bind/bind.hpp"

using namespace msem;

namespace {

using Numbers = std::vector<std::vector<Index>>;

py::tuple nested_state(const NestedData& d) {
  return py::make_tuple(d.levels, d.measured, d.origin, d.sizes, d.values, d.parent, d.products, d.weight);
}

std::shared_ptr<NestedData> nested_restored(const py::tuple& t) {
  auto d = std::make_shared<NestedData>();
  d->levels = t[0].cast<Numbers>();
  d->measured = t[1].cast<std::vector<Index>>();
  d->origin = t[2].cast<Vector>();
  d->sizes = t[3].cast<Vector>();
  d->values = t[4].cast<std::vector<Matrix>>();
  d->parent = t[5].cast<Numbers>();
  d->products = t[6].cast<Matrix>();
  d->weight = t[7].cast<Vector>();
  return d;
}

std::shared_ptr<NestedClusters> nested_clusters(const std::shared_ptr<NestedLikelihood>& self) {
  return std::make_shared<NestedClusters>(self);
}

py::tuple nested_evidence(const NestedLikelihood& self, const std::vector<std::tuple<Vector, Matrix>>& levels,
                          Index level) {
  NestedPoint::Evidence found;
  {
    py::gil_scoped_release release;
    Implied moments;
    for (const auto& [mean, cov] : levels) moments.push_back({mean, cov});
    found = self.evidence(std::move(moments), level);
  }
  const auto count = static_cast<py::ssize_t>(found.which.size());
  return py::make_tuple(found.scores, found.information, py::array_t<Index>(count, found.which.data()));
}

}  // namespace

void bind_nested(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<NestedData, std::shared_ptr<NestedData>>(m, "NestedData")
      .def(py::init([](Numbers levels, std::vector<Index> measured, const Vector& sizes, const Matrix& means,
                       const Matrix& products, Numbers parent) {
             return std::make_shared<NestedData>(nested_data(std::move(levels), std::move(measured), sizes,
                                                             means, products, std::move(parent)));
           }),
           "levels"_a, "measured"_a, "sizes"_a, "means"_a, "products"_a, "parent"_a, release())
      .def_readonly("levels", &NestedData::levels)
      .def_readonly("measured", &NestedData::measured)
      .def_readonly("sizes", &NestedData::sizes)
      .def_readonly("weight", &NestedData::weight)
      .def_readonly("origin", &NestedData::origin)
      .def_readonly("values", &NestedData::values)
      .def_property_readonly("parent",
                             [](const NestedData& d) {
                               std::vector<py::array_t<Index>> out;
                               for (const auto& of : d.parent)
                                 out.emplace_back(static_cast<py::ssize_t>(of.size()), of.data());
                               return out;
                             })
      .def_readonly("products", &NestedData::products)
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
      .def("evidence", &nested_evidence, "moments"_a, "level"_a);
  py::class_<NestedClusters, msem::Clusters, std::shared_ptr<NestedClusters>>(m, "NestedClusters");
}
