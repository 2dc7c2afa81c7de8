// Samples drawn unit by unit.
#include "draws/rowdraws.hpp"

#include "bind/bind.hpp"

using namespace msem;

namespace {

// mean, root, polynomial, scale, df
using LawTuple = std::tuple<Vector, Matrix, Matrix, Vector, double>;
// law, variables, clusters of the units; slope, covariate and effects of each product
using LevelTuple = std::tuple<LawTuple, std::vector<Index>, std::vector<Index>,
                              std::vector<std::tuple<Index, Index, Vector>>>;
// levels, the level that each observed variable is measured on; variable, thresholds and logistic scale of
// each ordered one; what is added to what is drawn
using PopulationTuple = std::tuple<std::vector<LevelTuple>, std::vector<Index>,
                                   std::vector<std::tuple<Index, Vector, double>>, std::vector<Matrix>>;

LevelLaw law_of(const LawTuple& given) {
  const auto& [mean, root, polynomial, scale, df] = given;
  return {mean, root, polynomial, scale, df};
}

std::shared_ptr<RowDraws> make_row_draws(const std::vector<PopulationTuple>& groups, std::uint64_t seed) {
  std::vector<RowPopulation> out;
  for (const auto& [levels, measured, cuts, given] : groups) {
    out.push_back({{}, measured, {}, given});
    for (const auto& [variable, thresholds, logistic] : cuts)
      out.back().cuts.push_back({variable, thresholds, logistic});
    for (const auto& [law, variables, of, slopes] : levels) {
      out.back().levels.push_back({law_of(law), variables, of});
      for (const auto& [slope, covariate, effects] : slopes)
        out.back().levels.back().slopes.push_back({slope, covariate, effects});
    }
  }
  return std::make_shared<RowDraws>(std::move(out), seed);
}

std::vector<Matrix> rows(const RowDraws& self, std::uint64_t replicate, Index group) {
  const py::gil_scoped_release unlocked;
  return self.rows(replicate, group);
}

}  // namespace

void bind_rowdraws(py::module_& m) {
  using namespace py::literals;
  py::class_<RowDraws, Draws, std::shared_ptr<RowDraws>>(m, "RowDraws")
      .def(py::init(&make_row_draws), "groups"_a, "seed"_a)
      .def("rows", &rows, "replicate"_a, "group"_a = 0);
}
