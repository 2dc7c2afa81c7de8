#include "base/threads.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/interrupt.hpp"

namespace msem {

namespace {

thread_local int limit = 0;  // 0: none
std::atomic<std::uint64_t> made{0};

// Those that the process may run on, which where jobs share a machine are fewer than it has.
int processors() {
#ifdef __linux__
  cpu_set_t own;
  if (sched_getaffinity(0, sizeof own, &own) == 0) return std::max(1, CPU_COUNT(&own));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int thread_limit() {
  static const int available = processors();
  return limit > 0 ? limit : available;
}

ThreadLimit::ThreadLimit(int threads) : before_(limit) {
  if (threads > 0) limit = threads;
}

ThreadLimit::~ThreadLimit() { limit = before_; }

std::uint64_t threads_made() { return made; }

void in_threads(std::ptrdiff_t count, int threads, const std::function<void(std::ptrdiff_t)>& work) {
  int available = threads > 0 ? threads : thread_limit();
  if (limit > 0) available = std::min(available, limit);
  const std::ptrdiff_t useful = std::clamp<std::ptrdiff_t>(count, 1, available);
  const int share = static_cast<int>(available / useful);
  std::atomic<std::ptrdiff_t> next{0};
  std::exception_ptr failure;
  std::mutex guard;
  const auto run = [&](bool caller) {
    const ThreadLimit own(share);
    try {
      for (std::ptrdiff_t k = next++; k < count; k = next++) {
        if (caller) check_interrupt();
        work(k);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      if (!failure) failure = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> others;
  others.reserve(useful);
  try {
    for (std::ptrdiff_t t = 1; t < useful; ++t) {
      others.emplace_back([&run] {
        const NoInterrupt quiet;
        run(false);
      });
      ++made;
    }
  } catch (const std::exception&) {  // the system has no more: those there are do it all
  }
  run(true);
  for (std::thread& t : others) t.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace msem
