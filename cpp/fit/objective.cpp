#include "fit/objective.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <stdexcept>

#include "base/interrupt.hpp"

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

// Huge derivatives of the means that a variable has at two levels cancel in their sum, which is all that
// counts: it is taken at the upper level alone.
void gather_means(const Layout& layout, LevelTangents& tangents) {
  for (std::size_t l = 0; l + 1 < tangents.size(); ++l) {
    const std::vector<Index>& upper = layout.levels[l + 1];
    for (std::size_t i = 0; i < layout.levels[l].size(); ++i) {
      const auto same = std::find(upper.begin(), upper.end(), layout.levels[l][i]);
      if (same == upper.end()) continue;
      tangents[l + 1].mean.row(same - upper.begin()) += tangents[l].mean.row(i);
      tangents[l].mean.row(i).setZero();
    }
  }
}

}  // namespace

Objective::Objective(int npar, std::vector<Block> blocks, std::vector<Group> groups, Terms terms)
    : npar_(npar), blocks_(std::move(blocks)), groups_(std::move(groups)), terms_(std::move(terms)) {
  for (const auto& term : terms_) {
    if (!term->parameters().empty() && term->parameters().back() >= npar)
      throw std::invalid_argument("a term refers to a parameter beyond npar");
  }
  for (const Block& b : blocks_) {
    if (!b.parameters().empty() && b.parameters().back() >= npar)
      throw std::invalid_argument("a block refers to a parameter beyond npar");
  }
  const int count = static_cast<int>(blocks_.size());
  for (const Group& g : groups_) {
    const bool known =
        std::all_of(g.levels.begin(), g.levels.end(), [&](int b) { return b >= 0 && b < count; });
    if (!g.likelihood || g.levels.empty() || !known)
      throw std::invalid_argument("a group needs a likelihood and a block for each level");
    layouts_.push_back(g.likelihood->layout());
    std::vector<int> own;
    // of two levels one may not be there; of clusters within clusters levels may have no variables
    const bool all = g.levels.size() == layouts_.back().levels.size();
    for (const int b : g.levels) {
      if (all || blocks_[b].nobserved() > 0) own.push_back(b);
    }
    bool fits = own.size() == layouts_.back().levels.size();
    for (std::size_t l = 0; fits && l < own.size(); ++l)
      fits = static_cast<std::size_t>(blocks_[own[l]].nobserved()) == layouts_.back().levels[l].size();
    if (!fits) throw std::invalid_argument("the blocks do not have the variables of the statistics");
    levels_.push_back(std::move(own));
  }
}

void Objective::require_length(ConstVectorRef theta) const {
  if (theta.size() != npar_) throw std::invalid_argument("theta has the wrong length");
}

bool Objective::evaluate_blocks(ConstVectorRef theta, std::vector<BlockPoint>& points) const {
  require_length(theta);
  // An infinite path can leave finite moments behind.
  if (!theta.allFinite()) return false;
  points.resize(blocks_.size());
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    if (!blocks_[b].evaluate(theta, points[b])) return false;
  }
  return true;
}

Implied Objective::implied(const std::vector<BlockPoint>& points, std::size_t group) const {
  Implied out;
  out.reserve(levels_[group].size());
  for (const int b : levels_[group]) {
    const Index n = blocks_[b].nobserved();
    out.push_back({points[b].mean.head(n), points[b].total.topLeftCorner(n, n)});
  }
  return out;
}

LevelTangents Objective::tangents(const std::vector<BlockPoint>& points, std::size_t group) const {
  LevelTangents out;
  out.reserve(levels_[group].size());
  for (const int b : levels_[group]) out.push_back(blocks_[b].tangents(points[b]));
  return out;
}

bool Objective::prepare(ConstVectorRef theta, State& state, std::vector<BlockPoint> known) const {
  if (known.empty() || !theta.allFinite()) {
    if (!evaluate_blocks(theta, state.blocks)) return false;
  } else {
    state.blocks = std::move(known);
  }
  state.groups.reserve(groups_.size());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    auto point = groups_[g].likelihood->at(implied(state.blocks, g));
    if (!point) return false;
    state.value += point->value();
    state.groups.push_back(std::move(point));
  }
  for (const auto& term : terms_) {
    state.terms.emplace_back();
    if (!term->at(theta, state.terms.back())) return false;
    state.value += state.terms.back().value;
  }
  return true;
}

void Objective::keep(const Vector& theta, std::shared_ptr<const ObjectivePoint> point) const {
  std::atomic_store(&kept_, std::make_shared<const Kept>(Kept{theta, std::move(point)}));
}

std::shared_ptr<const ObjectivePoint> Objective::at(ConstVectorRef theta) const {
  const auto kept = std::atomic_load(&kept_);
  if (kept && kept->theta.size() == theta.size() && kept->theta == theta) return kept->point;
  auto state = std::make_shared<State>();
  if (!prepare(theta, *state)) return nullptr;
  return state;
}

