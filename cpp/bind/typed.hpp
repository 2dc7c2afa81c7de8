// Arrays of any machine type, seen as the columns that the core reads.
#pragma once

#include <stdexcept>
#include <vector>

#include "base/typed.hpp"
#include "bind/bind.hpp"

inline msem::Number number_of(const py::dtype& type) {
  using msem::Number;
  const char kind = type.kind();
  const auto size = type.itemsize();
  const bool native = type.byteorder() == '=' || type.byteorder() == '|';
  if (native && kind == 'f' && size == 8) return Number::f64;
  if (native && kind == 'f' && size == 4) return Number::f32;
  if (native && kind == 'i')
    return size == 1 ? Number::i8 : size == 2 ? Number::i16 : size == 4 ? Number::i32 : Number::i64;
  if (native && (kind == 'u' || kind == 'b'))
    return size == 1 ? Number::u8 : size == 2 ? Number::u16 : size == 4 ? Number::u32 : Number::u64;
  throw std::invalid_argument(
      "columns must be float32, float64, whole numbers or booleans in native byte order");
}

inline msem::TypedColumn typed_column(const py::array& array, py::ssize_t nrows) {
  if (array.ndim() != 1 || array.shape(0) != nrows)
    throw std::invalid_argument("columns must have one value per row");
  return {static_cast<const char*>(array.data()), array.strides(0), number_of(array.dtype())};
}
