#include "likelihood/least_squares.hpp"

#include <numeric>
#include <stdexcept>

namespace msem {

namespace {

class LeastSquaresPoint : public LikelihoodPoint {
 public:
  LeastSquaresPoint(const LeastSquares& loss, const LevelImplied& m)
      : loss_(&loss), mean_(m.mean - loss.mean), cov_(m.cov - loss.cov) {
    // Every off-diagonal element stands twice in the full matrix and counts once.
    full_weights_ = 0.5 * loss.cov_weights;
    full_weights_.diagonal() = loss.cov_weights.diagonal();
    value_ =
        loss.mean_weights.dot(mean_.cwiseAbs2()) + full_weights_.cwiseProduct(cov_).cwiseProduct(cov_).sum();
  }

  Implied gradient() const override {
    return {{2 * loss_->mean_weights.cwiseProduct(mean_), 2 * full_weights_.cwiseProduct(cov_)}};
  }

  // The discrepancy is quadratic in the moments, so that the observed information about them is the expected
  // one, which is that at a perfect fit.
  LevelBlocks information(Information, const LevelTangents& tangents) const override {
    const Matrix f = factor(tangents).front();
    LevelBlocks out(1);
    out(0, 0) = cross(f, f);
    return out;
  }

  std::vector<Matrix> factor(const LevelTangents& tangents) const override {
    const Tangents& t = tangents.front();
    const Index n = t.n();
    Matrix out(n + n * n, t.k());
    out.topRows(n) = scale_rows(loss_->mean_weights.cwiseSqrt(), t.mean);
    const Matrix root = full_weights_.cwiseSqrt();
    out.bottomRows(n * n) =
        scale_rows(Eigen::Map<const Vector>(root.data(), n * n), rotated_cov(t, Matrix::Identity(n, n)));
    return {out};
  }

 private:
  const LeastSquares* loss_;
  Vector mean_;
  Matrix cov_, full_weights_;
};

}  // namespace

LeastSquares::LeastSquares(Vector mean_, Matrix cov_, Vector mean_weights_, Matrix cov_weights_)
    : mean(std::move(mean_)),
      mean_weights(std::move(mean_weights_)),
      cov(std::move(cov_)),
      cov_weights(std::move(cov_weights_)) {
  const Index n = cov.rows();
  if (mean.size() != n || mean_weights.size() != n || cov_weights.rows() != n || cov_weights.cols() != n ||
      cov.cols() != n)
    throw std::invalid_argument("least squares needs moments and weights of the same size");
}

Layout LeastSquares::layout() const {
  Layout out{{std::vector<Index>(mean.size())}, mean.size()};
  std::iota(out.levels[0].begin(), out.levels[0].end(), Index{0});
  return out;
}

std::unique_ptr<LikelihoodPoint> LeastSquares::at(Implied moments) const {
  if (moments.size() != 1 || moments.front().mean.size() != mean.size())
    throw std::invalid_argument("the block does not have the variables of the moments");
  return std::make_unique<LeastSquaresPoint>(*this, moments.front());
}

}  // namespace msem
