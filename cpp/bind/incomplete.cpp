// Statistics of data with holes.
#include "data/incomplete.hpp"

#include <algorithm>

#include "bind/rows.hpp"

using namespace msem;

namespace {

using Data = std::shared_ptr<IncompleteData>;

Data make(const std::vector<Array>& unit, const std::vector<Array>& cluster, const Codes& codes,
          py::ssize_t nclusters, Index nboth, const Weights& weights, const std::optional<Vector>& counts) {
  return with_rows(
      unit, cluster, codes, nclusters,
      [&](const ClusteredRows& rows) {
        return std::make_shared<IncompleteData>(incomplete_data(rows, nboth, counts ? &*counts : nullptr));
      },
      weights);
}

py::tuple values(const std::vector<Array>& cluster, const Codes& codes, py::ssize_t nclusters) {
  const ClusterValues out = with_rows({}, cluster, codes, nclusters, cluster_values);
  py::list varying;
  for (const Varying& one : out.varying) varying.append(py::make_tuple(one.count, one.codes));
  return py::make_tuple(out.values, varying);
}

Matrix products(const std::vector<Array>& unit, const Codes& codes, const IncompleteData& data,
                const Weights& weights) {
  return with_rows(
      unit, {}, codes, data.nclusters(), [&](const ClusteredRows& rows) { return cell_products(rows, data); },
      weights);
}

using Flags = Eigen::Matrix<bool, Eigen::Dynamic, Eigen::Dynamic>;
using Integers = Eigen::Matrix<Index, Eigen::Dynamic, 1>;

Flags flags(const std::vector<Pattern>& patterns, Index count) {
  Flags out = Flags::Constant(static_cast<Index>(patterns.size()), count, false);
  for (std::size_t r = 0; r < patterns.size(); ++r) {
    for (const Index k : patterns[r]) out(static_cast<Index>(r), k) = true;
  }
  return out;
}

std::vector<Pattern> patterns_of(const Flags& flags) {
  std::vector<Pattern> out(flags.rows());
  for (Index r = 0; r < flags.rows(); ++r) {
    for (Index k = 0; k < flags.cols(); ++k) {
      if (flags(r, k)) out[r].push_back(k);
    }
  }
  return out;
}

Integers array_of(const std::vector<Index>& numbers) {
  return Eigen::Map<const Integers>(numbers.data(), static_cast<Index>(numbers.size()));
}

std::vector<Index> numbers_of(const py::handle& array) {
  const Integers numbers = array.cast<Integers>();
  return {numbers.data(), numbers.data() + numbers.size()};
}

Vector sizes(const IncompleteData& d) {
  Vector out = Vector::Zero(d.nclusters());
  for (Index j = 0; j < d.nclusters(); ++j) {
    for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) out[j] += d.cell_rows[c];
  }
  return out;
}

std::size_t nbytes(const IncompleteData& d) {
  Index numbers = d.origin.size() + d.pattern_rows.size() + d.cell_rows.size() + d.cell_means.size() +
                  d.cluster_values.size() + d.weight.size();
  for (const Matrix& sum : d.scatter) numbers += sum.size();
  std::size_t integers = d.first_cell.size() + d.cell_pattern.size() + d.cluster_pattern.size();
  for (const Pattern& seen : d.unit_patterns) integers += seen.size();
  for (const Pattern& seen : d.cluster_patterns) integers += seen.size();
  return sizeof(double) * static_cast<std::size_t>(numbers) + sizeof(Index) * integers;
}

// Everything there is, as arrays.
py::tuple state(const IncompleteData& d) {
  return py::make_tuple(d.p, d.nboth, d.q, d.origin, flags(d.unit_patterns, d.p), d.pattern_rows, d.scatter,
                        array_of(d.first_cell), array_of(d.cell_pattern), d.cell_rows, d.cell_means,
                        flags(d.cluster_patterns, d.q), array_of(d.cluster_pattern), d.cluster_values,
                        d.weight);
}

// Throws std::invalid_argument unless the shapes go together and nothing is out of range.
void require_consistent(const IncompleteData& d) {
  const auto R = d.unit_patterns.size(), T = d.cluster_patterns.size();
  const Index J = d.nclusters(), C = d.ncells();
  bool good = d.p >= 0 && d.q >= 0 && d.nboth >= 0 && d.nboth <= d.p && d.origin.size() == d.p + d.q &&
              d.pattern_rows.size() == static_cast<Index>(R) && d.scatter.size() == R &&
              static_cast<Index>(d.first_cell.size()) == J + 1 && d.first_cell.front() == 0 &&
              d.first_cell.back() == C && d.cell_rows.size() == C && d.cell_means.rows() == d.p &&
              d.cell_means.cols() == C && d.cluster_values.rows() == d.q && d.cluster_values.cols() == J &&
              d.weight.size() == J;
  good = good && std::is_sorted(d.first_cell.begin(), d.first_cell.end());
  const auto within = [](const std::vector<Index>& numbers, std::size_t count) {
    return std::all_of(numbers.begin(), numbers.end(),
                       [&](Index k) { return k >= 0 && static_cast<std::size_t>(k) < count; });
  };
  good = good && within(d.cell_pattern, R) && within(d.cluster_pattern, T);
  for (std::size_t r = 0; good && r < R; ++r) {
    const Index n = static_cast<Index>(d.unit_patterns[r].size());
    good = within(d.unit_patterns[r], static_cast<std::size_t>(d.p)) && d.scatter[r].rows() == n &&
           d.scatter[r].cols() == n;
  }
  for (std::size_t t = 0; good && t < T; ++t)
    good = within(d.cluster_patterns[t], static_cast<std::size_t>(d.q));
  if (!good) throw std::invalid_argument("statistics of data with holes have inconsistent shapes");
}

