#include "likelihood/cells/cells.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "base/threads.hpp"
#include "likelihood/domain.hpp"

namespace msem {

namespace {

constexpr Index kPieces = 16;        // at most
constexpr Index kPieceWork = 512;    // cells and clusters in a piece, at least
constexpr Index kThreadWork = 4096;  // cells and clusters from which threads pay

// The cells of a cluster, comparable: clusters of a class have equal ones.
class CellOrder {
 public:
  explicit CellOrder(const IncompleteData& data) : d_(&data) {}
  int compare(Index a, Index b) const {
    if (const int sign = three_way(d_->cluster_pattern[a], d_->cluster_pattern[b])) return sign;
    Index i = d_->first_cell[a], j = d_->first_cell[b];
    const Index end_a = d_->first_cell[a + 1], end_b = d_->first_cell[b + 1];
    for (; i < end_a && j < end_b; ++i, ++j) {
      if (const int sign = three_way(d_->cell_pattern[i], d_->cell_pattern[j])) return sign;
      if (const int sign = three_way(d_->cell_rows[i], d_->cell_rows[j])) return sign;
    }
    return three_way(end_a - i, end_b - j);
  }

 private:
  template <class T>
  static int three_way(T a, T b) {
    return a < b ? -1 : a > b ? 1 : 0;
  }
  const IncompleteData* d_;
};

}  // namespace

MissingIndex::MissingIndex(const IncompleteData& data) {
  const Index total = data.nclusters();
  std::vector<Index> order;
  for (Index j = 0; j < total; ++j) {
    if (data.weight[j] != 0) order.push_back(j);
  }
  const CellOrder cells(data);
  std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return cells.compare(a, b) < 0; });
  for (const Index j : order) {
    if (classes.empty() || cells.compare(classes.back().members[0], j) != 0)
      classes.push_back({data.cluster_pattern[j], 0, {}});
    classes.back().weight += data.weight[j];
    classes.back().members.push_back(j);
  }
  const auto work = [&](const ClusterClass& c) {
    const Index j = c.members[0];
    return static_cast<Index>(c.members.size()) * (data.first_cell[j + 1] - data.first_cell[j] + 1);
  };
  Index all = 0;
  for (const ClusterClass& c : classes) all += work(c);
  const Index share = std::max(kPieceWork, (all + kPieces - 1) / kPieces);
  pieces.push_back(0);
  Index done = 0;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    done += work(classes[c]);
    if (done >= share || c + 1 == classes.size()) {
      pieces.push_back(static_cast<Index>(c) + 1);
      done = 0;
    }
  }
  for (std::size_t t = 0; t < data.cluster_patterns.size(); ++t) {
    const Pattern& seen = data.cluster_patterns[t];
    const Index q = static_cast<Index>(seen.size());
    std::vector<Index> at(data.nboth);
    std::iota(at.begin(), at.end(), Index{0});
    for (const Index k : seen) at.push_back(data.nboth + k);
    rows.push_back(std::move(at));
    double count = 0;
    Vector mean = Vector::Zero(q);
    for (Index j = 0; j < total; ++j) {
      if (data.cluster_pattern[j] != static_cast<Index>(t)) continue;
      count += data.weight[j];
      for (Index k = 0; k < q; ++k) mean[k] += data.weight[j] * data.cluster_values(seen[k], j);
    }
    if (count > 0) mean /= count;
    Matrix scatter = Matrix::Zero(q, q);
    Vector off(q);
    for (Index j = 0; j < total; ++j) {
      if (data.cluster_pattern[j] != static_cast<Index>(t)) continue;
      for (Index k = 0; k < q; ++k) off[k] = data.cluster_values(seen[k], j) - mean[k];
      add_outer(off.data(), q, data.weight[j], scatter.data());
    }
    z_count.push_back(count);
    z_mean.push_back(std::move(mean));
    z_scatter.push_back(std::move(scatter));
  }
}

// What one piece of the work adds up to.
struct MissingPoint::Sums {
  bool in_domain = true;
  double value = 0;
  Vector u;  // p
  std::vector<Matrix> residual_products, posterior_sums;
  std::vector<Canonical> between;
};

