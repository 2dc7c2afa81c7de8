// Fits of one model to many samples.
#include "fit/manyfits.hpp"

#include "bind/bind.hpp"
#include "bind/draws.hpp"
#include "draws/samples.hpp"

using namespace msem;

namespace {

// relation, lhs, rhs, parameter, value, start
using RowTuple = std::tuple<int, int, int, int, double, double>;
using CovariateTuple = std::pair<std::vector<Index>, std::vector<Index>>;

std::vector<std::vector<StartRow>> start_rows(const std::vector<std::vector<RowTuple>>& blocks) {
  std::vector<std::vector<StartRow>> out;
  for (const auto& rows : blocks) {
    out.emplace_back();
    for (const auto& [relation, lhs, rhs, parameter, value, start] : rows) {
      if (relation < 0 || relation > 3) throw std::invalid_argument("a relation is 0, 1, 2 or 3");
      out.back().push_back({static_cast<Relation>(relation), lhs, rhs, parameter, value, start});
    }
  }
  return out;
}

std::shared_ptr<ManyFitter> make_fitter(const Objective& model,
                                        const std::vector<std::vector<RowTuple>>& rows, const Vector& lower,
                                        const Vector& upper, std::vector<std::vector<int>> filled,
                                        const std::vector<CovariateTuple>& covariates,
                                        const Expressions& defined, int max_iterations, double tolerance,
                                        bool observed, bool errors) {
  std::vector<ManyFitter::Covariates> known;
  for (const auto& [within, between] : covariates) known.push_back({within, between});
  return std::make_shared<ManyFitter>(model, StartPlan(model, start_rows(rows), lower, upper), lower, upper,
                                      std::move(filled), std::move(known), defined,
                                      ManyFitsOptions{max_iterations, tolerance, observed, errors});
}

std::shared_ptr<GivenSamples> make_given(const std::vector<std::vector<StatisticsTuple>>& samples) {
  std::vector<std::vector<TwoLevelStatistics>> out;
  for (const auto& groups : samples) {
    out.emplace_back();
    for (const StatisticsTuple& one : groups) out.back().push_back(statistics_of(one));
  }
  return std::make_shared<GivenSamples>(std::move(out));
}

py::dict run(const ManyFitter& fitter, const Draws& draws, std::uint64_t first, std::uint64_t last,
             int threads) {
  const Index count = last > first ? static_cast<Index>(last - first) : 0;
  RowMatrix theta(count, fitter.npar()), se(count, fitter.npar());
  RowMatrix defined(count, fitter.ndefined()), defined_se(count, fitter.ndefined());
  Vector value(count), saturated(count), covariates(count);
  std::vector<int> verdict(count), iterations(count);
  std::vector<std::string> problem(count);
  {
    py::gil_scoped_release unlocked;
    const std::vector<OneFit> fits = fit_many(fitter, draws, first, last, threads);
    for (Index r = 0; r < count; ++r) {
      const OneFit& one = fits[r];
      theta.row(r) = one.theta;
      se.row(r) = one.se;
      defined.row(r) = one.defined;
      defined_se.row(r) = one.defined_se;
      value[r] = one.value;
      saturated[r] = one.saturated;
      covariates[r] = one.covariates;
      verdict[r] = static_cast<int>(one.verdict);
      iterations[r] = one.iterations;
      problem[r] = one.problem;
    }
  }
  py::dict out;
  out["theta"] = theta;
  out["se"] = se;
  out["defined"] = defined;
  out["defined_se"] = defined_se;
  out["value"] = value;
  out["saturated"] = saturated;
  out["covariates"] = covariates;
  out["verdict"] = verdict;
  out["iterations"] = iterations;
  out["problem"] = problem;
  return out;
}

}  // namespace

void bind_manyfits(py::module_& m) {
  using namespace py::literals;
  py::class_<GivenSamples, Draws, std::shared_ptr<GivenSamples>>(m, "GivenSamples")
      .def(py::init(&make_given), "samples"_a);
  py::class_<SelectedDraws, Draws, std::shared_ptr<SelectedDraws>>(m, "SelectedDraws")
      .def(py::init<std::shared_ptr<const Draws>, std::vector<Index>, std::vector<Index>, bool>(), "draws"_a,
           "unit"_a, "all"_a, "centred"_a = false);
  py::class_<ManyFitter, std::shared_ptr<ManyFitter>>(m, "ManyFitter")
      .def(py::init(&make_fitter), "model"_a, "rows"_a, "lower"_a, "upper"_a, "filled"_a, "covariates"_a,
           "defined"_a, "max_iterations"_a = 60, "tolerance"_a = 1e-12, "observed"_a = true,
           "errors"_a = true)
      .def("fit", &run, "draws"_a, "first"_a, "last"_a, "threads"_a = 1);
}
