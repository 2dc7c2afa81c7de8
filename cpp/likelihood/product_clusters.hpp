// Single clusters of a likelihood whose data are known by their products: data with holes, and reduced rows.
#pragma once

#include <numeric>

#include "likelihood/two_levels.hpp"

namespace msem {

// What stands beside the data is found by the type of `data`, which a member of the same name would hide.
template <class Data>
Data counted(const Data& data, const Matrix& products, const Vector& weights) {
  return weighted(data, products, weights);
}

// `Of` has `Data`, `Point` with cluster_scores and cluster_loglik, `data`, `shape` and `prepare`. What
// single_cluster, weighted and require_products are to its data stands beside them.
template <class Of>
class ProductClusters : public Clusters {
 public:
  ProductClusters(std::shared_ptr<const Of> whole, Matrix products)
      : whole_(std::move(whole)), products_(std::move(products)) {
    require_products(products_, whole_->data());
  }
  Index count() const override { return whole_->data().nclusters(); }
  std::vector<Index> kinds() const override {
    std::vector<Index> out(count());
    std::iota(out.begin(), out.end(), Index{0});
    return out;
  }
  std::vector<Matrix> scores(const Implied& moments, const LevelTangents& tangents) const override {
    typename Of::Point point;
    if (!whole_->prepare(moments, point)) return {};
    const TwoLevels shape = whole_->shape();
    return shape.by_level(point.cluster_scores(products_, shape.within(tangents), shape.between(tangents)));
  }
  Vector loglik(const Implied& moments) const override {
    typename Of::Point point;
    return whole_->prepare(moments, point) ? point.cluster_loglik(products_) : Vector();
  }
  std::shared_ptr<const Likelihood> alone(Index cluster) const override {
    return of(single_cluster(whole_->data(), products_, cluster));
  }
  std::shared_ptr<const Likelihood> weighted(const Vector& weights) const override {
    return of(counted(whole_->data(), products_, weights));
  }

 private:
  static std::shared_ptr<const Likelihood> of(typename Of::Data data) {
    return std::make_shared<Of>(std::make_shared<const typename Of::Data>(std::move(data)));
  }

  std::shared_ptr<const Of> whole_;
  Matrix products_;
};

}  // namespace msem
