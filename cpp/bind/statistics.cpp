// Sufficient statistics: convert, release the GIL, compute, build the result.
#include "bind/rows.hpp"

namespace {

using msem::Column;

Array scatter_array(const msem::TwoLevelStatistics& statistics) {
  const py::ssize_t S = statistics.means.rows(), m = statistics.means.cols();
  return Array({S, m, m}, statistics.scatter.data());
}

py::dict two_level(const std::vector<Array>& unit, const std::vector<Array>& cluster, const Codes& codes,
                   py::ssize_t nclusters) {
  const auto out = with_rows(unit, cluster, codes, nclusters, msem::two_level_statistics);
  py::list varying;
  for (const msem::Varying& one : out.varying) varying.append(py::make_tuple(one.count, one.codes));
  py::dict result;
  result["sizes"] = out.sizes;
  result["counts"] = out.counts;
  result["means"] = out.means;
  result["scatter"] = scatter_array(out);
  result["ssw"] = out.ssw;
  result["constant"] = out.constant;
  result["varying"] = varying;
  return result;
}

py::tuple cluster_arrays(const std::vector<Array>& unit, const std::vector<Array>& cluster,
                         const Codes& codes, py::ssize_t nclusters) {
  auto out = with_rows(unit, cluster, codes, nclusters, msem::cluster_arrays);
  return py::make_tuple(std::move(out.sizes), std::move(out.means), std::move(out.within));
}

py::tuple simple(const std::vector<Array>& arrays, py::ssize_t nrows) {
  const std::vector<Array> held = aligned(arrays);
  const std::vector<Column> columns = columns_of(held, nrows);
  msem::SimpleStatistics out;
  {
    py::gil_scoped_release unlocked;
    out = msem::simple_statistics(columns, nrows);
  }
  return py::make_tuple(out.mean, out.scatter);
}

}  // namespace

void bind_statistics(py::module_& m) {
  m.def("two_level_statistics", &two_level, py::arg("unit"), py::arg("cluster"), py::arg("codes"),
        py::arg("nclusters"), "Sufficient statistics of two-level data, by distinct cluster size.");
  m.def("cluster_arrays", &cluster_arrays, py::arg("unit"), py::arg("cluster"), py::arg("codes"),
        py::arg("nclusters"), "Sizes, mean vectors and within-cluster products, one row per cluster.");
  m.def("simple_statistics", &simple, py::arg("columns"), py::arg("nrows"),
        "Mean and sums of squares and products about it.");
}
