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

CrossedArrangement::CrossedArrangement(const CrossedData& data, bool sparse)
    : p(data.nunit()), width(data.width), units(p) {
  for (std::size_t k = 0; k < data.slopes.size(); ++k)
    products.push_back(static_cast<Index>(data.levels[0].size() + k));
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
    for (std::size_t k = 0; k < data.slopes.size(); ++k) {
      const std::vector<Index>& at = data.slopes[k].at;
      if (std::find(at.begin(), at.end(), own.level) == at.end()) continue;
      own.order.push_back(static_cast<Index>(here.size() + own.standing.size()));
      own.standing.push_back(static_cast<Index>(k));
    }
    own.order.insert(own.order.end(), z_rows.begin(), z_rows.end());
  }
  const auto rows = [&](const Side& s) { return s.data->count() * s.effects(); };
  const bool swap = rows(sides[0]) < rows(sides[1]);
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
  design.resize(width * width, cells);
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
    design.col(k) = data.design.col(c);
  }
  mean_design = design.rowwise().sum() / data.count.sum();
  cell_begin.push_back(cells);
  for (Index g = 0; g < n; ++g) begin[g + 1] += begin[g];
  const Index left = sides[1].effects();
  graph = CrossedGraph(left ? sides[1].data->count() : 0, left, begin, column, sparse);
}

// What slopes do to the coefficients of a side with these effects on the variables; columns of 0 for the
// parts of variables.
Matrix CrossedPoint::slope_columns(int s, const Matrix& paths) const {
  const CrossedArrangement::Side& own = at_->sides[s];
  const Index p = at_->p, first = static_cast<Index>(own.open.size());
  Matrix out = Matrix::Zero(at_->coefficients(), own.effects());
  for (std::size_t j = 0; j < own.standing.size(); ++j) {
    const RandomSlope& slope = data_->slopes[own.standing[j]];
    const auto path = paths.col(own.standing[j]);
    auto column = out.col(first + static_cast<Index>(j));
    column.head(p) = slope.mean * path;
    column.segment(slope.covariate * p, p) = slope.spread * path;
  }
  return out;
}

// The same of their means.
Vector CrossedPoint::slope_means(const Matrix& paths) const {
  const Index p = at_->p;
  Vector out = Vector::Zero(at_->coefficients());
  for (std::size_t k = 0; k < data_->slopes.size(); ++k) {
    const RandomSlope& slope = data_->slopes[k];
    const Index at = static_cast<Index>(k);
    out.head(p) += (slope_mean_[at] * slope.mean) * paths.col(at);
    out.segment(slope.covariate * p, p) += (slope_mean_[at] * slope.spread) * paths.col(at);
  }
  return out;
}

std::vector<CrossedPoint::Blocks> CrossedPoint::blocks(const Matrix& a, const Matrix& b) const {
  const Index p = at_->p, width = at_->width;
  std::vector<Blocks> out;
  for (const Matrix& w : w_) {
    Blocks own;
    for (Index d = 0; d < width; ++d) {
      const Matrix right = product(w, b.middleRows(d * p, p));
      for (Index c = 0; c < width; ++c) own.push_back(cross(a.middleRows(c * p, p), right));
    }
    out.push_back(std::move(own));
  }
  return out;
}

// x -= scale (sum of x x' over a cell, (x) I) times coefficients.
void CrossedPoint::subtract_design(double* x, Index cell, double scale, const double* coefficients) const {
  const Index p = at_->p, width = at_->width;
  const double* design = at_->design.col(cell).data();
  for (Index d = 0; d < width; ++d) {
    for (Index c = 0; c < width; ++c) {
      const double factor = scale * design[d * width + c];
      for (Index r = 0; r < p; ++r) x[c * p + r] -= factor * coefficients[d * p + r];
    }
  }
}

// x += (I (x) W) values
void CrossedPoint::add_weighted(double* x, Index cell, const double* values) const {
  const Matrix& w = w_[at_->pattern[cell]];
  for (Index c = 0; c < at_->width; ++c) add_product(x + c * at_->p, 1, w, values + c * at_->p);
}

