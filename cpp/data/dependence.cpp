#include "data/dependence.hpp"

#include <algorithm>
#include <stdexcept>

namespace msem {

namespace {

constexpr double kNone = 1e-6;  // a coefficient, of standardized variables, that counts as zero

// Rows of the Cholesky factor of a correlation matrix, one variable at a time.
class GrowingFactor {
 public:
  explicit GrowingFactor(Index most) : lower_(Matrix::Zero(most, most)) {}

  // The share of its variance that those before it leave of a variable with these correlations with them.
  double next(const Vector& correlations) {
    double left = 1;
    for (Index i = 0; i < size_; ++i) {
      double sum = correlations[i];
      for (Index k = 0; k < i; ++k) sum -= lower_(i, k) * lower_(size_, k);
      lower_(size_, i) = sum / lower_(i, i);
      left -= lower_(size_, i) * lower_(size_, i);
    }
    return left;
  }

  void keep(double left) {
    lower_(size_, size_) = std::sqrt(left);
    ++size_;
  }

  // Its coefficients on those before it.
  Vector coefficients() const {
    Vector out = lower_.row(size_).head(size_).transpose();
    for (Index i = size_ - 1; i >= 0; --i) {
      for (Index k = i + 1; k < size_; ++k) out[i] -= lower_(k, i) * out[k];
      out[i] /= lower_(i, i);
    }
    return out;
  }

 private:
  Matrix lower_;
  Index size_ = 0;
};

}  // namespace

std::optional<Dependence> first_dependence(const Matrix& scatter, const std::vector<bool>& passing,
                                           double least) {
  const Index n = scatter.rows();
  if (scatter.cols() != n || passing.size() != static_cast<std::size_t>(n))
    throw std::invalid_argument("a scatter matrix is square, and every variable passes or does not");
  GrowingFactor factor(n);
  std::vector<Index> kept;
  Vector correlations(n);
  for (Index v = 0; v < n; ++v) {
    if (!(scatter(v, v) > 0)) continue;
    for (std::size_t i = 0; i < kept.size(); ++i)
      correlations[static_cast<Index>(i)] =
          scatter(v, kept[i]) / std::sqrt(scatter(v, v)) / std::sqrt(scatter(kept[i], kept[i]));
    const double left = factor.next(correlations);
    if (left >= least) {
      factor.keep(left);
      kept.push_back(v);
      continue;
    }
    const Vector weights = factor.coefficients();
    Dependence found{v, {}};
    for (std::size_t i = 0; i < kept.size(); ++i) {
      if (!(std::abs(weights[static_cast<Index>(i)]) <= kNone)) found.others.push_back(kept[i]);
    }
    const bool passes = passing[v] && std::all_of(found.others.begin(), found.others.end(),
                                                  [&](Index i) { return passing[i]; });
    if (!passes) return found;
  }
  return std::nullopt;
}

}  // namespace msem
