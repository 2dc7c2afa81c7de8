// Replicate samples.
#include <variant>

#include "bind/bind.hpp"
#include "bind/shapes.hpp"
#include "draws/draws.hpp"

using namespace msem;

namespace {

using Clusters =
    std::variant<std::tuple<Vector, Matrix, Matrix>, std::shared_ptr<IncompletePool>,
                 std::shared_ptr<SlopePool>, std::shared_ptr<IntegratedPool>, std::shared_ptr<NestedPool>>;

Pools pools(const std::vector<Clusters>& groups, bool single_level, bool centred) {
  py::gil_scoped_release unlocked;
  Pools out;
  for (const Clusters& one : groups) {
    const auto made = [&](const auto& own) -> std::shared_ptr<const Pool> {
      if constexpr (std::is_convertible_v<decltype(own), std::shared_ptr<const Pool>>) {
        return own;
      } else {
        const auto& [sizes, means, within] = own;
        return std::make_shared<ClusterPool>(ClusterData{sizes, means, within},
                                             PoolForm{single_level, centred});
      }
    };
    out.push_back(std::visit(made, one));
  }
  return out;
}

std::shared_ptr<OrdinaryDraws> make_ordinary(const std::vector<Clusters>& groups, std::uint64_t seed,
                                             bool single_level, bool centred) {
  return std::make_shared<OrdinaryDraws>(pools(groups, single_level, centred), seed);
}

std::shared_ptr<LeaveOneOut> make_leave_one_out(const std::vector<Clusters>& groups, bool single_level,
                                                bool centred) {
  return std::make_shared<LeaveOneOut>(pools(groups, single_level, centred));
}

Design make_design(const py::dict& given) {
  Design out;
  out.observed.sizes = given["sizes"].cast<Vector>();
  out.observed.counts = given["counts"].cast<Vector>();
  out.observed.means = given["means"].cast<RowMatrix>();
  out.observed.ssw = given["ssw"].cast<Matrix>();
  const auto scatter = given["scatter"].cast<Doubles>();
  out.observed.scatter.assign(scatter.data(), scatter.data() + scatter.size());
  out.moments = implied_levels(given["moments"].cast<LevelPairs>());
  out.covariate = given["covariate"].cast<std::vector<Index>>();
  out.centred = given["centred"].cast<bool>();
  const TwoLevelStatistics& s = out.observed;
  const Index m = s.means.cols(), count = s.sizes.size();
  require_among(out.covariate, m);
  if (!square(s.ssw, s.ssw.rows()) || s.ssw.rows() > m || s.counts.size() != count ||
      s.means.rows() != count || static_cast<Index>(s.scatter.size()) != count * m * m ||
      !(s.sizes.array() >= 1).all() || !(s.counts.array() >= 1).all())
    throw std::invalid_argument("the statistics of a design have inconsistent shapes");
  return out;
}

std::shared_ptr<ParametricDraws> make_parametric(const std::vector<py::dict>& groups, std::uint64_t seed) {
  std::vector<Design> designs;
  for (const py::dict& given : groups) designs.push_back(make_design(given));
  return std::make_shared<ParametricDraws>(std::move(designs), seed);
}

// data, moments by level, positions of fixed variables by level
template <class Data>
using DesignTuple = std::tuple<std::shared_ptr<Data>, LevelPairs, std::vector<std::vector<Index>>>;

template <class Made, class Data>
std::shared_ptr<Made> make_parametric_levels(const std::vector<DesignTuple<Data>>& groups,
                                             std::uint64_t seed) {
  std::vector<LevelsDesign<Data>> designs;
  for (const auto& [data, moments, fixed] : groups) {
    if (!data) throw std::invalid_argument("a design has no data");
    Implied levels = implied_levels(moments);
    if (levels.empty() || fixed.size() != levels.size())
      throw std::invalid_argument("a design has moments and covariates of each level");
    for (std::size_t l = 0; l < fixed.size(); ++l) require_among(fixed[l], levels[l].mean.size());
    designs.push_back({data, std::move(levels), fixed});
  }
  return std::make_shared<Made>(std::move(designs), seed);
}

// The data of a group for Python: a dict of statistics, or an object of the core.
struct AsObject {
  py::object operator()(const TwoLevelStatistics& s) const {
    const py::ssize_t S = s.means.rows(), m = s.means.cols();
    py::dict group;
    group["sizes"] = s.sizes;
    group["counts"] = s.counts;
    group["means"] = s.means;
    group["scatter"] = Doubles({S, m, m}, s.scatter.data());
    group["ssw"] = s.ssw;
    return group;
  }
  template <class Data>
  py::object operator()(const std::shared_ptr<const Data>& data) const {
    return py::cast(std::const_pointer_cast<Data>(data));
  }
};

py::list statistics(const Draws& self, std::uint64_t replicate) {
  std::vector<GroupDraw> drawn;
  {
    py::gil_scoped_release unlocked;
    drawn = self.draw(replicate);
  }
  py::list out;
  for (const GroupDraw& one : drawn) out.append(std::visit(AsObject(), one.data));
  return out;
}

}  // namespace

