// Robust inference: what scaled chi-squares need of the saturated model.
#include "bind/bind.hpp"
#include "bind/rows.hpp"
#include "bind/shapes.hpp"
#include "data/cluster_products.hpp"
#include "likelihood/complete/trace.hpp"

using namespace msem;

namespace {

double trace(const CompleteClusters& clusters, const LevelPairs& levels, const std::vector<bool>& fixed,
             bool with_means, bool expected, const Vector& counted, const Matrix& readings,
             const std::vector<Matrix>& sums) {
  py::gil_scoped_release release;
  const SummedClusters summed{readings, sums};
  return saturated_trace(clusters.whole().data(), implied_levels(levels), clusters.data(),
                         {fixed, with_means, expected}, counted, sums.empty() ? nullptr : &summed);
}

py::tuple products_of_clusters(ConstVectorRef sizes, ConstMatrixRef means, ConstMatrixRef within,
                               const Vector& origin, const Vector& scale, const Vector& weights) {
  ClusterProducts out;
  {
    py::gil_scoped_release release;
    out = cluster_products(sizes, means, within, origin, scale, weights);
  }
  return py::make_tuple(out.sizes, out.sums);
}

py::object products_of_clustered(const std::vector<Array>& unit, const std::vector<Array>& cluster,
                                 const Codes& codes, py::ssize_t nclusters, const Vector& origin,
                                 const Vector& scale) {
  const ClusterProducts out = with_rows(unit, cluster, codes, nclusters, [&](const ClusteredRows& rows) {
    return products_of_rows(rows, origin, scale);
  });
  return out.sizes.size() ? py::object(py::make_tuple(out.sizes, out.sums)) : py::none();
}

Matrix products_of_single(const std::vector<Array>& arrays, py::ssize_t nrows, const Vector& origin,
                          const Vector& scale, const Weights& weights, bool even) {
  const std::vector<Array> held = aligned(arrays);
  const std::vector<Column> columns = columns_of(held, nrows);
  const double* given = weights_of(weights, nrows);
  py::gil_scoped_release release;
  return row_products(columns, nrows, origin, scale, given, even);
}

}  // namespace

void bind_robust(py::module_& m) {
  using namespace py::literals;
  m.def("saturated_trace", &trace, "clusters"_a, "moments"_a, "fixed"_a, "with_means"_a = true,
        "expected"_a = false, "counted"_a = Vector(), "readings"_a = Matrix(),
        "sums"_a = std::vector<Matrix>());
  m.def("cluster_products", &products_of_clusters, "sizes"_a, "means"_a, "within"_a, "origin"_a, "scale"_a,
        "weights"_a);
  m.def("products_of_rows", &products_of_clustered, "unit"_a, "cluster"_a, "codes"_a, "nclusters"_a,
        "origin"_a, "scale"_a);
  m.def("row_products", &products_of_single, "columns"_a, "nrows"_a, "origin"_a, "scale"_a, "weights"_a,
        "even"_a = false);
}
