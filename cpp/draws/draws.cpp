#include "draws/draws.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "base/triangle.hpp"

namespace msem {

namespace {

// A sum of squares that falls below this share of itself when a cluster is taken out has lost too many
// digits.
constexpr double kCancelled = 1e-3;

Index unit_count(Index packed) {
  Index p = 0;
  while (p * (p + 1) / 2 < packed) ++p;
  if (p * (p + 1) / 2 != packed) throw std::invalid_argument("within products must be lower triangles");
  return p;
}

// A point inside the data, whatever a single cluster may be.
Vector median_of(Matrix values) {
  Vector out(values.cols());
  const Index half = values.rows() / 2;
  for (Index k = 0; k < values.cols(); ++k) {
    double* column = values.col(k).data();
    std::nth_element(column, column + half, column + values.rows());
    out[k] = column[half];
  }
  return out;
}

bool kept_digits(const Matrix& after, const Matrix& before) {
  return (after.diagonal().array() >= kCancelled * before.diagonal().array()).all();
}

}  // namespace

ClusterPool::ClusterPool(const ClusterData& clusters, PoolForm form)
    : p_(unit_count(clusters.within.cols())),
      m_(clusters.means.cols()),
      form_(form),
      sizes_(clusters.sizes),
      within_(clusters.within.transpose()),
      order_(clusters.sizes.size()) {
  const Index J = sizes_.size();
  if (J == 0 || clusters.means.rows() != J || clusters.within.rows() != J || p_ > m_)
    throw std::invalid_argument("statistics of clusters have inconsistent shapes");
  if (form_.single_level && p_ != m_)
    throw std::invalid_argument("one level needs all variables on its units");
  origin_ = median_of(clusters.means);
  values_ = (clusters.means.rowwise() - origin_.transpose()).transpose();
  std::iota(order_.begin(), order_.end(), Index{0});
  std::stable_sort(order_.begin(), order_.end(), [&](Index a, Index b) { return sizes_[a] < sizes_[b]; });
  for (Index i = 0; i < J; ++i) {
    if (i == 0 || sizes_[order_[i]] != sizes_[order_[i - 1]]) by_.push_back({i, i});
    by_.back().last = i + 1;
  }
  const bool centred = std::exchange(form_.centred, false);
  all_ = weighted(Vector::Ones(J));
  form_.centred = centred;
}

Matrix ClusterPool::pooled_within(const Vector& weights) const {
  return unpack_lower(apply(within_, weights).transpose().eval(), 0, p_);
}

SimpleStatistics ClusterPool::about_mean(const SizeClass& one, const Vector& weights, double& count) const {
  SimpleStatistics out{Vector::Zero(m_), Matrix::Zero(m_, m_)};
  count = 0;
  std::vector<Index> used;
  for (Index i = one.first; i < one.last; ++i) {
    const Index j = order_[i];
    if (!(weights[j] > 0)) continue;
    used.push_back(j);
    count += weights[j];
    out.mean += weights[j] * values_.col(j);
  }
  if (used.empty()) return out;
  out.mean /= count;
  Matrix deviations(m_, static_cast<Index>(used.size()));
  for (std::size_t k = 0; k < used.size(); ++k)
    deviations.col(k) = std::sqrt(weights[used[k]]) * (values_.col(used[k]) - out.mean);
  add_to_triangle(out.scatter, deviations);
  complete(out.scatter);
  return out;
}

void ClusterPool::append(double size, double count, const SimpleStatistics& one,
                         TwoLevelStatistics& out) const {
  const Index s = out.sizes.size();
  out.sizes.conservativeResize(s + 1);
  out.counts.conservativeResize(s + 1);
  out.means.conservativeResize(s + 1, m_);
  out.sizes[s] = size;
  out.counts[s] = count;
  out.means.row(s) = form_.centred ? Vector(Vector::Zero(m_)) : Vector(one.mean + origin_);
  out.scatter.insert(out.scatter.end(), one.scatter.data(), one.scatter.data() + m_ * m_);
}

TwoLevelStatistics ClusterPool::weighted(const Vector& weights) const {
  if (form_.single_level) return one_level(weights);
  TwoLevelStatistics out;
  for (const SizeClass& one : by_) {
    double count = 0;
    const SimpleStatistics found = about_mean(one, weights, count);
    if (count > 0) append(sizes_[order_[one.first]], count, found, out);
  }
  out.ssw = pooled_within(weights);
  return out;
}

// All rows about their mean: within products, and those of the cluster means counted by size.
TwoLevelStatistics ClusterPool::one_level(const Vector& weights) const {
  const Vector rows = weights.cwiseProduct(sizes_);
  double count = 0;
  SimpleStatistics found = about_mean({0, nclusters()}, rows, count);
  found.scatter += pooled_within(weights);
  TwoLevelStatistics out;
  append(1, count, found, out);
  out.ssw.resize(0, 0);
  return out;
}

Index ClusterPool::distinct(const Vector& weights, const TwoLevelStatistics& drawn) const {
  if (form_.single_level) return static_cast<Index>(drawn.counts.sum());
  return (weights.array() > 0).count();
}

TwoLevelStatistics ClusterPool::without(Index cluster) const {
  if (nclusters() < 2) throw std::invalid_argument("one cluster cannot be left out");
  if (!form_.single_level) {
    TwoLevelStatistics out = downdated(cluster);
    if (out.sizes.size() > 0) return out;
  }
  Vector weights = Vector::Ones(nclusters());
  weights[cluster] = 0;
  return weighted(weights);
}

// Takes one cluster out of the statistics of all; empty where that would cost digits.
TwoLevelStatistics ClusterPool::downdated(Index cluster) const {
  const auto at = std::lower_bound(all_.sizes.data(), all_.sizes.data() + all_.sizes.size(), sizes_[cluster]);
  const Index s = at - all_.sizes.data(), square = m_ * m_;
  const double n = all_.counts[s];
  TwoLevelStatistics out = all_;
  if (n < 2) return {};
  out.counts[s] = n - 1;
  const Vector value = values_.col(cluster) + origin_;
  const Vector deviation = value - all_.means.row(s).transpose();
  out.means.row(s) -= deviation.transpose() / (n - 1);
  const Eigen::Map<const Matrix> before(all_.scatter.data() + s * square, m_, m_);
  Eigen::Map<Matrix> after(out.scatter.data() + s * square, m_, m_);
  add_outer(after, -n / (n - 1), deviation, deviation);
  out.ssw -= unpack_lower(within_.col(cluster).transpose(), 0, p_);
  if (!kept_digits(after, before) || !kept_digits(out.ssw, all_.ssw)) return {};
  if (form_.centred) out.means.setZero();
  return out;
}

GroupDraw Pool::draw_without(Index cluster) const {
  if (nclusters() < 2) throw std::invalid_argument("one cluster cannot be left out");
  Vector weights = Vector::Ones(nclusters());
  weights[cluster] = 0;
  return draw(weights);
}

GroupDraw ClusterPool::draw(const Vector& weights) const {
  TwoLevelStatistics drawn = weighted(weights);
  const Index different = distinct(weights, drawn);
  return {std::move(drawn), different};
}

GroupDraw ClusterPool::draw_without(Index cluster) const {
  TwoLevelStatistics left = without(cluster);
  const Index rows = static_cast<Index>(left.counts.sum());
  return {std::move(left), form_.single_level ? rows : nclusters() - 1};
}

IncompletePool::IncompletePool(std::shared_ptr<const IncompleteData> data, Matrix products,
                               std::vector<Index> unit)
    : data_(std::move(data)), products_(std::move(products)), unit_(std::move(unit)) {
  if (static_cast<Index>(unit_.size()) != data_->nclusters() || unit_.empty())
    throw std::invalid_argument("there must be something to draw for every cluster");
  if (*std::min_element(unit_.begin(), unit_.end()) < 0)
    throw std::invalid_argument("what is drawn is counted from 0");
  nunits_ = *std::max_element(unit_.begin(), unit_.end()) + 1;
}

GroupDraw IncompletePool::draw(const Vector& weights) const {
  Vector own(data_->nclusters());
  for (Index j = 0; j < own.size(); ++j) own[j] = weights[unit_[j]];
  return {std::make_shared<const IncompleteData>(weighted(*data_, products_, own)),
          (own.array() > 0).count()};
}

NestedPool::NestedPool(std::shared_ptr<const NestedData> data, std::vector<Index> place)
    : data_(std::move(data)), place_(std::move(place)) {
  std::vector<bool> seen(place_.size(), false);
  for (const Index k : place_) {
    if (k < 0 || k >= static_cast<Index>(seen.size()) || seen[k])
      throw std::invalid_argument("every cluster has a place of its own");
    seen[k] = true;
  }
  if (!data_ || static_cast<Index>(place_.size()) != data_->nclusters())
    throw std::invalid_argument("every cluster has a place of its own");
}

GroupDraw NestedPool::draw(const Vector& weights) const {
  return shared_draw(weighted_nested(*data_, select(weights, place_)));
}

Vector OrdinaryDraws::weights(std::uint64_t replicate, Index group) const {
  RandomStream random(seed_, replicate, static_cast<std::uint32_t>(group));
  const Index J = groups_.at(group)->nclusters();
  Vector out = Vector::Zero(J);
  for (Index j = 0; j < J; ++j) out[random.below(static_cast<std::uint32_t>(J))] += 1;
  return out;
}

std::vector<GroupDraw> OrdinaryDraws::draw(std::uint64_t replicate) const {
  std::vector<GroupDraw> out;
  for (Index g = 0; g < ngroups(); ++g) out.push_back(groups_[g]->draw(weights(replicate, g)));
  return out;
}

LeaveOneOut::LeaveOneOut(Pools groups) : groups_(std::move(groups)) {
  for (const auto& g : groups_) whole_.push_back(g->draw(Vector::Ones(g->nclusters())));
}

std::vector<GroupDraw> LeaveOneOut::draw(std::uint64_t replicate) const {
  std::vector<GroupDraw> out = whole_;
  Index cluster = static_cast<Index>(replicate);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Index J = groups_[g]->nclusters();
    if (cluster < J) {
      out[g] = groups_[g]->draw_without(cluster);
      return out;
    }
    cluster -= J;
  }
  throw std::invalid_argument("there are fewer clusters to leave out");
}

}  // namespace msem
