// Columns of a data frame, given as arrays, seen as the rows that the core reads.
#pragma once

#include <optional>
#include <stdexcept>
#include <vector>

#include "bind/bind.hpp"
#include "data/statistics.hpp"

using Array = py::array_t<double>;  // no copy of a float64 array; other types are converted
using Codes = py::array_t<std::int64_t, py::array::c_style>;

inline msem::Column column_of(const Array& array, py::ssize_t nrows) {
  if (array.ndim() != 1 || array.shape(0) != nrows)
    throw std::invalid_argument("columns must have one value per row");
  return {array.data(), array.strides(0) / static_cast<py::ssize_t>(sizeof(double))};
}

// A column whose elements do not lie a whole number of doubles apart is copied first.
inline std::vector<Array> aligned(std::vector<Array> arrays) {
  for (Array& array : arrays) {
    if (array.ndim() == 1 && array.strides(0) % static_cast<py::ssize_t>(sizeof(double)) != 0)
      array = py::array_t<double, py::array::c_style>::ensure(array.attr("copy")());
  }
  return arrays;
}

inline std::vector<msem::Column> columns_of(const std::vector<Array>& arrays, py::ssize_t nrows) {
  std::vector<msem::Column> columns;
  for (const Array& array : arrays) columns.push_back(column_of(array, nrows));
  return columns;
}

// Weights of rows, which may be none.
using Weights = std::optional<py::array_t<double, py::array::c_style | py::array::forcecast>>;

inline const double* weights_of(const Weights& weights, py::ssize_t nrows) {
  if (!weights) return nullptr;
  if (weights->ndim() != 1 || weights->shape(0) != nrows)
    throw std::invalid_argument("weights must have one value per row");
  return weights->data();
}

template <class Compute>
auto with_rows(const std::vector<Array>& unit, const std::vector<Array>& cluster, const Codes& codes,
               py::ssize_t nclusters, Compute compute, const Weights& weights = {}) {
  if (codes.ndim() != 1) throw std::invalid_argument("codes must have one dimension");
  const std::vector<Array> units = aligned(unit), clusters = aligned(cluster);
  const msem::ClusteredRows rows{columns_of(units, codes.size()),
                                 columns_of(clusters, codes.size()),
                                 codes.data(),
                                 codes.size(),
                                 nclusters,
                                 weights_of(weights, codes.size())};
  py::gil_scoped_release unlocked;
  return compute(rows);
}
