#include "fit/objective.hpp"

#include <limits>
#include <stdexcept>

namespace msem {

namespace {

void scatter_add(const Matrix& part, const std::vector<int>& rows, const std::vector<int>& cols,
                 Matrix& out) {
  for (std::size_t j = 0; j < cols.size(); ++j) {
    for (std::size_t i = 0; i < rows.size(); ++i) out(rows[i], cols[j]) += part(i, j);
  }
}

void scatter_columns(const Matrix& part, const std::vector<int>& cols, Eigen::Ref<Matrix> out) {
  for (std::size_t j = 0; j < cols.size(); ++j) out.col(cols[j]) += part.col(j);
}

const TwoLevelPoint& two_level(const LossPoint& point) {
  const auto* found = dynamic_cast<const TwoLevelPoint*>(&point);
  if (!found) throw std::invalid_argument("cluster contributions need a two-level likelihood");
  return *found;
}

}  // namespace

Objective::Objective(int npar, std::vector<Block> blocks, std::vector<Group> groups)
    : npar_(npar), blocks_(std::move(blocks)), groups_(std::move(groups)) {
  for (const Block& b : blocks_) {
    if (!b.parameters().empty() && b.parameters().back() >= npar)
      throw std::invalid_argument("a block refers to a parameter beyond npar");
  }
  const int count = static_cast<int>(blocks_.size());
  for (const Group& g : groups_) {
    if (!g.loss || g.between < 0 || g.between >= count || g.within >= count)
      throw std::invalid_argument("a group needs a loss and a between block");
  }
}

void Objective::require_length(ConstVectorRef theta) const {
  if (theta.size() != npar_) throw std::invalid_argument("theta has the wrong length");
}

bool Objective::prepare(ConstVectorRef theta, State& state) const {
  require_length(theta);
  // An infinite path can leave finite moments behind.
  if (!theta.allFinite()) return false;
  state.blocks.resize(blocks_.size());
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    if (!blocks_[b].evaluate(theta, state.blocks[b])) return false;
  }
  for (const Group& g : groups_) {
    Moments moments;
    if (g.within >= 0) {
      const Index n = blocks_[g.within].nobserved();
      moments.mean_w = state.blocks[g.within].mean.head(n);
      moments.cov_w = state.blocks[g.within].total.topLeftCorner(n, n);
    }
    const Index n = blocks_[g.between].nobserved();
    moments.mean_b = state.blocks[g.between].mean.head(n);
    moments.cov_b = state.blocks[g.between].total.topLeftCorner(n, n);
    auto point = g.loss->at(moments);
    if (!point) return false;
    state.value += point->value();
    state.groups.push_back(std::move(point));
  }
  return true;
}

const std::vector<int>& Objective::parameters(int block) const {
  return block < 0 ? none_ : blocks_[block].parameters();
}

Tangents Objective::tangents(const State& state, int block) const {
  if (block < 0) return {};
  return blocks_[block].tangents(state.blocks[block]);
}

double Objective::value(ConstVectorRef theta) const {
  State state;
  return prepare(theta, state) ? state.value : std::numeric_limits<double>::infinity();
}

Evaluation Objective::evaluate(ConstVectorRef theta) const {
  const auto point = std::make_shared<State>();
  State& state = *point;
  Evaluation out;
  out.gradient.setConstant(npar_, std::numeric_limits<double>::quiet_NaN());
  out.value = std::numeric_limits<double>::infinity();
  if (!prepare(theta, state)) return out;
  out.gradient.setZero();
  out.point = point;
  out.in_domain = true;
  out.value = state.value;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Group& g = groups_[i];
    state.gradients.push_back(state.groups[i]->gradient());
    const Moments& m = state.gradients.back();
    if (g.within >= 0) blocks_[g.within].pull_back(state.blocks[g.within], m.mean_w, m.cov_w, out.gradient);
    blocks_[g.between].pull_back(state.blocks[g.between], m.mean_b, m.cov_b, out.gradient);
  }
  return out;
}

