// -2 log likelihood of ordered variables, with continuous ones beside them, of one level or of units in
// clusters, by quadrature.
//
// An ordered variable is a continuous one y* cut at thresholds. Given what is integrated over at level 2, by
// adaptive quadrature, the units of a cluster are independent. Of a unit the continuous variables v have a
// normal density, and given these
//     y*_p = a_p + b_p'v + kappa_p'e + d_p^(1/2) u_p,   e ~ N(0, I),
// kappa_p'e what the latent variables of level 1 add that are integrated over, u_p independent. Integrals
// over e are sums over equally spaced nodes (the trapezoid rule, whose error falls exponentially for such
// integrands), as dense as the narrowest posterior distribution may need. u is normal or logistic, of
// variance 1.
//
// Level 1 has the observed variables, the latent ones that are integrated over, and the products of slopes
// and covariates. Level 2 has the parts of the first `nboth` of these, the cluster variables, the latent
// variables that are integrated over, the thresholds, of which there is only the mean, and the slopes. With
// no variables at level 1 a cluster is a row of a sample of one level.
//
// Invariants
//   * Given what is integrated over, residuals of ordered variables are independent of each other and of
//   continuous ones, and the parts of level 2 have none. Covariances that say otherwise are not looked at.
#pragma once

#include "likelihood/integrals/integral.hpp"
#include "likelihood/product_clusters.hpp"

namespace msem {

struct OrderedData {
  Index p = 0, latent = 0, nboth = 0, q = 0, latent_b = 0;
  std::vector<int> categories;           // of the p and q variables; 0 of continuous ones
  std::vector<std::vector<Index>> cuts;  // of each of them: its thresholds among all
  Index ncuts = 0;
  std::vector<Index> covariate;   // of each slope, among the variables of level 1
  std::vector<Index> integrated;  // variables of level 2
  bool logistic = false;
  Index nodes = 15;          // of level 2, in each dimension
  double spacing = 1;        // of the nodes of level 1, in the least standard deviations a posterior may have
  Vector weight;             // J
  std::vector<Index> first;  // units of each cluster: first[j], ..., first[j + 1] - 1
  Matrix values;             // p x units: categories from 0, or values; NaN where missing
  Vector counts;             // how many units are alike
  std::vector<Index> unit_of_row;  // -1: a row without values
  Matrix cluster_values;           // q x J, alike

  Index nclusters() const { return weight.size(); }
  Index nslopes() const { return static_cast<Index>(covariate.size()); }
};

// Rows (N x p) of clusters codes[i], and values of clusters (J x q), arranged. `data` has all but these.
// weight, cluster_weight: how often each counts, a unit in the density of its cluster given what is
// integrated over (Rabe-Hesketh & Skrondal, 2006); empty: once. Throws std::invalid_argument where they do
// not fit together.
void arrange(OrderedData& data, const Matrix& rows, const std::vector<Index>& codes, const Matrix& clusters,
             const Vector& weight, const Vector& cluster_weight);

void require_products(const Matrix& products, const OrderedData& data);
OrderedData weighted(const OrderedData& data, const Matrix& products, const Vector& weights);
OrderedData single_cluster(const OrderedData& data, const Matrix& products, Index cluster);
Integration integration(const OrderedData& data);

// Posterior means and variances of the latent variables of level 1 that are integrated over (latent x rows;
// NaN for rows without values). Those of level 2 are the point's own.
struct OrderedPosterior {
  Matrix within, within_var;
};

class OrderedPoint : public IntegralPoint {
 public:
  bool prepare(const OrderedData& data, const Integration& over, const Moments& moments) {
    data_ = &data;
    return IntegralPoint::prepare(over, moments);
  }
  OrderedPosterior posterior() const;

 protected:
  std::unique_ptr<NodeDensity> density() const override;
  std::unique_ptr<IntegralPoint> another() const override {
    auto out = std::make_unique<OrderedPoint>();
    out->data_ = data_;
    return out;
  }
  bool prepare_integrand() override;
  Vector negligible_spread() const override;

 private:
  friend class OrderedDensity;
  const OrderedData* data_ = nullptr;
};

class OrderedLikelihood : public Likelihood {
 public:
  using Data = OrderedData;
  using Point = OrderedPoint;
  // With nodes other than those of the data if it is said how many.
  explicit OrderedLikelihood(std::shared_ptr<const OrderedData> data, Index nodes = 0)
      : data_(std::move(data)), over_(integration(*data_)) {
    if (nodes) over_.nodes = nodes;
  }
  Layout layout() const override { return shape().layout(); }
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  bool costly_information() const override { return true; }
  Information step_information() const override { return Information::kApproximate; }
  bool integrated() const override { return true; }
  std::shared_ptr<const Likelihood> coarse() const override {
    if (over_.nodes <= kFewNodes) return nullptr;
    return std::make_shared<const OrderedLikelihood>(data_, kFewNodes);
  }
  const OrderedData& data() const { return *data_; }
  TwoLevels shape() const { return over_.shape; }
  bool prepare(Implied moments, OrderedPoint& point) const {
    return point.prepare(*data_, over_, shape().moments(std::move(moments)));
  }

 private:
  std::shared_ptr<const OrderedData> data_;
  Integration over_;
};

using OrderedClusters = ProductClusters<OrderedLikelihood>;
extern template class ProductClusters<OrderedLikelihood>;

}  // namespace msem
