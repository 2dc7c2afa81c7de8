// The likelihood of ordered variables.
#include "bind/bind.hpp"
#include "bind/shapes.hpp"
#include "likelihood/ordered/rows.hpp"

using namespace msem;

namespace {

using OrderedRowsData = std::shared_ptr<OrderedData>;

OrderedRowsData ordered_data(const Matrix& rows, const std::vector<Index>& codes, const Matrix& clusters,
                             Index nboth, std::vector<int> categories, std::vector<std::vector<Index>> cuts,
                             Index latent, Index latent_b, std::vector<Index> covariate,
                             std::vector<Index> integrated, bool logistic, Index nodes, double spacing,
                             const Vector& weight, const Vector& cluster_weight) {
  auto out = std::make_shared<OrderedData>();
  out->p = rows.cols();
  out->q = clusters.cols();
  out->nboth = nboth;
  out->latent = latent;
  out->latent_b = latent_b;
  out->categories = std::move(categories);
  for (const auto& own : cuts) out->ncuts += static_cast<Index>(own.size());
  out->cuts = std::move(cuts);
  out->covariate = std::move(covariate);
  out->integrated = std::move(integrated);
  out->logistic = logistic;
  out->nodes = nodes;
  out->spacing = spacing;
  if (latent < 0 || latent > 3) throw std::invalid_argument("too many latent variables of level 1");
  arrange(*out, rows, codes, clusters, weight, cluster_weight);
  return out;
}

py::dict posterior_of(const OrderedLikelihood& self, Implied moments) {
  OrderedPosterior found;
  OrderedPoint point;
  {
    py::gil_scoped_release release;
    if (!self.prepare(std::move(moments), point))
      throw std::domain_error("the moments are not those of a distribution");
    found = point.posterior();
  }
  py::dict out;
  out["integrated"] = point.posterior_means();
  out["integrated_cov"] = point.posterior_covs();
  out["within"] = found.within;
  out["within_var"] = found.within_var;
  return out;
}

py::dict ordered_posterior(const OrderedLikelihood& self, const LevelPairs& levels) {
  return posterior_of(self, implied_levels(levels));
}

py::dict ordered_rows_posterior(const OrderedRows& self, const LevelPairs& levels) {
  return posterior_of(*self.each(), self.split(implied_levels(levels)));
}

}  // namespace

void bind_integrals(py::module_& m) {
  using namespace py::literals;
  py::class_<OrderedData, OrderedRowsData>(m, "OrderedData")
      .def(py::init(&ordered_data), "rows"_a, "codes"_a, "clusters"_a, "nboth"_a, "categories"_a, "cuts"_a,
           "latent"_a, "latent_b"_a, "covariate"_a, "integrated"_a, "logistic"_a, "nodes"_a, "spacing"_a,
           "weight"_a = Vector(), "cluster_weight"_a = Vector());
  py::class_<OrderedLikelihood, msem::Likelihood, std::shared_ptr<OrderedLikelihood>>(m, "OrderedLikelihood")
      .def(py::init([](const OrderedRowsData& data) { return std::make_shared<OrderedLikelihood>(data); }),
           "data"_a)
      .def("clusters",
           [](const std::shared_ptr<OrderedLikelihood>& self) {
             return std::make_shared<OrderedClusters>(self, Matrix(self->data().nclusters(), 0));
           })
      .def("posterior", &ordered_posterior, "moments"_a);
  py::class_<OrderedClusters, msem::Clusters, std::shared_ptr<OrderedClusters>>(m, "OrderedClusters");
  py::class_<OrderedRows, msem::Likelihood, std::shared_ptr<OrderedRows>>(m, "OrderedRows")
      .def(py::init([](const OrderedRowsData& data) { return std::make_shared<OrderedRows>(data); }),
           "data"_a)
      .def("clusters",
           [](const std::shared_ptr<OrderedRows>& self) {
             return std::make_shared<OrderedRowsClusters>(self);
           })
      .def("posterior", &ordered_rows_posterior, "moments"_a);
  py::class_<OrderedRowsClusters, msem::Clusters, std::shared_ptr<OrderedRowsClusters>>(
      m, "OrderedRowsClusters");
}