Vector Objective::values(const Matrix& thetas) const {
  Vector out(thetas.rows());
  for (Index i = 0; i < thetas.rows(); ++i) {
    if (i % 64 == 0) check_interrupt();
    const Vector theta = thetas.row(i).transpose();
    out[i] = value(theta);
  }
  return out;
}

double Objective::penalty(ConstVectorRef theta) const {
  require_length(theta);
  double out = 0;
  for (const auto& term : terms_) {
    TermPoint point;
    if (!term->at(theta, point)) return std::numeric_limits<double>::infinity();
    out += point.value;
  }
  return out;
}

void Objective::add_terms(const State& state, bool observed, Matrix& total) const {
  for (std::size_t t = 0; t < terms_.size(); ++t) {
    const std::vector<int>& own = terms_[t]->parameters();
    const TermPoint& point = state.terms[t];
    scatter_add(observed ? point.observed : cross(point.factor, point.factor), own, own, total);
  }
}

bool Objective::integrated() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const Group& g) { return g.likelihood->integrated(); });
}

std::optional<Objective> Objective::coarse() const {
  std::vector<Group> groups = groups_;
  bool any = false;
  for (Group& g : groups) {
    std::shared_ptr<const Likelihood> few = g.likelihood->coarse();
    any = any || few;
    if (few) g.likelihood = std::move(few);
  }
  if (!any) return std::nullopt;
  return Objective(npar_, blocks_, std::move(groups), terms_);
}

double Objective::value(ConstVectorRef theta) const {
  const auto state = at(theta);
  return state ? state->value : std::numeric_limits<double>::infinity();
}

Evaluation Objective::evaluate(ConstVectorRef theta, std::vector<BlockPoint> known) const {
  const auto point = std::make_shared<State>();
  State& state = *point;
  Evaluation out;
  out.gradient.setConstant(npar_, std::numeric_limits<double>::quiet_NaN());
  out.value = std::numeric_limits<double>::infinity();
  if (!prepare(theta, state, std::move(known))) return out;
  out.gradient.setZero();
  out.point = point;
  out.in_domain = true;
  out.value = state.value;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    state.gradients.push_back(state.groups[g]->gradient());
    for (std::size_t l = 0; l < levels_[g].size(); ++l) {
      const int b = levels_[g][l];
      const LevelImplied& m = state.gradients.back()[l];
      blocks_[b].pull_back(state.blocks[b], m.mean, m.cov, out.gradient);
    }
  }
  for (std::size_t t = 0; t < terms_.size(); ++t) {
    const std::vector<int>& own = terms_[t]->parameters();
    for (std::size_t i = 0; i < own.size(); ++i) out.gradient[own[i]] += state.terms[t].gradient[i];
  }
  return out;
}

void Objective::gather(const LevelBlocks& part, std::size_t group, Matrix& total) const {
  for (std::size_t a = 0; a < part.levels(); ++a) {
    const std::vector<int>& rows = blocks_[levels_[group][a]].parameters();
    scatter_add(part(a, a), rows, rows, total);
    for (std::size_t b = a + 1; b < part.levels(); ++b) {
      const std::vector<int>& cols = blocks_[levels_[group][b]].parameters();
      scatter_add(part(a, b), rows, cols, total);
      scatter_add(part(a, b).transpose(), cols, rows, total);
    }
  }
}

Matrix Objective::information(ConstVectorRef theta, Information kind) const {
  const auto state = at(theta);
  return state ? information(*state, kind) : Matrix();
}

Matrix Objective::information(const State& state, Information kind) const {
  Matrix out = Matrix::Zero(npar_, npar_);
  for (std::size_t g = 0; g < groups_.size(); ++g)
    gather(state.groups[g]->information(kind, tangents(state.blocks, g)), g, out);
  add_terms(state, false, out);
  return out;
}

Matrix Objective::expected_information(ConstVectorRef theta) const {
  return information(theta, Information::kExpected);
}

Matrix Objective::approximate_information(ConstVectorRef theta) const {
  return information(theta, Information::kApproximate);
}

Matrix Objective::expected_information(const ObjectivePoint& at) const {
  return information(at, Information::kExpected);
}

Matrix Objective::approximate_information(const ObjectivePoint& at) const {
  return information(at, Information::kApproximate);
}

std::vector<Implied> Objective::gradients(const State& state, const std::vector<int>& intercepts) const {
  std::vector<Implied> out = state.gradients;
  for (std::size_t g = out.size(); g < state.groups.size(); ++g) out.push_back(state.groups[g]->gradient());
  settle_gradient(state.blocks, intercepts, out);
  return out;
}

Matrix Objective::observed_information(ConstVectorRef theta, const std::vector<int>& intercepts) const {
  const auto state = at(theta);
  return state ? observed_information(*state, intercepts) : Matrix();
}

Matrix Objective::observed_information(const ObjectivePoint& state,
                                       const std::vector<int>& intercepts) const {
  return curved_information(state, intercepts,
                            std::vector<Information>(groups_.size(), Information::kObserved));
}

Matrix Objective::step_information(const ObjectivePoint& state, const std::vector<int>& intercepts) const {
  std::vector<Information> kinds;
  for (const Group& g : groups_) kinds.push_back(g.likelihood->step_information());
  return curved_information(state, intercepts, kinds);
}