bool CrossedPoint::prepare(const CrossedLikelihood& whole, Implied moments) {
  whole_ = &whole;
  data_ = &whole.data();
  at_ = &whole.arranged();
  if (!at_->graph.possible()) throw std::invalid_argument("the equations of the effects are too large");
  const Layout layout = whole.layout();
  bool fits = moments.size() == 3;
  for (std::size_t l = 0; fits && l < 3; ++l)
    fits = moments[l].mean.size() == static_cast<Index>(layout.levels[l].size());
  if (!fits) throw std::invalid_argument("the blocks do not have the variables of the statistics");
  moments_ = std::move(moments);
  const Index n = data_->nvariables(), m = static_cast<Index>(data_->slopes.size());
  Vector mean = Vector::Zero(layout.nvariables);
  mean.head(n) = -data_->origin;
  for (std::size_t l = 0; l < 3; ++l) {
    if (!moments_[l].cov.allFinite()) return false;
    for (std::size_t i = 0; i < layout.levels[l].size(); ++i)
      mean[layout.levels[l][i]] += moments_[l].mean[static_cast<Index>(i)];
  }
  if (!mean.allFinite()) return false;
  const Index p = at_->p, cells = at_->ncells();
  within_ = select(moments_[0].cov, at_->units, at_->units);
  paths_ = select(moments_[0].cov, at_->units, at_->products);
  if (m) add_outer(within_, -1, paths_, paths_);
  slope_mean_ = mean.tail(m);
  mean_ = slope_means(paths_);
  mean_.head(p) += mean.head(p);
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

  const Index size = at_->coefficients();
  Vector at(size), residual(size);
  const auto place = [&](Index k) {
    at = mean_ + sides_[0].shift.col(at_->cluster[0][k]) + sides_[1].shift.col(at_->cluster[1][k]);
  };
  const auto weigh = [&](Index k, const double* values) {
    for (int s = 0; s < 2; ++s) add_weighted(sides_[s].weighted.col(at_->cluster[s][k]).data(), k, values);
  };
  for (Side& side : sides_) side.weighted = Matrix::Zero(size, side.shift.cols());
  for (Index k = 0; k < cells; ++k) {
    place(k);
    residual = data_->sums.col(at_->cell[k]);
    subtract_design(residual.data(), k, 1, at.data());
    weigh(k, residual.data());
  }
  Matrix x[2];
  for (int s = 0; s < 2; ++s) x[s] = cross(sides_[s].effects, sides_[s].weighted);
  solve(x[0], x[1]);
  for (int s = 0; s < 2; ++s) {
    value_ += x[s].squaredNorm();
    sides_[s].found = product(sides_[s].root, x[s]);
    sides_[s].posterior = product(sides_[s].effects, x[s]);
    sides_[s].weighted.setZero();
  }
  std::vector<Matrix> moved(w_.size(), Matrix::Zero(p, p));
  rest_.resize(size, cells);
  for (Index k = 0; k < cells; ++k) {
    place(k);
    at += sides_[0].posterior.col(at_->cluster[0][k]) + sides_[1].posterior.col(at_->cluster[1][k]);
    const auto sums = data_->sums.col(at_->cell[k]);
    residual = sums;
    subtract_design(residual.data(), k, 0.5, at.data());
    Matrix& own = moved[at_->pattern[k]];
    for (Index first = 0; first < size; first += p) {
      for (Index c = 0; c < p; ++c) {
        for (Index r = 0; r < p; ++r) own(r, c) += residual[first + r] * at[first + c];
      }
    }
    rest_.col(k) = sums;
    subtract_design(rest_.col(k).data(), k, 1, at.data());
    weigh(k, rest_.col(k).data());
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
  const Index r = own.effects(), q = static_cast<Index>(own.z.size()), n = own.data->count();
  const Matrix cov = select(moments.cov, own.order, own.order);
  if (!side.given.compute(cov, select(moments.mean, own.order), r)) return false;
  side.map = slope_columns(s, paths_);
  for (std::size_t i = 0; i < own.open.size(); ++i) side.map(own.open[i], static_cast<Index>(i)) = 1;
  side.root = Matrix::Zero(r, r);
  if (r) {
    const Vector sd = cov.diagonal().head(r).unaryExpr([](double v) { return v > 0 ? std::sqrt(v) : 1.0; });
    const SymmetricEigen eigen(scale_both(sd.cwiseInverse(), side.given.cov));
    if (!eigen.converged || eigen.values[0] < -kRounding) return false;
    side.root = scale_rows(sd, scale_cols(eigen.vectors, eigen.values.cwiseMax(0.0).cwiseSqrt()));
  }
  side.effects = product(side.map, side.root);
  if (r) {
    const SymmetricEigen turned(typical_information(side.effects));
    if (!turned.converged) return false;
    side.regular = turned.values[0] * std::max(1.0, own.data->sizes.minCoeff()) > kRegular;
  }
  side.zeta = own.data->values;
  side.zeta.colwise() -= select(mean, own.z);
  side.zeta = side.given.chol_z.whiten(std::move(side.zeta));
  side.known = product(side.given.slopes, side.zeta);
  side.shift = product(side.map, side.known);
  value_ += static_cast<double>(n) * (static_cast<double>(q) * kLog2Pi + side.given.chol_z.log_det()) +
            side.zeta.squaredNorm();
  return true;
}

// What a complete unit with the products of an average one says about effects with these coefficients.
Matrix CrossedPoint::typical_information(const Matrix& effects) const {
  const Index p = at_->p, width = at_->width;
  Matrix out = Matrix::Zero(effects.cols(), effects.cols());
  for (Index d = 0; d < width; ++d) {
    const Matrix right = product(inverse_, effects.middleRows(d * p, p));
    for (Index c = 0; c < width; ++c)
      add_cross(out, at_->mean_design[d * width + c], effects.middleRows(c * p, p), right);
  }
  return out;
}

bool CrossedPoint::eliminate(const Matrix& effects, Elimination& out) const {
  const Matrix& first = sides_[0].effects;
  const Index ra = first.cols(), rb = effects.cols(), na = at_->sides[0].data->count(),
              nb = at_->sides[1].data->count();
  const std::vector<Blocks> own = blocks(first, first), other = blocks(effects, effects),
                            pair = blocks(first, effects);
  const Index parts = at_->width * at_->width;
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
        const double* design = at_->design.col(c).data();
        for (Index i = 0; i < parts; ++i) {
          d += design[i] * own[pattern][i];
          out.cross.middleCols(k * rb, rb) += design[i] * pair[pattern][i];
          out.second.middleCols(at_->column[k] * rb, rb) += design[i] * other[pattern][i];
        }
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

// Over the clusters of side 0: the information Z_g'V^-1 Z_g on their r effects (r^2 x n_a), and the
// covariances of the effects given all data, in units of L: by pattern summed over units times their products
// x x' (for each of these by itself), or by cell.
struct CrossedPoint::Sweep {
  Matrix information;
  bool by_cell = false;
  std::vector<Matrix> first, both, second;  // r_a x r_a, r_a x r_b, r_b x r_b
};

void CrossedPoint::sweep(Sweep& out) const {
  invert();
  const Index ra = sides_[0].effects.cols(), rb = sides_[1].effects.cols(), n = ra,
              na = at_->sides[0].data->count(), parts = at_->width * at_->width;
  const std::vector<Blocks> ww = blocks(sides_[0].map, sides_[0].map),
                            wa = blocks(sides_[0].map, sides_[0].effects),
                            wb = blocks(sides_[0].map, sides_[1].effects);
  out.information.resize(n * n, na);
  const std::size_t kept =
      out.by_cell ? static_cast<std::size_t>(at_->ncells()) : w_.size() * static_cast<std::size_t>(parts);
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
        const double* design = at_->design.col(c).data();
        for (Index i = 0; i < parts; ++i) {
          pg += design[i] * ww[pattern][i];
          eg += design[i] * wa[pattern][i];
          fg.middleCols(j * rb, rb) += design[i] * wb[pattern][i];
        }
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
        for (Index i = 0; i < (out.by_cell ? 1 : parts); ++i) {
          const std::size_t to = static_cast<std::size_t>(out.by_cell ? c : at_->pattern[c] * parts + i);
          const double times = out.by_cell ? 1 : at_->design(i, c);
          out.first[to] += times * own;
          out.both[to] -= times * dkt.middleCols(j * rb, rb);
          out.second[to] += times * inner.block(j * rb, j * rb, rb, rb);
        }
      }
    }
  }
}

