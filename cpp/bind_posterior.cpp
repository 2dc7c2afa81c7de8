// Scores of latent variables and distances from the model.
#include "bind_rows.hpp"
#include "posterior.hpp"

using namespace msem;

namespace {

// Shared by all calls about one group: its moments and the statistics of its clusters.
struct GroupData {
  GroupMoments moments;
  ClusterArrays clusters;
};

GroupData make_group(Index p, Index nboth, Index q, const Vector& mean_w, const Matrix& cov_w,
                     const Vector& mean_b, const Matrix& cov_b, const Vector& sizes, const RowMatrix& means,
                     const RowMatrix& within) {
  return {{p, nboth, q, mean_w, mean_b, cov_w, cov_b}, {sizes, means, within}};
}

py::tuple as_tuple(const Scores& scores, Index d) {
  const Index count = scores.cov.cols();
  return py::make_tuple(scores.mean, Array({count, d, d}, scores.cov.data()), scores.size_index);
}

template <class Compute>
py::tuple unlocked(Compute compute) {
  Scores scores;
  {
    py::gil_scoped_release release;
    scores = compute();
  }
  return as_tuple(scores, scores.mean.cols());
}

py::tuple clusters_posterior(const GroupData& group) {
  return unlocked([&] { return cluster_posterior(group.moments, group.clusters); });
}

py::tuple clusters_bartlett(const GroupData& group, const Matrix& loadings, const Matrix& residual) {
  return unlocked([&] { return cluster_bartlett(group.moments, {loadings, residual}, group.clusters); });
}

template <class Compute>
auto with_units(const GroupData& group, const std::vector<Array>& unit, const Codes& codes, Compute compute) {
  return with_rows(unit, {}, codes, group.clusters.sizes.size(), compute);
}

py::tuple units_posterior(const GroupData& group, const std::vector<Array>& unit, const Codes& codes) {
  const Scores scores = with_units(group, unit, codes, [&](const ClusteredRows& rows) {
    return unit_posterior(group.moments, rows, group.clusters);
  });
  return as_tuple(scores, scores.mean.cols());
}

py::tuple units_bartlett(const GroupData& group, const Matrix& loadings, const Matrix& residual,
                         const std::vector<Array>& unit, const Codes& codes) {
  const Scores scores = with_units(group, unit, codes, [&](const ClusteredRows& rows) {
    return unit_bartlett(group.moments, {loadings, residual}, rows, group.clusters);
  });
  return as_tuple(scores, scores.mean.cols());
}

py::tuple clusters_distances(const GroupData& group, const std::vector<Index>& unit_covariates,
                             const std::vector<Index>& cluster_covariates) {
  Distances out;
  {
    py::gil_scoped_release release;
    out = cluster_distances(group.moments, {unit_covariates, cluster_covariates}, group.clusters);
  }
  return py::make_tuple(out.between, out.within);
}

Vector units_distances(const GroupData& group, const std::vector<Index>& unit_covariates,
                       const std::vector<Array>& unit, const Codes& codes) {
  return with_units(group, unit, codes, [&](const ClusteredRows& rows) {
    return unit_distances(group.moments, {unit_covariates, {}}, rows, group.clusters);
  });
}

}  // namespace

void bind_posterior(py::module_& m) {
  using namespace py::literals;
  py::class_<GroupData>(m, "GroupData")
      .def(py::init(&make_group), "p"_a, "nboth"_a, "q"_a, "mean_w"_a, "cov_w"_a, "mean_b"_a, "cov_b"_a,
           "sizes"_a, "means"_a, "within"_a)
      .def("cluster_posterior", &clusters_posterior)
      .def("cluster_bartlett", &clusters_bartlett, "loadings"_a, "residual"_a)
      .def("unit_posterior", &units_posterior, "unit"_a, "codes"_a)
      .def("unit_bartlett", &units_bartlett, "loadings"_a, "residual"_a, "unit"_a, "codes"_a)
      .def("cluster_distances", &clusters_distances, "unit_covariates"_a, "cluster_covariates"_a)
      .def("unit_distances", &units_distances, "unit_covariates"_a, "unit"_a, "codes"_a);
}
