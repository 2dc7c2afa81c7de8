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

// Moments of the vectors of clusters of size n: of their mean, and their own part, which has the positions
// `at`.
Matrix cluster_covariance(const Implied& levels, const std::vector<Index>& at, Index variables, double n) {
  Matrix cov = Matrix::Zero(variables, variables);
  const Index p = levels.size() > 1 ? levels.front().mean.size() : 0;
  if (p) cov.topLeftCorner(p, p) = levels.front().cov / n;
  add(cov, at, levels.back().cov);
  return cov;
}

Vector cluster_mean(const Implied& levels, const std::vector<Index>& at, Index variables) {
  Vector mean = Vector::Zero(variables);
  if (levels.size() > 1) mean.head(levels.front().mean.size()) = levels.front().mean;
  for (std::size_t i = 0; i < at.size(); ++i) mean[at[i]] += levels.back().mean[static_cast<Index>(i)];
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

void DrawnRegression::draw_means(Vector& values, const Vector& mean, double count,
                                 RandomStream& stream) const {
  const Vector noise = apply(lower, normals(lower.cols(), 1, stream).col(0));
  values(normal.drawn) = normal.mean_at(values, mean) + noise / std::sqrt(count);
}

DrawnNormal::DrawnNormal(const Matrix& cov, std::vector<Index> given)
    : normal(cov, std::move(given)), root(semidefinite_root(normal.residual)) {}

void DrawnNormal::draw(Vector& values, const Vector& mean, RandomStream& stream) const {
  const Vector noise = apply(root, normals(root.cols(), 1, stream).col(0));
  values(normal.drawn) = normal.mean_at(values, mean) + noise;
}

std::vector<Index> kept_among(const Pattern& seen, const std::vector<Index>& kept) {
  std::vector<Index> out;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (std::find(kept.begin(), kept.end(), seen[i]) != kept.end()) out.push_back(static_cast<Index>(i));
  }
  return out;
}

ParametricDraws::ParametricDraws(std::vector<Design> groups, std::uint64_t seed) : seed_(seed) {
  for (Design& g : groups) groups_.push_back(prepare(std::move(g)));
}

ParametricDraws::PreparedGroup ParametricDraws::prepare(Design d) {
  PreparedGroup out;
  const TwoLevelStatistics& s = d.observed;
  const Implied& levels = d.moments;
  const Index m = s.means.cols(), p = s.ssw.rows(), q = m - p, count = s.sizes.size();
  // of the variables of clusters those that their units have, too, come first
  const Index both = levels.empty() ? -1 : levels.back().mean.size() - q;
  const bool fits = levels.size() == (p ? 2u : 1u) && (!p || levels.front().mean.size() == p) && both >= 0 &&
                    both <= p && static_cast<Index>(s.scatter.size()) == count * m * m &&
                    s.counts.size() == count;
  if (!fits) throw std::invalid_argument("the design and the moments of the model do not fit together");
  std::vector<Index> at;
  for (Index k = 0; k < m; ++k) {
    if (k < both || k >= p) at.push_back(k);
  }
  out.mean = cluster_mean(levels, at, m);
  for (Index i = 0; i < count; ++i) {
    const Eigen::Map<const Matrix> scatter(s.scatter.data() + i * m * m, m, m);
    out.between.emplace_back(cluster_covariance(levels, at, m, s.sizes[i]), d.covariate, scatter,
                             s.counts[i] - 1);
  }
  if (p) {
    std::vector<Index> kept;
    for (const Index k : d.covariate) {
      if (k < p) kept.push_back(k);
    }
    out.within.emplace_back(levels.front().cov, kept, s.ssw, s.sizes.dot(s.counts) - s.counts.sum());
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
    r.draw_means(mean, group.mean, out.counts[s], random);
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
