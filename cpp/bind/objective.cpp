// Blocks, likelihoods, the objective and its minimiser.
#include "bind/optimum.hpp"
#include "bind/shapes.hpp"
#include "fit/constrained.hpp"
#include "fit/penalty.hpp"
#include "likelihood/cells/cells.hpp"
#include "likelihood/complete/twolevel.hpp"
#include "likelihood/least_squares.hpp"

using namespace msem;

namespace {

Block make_block(int nobserved, int nvariables, const std::vector<int>& slot, const std::vector<int>& row,
                 const std::vector<int>& col, const std::vector<int>& parameter,
                 const std::vector<double>& value) {
  const std::size_t n = slot.size();
  if (row.size() != n || col.size() != n || parameter.size() != n || value.size() != n)
    throw std::invalid_argument("block entries must have equal lengths");
  std::vector<Entry> entries;
  for (std::size_t i = 0; i < n; ++i) {
    if (slot[i] < 0 || slot[i] > 2) throw std::invalid_argument("slot must be 0, 1 or 2");
    entries.push_back({static_cast<Slot>(slot[i]), row[i], col[i], parameter[i], value[i]});
  }
  if (nvariables > 2 * static_cast<std::ptrdiff_t>(n))
    throw std::invalid_argument("a block has entries for all of its variables");
  return Block(nobserved, nvariables, std::move(entries));
}

std::shared_ptr<CompleteLikelihood> make_two_level(int nboth, const Matrix& ssw, const Vector& sizes,
                                                   const Vector& counts, const Matrix& means,
                                                   const Doubles& scatter) {
  const Index m = means.cols();
  if (scatter.ndim() != 3 || scatter.shape(0) != sizes.size() || scatter.shape(1) != m ||
      scatter.shape(2) != m)
    throw std::invalid_argument("scatter must have shape (S, p + q, p + q)");
  const Eigen::Map<const Matrix> stacked(scatter.data(), m * m, sizes.size());
  return std::make_shared<CompleteLikelihood>(TwoLevelData(nboth, ssw, sizes, counts, means, stacked));
}

using GroupTuple = std::tuple<std::shared_ptr<Likelihood>, std::vector<int>>;

using ElementTuple = std::tuple<Index, Index, int, double>;

std::shared_ptr<VariancePenalty> make_penalty(const std::vector<ElementTuple>& covariances,
                                              const std::vector<ElementTuple>& loadings,
                                              std::vector<Index> variances,
                                              std::vector<std::vector<Index>> factors, Vector weights) {
  const auto elements = [](const std::vector<ElementTuple>& given) {
    std::vector<VariancePenalty::Element> out;
    for (const auto& [row, col, parameter, value] : given) out.push_back({row, col, parameter, value});
    return out;
  };
  return std::make_shared<VariancePenalty>(elements(covariances), elements(loadings), std::move(variances),
                                           std::move(factors), std::move(weights));
}

Objective make_objective(int npar, std::vector<Block> blocks, const std::vector<GroupTuple>& groups,
                         const std::vector<std::shared_ptr<VariancePenalty>>& penalties) {
  std::vector<Group> out;
  for (const auto& [likelihood, levels] : groups) out.push_back({likelihood, levels});
  return Objective(npar, std::move(blocks), std::move(out), Terms(penalties.begin(), penalties.end()));
}

py::tuple evaluate(const Objective& self, const Vector& theta) {
  Evaluation e;
  {
    py::gil_scoped_release release;
    e = self.evaluate(theta);
  }
  return py::make_tuple(e.value, e.gradient);
}

Vector settle(const Objective& self, const Vector& theta, const Vector& delta,
              const std::vector<int>& intercepts) {
  require_intercepts(self, intercepts);
  if (delta.size() != self.npar())
    throw std::invalid_argument("delta must have an element for each parameter");
  return self.settle(theta, delta, intercepts);
}

Matrix observed_in(const Objective& self, const Vector& theta, const Matrix& basis) {
  require_basis(self, basis);
  if (basis.cols() == 0) return Matrix(0, 0);
  return self.observed_information_in(theta, basis);
}

py::tuple implied(const Objective& self, const Vector& theta, int block) {
  BlockPoint point;
  if (!self.implied(theta, block, point)) throw std::domain_error("I - A is singular at these parameters");
  return py::make_tuple(point.mean, point.total);
}

using Columns = py::array_t<double, py::array::f_style | py::array::forcecast>;

// Arrays of single clusters, which are looked at where they are.
struct KeptArrays {
  Columns sizes, means, within;
};

Eigen::Map<const Matrix> matrix_of(const Columns& array) {
  if (array.ndim() != 2) throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  return {array.data(), array.shape(0), array.shape(1)};
}

class KeptClusters : KeptArrays, public CompleteClusters {
 public:
  KeptClusters(std::shared_ptr<const CompleteLikelihood> whole, KeptArrays arrays)
      : KeptArrays(std::move(arrays)),
        CompleteClusters(std::move(whole), {Eigen::Map<const Vector>(sizes.data(), sizes.size()),
                                            matrix_of(means), matrix_of(within)}) {}
};

std::shared_ptr<CompleteClusters> clusters_of(const std::shared_ptr<CompleteLikelihood>& self, Columns sizes,
                                              Columns means, Columns within) {
  return std::make_shared<KeptClusters>(self,
                                        KeptArrays{std::move(sizes), std::move(means), std::move(within)});
}

std::shared_ptr<IncompleteClusters> cells_of(const std::shared_ptr<IncompleteLikelihood>& self,
                                             Matrix products) {
  return std::make_shared<IncompleteClusters>(self, std::move(products));
}

using StatisticTuple = std::tuple<int, int, Index, Index>;

std::shared_ptr<LeastSquares> make_least_squares(std::vector<std::vector<Index>> levels, Index nvariables,
                                                 const std::vector<StatisticTuple>& statistics,
                                                 const Vector& values, const Matrix& weight,
                                                 const std::vector<Index>& given,
                                                 const std::vector<Index>& ordered) {
  std::vector<Statistic> all;
  for (const auto& [kind, level, i, j] : statistics) {
    if (kind < 0 || kind > 3) throw std::invalid_argument("kind must be 0, 1, 2 or 3");
    all.push_back({static_cast<Statistic::Kind>(kind), level, i, j});
  }
  if (levels.empty()) throw std::invalid_argument("least squares needs a level");
  return std::make_shared<LeastSquares>(Layout{std::move(levels), nvariables}, std::move(all), values, weight,
                                        given, ordered);
}

// With other values of the statistics, and as arguments to make it again.
std::shared_ptr<LeastSquares> with_values(const LeastSquares& self, const Vector& values) {
  return std::make_shared<LeastSquares>(self.layout(), self.statistics(), values, self.weight(), self.given(),
                                        self.ordered());
}

py::tuple least_squares_state(const LeastSquares& self) {
  std::vector<StatisticTuple> statistics;
  for (const Statistic& s : self.statistics())
    statistics.emplace_back(static_cast<int>(s.kind), s.level, s.i, s.j);
  return py::make_tuple(self.layout().levels, self.layout().nvariables, statistics, self.values(),
                        self.weight(), self.given(), self.ordered());
}

std::shared_ptr<LeastSquares> least_squares_of_state(const py::tuple& state) {
  if (state.size() != 7) throw std::invalid_argument("this is no state of least squares");
  return make_least_squares(state[0].cast<std::vector<std::vector<Index>>>(), state[1].cast<Index>(),
                            state[2].cast<std::vector<StatisticTuple>>(), state[3].cast<Vector>(),
                            state[4].cast<Matrix>(), state[5].cast<std::vector<Index>>(),
                            state[6].cast<std::vector<Index>>());
}

Vector fitted_statistics(const LeastSquares& self, const LevelPairs& levels) {
  return self.fitted(implied_levels(levels));
}

std::shared_ptr<Clusters> no_clusters(const Likelihood&, const py::args&) {
  throw std::invalid_argument("cluster contributions need a two-level likelihood");
}

// pybind11 keeps objects by pointers to what is not const.
std::shared_ptr<Likelihood> reweighted(const Clusters& self, const Vector& weights) {
  py::gil_scoped_release release;
  return std::const_pointer_cast<Likelihood>(self.weighted(weights));
}

std::vector<std::shared_ptr<Likelihood>> likelihoods(const Objective& self) {
  std::vector<std::shared_ptr<Likelihood>> out;
  for (const Group& g : self.groups()) out.push_back(std::const_pointer_cast<Likelihood>(g.likelihood));
  return out;
}

py::dict run_minimize(const Objective& objective, const Vector& start, const Vector& lower,
                      const Vector& upper, int max_iterations, double tolerance,
                      const Constraints* constraints) {
  Optimum best;
  {
    py::gil_scoped_release release;
    const ScoringOptions options{max_iterations, tolerance};
    best = minimize(objective, constraints ? *constraints : Constraints{}, start, lower, upper, options);
  }
  return optimum_dict(best);
}

py::tuple invert(const Matrix& matrix) {
  if (matrix.rows() != matrix.cols()) throw std::invalid_argument("the matrix must be square");
  ScaledInverse found;
  {
    py::gil_scoped_release release;
    found = scaled_inverse(matrix);
  }
  return py::make_tuple(found.inverse, found.pivot);
}

}  // namespace

