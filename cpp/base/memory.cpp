// Memory of matrices. A fit takes thousands of small ones and gives them back at once, in sizes that come
// again and again: each thread keeps what it gives back, by size, for its next ones.
#include <array>
#include <cstdlib>
#include <limits>
#include <new>

#include "base/dense.hpp"
#include "base/large_pages.hpp"

namespace msem {

namespace {

constexpr std::size_t kUnit = 4;                     // numbers by which sizes differ
constexpr std::size_t kSizes = 512;                  // sizes that are kept: up to 16 KiB,
constexpr std::size_t kRoom = std::size_t{1} << 17;  // and so many numbers of all sizes together

struct Kept {
  Kept* next;
};

// Without a constructor, so that no access has to ask whether it has run.
struct Store {
  std::array<Kept*, kSizes> first;
  std::size_t room;  // 0 before the first use and after the last
  bool used;
};

thread_local Store store;

struct Emptied {
  ~Emptied() {
    store.room = 0;
    for (Kept*& first : store.first) {
      while (first) {
        Kept* next = first->next;
        Eigen::internal::aligned_free(first);
        first = next;
      }
    }
  }
};

// Those who use it are emptied when their thread ends.
void begin() {
  thread_local Emptied at_end;
  static_cast<void>(at_end);
  store.used = true;
  store.room = kRoom;
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeep = false;  // it looks for matrices that are used after their end
#else
constexpr bool kKeep = true;
#endif

std::size_t units(std::size_t count) { return (count + kUnit - 1) / kUnit; }

}  // namespace

double* allocate(std::size_t count) {
  if (count == 0) return nullptr;
  if (count > std::numeric_limits<std::size_t>::max() / (2 * sizeof(double))) throw std::bad_alloc();
  const std::size_t size = units(count);
  if (kKeep && size < kSizes) {
    Kept*& first = store.first[size];
    if (Kept* place = first) {
      first = place->next;
      store.room += size * kUnit;
      return reinterpret_cast<double*>(place);
    }
  }
  const std::size_t bytes = size * kUnit * sizeof(double);
  double* place = static_cast<double*>(Eigen::internal::aligned_malloc(bytes));
  if (bytes >= 2 * kLargePage) wish_large_pages(place, bytes);
  return place;
}

void release(double* place, std::size_t count) noexcept {
  const std::size_t size = units(count);
  if (kKeep && size < kSizes) {
    if (!store.used) begin();
    if (store.room >= size * kUnit) {
      Kept* kept = reinterpret_cast<Kept*>(place);
      Kept*& first = store.first[size];
      kept->next = first;
      first = kept;
      store.room -= size * kUnit;
      return;
    }
  }
  Eigen::internal::aligned_free(place);
}

}  // namespace msem
