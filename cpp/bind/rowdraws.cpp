// Samples drawn unit by unit.
#include "draws/rowdraws.hpp"

#include "bind/bind.hpp"

using namespace msem;

namespace {

// mean, root, polynomial, scale, df
using LawTuple = std::tuple<Vector, Matrix, Matrix, Vector, double>;
// sizes, nboth, within, between, covariate and effects of each slope
using PopulationTuple =
    std::tuple<std::vector<Index>, Index, LawTuple, LawTuple, std::vector<std::pair<Index, Vector>>>;

LevelLaw law_of(const LawTuple& given) {
  const auto& [mean, root, polynomial, scale, df] = given;
  return {mean, root, polynomial, scale, df};
}

std::shared_ptr<RowDraws> make_row_draws(const std::vector<PopulationTuple>& groups, std::uint64_t seed) {
  std::vector<RowPopulation> out;
  for (const auto& [sizes, nboth, within, between, slopes] : groups) {
    out.push_back({sizes, nboth, law_of(within), law_of(between)});
    for (const auto& [covariate, effects] : slopes) out.back().slopes.push_back({covariate, effects});
  }
  return std::make_shared<RowDraws>(std::move(out), seed);
}

py::tuple rows(const RowDraws& self, std::uint64_t replicate, Index group) {
  DrawnRows drawn;
  {
    py::gil_scoped_release unlocked;
    drawn = self.rows(replicate, group);
  }
  return py::make_tuple(drawn.unit, drawn.cluster);
}

// clusters of the units, laws of these and of either classification, variables of units that its first ones
// are
using CrossedPopulationTuple = std::tuple<std::array<std::vector<Index>, 2>, LawTuple, LawTuple, LawTuple,
                                          std::array<std::vector<Index>, 2>>;

std::shared_ptr<CrossedRowDraws> make_crossed_rows(const std::vector<CrossedPopulationTuple>& groups,
                                                   std::uint64_t seed) {
  std::vector<CrossedPopulation> out;
  for (const auto& [of, units, first, second, open] : groups)
    out.push_back({of, law_of(units), {law_of(first), law_of(second)}, open});
  return std::make_shared<CrossedRowDraws>(std::move(out), seed);
}

py::tuple crossed_rows(const CrossedRowDraws& self, std::uint64_t replicate, Index group) {
  std::array<Matrix, 3> drawn;
  {
    py::gil_scoped_release unlocked;
    drawn = self.rows(replicate, group);
  }
  return py::make_tuple(drawn[0], drawn[1], drawn[2]);
}

}  // namespace

void bind_rowdraws(py::module_& m) {
  using namespace py::literals;
  py::class_<RowDraws, Draws, std::shared_ptr<RowDraws>>(m, "RowDraws")
      .def(py::init(&make_row_draws), "groups"_a, "seed"_a)
      .def("rows", &rows, "replicate"_a, "group"_a = 0);
  py::class_<CrossedRowDraws, std::shared_ptr<CrossedRowDraws>>(m, "CrossedRowDraws")
      .def(py::init(&make_crossed_rows), "groups"_a, "seed"_a)
      .def("rows", &crossed_rows, "replicate"_a, "group"_a = 0);
}
