// Shared by every binding file: the type casters must be the same in all translation units.
#pragma once

#include <pybind11/eigen.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/dense.hpp"

namespace py = pybind11;

namespace pybind11 {
namespace detail {

// Arguments that are read: an array of doubles whose columns are contiguous is looked at where it is.
template <class Plain, class Stride>
struct const_ref_caster {
  using Type = msem::ConstRef<Plain, Stride>;
  static constexpr auto name = make_caster<Plain>::name;
  template <class>
  using cast_op_type = Type;

  bool load(handle source, bool convert) {
    if (!convert && !isinstance<array_t<double>>(source)) return false;
    kept_ = Array::ensure(source);
    if (!kept_) return false;
    rows_ = kept_.ndim() ? kept_.shape(0) : 0;
    cols_ = kept_.ndim() == 2 ? kept_.shape(1) : 1;
    return (kept_.ndim() == 1 || kept_.ndim() == 2) && (!Plain::IsVectorAtCompileTime || cols_ == 1);
  }
  operator Type() const { return Eigen::Map<const Plain>(kept_.data(), rows_, cols_); }

 private:
  using Array = array_t<double, array::f_style | array::forcecast>;
  Array kept_;
  Eigen::Index rows_ = 0, cols_ = 0;
};
template <>
struct type_caster<msem::ConstMatrixRef> : const_ref_caster<msem::Matrix, Eigen::OuterStride<>> {};
template <>
struct type_caster<msem::ConstVectorRef> : const_ref_caster<msem::Vector, Eigen::Stride<0, 0>> {};

}  // namespace detail
}  // namespace pybind11

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
