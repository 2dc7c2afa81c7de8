// Rotation of loadings.
#include "after/rotation.hpp"

#include "bind/bind.hpp"

using namespace msem;

namespace {

void require_square(const Matrix& correlations, const Matrix& loadings) {
  if (correlations.rows() != loadings.cols() || correlations.cols() != loadings.cols())
    throw std::invalid_argument("there is one correlation for each pair of factors");
}

py::list minima(const Matrix& unrotated, const RotationCriterion& criterion, bool orthogonal, int starts,
                std::uint64_t seed) {
  std::vector<RotationMinimum> found;
  {
    py::gil_scoped_release release;
    found = rotate(unrotated, criterion, {orthogonal, starts, seed});
  }
  py::list out;
  for (const RotationMinimum& one : found) {
    const double distance = loading_distance(found.front().loadings, one.loadings);
    out.append(
        py::make_tuple(one.transformation, one.loadings, one.value, one.count, one.converged, distance));
  }
  return out;
}

}  // namespace

void bind_rotation(py::module_& m) {
  using namespace py::literals;
  using Kind = RotationCriterion::Kind;
  py::class_<RotationCriterion>(m, "RotationCriterion")
      .def_static(
          "quartic",
          [](double own, double column, double row, double total) {
            RotationCriterion out;
            out.kind = Kind::kQuartic;
            out.own = own, out.column = column, out.row = row, out.total = total;
            return out;
          },
          "own"_a, "column"_a, "row"_a, "total"_a)
      .def_static(
          "geomin",
          [](double epsilon) {
            RotationCriterion out;
            out.epsilon = epsilon;
            return out;
          },
          "epsilon"_a)
      .def_static(
          "partial_target",
          [](const Matrix& target, const Matrix& mask) {
            RotationCriterion out;
            out.kind = Kind::kTarget;
            out.target = target, out.mask = mask;
            return out;
          },
          "target"_a, "mask"_a)
      .def(
          "evaluate",
          [](const RotationCriterion& self, const Matrix& loadings) {
            self.check(loadings.rows(), loadings.cols());
            Matrix gradient(loadings.rows(), loadings.cols());
            const double value = self.evaluate(loadings, gradient);
            return py::make_tuple(value, gradient);
          },
          "loadings"_a)
      .def(
          "rotate",
          [](const RotationCriterion& self, const Matrix& unrotated, bool orthogonal, int starts,
             std::uint64_t seed) { return minima(unrotated, self, orthogonal, starts, seed); },
          "unrotated"_a, "orthogonal"_a, "starts"_a, "seed"_a)
      .def(
          "conditions",
          [](const RotationCriterion& self, const Matrix& loadings, const Matrix& correlations,
             bool orthogonal) {
            self.check(loadings.rows(), loadings.cols());
            require_square(correlations, loadings);
            const RotationConditions out = rotation_conditions(self, loadings, correlations, orthogonal);
            return py::make_tuple(out.values, out.jacobian);
          },
          "loadings"_a, "correlations"_a, "orthogonal"_a);
}
