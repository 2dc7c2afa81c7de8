// Sufficient statistics of samples drawn from a model.
#include <algorithm>
#include <stdexcept>

#include "draws/draws.hpp"
#include "draws/normals.hpp"

namespace msem {

namespace {

constexpr double kRank = 1e-12;  // eigenvalue of a correlation matrix that counts as zero

// F with F F' = scatter and at most `most` columns.
Matrix root(const Matrix& scatter, Index most) {
  const Index n = scatter.rows();
  if (n == 0 || most <= 0) return Matrix(n, 0);
  const Vector scale = scatter.diagonal().cwiseMax(0).cwiseSqrt();
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, scatter));
  const Index rank = std::min<Index>((eigen.values.array() > kRank).count(), most);
  return scale_cols(scale_rows(scale, eigen.vectors.rightCols(rank)), eigen.values.tail(rank).cwiseSqrt());
}

// Wishart matrix with identity scale as T T'; by rows when there are fewer than its dimension, else by the
// Bartlett (1933) decomposition.
Matrix wishart_root(Index n, double df, RandomStream& random) {
  if (df < static_cast<double>(n)) return normals(n, static_cast<Index>(std::round(df)), random);
  Matrix out = Matrix::Zero(n, n);
  for (Index j = 0; j < n; ++j) {
    out(j, j) = std::sqrt(random.chi_square(df - static_cast<double>(j)));
    for (Index i = j + 1; i < n; ++i) out(i, j) = random.normal();
  }
  return out;
}

// Covariance matrix of cluster vectors of clusters of size n.
Matrix cluster_covariance(const Design& d, double n) {
  const Index p = d.p, b = d.nboth, m = d.observed.means.cols(), q = m - p;
  Matrix cov = Matrix::Zero(m, m);
  if (p) cov.topLeftCorner(p, p) = d.moments.cov_w / n;
  cov.topLeftCorner(b, b) += d.moments.cov_b.topLeftCorner(b, b);
  cov.bottomRightCorner(q, q) = d.moments.cov_b.bottomRightCorner(q, q);
  cov.block(0, p, b, q) = d.moments.cov_b.topRightCorner(b, q);
  cov.block(p, 0, q, b) = d.moments.cov_b.bottomLeftCorner(q, b);
  return cov;
}

Vector cluster_mean(const Design& d) {
  const Index p = d.p, b = d.nboth, m = d.observed.means.cols(), q = m - p;
  Vector mean = Vector::Zero(m);
  if (p) mean.head(p) = d.moments.mean_w;
  mean.head(b) += d.moments.mean_b.head(b);
  mean.tail(q) = d.moments.mean_b.tail(q);
  return mean;
}

}  // namespace

DrawnRegression::DrawnRegression(const Matrix& cov, const std::vector<Index>& fixed, const Matrix& scatter_,
                                 double df_)
    : normal(cov, fixed), scatter(select(scatter_, fixed, fixed)), df(df_) {
  factor = root(scatter, static_cast<Index>(df));
  lower.resize(0, 0);
  if (normal.drawn.empty()) return;
  Cholesky chol;
  if (!chol.compute(normal.residual))
    throw std::domain_error("the model-implied covariance matrix is not positive definite");
  lower = chol.lower();
}

Matrix DrawnRegression::draw(RandomStream& stream) const {
  const std::vector<Index>&fixed = normal.given, &random = normal.drawn;
  const Matrix& slopes = normal.slopes;
  const Index n = static_cast<Index>(random.size()), all = n + static_cast<Index>(fixed.size());
  const Matrix g = product(lower, normals(n, factor.cols(), stream));
  const Matrix w = product(lower, wishart_root(n, df - static_cast<double>(factor.cols()), stream));
  Matrix joint = product(slopes, scatter);
  add_outer(joint, 1, g, factor);
  Matrix products = outer_sandwich(slopes, scatter);
  add_with_transpose(products, 1, outer(product(slopes, factor), g));
  add_outer(products, 1, g, g);
  add_outer(products, 1, w, w);
  Matrix out(all, all);
  put(out, fixed, fixed, scatter);
  put(out, random, fixed, joint);
  put(out, fixed, random, joint.transpose());
  put(out, random, random, products);
  symmetrise(out);
  return out;
}

ParametricDraws::ParametricDraws(std::vector<Design> groups, std::uint64_t seed) : seed_(seed) {
  for (Design& g : groups) groups_.push_back(prepare(std::move(g)));
}

ParametricDraws::PreparedGroup ParametricDraws::prepare(Design d) {
  PreparedGroup out;
  const TwoLevelStatistics& s = d.observed;
  const Index m = s.means.cols(), p = d.p, count = s.sizes.size();
  const bool unit = d.moments.mean_w.size() == p && d.moments.cov_w.rows() == p && s.ssw.rows() == p;
  const bool both = d.nboth <= p && d.moments.mean_b.size() == d.nboth + m - p;
  if (!unit || !both || static_cast<Index>(s.scatter.size()) != count * m * m || s.counts.size() != count)
    throw std::invalid_argument("the design and the moments of the model do not fit together");
  out.mean = cluster_mean(d);
  for (Index i = 0; i < count; ++i) {
    const Eigen::Map<const Matrix> scatter(s.scatter.data() + i * m * m, m, m);
    out.between.emplace_back(cluster_covariance(d, s.sizes[i]), d.covariate, scatter, s.counts[i] - 1);
  }
  if (p) {
    std::vector<Index> kept;
    for (const Index k : d.covariate) {
      if (k < p) kept.push_back(k);
    }
    out.within.emplace_back(d.moments.cov_w, kept, s.ssw, s.sizes.dot(s.counts) - s.counts.sum());
  }
  out.design = std::move(d);
  return out;
}

TwoLevelStatistics ParametricDraws::draw_group(const PreparedGroup& group, RandomStream& random) {
  TwoLevelStatistics out = group.design.observed;
  const Index square = out.means.cols() * out.means.cols();
  for (std::size_t s = 0; s < group.between.size(); ++s) {
    const DrawnRegression& r = group.between[s];
    Vector mean = out.means.row(s);
    const Vector noise = apply(r.lower, normals(r.lower.cols(), 1, random).col(0));
    mean(r.normal.drawn) = r.normal.mean_at(mean, group.mean) + noise / std::sqrt(out.counts[s]);
    out.means.row(s) = group.design.centred ? Vector(Vector::Zero(mean.size())) : mean;
    const Matrix scatter = r.draw(random);
    std::copy(scatter.data(), scatter.data() + square, out.scatter.begin() + s * square);
  }
  if (!group.within.empty()) out.ssw = group.within[0].draw(random);
  return out;
}

std::vector<GroupDraw> ParametricDraws::draw(std::uint64_t replicate) const {
  return draw_groups(groups_, seed_, replicate, [](const PreparedGroup& group, RandomStream& random) {
    TwoLevelStatistics drawn = draw_group(group, random);
    const Index J = static_cast<Index>(std::round(drawn.counts.sum()));
    return GroupDraw{std::move(drawn), J};
  });
}

}  // namespace msem
