// Memory for arrays that are visited in random order: in large pages where the system has them, since most of
// the time would go into finding small ones.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace msem {

template <class T>
struct LargePages {
  using value_type = T;
  static constexpr std::size_t kLine = 64, kPage = std::size_t{1} << 21;

  LargePages() = default;
  template <class U>
  LargePages(const LargePages<U>&) {}

  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T), unit = bytes < 2 * kPage ? kLine : kPage;
    void* place = ::operator new((bytes + unit - 1) / unit * unit, std::align_val_t{unit});
#if defined(__linux__)
    if (unit == kPage) ::madvise(place, bytes, MADV_HUGEPAGE);  // a wish: without it the pages are small
#endif
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
