#include "likelihood/crossed/crossed.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/root.hpp"

namespace msem {

namespace {

constexpr double kRounding = 1e-12;  // negative eigenvalues of C, relative to variances, that count as zero
constexpr double kRegular =
    1e-6;  // information on an effect, in units of its variance, from which C is regular
constexpr double kLifted = 1e-5;  // variance that is given to effects that have none, in the same units

// x += s A v for small matrices
inline void add_product(double* x, double s, const Matrix& a, const double* v) {
  const Index n = a.rows();
  for (Index c = 0; c < a.cols(); ++c) {
    const double factor = s * v[c];
    const double* column = a.data() + c * n;
    for (Index r = 0; r < n; ++r) x[r] += column[r] * factor;
  }
}

}  // namespace

CrossedArrangement::CrossedArrangement(const CrossedData& data, bool sparse) : p(data.sums.rows()), units(p) {
  for (std::size_t i = 0; i < data.levels[0].size(); ++i) units[data.levels[0][i]] = static_cast<Index>(i);
  for (int c = 0; c < 2; ++c) {
    Side& own = sides[c];
    own.level = c + 1;
    own.data = &data.classifications[c];
    const std::vector<Index>& here = data.levels[own.level];
    std::vector<Index> z_rows;
    for (std::size_t i = 0; i < here.size(); ++i) {
      const bool of_unit = data.measured[here[i]] == 0;
      (of_unit ? own.open : own.z).push_back(here[i]);
      (of_unit ? own.order : z_rows).push_back(static_cast<Index>(i));
    }
    own.order.insert(own.order.end(), z_rows.begin(), z_rows.end());
  }
  const auto width = [&](const Side& s) { return s.data->count() * static_cast<Index>(s.open.size()); };
  const bool swap = width(sides[0]) < width(sides[1]);
  if (swap) std::swap(sides[0], sides[1]);
  const std::vector<Index>&row = swap ? data.second : data.first, &col = swap ? data.first : data.second;
  const Index n = sides[0].data->count(), cells = static_cast<Index>(row.size());
  cell.resize(cells);
  std::iota(cell.begin(), cell.end(), Index{0});
  if (swap) {
    std::sort(cell.begin(), cell.end(), [&](Index a, Index b) {
      return std::tie(row[a], col[a], data.pattern[a]) < std::tie(row[b], col[b], data.pattern[b]);
    });
  }
  begin.assign(n + 1, 0);
  count.resize(cells);
  for (Index k = 0; k < cells; ++k) {
    const Index c = cell[k];
    const bool fresh = k == 0 || row[cell[k - 1]] != row[c] || col[cell[k - 1]] != col[c];
    if (fresh) {
      column.push_back(col[c]);
      cell_begin.push_back(k);
      ++begin[row[c] + 1];
    }
    pattern.push_back(data.pattern[c]);
    cluster[0].push_back(row[c]);
    cluster[1].push_back(col[c]);
    count[k] = data.count[c];
  }
  cell_begin.push_back(cells);
  for (Index g = 0; g < n; ++g) begin[g + 1] += begin[g];
  graph = CrossedGraph(sides[1].open.empty() ? 0 : sides[1].data->count(),
                       static_cast<Index>(sides[1].open.size()), begin, column, sparse);
}

Matrix CrossedArrangement::of_units(const Side& side, const Matrix& x) const {
  Matrix out = Matrix::Zero(p, x.cols());
  put_rows(out, side.open, x);
  return out;
}

bool CrossedPoint::prepare(const CrossedLikelihood& whole, Implied moments) {
  whole_ = &whole;
  data_ = &whole.data();
  at_ = &whole.arranged();
  if (!at_->graph.possible()) throw std::invalid_argument("the equations of the effects are too large");
  bool fits = moments.size() == 3;
  for (std::size_t l = 0; fits && l < 3; ++l)
    fits = moments[l].mean.size() == static_cast<Index>(data_->levels[l].size());
  if (!fits) throw std::invalid_argument("the blocks do not have the variables of the statistics");
  moments_ = std::move(moments);
  Vector mean = -data_->origin;
  for (std::size_t l = 0; l < 3; ++l) {
    if (!moments_[l].cov.allFinite()) return false;
    for (std::size_t i = 0; i < data_->levels[l].size(); ++i)
      mean[data_->levels[l][i]] += moments_[l].mean[static_cast<Index>(i)];
  }
  if (!mean.allFinite()) return false;
  const Index p = at_->p, cells = at_->ncells();
  mean_ = mean.head(p);
  within_ = select(moments_[0].cov, at_->units, at_->units);
  Cholesky within;
  if (!within.compute(within_)) return false;
  inverse_ = within.inverse();
  value_ = 0;
  for (const CrossedPattern& one : data_->patterns) {
    const bool all = static_cast<Index>(one.observed.size()) == p;
    Cholesky part;
    if (!all && !part.compute(select(within_, one.observed, one.observed))) return false;
    Matrix w = inverse_;
    if (!all) {
      w.setZero();
      put(w, one.observed, one.observed, part.inverse());
    }
    w_.push_back(std::move(w));
    value_ += one.units * (static_cast<double>(one.observed.size()) * kLog2Pi +
                           (all ? within.log_det() : part.log_det()));
  }
  if (!prepare_side(0, mean) || !prepare_side(1, mean)) return false;
  if (!eliminate(sides_[1].effects, left_)) return false;
  value_ += left_.log_det;

  Vector at(p), residual(p);
  const auto place = [&](Index k) {
    at = mean_ + sides_[0].shift.col(at_->cluster[0][k]) + sides_[1].shift.col(at_->cluster[1][k]);
  };
  for (Side& side : sides_) side.weighted = Matrix::Zero(p, side.shift.cols());
  for (Index k = 0; k < cells; ++k) {
    place(k);
    residual = data_->sums.col(at_->cell[k]) - at_->count[k] * at;
    const Matrix& w = w_[at_->pattern[k]];
    add_product(sides_[0].weighted.col(at_->cluster[0][k]).data(), 1, w, residual.data());
    add_product(sides_[1].weighted.col(at_->cluster[1][k]).data(), 1, w, residual.data());
  }
  Matrix x[2];
  for (int s = 0; s < 2; ++s) x[s] = cross(sides_[s].effects, sides_[s].weighted);
  solve(x[0], x[1]);
  for (int s = 0; s < 2; ++s) {
    value_ += x[s].squaredNorm();
    sides_[s].posterior = product(sides_[s].effects, x[s]);
    sides_[s].weighted.setZero();
  }
  std::vector<Matrix> moved(w_.size(), Matrix::Zero(p, p));
  rest_.resize(p, cells);
  for (Index k = 0; k < cells; ++k) {
    place(k);
    at += sides_[0].posterior.col(at_->cluster[0][k]) + sides_[1].posterior.col(at_->cluster[1][k]);
    const auto sums = data_->sums.col(at_->cell[k]);
    residual = sums - (0.5 * at_->count[k]) * at;
    Matrix& own = moved[at_->pattern[k]];
    for (Index c = 0; c < p; ++c) {
      for (Index r = 0; r < p; ++r) own(r, c) += residual[r] * at[c];
    }
    rest_.col(k) = sums - at_->count[k] * at;
    const Matrix& w = w_[at_->pattern[k]];
    add_product(sides_[0].weighted.col(at_->cluster[0][k]).data(), 1, w, rest_.col(k).data());
    add_product(sides_[1].weighted.col(at_->cluster[1][k]).data(), 1, w, rest_.col(k).data());
  }
  for (std::size_t i = 0; i < w_.size(); ++i) {
    squares_.push_back(data_->patterns[i].products);
    add_with_transpose(squares_.back(), -1, moved[i]);
    value_ += w_[i].cwiseProduct(squares_.back()).sum();
  }
  return std::isfinite(value_);
}

// The effects of one classification, and what its variables say.
bool CrossedPoint::prepare_side(int s, const Vector& mean) {
  const CrossedArrangement::Side& own = at_->sides[s];
  Side& side = sides_[s];
  const LevelImplied& moments = moments_[own.level];
  const Index r = static_cast<Index>(own.open.size()), q = static_cast<Index>(own.z.size()),
              n = own.data->count();
  const Matrix cov = select(moments.cov, own.order, own.order);
  if (!side.given.compute(cov, select(moments.mean, own.order), r)) return false;
  side.effects = Matrix::Zero(at_->p, r);
  if (r) {
    const SymmetricEigen eigen(side.given.cov);
    if (!eigen.converged || eigen.values[0] < -kRounding * cov.diagonal().head(r).maxCoeff()) return false;
    side.effects = at_->of_units(own, scale_cols(eigen.vectors, eigen.values.cwiseMax(0.0).cwiseSqrt()));
    const SymmetricEigen turned(sandwich(side.effects, inverse_));
    if (!turned.converged) return false;
    side.regular = turned.values[0] * std::max(1.0, own.data->sizes.minCoeff()) > kRegular;
  }
  side.zeta = own.data->values;
  side.zeta.colwise() -= select(mean, own.z);
  side.zeta = side.given.chol_z.whiten(std::move(side.zeta));
  side.shift = at_->of_units(own, product(side.given.slopes, side.zeta));
  value_ += static_cast<double>(n) * (static_cast<double>(q) * kLog2Pi + side.given.chol_z.log_det()) +
            side.zeta.squaredNorm();
  return true;
}

bool CrossedPoint::eliminate(const Matrix& effects, Elimination& out) const {
  const Matrix& first = sides_[0].effects;
  const Index ra = first.cols(), rb = effects.cols(), na = at_->sides[0].data->count(),
              nb = at_->sides[1].data->count();
  std::vector<Matrix> own, other;
  out.pair.clear();
  for (const Matrix& w : w_) {
    own.push_back(sandwich(first, w));
    other.push_back(sandwich(effects, w));
    out.pair.push_back(cross(first, product(w, effects)));
  }
  out.log_det = 0;
  out.d.resize(ra, ra * na);
  out.cross = Matrix::Zero(ra, rb * static_cast<Index>(at_->column.size()));
  out.second = Matrix::Zero(rb, rb * nb);
  out.system.reset(at_->graph);
  Matrix d(ra, ra), left, blocks;
  Cholesky cholesky;
  for (Index g = 0; g < na; ++g) {
    if (g % 1024 == 0) check_interrupt();
    const Index first_pair = at_->begin[g], pairs = at_->begin[g + 1] - first_pair;
    d.setIdentity();
    for (Index k = first_pair; k < first_pair + pairs; ++k) {
      for (Index c = at_->cell_begin[k]; c < at_->cell_begin[k + 1]; ++c) {
        const Index pattern = at_->pattern[c];
        d += at_->count[c] * own[pattern];
        out.cross.middleCols(k * rb, rb) += at_->count[c] * out.pair[pattern];
        out.second.middleCols(at_->column[k] * rb, rb) += at_->count[c] * other[pattern];
      }
    }
    if (!ra) continue;
    if (!cholesky.compute(d)) return false;
    out.log_det += cholesky.log_det();
    out.d.middleCols(g * ra, ra) = cholesky.inverse();
    if (!rb || !pairs) continue;
    const auto k = out.cross.middleCols(first_pair * rb, pairs * rb);
    left.resize(ra, pairs * rb);
    blocks.resize(pairs * rb, pairs * rb);
    set_product(left, out.d.middleCols(g * ra, ra), k);
    set_cross(blocks, k, left);
    out.system.subtract(at_->column.data() + first_pair, pairs, blocks);
  }
  if (!rb) return true;
  Matrix own_block(rb, rb);
  for (Index h = 0; h < nb; ++h) {
    own_block = out.second.middleCols(h * rb, rb);
    own_block.diagonal().array() += 1;
    out.system.add_diagonal(h, own_block);
  }
  if (!out.system.factor()) return false;
  out.log_det += out.system.log_det();
  return true;
}

// S x = (first, second), in place; several right-hand sides stand beside each other, n columns each.
void CrossedPoint::solve(Matrix& first, Matrix& second) const {
  const Index na = at_->sides[0].data->count(), nb = at_->sides[1].data->count(), ra = first.rows(),
              rb = second.rows(), sets = na ? first.cols() / na : 0;
  Vector held(ra);
  for (Index s = 0; s < sets; ++s) {
    check_interrupt();
    for (Index g = 0; g < na && ra; ++g) {
      held = first.col(s * na + g);
      double* x = first.col(s * na + g).data();
      std::fill(x, x + ra, 0.0);
      for (Index c = 0; c < ra; ++c) {
        for (Index r = 0; r < ra; ++r) x[r] += left_.d(r, g * ra + c) * held[c];
      }
      for (Index k = at_->begin[g]; k < at_->begin[g + 1]; ++k) {
        double* y = second.data() + (s * nb + at_->column[k]) * rb;
        for (Index c = 0; c < rb; ++c) {
          const double* column = left_.cross.data() + (k * rb + c) * ra;
          for (Index r = 0; r < ra; ++r) y[c] -= column[r] * x[r];
        }
      }
    }
  }
  if (!rb) return;
  const Matrix found = left_.system.solve(Matrix(Eigen::Map<const Matrix>(second.data(), rb * nb, sets)));
  second = Eigen::Map<const Matrix>(found.data(), rb, nb * sets);
  for (Index s = 0; s < sets; ++s) {
    for (Index g = 0; g < na && ra; ++g) {
      held.setZero();
      for (Index k = at_->begin[g]; k < at_->begin[g + 1]; ++k) {
        const double* y = second.data() + (s * nb + at_->column[k]) * rb;
        for (Index c = 0; c < rb; ++c) {
          const double* column = left_.cross.data() + (k * rb + c) * ra;
          for (Index r = 0; r < ra; ++r) held[r] += column[r] * y[c];
        }
      }
      double* x = first.col(s * na + g).data();
      for (Index c = 0; c < ra; ++c) {
        for (Index r = 0; r < ra; ++r) x[r] -= left_.d(r, g * ra + c) * held[c];
      }
    }
  }
}

void CrossedPoint::invert() const {
  if (!inverted_ && sides_[1].effects.cols()) left_.system.invert();
  inverted_ = true;
}

// Over the clusters of side 0: the information M_g = Z_g'V^-1 Z_g on their effects (r^2 x n_a), and the
// covariances of the effects given all data, in units of L: by pattern summed over units, or by cell.
struct CrossedPoint::Sweep {
  Matrix information;
  bool by_cell = false;
  std::vector<Matrix> first, both, second;  // r_a x r_a, r_a x r_b, r_b x r_b
};

void CrossedPoint::sweep(Sweep& out) const {
  invert();
  const std::vector<Index>& open = at_->sides[0].open;
  const Index n = static_cast<Index>(open.size()), ra = sides_[0].effects.cols(),
              rb = sides_[1].effects.cols(), na = at_->sides[0].data->count();
  std::vector<Matrix> ww, wa, wb;  // rows of W, W L_a, W L_b about the variables with effects
  for (const Matrix& w : w_) {
    ww.push_back(select(w, open, open));
    wa.push_back(select_rows(product(w, sides_[0].effects), open));
    wb.push_back(select_rows(product(w, sides_[1].effects), open));
  }
  out.information.resize(n * n, na);
  const std::size_t kept = out.by_cell ? static_cast<std::size_t>(at_->ncells()) : w_.size();
  out.first.assign(kept, Matrix::Zero(ra, ra));
  out.both.assign(kept, Matrix::Zero(ra, rb));
  out.second.assign(kept, Matrix::Zero(rb, rb));
  Matrix inner, dk, dkt, own(ra, ra), pg(n, n), eg(n, ra), fg, found(n, n), gt;
  for (Index g = 0; g < na; ++g) {
    if (g % 256 == 0) check_interrupt();
    const Index first_pair = at_->begin[g], pairs = at_->begin[g + 1] - first_pair, width = pairs * rb;
    const auto d = left_.d.middleCols(g * ra, ra);
    const auto k = left_.cross.middleCols(first_pair * rb, width);
    inner.resize(width, width);
    dk.resize(ra, width);
    dkt.resize(ra, width);
    fg.setZero(n, width);
    pg.setZero();
    eg.setZero();
    for (Index j = 0; j < pairs; ++j) {
      for (Index c = at_->cell_begin[first_pair + j]; c < at_->cell_begin[first_pair + j + 1]; ++c) {
        const Index pattern = at_->pattern[c];
        pg += at_->count[c] * ww[pattern];
        eg += at_->count[c] * wa[pattern];
        fg.middleCols(j * rb, rb) += at_->count[c] * wb[pattern];
      }
    }
    own = d;
    if (width) {
      left_.system.gather(at_->column.data() + first_pair, pairs, inner);
      set_product(dk, d, k);
      set_product(dkt, dk, inner);
      add_outer(own, 1, dkt, dk);
      add_product(fg, -1, eg, dk);
    }
    found = pg - outer_sandwich(eg, d);
    if (width) {
      gt.resize(n, width);
      set_product(gt, fg, inner);
      add_outer(found, -1, gt, fg);
    }
    Eigen::Map<Matrix>(out.information.col(g).data(), n, n) = 0.5 * (found + found.transpose());
    for (Index j = 0; j < pairs; ++j) {
      for (Index c = at_->cell_begin[first_pair + j]; c < at_->cell_begin[first_pair + j + 1]; ++c) {
        const std::size_t to = static_cast<std::size_t>(out.by_cell ? c : at_->pattern[c]);
        const double count = out.by_cell ? 1 : at_->count[c];
        out.first[to] += count * own;
        out.both[to] -= count * dkt.middleCols(j * rb, rb);
        out.second[to] += count * inner.block(j * rb, j * rb, rb, rb);
      }
    }
  }
}

// M_h = Z_h'V^-1 Z_h of the clusters of side 1, r^2 x n_b: L'M L = I - S^-1_hh. Effects without variance are
// given some, v and 2 v, and 2 M(v) - M(2 v) is M without to order v^2.
Matrix CrossedPoint::second_information() const {
  invert();
  const CrossedArrangement::Side& own = at_->sides[1];
  const Index r = static_cast<Index>(own.open.size()), n = own.data->count();
  Matrix out = Matrix::Zero(r * r, n);
  if (!r) return out;
  const auto add = [&](double factor, const Matrix& effects, const CrossedSystem& system) {
    const Matrix back = inverse(select_rows(effects, own.open));
    Matrix block(r, r), gap(r, r);
    for (Index h = 0; h < n; ++h) {
      system.gather(&h, 1, block);
      gap = -0.5 * (block + block.transpose());
      gap.diagonal().array() += 1;
      Eigen::Map<Matrix>(out.col(h).data(), r, r) += factor * sandwich(back, gap);
    }
  };
  if (sides_[1].regular) {
    add(1, sides_[1].effects, left_.system);
    return out;
  }
  const double size = std::max(1.0, own.data->sizes.mean());
  const Matrix unit = (kLifted / size) * select(within_, own.open, own.open);
  for (const double times : {1.0, 2.0}) {
    Cholesky lifted;
    if (!lifted.compute(sides_[1].given.cov + times * unit)) continue;  // within the domain it is regular
    const Matrix effects = at_->of_units(own, lifted.lower());
    Elimination other;
    if (!eliminate(effects, other)) continue;
    other.system.invert();
    add(times == 1.0 ? 2.0 : -1.0, effects, other.system);
  }
  return out;
}

Implied CrossedPoint::gradient() const {
  const Index p = at_->p;
  Sweep swept;
  sweep(swept);
  const Matrix &a = sides_[0].effects, &b = sides_[1].effects;
  Matrix of_within = Matrix::Zero(p, p);
  for (std::size_t i = 0; i < w_.size(); ++i) {
    Matrix spread = squares_[i] + outer_sandwich(a, swept.first[i]) + outer_sandwich(b, swept.second[i]);
    add_with_transpose(spread, 1, outer(product(a, swept.both[i]), b));
    of_within += data_->patterns[i].units * w_[i] - sandwich(w_[i], spread);
  }
  symmetrise(of_within);
  Implied out(3);
  Vector mean = Vector::Zero(data_->nvariables());
  mean.head(p) = -2 * sides_[0].weighted.rowwise().sum();
  const Index n1 = static_cast<Index>(data_->levels[0].size());
  out[0].cov = Matrix::Zero(n1, n1);
  put(out[0].cov, at_->units, at_->units, of_within);
  for (int s = 0; s < 2; ++s) {
    const CrossedArrangement::Side& own = at_->sides[s];
    const Side& side = sides_[s];
    const Index n = static_cast<Index>(own.order.size()), r = static_cast<Index>(own.open.size());
    const Matrix u = select_rows(side.weighted, own.open);
    const Vector sum = (s == 0 ? swept.information : second_information()).rowwise().sum();
    Matrix g_c = Eigen::Map<const Matrix>(sum.data(), r, r);
    add_outer(g_c, -1, u, u);
    const Vector g_m = -2 * u.rowwise().sum(), g_z = -2 * side.zeta.rowwise().sum();
    const Matrix g_b = -2 * outer(u, side.zeta);
    Matrix g_zz = -outer(side.zeta, side.zeta);
    g_zz.diagonal().array() += static_cast<double>(own.data->count());
    const BetweenGradient found =
        between_gradient(side.given.projection, side.given.chol_z, g_c, g_m, g_b, g_zz, g_z);
    out[own.level].cov = Matrix::Zero(n, n);
    put(out[own.level].cov, own.order, own.order, found.cov);
    for (Index i = r; i < n; ++i) mean[own.z[i - r]] = found.mean[i];
  }
  for (std::size_t l = 0; l < 3; ++l) out[l].mean = select(mean, data_->levels[l]);
  return out;
}

CrossedPoint::Evidence CrossedPoint::evidence(Index level) const {
  const int s = at_->sides[0].level == level ? 0 : 1;
  const CrossedArrangement::Side& own = at_->sides[s];
  const Side& side = sides_[s];
  const Index r = static_cast<Index>(own.open.size()), n = static_cast<Index>(own.order.size()),
              clusters = own.data->count(), q = n - r;
  Sweep swept;
  if (s == 0) sweep(swept);
  const Matrix information = s == 0 ? swept.information : second_information();
  const Matrix project = side.given.projection;  // n x r
  Matrix scores = product(project, select_rows(side.weighted, own.open));
  scores.bottomRows(q) += side.given.chol_z.whiten_transposed(side.zeta);
  Matrix base = Matrix::Zero(n, n);
  base.bottomRightCorner(q, q) = side.given.chol_z.inverse();
  Evidence out{Matrix(n, clusters), Matrix(n * n, clusters)};
  put_rows(out.scores, own.order, scores);
  Matrix all(n, n);
  for (Index k = 0; k < clusters; ++k) {
    const Matrix found = base + outer_sandwich(project, slice(information, k, r, r));
    put(all, own.order, own.order, found);
    out.information.col(k) = Eigen::Map<const Vector>(all.data(), n * n);
  }
  return out;
}

CrossedPoint::Evidence CrossedPoint::of_units() const {
  const Index p = at_->p, cells = at_->ncells();
  Sweep swept;
  swept.by_cell = true;
  sweep(swept);
  const Matrix &a = sides_[0].effects, &b = sides_[1].effects;
  Evidence out{Matrix(p, cells), Matrix(p * p, cells)};
  for (Index k = 0; k < cells; ++k) {
    const Index g = at_->cluster[0][k], h = at_->cluster[1][k], to = at_->cell[k];
    out.scores.col(to) = data_->origin.head(p) + mean_ + sides_[0].shift.col(g) + sides_[1].shift.col(h) +
                         sides_[0].posterior.col(g) + sides_[1].posterior.col(h);
    const std::size_t at = static_cast<std::size_t>(k);
    Matrix spread = outer_sandwich(a, swept.first[at]) + outer_sandwich(b, swept.second[at]);
    add_with_transpose(spread, 1, outer(product(a, swept.both[at]), b));
    const Matrix& w = w_[at_->pattern[k]];
    const Matrix found = w - sandwich(w, spread);
    out.information.col(to) = Eigen::Map<const Vector>(found.data(), p * p);
  }
  return out;
}

std::unique_ptr<CrossedPoint> CrossedLikelihood::point(Implied moments) const {
  auto point = std::make_unique<CrossedPoint>();
  if (!point->prepare(*this, std::move(moments))) return nullptr;
  return point;
}

std::unique_ptr<LikelihoodPoint> CrossedLikelihood::at(Implied moments) const {
  return point(std::move(moments));
}

}  // namespace msem