bool Objective::exact_steps() const {
  return std::all_of(groups_.begin(), groups_.end(), [](const Group& g) {
    return g.likelihood->step_information() == Information::kObserved;
  });
}

// With the curvature of the moments about the parameters.
Matrix Objective::curved_information(const State& state, const std::vector<int>& intercepts,
                                     const std::vector<Information>& kinds) const {
  const std::vector<Implied> all = gradients(state, intercepts);
  Matrix out = Matrix::Zero(npar_, npar_);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    LevelBlocks part = state.groups[g]->information(kinds[g], tangents(state.blocks, g));
    for (std::size_t l = 0; l < levels_[g].size(); ++l) {
      const int b = levels_[g][l];
      part(l, l) += 0.5 * blocks_[b].curvature(state.blocks[b], all[g][l].mean, all[g][l].cov);
    }
    gather(part, g, out);
  }
  add_terms(state, true, out);
  return out;
}

Matrix Objective::moment_information(ConstVectorRef theta) const {
  return information(theta, Information::kObserved);
}

Matrix Objective::observed_information_in(ConstVectorRef theta, const Matrix& basis) const {
  if (basis.rows() != npar_) throw std::invalid_argument("the basis must have one row per parameter");
  const auto point = at(theta);
  if (!point) return {};
  const State& state = *point;
  std::vector<int> moved;
  for (const int k : intercepts()) {
    if (!basis.row(k).isZero(0)) moved.push_back(k);
  }
  const std::vector<Implied> all = gradients(state, moved);
  Matrix out = Matrix::Zero(basis.cols(), basis.cols());
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    LevelTangents parts = tangents(state.blocks, g);
    for (std::size_t l = 0; l < parts.size(); ++l) {
      const int b = levels_[g][l];
      const Matrix local = basis(blocks_[b].parameters(), Eigen::all);
      parts[l].mean = product(parts[l].mean, local);
      parts[l].basis = local;
      out += 0.5 * sandwich(local, blocks_[b].curvature(state.blocks[b], all[g][l].mean, all[g][l].cov));
    }
    gather_means(layouts_[g], parts);
    const LevelBlocks part = state.groups[g]->information(Information::kObserved, parts);
    for (std::size_t a = 0; a < part.levels(); ++a) {
      out += part(a, a);
      for (std::size_t b = a + 1; b < part.levels(); ++b) out += part(a, b) + part(a, b).transpose();
    }
  }
  if (!terms_.empty()) {
    Matrix own = Matrix::Zero(npar_, npar_);
    add_terms(state, true, own);
    out += sandwich(basis, own);
  }
  return out;
}

Matrix Objective::information_factor(ConstVectorRef theta) const {
  const auto point = at(theta);
  if (!point) return {};
  const State& state = *point;
  std::vector<std::vector<Matrix>> parts;
  Index height = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    parts.push_back(state.groups[g]->factor(tangents(state.blocks, g)));
    height += parts.back().front().rows();
  }
  for (const TermPoint& point : state.terms) height += point.factor.rows();
  Matrix out = Matrix::Zero(height, npar_);
  Index at = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const Index rows = parts[g].front().rows();
    for (std::size_t l = 0; l < parts[g].size(); ++l)
      scatter_columns(parts[g][l], blocks_[levels_[g][l]].parameters(), out.middleRows(at, rows));
    at += rows;
  }
  for (std::size_t t = 0; t < terms_.size(); ++t) {
    const Matrix& own = state.terms[t].factor;
    scatter_columns(own, terms_[t]->parameters(), out.middleRows(at, own.rows()));
    at += own.rows();
  }
  return out;
}

Matrix Objective::scores(ConstVectorRef theta, const Clusters& clusters, int group) const {
  std::vector<BlockPoint> points;
  const std::vector<int>& own = levels_.at(group);
  if (!evaluate_blocks(theta, points)) return {};
  const std::vector<Matrix> parts = clusters.scores(implied(points, group), tangents(points, group));
  if (parts.empty()) return {};
  Matrix out = Matrix::Zero(parts.front().rows(), npar_);
  for (std::size_t l = 0; l < parts.size(); ++l) scatter_columns(parts[l], blocks_[own[l]].parameters(), out);
  return out;
}

Matrix Objective::score_products(ConstVectorRef theta, const Clusters& clusters, int group,
                                 const Vector& weights, const Matrix& basis) const {
  Matrix rows = scores(theta, clusters, group);
  if (!rows.size()) return {};
  if (weights.size() && weights.size() != rows.rows())
    throw std::invalid_argument("every cluster needs a weight");
  if (basis.size()) rows = product(rows, basis);
  return weights.size() ? weighted_cross(rows, weights, rows) : cross(rows, rows);
}

Vector Objective::cluster_loglik(ConstVectorRef theta, const Clusters& clusters, int group) const {
  std::vector<BlockPoint> points;
  levels_.at(group);
  return evaluate_blocks(theta, points) ? clusters.loglik(implied(points, group)) : Vector();
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
