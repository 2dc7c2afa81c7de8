// Information of crossed classifications.
#include <cmath>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "base/threads.hpp"
#include "likelihood/by_level.hpp"
#include "likelihood/crossed/crossed.hpp"

namespace msem {

namespace {

constexpr double kStep = 1e-4;      // of a difference, in standard errors
constexpr double kSingular = 1e-9;  // of eigenvalues of a correlation matrix

// S = B'B with A'B + B'A = D and A'A = cov, so that cov + h D + h^2 S is positive semidefinite for a singular
// matrix and a change D along those of its rank. In a central difference S makes none.
Matrix along_cone(const Matrix& cov, const Matrix& change) {
  const Vector sd = cov.diagonal().cwiseMax(0).cwiseSqrt();
  const Vector inverse = sd.unaryExpr([](double v) { return v > 0 ? 1 / v : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, cov));
  const Matrix turned = sandwich(eigen.vectors, scale_both(inverse, change));
  Matrix b = Matrix::Zero(cov.rows(), cov.rows());
  for (Index i = 0; i < b.rows(); ++i) {
    if (!(eigen.values[i] > kSingular)) continue;
    for (Index j = 0; j < b.rows(); ++j)
      b(i, j) = (eigen.values[j] > kSingular ? 0.5 : 1.0) * turned(i, j) / std::sqrt(eigen.values[i]);
  }
  return scale_both(sd, outer_sandwich(eigen.vectors, cross(b, b)));
}

}  // namespace

// Vectors over the units of the form v_i = dSigma W_i eps_i + X_i (a_g(i) + b_h(i)), eps what is left of unit
// i, X_i what coefficients do to it: changes of the means, and of the covariance matrix times V^-1 r.
class CrossedPoint::Directions {
 public:
  explicit Directions(const CrossedPoint& point) : point_(point) {
    for (std::size_t i = 0; i < point.w_.size(); ++i)
      squares_.push_back(sandwich(point.w_[i], point.squares_[i]));
    left_ = Matrix::Zero(point.rest_.rows(), point.rest_.cols());
    for (Index k = 0; k < left_.cols(); ++k)
      point.add_weighted(left_.col(k).data(), k, point.rest_.col(k).data());
  }

  void add(const Matrix& change, const Matrix& a, const Matrix& b) {
    const CrossedArrangement& at = *point_.at_;
    const Index p = at.p, size = at.coefficients();
    Matrix plain[2], whole[2];
    for (int s = 0; s < 2; ++s) plain[s] = whole[s] = Matrix::Zero(size, at.sides[s].data->count());
    const bool moves = change.size() && !change.isZero(0);
    Vector y(size), z(size), w(size);
    for (Index k = 0; k < at.ncells(); ++k) {
      if (k % 65536 == 0) check_interrupt();
      const Index g = at.cluster[0][k], h = at.cluster[1][k];
      y = a.col(g) + b.col(h);
      z.setZero();
      point_.subtract_design(z.data(), k, -1, y.data());
      if (moves) {
        y.setZero();
        for (Index c = 0; c < size; c += p)
          add_applied(y.segment(c, p), 1, change, left_.col(k).segment(c, p));
        z += y;
        w.setZero();
        point_.add_weighted(w.data(), k, y.data());
        plain[0].col(g) += w;
        plain[1].col(h) += w;
      }
      w.setZero();
      point_.add_weighted(w.data(), k, z.data());
      whole[0].col(g) += w;
      whole[1].col(h) += w;
    }
    change_.push_back(moves ? change : Matrix(0, 0));
    a_.push_back(a);
    b_.push_back(b);
    for (int s = 0; s < 2; ++s) {
      plain_[s].push_back(std::move(plain[s]));
      whole_[s].push_back(std::move(whole[s]));
    }
  }

