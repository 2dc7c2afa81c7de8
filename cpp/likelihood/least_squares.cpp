#include "likelihood/least_squares.hpp"

#include <stdexcept>

namespace msem {

namespace {

class LeastSquaresPoint : public LossPoint {
 public:
  LeastSquaresPoint(const LeastSquaresLoss& loss, const Moments& m)
      : loss_(&loss), mean_(m.mean_b - loss.mean), cov_(m.cov_b - loss.cov) {
    // Every off-diagonal element stands twice in the full matrix and counts once.
    full_weights_ = 0.5 * loss.cov_weights;
    full_weights_.diagonal() = loss.cov_weights.diagonal();
    value_ =
        loss.mean_weights.dot(mean_.cwiseAbs2()) + full_weights_.cwiseProduct(cov_).cwiseProduct(cov_).sum();
  }

  Moments gradient() const override {
    Moments out;
    out.mean_b = 2 * loss_->mean_weights.cwiseProduct(mean_);
    out.cov_b = 2 * full_weights_.cwiseProduct(cov_);
    return out;
  }

  // The curvature of the discrepancy at a perfect fit (Gauss-Newton).
  BlockInformation expected(const Tangents& within, const Tangents& between) const override {
    const auto f = factor(within, between).second;
    return {Matrix(0, 0), Matrix(0, f.cols()), cross(f, f)};
  }

  // The objective adds the part that comes from the curvature of the moments.
  BlockInformation observed(const Tangents& within, const Tangents& between) const override {
    return expected(within, between);
  }

  std::pair<Matrix, Matrix> factor(const Tangents&, const Tangents& between) const override {
    const Index n = between.n();
    Matrix out(n + n * n, between.k());
    out.topRows(n) = scale_rows(loss_->mean_weights.cwiseSqrt(), between.mean);
    const Matrix root = full_weights_.cwiseSqrt();
    out.bottomRows(n * n) = scale_rows(Eigen::Map<const Vector>(root.data(), n * n),
                                       rotated_cov(between, Matrix::Identity(n, n)));
    return {Matrix(out.rows(), 0), out};
  }

 private:
  const LeastSquaresLoss* loss_;
  Vector mean_;
  Matrix cov_, full_weights_;
};

}  // namespace

LeastSquaresLoss::LeastSquaresLoss(Vector mean_, Matrix cov_, Vector mean_weights_, Matrix cov_weights_)
    : mean(std::move(mean_)),
      mean_weights(std::move(mean_weights_)),
      cov(std::move(cov_)),
      cov_weights(std::move(cov_weights_)) {
  const Index n = cov.rows();
  if (mean.size() != n || mean_weights.size() != n || cov_weights.rows() != n || cov_weights.cols() != n ||
      cov.cols() != n)
    throw std::invalid_argument("least squares needs moments and weights of the same size");
}

std::unique_ptr<LossPoint> LeastSquaresLoss::at(const Moments& moments) const {
  if (moments.mean_w.size() || moments.mean_b.size() != mean.size())
    throw std::invalid_argument("the block does not have the variables of the moments");
  return std::make_unique<LeastSquaresPoint>(*this, moments);
}

}  // namespace msem
