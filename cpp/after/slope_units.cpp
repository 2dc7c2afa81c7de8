#include "after/slope_units.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "data/incomplete.hpp"

namespace msem {

namespace {

constexpr std::ptrdiff_t kPieceRows = 20000;

std::vector<Index> positions(Index first, Index count) {
  std::vector<Index> out(count);
  std::iota(out.begin(), out.end(), first);
  return out;
}

// Outcomes and latent variables given fixed covariates and products.
struct GivenProducts {
  std::vector<Index> target;
  Matrix paths, residual;

  GivenProducts(Index p, Index known, Index d, const Matrix& cov) : target(positions(0, p)) {
    const std::vector<Index> latent = positions(p + known, d), given = positions(p, known);
    target.insert(target.end(), latent.begin(), latent.end());
    Cholesky chol;
    if (!chol.compute(select(cov, given, given)))
      throw std::domain_error("the covariance matrix of the covariates is singular");
    paths = chol.solve(select(cov, given, target)).transpose();
    residual = select(cov, target, target) - product(paths, select(cov, given, target));
    symmetrise(residual);
  }
};

}  // namespace

UnitScores slope_unit_scores(Index b, Index f, const Vector& mean, const Matrix& cov,
                             const ClusteredRows& rows, const std::vector<Column>& slopes,
                             const Matrix& effects, const Matrix& variances,
                             const std::vector<Index>& which) {
  const Index p = static_cast<Index>(rows.unit.size()) - f, m = static_cast<Index>(slopes.size()), r = b + m;
  const Index d = mean.size() - p - f - m;
  if (d < 0 || f < 0 || b < 0 || b > p || cov.rows() != mean.size() || effects.rows() != r ||
      variances.rows() != r * r || effects.cols() != rows.nclusters ||
      static_cast<std::ptrdiff_t>(which.size()) != rows.nclusters)
    throw std::invalid_argument("the rows and the moments of the model do not fit together");
  const GivenProducts conditional(p, f + m, d, cov);
  const std::vector<Index>& target = conditional.target;
  const Matrix &paths = conditional.paths, &residual = conditional.residual;
  Cholesky chol;

  const std::vector<Column> outcomes(rows.unit.begin(), rows.unit.begin() + p);
  const RowPatterns patterns = row_patterns(outcomes, rows.nrows);
  std::vector<Matrix> gains, left;  // by pattern; the last one without outcomes
  for (std::size_t k = 0; k <= patterns.patterns.size(); ++k) {
    const Pattern seen = k < patterns.patterns.size() ? patterns.patterns[k] : Pattern();
    Matrix gain = Matrix::Zero(d, p), rest = residual.bottomRightCorner(d, d);
    if (!seen.empty()) {
      if (!chol.compute(select(residual, seen, seen)))
        throw std::domain_error("the covariance matrix within is not positive definite");
      const Matrix joint = select(residual, seen, positions(p, d));
      const Matrix solved = chol.solve(joint);
      for (std::size_t i = 0; i < seen.size(); ++i) gain.col(seen[i]) = solved.row(static_cast<Index>(i));
      add_cross(rest, -1, joint, solved);
    }
    gains.push_back(gain);
    left.push_back(rest);
  }

  UnitScores out{RowMatrix(rows.nrows, d), Matrix(d * d, rows.nrows)};
  const std::ptrdiff_t pieces = (rows.nrows + kPieceRows - 1) / kPieceRows;
  in_threads(pieces, 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    Vector known(f + m), expected(p + d), off(p), score(d);
    Matrix reach(d, r), spread(d, r);
    const std::ptrdiff_t end = std::min(rows.nrows, (piece + 1) * kPieceRows);
    for (std::ptrdiff_t i = piece * kPieceRows; i < end; ++i) {
      const Index cluster = static_cast<Index>(rows.codes[i]);
      if (cluster < 0 || cluster >= effects.cols())
        throw std::invalid_argument("a cluster code is out of range");
      const std::int32_t own = patterns.of_row[i];
      const std::size_t pattern = own < 0 ? patterns.patterns.size() : static_cast<std::size_t>(own);
      const Matrix& gain = gains[pattern];
      for (Index k = 0; k < f; ++k) known[k] = rows.unit[p + k][i] - mean[p + k];
      for (Index k = 0; k < m; ++k) known[f + k] = slopes[k][i] * effects(b + k, cluster);
      for (Index k = 0; k < p + d; ++k) expected[k] = mean[target[k]];
      add_applied(expected, 1, paths, known);
      expected.head(b) += effects.col(cluster).head(b);
      for (Index k = 0; k < p; ++k) {
        const double y = rows.unit[k][i];
        off[k] = std::isnan(y) ? 0.0 : y - expected[k];
      }
      score = expected.tail(d);
      add_applied(score, 1, gain, off);
      out.mean.row(i) = score;
      reach.leftCols(b) = -gain.leftCols(b);
      for (Index k = 0; k < m; ++k) {
        const double x = slopes[k][i];
        for (Index a = 0; a < d; ++a) {
          double sum = paths(p + a, f + k);
          for (Index c = 0; c < p; ++c) sum -= gain(a, c) * paths(c, f + k);
          reach(a, b + k) = x * sum;
        }
      }
      const Eigen::Map<const Matrix> variance(variances.data() + which[cluster] * r * r, r, r);
      Eigen::Map<Matrix> var(out.cov.data() + i * d * d, d, d);
      var = left[pattern];
      set_product(spread, reach, variance);
      add_outer(var, 1, spread, reach);
    }
  });
  return out;
}

