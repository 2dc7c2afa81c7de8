// Memory for arrays that are visited in random order: in large pages where the system has them, since most of
// the time would go into finding small ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace msem {

constexpr std::size_t kLargePage = std::size_t{1} << 21;

// A wish for memory that has not been written to yet: the system gives it a small page at a time otherwise.
inline void wish_large_pages([[maybe_unused]] void* place, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
  const auto first = (reinterpret_cast<std::uintptr_t>(place) + kLargePage - 1) / kLargePage * kLargePage;
  const auto last = (reinterpret_cast<std::uintptr_t>(place) + bytes) / kLargePage * kLargePage;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

template <class T>
struct LargePages {
  using value_type = T;
  static constexpr std::size_t kLine = 64, kPage = kLargePage;

  LargePages() = default;
  template <class U>
  LargePages(const LargePages<U>&) {}

  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T), unit = bytes < 2 * kPage ? kLine : kPage;
    void* place = ::operator new((bytes + unit - 1) / unit * unit, std::align_val_t{unit});
    if (unit == kPage) wish_large_pages(place, (bytes + unit - 1) / unit * unit);
    return static_cast<T*>(place);
  }
  void deallocate(T* place, std::size_t count) {
    const std::size_t unit = count * sizeof(T) < 2 * kPage ? kLine : kPage;
    ::operator delete(place, std::align_val_t{unit});
  }
  template <class U>
  bool operator==(const LargePages<U>&) const {
    return true;
  }
  template <class U>
  bool operator!=(const LargePages<U>&) const {
    return false;
  }
};

}  // namespace msem