// I_h = Z_h'V^-1 Z_h of the r effects of the clusters of side 1, r^2 x n_b: with a root R of their covariance
// matrix R'I_h R = I - S^-1_hh. Effects without variance are given some, v and 2 v, and 2 I(v) - I(2 v) is
// what is without to order v^2.
Matrix CrossedPoint::second_information() const {
  invert();
  const CrossedArrangement::Side& own = at_->sides[1];
  const Index r = own.effects(), n = own.data->count();
  Matrix out = Matrix::Zero(r * r, n);
  if (!r) return out;
  const auto add = [&](double factor, const Matrix& root, const CrossedSystem& system) {
    const Matrix back = inverse(root);
    Matrix block(r, r), gap(r, r);
    for (Index h = 0; h < n; ++h) {
      system.gather(&h, 1, block);
      gap = -0.5 * (block + block.transpose());
      gap.diagonal().array() += 1;
      Eigen::Map<Matrix>(out.col(h).data(), r, r) += factor * sandwich(back, gap);
    }
  };
  if (sides_[1].regular) {
    add(1, sides_[1].root, left_.system);
    return out;
  }
  const double size = std::max(1.0, own.data->sizes.mean());
  const Vector unit = typical_information(sides_[1].map).diagonal().unaryExpr([&](double v) {
    return kLifted / size / (v > 0 ? v : 1.0);  // a slope that does nothing says nothing
  });
  for (const double times : {1.0, 2.0}) {
    Matrix cov = sides_[1].given.cov;
    cov.diagonal() += times * unit;
    Cholesky lifted;
    if (!lifted.compute(cov)) continue;  // within the domain it is regular
    const Matrix root = lifted.lower();
    Elimination other;
    if (!eliminate(product(sides_[1].map, root), other)) continue;
    other.system.invert();
    add(times == 1.0 ? 2.0 : -1.0, root, other.system);
  }
  return out;
}

