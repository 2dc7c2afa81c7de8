// Robust inference: what scaled chi-squares need of the saturated model.
#include "bind/bind.hpp"
#include "bind/shapes.hpp"
#include "likelihood/complete/cluster_products.hpp"
#include "likelihood/complete/trace.hpp"

using namespace msem;

namespace {

double trace(const CompleteClusters& clusters, const Vector& mean_w, const Matrix& cov_w,
             const Vector& mean_b, const Matrix& cov_b, const std::vector<bool>& fixed, bool with_means,
             bool expected) {
  const Moments moments{mean_w, mean_b, cov_w, cov_b};
  const TwoLevelData& data = clusters.whole().data();
  require_moments(moments, data.p, data.nboth, data.q);
  py::gil_scoped_release release;
  return saturated_trace(data, moments, clusters.data(), {fixed, with_means, expected});
}

py::tuple products_of_clusters(ConstVectorRef sizes, ConstMatrixRef means, ConstMatrixRef within,
                               const Vector& origin, const Vector& scale, const Vector& weights) {
  ClusterProducts out;
  {
    py::gil_scoped_release release;
    out = cluster_products(ClusterData{sizes, means, within}, origin, scale, weights);
  }
  return py::make_tuple(out.sizes, out.sums);
}

}  // namespace

void bind_robust(py::module_& m) {
  using namespace py::literals;
  m.def("saturated_trace", &trace, "clusters"_a, "mean_w"_a, "cov_w"_a, "mean_b"_a, "cov_b"_a, "fixed"_a,
        "with_means"_a = true, "expected"_a = false);
  m.def("cluster_products", &products_of_clusters, "sizes"_a, "means"_a, "within"_a, "origin"_a, "scale"_a,
        "weights"_a);
}
