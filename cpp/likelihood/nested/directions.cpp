#include "likelihood/nested/directions.hpp"

namespace msem {

namespace {

using Complex = std::complex<double>;
constexpr double kStep = 1e-30;  // imaginary: everything is a sum of products, so that derivatives are exact

// The moments, changed along a parameter of a level.
std::vector<NestedMap<Complex>::Level> stepped(const Implied& moments, std::size_t level, const Vector& mean,
                                               const Matrix& cov) {
  std::vector<NestedMap<Complex>::Level> out;
  for (const LevelImplied& one : moments) out.push_back({one.mean.cast<Complex>(), one.cov.cast<Complex>()});
  NestedMap<Complex>::Level& own = out[level];
  for (Index i = 0; i < mean.size(); ++i) {
    own.mean[i] += Complex(0, kStep * mean[i]);
    for (Index j = 0; j < mean.size(); ++j) own.cov(i, j) += Complex(0, kStep * cov(i, j));
  }
  return out;
}

}  // namespace

NestedDirections::NestedDirections(const NestedData& data, const NestedArrangement& arranged,
                                   const Implied& moments, const LevelTangents& tangents)
    : data_(data), arranged_(arranged), moments_(moments), tangents_(tangents) {
  const std::size_t depth = tangents.size();
  first_ = {0};
  for (const Tangents& t : tangents) {
    moment_covs_.push_back(rotated_cov(t, Matrix::Identity(t.n(), t.n())));
    first_.push_back(first_.back() + t.k());
  }
  count_ = first_.back();
  for (const NestedCoordinates& own : arranged.coordinates) {
    cov_.push_back(Matrix::Zero(own.size() * own.size(), count_));
    open_.push_back(Matrix::Zero(own.open, count_));
    z_.push_back(Matrix::Zero(static_cast<Index>(own.z.size()), count_));
  }
  moves_cov_.assign(count_, false);
  moves_mean_.assign(count_, false);
  for (std::size_t l = 0; l < depth; ++l) {
    const Index n = tangents[l].n();
    for (Index b = 0; b < tangents[l].k(); ++b) {
      const Index a = first_[l] + b;
      if (data.slopes.empty()) {
        // each variable is a coordinate
        const std::vector<Index>& at = arranged.coordinates[l].of_variable;
        const auto from = slice(moment_covs_[l], b, n, n);
        auto to = slice(cov_[l], a, arranged.coordinates[l].size(), arranged.coordinates[l].size());
        for (Index j = 0; j < n; ++j) {
          for (Index i = 0; i < n; ++i) to(at[i], at[j]) = from(i, j);
        }
        for (Index i = 0; i < n; ++i) {
          const Index v = data.levels[l][i], m = data.measured[v];
          const std::vector<Index>& z = arranged.coordinates[m].z;
          z_[m](v - z[0], a) += tangents[l].mean(i, b);
        }
      } else {
        const NestedMap<Complex> map(
            data, arranged.coordinates,
            stepped(moments, l, tangents[l].mean.col(b), slice(moment_covs_[l], b, n, n)));
        const auto full = map.full();
        for (std::size_t m = 0; m < depth; ++m) {
          const auto& own = full[m];
          for (Index i = 0; i < own.cov.size(); ++i) cov_[m](i, a) = own.cov.data()[i].imag() / kStep;
          for (Index i = 0; i < own.open.size(); ++i) open_[m](i, a) = own.open[i].imag() / kStep;
          for (Index i = 0; i < own.z.size(); ++i) z_[m](i, a) = own.z[i].imag() / kStep;
        }
      }
      for (std::size_t m = 0; m < depth; ++m) {
        moves_cov_[a] = moves_cov_[a] || !cov_[m].col(a).isZero(0);
        moves_mean_[a] = moves_mean_[a] || !open_[m].col(a).isZero(0) || !z_[m].col(a).isZero(0);
      }
    }
  }
}

NestedDirections::Full NestedDirections::along(Index parameter) const {
  Full out;
  for (std::size_t l = 0; l < cov_.size(); ++l) {
    const Index n = arranged_.coordinates[l].size();
    out.push_back({Matrix(), open_[l].col(parameter), z_[l].col(parameter)});
    if (!cov_[l].col(parameter).isZero(0)) out.back().cov = slice(cov_[l], parameter, n, n);
  }
  return out;
}

Vector NestedDirections::along_cov(const Full& gradient) const {
  Vector out = Vector::Zero(count_);
  for (std::size_t l = 0; l < cov_.size(); ++l) {
    const Eigen::Map<const Vector> g(gradient[l].cov.data(), gradient[l].cov.size());
    add_applied_transposed(out, 1, cov_[l], g);
  }
  return out;
}

Vector NestedDirections::along_mean(const Full& gradient) const {
  Vector out = Vector::Zero(count_);
  for (std::size_t l = 0; l < cov_.size(); ++l) {
    if (open_[l].rows()) add_applied_transposed(out, 1, open_[l], gradient[l].open);
    if (z_[l].rows()) add_applied_transposed(out, 1, z_[l], gradient[l].z);
  }
  return out;
}

Matrix NestedDirections::second(const Full& gradient) const {
  Matrix out = Matrix::Zero(count_, count_);
  if (data_.slopes.empty()) return out;
  std::vector<FullLevel<Complex>> fixed;
  for (const FullLevel<double>& one : gradient)
    fixed.push_back({one.cov.cast<Complex>(), one.open.cast<Complex>(), one.z.cast<Complex>()});
  for (std::size_t l = 0; l < tangents_.size(); ++l) {
    const Index n = tangents_[l].n();
    for (Index b = 0; b < tangents_[l].k(); ++b) {
      const NestedMap<Complex> map(
          data_, arranged_.coordinates,
          stepped(moments_, l, tangents_[l].mean.col(b), slice(moment_covs_[l], b, n, n)));
      const auto moved = map.back(fixed);
      for (std::size_t m = 0; m < tangents_.size(); ++m) {
        Vector mean(moved[m].mean.size()), cov(moved[m].cov.size());
        for (Index i = 0; i < mean.size(); ++i) mean[i] = moved[m].mean[i].imag() / kStep;
        for (Index i = 0; i < cov.size(); ++i) cov[i] = moved[m].cov.data()[i].imag() / kStep;
        auto part = out.col(first_[l] + b).segment(first_[m], tangents_[m].k());
        part = apply_transposed(moment_covs_[m], cov) + apply_transposed(tangents_[m].mean, mean);
      }
    }
  }
  return out;
}

}  // namespace msem
