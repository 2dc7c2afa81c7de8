// Data reduced for random slopes, and their likelihood.
#include "likelihood/slopes/slopes.hpp"

#include "after/integrated_slopes.hpp"
#include "after/slope_units.hpp"
#include "bind/rows.hpp"
#include "bind/shapes.hpp"
#include "data/slope_moments.hpp"
#include "likelihood/slopes/quadrature.hpp"

using namespace msem;

namespace {

using Reduced = std::shared_ptr<ReducedData>;
using SlopeNumbers = Eigen::Matrix<Index, Eigen::Dynamic, 1>;

SlopeNumbers numbers_array(const std::vector<Index>& numbers) {
  return Eigen::Map<const SlopeNumbers>(numbers.data(), static_cast<Index>(numbers.size()));
}

std::vector<Index> numbers_from(const py::handle& array) {
  const SlopeNumbers numbers = array.cast<SlopeNumbers>();
  return {numbers.data(), numbers.data() + numbers.size()};
}

Reduced reduce(const std::vector<Array>& unit, const std::vector<Array>& slopes,
               const std::vector<Array>& cluster, const Codes& codes, py::ssize_t nclusters, Index nboth,
               Index fixed, const std::vector<Index>& covariate, const Weights& weights,
               const Vector& of_clusters) {
  for (const Index c : covariate) {
    if (c < 1 || c > static_cast<Index>(slopes.size()))
      throw std::invalid_argument("a slope has no covariate");
  }
  const std::vector<Array> columns = aligned(slopes);
  const std::vector<Column> x = columns_of(columns, codes.size());
  return with_rows(
      unit, cluster, codes, nclusters,
      [&](const ClusteredRows& rows) {
        return std::make_shared<ReducedData>(reduced_data(rows, x, nboth, fixed, covariate, of_clusters));
      },
      weights);
}

Matrix reduced_cluster_products(const ReducedData& self, const std::vector<Array>& unit,
                                const std::vector<Array>& slopes, const Codes& codes,
                                const Weights& weights) {
  const std::vector<Array> columns = aligned(slopes);
  const std::vector<Column> x = columns_of(columns, codes.size());
  return with_rows(
      unit, {}, codes, self.nclusters(),
      [&](const ClusteredRows& rows) { return reduced_products(rows, x, self); }, weights);
}

py::tuple reduce_clusters(const Vector& sizes, const Matrix& means, const Matrix& within,
                          const std::vector<Index>& slopes, Index nboth, Index fixed,
                          const std::vector<Index>& covariate, const Vector& of_clusters) {
  for (const Index c : slopes) {
    if (c < 0 || c >= means.cols()) throw std::invalid_argument("a covariate is beyond the variables");
  }
  ReducedClusters found;
  {
    py::gil_scoped_release release;
    found = reduced_clusters({sizes, means, within}, slopes, nboth, fixed, covariate, of_clusters);
  }
  return py::make_tuple(std::make_shared<ReducedData>(std::move(found.data)), std::move(found.products));
}

// Everything there is, as arrays.
py::tuple reduced_state(const ReducedData& d) {
  py::list patterns;
  for (const Pattern& pattern : d.patterns) patterns.append(numbers_array(pattern));
  return py::make_tuple(d.outcomes, d.nboth, d.fixed, d.q, numbers_array(d.covariate), d.origin,
                        numbers_array(d.first), d.design, d.values, d.cluster_values, d.sizes, d.weight,
                        d.remainder, patterns, numbers_array(d.first_cell), numbers_array(d.cell_pattern),
                        numbers_array(d.cell_first), d.cell_sizes, numbers_array(d.row_pattern));
}

Reduced reduced_restored(const py::tuple& t) {
  auto d = std::make_shared<ReducedData>();
  d->outcomes = t[0].cast<Index>();
  d->nboth = t[1].cast<Index>();
  d->fixed = t[2].cast<Index>();
  d->q = t[3].cast<Index>();
  d->covariate = numbers_from(t[4]);
  d->origin = t[5].cast<Vector>();
  d->first = numbers_from(t[6]);
  d->design = t[7].cast<Matrix>();
  d->values = t[8].cast<Matrix>();
  d->cluster_values = t[9].cast<Matrix>();
  d->sizes = t[10].cast<Vector>();
  d->weight = t[11].cast<Vector>();
  d->remainder = t[12].cast<std::vector<Matrix>>();
  for (const py::handle& pattern : t[13]) d->patterns.push_back(numbers_from(pattern));
  d->first_cell = numbers_from(t[14]);
  d->cell_pattern = numbers_from(t[15]);
  d->cell_first = numbers_from(t[16]);
  d->cell_sizes = t[17].cast<Vector>();
  d->row_pattern = numbers_from(t[18]);
  return d;
}

py::dict coefficients_dict(const ReducedData& self) {
  ClusterCoefficients found;
  {
    py::gil_scoped_release release;
    found = cluster_coefficients(self);
  }
  py::dict out;
  out["clusters"] = found.clusters;
  out["mean"] = found.mean;
  out["cov"] = found.cov;
  out["residual"] = found.residual;
  out["within"] = found.within;
  return out;
}

py::tuple moments_tuple(const ReducedData& self) {
  ReducedMoments found;
  {
    py::gil_scoped_release release;
    found = reduced_moments(self);
  }
  return py::make_tuple(found.count, found.mean, found.cov, found.cluster_mean, found.cluster_cov);
}

std::shared_ptr<SlopeClusters> slope_clusters(const std::shared_ptr<SlopeLikelihood>& self, Matrix products) {
  return std::make_shared<SlopeClusters>(self, std::move(products));
}

py::tuple evidence_arrays(const SlopeLikelihood& self, const LevelPairs& levels) {
  SlopePoint::Evidence found;
  {
    py::gil_scoped_release release;
    SlopePoint point;
    if (!self.prepare(implied_levels(levels), point))
      throw std::domain_error("the moments are not those of a distribution");
    found = point.evidence();
  }
  return py::make_tuple(found.scores, found.information, numbers_array(found.which));
}

py::tuple unit_scores(Index both, Index fixed, const Vector& mean, const Matrix& cov,
                      const std::vector<Array>& unit, const std::vector<Array>& slopes, const Codes& codes,
                      const Matrix& effects, const Matrix& variances, const SlopeNumbers& which) {
  const std::vector<Array> columns = aligned(slopes);
  const std::vector<Column> x = columns_of(columns, codes.size());
  const std::vector<Index> of(which.data(), which.data() + which.size());
  UnitScores found = with_rows(unit, {}, codes, effects.cols(), [&](const ClusteredRows& rows) {
    return slope_unit_scores(both, fixed, mean, cov, rows, x, effects, variances, of);
  });
  return py::make_tuple(std::move(found.mean), std::move(found.cov));
}

py::tuple unit_distances_of_slopes(Index both, Index fixed, const std::vector<Index>& given,
                                   const Vector& mean, const Matrix& cov, const std::vector<Array>& unit,
                                   const std::vector<Array>& slopes, const Codes& codes,
                                   const Matrix& effects, const Matrix& variances,
                                   const SlopeNumbers& which) {
  const std::vector<Array> columns = aligned(slopes);
  const std::vector<Column> x = columns_of(columns, codes.size());
  const std::vector<Index> of(which.data(), which.data() + which.size());
  UnitDistances found = with_rows(unit, {}, codes, effects.cols(), [&](const ClusteredRows& rows) {
    return slope_unit_distances(both, fixed, given, mean, cov, rows, x, effects, variances, of);
  });
  return py::make_tuple(std::move(found.distance), std::move(found.df));
}

using Quadrature = std::shared_ptr<SlopeClusterData>;

Quadrature checked(std::shared_ptr<SlopeClusterData> out, Index nboth, Index fixed,
                   std::vector<Index> covariate, Index nodes, Index latent, const Vector& weight) {
  if (nboth < 0 || nboth > out->p || nodes < 1 || latent < 0 || fixed < 0 || fixed > out->p)
    throw std::invalid_argument("the numbers of variables and of nodes do not fit together");
  for (const Index c : covariate) {
    if (c < 0 || c >= out->p + latent) throw std::invalid_argument("a slope has no covariate");
  }
  const Index J = static_cast<Index>(out->first_cell.size()) - 1;
  if (weight.size() && weight.size() != J) throw std::invalid_argument("every cluster needs a weight");
  out->nboth = nboth;
  out->fixed = fixed;
  out->latent = latent;
  out->covariate = std::move(covariate);
  out->nodes = nodes;
  out->weight = weight.size() ? weight : Vector(Vector::Ones(J));
  return out;
}

Quadrature slope_cluster_data(const Vector& sizes, const Matrix& means, const Matrix& within, Index nboth,
                              Index fixed, std::vector<Index> covariate, Index nodes, Index latent,
                              const Vector& weight) {
  auto out = std::make_shared<SlopeClusterData>();
  set_cells(*out, sizes, means, within);
  return checked(std::move(out), nboth, fixed, std::move(covariate), nodes, latent, weight);
}

Quadrature slope_cell_data(const IncompleteData& data, const Matrix& products, Index nboth, Index fixed,
                           std::vector<Index> covariate, Index nodes, Index latent, const Vector& weight) {
  auto out = std::make_shared<SlopeClusterData>();
  set_cells(*out, data, products);
  return checked(std::move(out), nboth, fixed, std::move(covariate), nodes, latent, weight);
}

py::tuple slope_cluster_state(const SlopeClusterData& d) {
  py::list patterns;
  for (const Pattern& pattern : d.patterns) patterns.append(numbers_array(pattern));
  return py::make_tuple(d.p, d.nboth, d.q, d.fixed, d.latent, numbers_array(d.covariate), d.nodes, patterns,
                        numbers_array(d.first_cell), numbers_array(d.cell_pattern), d.cell_sizes, d.means,
                        d.within, d.cluster_values, d.weight);
}

Quadrature slope_cluster_restored(const py::tuple& t) {
  auto d = std::make_shared<SlopeClusterData>();
  d->p = t[0].cast<Index>();
  d->nboth = t[1].cast<Index>();
  d->q = t[2].cast<Index>();
  d->fixed = t[3].cast<Index>();
  d->latent = t[4].cast<Index>();
  d->covariate = numbers_from(t[5]);
  d->nodes = t[6].cast<Index>();
  for (const py::handle& pattern : t[7]) d->patterns.push_back(numbers_from(pattern));
  d->first_cell = numbers_from(t[8]);
  d->cell_pattern = numbers_from(t[9]);
  d->cell_sizes = t[10].cast<Vector>();
  d->means = t[11].cast<Matrix>();
  d->within = t[12].cast<Matrix>();
  d->cluster_values = t[13].cast<Matrix>();
  d->weight = t[14].cast<Vector>();
  return d;
}

py::tuple slope_cluster_moments(const SlopeClusterData& self) {
  const ReducedMoments found = moments(self);
  return py::make_tuple(found.count, found.mean, found.cov, found.cluster_mean, found.cluster_cov);
}

py::tuple slope_crude_levels(const SlopeClusterData& self) {
  const CrudeLevels found = crude_levels(self);
  return py::make_tuple(found.within, found.means, found.size);
}

py::tuple integrated_clusters(const IntegratedSlopes& self) {
  IntegratedSlopes::ClusterScores found;
  {
    py::gil_scoped_release release;
    found = self.clusters();
  }
  return py::make_tuple(found.mean, found.cov);
}

py::tuple integrated_units(const IntegratedSlopes& self, const std::vector<Array>& unit, const Codes& codes,
                           py::ssize_t nclusters) {
  IntegratedSlopes::UnitScores found =
      with_rows(unit, {}, codes, nclusters, [&](const ClusteredRows& rows) { return self.units(rows); });
  return py::make_tuple(std::move(found.mean), std::move(found.cov));
}

py::tuple integrated_draw(const IntegratedSlopes& self, const std::vector<Array>& unit, const Codes& codes,
                          py::ssize_t nclusters, std::uint64_t seed) {
  IntegratedSlopes::Draw found =
      with_rows(unit, {}, codes, nclusters, [&](const ClusteredRows& rows) { return self.draw(rows, seed); });
  return py::make_tuple(std::move(found.clusters), std::move(found.units));
}

py::tuple slope_posterior(const QuadratureLikelihood& self, const LevelPairs& levels) {
  QuadraturePoint point;
  bool fine = false;
  {
    py::gil_scoped_release release;
    fine = self.prepare(implied_levels(levels), point);
  }
  if (!fine) throw std::domain_error("the moments are not those of a distribution");
  return py::make_tuple(point.posterior_means(), point.posterior_covs());
}

}  // namespace

