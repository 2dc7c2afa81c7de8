// Scores of latent variables and distances from the model.
#include "after/posterior.hpp"

#include "after/posterior_cells.hpp"
#include "bind/rows.hpp"
#include "bind/shapes.hpp"

using namespace msem;

namespace {

// Shared by all calls about one group: its moments and the statistics of its clusters.
struct GroupData {
  GroupMoments moments;
  ClusterArrays clusters;
};

// Of how many variables: measured on units, at both levels, measured on clusters.
using Shape = std::array<Index, 3>;

GroupData make_group(const Shape& shape, const LevelPairs& levels, const Vector& sizes,
                     const RowMatrix& means, const RowMatrix& within) {
  const auto [p, both, q] = shape;
  const Index count = sizes.size();
  if (means.rows() != count || means.cols() != p + q || within.rows() != count ||
      within.cols() != p * (p + 1) / 2)
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  return {group_moments(p, both, q, implied_levels(levels)), {sizes, means, within}};
}

// The same for data with holes.
struct IncompleteGroup {
  GroupMoments moments;
  std::shared_ptr<const IncompleteData> data;
  Matrix products;
};

IncompleteGroup make_incomplete(const LevelPairs& levels, const std::shared_ptr<IncompleteData>& data,
                                const Matrix& products) {
  if (!data || products.cols() != data->ncells() || products.rows() != data->p * (data->p + 1) / 2)
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  return {group_moments(*data, implied_levels(levels)), data, products};
}

const ClusterArrays& given_clusters(const GroupData& group) { return group.clusters; }
const IncompleteData& given_clusters(const IncompleteGroup& group) { return *group.data; }
Index count_of(const GroupData& group) { return group.clusters.sizes.size(); }
Index count_of(const IncompleteGroup& group) { return group.data->nclusters(); }
Distances distances_of(const GroupData& group, const Covariates& covariates) {
  return cluster_distances(group.moments, covariates, group.clusters);
}
Distances distances_of(const IncompleteGroup& group, const Covariates& covariates) {
  return cluster_distances(group.moments, covariates, *group.data, group.products);
}

py::tuple as_tuple(const Scores& scores) {
  const Index count = scores.cov.cols(), d = scores.mean.cols();
  const py::array_t<Index> which(static_cast<py::ssize_t>(scores.which.size()), scores.which.data());
  return py::make_tuple(scores.mean, Array({count, d, d}, scores.cov.data()), which);
}

template <class Compute>
auto unlocked(Compute compute) {
  const py::gil_scoped_release release;
  return compute();
}

template <class Group>
py::tuple clusters_posterior(const Group& group) {
  return as_tuple(unlocked([&] { return cluster_posterior(group.moments, given_clusters(group)); }));
}

template <class Group>
py::tuple clusters_bartlett(const Group& group, const Matrix& loadings, const Matrix& residual) {
  return as_tuple(
      unlocked([&] { return cluster_bartlett(group.moments, {loadings, residual}, given_clusters(group)); }));
}

template <class Group, class Compute>
auto with_units(const Group& group, const std::vector<Array>& unit, const Codes& codes, Compute compute) {
  return with_rows(unit, {}, codes, count_of(group), compute);
}

template <class Group>
py::tuple units_posterior(const Group& group, const std::vector<Array>& unit, const Codes& codes) {
  return as_tuple(with_units(group, unit, codes, [&](const ClusteredRows& rows) {
    return unit_posterior(group.moments, rows, given_clusters(group));
  }));
}

template <class Group>
py::tuple units_bartlett(const Group& group, const Matrix& loadings, const Matrix& residual,
                         const std::vector<Array>& unit, const Codes& codes) {
  return as_tuple(with_units(group, unit, codes, [&](const ClusteredRows& rows) {
    return unit_bartlett(group.moments, {loadings, residual}, rows, given_clusters(group));
  }));
}

template <class Group>
py::tuple clusters_distances(const Group& group, const std::vector<Index>& unit_covariates,
                             const std::vector<Index>& cluster_covariates) {
  const Distances out = unlocked([&] { return distances_of(group, {unit_covariates, cluster_covariates}); });
  return py::make_tuple(out.between, out.within, out.between_df, out.within_df);
}

template <class Group>
py::tuple units_distances(const Group& group, const std::vector<Index>& unit_covariates,
                          const std::vector<Array>& unit, const Codes& codes) {
  const UnitDistances out = with_units(group, unit, codes, [&](const ClusteredRows& rows) {
    return unit_distances(group.moments, {unit_covariates, {}}, rows, given_clusters(group));
  });
  return py::make_tuple(out.distance, out.df);
}

template <class Group>
void add_methods(py::class_<Group>& group) {
  using namespace py::literals;
  group.def("cluster_posterior", &clusters_posterior<Group>)
      .def("cluster_bartlett", &clusters_bartlett<Group>, "loadings"_a, "residual"_a)
      .def("unit_posterior", &units_posterior<Group>, "unit"_a, "codes"_a)
      .def("unit_bartlett", &units_bartlett<Group>, "loadings"_a, "residual"_a, "unit"_a, "codes"_a)
      .def("cluster_distances", &clusters_distances<Group>, "unit_covariates"_a, "cluster_covariates"_a)
      .def("unit_distances", &units_distances<Group>, "unit_covariates"_a, "unit"_a, "codes"_a);
}

}  // namespace

void bind_posterior(py::module_& m) {
  using namespace py::literals;
  py::class_<GroupData> complete(m, "GroupData");
  complete.def(py::init(&make_group), "shape"_a, "moments"_a, "sizes"_a, "means"_a, "within"_a);
  add_methods(complete);
  py::class_<IncompleteGroup> incomplete(m, "IncompleteGroup");
  incomplete.def(py::init(&make_incomplete), "moments"_a, "data"_a, "products"_a);
  add_methods(incomplete);
}
