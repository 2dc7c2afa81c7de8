// Matrices and vectors, and how they are handed over.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/QR>
#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace msem {

// Memory of matrices: of so many numbers, both times.
double* allocate(std::size_t count);
void release(double* place, std::size_t count) noexcept;

}  // namespace msem

#if EIGEN_WORLD_VERSION == 3 && EIGEN_MAJOR_VERSION == 4
// A call in the place of code that Eigen otherwise has wherever a matrix begins or ends.
namespace Eigen::internal {

template <>
inline double* conditional_aligned_new_auto<double, true>(std::size_t count) {
  return msem::allocate(count);
}
template <>
inline void conditional_aligned_delete_auto<double, true>(double* place, std::size_t count) {
  if (place) msem::release(place, count);  // what was moved from has none
}
template <>
inline double* conditional_aligned_realloc_new_auto<double, true>(double* place, std::size_t count,
                                                                  std::size_t before) {
  double* other = msem::allocate(count);
  std::copy_n(place, std::min(count, before), other);
  if (place) msem::release(place, before);
  return other;
}

}  // namespace Eigen::internal
#endif

namespace msem {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;
using Index = Eigen::Index;
using MatrixRef = Eigen::Ref<Matrix>;
using VectorRef = Eigen::Ref<Vector>;

// An argument that is read: a matrix, or a part of one whose columns are contiguous, is looked at where it
// is; any other expression is evaluated and kept to the end of the statement. Unlike Eigen::Ref<const Matrix>
// it owns nothing in the first case, which is the usual one: a call has nothing to prepare and nothing to
// release.
template <class Plain, class Stride>
class ConstRef : public Eigen::Map<const Plain, Eigen::Unaligned, Stride> {
  using Base = Eigen::Map<const Plain, Eigen::Unaligned, Stride>;
  // A row that is contiguous is a matrix of columns next to each other.
  template <class X>
  static constexpr bool in_place =
      (X::Flags & Eigen::DirectAccessBit) != 0 && int(X::InnerStrideAtCompileTime) == 1 &&
      (!X::IsRowMajor || X::IsVectorAtCompileTime);

 public:
  template <class X, std::enable_if_t<in_place<X>, int> = 0>
  ConstRef(const Eigen::DenseBase<X>& x) : Base(view(x.derived())) {}
  template <class X, std::enable_if_t<!in_place<X>, int> = 0>
  ConstRef(const Eigen::DenseBase<X>& x, Plain&& kept = Plain()) : Base(view(kept = x.derived())) {}

 private:
  template <class X>
  static Base view(const X& x) {
    if constexpr (Plain::IsVectorAtCompileTime)
      return Base(x.data(), x.size());
    else
      return Base(x.data(), x.rows(), x.cols(), Stride(X::IsRowMajor ? 1 : x.outerStride()));
  }
};

using ConstMatrixRef = ConstRef<Matrix, Eigen::OuterStride<>>;
using ConstVectorRef = ConstRef<Vector, Eigen::Stride<0, 0>>;

}  // namespace msem
