// Work that is split into numbered pieces, whose results do not depend on how many threads share them.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace msem {

// work(0), ..., work(count - 1), each once, in up to `threads` threads (0: as many as the machine has). The
// first exception is thrown again when all have ended.
template <class Work>
void in_pieces(std::ptrdiff_t count, int threads, const Work& work) {
  const int available = threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency());
  std::atomic<std::ptrdiff_t> next{0};
  std::exception_ptr failure;
  std::mutex lock;
  const auto run = [&] {
    for (std::ptrdiff_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard<std::mutex> hold(lock);
        if (!failure) failure = std::current_exception();
        next = count;
      }
    }
  };
  std::vector<std::thread> others;
  for (std::ptrdiff_t t = 1; t < std::min<std::ptrdiff_t>(std::max(available, 1), count); ++t)
    others.emplace_back(run);
  run();
  for (std::thread& t : others) t.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace msem
