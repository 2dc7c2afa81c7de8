// Columns of numbers of any machine type, read a block at a time; nothing is copied as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace msem {

enum class Number : std::uint8_t { f64, f32, i8, i16, i32, i64, u8, u16, u32, u64 };

// A view of memory owned by the caller: `stride` bytes from one value to the next, of any alignment.
struct TypedColumn {
  const char* data;
  std::ptrdiff_t stride;
  Number number;
};

// Call use(T{}) with the type of the column's values.
template <class Use>
auto with_type(Number number, Use use) {
  switch (number) {
    case Number::f32:
      return use(float{});
    case Number::i8:
      return use(std::int8_t{});
    case Number::i16:
      return use(std::int16_t{});
    case Number::i32:
      return use(std::int32_t{});
    case Number::i64:
      return use(std::int64_t{});
    case Number::u8:
      return use(std::uint8_t{});
    case Number::u16:
      return use(std::uint16_t{});
    case Number::u32:
      return use(std::uint32_t{});
    case Number::u64:
      return use(std::uint64_t{});
    default:
      return use(double{});
  }
}

template <class T>
T value_at(const char* data, std::ptrdiff_t offset) {
  T value;
  std::memcpy(&value, data + offset, sizeof(T));
  return value;
}

inline double number_at(const TypedColumn& x, std::ptrdiff_t row) {
  return with_type(
      x.number, [&](auto t) { return static_cast<double>(value_at<decltype(t)>(x.data, row * x.stride)); });
}

// Call use(i, value as To) for `count` values from row `first`; values next to each other take a loop of
// their own.
template <class To, class Use>
void for_each_value(const TypedColumn& x, std::ptrdiff_t first, std::ptrdiff_t count, Use use) {
  with_type(x.number, [&](auto t) {
    using T = decltype(t);
    const char* data = x.data + first * x.stride;
    if (x.stride == static_cast<std::ptrdiff_t>(sizeof(T))) {
      for (std::ptrdiff_t i = 0; i < count; ++i)
        use(i, static_cast<To>(value_at<T>(data, i * static_cast<std::ptrdiff_t>(sizeof(T)))));
    } else {
      for (std::ptrdiff_t i = 0; i < count; ++i) use(i, static_cast<To>(value_at<T>(data, i * x.stride)));
    }
  });
}

}  // namespace msem
