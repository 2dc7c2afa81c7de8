// Sufficient statistics: convert, release the GIL, compute, build the result.
#include <stdexcept>

#include "bind.hpp"
#include "statistics.hpp"

namespace {

using msem::ClusteredRows;
using msem::Column;
using Array = py::array_t<double>;  // no copy of a float64 array; other types are converted
using Codes = py::array_t<std::int64_t, py::array::c_style>;

Column column_of(const Array& array, py::ssize_t nrows) {
  if (array.ndim() != 1 || array.shape(0) != nrows)
    throw std::invalid_argument("columns must have one value per row");
  return {array.data(), array.strides(0) / static_cast<py::ssize_t>(sizeof(double))};
}

// A column whose elements do not lie a whole number of doubles apart is copied first.
std::vector<Array> aligned(std::vector<Array> arrays) {
  for (Array& array : arrays) {
    if (array.ndim() == 1 && array.strides(0) % static_cast<py::ssize_t>(sizeof(double)) != 0)
      array = py::array_t<double, py::array::c_style>::ensure(array.attr("copy")());
  }
  return arrays;
}

std::vector<Column> columns_of(const std::vector<Array>& arrays, py::ssize_t nrows) {
  std::vector<Column> columns;
  for (const Array& array : arrays) columns.push_back(column_of(array, nrows));
  return columns;
}

template <class Compute>
auto with_rows(const std::vector<Array>& unit, const std::vector<Array>& cluster, const Codes& codes,
               py::ssize_t nclusters, Compute compute) {
  if (codes.ndim() != 1) throw std::invalid_argument("codes must have one dimension");
  const std::vector<Array> units = aligned(unit), clusters = aligned(cluster);
  const ClusteredRows rows{columns_of(units, codes.size()), columns_of(clusters, codes.size()), codes.data(),
                           codes.size(), nclusters};
  py::gil_scoped_release unlocked;
  return compute(rows);
}

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
  const auto out = with_rows(unit, cluster, codes, nclusters, msem::cluster_arrays);
  return py::make_tuple(out.sizes, out.means, out.within);
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
