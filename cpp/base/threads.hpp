// Work that is split into numbered pieces, shared by threads. The only place that makes threads.
//
// How many threads the core may use belongs to the thread that calls it, as in OpenMP: a likelihood deep in a
// computation need not be told, and cannot ask for more than its caller was given. Threads share the limit:
// what runs in one of as many threads as there may be makes no more. Where the system refuses a thread the
// others do its work. Pieces are cut by the data alone, so that results do not depend on the number of
// threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace msem {

// Threads that the calling thread may use, itself included: as many as the process has processors, unless
// limited.
int thread_limit();

// Limits the calling thread to so many threads while it lives; 0 leaves the limit as it is.
class ThreadLimit {
 public:
  explicit ThreadLimit(int threads);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int before_;
};

// Threads made by the core so far.
std::uint64_t threads_made();

// work(0), ..., work(count - 1), each once, by at most so many threads (0: the limit of the calling thread).
// The first exception is thrown again when all threads have ended.
void in_threads(std::ptrdiff_t count, int threads, const std::function<void(std::ptrdiff_t)>& work);

}  // namespace msem
