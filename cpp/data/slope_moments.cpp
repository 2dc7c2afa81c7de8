#include "data/slope_moments.hpp"

#include <algorithm>
#include <functional>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "base/triangle.hpp"
#include "data/incomplete.hpp"

namespace msem {

namespace {

constexpr double kDesign = 1e-9;  // pivot of a design relative to the greatest, below which it is dependent
constexpr Index kPieces = 64;     // of clusters, at most
constexpr Index kPieceClusters = 2000;

// Of each pattern, 1 where two values are observed.
std::vector<Matrix> observed_pairs(const ReducedData& data) {
  std::vector<Matrix> out;
  for (const Pattern& pattern : data.patterns) {
    Vector own = Vector::Zero(data.nvalues());
    own.tail(data.fixed).setOnes();
    for (const Index i : pattern) own[i] = 1;
    out.push_back(outer(own, own));
  }
  return out;
}

// Sums over pieces of the clusters, of which `add` is given the first and the end, in order of the pieces.
template <class Sums>
Sums sum_of_pieces(Index nclusters, const Sums& zero, const std::function<void(Index, Index, Sums&)>& add) {
  const Index count = std::max<Index>(1, std::min(kPieces, nclusters / kPieceClusters));
  std::vector<Sums> parts(count, zero);
  in_threads(count, 0, [&](std::ptrdiff_t piece) {
    check_interrupt();
    add(nclusters * piece / count, nclusters * (piece + 1) / count, parts[piece]);
  });
  for (Index piece = 1; piece < count; ++piece) parts[0] += parts[piece];
  return parts[0];
}

// The lower triangle of `sum` gains w x x'.
void add_square(Matrix& sum, double w, const double* x, Index n) {
  for (Index b = 0; b < n; ++b) {
    const double s = w * x[b];
    double* column = sum.data() + b * n;
    for (Index a = b; a < n; ++a) column[a] += s * x[a];
  }
}

struct MomentSums {
  Matrix products, sums, units;  // of the rows; products as lower triangle
  MomentSums& operator+=(const MomentSums& o) {
    products += o.products;
    sums += o.sums;
    units += o.units;
    return *this;
  }
};

}  // namespace

ReducedMoments reduced_moments(const ReducedData& data) {
  const Index m = data.nvalues();
  ReducedMoments out;
  const Matrix zero = Matrix::Zero(m, m);
  const std::vector<Matrix> seen = observed_pairs(data);
  MomentSums found = sum_of_pieces<MomentSums>(
      data.nclusters(), {zero, zero, zero}, [&](Index first, Index last, MomentSums& s) {
        for (Index j = first; j < last; ++j) {
          const double w = data.weight[j];
          for (Index c = data.first_cell[j]; c < data.first_cell[j + 1]; ++c) {
            const double* both = seen[data.cell_pattern[c]].data();
            const double size = w * data.cell_sizes[c];
            for (Index i = 0; i < m * m; ++i) s.units.data()[i] += size * both[i];
            for (Index r = data.cell_first[c]; r < data.cell_first[c + 1]; ++r) {
              const double one = w * data.design(0, r);
              const double* value = data.values.data() + r * m;
              add_square(s.products, w, value, m);
              for (Index b = 0; b < m && one != 0; ++b) {
                for (Index a = 0; a < m; ++a) s.sums(a, b) += one * value[a] * both[b * m + a];
              }
            }
          }
        }
      });
  complete(found.products);
  Matrix& products = found.products;
  const Matrix &sums = found.sums, &units = found.units;
  for (const Matrix& rest : data.remainder) products += rest;
  const Matrix count = units.cwiseMax(1.0);
  out.count = units.diagonal();
  out.mean = sums.diagonal().cwiseQuotient(count.diagonal()) + data.origin.head(m);
  const Matrix means = sums.cwiseProduct(sums.transpose()).cwiseQuotient(count);
  out.cov = (products - means).cwiseQuotient(count);
  out.cluster_mean = Vector::Zero(data.q);
  out.cluster_cov = Matrix::Zero(data.q, data.q);
  if (data.q) {
    const double clusters = data.weight.sum();
    const Vector mean = apply(data.cluster_values, data.weight) / clusters;
    const Matrix off = data.cluster_values.colwise() - mean;
    out.cluster_cov = outer(scale_cols(off, data.weight / clusters), off);
    out.cluster_mean = mean + data.origin.tail(data.q);
  }
  return out;
}

namespace {

// Least squares of one variable in one cluster over the rows in which it is observed.
struct OneRegression {
  Vector coefficients;  // 1 + covariates
  Matrix inverse;  // of the products of the covariates; empty where they do not identify all coefficients
  Vector residuals, deviations;  // of the rows: about the regression and about the mean; 0 where not observed
};

OneRegression regress(const Matrix& design, const Vector& values) {
  OneRegression out;
  const PivotedQr qr(design, kDesign);
  const bool full = qr.rank() == design.cols();
  out.coefficients = full ? qr.solve(values) : shortest_solution(design, values, kDesign);
  out.residuals = values - apply(design, out.coefficients);
  const double units = design.col(0).squaredNorm();
  const double mean = units > 0 ? design.col(0).dot(values) / units : 0.0;
  out.deviations = values - mean * design.col(0);
  if (full) out.inverse = inverse(cross(design, design));
  return out;
}

// What starting values are taken from, of some clusters.
struct CoefficientSums {
  CoefficientSums(Index m, Index n, Index nc)
      : residual(Matrix::Zero(m, m)),
        within(residual),
        used(residual),
        units(residual),
        clusters(residual),
        sum(Vector::Zero(n)),
        products(Matrix::Zero(n, n)),
        errors(Matrix::Zero(nc, nc)) {}
  CoefficientSums& operator+=(const CoefficientSums& o) {
    full += o.full;
    residual += o.residual;
    within += o.within;
    used += o.used;
    units += o.units;
    clusters += o.clusters;
    sum += o.sum;
    products += o.products;
    errors += o.errors;
    return *this;
  }