Matrix Objective::gather(const BlockInformation& part, const Group& group, Matrix total) const {
  const auto& w = parameters(group.within);
  const auto& b = parameters(group.between);
  scatter_add(part.ww, w, w, total);
  scatter_add(part.bb, b, b, total);
  scatter_add(part.wb, w, b, total);
  scatter_add(part.wb.transpose(), b, w, total);
  return total;
}

Matrix Objective::information(ConstVectorRef theta, Kind kind) const {
  State state;
  return prepare(theta, state) ? information(state, kind) : Matrix();
}

Matrix Objective::information(const State& state, Kind kind) const {
  Matrix out = Matrix::Zero(npar_, npar_);
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Group& g = groups_[i];
    out = gather(((*state.groups[i]).*kind)(tangents(state, g.within), tangents(state, g.between)), g,
                 std::move(out));
  }
  return out;
}

Matrix Objective::expected_information(ConstVectorRef theta) const {
  return information(theta, &LossPoint::expected);
}

Matrix Objective::approximate_information(ConstVectorRef theta) const {
  return information(theta, &LossPoint::approximate);
}

Matrix Objective::expected_information(const ObjectivePoint& at) const {
  return information(at, &LossPoint::expected);
}

Matrix Objective::approximate_information(const ObjectivePoint& at) const {
  return information(at, &LossPoint::approximate);
}

std::vector<Moments> Objective::gradients(const State& state, const std::vector<int>& intercepts) const {
  std::vector<Moments> out = state.gradients;
  for (std::size_t g = out.size(); g < state.groups.size(); ++g) out.push_back(state.groups[g]->gradient());
  settle_gradient(state.blocks, intercepts, out);
  return out;
}

Matrix Objective::observed_information(ConstVectorRef theta, const std::vector<int>& intercepts) const {
  State state;
  return prepare(theta, state) ? observed_information(state, intercepts) : Matrix();
}

Matrix Objective::observed_information(const ObjectivePoint& state,
                                       const std::vector<int>& intercepts) const {
  const std::vector<Moments> all = gradients(state, intercepts);
  Matrix out = Matrix::Zero(npar_, npar_);
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Group& g = groups_[i];
    const LossPoint& point = *state.groups[i];
    BlockInformation part = point.observed(tangents(state, g.within), tangents(state, g.between));
    const Moments& m = all[i];
    if (g.within >= 0)
      part.ww += 0.5 * blocks_[g.within].curvature(state.blocks[g.within], m.mean_w, m.cov_w);
    part.bb += 0.5 * blocks_[g.between].curvature(state.blocks[g.between], m.mean_b, m.cov_b);
    out = gather(part, g, std::move(out));
  }
  return out;
}

Matrix Objective::moment_information(ConstVectorRef theta) const {
  return information(theta, &LossPoint::observed);
}

Matrix Objective::observed_information_in(ConstVectorRef theta, const Matrix& basis) const {
  State state;
  if (basis.rows() != npar_) throw std::invalid_argument("the basis must have one row per parameter");
  if (!prepare(theta, state)) return {};
  std::vector<int> moved;
  for (const int k : intercepts()) {
    if (!basis.row(k).isZero(0)) moved.push_back(k);
  }
  const std::vector<Moments> all = gradients(state, moved);
  Matrix out = Matrix::Zero(basis.cols(), basis.cols());
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const LossPoint& point = *state.groups[i];
    const Moments& m = all[i];
    Tangents parts[2] = {tangents(state, groups_[i].within), tangents(state, groups_[i].between)};
    const Vector* means[2] = {&m.mean_w, &m.mean_b};
    const Matrix* covs[2] = {&m.cov_w, &m.cov_b};
    const int index[2] = {groups_[i].within, groups_[i].between};
    for (int level = 0; level < 2; ++level) {
      if (index[level] < 0) continue;
      const Block& block = blocks_[index[level]];
      const Matrix local = basis(block.parameters(), Eigen::all);
      parts[level].mean *= local;
      parts[level].basis = local;
      out += 0.5 * local.transpose() *
             block.curvature(state.blocks[index[level]], *means[level], *covs[level]) * local;
    }
    if (index[0] >= 0) {
      // Huge derivatives of the within and the between mean cancel in their sum, which is all that counts.
      const Index both = groups_[i].loss->nboth();
      parts[1].mean.topRows(both) += parts[0].mean.topRows(both);
      parts[0].mean.topRows(both).setZero();
    }
    const BlockInformation part = point.observed(parts[0], parts[1]);
    out += part.bb;
    if (index[0] >= 0) out += part.ww + part.wb + part.wb.transpose();
  }
  return out;
}