std::unique_ptr<LikelihoodPoint> IncompleteLikelihood::at(Implied moments) const {
  auto point = std::make_unique<MissingPoint>();
  if (!prepare(std::move(moments), *point)) return nullptr;
  return point;
}

bool MissingPoint::prepare(const IncompleteData& data, const MissingIndex& index, const Moments& moments) {
  data_ = &data;
  index_ = &index;
  shape_ = {data.p, data.nboth, data.q};
  value_ = 0;
  if (!prepare_levels(moments) || !prepare_patterns(moments)) return false;
  const Index count = static_cast<Index>(index.pieces.size()) - 1;
  std::vector<Sums> sums(std::max<Index>(count, 0));
  if (data.p) {
    const bool many = data.ncells() + data.nclusters() >= kThreadWork;
    in_threads(count, many ? 0 : 1, [&](std::ptrdiff_t i) { sums[i].in_domain = sum_classes(i, sums[i]); });
    for (const Sums& s : sums) {
      if (!s.in_domain) return false;
      value_ += s.value;
    }
  }
  gradient_ = collect(sums);
  return std::isfinite(value_);
}

bool MissingPoint::prepare_levels(const Moments& moments) {
  const IncompleteData& d = *data_;
  const Index b = d.nboth;
  mu_ = moments.mean_w - d.origin.head(d.p);
  mu_.head(b) += moments.mean_b.head(b);
  for (std::size_t t = 0; t < index_->rows.size(); ++t) {
    const std::vector<Index>& rows = index_->rows[t];
    const Index q = static_cast<Index>(rows.size()) - b;
    Vector mean = select(moments.mean_b, rows);
    for (Index k = b; k < b + q; ++k) mean[k] -= d.origin[d.p + rows[k] - b];
    ConditionalLevel level;
    if (!level.compute(select(moments.cov_b, rows, rows), mean, b)) return false;
    level.part = {index_->z_count[t], Vector(q), Matrix(q, q)};
    if (q) {
      level.part.residual = level.chol_z.whiten(index_->z_mean[t] - level.mu_z);
      const Matrix half = level.chol_z.whiten(index_->z_scatter[t]);
      level.part.scatter = level.chol_z.whiten(half.transpose());
      add_outer(level.part.scatter, level.part.count, level.part.residual, level.part.residual);
      value_ += level.part.count * (static_cast<double>(q) * kLog2Pi + level.chol_z.log_det()) +
                level.part.scatter.trace();
    }
    levels_.push_back(std::move(level));
  }
  return std::isfinite(value_) || !levels_.size();
}

bool MissingPoint::prepare_patterns(const Moments& moments) {
  const IncompleteData& d = *data_;
  const std::size_t count = d.unit_patterns.size();
  log_dets_.resize(static_cast<Index>(count));
  Cholesky chol;
  if (d.p && !(chol.compute(moments.cov_w) && regular(chol, moments.cov_w.diagonal()))) return false;
  for (std::size_t r = 0; r < count; ++r) {
    const Pattern& seen = d.unit_patterns[r];
    if (!chol.compute(select(moments.cov_w, seen, seen))) return false;
    const Matrix inverse = chol.inverse();
    Matrix weight = Matrix::Zero(d.p, d.p);
    put(weight, seen, seen, inverse);
    log_dets_[static_cast<Index>(r)] = chol.log_det();
    value_ += d.pattern_rows[static_cast<Index>(r)] *
                  (chol.log_det() + static_cast<double>(seen.size()) * kLog2Pi) +
              inverse.cwiseProduct(d.scatter[r]).sum();
    weights_.push_back(std::move(weight));
  }
  return true;
}

