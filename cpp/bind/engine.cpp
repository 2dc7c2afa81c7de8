// Plans of models, and fits by them.
#include "fit/engine.hpp"

#include "base/threads.hpp"
#include "bind/bind.hpp"
#include "bind/draws.hpp"
#include "bind/optimum.hpp"
#include "bind/shapes.hpp"
#include "draws/samples.hpp"
#include "fit/penalty.hpp"
#include "fit/table.hpp"

using namespace msem;

namespace {

// blocks by level, variables of level 1 that have a part at a higher one, covariates by level
using LevelsTuple = std::tuple<std::vector<int>, Index, std::vector<std::vector<Index>>>;

std::shared_ptr<Plan> make_plan(int npar, const std::vector<std::shared_ptr<TableBlock>>& given,
                                const std::vector<LevelsTuple>& levels, const Constraints* constraints,
                                const Expressions* defined,
                                const std::vector<std::shared_ptr<VariancePenalty>>& penalties) {
  Vector lower = Vector::Constant(npar, -std::numeric_limits<double>::infinity()), upper = -lower;
  std::vector<Block> blocks;
  std::vector<std::vector<StartRow>> rows;
  std::vector<std::vector<int>> filled;
  std::vector<std::vector<Index>> judged;
  for (const auto& own : given) {
    blocks.push_back(own->block());
    rows.push_back(own->start());
    filled.push_back(own->filled());
    judged.push_back(own->judged());
    // rows that share a parameter have the tightest bounds of them
    for (const TableBlock::Bound& b : own->bounds()) {
      if (b.parameter >= npar) throw std::invalid_argument("a parameter is beyond npar");
      lower[b.parameter] = std::max(lower[b.parameter], b.lower);
      upper[b.parameter] = std::min(upper[b.parameter], b.upper);
    }
  }
  std::vector<std::vector<int>> groups;
  std::vector<std::vector<std::vector<Index>>> covariates;
  std::vector<Index> shared;
  for (const auto& [own, above, given_variables] : levels) {
    for (const int b : own) {
      if (b < 0 || b >= static_cast<int>(blocks.size()))
        throw std::invalid_argument("a group has a block for each level");
    }
    groups.push_back(own);
    shared.push_back(above);
    covariates.push_back(given_variables);
  }
  StartPlan start(npar, blocks, std::move(rows), lower, upper);
  auto out = std::make_shared<Plan>(
      Plan{npar, std::move(blocks), std::move(groups), std::move(shared), std::move(start), std::move(lower),
           std::move(upper), constraints ? *constraints : Constraints{},
           defined ? *defined : Expressions(npar, {}), std::move(filled), std::move(covariates),
           std::move(judged), Terms(penalties.begin(), penalties.end())});
  out->check();
  return out;
}

std::vector<Implied> implied_groups(const std::vector<LevelPairs>& groups) {
  std::vector<Implied> out;
  for (const LevelPairs& levels : groups) out.push_back(implied_levels(levels));
  return out;
}

SampleLikelihood known(const std::vector<LevelPairs>& saturated, double value, bool cone = false) {
  SampleLikelihood out;
  out.saturated_value = value;
  out.cone = cone;
  out.saturated = implied_groups(saturated);
  return out;
}

Space space_of(int number) {
  if (number < 0 || number > 2) throw std::invalid_argument("a space is 0, 1 or 2");
  return static_cast<Space>(number);
}

py::dict run_estimate(const Plan& plan, const Objective& objective, const std::vector<LevelPairs>& saturated,
                      double saturated_value, int max_iterations, double tolerance,
                      std::vector<bool> saturated_blocks, int space, int starts, bool cone,
                      const Vector& first) {
  Optimum best;
  {
    py::gil_scoped_release release;
    FitOptions options;
    options.space = space_of(space);
    options.starts = starts;
    options.max_iterations = max_iterations;
    options.tolerance = tolerance;
    options.saturated = std::move(saturated_blocks);
    options.known = first;
    best = estimate(plan, objective, known(saturated, saturated_value, cone), options);
    if (best.point) objective.keep(best.theta, best.point);
  }
  return optimum_dict(best);
}

std::vector<Vector> run_starts(const Plan& plan, const Objective& objective,
                               const std::vector<LevelPairs>& saturated, double saturated_value) {
  py::gil_scoped_release release;
  return all_starts(plan, objective, known(saturated, saturated_value));
}

py::list improper_list(const std::vector<Impropriety>& all) {
  py::list out;
  for (const Impropriety& one : all)
    out.append(py::make_tuple(one.block, one.negative, static_cast<int>(one.indefinite)));
  return out;
}

py::list run_improper(const Plan& plan, const Objective& objective, const Vector& theta) {
  std::vector<Impropriety> found;
  {
    py::gil_scoped_release release;
    found = improprieties(plan, objective, theta);
  }
  return improper_list(found);
}

template <class Row>
void set_row(RowMatrix& to, Index r, const Row& from) {
  if (from.size()) {
    to.row(r) = from;
  } else {
    to.row(r).setConstant(std::numeric_limits<double>::quiet_NaN());
  }
}

py::dict run_fit(const Plan& plan, const Draws& draws, std::uint64_t first, std::uint64_t last, int threads,
                 int max_iterations, double tolerance, int errors, const std::vector<LevelPairs>& saturated,
                 int space, int starts) {
  if (errors < 0 || errors > 2) throw std::invalid_argument("errors are 0, 1 or 2");
  const Index count = last > first ? static_cast<Index>(last - first) : 0, k = plan.defined.size();
  RowMatrix theta(count, plan.npar), se(count, plan.npar), defined(count, k), defined_se(count, k);
  Vector value(count), unrestricted(count), covariates(count);
  std::vector<int> verdict(count), stop(count), iterations(count);
  std::vector<std::string> problem(count);
  std::vector<bool> few(count);
  std::vector<std::vector<int>> named(count);
  {
    py::gil_scoped_release unlocked;
    const ThreadLimit limit(threads);
    const FitOptions options{max_iterations,  tolerance, static_cast<ErrorKind>(errors), {},
                             space_of(space), starts};
    const std::vector<Solution> fits =
        fit_many(plan, draws, options, first, last, threads, implied_groups(saturated));
    const Vector none;
    for (Index r = 0; r < count; ++r) {
      const Solution& one = fits[r];
      const bool some = one.verdict < Verdict::kNotConverged;
      set_row(theta, r, some ? one.optimum.theta : none);
      set_row(se, r, some ? Vector(one.sampling.vcov.diagonal().cwiseSqrt()) : none);
      set_row(defined, r, some ? one.defined : none);
      set_row(defined_se, r, some ? one.defined_se : none);
      value[r] = some ? one.optimum.value : std::numeric_limits<double>::quiet_NaN();
      unrestricted[r] = one.saturated_value;
      covariates[r] = one.covariate_value;
      verdict[r] = static_cast<int>(one.verdict);
      stop[r] = static_cast<int>(one.optimum.stop);
      iterations[r] = static_cast<int>(one.optimum.iterations.size());
      problem[r] = one.problem;
      few[r] = one.few_clusters;
      named[r] = some ? one.sampling.unidentified : one.flat;
    }
  }
  py::dict out;
  out["theta"] = theta;
  out["se"] = se;
  out["defined"] = defined;
  out["defined_se"] = defined_se;
  out["value"] = value;
  out["saturated"] = unrestricted;
  out["covariates"] = covariates;
  out["verdict"] = verdict;
  out["stop"] = stop;
  out["iterations"] = iterations;
  out["problem"] = problem;
  out["few_clusters"] = few;
  out["named"] = named;
  return out;
}

std::shared_ptr<GivenSamples> make_given(const std::vector<StackedTuple>& groups) {
  std::vector<std::vector<TwoLevelStatistics>> out;
  for (const StackedTuple& one : groups) out.push_back(stacked_statistics(one));
  return std::make_shared<GivenSamples>(std::move(out));
}

Constraints none_or(const Constraints* given) { return given ? *given : Constraints{}; }

py::tuple run_covariance(const Objective& objective, const Vector& theta, const Matrix& free, int errors,
                         const Constraints* constraints) {
  SamplingCovariance found;
  {
    py::gil_scoped_release release;
    found = sampling_covariance(objective, none_or(constraints), theta, free, static_cast<ErrorKind>(errors));
  }
  return py::make_tuple(found.vcov, found.unidentified, found.positive_definite);
}

py::tuple run_inverse(const Objective& objective, const Vector& theta, const Matrix& free, int errors,
                      const Constraints* constraints) {
  InverseInformation found;
  {
    py::gil_scoped_release release;
    found = inverse_information(objective, none_or(constraints), theta, free, static_cast<ErrorKind>(errors));
  }
  return py::make_tuple(found.basis, found.inverse, found.unidentified, found.immovable,
                        found.positive_definite);
}

}  // namespace

