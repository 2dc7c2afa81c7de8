// Whether somebody has asked to stop a long computation.
//
// Loops that may be long (pieces of work, iterations) ask between their steps. What asking means is given by
// whoever embeds the core: bind/ looks for signals of Python. Nothing is asked more often than a person
// notices, so that the loops of a small fit pay for reading a clock.
#pragma once

namespace msem {

// Called by `check_interrupt`; throws to stop. Null: nobody ever asks.
void set_interrupt(void (*ask)());

// Throws what the function given to `set_interrupt` throws, where it does.
void check_interrupt();

// Nothing is asked in the calling thread while it lives: threads of the core have no caller who could answer.
class NoInterrupt {
 public:
  NoInterrupt();
  ~NoInterrupt();
  NoInterrupt(const NoInterrupt&) = delete;
  NoInterrupt& operator=(const NoInterrupt&) = delete;

 private:
  bool before_;
};

}  // namespace msem