bool MissingPoint::sum_classes(Index piece, Sums& s) const {
  const IncompleteData& d = *data_;
  const Index p = d.p, b = d.nboth;
  s.u.setZero(p);
  s.residual_products.assign(d.unit_patterns.size(), Matrix::Zero(p, p));
  s.posterior_sums.assign(d.unit_patterns.size(), Matrix::Zero(b, b));
  for (const ConditionalLevel& level : levels_)
    s.between.push_back({{}, Matrix::Zero(b, b), Vector::Zero(b), Matrix::Zero(b, level.mu_z.size())});
  ClusterEvidence evidence;
  ClusterView one;
  for (Index i = index_->pieces[piece]; i < index_->pieces[piece + 1]; ++i) {
    const ClusterClass& own = index_->classes[i];
    const Index first = own.members[0];
    if (!evidence.compute(d, first, weights_, levels_[own.pattern].cov)) return false;
    s.value += own.weight * evidence.log_det;
    Canonical& g = s.between[own.pattern];
    if (b) g.c += own.weight * evidence.resolvent;
    for (Index c = d.first_cell[first]; b && c < d.first_cell[first + 1]; ++c)
      s.posterior_sums[d.cell_pattern[c]] += own.weight * d.cell_rows[c] * evidence.posterior;
    for (const Index j : own.members) {
      const double weight = d.weight[j];
      observe(j, evidence, one);
      s.value += weight * (one.quadratic - dot(one.q.data(), one.effect.data(), b));
      s.u += weight * one.u;
      add_outer(one.u.data(), b, -weight, g.c.data());
      for (Index k = 0; k < b; ++k) g.m[k] -= 2 * weight * one.u[k];
      for (Index l = 0; l < one.z.size(); ++l) {
        for (Index k = 0; k < b; ++k) g.b(k, l) -= 2 * weight * one.u[k] * one.z[l];
      }
      for (Index k = 0; k < b; ++k) one.mean[k] += one.effect[k];
      for (Index c = d.first_cell[j]; c < d.first_cell[j + 1]; ++c) {
        const double* mean = d.cell_means.data() + c * p;
        for (Index k = 0; k < p; ++k) one.deviation[k] = mean[k] - one.mean[k];
        add_outer(one.deviation.data(), p, weight * d.cell_rows[c],
                  s.residual_products[d.cell_pattern[c]].data());
      }
    }
  }
  return std::isfinite(s.value);
}

Moments MissingPoint::collect(const std::vector<Sums>& sums) {
  const IncompleteData& d = *data_;
  const Index p = d.p, b = d.nboth, q = d.q;
  Moments out{Vector::Zero(p), Vector::Zero(b + q), Matrix::Zero(p, p), Matrix::Zero(b + q, b + q)};
  residual_products_.assign(d.unit_patterns.size(), Matrix::Zero(p, p));
  posterior_sums_.assign(d.unit_patterns.size(), Matrix::Zero(b, b));
  for (const ConditionalLevel& level : levels_)
    between_.push_back({{}, Matrix::Zero(b, b), Vector::Zero(b), Matrix::Zero(b, level.mu_z.size())});
  for (const Sums& s : sums) {
    if (!p) break;
    out.mean_w -= 2 * s.u;
    for (std::size_t r = 0; r < residual_products_.size(); ++r) {
      residual_products_[r] += s.residual_products[r];
      posterior_sums_[r] += s.posterior_sums[r];
    }
    for (std::size_t t = 0; t < between_.size(); ++t) {
      between_[t].c += s.between[t].c;
      between_[t].m += s.between[t].m;
      between_[t].b += s.between[t].b;
    }
  }
  for (std::size_t r = 0; r < residual_products_.size(); ++r) {
    const Pattern& seen = d.unit_patterns[r];
    residual_products_[r].topLeftCorner(b, b) += posterior_sums_[r];
    Matrix products = residual_products_[r];
    add(products, seen, d.scatter[r]);
    out.cov_w += d.pattern_rows[static_cast<Index>(r)] * weights_[r] - sandwich(weights_[r], products);
  }
  symmetrise(out.cov_w);
  for (std::size_t t = 0; t < levels_.size(); ++t) {
    const ConditionalLevel& level = levels_[t];
    const Index observed = level.mu_z.size();
    const Matrix g_zz = level.part.count * Matrix::Identity(observed, observed) - level.part.scatter;
    const Vector g_z = -2 * level.part.count * level.part.residual;
    const Canonical& g = between_[t];
    const BetweenGradient found = between_gradient(level.projection, level.chol_z, g.c, g.m, g.b, g_zz, g_z);
    const std::vector<Index>& rows = index_->rows[t];
    out.mean_b(rows) += found.mean;
    add(out.cov_b, rows, found.cov);
  }
  return out;
}

}  // namespace msem
