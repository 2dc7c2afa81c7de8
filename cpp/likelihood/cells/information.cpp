// Expected information of the likelihood of data with holes, given what is observed.
#include "likelihood/cells/information.hpp"

#include <algorithm>

#include "base/root.hpp"
#include "base/stacked.hpp"
#include "base/threads.hpp"

namespace msem {

namespace {

constexpr Index kTable = Index{1} << 26;  // numbers kept of products of patterns with tangents
constexpr Index kSampledClasses = 4096;   // classes that approximate information is taken from

// Adds weight U (x) U in the coordinates of symmetric matrices, so that a' K b = tr(U A U B) for lower
// triangles a, b.
void add_kronecker(const Matrix& u, double weight, Matrix& k) {
  const Index b = u.rows();
  Index column = 0;
  for (Index j = 0; j < b; ++j) {
    for (Index i = j; i < b; ++i, ++column) {
      const double w = weight * (i == j ? 1 : 2);
      Index row = 0;
      double* out = k.data() + column * k.rows();
      for (Index s = 0; s < b; ++s) {
        out[row++] += w * u(s, j) * u(s, i);
        for (Index r = s + 1; r < b; ++r) out[row++] += w * (u(r, i) * u(s, j) + u(r, j) * u(s, i));
      }
    }
  }
}

Matrix lower_triangles(const Matrix& stacked, Index b) {
  Matrix out(b * (b + 1) / 2, stacked.cols());
  Index row = 0;
  for (Index j = 0; j < b; ++j) {
    for (Index i = j; i < b; ++i) out.row(row++) = stacked.row(i + j * b);
  }
  return out;
}

}  // namespace

MissingInformation::MissingInformation(const MissingPoint& point, const Tangents& within,
                                       const Tangents& between)
    : point_(point),
      d_(*point.data_),
      p_(d_.p),
      b_(d_.nboth),
      kw_(within.k()),
      kb_(between.k()),
      within_(within) {
  for (std::size_t t = 0; t < point.levels_.size(); ++t) {
    const ConditionalLevel& level = point.levels_[t];
    between_.push_back(whiten_between(rows_of(between, point.index_->rows[t]), level.projection, level.chol_z,
                                      level.mu_z.size()));
  }
  if (static_cast<Index>(point.weights_.size()) * p_ * p_ * kw_ <= kTable) {
    for (const Matrix& w : point.weights_) table_.push_back(rotated_cov(within, w));
  }
}

const Matrix& MissingInformation::weighted(Index pattern, Matrix& scratch) const {
  if (!table_.empty()) return table_[pattern];
  scratch = rotated_cov(within_, point_.weights_[pattern]);
  return scratch;
}

// x += n (W dSigma_w W) over the variables at both levels, b^2 x k_w.
void MissingInformation::add_weighted(Index pattern, double n, Matrix& scratch, Matrix& x) const {
  const Matrix& y = weighted(pattern, scratch);
  if (b_ == p_) {
    x += n * y;
    return;
  }
  for (Index j = 0; j < b_; ++j) x.middleRows(j * b_, b_) += n * y.middleRows(j * p_, b_);
}

BlockInformation MissingInformation::zero() const {
  return {Matrix::Zero(kw_, kw_), Matrix::Zero(kw_, kb_), Matrix::Zero(kb_, kb_)};
}

// Terms of the within parameters that are sums over patterns: in expectation, or with what was observed.
Matrix MissingInformation::pattern_traces(bool observed) const {
  Matrix out = Matrix::Zero(kw_, kw_);
  if (!p_ || !kw_) return out;
  const Matrix tangents = rotated_cov(within_, Matrix::Identity(p_, p_));
  Matrix scratch;
  for (std::size_t r = 0; r < point_.weights_.size(); ++r) {
    const Index at = static_cast<Index>(r);
    const Matrix& w = point_.weights_[r];
    Matrix inner = Matrix::Zero(p_, p_);
    if (observed) {
      const Pattern& seen = d_.unit_patterns[r];
      inner = point_.residual_products_[r];
      add(inner, seen, d_.scatter[r]);
    } else {
      inner.topLeftCorner(b_, b_) = point_.posterior_sums_[r];
    }
    const Matrix change =
        d_.pattern_rows[at] * weighted(at, scratch) - rotated_cov(within_, w, sandwich(w, inner));
    add_cross(out, 0.5, tangents, change);
  }
  return out;
}

MissingInformation::ClassSums MissingInformation::class_sums(Index piece, Index stride) const {
  const MissingIndex& index = *point_.index_;
  const Index n = b_ * (b_ + 1) / 2;
  ClassSums s;
  for (std::size_t t = 0; t < between_.size(); ++t) {
    s.cross.push_back(Matrix::Zero(b_ * b_, kw_));
    s.kron.push_back(Matrix::Zero(n, n));
    s.means.push_back(Matrix::Zero(p_, p_));
  }
  StackedProduct third(kw_, kw_);
  ClusterEvidence evidence;
  Matrix x, scratch, v_x, turned, shrunk;
  for (Index i = index.pieces[piece]; i < index.pieces[piece + 1]; ++i) {
    if (i % stride) continue;
    const ClusterClass& own = index.classes[i];
    const Index first = own.members[0];
    evidence.compute(d_, first, point_.weights_, point_.levels_[own.pattern].cov);
    s.weight += own.weight;
    Matrix& mean = s.means[own.pattern];
    mean += own.weight * evidence.precision;
    if (!b_) continue;
    const auto left = evidence.precision.leftCols(b_);
    add_outer(mean, -own.weight, product(left, evidence.posterior), left);
    add_kronecker(evidence.resolvent, own.weight, s.kron[own.pattern]);
    if (!kw_) continue;
    x.setZero(b_ * b_, kw_);
    for (Index c = d_.first_cell[first]; c < d_.first_cell[first + 1]; ++c)
      add_weighted(d_.cell_pattern[c], d_.cell_rows[c], scratch, x);
    const Eigen::Map<const Matrix> wide(x.data(), b_, b_ * kw_);
    v_x.resize(b_, b_ * kw_);
    set_product(v_x, evidence.posterior, wide);
    const auto turn = [&](const Matrix& a) {  // transposes each of the k_w matrices
      turned.resize(b_, b_ * kw_);
      for (Index k = 0; k < kw_; ++k) turned.middleCols(k * b_, b_) = a.middleCols(k * b_, b_).transpose();
    };
    turn(v_x);
    auto [l, r] = third.next(b_ * b_);
    l = own.weight * Eigen::Map<const Matrix>(v_x.data(), b_ * b_, kw_);
    r = Eigen::Map<const Matrix>(turned.data(), b_ * b_, kw_);
    shrunk.resize(b_, b_ * kw_);
    set_cross(shrunk, evidence.shrinkage, wide);
    turn(shrunk);
    set_cross(shrunk, evidence.shrinkage, turned);
    s.cross[own.pattern] += own.weight * Eigen::Map<const Matrix>(shrunk.data(), b_ * b_, kw_);
  }
  s.third = third.total();
  return s;
}

MissingInformation::Traces MissingInformation::traces(Index stride, bool patterns) {
  const MissingIndex& index = *point_.index_;
  const Index count = p_ ? static_cast<Index>(index.pieces.size()) - 1 : 0;
  std::vector<ClassSums> parts(std::max<Index>(count, 0));
  in_threads(count, 0, [&](std::ptrdiff_t i) { parts[i] = class_sums(i, stride); });
  Traces out{Matrix::Zero(kw_, kw_), Matrix::Zero(kw_, kb_), Matrix::Zero(kb_, kb_), {}};
  double all = 0, used = 0;
  for (const ClusterClass& c : index.classes) all += c.weight;
  for (const ClassSums& part : parts) used += part.weight;
  const double scale = stride > 1 && used > 0 ? all / used : 1.0;
  for (std::size_t t = 0; t < between_.size(); ++t) {
    Matrix shrunk = Matrix::Zero(b_ * b_, kw_), mean = Matrix::Zero(p_, p_);
    Matrix kron = Matrix::Zero(b_ * (b_ + 1) / 2, b_ * (b_ + 1) / 2);
    for (const ClassSums& part : parts) {
      shrunk += part.cross[t];
      kron += part.kron[t];
      mean += part.means[t];
    }
    if (b_) {
      const Matrix cov = lower_triangles(between_[t].cov, b_);
      add_cross(out.wb, 0.5 * scale, shrunk, between_[t].cov);
      out.bb += 0.5 * scale * sandwich(cov, kron);
    }
    out.means.push_back(scale * mean);
  }
  for (const ClassSums& part : parts) out.ww += 0.5 * scale * part.third;
  if (patterns) out.ww += pattern_traces(false);
  return out;
}

MissingInformation::Parts MissingInformation::expected(Index stride) {
  Traces trace = traces(stride, true);
  Parts out{{trace.ww, trace.wb, trace.bb}, zero()};
  for (std::size_t t = 0; t < between_.size(); ++t) {
    const Whitened& own = between_[t];
    const Index q = own.zmean.rows();
    const double count = point_.levels_[t].part.count;
    if (p_) {
      const Matrix& u = trace.means[t];
      const Matrix both = u.topLeftCorner(b_, b_);
      out.mean.ww += sandwich(within_.mean, u);
      add_cross(out.mean.wb, 1, within_.mean, product(u.leftCols(b_), own.mean));
      out.mean.bb += sandwich(own.mean, both);
      if (q) {
        const Eigen::Map<const Matrix> slopes(own.slope.data(), b_, q * kb_);
        const Matrix weighted = product(both, slopes);
        add_cross(out.cov.bb, 1, own.slope, Eigen::Map<const Matrix>(weighted.data(), b_ * q, kb_));
      }
    }
    add_cross(out.cov.bb, 0.5 * count, own.zcov, own.zcov);
    add_cross(out.mean.bb, count, own.zmean, own.zmean);
  }
  return out;
}

std::pair<Matrix, Matrix> MissingInformation::mean_factor(Index stride) {
  const Traces trace = traces(stride, false);
  Index height = 0;
  for (const Whitened& own : between_) height += p_ + own.zmean.rows();
  std::pair<Matrix, Matrix> out{Matrix::Zero(height, kw_), Matrix::Zero(height, kb_)};
  Index at = 0;
  for (std::size_t t = 0; t < between_.size(); ++t) {
    const Whitened& own = between_[t];
    const Index q = own.zmean.rows();
    if (p_) {
      const SymmetricEigen eigen(trace.means[t]);
      const Matrix root =
          scale_cols(eigen.vectors, eigen.values.cwiseMax(0.0).cwiseSqrt());  // root root' = U
      set_cross(out.first.middleRows(at, p_), root, within_.mean);
      set_cross(out.second.middleRows(at, p_), root.topRows(b_), own.mean);
      at += p_;
    }
    out.second.middleRows(at, q) = std::sqrt(point_.levels_[t].part.count) * own.zmean;
    at += q;
  }
  return out;
}

namespace {

BlockInformation sum_of(const MissingInformation::Parts& parts) {
  return {parts.cov.ww + parts.mean.ww, parts.cov.wb + parts.mean.wb, parts.cov.bb + parts.mean.bb};
}

}  // namespace

BlockInformation MissingPoint::expected(const Tangents& within, const Tangents& between) const {
  return sum_of(MissingInformation(*this, within, between).expected(1));
}

BlockInformation MissingPoint::approximate(const Tangents& within, const Tangents& between) const {
  MissingInformation information(*this, within, between);
  return sum_of(information.expected(std::max<Index>(1, information.classes() / kSampledClasses)));
}

std::pair<Matrix, Matrix> MissingPoint::factors(const Tangents& within, const Tangents& between) const {
  // Covariances and means are told apart by huge means only, so that covariances can be taken from their
  // information.
  MissingInformation information(*this, within, between);
  const BlockInformation cov = information.expected(1).cov;
  const Index w = cov.ww.rows(), b = cov.bb.rows();
  Matrix whole(w + b, w + b);
  whole << cov.ww, cov.wb, cov.wb.transpose(), cov.bb;
  const Matrix root = symmetric_root(whole);
  const std::pair<Matrix, Matrix> mean = information.mean_factor(1);
  std::pair<Matrix, Matrix> out{Matrix(root.rows() + mean.first.rows(), w),
                                Matrix(root.rows() + mean.second.rows(), b)};
  out.first << root.leftCols(w), mean.first;
  out.second << root.rightCols(b), mean.second;
  return out;
}

}  // namespace msem