  // v'V^-1 v of all pairs.
  Matrix products() const {
    const CrossedArrangement& at = *point_.at_;
    const Index k = static_cast<Index>(a_.size()), na = at.sides[0].data->count(),
                nb = at.sides[1].data->count();
    const Matrix &first = point_.sides_[0].effects, &second = point_.sides_[1].effects;
    Matrix x(first.cols(), na * k), y(second.cols(), nb * k);
    for (Index i = 0; i < k; ++i) {
      x.middleCols(i * na, na) = cross(first, whole_[0][i]);
      y.middleCols(i * nb, nb) = cross(second, whole_[1][i]);
    }
    const Matrix right_x = x, right_y = y;
    point_.solve(x, y);
    Matrix out(k, k);
    for (Index i = 0; i < k; ++i) {
      check_interrupt();
      for (Index j = 0; j < k; ++j) {
        double sum = 0;
        if (change_[i].size() && change_[j].size()) {
          for (std::size_t n = 0; n < squares_.size(); ++n)
            sum += product(product(change_[i], point_.w_[n]), product(change_[j], squares_[n])).trace();
        }
        sum += whole_[0][i].cwiseProduct(a_[j]).sum() + whole_[1][i].cwiseProduct(b_[j]).sum();
        sum += plain_[0][j].cwiseProduct(a_[i]).sum() + plain_[1][j].cwiseProduct(b_[i]).sum();
        sum -= x.middleCols(i * na, na).cwiseProduct(right_x.middleCols(j * na, na)).sum();
        sum -= y.middleCols(i * nb, nb).cwiseProduct(right_y.middleCols(j * nb, nb)).sum();
        out(i, j) = sum;
      }
    }
    return out;
  }

