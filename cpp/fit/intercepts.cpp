// Intercepts that take up the curvature of the means.
//
// A mean such as a + lambda (gamma x) bends as lambda and gamma move, in proportion to x: with a covariate
// whose mean is 1e8 no step in these parameters is small enough to be straight. Moving `a` along keeps the
// mean where the linear prediction puts it. With an intercept for every variable, iterations are those of
// centred data.
#include "fit/objective.hpp"

namespace msem {

namespace {

// The means that intercepts can produce, in the metric of the variables' standard deviations.
class MeanSpan {
 public:
  MeanSpan(const Matrix& columns, const Vector& variances)
      : sd_(variances.unaryExpr([](double v) { return v > 0 ? std::sqrt(v) : 1.0; })) {
    const Matrix scaled = scale_rows(sd_.cwiseInverse(), columns);
    const Vector norm = scaled.colwise().norm();
    inverse_norm_ = norm.unaryExpr([](double x) { return x > 0 ? 1 / x : 0.0; });
    qr_ = PivotedQr(scale_cols(scaled, inverse_norm_));
  }
  // Intercepts that come closest to means.
  Vector solve(const Vector& means) const {
    return inverse_norm_.cwiseProduct(qr_.solve(means.cwiseQuotient(sd_)));
  }
  // A gradient with respect to the means less what intercepts would respond to.
  Vector reject(const Vector& gradient) const {
    Vector r = qr_.rotate_back(gradient.cwiseProduct(sd_));
    r.head(qr_.rank()).setZero();
    return qr_.rotate(r).cwiseQuotient(sd_);
  }

 private:
  Vector sd_, inverse_norm_;
  PivotedQr qr_;
};

MeanSpan mean_span(const Objective& objective, const std::vector<BlockPoint>& points,
                   const std::vector<int>& intercepts) {
  std::vector<Matrix> columns, variances;
  columns.reserve(points.size());
  variances.reserve(points.size());
  for (std::size_t b = 0; b < points.size(); ++b) {
    const Block& block = objective.blocks()[b];
    columns.push_back(block.intercept_columns(points[b], intercepts));
    variances.push_back(points[b].total.diagonal().head(block.nobserved()));
  }
  return {objective.stack(columns), objective.stack(variances)};
}

}  // namespace

std::vector<int> Objective::intercepts() const {
  std::vector<bool> seen(npar_, false), other(npar_, false);
  for (const Block& block : blocks_) {
    for (const Entry& e : block.free_entries()) {
      (e.slot == Slot::kIntercept ? seen : other)[e.parameter] = true;
    }
  }
  std::vector<int> out;
  for (int k = 0; k < npar_; ++k) {
    if (seen[k] && !other[k]) out.push_back(k);
  }
  return out;
}

Matrix Objective::stack(const std::vector<Matrix>& by_block) const {
  Index rows = 0;
  for (const Layout& layout : layouts_) rows += layout.nvariables;
  Matrix out = Matrix::Zero(rows, by_block.front().cols());
  Index at = 0;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (std::size_t l = 0; l < levels_[g].size(); ++l) {
      const Matrix& own = by_block[levels_[g][l]];
      for (Index i = 0; i < own.rows(); ++i) out.row(at + layouts_[g].levels[l][i]) += own.row(i);
    }
    at += layouts_[g].nvariables;
  }
  return out;
}

Vector Objective::settle(ConstVectorRef theta, const Vector& delta,
                         const std::vector<int>& intercepts) const {
  std::vector<BlockPoint> here(blocks_.size());
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    if (!blocks_[b].evaluate(theta, here[b])) return theta + delta;
  }
  return settle(here, theta, delta, intercepts).theta;
}

Settled Objective::settle(const std::vector<BlockPoint>& here, ConstVectorRef theta, const Vector& delta,
                          const std::vector<int>& intercepts) const {
  Settled out{theta + delta, {}};
  if (intercepts.empty()) return out;
  std::vector<BlockPoint> there(blocks_.size());
  std::vector<Matrix> gaps;
  gaps.reserve(blocks_.size());
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    if (!blocks_[b].evaluate(out.theta, there[b])) return out;
    const Vector bend = there[b].mean - here[b].mean - blocks_[b].mean_change(here[b], delta);
    gaps.push_back(-bend.head(blocks_[b].nobserved()));
  }
  const Vector moved = mean_span(*this, there, intercepts).solve(stack(gaps));
  for (std::size_t i = 0; i < intercepts.size(); ++i) out.theta[intercepts[i]] += moved[i];
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    blocks_[b].set_mean(out.theta, there[b]);
    if (!there[b].mean.allFinite()) return out;
  }
  out.blocks = std::move(there);
  return out;
}

Matrix Objective::follow(ConstVectorRef from, ConstVectorRef to, const Matrix& directions,
                         const std::vector<int>& intercepts) const {
  Matrix out = directions;
  std::vector<BlockPoint> here(blocks_.size()), there(blocks_.size());
  if (intercepts.empty()) return out;
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    if (!blocks_[b].evaluate(from, here[b]) || !blocks_[b].evaluate(to, there[b])) return out;
  }
  const MeanSpan span = mean_span(*this, there, intercepts);
  for (Index k = 0; k < directions.cols(); ++k) {
    std::vector<Matrix> gaps;
    for (std::size_t b = 0; b < blocks_.size(); ++b) {
      const Vector direction = directions.col(k);
      const Vector gap =
          blocks_[b].mean_change(here[b], direction) - blocks_[b].mean_change(there[b], direction);
      gaps.push_back(gap.head(blocks_[b].nobserved()));
    }
    const Vector moved = span.solve(stack(gaps));
    for (std::size_t i = 0; i < intercepts.size(); ++i) out(intercepts[i], k) += moved[i];
  }
  return out;
}

void Objective::settle_gradient(const std::vector<BlockPoint>& points, const std::vector<int>& intercepts,
                                std::vector<Implied>& gradients) const {
  if (intercepts.empty()) return;
  const MeanSpan span = mean_span(*this, points, intercepts);
  Index rows = 0;
  for (const Layout& layout : layouts_) rows += layout.nvariables;
  Vector all = Vector::Zero(rows);
  // The derivative with respect to a mean is the same at every level that has a part of it.
  const auto each_mean = [&](const auto& visit) {
    Index at = 0;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      for (std::size_t l = 0; l < levels_[g].size(); ++l) {
        Vector& mean = gradients[g][l].mean;
        for (Index i = 0; i < mean.size(); ++i) visit(mean[i], all[at + layouts_[g].levels[l][i]]);
      }
      at += layouts_[g].nvariables;
    }
  };
  each_mean([](double own, double& sum) { sum = own; });
  all = span.reject(all);
  each_mean([](double& own, double sum) { own = sum; });
}

}  // namespace msem
