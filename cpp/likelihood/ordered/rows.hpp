// Ordered variables of one level, with continuous ones beside them: each row is a cluster of one unit, whose
// likelihood `OrderedLikelihood` has, with thresholds as its only variables of level 2. To the outside there
// is one level, with the observed variables, the latent ones that are integrated over, and the thresholds.
//
// Rows that are alike have one integral, which counts as often.
#pragma once

#include "likelihood/ordered/ordered.hpp"

namespace msem {

class OrderedRows : public Likelihood {
 public:
  // `data`: a cluster for every row, each counted as `data.weight` says; nothing at level 2 but thresholds.
  explicit OrderedRows(const std::shared_ptr<const OrderedData>& data);
  Layout layout() const override;
  std::unique_ptr<LikelihoodPoint> at(Implied moments) const override;
  bool costly_information() const override { return true; }
  const std::shared_ptr<const OrderedLikelihood>& each() const { return each_; }

  // The one level as the two of `each`, and derivatives back.
  Implied split(const Implied& moments) const;
  LevelTangents split(const LevelTangents& tangents) const;
  Implied joined(Implied levels) const;

 private:
  std::shared_ptr<const OrderedLikelihood> each_, different_;  // all rows, and those that are not alike
  std::vector<Index> first_, cuts_;                            // variables of level 1, and thresholds
};

class OrderedRowsClusters : public Clusters {
 public:
  explicit OrderedRowsClusters(std::shared_ptr<const OrderedRows> whole);
  Index count() const override { return rows_.count(); }
  std::vector<Index> kinds() const override { return rows_.kinds(); }
  std::vector<Matrix> scores(const Implied& moments, const LevelTangents& tangents) const override;
  Vector loglik(const Implied& moments) const override { return rows_.loglik(whole_->split(moments)); }
  std::shared_ptr<const Likelihood> alone(Index cluster) const override;
  std::shared_ptr<const Likelihood> weighted(const Vector& weights) const override;

 private:
  std::shared_ptr<const OrderedRows> whole_;
  OrderedClusters rows_;
};

}  // namespace msem