Data restored(const py::tuple& t) {
  if (t.size() != 15) throw std::invalid_argument("statistics of data with holes have 15 parts");
  auto d = std::make_shared<IncompleteData>();
  d->p = t[0].cast<Index>();
  d->nboth = t[1].cast<Index>();
  d->q = t[2].cast<Index>();
  d->origin = t[3].cast<Vector>();
  d->unit_patterns = patterns_of(t[4].cast<Flags>());
  d->pattern_rows = t[5].cast<Vector>();
  d->scatter = t[6].cast<std::vector<Matrix>>();
  d->first_cell = numbers_of(t[7]);
  d->cell_pattern = numbers_of(t[8]);
  d->cell_rows = t[9].cast<Vector>();
  d->cell_means = t[10].cast<Matrix>();
  d->cluster_patterns = patterns_of(t[11].cast<Flags>());
  d->cluster_pattern = numbers_of(t[12]);
  d->cluster_values = t[13].cast<Matrix>();
  d->weight = t[14].cast<Vector>();
  require_consistent(*d);
  return d;
}

}  // namespace

void bind_incomplete(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  py::class_<IncompleteData, Data>(m, "IncompleteData",
                                   "Patterns of observed variables, and the cells of units of a cluster that "
                                   "share one. Made by `incomplete_data`; arrays are copies.")
      .def_property_readonly("p", [](const IncompleteData& d) { return d.p; })
      .def_property_readonly("nboth", [](const IncompleteData& d) { return d.nboth; })
      .def_property_readonly("q", [](const IncompleteData& d) { return d.q; })
      .def_property_readonly("nobs", &IncompleteData::nobs)
      .def_property_readonly("nclusters", &IncompleteData::nclusters)
      .def_property_readonly("ncells", &IncompleteData::ncells)
      .def_property_readonly("nbytes", &nbytes)
      .def_property_readonly("origin", [](const IncompleteData& d) { return d.origin; })
      .def_property_readonly("sizes", &sizes)
      .def_property_readonly("weight", [](const IncompleteData& d) { return d.weight; })
      .def_property_readonly("unit_patterns",
                             [](const IncompleteData& d) { return flags(d.unit_patterns, d.p); })
      .def_property_readonly("pattern_rows", [](const IncompleteData& d) { return d.pattern_rows; })
      .def_property_readonly("scatter", [](const IncompleteData& d) { return d.scatter; })
      .def_property_readonly("first_cell", [](const IncompleteData& d) { return array_of(d.first_cell); })
      .def_property_readonly("cell_pattern", [](const IncompleteData& d) { return array_of(d.cell_pattern); })
      .def_property_readonly("cell_rows", [](const IncompleteData& d) { return d.cell_rows; })
      .def_property_readonly("cell_means", [](const IncompleteData& d) { return d.cell_means; })
      .def_property_readonly("cluster_patterns",
                             [](const IncompleteData& d) { return flags(d.cluster_patterns, d.q); })
      .def_property_readonly("cluster_pattern",
                             [](const IncompleteData& d) { return array_of(d.cluster_pattern); })
      .def_property_readonly("cluster_values", [](const IncompleteData& d) { return d.cluster_values; })
      .def(
          "restrict",
          [](const IncompleteData& d, const std::vector<Index>& unit, const std::vector<Index>& cluster,
             Index nboth) {
            return std::make_shared<IncompleteData>(restrict_variables(d, unit, cluster, nboth));
          },
          "unit"_a, "cluster"_a, "nboth"_a, release(), "The same for variables at some positions.")
      .def(
          "weighted",
          [](const IncompleteData& d, const Matrix& products, const Vector& weights) {
            return std::make_shared<IncompleteData>(weighted(d, products, weights));
          },
          "products"_a, "weights"_a, release(), "Each cluster as often as its weight says.")
      .def(
          "coverage",
          [](const IncompleteData& d) {
            Coverage out = coverage(d);
            return std::make_pair(std::move(out.units), std::move(out.clusters));
          },
          release(), "Units that have two unit variables, clusters that have two variables.")
      .def(
          "total_cov",
          [](const IncompleteData& d) {
            TotalCov out = total_cov(d);
            return std::make_pair(std::move(out.units), std::move(out.clusters));
          },
          release(), "Covariance matrices over units and over clusters, of variables without holes.")
      .def(
          "observed_moments",
          [](const IncompleteData& d) {
            ObservedMoments out = observed_moments(d);
            return std::make_tuple(std::move(out.count), std::move(out.mean), std::move(out.variance));
          },
          release(), "Number of observed values of each variable, their mean and variance.")
      .def(
          "level_variation",
          [](const IncompleteData& d) {
            LevelVariation out = level_variation(d);
            return std::make_tuple(std::move(out.clusters), std::move(out.within), std::move(out.between));
          },
          release(),
          "Clusters that have each unit variable, sums of squares within and of the cluster means.")
      .def(py::pickle(&state, &restored));
  m.def("incomplete_data", &make, "unit"_a, "cluster"_a, "codes"_a, "nclusters"_a, "nboth"_a,
        "weights"_a = py::none(), "counts"_a = py::none(),
        "Sufficient statistics of data with holes, which are nan.");
  m.def("cluster_values", &values, "cluster"_a, "codes"_a, "nclusters"_a,
        "Observed value of each cluster variable, and the clusters in which it differs.");
  m.def("cell_products", &products, "unit"_a, "codes"_a, "data"_a, "weights"_a = py::none(),
        "Products about the means of each cell, a column for each.");
}