Matrix Objective::information_factor(ConstVectorRef theta) const {
  State state;
  if (!prepare(theta, state)) return {};
  std::vector<std::pair<Matrix, Matrix>> parts;
  Index height = 0;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Group& g = groups_[i];
    parts.push_back(state.groups[i]->factor(tangents(state, g.within), tangents(state, g.between)));
    height += parts.back().second.rows();
  }
  Matrix out = Matrix::Zero(height, npar_);
  Index at = 0;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const Index rows = parts[i].second.rows();
    if (groups_[i].within >= 0)
      scatter_columns(parts[i].first, parameters(groups_[i].within), out.middleRows(at, rows));
    scatter_columns(parts[i].second, parameters(groups_[i].between), out.middleRows(at, rows));
    at += rows;
  }
  return out;
}

Matrix Objective::spread(const std::pair<Matrix, Matrix>& scores, const Group& group) const {
  Matrix out = Matrix::Zero(scores.second.rows(), npar_);
  scatter_columns(scores.first, parameters(group.within), out);
  scatter_columns(scores.second, parameters(group.between), out);
  return out;
}

Matrix Objective::scores(ConstVectorRef theta, const ClusterData& clusters, int group) const {
  State state;
  if (!prepare(theta, state)) return {};
  const Group& g = groups_.at(group);
  const TwoLevelPoint& point = two_level(*state.groups[group]);
  return spread(point.scores(clusters, tangents(state, g.within), tangents(state, g.between)), g);
}

Vector Objective::cluster_loglik(ConstVectorRef theta, const ClusterData& clusters, int group) const {
  State state;
  if (!prepare(theta, state)) return {};
  return two_level(*state.groups.at(group)).cluster_loglik(clusters);
}

Matrix Objective::own_scores(ConstVectorRef theta, const Matrix& products, int group) const {
  State state;
  if (!prepare(theta, state)) return {};
  const Group& g = groups_.at(group);
  return spread(
      state.groups[group]->cluster_scores(products, tangents(state, g.within), tangents(state, g.between)),
      g);
}

Vector Objective::own_cluster_loglik(ConstVectorRef theta, const Matrix& products, int group) const {
  State state;
  if (!prepare(theta, state)) return {};
  return state.groups.at(group)->cluster_loglik(products);
}

bool Objective::implied(ConstVectorRef theta, int block, BlockPoint& point) const {
  require_length(theta);
  return blocks_.at(block).evaluate(theta, point);
}

Matrix Objective::jacobian(ConstVectorRef theta, int block) const {
  BlockPoint point;
  const Block& b = blocks_.at(block);
  require_length(theta);
  if (!b.evaluate(theta, point)) return {};
  const Tangents t = b.tangents(point);
  const Index n = t.n();
  const Matrix cov = rotated_cov(t, Matrix::Identity(n, n));
  Matrix packed(n + n * (n + 1) / 2, t.k());
  packed.topRows(n) = t.mean;
  Index row = n;
  for (Index j = 0; j < n; ++j) {
    for (Index i = j; i < n; ++i) packed.row(row++) = cov.row(i + j * n);
  }
  Matrix out = Matrix::Zero(packed.rows(), npar_);
  scatter_columns(packed, b.parameters(), out);
  return out;
}

}  // namespace msem
