#include "base/interrupt.hpp"

#include <atomic>
#include <chrono>

namespace msem {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPause{50};

std::atomic<void (*)()> asked{nullptr};
thread_local bool quiet = false;
thread_local Clock::time_point last{};

}  // namespace

void set_interrupt(void (*ask)()) { asked = ask; }

void check_interrupt() {
  const auto ask = asked.load(std::memory_order_relaxed);
  if (!ask || quiet) return;
  const Clock::time_point now = Clock::now();
  if (now - last < kPause) return;
  last = now;
  ask();
}

NoInterrupt::NoInterrupt() : before_(quiet) { quiet = true; }

NoInterrupt::~NoInterrupt() { quiet = before_; }

}  // namespace msem
