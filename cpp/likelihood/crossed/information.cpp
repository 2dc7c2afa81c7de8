// Information of crossed classifications.
#include <cmath>

#include "base/interrupt.hpp"
#include "base/root.hpp"
#include "base/threads.hpp"
#include "likelihood/by_level.hpp"
#include "likelihood/crossed/crossed.hpp"

namespace msem {

namespace {

constexpr double kStep = 1e-4;  // of a difference, in standard errors

}  // namespace

// Vectors over the units of the form v_i = D eps_i + a_g(i) + b_h(i), eps what is left of unit i: changes of
// the means, and of the covariance matrix times V^-1 r.
class CrossedPoint::Directions {
 public:
  explicit Directions(const CrossedPoint& point) : point_(point) {}

  void add(const Matrix& d, const Matrix& a, const Matrix& b) {
    const CrossedArrangement& at = *point_.at_;
    const Vector &first = at.sides[0].data->sizes, &second = at.sides[1].data->sizes;
    d_.push_back(d);
    const Matrix of_first = product(d, point_.sides_[0].sum), of_second = product(d, point_.sides_[1].sum);
    sums_.push_back(of_first + scale_cols(a, first) + at.to_first(b));
    others_.push_back(of_second + scale_cols(b, second) + at.to_second(a));
    plain_.push_back(of_first);
    plain_others_.push_back(of_second);
    a_.push_back(a);
    b_.push_back(b);
  }

  // v'V^-1 v of all pairs.
  Matrix products() const {
    const CrossedArrangement& at = *point_.at_;
    const Index k = static_cast<Index>(d_.size()), na = at.sides[0].data->count(),
                nb = at.sides[1].data->count();
    const Matrix &first = point_.sides_[0].effects, &second = point_.sides_[1].effects;
    Matrix x(first.cols(), na * k), y(second.cols(), nb * k);
    for (Index i = 0; i < k; ++i) {
      x.middleCols(i * na, na) = cross(first, product(point_.w_, sums_[i]));
      y.middleCols(i * nb, nb) = cross(second, product(point_.w_, others_[i]));
    }
    const Matrix right_x = x, right_y = y;
    point_.solve(x, y);
    Matrix out(k, k);
    for (Index i = 0; i < k; ++i) {
      check_interrupt();
      const Matrix wd = product(point_.w_, d_[i]), wa = product(point_.w_, a_[i]),
                   wb = product(point_.w_, b_[i]);
      for (Index j = 0; j < k; ++j) {
        double sum = outer(product(wd, point_.squares_), d_[j]).trace();
        sum += wa.cwiseProduct(sums_[j]).sum() + wb.cwiseProduct(others_[j]).sum();
        sum += product(point_.w_, plain_[i]).cwiseProduct(a_[j]).sum() +
               product(point_.w_, plain_others_[i]).cwiseProduct(b_[j]).sum();
        sum -= x.middleCols(i * na, na).cwiseProduct(right_x.middleCols(j * na, na)).sum();
        sum -= y.middleCols(i * nb, nb).cwiseProduct(right_y.middleCols(j * nb, nb)).sum();
        out(i, j) = sum;
      }
    }
    return out;
  }

 private:
  const CrossedPoint& point_;
  std::vector<Matrix> d_, a_, b_, sums_, others_, plain_, plain_others_;
};

// Over the parameters of all levels, one after the other.
Matrix CrossedPoint::average(const LevelTangents& tangents) const {
  const Index p = at_->p;
  const Index counts[2] = {at_->sides[0].data->count(), at_->sides[1].data->count()};
  std::vector<Index> begin = {0};
  for (const Tangents& t : tangents) begin.push_back(begin.back() + t.k());
  Directions of_cov(*this), of_mean(*this);
  Matrix own = Matrix::Zero(begin.back(), begin.back());  // of the variables of clusters
  const Matrix none = Matrix::Zero(p, p);
  for (std::size_t l = 0; l < 3; ++l) {
    const Tangents& t = tangents[l];
    if (l == 0) {
      const Tangents units = rows_of(t, at_->units);
      const Matrix cov = rotated_cov(units, Matrix::Identity(p, p));
      const Matrix a = Matrix::Zero(p, counts[0]), b = Matrix::Zero(p, counts[1]);
      for (Index k = 0; k < t.k(); ++k) {
        of_cov.add(product(slice(cov, k, p, p), w_), a, b);
        of_mean.add(none, units.mean.col(k).replicate(1, counts[0]), b);
      }
      continue;
    }
    const int s = at_->sides[0].level == static_cast<Index>(l) ? 0 : 1;
    const CrossedArrangement::Side& side = at_->sides[s];
    const Side& here = sides_[s];
    const Index r = static_cast<Index>(side.open.size()), q = static_cast<Index>(side.z.size());
    const Whitened w = whiten_between(rows_of(t, side.order), here.given.projection, here.given.chol_z, q);
    const Matrix u = select_rows(product(w_, here.sum), side.open);
    const double count = static_cast<double>(counts[s]);
    const Matrix zero = Matrix::Zero(p, counts[1 - s]);
    for (Index k = 0; k < t.k(); ++k) {
      const Matrix effect = at_->of_units(side, product(slice(w.cov, k, r, r), u));
      Matrix mean = product(slice(w.slope, k, r, q), here.zeta);
      mean.colwise() += w.mean.col(k);
      mean = at_->of_units(side, mean);
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

// The derivative of the gradient along each parameter, by central differences; at the border of the domain by
// differences to one side.
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
    const auto moved = [&](double by) {
      Implied moments = moments_;
      moments[l].cov += by * slice(covs[l], k, n, n);
      moments[l].mean += by * tangents[l].mean.col(k);
      return whole_->at(std::move(moments));
    };
    Vector column = Vector::Zero(begin.back());
    if (step > 0) {
      column.setConstant(std::nan(""));
      const auto up = moved(step), down = moved(-step);
      if (up && down) {
        column = (slopes(up->gradient()) - slopes(down->gradient())) / (2 * step);
      } else if (up || down) {
        const double side = up ? step : -step;
        const auto further = moved(2 * side);
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