void bind_resampling(py::module_& m) {
  using namespace py::literals;
  py::class_<Draws, std::shared_ptr<Draws>>(m, "Draws").def("statistics", &statistics, "replicate"_a);
  py::class_<IncompletePool, std::shared_ptr<IncompletePool>>(m, "IncompletePool")
      .def(py::init([](std::shared_ptr<IncompleteData> data, Matrix products, std::vector<Index> unit) {
             return std::make_shared<IncompletePool>(std::move(data), std::move(products), std::move(unit));
           }),
           "data"_a, "products"_a, "unit"_a);
  py::class_<NestedPool, std::shared_ptr<NestedPool>>(m, "NestedPool")
      .def(py::init([](std::shared_ptr<NestedData> data, std::vector<Index> place) {
             return std::make_shared<NestedPool>(std::move(data), std::move(place));
           }),
           "data"_a, "place"_a);
  py::class_<SlopePool, std::shared_ptr<SlopePool>>(m, "SlopePool")
      .def(py::init([](std::shared_ptr<ReducedData> data, Matrix products, std::vector<Index> place) {
             return std::make_shared<SlopePool>(std::move(data), std::move(products), std::move(place));
           }),
           "data"_a, "products"_a, "place"_a);
  py::class_<IntegratedPool, std::shared_ptr<IntegratedPool>>(m, "IntegratedPool")
      .def(py::init([](std::shared_ptr<SlopeClusterData> data, std::vector<Index> place) {
             return std::make_shared<IntegratedPool>(std::move(data), std::move(place));
           }),
           "data"_a, "place"_a);
  py::class_<OrdinaryDraws, Draws, std::shared_ptr<OrdinaryDraws>>(m, "OrdinaryDraws")
      .def(py::init(&make_ordinary), "groups"_a, "seed"_a, "single_level"_a = false, "centred"_a = false)
      .def("weights", &OrdinaryDraws::weights, "replicate"_a, "group"_a);
  py::class_<LeaveOneOut, Draws, std::shared_ptr<LeaveOneOut>>(m, "LeaveOneOut")
      .def(py::init(&make_leave_one_out), "groups"_a, "single_level"_a = false, "centred"_a = false);
  py::class_<ParametricDraws, Draws, std::shared_ptr<ParametricDraws>>(m, "ParametricDraws")
      .def(py::init(&make_parametric), "groups"_a, "seed"_a);
  py::class_<CrossedParametricDraws, Draws, std::shared_ptr<CrossedParametricDraws>>(m,
                                                                                     "CrossedParametricDraws")
      .def(py::init(&make_parametric_levels<CrossedParametricDraws, CrossedData>), "groups"_a, "seed"_a);
  py::class_<NestedParametricDraws, Draws, std::shared_ptr<NestedParametricDraws>>(m, "NestedParametricDraws")
      .def(py::init(&make_parametric_levels<NestedParametricDraws, NestedData>), "groups"_a, "seed"_a);
  py::class_<IncompleteParametricDraws, Draws, std::shared_ptr<IncompleteParametricDraws>>(
      m, "IncompleteParametricDraws")
      .def(py::init(&make_parametric_levels<IncompleteParametricDraws, IncompleteData>), "groups"_a,
           "seed"_a);
  py::class_<SlopeParametricDraws, Draws, std::shared_ptr<SlopeParametricDraws>>(m, "SlopeParametricDraws")
      .def(py::init(&make_parametric_levels<SlopeParametricDraws, ReducedData>), "groups"_a, "seed"_a);
  py::class_<IntegratedParametricDraws, Draws, std::shared_ptr<IntegratedParametricDraws>>(
      m, "IntegratedParametricDraws")
      .def(py::init(&make_parametric_levels<IntegratedParametricDraws, SlopeClusterData>), "groups"_a,
           "seed"_a);
  m.def("philox", &philox, "counter"_a, "key"_a, "Philox4x32-10 of a counter under a key.");
}
