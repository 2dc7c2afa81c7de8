#include "likelihood/crossed/crossed.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/root.hpp"

namespace msem {

namespace {

constexpr double kRounding = 1e-12;  // negative eigenvalues of C, relative to variances, that count as zero
constexpr double kRegular =
    1e-6;  // information on an effect, in units of its variance, from which C is regular

}  // namespace

CrossedArrangement::CrossedArrangement(const CrossedData& data) : p(data.products.rows()), units(p) {
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
  const Index n = sides[0].data->count();
  begin.assign(n + 1, 0);
  for (const Index g : row) ++begin[g + 1];
  for (Index g = 0; g < n; ++g) begin[g + 1] += begin[g];
  column.resize(row.size());
  count.resize(static_cast<Index>(row.size()));
  std::vector<Index> next(begin.begin(), begin.end() - 1);
  for (std::size_t k = 0; k < row.size(); ++k) {
    const Index at = next[row[k]]++;
    column[at] = col[k];
    count[at] = data.pairs[static_cast<Index>(k)];
  }
}

Matrix CrossedArrangement::of_units(const Side& side, const Matrix& x) const {
  Matrix out = Matrix::Zero(p, x.cols());
  put_rows(out, side.open, x);
  return out;
}

Matrix CrossedArrangement::to_first(const Matrix& x) const {
  const Index n = sides[0].data->count();
  Matrix out = Matrix::Zero(x.rows(), n);
  for (Index g = 0; g < n; ++g) {
    for (Index k = begin[g]; k < begin[g + 1]; ++k) out.col(g) += count[k] * x.col(column[k]);
  }
  return out;
}

Matrix CrossedArrangement::to_second(const Matrix& x) const {
  Matrix out = Matrix::Zero(x.rows(), sides[1].data->count());
  for (Index g = 0; g + 1 < static_cast<Index>(begin.size()); ++g) {
    for (Index k = begin[g]; k < begin[g + 1]; ++k) out.col(column[k]) += count[k] * x.col(g);
  }
  return out;
}

bool CrossedPoint::prepare(const CrossedLikelihood& whole, Implied moments) {
  whole_ = &whole;
  data_ = &whole.data();
  at_ = &whole.arranged();
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
  const Index p = at_->p;
  Cholesky within;
  if (!within.compute(select(moments_[0].cov, at_->units, at_->units))) return false;
  w_ = within.inverse();
  value_ = data_->units * (static_cast<double>(p) * kLog2Pi + within.log_det());
  if (!prepare_side(0, mean) || !prepare_side(1, mean) || !prepare_schur()) return false;

  const Vector mu = mean.head(p), sums = at_->sides[0].data->sums.rowwise().sum();
  squares_ = data_->products + data_->units * outer(mu, mu);
  add_with_transpose(squares_, -1, outer(sums, mu));
  total_ = sums - data_->units * mu;
  const Matrix cross_shift[2] = {at_->to_first(sides_[1].shift), at_->to_second(sides_[0].shift)};
  for (int s = 0; s < 2; ++s) {
    const Classification& own = *at_->sides[s].data;
    Side& side = sides_[s];
    side.residual = own.sums - outer(mu, own.sizes);
    add_with_transpose(squares_, -1, outer(side.residual, side.shift));
    const Matrix shifted = scale_cols(side.shift, own.sizes);
    add_outer(squares_, 1, shifted, side.shift);
    total_ -= shifted.rowwise().sum();
    side.residual -= shifted + cross_shift[s];
  }
  add_with_transpose(squares_, 1, outer(sides_[0].shift, cross_shift[0]));
  value_ += w_.cwiseProduct(squares_).sum();
  Matrix q[2], x[2];
  for (int s = 0; s < 2; ++s) x[s] = q[s] = cross(sides_[s].effects, product(w_, sides_[s].residual));
  solve(x[0], x[1]);
  for (int s = 0; s < 2; ++s) {
    value_ -= q[s].cwiseProduct(x[s]).sum();
    sides_[s].posterior = product(sides_[s].effects, x[s]);
  }
  const Matrix cross_effects[2] = {at_->to_first(sides_[1].posterior), at_->to_second(sides_[0].posterior)};
  for (int s = 0; s < 2; ++s) {
    const Classification& own = *at_->sides[s].data;
    Side& side = sides_[s];
    add_with_transpose(squares_, -1, outer(side.residual, side.posterior));
    const Matrix held = scale_cols(side.posterior, own.sizes);
    add_outer(squares_, 1, held, side.posterior);
    total_ -= held.rowwise().sum();
    side.sum = side.residual - held - cross_effects[s];
  }
  add_with_transpose(squares_, 1, outer(sides_[0].posterior, cross_effects[0]));
  symmetrise(squares_);
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
  side.in_units = Vector::Zero(r);
  if (r) {
    const SymmetricEigen eigen(side.given.cov);
    if (!eigen.converged || eigen.values[0] < -kRounding * cov.diagonal().head(r).maxCoeff()) return false;
    const Vector root = eigen.values.cwiseMax(0.0).cwiseSqrt();
    const Matrix effects = at_->of_units(own, scale_cols(eigen.vectors, root));
    const SymmetricEigen turned(sandwich(effects, w_));
    if (!turned.converged) return false;
    side.effects = product(effects, turned.vectors);
    side.in_units = turned.values.cwiseMax(0.0);
    side.regular = turned.values[0] * own.data->sizes.minCoeff() > kRegular;
  }
  side.zeta = own.data->values;
  side.zeta.colwise() -= select(mean, own.z);
  side.zeta = side.given.chol_z.whiten(std::move(side.zeta));
  side.shift = at_->of_units(own, product(side.given.slopes, side.zeta));
  value_ += static_cast<double>(n) * (static_cast<double>(q) * kLog2Pi + side.given.chol_z.log_det()) +
            side.zeta.squaredNorm();
  return true;
}

// Elements (c, h) of the second classification are numbered c n + h.
bool CrossedPoint::prepare_schur() {
  const Classification &first = *at_->sides[0].data, &second = *at_->sides[1].data;
  const Vector& d = sides_[0].in_units;
  const Index ra = d.size(), rb = sides_[1].effects.cols(), na = first.count(), nb = second.count();
  cross_ = cross(sides_[0].effects, product(w_, sides_[1].effects));
  eliminated_ = one_plus_outer(d, first.sizes);
  value_ += eliminated_.array().log().sum();
  eliminated_ = eliminated_.cwiseInverse();
  Matrix s = Matrix::Zero(rb * nb, rb * nb);
  Matrix crossed(nb, nb);
  for (Index i = 0; i < ra; ++i) {
    crossed.setZero();
    for (Index g = 0; g < na; ++g) {
      if (g % 1024 == 0) check_interrupt();
      for (Index k = at_->begin[g]; k < at_->begin[g + 1]; ++k) {
        const double scale = eliminated_(i, g) * at_->count[k];
        for (Index l = at_->begin[g]; l < at_->begin[g + 1]; ++l)
          crossed(at_->column[l], at_->column[k]) += scale * at_->count[l];
      }
    }
    for (Index c = 0; c < rb; ++c) {
      for (Index e = 0; e <= c; ++e) s.block(c * nb, e * nb, nb, nb) -= cross_(i, c) * cross_(i, e) * crossed;
    }
  }
  for (Index c = 0; c < rb; ++c)
    s.diagonal().segment(c * nb, nb).array() += 1 + sides_[1].in_units[c] * second.sizes.array();
  if (s.rows() && !schur_.compute(s)) return false;
  if (s.rows()) value_ += schur_.log_det();
  return true;
}

// S x = (first, second), in place; several right-hand sides stand beside each other, n columns each.
void CrossedPoint::solve(Matrix& first, Matrix& second) const {
  const Index na = at_->sides[0].data->count(), nb = at_->sides[1].data->count();
  const Index rb = second.rows(), sets = na ? first.cols() / na : 0;
  Matrix right(rb * nb, sets);
  for (Index k = 0; k < sets; ++k) {
    auto one = first.middleCols(k * na, na);
    one = one.cwiseProduct(eliminated_);
    Matrix rest = second.middleCols(k * nb, nb);
    add_cross(rest, -1, cross_, at_->to_second(one));
    for (Index c = 0; c < rb; ++c) right.col(k).segment(c * nb, nb) = rest.row(c);
  }
  if (rb) right = schur_.solve(std::move(right));
  for (Index k = 0; k < sets; ++k) {
    Matrix x(rb, nb);
    for (Index c = 0; c < rb; ++c) x.row(c) = right.col(k).segment(c * nb, nb);
    second.middleCols(k * nb, nb) = x;
    first.middleCols(k * na, na) -= product(cross_, at_->to_first(x)).cwiseProduct(eliminated_);
  }
}

// sum_g M_g, the information on the effects of clusters of the first classification within p variables, of
// which nothing else than H_g = sum n_gh n_gh' S^-1_hh' has to be known. Beside it sum S^-1_gg / n (`shares`
// weighted by n), ... in the coordinates of the effects.
Matrix CrossedPoint::covariance_of_first(const Matrix& inverse, Matrix& shares, Matrix& units,
                                         Matrix& between) const {
  const Classification& first = *at_->sides[0].data;
  const Index ra = eliminated_.rows(), rb = sides_[1].effects.cols(), na = first.count(),
              nb = at_->sides[1].data->count();
  shares = Matrix::Zero(ra, ra);          // sum n_g S^-1_gg
  units = Matrix::Zero(ra, rb);           // sum X_g, X_g = sum_h n_gh S^-1_gh
  Matrix squared = Matrix::Zero(ra, ra);  // sum n_g^2 S^-1_gg
  Matrix counted = Matrix::Zero(ra, rb);  // sum n_g X_g
  between = Matrix::Zero(rb, rb);         // sum H_g
  Matrix h(rb, rb), kh(ra, rb), gg(ra, ra);
  for (Index g = 0; g < na; ++g) {
    if (g % 256 == 0) check_interrupt();
    h.setZero();
    for (Index c = 0; c < rb; ++c) {
      for (Index e = 0; e < rb; ++e) {
        double sum = 0;
        for (Index k = at_->begin[g]; k < at_->begin[g + 1]; ++k) {
          const double* row = inverse.data() + (e * nb + at_->column[k]) * inverse.rows() + c * nb;
          double inner = 0;
          for (Index l = at_->begin[g]; l < at_->begin[g + 1]; ++l)
            inner += at_->count[l] * row[at_->column[l]];
          sum += at_->count[k] * inner;
        }
        h(c, e) = sum;
      }
    }
    const auto d = eliminated_.col(g);
    set_product(kh, cross_, h);
    for (Index i = 0; i < ra; ++i) kh.row(i) *= d[i];
    gg.setZero();
    add_outer(gg, 1, kh, cross_);
    for (Index i = 0; i < ra; ++i) gg.col(i) *= d[i];
    gg.diagonal() += d;
    const double n = first.sizes[g];
    shares += n * gg;
    squared += n * n * gg;
    units -= kh;
    counted -= n * kh;
    between += h;
  }
  const Matrix &a = sides_[0].effects, &b = sides_[1].effects;
  Matrix inner = outer_sandwich(a, squared);
  add_with_transpose(inner, 1, outer(product(a, counted), b));
  inner += outer_sandwich(b, between);
  Matrix out = data_->units * w_ - outer_sandwich(w_, inner);
  symmetrise(out);
  return out;
}

// sum_h M_h of the second classification, r_b variables.
Matrix CrossedPoint::second_products(const Matrix& inverse) const {
  const CrossedArrangement::Side& own = at_->sides[1];
  const Index rb = static_cast<Index>(own.open.size()), nb = own.data->count();
  const Matrix effects = select_rows(sides_[1].effects, own.open);
  if (sides_[1].regular) {
    // L'M L = I - S^-1
    Matrix sum = static_cast<double>(nb) * Matrix::Identity(rb, rb);
    for (Index c = 0; c < rb; ++c) {
      for (Index e = 0; e < rb; ++e) sum(c, e) -= inverse.block(c * nb, e * nb, nb, nb).trace();
    }
    const Matrix back = msem::inverse(effects);
    return sandwich(back, sum);
  }
  // M = P - P L S^-1 L'P with the information P about the effects that the first classification leaves
  Matrix p = Matrix::Zero(rb * nb, rb * nb);
  const Matrix given = select_cols(cross(sides_[0].effects, w_), own.open);
  for (Index g = 0; g < at_->sides[0].data->count(); ++g) {
    for (Index k = at_->begin[g]; k < at_->begin[g + 1]; ++k) {
      for (Index l = at_->begin[g]; l < at_->begin[g + 1]; ++l) {
        const double both = at_->count[k] * at_->count[l];
        for (Index c = 0; c < rb; ++c) {
          for (Index e = 0; e < rb; ++e) {
            double sum = 0;
            for (Index i = 0; i < given.rows(); ++i) sum += given(i, c) * eliminated_(i, g) * given(i, e);
            p(c * nb + at_->column[k], e * nb + at_->column[l]) -= both * sum;
          }
        }
      }
    }
  }
  const Matrix ww = select(w_, own.open, own.open);
  Matrix lp(rb * nb, rb * nb);
  for (Index c = 0; c < rb; ++c) {
    for (Index e = 0; e < rb; ++e) p.block(c * nb, e * nb, nb, nb).diagonal() += ww(c, e) * own.data->sizes;
  }
  lp.setZero();
  for (Index c = 0; c < rb; ++c) {
    for (Index e = 0; e < rb; ++e) lp.middleRows(c * nb, nb) += effects(e, c) * p.middleRows(e * nb, nb);
  }
  const Matrix half = schur_.whiten(std::move(lp));
  Matrix out(rb, rb);
  for (Index c = 0; c < rb; ++c) {
    for (Index e = 0; e < rb; ++e)
      out(c, e) = p.block(c * nb, e * nb, nb, nb).trace() -
                  half.middleCols(c * nb, nb).cwiseProduct(half.middleCols(e * nb, nb)).sum();
  }
  return out;
}

Implied CrossedPoint::gradient() const {
  const Index p = at_->p, rb = sides_[1].effects.cols(), nb = at_->sides[1].data->count();
  const Matrix inverse = rb ? schur_.inverse(0) : Matrix(0, 0);
  Matrix shares, units, between;
  const Matrix first = covariance_of_first(inverse, shares, units, between);
  Matrix second(rb, rb);  // sum n_h S^-1_hh
  for (Index c = 0; c < rb; ++c) {
    for (Index e = 0; e < rb; ++e)
      second(c, e) = inverse.block(c * nb, e * nb, nb, nb).diagonal().dot(at_->sides[1].data->sizes);
  }
  const Matrix &a = sides_[0].effects, &b = sides_[1].effects;
  Matrix spread = squares_ + outer_sandwich(a, shares) + outer_sandwich(b, second);
  add_with_transpose(spread, 1, outer(product(a, units), b));

  Implied out(3);
  Vector mean = Vector::Zero(data_->nvariables());
  mean.head(p) = -2 * apply(w_, total_);
  const Matrix of_within = data_->units * w_ - sandwich(w_, spread);
  const Index n1 = static_cast<Index>(data_->levels[0].size());
  out[0].cov = Matrix::Zero(n1, n1);
  put(out[0].cov, at_->units, at_->units, of_within);
  for (int s = 0; s < 2; ++s) {
    const CrossedArrangement::Side& own = at_->sides[s];
    const Side& side = sides_[s];
    const Matrix u = select_rows(product(w_, side.sum), own.open);
    Matrix g_c = s == 0 ? select(first, own.open, own.open) : second_products(inverse);
    add_outer(g_c, -1, u, u);
    const Vector g_m = -2 * u.rowwise().sum(), g_z = -2 * side.zeta.rowwise().sum();
    const Matrix g_b = -2 * outer(u, side.zeta);
    Matrix g_zz = -outer(side.zeta, side.zeta);
    g_zz.diagonal().array() += static_cast<double>(own.data->count());
    const BetweenGradient found =
        between_gradient(side.given.projection, side.given.chol_z, g_c, g_m, g_b, g_zz, g_z);
    const Index n = static_cast<Index>(own.order.size()), r = static_cast<Index>(own.open.size());
    out[own.level].cov = Matrix::Zero(n, n);
    put(out[own.level].cov, own.order, own.order, found.cov);
    for (Index i = r; i < n; ++i) mean[own.z[i - r]] = found.mean[i];
  }
  for (std::size_t l = 0; l < 3; ++l) out[l].mean = select(mean, data_->levels[l]);
  return out;
}

std::unique_ptr<LikelihoodPoint> CrossedLikelihood::at(Implied moments) const {
  auto point = std::make_unique<CrossedPoint>();
  if (!point->prepare(*this, std::move(moments))) return nullptr;
  return point;
}

}  // namespace msem