void bind_objective(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<Block>(m, "Block")
      .def(py::init(&make_block), "nobserved"_a, "nvariables"_a, "slot"_a, "row"_a, "col"_a, "parameter"_a,
           "value"_a)
      .def_property_readonly("parameters", &Block::parameters);
  py::class_<Likelihood, std::shared_ptr<Likelihood>>(m, "Likelihood").def("clusters", &no_clusters);
  py::class_<Clusters, std::shared_ptr<Clusters>>(m, "Clusters").def("weighted", &reweighted, "weights"_a);
  py::class_<CompleteClusters, Clusters, std::shared_ptr<CompleteClusters>>(m, "CompleteClusters");
  py::class_<IncompleteClusters, Clusters, std::shared_ptr<IncompleteClusters>>(m, "IncompleteClusters");
  py::class_<CompleteLikelihood, Likelihood, std::shared_ptr<CompleteLikelihood>>(m, "CompleteLikelihood")
      .def(py::init(&make_two_level), "nboth"_a, "ssw"_a, "sizes"_a, "counts"_a, "means"_a, "scatter"_a)
      .def("clusters", &clusters_of, "sizes"_a, "means"_a, "within"_a);
  py::class_<IncompleteLikelihood, Likelihood, std::shared_ptr<IncompleteLikelihood>>(m,
                                                                                      "IncompleteLikelihood")
      .def(py::init([](std::shared_ptr<IncompleteData> data) {
             return std::make_shared<IncompleteLikelihood>(data);
           }),
           "data"_a)
      .def("clusters", &cells_of, "products"_a);
  py::class_<LeastSquares, Likelihood, std::shared_ptr<LeastSquares>>(m, "LeastSquares")
      .def(py::init<Vector, Matrix, Vector, Matrix>(), "mean"_a, "cov"_a, "mean_weights"_a, "cov_weights"_a)
      .def(py::init(&make_least_squares), "levels"_a, "nvariables"_a, "statistics"_a, "values"_a, "weight"_a,
           "given"_a, "ordered"_a)
      .def("fitted", &fitted_statistics, "moments"_a)
      .def("with_values", &with_values, "values"_a)
      .def(py::pickle(&least_squares_state, &least_squares_of_state));
  py::class_<VariancePenalty, std::shared_ptr<VariancePenalty>>(m, "VariancePenalty")
      .def(py::init(&make_penalty), "covariances"_a, "loadings"_a, "variances"_a, "factors"_a, "weights"_a);
  py::class_<Objective>(m, "Objective")
      .def(py::init(&make_objective), "npar"_a, "blocks"_a, "groups"_a,
           "penalties"_a = std::vector<std::shared_ptr<VariancePenalty>>())
      .def("penalty", &Objective::penalty, "theta"_a, release())
      .def_property_readonly("npar", &Objective::npar)
      .def_property_readonly("likelihoods", &likelihoods)
      .def("value", &Objective::value, "theta"_a, release())
      .def("values", &Objective::values, "thetas"_a, release())
      .def("evaluate", &evaluate, "theta"_a)
      .def("expected_information",
           py::overload_cast<ConstVectorRef>(&Objective::expected_information, py::const_), "theta"_a,
           release())
      .def("observed_information",
           py::overload_cast<ConstVectorRef>(&Objective::observed_information, py::const_), "theta"_a,
           release())
      .def("moment_information", &Objective::moment_information, "theta"_a, release())
      .def("observed_information_in", &observed_in, "theta"_a, "basis"_a, release())
      .def("intercepts", &Objective::intercepts)
      .def("settle", &settle, "theta"_a, "delta"_a, "intercepts"_a)
      .def("information_factor", &Objective::information_factor, "theta"_a, release())
      .def("implied", &implied, "theta"_a, "block"_a)
      .def("jacobian", &Objective::jacobian, "theta"_a, "block"_a, release())
      .def("scores", &Objective::scores, "theta"_a, "clusters"_a, "group"_a = 0, release())
      .def("score_products", &Objective::score_products, "theta"_a, "clusters"_a, "group"_a, "weights"_a,
           "basis"_a, release())
      .def("cluster_loglik", &Objective::cluster_loglik, "theta"_a, "clusters"_a, "group"_a = 0, release());
  m.def("scaled_inverse", &invert, "matrix"_a);
  m.def("minimize", &run_minimize, "objective"_a, "start"_a, "lower"_a, "upper"_a, "max_iterations"_a = 500,
        "tolerance"_a = 1e-12, "constraints"_a = py::none());
}
