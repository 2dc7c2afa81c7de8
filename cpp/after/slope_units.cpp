#include "after/slope_units.hpp"

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
  // outcomes and latent variables given fixed covariates and products
  std::vector<Index> target = positions(0, p);
  const std::vector<Index> latent = positions(p + f + m, d), given = positions(p, f + m);
  target.insert(target.end(), latent.begin(), latent.end());
  Cholesky chol;
  if (!chol.compute(select(cov, given, given)))
    throw std::domain_error("the covariance matrix of the covariates is singular");
  const Matrix paths = chol.solve(select(cov, given, target)).transpose();
  Matrix residual = select(cov, target, target) - product(paths, select(cov, given, target));
  symmetrise(residual);

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

}  // namespace msem