Implied CrossedPoint::gradient() const {
  const Index p = at_->p, width = at_->width, parts = width * width, size = at_->coefficients(),
              m = static_cast<Index>(data_->slopes.size());
  Sweep swept;
  sweep(swept);
  const Matrix &a = sides_[0].effects, &b = sides_[1].effects;
  Matrix of_within = Matrix::Zero(p, p);
  // with respect to L, but for what is said by the posterior means
  std::array<Matrix, 2> of_effects = {Matrix::Zero(size, m ? a.cols() : 0),
                                      Matrix::Zero(size, m ? b.cols() : 0)};
  for (std::size_t i = 0; i < w_.size(); ++i) {
    Matrix spread = squares_[i];
    for (Index k = 0; k < parts; ++k) {
      const std::size_t at = i * static_cast<std::size_t>(parts) + static_cast<std::size_t>(k);
      const Index c = k % width, d = k / width;
      const Matrix ac = a.middleRows(c * p, p), ad = a.middleRows(d * p, p), bd = b.middleRows(d * p, p);
      const Matrix first = product(ad, swept.first[at]), second = product(bd, swept.second[at]),
                   across = outer(bd, swept.both[at]);
      add_outer(spread, 1, first, ac);
      add_outer(spread, 1, second, b.middleRows(c * p, p));
      add_with_transpose(spread, 1, outer(ac, across));
      if (!m) continue;
      add_product(of_effects[0].middleRows(c * p, p), 2, w_[i], first + across);
      add_product(of_effects[1].middleRows(c * p, p), 2, w_[i], second + product(ad, swept.both[at]));
    }
    of_within += data_->patterns[i].units * w_[i] - sandwich(w_[i], spread);
  }
  symmetrise(of_within);
  Implied out(3);
  const Layout layout = whole_->layout();
  Vector mean = Vector::Zero(layout.nvariables);
  const Vector of_mean = -2 * sides_[0].weighted.rowwise().sum();
  mean.head(p) = of_mean.head(p);
  Matrix of_paths = Matrix::Zero(p, m);
  for (Index k = 0; k < m; ++k) {
    const RandomSlope& slope = data_->slopes[k];
    const Vector own = slope.mean * of_mean.head(p) + slope.spread * of_mean.segment(slope.covariate * p, p);
    of_paths.col(k) = slope_mean_[k] * own;
    mean[data_->nvariables() + m + k] = paths_.col(k).dot(own);
  }
  for (int s = 0; s < 2; ++s) {
    const CrossedArrangement::Side& own = at_->sides[s];
    const Side& side = sides_[s];
    const Index n = static_cast<Index>(own.order.size()), r = own.effects();
    const Matrix u = cross(side.map, side.weighted);
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
    if (own.standing.empty()) continue;
    Matrix of_map = outer(of_effects[s], side.root);
    add_outer(of_map, -2, side.weighted, side.found + side.known);
    for (std::size_t j = 0; j < own.standing.size(); ++j) {
      const RandomSlope& slope = data_->slopes[own.standing[j]];
      const auto column = of_map.col(static_cast<Index>(own.open.size() + j));
      of_paths.col(own.standing[j]) +=
          slope.mean * column.head(p) + slope.spread * column.segment(slope.covariate * p, p);
    }
  }
  // Sigma_w is what slopes leave of the covariance matrix of level 1
  const Index n1 = static_cast<Index>(layout.levels[0].size());
  out[0].cov = Matrix::Zero(n1, n1);
  put(out[0].cov, at_->units, at_->units, of_within);
  if (m) {
    const Matrix half = 0.5 * of_paths - product(of_within, paths_);
    put(out[0].cov, at_->units, at_->products, half);
    put(out[0].cov, at_->products, at_->units, half.transpose());
  }
  for (std::size_t l = 0; l < 3; ++l) out[l].mean = select(mean, layout.levels[l]);
  return out;
}

