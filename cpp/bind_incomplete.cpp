// Statistics of data with holes.
#include "bind_rows.hpp"
#include "incomplete.hpp"

using namespace msem;

namespace {

using Data = std::shared_ptr<const IncompleteData>;

Data make(const std::vector<Array>& unit, const std::vector<Array>& cluster, const Codes& codes,
          py::ssize_t nclusters, Index nboth) {
  return with_rows(unit, cluster, codes, nclusters, [&](const ClusteredRows& rows) {
    return std::make_shared<const IncompleteData>(incomplete_data(rows, nboth));
  });
}

py::tuple values(const std::vector<Array>& cluster, const Codes& codes, py::ssize_t nclusters) {
  const ClusterValues out = with_rows({}, cluster, codes, nclusters, cluster_values);
  py::list varying;
  for (const Varying& one : out.varying) varying.append(py::make_tuple(one.count, one.codes));
  return py::make_tuple(out.values, varying);
}

Matrix products(const std::vector<Array>& unit, const Codes& codes, const IncompleteData& data) {
  return with_rows(unit, {}, codes, data.nclusters(),
                   [&](const ClusteredRows& rows) { return cell_products(rows, data); });
}

Eigen::Matrix<bool, Eigen::Dynamic, Eigen::Dynamic> flags(const std::vector<Pattern>& patterns, Index count) {
  Eigen::Matrix<bool, Eigen::Dynamic, Eigen::Dynamic> out(static_cast<Index>(patterns.size()), count);
  out.setConstant(false);
  for (std::size_t r = 0; r < patterns.size(); ++r) {
    for (const Index k : patterns[r]) out(static_cast<Index>(r), k) = true;
  }
  return out;
}

Vector sizes(const IncompleteData& d) {
  Vector out = Vector::Zero(d.nclusters());
  for (Index j = 0; j < d.nclusters(); ++j) {
    for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) out[j] += d.cell_rows[c];
  }
  return out;
}

// Everything there is, as arrays.
py::tuple state(const IncompleteData& d) {
  return py::make_tuple(d.p, d.nboth, d.q, d.origin, d.unit_patterns, d.pattern_rows, d.scatter, d.first_cell,
                        d.cell_pattern, d.cell_rows, d.cell_means, d.cluster_patterns, d.cluster_pattern,
                        d.cluster_values, d.weight);
}

Data restored(const py::tuple& t) {
  IncompleteData d;
  d.p = t[0].cast<Index>();
  d.nboth = t[1].cast<Index>();
  d.q = t[2].cast<Index>();
  d.origin = t[3].cast<Vector>();
  d.unit_patterns = t[4].cast<std::vector<Pattern>>();
  d.pattern_rows = t[5].cast<Vector>();
  d.scatter = t[6].cast<std::vector<Matrix>>();
  d.first_cell = t[7].cast<std::vector<Index>>();
  d.cell_pattern = t[8].cast<std::vector<Index>>();
  d.cell_rows = t[9].cast<Vector>();
  d.cell_means = t[10].cast<Matrix>();
  d.cluster_patterns = t[11].cast<std::vector<Pattern>>();
  d.cluster_pattern = t[12].cast<std::vector<Index>>();
  d.cluster_values = t[13].cast<Matrix>();
  d.weight = t[14].cast<Vector>();
  return std::make_shared<const IncompleteData>(std::move(d));
}

}  // namespace

void bind_incomplete(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<IncompleteData, std::shared_ptr<IncompleteData>>(m, "IncompleteData")
      .def_property_readonly("p", [](const IncompleteData& d) { return d.p; })
      .def_property_readonly("nboth", [](const IncompleteData& d) { return d.nboth; })
      .def_property_readonly("q", [](const IncompleteData& d) { return d.q; })
      .def_property_readonly("nobs", &IncompleteData::nobs)
      .def_property_readonly("nclusters", &IncompleteData::nclusters)
      .def_property_readonly("ncells", &IncompleteData::ncells)
      .def_property_readonly("origin", [](const IncompleteData& d) { return d.origin; })
      .def_property_readonly("sizes", &sizes)
      .def_property_readonly("weight", [](const IncompleteData& d) { return d.weight; })
      .def_property_readonly("unit_patterns",
                             [](const IncompleteData& d) { return flags(d.unit_patterns, d.p); })
      .def_property_readonly("pattern_rows", [](const IncompleteData& d) { return d.pattern_rows; })
      .def_property_readonly("scatter", [](const IncompleteData& d) { return d.scatter; })
      .def_property_readonly("first_cell", [](const IncompleteData& d) { return d.first_cell; })
      .def_property_readonly("cell_pattern", [](const IncompleteData& d) { return d.cell_pattern; })
      .def_property_readonly("cell_rows", [](const IncompleteData& d) { return d.cell_rows; })
      .def_property_readonly("cell_means", [](const IncompleteData& d) { return d.cell_means; })
      .def_property_readonly("cluster_patterns",
                             [](const IncompleteData& d) { return flags(d.cluster_patterns, d.q); })
      .def_property_readonly("cluster_pattern", [](const IncompleteData& d) { return d.cluster_pattern; })
      .def_property_readonly("cluster_values", [](const IncompleteData& d) { return d.cluster_values; })
      .def(
          "restrict",
          [](const IncompleteData& d, const std::vector<Index>& unit, const std::vector<Index>& cluster,
             Index nboth) {
            return std::make_shared<IncompleteData>(restrict_variables(d, unit, cluster, nboth));
          },
          "unit"_a, "cluster"_a, "nboth"_a, release())
      .def(
          "weighted",
          [](const IncompleteData& d, const Matrix& within, const Vector& weights) {
            return std::make_shared<IncompleteData>(weighted(d, within, weights));
          },
          "products"_a, "weights"_a, release())
      .def("coverage",
           [](const IncompleteData& d) {
             const Coverage out = coverage(d);
             return py::make_tuple(out.units, out.clusters);
           })
      .def("total_cov",
           [](const IncompleteData& d) {
             const TotalCov out = total_cov(d);
             return py::make_tuple(out.units, out.clusters);
           })
      .def("observed_moments",
           [](const IncompleteData& d) {
             const ObservedMoments out = observed_moments(d);
             return py::make_tuple(out.count, out.mean, out.variance);
           })
      .def(py::pickle(
          &state, [](const py::tuple& t) { return std::const_pointer_cast<IncompleteData>(restored(t)); }));
  m.def(
      "incomplete_data",
      [](const std::vector<Array>& unit, const std::vector<Array>& cluster, const Codes& codes,
         py::ssize_t nclusters, Index nboth) {
        return std::const_pointer_cast<IncompleteData>(make(unit, cluster, codes, nclusters, nboth));
      },
      "unit"_a, "cluster"_a, "codes"_a, "nclusters"_a, "nboth"_a);
  m.def("cluster_values", &values, "cluster"_a, "codes"_a, "nclusters"_a);
  m.def("cell_products", &products, "unit"_a, "codes"_a, "data"_a);
}
