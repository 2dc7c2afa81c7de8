// Data of crossed classifications, and their likelihood.
#include "likelihood/crossed/crossed.hpp"

#include "bind/bind.hpp"

using namespace msem;

namespace {

using Numbers = std::vector<std::vector<Index>>;
using PerSide = std::array<std::vector<Index>, 2>;

py::tuple crossed_state(const CrossedData& d) {
  const auto &a = d.classifications[0], &b = d.classifications[1];
  return py::make_tuple(d.levels, d.measured, d.origin, d.units, d.products,
                        py::make_tuple(a.sizes, a.sums, a.values), py::make_tuple(b.sizes, b.sums, b.values),
                        d.first, d.second, d.pairs);
}

Classification classification(const py::tuple& t) {
  return {t[0].cast<Vector>(), t[1].cast<Matrix>(), t[2].cast<Matrix>()};
}

std::shared_ptr<CrossedData> crossed_restored(const py::tuple& t) {
  auto d = std::make_shared<CrossedData>();
  d->levels = t[0].cast<Numbers>();
  d->measured = t[1].cast<std::vector<Index>>();
  d->origin = t[2].cast<Vector>();
  d->units = t[3].cast<double>();
  d->products = t[4].cast<Matrix>();
  d->classifications = {classification(t[5]), classification(t[6])};
  d->first = t[7].cast<std::vector<Index>>();
  d->second = t[8].cast<std::vector<Index>>();
  d->pairs = t[9].cast<Vector>();
  return d;
}

}  // namespace

void bind_crossed(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<Classification>(m, "Classification")
      .def_readonly("sizes", &Classification::sizes)
      .def_readonly("sums", &Classification::sums)
      .def_readonly("values", &Classification::values);
  py::class_<CrossedData, std::shared_ptr<CrossedData>>(m, "CrossedData")
      .def(py::init([](Numbers levels, std::vector<Index> measured, const Matrix& units, const PerSide& of,
                       const std::array<Matrix, 2>& values) {
             return std::make_shared<CrossedData>(
                 crossed_data(std::move(levels), std::move(measured), units, of, values));
           }),
           "levels"_a, "measured"_a, "units"_a, "of"_a, "values"_a, release())
      .def_readonly("origin", &CrossedData::origin)
      .def_readonly("nobs", &CrossedData::units)
      .def_readonly("products", &CrossedData::products)
      .def_readonly("pairs", &CrossedData::pairs)
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
      .def(py::init([](const std::shared_ptr<CrossedData>& data) {
             return std::make_shared<CrossedLikelihood>(data);
           }),
           "data"_a, release());
}