CrossedPoint::Evidence CrossedPoint::evidence(Index level) const {
  const int s = at_->sides[0].level == level ? 0 : 1;
  const CrossedArrangement::Side& own = at_->sides[s];
  const Side& side = sides_[s];
  const Index r = own.effects(), n = static_cast<Index>(own.order.size()), clusters = own.data->count(),
              q = n - r;
  Sweep swept;
  if (s == 0) sweep(swept);
  const Matrix information = s == 0 ? swept.information : second_information();
  const Matrix project = side.given.projection;  // n x r
  Matrix scores = product(project, cross(side.map, side.weighted));
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

CrossedPoint::Effects CrossedPoint::of_cells() const {
  const Index p = at_->p, n = p + static_cast<Index>(data_->slopes.size()), cells = at_->ncells();
  Sweep swept;
  swept.by_cell = true;
  sweep(swept);
  Matrix root[2], mean[2];  // of the parts and slopes
  for (int s = 0; s < 2; ++s) {
    const CrossedArrangement::Side& own = at_->sides[s];
    std::vector<Index> rows = own.open;
    for (const Index k : own.standing) rows.push_back(p + k);
    root[s] = Matrix::Zero(n, own.effects());
    put_rows(root[s], rows, sides_[s].root);
    const Vector level = select(moments_[own.level].mean, own.order).head(own.effects());
    mean[s] = Matrix::Zero(n, own.data->count());
    put_rows(mean[s], rows, (sides_[s].known + sides_[s].found).colwise() + level);
  }
  Effects out{Matrix(n, cells), Matrix(n * n, cells)};
  for (Index k = 0; k < cells; ++k) {
    const Index to = at_->cell[k];
    out.mean.col(to) = mean[0].col(at_->cluster[0][k]) + mean[1].col(at_->cluster[1][k]);
    const std::size_t at = static_cast<std::size_t>(k);
    Matrix cov = outer_sandwich(root[0], swept.first[at]) + outer_sandwich(root[1], swept.second[at]);
    add_with_transpose(cov, 1, outer(product(root[0], swept.both[at]), root[1]));
    out.cov.col(to) = Eigen::Map<const Vector>(cov.data(), n * n);
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
