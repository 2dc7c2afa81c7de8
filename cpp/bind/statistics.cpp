// Sufficient statistics: convert, release the GIL, compute, build the result.
#include "bind/rows.hpp"
#include "bind/shapes.hpp"
#include "data/counted_clusters.hpp"
#include "data/dependence.hpp"
#include "data/weights.hpp"

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

py::tuple arrays_of_clusters(const std::vector<Array>& unit, const std::vector<Array>& cluster,
                             const Codes& codes, py::ssize_t nclusters, const Weights& weights) {
  auto out = with_rows(unit, cluster, codes, nclusters, msem::cluster_arrays, weights);
  return py::make_tuple(std::move(out.sizes), std::move(out.means), std::move(out.within));
}

py::tuple clusters_by_size(msem::ConstVectorRef sizes, msem::ConstMatrixRef means,
                           msem::ConstMatrixRef within, msem::Index p, const msem::Vector& weights) {
  msem::CountedClusters out;
  {
    py::gil_scoped_release unlocked;
    out = msem::counted_clusters(sizes, means, within, p, weights);
  }
  const py::ssize_t S = out.means.rows(), m = out.means.cols();
  return py::make_tuple(out.sizes, out.counts, out.means, Array({S, m, m}, out.scatter.data()), out.ssw);
}

py::tuple covariances(const msem::Vector& sizes, const msem::Vector& counts, const msem::Matrix& means,
                      const Doubles& scatter, const msem::Matrix& ssw, const std::vector<msem::Index>& unit,
                      const std::vector<msem::Index>& cluster) {
  const msem::Index S = sizes.size(), m = means.cols(), p = ssw.rows();
  if (scatter.ndim() != 3 || scatter.shape(0) != S || scatter.shape(1) != m || scatter.shape(2) != m ||
      means.rows() != S || counts.size() != S || ssw.cols() != p)
    throw std::invalid_argument("statistics by size must have the same sizes and variables");
  msem::require_among(unit, p);
  msem::require_among(cluster, m - p);
  msem::TotalCov out;
  {
    py::gil_scoped_release unlocked;
    out = msem::total_cov(sizes, counts, means, scatter.data(), ssw, unit, cluster);
  }
  return py::make_tuple(std::move(out.units), std::move(out.clusters));
}

py::object dependence(const msem::Matrix& scatter, const std::vector<bool>& passing, double least) {
  std::optional<msem::Dependence> found;
  {
    py::gil_scoped_release unlocked;
    found = msem::first_dependence(scatter, passing, least);
  }
  return found ? py::object(py::make_tuple(found->variable, found->others)) : py::none();
}

py::tuple simple(const std::vector<Array>& arrays, py::ssize_t nrows, const Weights& weights) {
  const std::vector<Array> held = aligned(arrays);
  const std::vector<Column> columns = columns_of(held, nrows);
  const double* given = weights_of(weights, nrows);
  msem::SimpleStatistics out;
  {
    py::gil_scoped_release unlocked;
    out = msem::simple_statistics(columns, nrows, given);
  }
  return py::make_tuple(out.mean, out.scatter);
}

using Packed = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Marked = py::array_t<bool, py::array::c_style>;

msem::WeightScale weight_scale(const std::string& name) {
  if (name == "size") return msem::WeightScale::size;
  if (name == "effective") return msem::WeightScale::effective;
  if (name == "none") return msem::WeightScale::none;
  throw std::invalid_argument("weights are scaled to size, effective or none");
}

Packed weights_scaled(const Packed& weights, const std::optional<Codes>& codes, py::ssize_t nclusters,
                      const std::optional<Marked>& counted, const std::string& scale) {
  const py::ssize_t nrows = weights.size();
  if ((codes && codes->size() != nrows) || (counted && counted->size() != nrows))
    throw std::invalid_argument("weights must have one value per row");
  const msem::WeightScale kind = weight_scale(scale);
  Packed out(nrows);
  const std::int64_t* of_rows = codes ? codes->data() : nullptr;
  const bool* chosen = counted ? counted->data() : nullptr;
  double* to = out.mutable_data();
  const double* from = weights.data();
  py::gil_scoped_release unlocked;
  msem::scale_weights(from, nrows, of_rows, nclusters, chosen, kind, to);
  return out;
}

py::tuple totals_of_weights(const Weights& weights, py::ssize_t nrows, const Weights& of_clusters,
                            const std::optional<Codes>& codes) {
  if (of_clusters && (!codes || codes->size() != nrows))
    throw std::invalid_argument("weights of clusters need the cluster of every row");
  const double *own = weights_of(weights, nrows), *level2 = of_clusters ? of_clusters->data() : nullptr;
  const py::ssize_t J = of_clusters ? of_clusters->size() : 0;
  const std::int64_t* of_rows = codes ? codes->data() : nullptr;
  msem::WeightTotals found;
  {
    py::gil_scoped_release unlocked;
    found = msem::weight_totals(own, nrows, level2, of_rows, J);
  }
  return py::make_tuple(found.sum, found.squares);
}

py::tuple range_of_weights(const Packed& weights) {
  const double* given = weights.data();
  const py::ssize_t count = weights.size();
  msem::WeightRange found;
  {
    py::gil_scoped_release unlocked;
    found = msem::weight_range(given, count);
  }
  return py::make_tuple(found.known, found.least, found.greatest);
}

}  // namespace

void bind_statistics(py::module_& m) {
  m.def("two_level_statistics", &two_level, py::arg("unit"), py::arg("cluster"), py::arg("codes"),
        py::arg("nclusters"), "Sufficient statistics of two-level data, by distinct cluster size.");
  m.def("cluster_arrays", &arrays_of_clusters, py::arg("unit"), py::arg("cluster"), py::arg("codes"),
        py::arg("nclusters"), py::arg("weights") = py::none(),
        "Sizes, mean vectors and within-cluster products, one row per cluster.");
  m.def("counted_clusters", &clusters_by_size, py::arg("sizes"), py::arg("means"), py::arg("within"),
        py::arg("p"), py::arg("weights"),
        "Clusters put together by size, each counted by its weight: sizes, counts, means, scatter, ssw.");
  m.def("scaled_weights", &weights_scaled, py::arg("weights"), py::arg("codes"), py::arg("nclusters"),
        py::arg("counted"), py::arg("scale"), "Weights of rows as they enter the likelihood.");
  m.def("weight_range", &range_of_weights, py::arg("weights"),
        "How many weights are not missing, the least and the greatest of them.");
  m.def("weight_totals", &totals_of_weights, py::arg("weights"), py::arg("nrows"), py::arg("of_clusters"),
        py::arg("codes"), "Sum of the weights of rows, times those of their clusters, and of their squares.");
  m.def("simple_statistics", &simple, py::arg("columns"), py::arg("nrows"), py::arg("weights") = py::none(),
        "Mean and sums of squares and products about it.");
  m.def("total_cov", &covariances, py::arg("sizes"), py::arg("counts"), py::arg("means"), py::arg("scatter"),
        py::arg("ssw"), py::arg("unit"), py::arg("cluster"),
        "Covariance matrices over units and over clusters, with divisors N and J.");
  m.def("first_dependence", &dependence, py::arg("scatter"), py::arg("passing"), py::arg("least"),
        "The first variable of which those before it leave a lesser share of its variance, and which of them "
        "determine it; None if there is none.");
}