void bind_engine(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<GivenSamples, Draws, std::shared_ptr<GivenSamples>>(m, "GivenSamples")
      .def(py::init(&make_given), "groups"_a)
      .def("dependent", &GivenSamples::dependent, "group"_a, "unit"_a, "cluster"_a, "least"_a, release());
  py::class_<SelectedDraws, Draws, std::shared_ptr<SelectedDraws>>(m, "SelectedDraws")
      .def(py::init<std::shared_ptr<const Draws>, std::vector<Index>, std::vector<Index>, bool>(), "draws"_a,
           "unit"_a, "all"_a, "centred"_a = false);
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan")
      .def(py::init(&make_plan), "npar"_a, "blocks"_a, "groups"_a, "constraints"_a = py::none(),
           "defined"_a = py::none(), "penalties"_a = std::vector<std::shared_ptr<VariancePenalty>>())
      .def_readonly("lower", &Plan::lower)
      .def_readonly("upper", &Plan::upper)
      .def("estimate", &run_estimate, "objective"_a, "saturated"_a, "saturated_value"_a,
           "max_iterations"_a = 500, "tolerance"_a = 1e-12, "saturated_blocks"_a = std::vector<bool>{},
           "space"_a = 0, "starts"_a = 0, "cone"_a = false, "first"_a = Vector())
      .def("starts", &run_starts, "objective"_a, "saturated"_a, "saturated_value"_a)
      .def("improper", &run_improper, "objective"_a, "theta"_a)
      .def("fit", &run_fit, "draws"_a, "first"_a, "last"_a, "threads"_a = 1, "max_iterations"_a = 500,
           "tolerance"_a = 1e-12, "errors"_a = 0, "saturated"_a = std::vector<LevelPairs>{}, "space"_a = 0,
           "starts"_a = 0);
  m.def("flat_direction", &flat_direction, "objective"_a, "theta"_a, release());
  m.def("elimination_basis", &elimination_basis, "rows"_a, "sizes"_a, release());
  m.def(
      "tangent",
      [](const Objective& objective, const Constraints& constraints, const Vector& theta,
         const std::vector<int>& active, const std::vector<int>& active_inequalities) {
        return tangent(objective, constraints, theta, active, active_inequalities);
      },
      "objective"_a, "constraints"_a, "theta"_a, "active"_a, "active_inequalities"_a, release());
  m.def(
      "whitening_basis",
      [](const Matrix& factor) {
        const Whitening found = whitening_basis(factor);
        return std::make_pair(found.basis, found.null);
      },
      "factor"_a, release());
  m.def("inverse_information", &run_inverse, "objective"_a, "theta"_a, "tangent"_a, "errors"_a,
        "constraints"_a = py::none());
  m.def("sampling_covariance", &run_covariance, "objective"_a, "theta"_a, "tangent"_a, "errors"_a,
        "constraints"_a = py::none());
}
