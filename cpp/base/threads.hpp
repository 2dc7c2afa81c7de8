// Independent pieces of work in threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace msem {

// work(0), ..., work(count - 1), each once, by at most so many threads. The first exception is thrown again
// when all threads have ended; fewer threads than asked for do the work where the system has no more.
template <class Work>
void in_threads(std::uint64_t count, int threads, Work work) {
  std::atomic<std::uint64_t> next{0};
  std::exception_ptr failure;
  std::mutex guard;
  const auto run = [&] {
    try {
      for (std::uint64_t k = next++; k < count; k = next++) work(k);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      if (!failure) failure = std::current_exception();
      next = count;
    }
  };
  const std::uint64_t useful = std::min<std::uint64_t>(std::max(threads, 1), count);
  std::vector<std::thread> others;
  others.reserve(useful);
  try {
    for (std::uint64_t t = 1; t < useful; ++t) others.emplace_back(run);
  } catch (const std::system_error&) {
  }
  run();
  for (std::thread& t : others) t.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace msem