  double full = 0;                                 // clusters in which all coefficients are known
  Matrix residual, within, used, units, clusters;  // m x m, without what remains beyond the rows
  Vector sum;                                      // of the coefficients and cluster values, about a point
  Matrix products;                                 // of these
  Matrix errors;                                   // of the sampling errors of coefficients
};

// The coefficients of single clusters, and what they add to the sums.
class CoefficientsOfClusters {
 public:
  explicit CoefficientsOfClusters(const ReducedData& data)
      : data_(data),
        seen_(observed_pairs(data)),
        c_(data.design.rows()),
        m_(data.nvalues()),
        back_(c_, c_),
        mean_(m_),
        regressions_(m_),
        one(c_ * m_ + data.q) {}

  CoefficientSums zero() const { return {m_, one.size(), c_ * m_}; }

  // Whether all coefficients of the cluster are known: then `one` has them, and the cluster values.
  bool add(Index j, CoefficientSums& sums) {
    const double w = data_.weight[j];
    const Index cell = data_.first_cell[j];
    if (w == 0) return false;
    const bool complete =
        data_.first_cell[j + 1] == cell + 1 &&
        static_cast<Index>(data_.patterns[data_.cell_pattern[cell]].size()) == data_.outcomes;
    if (!(complete ? add_complete(j, sums) : add_cells(j, sums))) return false;
    one.tail(data_.q) = data_.cluster_values.col(j);
    sums.full += w;
    return true;
  }

 private:
  // The rows of a complete cluster, a triangle, are fitted perfectly.
  bool add_complete(Index j, CoefficientSums& s) {
    const Index begin = data_.first[j], rho = data_.first[j + 1] - begin;
    const double w = data_.weight[j];
    const double *design = data_.design.data() + begin * c_, *values = data_.values.data() + begin * m_;
    double ones = 0;
    mean_.setZero();
    for (Index a = 0; a < rho; ++a) {
      const double x = design[a * c_];
      add_square(s.within, w, values + a * m_, m_);
      ones += x * x;
      for (Index v = 0; v < m_ && x != 0; ++v) mean_[v] += x * values[a * m_ + v];
    }
    mean_ /= ones;
    add_square(s.within, -w * ones, mean_.data(), m_);
    s.used.array() += w * static_cast<double>(rho);
    s.clusters.array() += w;
    s.units.array() += w * data_.cell_sizes[data_.first_cell[j]];
    if (rho < c_) return false;
    back_.setZero();  // R^-1, an upper triangle as R
    for (Index k = 0; k < c_; ++k) {
      for (Index i = k; i >= 0; --i) {
        double left = i == k ? 1.0 : 0.0;
        for (Index l = i + 1; l <= k; ++l) left -= design[i * c_ + l] * back_(l, k);
        back_(i, k) = left / design[i * c_ + i];
      }
    }
    if (!back_.allFinite()) return false;
    for (Index i = 0; i < c_; ++i) {
      for (Index v = 0; v < m_; ++v) {
        double beta = 0;
        for (Index a = i; a < c_; ++a) beta += back_(i, a) * values[a * m_ + v];
        one[v * c_ + i] = beta;
      }
      for (Index k = 0; k < c_; ++k) {
        double error = 0;
        for (Index a = std::max(i, k); a < c_; ++a) error += back_(i, a) * back_(k, a);
        for (Index b = 0; b < m_; ++b) {
          for (Index a = 0; a < m_; ++a) s.errors(a * c_ + i, b * c_ + k) += w * error;
        }
      }
    }
    return true;
  }