UnitDistances slope_unit_distances(Index b, Index f, const std::vector<Index>& given, const Vector& mean,
                                   const Matrix& cov, const ClusteredRows& rows,
                                   const std::vector<Column>& slopes, const Matrix& effects,
                                   const Matrix& variances, const std::vector<Index>& which) {
  const Index p = static_cast<Index>(rows.unit.size()) - f, m = static_cast<Index>(slopes.size()), r = b + m;
  if (f < 0 || b < 0 || b > p || mean.size() < p + f + m || cov.rows() != mean.size() ||
      effects.rows() != r || variances.rows() != r * r || effects.cols() != rows.nclusters ||
      static_cast<std::ptrdiff_t>(which.size()) != rows.nclusters)
    throw std::invalid_argument("the rows and the moments of the model do not fit together");
  const GivenProducts conditional(p, f + m, 0, cov);
  const Matrix& paths = conditional.paths;
  const std::vector<Column> outcomes(rows.unit.begin(), rows.unit.begin() + p);
  const RowPatterns patterns = row_patterns(outcomes, rows.nrows);
  struct Own {
    Pattern seen;
    std::vector<Index> asked;  // positions among the observed
    Matrix inverse;
  };
  std::vector<Own> of;
  for (const Pattern& seen : patterns.patterns) {
    Own one;
    one.seen = seen;
    for (std::size_t k = 0; k < seen.size(); ++k) {
      if (std::find(given.begin(), given.end(), seen[k]) == given.end())
        one.asked.push_back(static_cast<Index>(k));
    }
    Cholesky chol;
    if (!chol.compute(select(conditional.residual, seen, seen)))
      throw std::domain_error("the covariance matrix within is not positive definite");
    one.inverse = chol.inverse();
    of.push_back(std::move(one));
  }

  UnitDistances out{Vector::Zero(rows.nrows), Vector::Zero(rows.nrows)};
  const std::ptrdiff_t pieces = (rows.nrows + kPieceRows - 1) / kPieceRows;
  in_threads(pieces, 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    Vector known(f + m), expected(p), off, score;
    Matrix reach, weighted, spread, information;
    Cholesky chol;
    const std::ptrdiff_t end = std::min(rows.nrows, (piece + 1) * kPieceRows);
    for (std::ptrdiff_t i = piece * kPieceRows; i < end; ++i) {
      const Index cluster = static_cast<Index>(rows.codes[i]);
      if (cluster < 0 || cluster >= effects.cols())
        throw std::invalid_argument("a cluster code is out of range");
      if (patterns.of_row[i] < 0) continue;
      const Own& own = of[static_cast<std::size_t>(patterns.of_row[i])];
      out.df[i] = static_cast<double>(own.asked.size());
      if (own.asked.empty()) continue;
      for (Index k = 0; k < f; ++k) known[k] = rows.unit[p + k][i] - mean[p + k];
      for (Index k = 0; k < m; ++k) known[f + k] = slopes[k][i] * effects(b + k, cluster);
      expected = mean.head(p);
      add_applied(expected, 1, paths, known);
      expected.head(b) += effects.col(cluster).head(b);
      const Index n = static_cast<Index>(own.seen.size());
      off.resize(n);
      reach.setZero(n, r);
      for (Index a = 0; a < n; ++a) {
        const Index at = own.seen[a];
        off[a] = rows.unit[at][i] - expected[at];
        if (at < b) reach(a, at) = 1;
        for (Index k = 0; k < m; ++k) reach(a, b + k) = slopes[k][i] * paths(at, f + k);
      }
      // of V^-1 the rows of the unit times r, and its block, from what all data say of the effects
      score = apply(own.inverse, off);
      weighted = product(own.inverse, reach);
      spread = product(weighted, Eigen::Map<const Matrix>(variances.data() + which[cluster] * r * r, r, r));
      information = own.inverse;
      add_outer(information, -1, spread, weighted);
      if (!chol.compute(select(information, own.asked, own.asked)))
        throw std::domain_error("the covariance matrix of a unit given all else is not positive definite");
      out.distance[i] = chol.whiten(score(own.asked)).squaredNorm();
    }
  });
  return out;
}

}  // namespace msem