 private:
  const CrossedPoint& point_;
  std::vector<Matrix> squares_;  // W times the squares of each pattern times W
  Matrix left_;                  // W times what is left, by cell
  std::vector<Matrix> change_, a_, b_;
  std::array<std::vector<Matrix>, 2> plain_, whole_;  // W dSigma W eps, W v, summed by cluster of either side
};

// Over the parameters of all levels, one after the other.
Matrix CrossedPoint::average(const LevelTangents& tangents) const {
  const Index p = at_->p, size = at_->coefficients(), m = static_cast<Index>(data_->slopes.size());
  const Index counts[2] = {at_->sides[0].data->count(), at_->sides[1].data->count()};
  std::vector<Index> begin = {0};
  for (const Tangents& t : tangents) begin.push_back(begin.back() + t.k());
  Directions of_cov(*this), of_mean(*this);
  Matrix own = Matrix::Zero(begin.back(), begin.back());  // of the variables of clusters
  const Matrix none(0, 0);
  for (std::size_t l = 0; l < 3; ++l) {
    const Tangents& t = tangents[l];
    if (l == 0) {
      std::vector<Index> rows = at_->units;
      rows.insert(rows.end(), at_->products.begin(), at_->products.end());
      const Tangents units = rows_of(t, rows);
      const Matrix cov = rotated_cov(units, Matrix::Identity(p + m, p + m));
      for (Index k = 0; k < t.k(); ++k) {
        Matrix change = slice(cov, k, p + m, p + m).topLeftCorner(p, p), effect[2], mean[2];
        for (int s = 0; s < 2; ++s) effect[s] = mean[s] = Matrix::Zero(size, counts[s]);
        mean[0].topRows(p).colwise() += Vector(units.mean.col(k).head(p));
        const Matrix paths = slice(cov, k, p + m, p + m).topRightCorner(p, m);
        if (m && !paths.isZero(0)) {
          add_with_transpose(change, -1, outer(paths, paths_));
          mean[0].colwise() += slope_means(paths);
          for (int s = 0; s < 2; ++s) {
            const Side& side = sides_[s];
            const Matrix map = slope_columns(s, paths);
            mean[s] += product(map, side.known);
            add_product(effect[s], 1, map, product(side.given.cov, cross(side.map, side.weighted)));
            add_product(effect[s], 1, side.map, product(side.given.cov, cross(map, side.weighted)));
          }
        }
        of_cov.add(change, effect[0], effect[1]);
        of_mean.add(none, mean[0], mean[1]);
      }
      continue;
    }
    const int s = at_->sides[0].level == static_cast<Index>(l) ? 0 : 1;
    const CrossedArrangement::Side& side = at_->sides[s];
    const Side& here = sides_[s];
    const Index r = side.effects(), q = static_cast<Index>(side.z.size());
    const Whitened w = whiten_between(rows_of(t, side.order), here.given.projection, here.given.chol_z, q);
    const Matrix u = cross(here.map, here.weighted);
    const double count = static_cast<double>(counts[s]);
    const Matrix zero = Matrix::Zero(size, counts[1 - s]);
    for (Index k = 0; k < t.k(); ++k) {
      const Matrix effect = product(here.map, product(slice(w.cov, k, r, r), u));
      Matrix mean = product(slice(w.slope, k, r, q), here.zeta);
      mean.colwise() += w.mean.col(k);
      mean = product(here.map, mean);
      of_cov.add(none, s == 0 ? effect : zero, s == 0 ? zero : effect);
      of_mean.add(none, s == 0 ? mean : zero, s == 0 ? zero : mean);
    }
    if (q) {
      Matrix of_level = 0.5 * count * cross(w.zcov, w.zcov);
      add_cross(of_level, count, w.zmean, w.zmean);
      own.block(begin[l], begin[l], t.k(), t.k()) = of_level;
    }
  }
  Matrix out = 0.5 * of_cov.products() + of_mean.products() + own;
  symmetrise(out);
  return out;
}

// The derivative of the gradient along each parameter, by central differences; where the border of the domain
// does not bend with them, to one side.
Matrix CrossedPoint::observed(const LevelTangents& tangents, const Matrix& average) const {
  const std::size_t depth = tangents.size();
  std::vector<Matrix> covs;
  std::vector<Index> begin = {0};
  for (const Tangents& t : tangents) {
    covs.push_back(rotated_cov(t, Matrix::Identity(t.n(), t.n())));
    begin.push_back(begin.back() + t.k());
  }
  const auto slopes = [&](const Implied& gradient) {
    Vector out(begin.back());
    for (std::size_t l = 0; l < depth; ++l) {
      const Eigen::Map<const Vector> cov(gradient[l].cov.data(), gradient[l].cov.size());
      Vector part = apply_transposed(covs[l], cov);
      add_applied_transposed(part, 1, tangents[l].mean, gradient[l].mean);
      out.segment(begin[l], part.size()) = part;
    }
    return out;
  };
  Matrix out(begin.back(), begin.back());
  const Vector here = slopes(gradient());
  in_threads(begin.back(), 0, [&](std::ptrdiff_t at) {
    check_interrupt();
    std::size_t l = 0;
    while (begin[l + 1] <= at) ++l;
    const Index n = tangents[l].n(), k = at - begin[l];
    const double step = average(at, at) > 0 ? kStep / std::sqrt(average(at, at)) : 0;
    const auto moved = [&](double by, const Matrix& bend) {
      Implied moments = moments_;
      moments[l].cov += by * slice(covs[l], k, n, n) + by * by * bend;
      moments[l].mean += by * tangents[l].mean.col(k);
      return whole_->at(std::move(moments));
    };
    const Matrix straight = Matrix::Zero(n, n);
    Vector column = Vector::Zero(begin.back());
    if (step > 0) {
      column.setConstant(std::nan(""));
      auto up = moved(step, straight), down = moved(-step, straight);
      if (!(up && down)) {
        const Matrix bend = along_cone(moments_[l].cov, slice(covs[l], k, n, n));
        auto above = moved(step, bend), below = moved(-step, bend);
        if (above && below) {
          up = std::move(above);
          down = std::move(below);
        }
      }
      if (up && down) {
        column = (slopes(up->gradient()) - slopes(down->gradient())) / (2 * step);
      } else if (up || down) {
        const double side = up ? step : -step;
        const auto further = moved(2 * side, straight);
        if (further)
          column = (4 * slopes((up ? up : down)->gradient()) - 3 * here - slopes(further->gradient())) /
                   (2 * side);
      }
    }
    out.col(at) = 0.5 * column;  // the value is on the scale of -2 log L
  });
  symmetrise(out);
  return out;
}

LevelBlocks CrossedPoint::information(Information kind, const LevelTangents& tangents) const {
  const Matrix whole = average(tangents);
  return by_level(kind == Information::kObserved ? observed(tangents, whole) : whole, tangents);
}

std::vector<Matrix> CrossedPoint::factor(const LevelTangents& tangents) const {
  return columns_by_level(symmetric_root(average(tangents)), tangents);
}

}  // namespace msem