  bool add_cells(Index j, CoefficientSums& s) {
    const Index begin = data_.first[j], rho = data_.first[j + 1] - begin, m = m_, c = c_;
    const double w = data_.weight[j];
    const Matrix all = data_.design.middleCols(begin, rho).transpose();
    const auto values = data_.values.middleCols(begin, rho);
    Matrix both = Matrix::Zero(m, m);  // rows with both
    for (Index a = 0; a < rho; ++a) both += seen_[data_.row_pattern[begin + a]];
    for (Index k = data_.first_cell[j]; k < data_.first_cell[j + 1]; ++k)
      s.units += w * data_.cell_sizes[k] * seen_[data_.cell_pattern[k]];
    bool full = true;
    for (Index v = 0; v < m; ++v) {
      Matrix design = all;
      for (Index a = 0; a < rho; ++a) {
        if (seen_[data_.row_pattern[begin + a]](v, v) == 0) design.row(a).setZero();
      }
      regressions_[v] = regress(design, values.row(v).transpose());
      full = full && regressions_[v].inverse.size();
    }
    for (Index a = 0; a < m; ++a) {
      for (Index b = 0; b < m; ++b) {
        s.residual(a, b) += w * regressions_[a].residuals.dot(regressions_[b].residuals);
        if (a >= b) s.within(a, b) += w * regressions_[a].deviations.dot(regressions_[b].deviations);
        s.used(a, b) += w * std::min(static_cast<double>(c), both(a, b));
        s.clusters(a, b) += both(a, b) > 0 ? w : 0.0;
      }
      one.segment(a * c, c) = regressions_[a].coefficients;
    }
    if (!full) return false;
    // sampling errors of two variables, as if the units of the one with fewer were among those of the other
    for (Index a = 0; a < m; ++a) {
      for (Index b = 0; b < m; ++b) {
        const OneRegression& larger = both(a, a) < both(b, b) ? regressions_[b] : regressions_[a];
        s.errors.block(a * c, b * c, c, c) += w * larger.inverse;
      }
    }
    return true;
  }

  const ReducedData& data_;
  std::vector<Matrix> seen_;  // of each pattern, 1 where two values are observed
  Index c_, m_;
  Matrix back_;
  Vector mean_;
  std::vector<OneRegression> regressions_;

 public:
  Vector one;
};

}  // namespace

ClusterCoefficients cluster_coefficients(const ReducedData& data) {
  const Index c = data.design.rows(), m = data.nvalues(), q = data.q;
  const CoefficientsOfClusters start(data);
  Vector origin = Vector::Zero(start.one.size());
  CoefficientsOfClusters first = start;
  CoefficientSums none = start.zero();
  for (Index j = 0; j < data.nclusters(); ++j) {
    if (!first.add(j, none)) continue;
    origin = first.one;
    break;
  }
  CoefficientSums found = sum_of_pieces<CoefficientSums>(
      data.nclusters(), start.zero(), [&](Index begin, Index last, CoefficientSums& sums) {
        CoefficientsOfClusters clusters = start;
        for (Index j = begin; j < last; ++j) {
          if (!clusters.add(j, sums)) continue;
          clusters.one -= origin;
          sums.sum += data.weight[j] * clusters.one;
          add_square(sums.products, data.weight[j], clusters.one.data(), clusters.one.size());
        }
      });
  complete(found.within);
  complete(found.products);
  for (const Matrix& rest : data.remainder) {
    found.residual += rest;
    found.within += rest;
  }
  ClusterCoefficients out;
  const auto divided = [&](const Matrix& x, const Matrix& by) {
    return Matrix(x.cwiseQuotient((found.units - by).cwiseMax(1.0)));
  };
  out.residual = divided(found.residual, found.used);
  out.within = divided(found.within, found.clusters);
  out.clusters = found.full;
  if (!(out.clusters > 0)) return out;
  const Vector mean = found.sum / out.clusters;
  out.cov = found.products / out.clusters;
  add_outer(out.cov, -1, mean, mean);
  for (Index a = 0; a < m; ++a) {
    for (Index b = 0; b < m; ++b)
      out.cov.block(a * c, b * c, c, c) -=
          out.residual(a, b) / out.clusters * found.errors.block(a * c, b * c, c, c);
  }
  symmetrise(out.cov);
  out.mean = mean + origin;
  for (Index a = 0; a < m; ++a) out.mean[a * c] += data.origin[a];
  out.mean.tail(q) += data.origin.tail(q);
  return out;
}

}  // namespace msem