void bind_slopes(py::module_& m) {
  using namespace py::literals;
  using release = py::call_guard<py::gil_scoped_release>;
  m.def("slope_unit_scores", &unit_scores, "both"_a, "fixed"_a, "mean"_a, "cov"_a, "unit"_a, "slopes"_a,
        "codes"_a, "effects"_a, "variances"_a, "which"_a);
  m.def("slope_unit_distances", &unit_distances_of_slopes, "both"_a, "fixed"_a, "given"_a, "mean"_a, "cov"_a,
        "unit"_a, "slopes"_a, "codes"_a, "effects"_a, "variances"_a, "which"_a);
  py::class_<ReducedData, Reduced>(m, "ReducedData")
      .def(py::init(&reduce), "unit"_a, "slopes"_a, "cluster"_a, "codes"_a, "nclusters"_a, "nboth"_a,
           "fixed"_a, "covariate"_a, "weights"_a, "of_clusters"_a)
      .def_property_readonly("sizes", [](const ReducedData& d) { return d.sizes; })
      .def_property_readonly("nobs", &ReducedData::nobs)
      .def_property_readonly("nclusters", [](const ReducedData& d) { return d.weight.sum(); })
      .def_property_readonly("first", [](const ReducedData& d) { return numbers_array(d.first); })
      .def_property_readonly("slopes", &ReducedData::nslopes)
      .def_readonly("nboth", &ReducedData::nboth)
      .def_readonly("fixed", &ReducedData::fixed)
      .def_property_readonly("npatterns", [](const ReducedData& d) { return d.patterns.size(); })
      .def_property_readonly("cluster_values",
                             [](const ReducedData& d) {
                               Matrix out = d.cluster_values.transpose();
                               out.rowwise() += d.origin.tail(d.q).transpose();
                               return out;
                             })
      .def_property_readonly("design", [](const ReducedData& d) { return d.design; })
      .def("products", &reduced_cluster_products, "unit"_a, "slopes"_a, "codes"_a, "weights"_a)
      .def("coefficients", &coefficients_dict)
      .def("moments", &moments_tuple)
      .def_readonly("covariate", &ReducedData::covariate)
      .def_property_readonly("weight", [](const ReducedData& d) { return d.weight; })
      .def(
          "restrict",
          [](const ReducedData& self, const std::vector<Index>& outcomes, Index nboth,
             const std::vector<Index>& fixed, const std::vector<Index>& cluster) {
            return std::make_shared<ReducedData>(restrict_reduced(self, outcomes, nboth, fixed, cluster));
          },
          "outcomes"_a, "nboth"_a, "fixed"_a, "cluster"_a, release())
      .def(
          "with_slopes",
          [](const ReducedData& self, std::vector<Index> covariate) {
            return std::make_shared<ReducedData>(with_slopes(self, std::move(covariate)));
          },
          "covariate"_a, release())
      .def(py::pickle(&reduced_state, &reduced_restored));
  py::class_<SlopeClusterData, Quadrature>(m, "SlopeClusterData")
      .def(py::init(&slope_cluster_data), "sizes"_a, "means"_a, "within"_a, "nboth"_a, "fixed"_a,
           "covariate"_a, "nodes"_a, "latent"_a, "weight"_a)
      .def(py::init(&slope_cell_data), "data"_a, "products"_a, "nboth"_a, "fixed"_a, "covariate"_a, "nodes"_a,
           "latent"_a, "weight"_a)
      .def_property_readonly("nobs", [](const SlopeClusterData& d) { return d.weight.dot(cluster_sizes(d)); })
      .def_property_readonly("nclusters", [](const SlopeClusterData& d) { return d.weight.sum(); })
      .def_property_readonly("sizes", [](const SlopeClusterData& d) { return cluster_sizes(d); })
      .def_property_readonly("weight", [](const SlopeClusterData& d) { return d.weight; })
      .def_readonly("nodes", &SlopeClusterData::nodes)
      .def(
          "with_nodes",
          [](const SlopeClusterData& d, Index nodes) {
            auto out = std::make_shared<SlopeClusterData>(d);
            out->nodes = nodes;
            return out;
          },
          "nodes"_a)
      .def("moments", &slope_cluster_moments)
      .def("crude", &slope_crude_levels)
      .def(py::pickle(&slope_cluster_state, &slope_cluster_restored));
  py::class_<IntegratedSlopes>(m, "IntegratedSlopes")
      .def(py::init([](Quadrature data, const LevelPairs& levels) {
             py::gil_scoped_release release;
             return std::make_unique<IntegratedSlopes>(std::move(data), implied_levels(levels));
           }),
           "data"_a, "moments"_a)
      .def("clusters", &integrated_clusters)
      .def("units", &integrated_units, "unit"_a, "codes"_a, "nclusters"_a)
      .def("draw", &integrated_draw, "unit"_a, "codes"_a, "nclusters"_a, "seed"_a);
  py::class_<QuadratureLikelihood, msem::Likelihood, std::shared_ptr<QuadratureLikelihood>>(
      m, "QuadratureLikelihood")
      .def(py::init([](const Quadrature& data) { return std::make_shared<QuadratureLikelihood>(data); }),
           "data"_a)
      .def("clusters",
           [](const std::shared_ptr<QuadratureLikelihood>& self) {
             return std::make_shared<QuadratureClusters>(self, Matrix(self->data().nclusters(), 0));
           })
      .def("slopes", &slope_posterior, "moments"_a);
  py::class_<QuadratureClusters, msem::Clusters, std::shared_ptr<QuadratureClusters>>(m,
                                                                                      "QuadratureClusters");
  m.def("reduce_clusters", &reduce_clusters, "sizes"_a, "means"_a, "within"_a, "slopes"_a, "nboth"_a,
        "fixed"_a, "covariate"_a, "of_clusters"_a);
  py::class_<SlopeLikelihood, msem::Likelihood, std::shared_ptr<SlopeLikelihood>>(m, "SlopeLikelihood")
      .def(py::init([](const Reduced& data) { return std::make_shared<SlopeLikelihood>(data); }), "data"_a,
           release())
      .def("clusters", &slope_clusters, "products"_a)
      .def("evidence", &evidence_arrays, "moments"_a)
      .def_property_readonly("designs", [](const SlopeLikelihood& self) { return self.classes().count; });
  py::class_<SlopeClusters, msem::Clusters, std::shared_ptr<SlopeClusters>>(m, "SlopeClusters");
}
