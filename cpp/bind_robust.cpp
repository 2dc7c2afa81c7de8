// Robust inference: what scaled chi-squares need of the saturated model.
#include "bind.hpp"
#include "saturated_trace.hpp"

using namespace msem;

namespace {

double trace(const TwoLevelLoss& loss, const Vector& mean_w, const Matrix& cov_w, const Vector& mean_b,
             const Matrix& cov_b, ConstVectorRef sizes, ConstMatrixRef means, ConstMatrixRef within,
             const std::vector<bool>& fixed, bool with_means, bool expected) {
  const Moments moments{mean_w, mean_b, cov_w, cov_b};
  py::gil_scoped_release release;
  return saturated_trace(loss.data(), moments, ClusterData{sizes, means, within},
                         {fixed, with_means, expected});
}

}  // namespace

void bind_robust(py::module_& m) {
  using namespace py::literals;
  m.def("saturated_trace", &trace, "loss"_a, "mean_w"_a, "cov_w"_a, "mean_b"_a, "cov_b"_a, "sizes"_a,
        "means"_a, "within"_a, "fixed"_a, "with_means"_a = true, "expected"_a = false);
}
