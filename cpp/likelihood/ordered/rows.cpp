#include "likelihood/ordered/rows.hpp"

#include <cmath>
#include <map>
#include <numeric>

namespace msem {

namespace {

// The same data with rows that are alike taken together.
std::shared_ptr<const OrderedData> different_rows(const OrderedData& data) {
  std::map<std::vector<double>, Index> known;
  std::vector<Index> kept;
  std::vector<double> weight;
  std::vector<double> key(data.p);
  for (Index j = 0; j < data.nclusters(); ++j) {
    if (data.first[j] == data.first[j + 1] || data.weight[j] == 0) continue;  // nothing is known of it
    const Index i = data.first[j];
    for (Index v = 0; v < data.p; ++v)
      key[v] = std::isnan(data.values(v, i)) ? -1 : data.values(v, i);  // only categories are missing
    const auto [place, fresh] = known.try_emplace(key, static_cast<Index>(kept.size()));
    if (fresh) {
      kept.push_back(i);
      weight.push_back(0);
    }
    weight[place->second] += data.weight[j] * data.counts[i];
  }
  const auto J = static_cast<Index>(kept.size());
  auto out = std::make_shared<OrderedData>(data);
  out->weight = Eigen::Map<const Vector>(weight.data(), J);
  out->values = select_cols(data.values, kept);
  out->counts.setOnes(J);
  out->first.resize(J + 1);
  std::iota(out->first.begin(), out->first.end(), Index{0});
  out->unit_of_row.clear();
  out->cluster_values.resize(0, J);
  return out;
}

class OrderedRowsPoint : public LikelihoodPoint {
 public:
  OrderedRowsPoint(const OrderedRows& whole, std::unique_ptr<LikelihoodPoint> levels)
      : whole_(whole), levels_(std::move(levels)) {
    value_ = levels_->value();
  }
  Implied gradient() const override { return whole_.joined(levels_->gradient()); }
  LevelBlocks information(Information kind, const LevelTangents& tangents) const override {
    const LevelBlocks parts = levels_->information(kind, whole_.split(tangents));
    LevelBlocks out(1);
    out(0, 0) = parts(0, 0) + parts(0, 1) + parts(0, 1).transpose() + parts(1, 1);
    return out;
  }
  std::vector<Matrix> factor(const LevelTangents& tangents) const override {
    const std::vector<Matrix> parts = levels_->factor(whole_.split(tangents));
    return {parts[0] + parts[1]};
  }

 private:
  const OrderedRows& whole_;
  std::unique_ptr<LikelihoodPoint> levels_;
};

}  // namespace

OrderedRows::OrderedRows(const std::shared_ptr<const OrderedData>& data)
    : each_(std::make_shared<OrderedLikelihood>(data)),
      different_(std::make_shared<OrderedLikelihood>(different_rows(*data))),
      first_(data->p + data->latent),
      cuts_(data->ncuts) {
  if (data->nboth || data->q || data->latent_b || data->nslopes() || !data->integrated.empty())
    throw std::invalid_argument("rows of one level have no second one");
  std::iota(first_.begin(), first_.end(), Index{0});
  std::iota(cuts_.begin(), cuts_.end(), data->p + data->latent);
}

Layout OrderedRows::layout() const {
  Layout out{{first_}, static_cast<Index>(first_.size() + cuts_.size())};
  out.levels[0].insert(out.levels[0].end(), cuts_.begin(), cuts_.end());
  return out;
}

Implied OrderedRows::split(const Implied& moments) const {
  const LevelImplied& one = moments.front();
  const auto n = static_cast<Index>(first_.size()), k = static_cast<Index>(cuts_.size());
  if (moments.size() != 1 || one.mean.size() != n + k)
    throw std::invalid_argument("the blocks do not have the variables of the statistics");
  return {{one.mean.head(n), one.cov.topLeftCorner(n, n)},
          {one.mean.tail(k), one.cov.bottomRightCorner(k, k)}};
}

LevelTangents OrderedRows::split(const LevelTangents& tangents) const {
  return {rows_of(tangents.front(), first_), rows_of(tangents.front(), cuts_)};
}

Implied OrderedRows::joined(Implied levels) const {
  const auto n = static_cast<Index>(first_.size()), k = static_cast<Index>(cuts_.size());
  LevelImplied out{Vector(n + k), Matrix::Zero(n + k, n + k)};
  out.mean << levels[0].mean, levels[1].mean;
  out.cov.topLeftCorner(n, n) = levels[0].cov;
  out.cov.bottomRightCorner(k, k) = levels[1].cov;
  return {std::move(out)};
}

std::unique_ptr<LikelihoodPoint> OrderedRows::at(Implied moments) const {
  auto levels = different_->at(split(moments));
  if (!levels) return nullptr;
  return std::make_unique<OrderedRowsPoint>(*this, std::move(levels));
}

OrderedRowsClusters::OrderedRowsClusters(std::shared_ptr<const OrderedRows> whole)
    : whole_(std::move(whole)), rows_(whole_->each(), Matrix(whole_->each()->data().nclusters(), 0)) {}

std::vector<Matrix> OrderedRowsClusters::scores(const Implied& moments, const LevelTangents& tangents) const {
  const std::vector<Matrix> parts = rows_.scores(whole_->split(moments), whole_->split(tangents));
  if (parts.empty()) return {};
  return {parts[0] + parts[1]};
}

std::shared_ptr<const Likelihood> OrderedRowsClusters::alone(Index cluster) const {
  const OrderedData& data = whole_->each()->data();
  return std::make_shared<OrderedRows>(
      std::make_shared<const OrderedData>(single_cluster(data, Matrix(data.nclusters(), 0), cluster)));
}

std::shared_ptr<const Likelihood> OrderedRowsClusters::weighted(const Vector& weights) const {
  const OrderedData& data = whole_->each()->data();
  return std::make_shared<OrderedRows>(
      std::make_shared<const OrderedData>(msem::weighted(data, Matrix(data.nclusters(), 0), weights)));
}

}  // namespace msem
