// How many threads the core may use, and what stops it.
#include "base/threads.hpp"

#include "base/interrupt.hpp"
#include "bind/bind.hpp"

using namespace msem;

namespace {

// Signals such as Ctrl-C wait until Python looks; it looks in the main thread only.
void look_for_signals() {
  const py::gil_scoped_acquire held;
  if (PyErr_CheckSignals()) throw py::error_already_set();
}

// `with ThreadLimit(n):`; not to be shared by threads.
class LimitedBlock {
 public:
  explicit LimitedBlock(int threads) : threads_(threads) {
    if (threads < 1) throw std::invalid_argument("a limit is at least one thread");
  }
  void enter() { limit_ = std::make_unique<ThreadLimit>(threads_); }
  void leave() { limit_.reset(); }

 private:
  int threads_;
  std::unique_ptr<ThreadLimit> limit_;
};

}  // namespace

void bind_threads(py::module_& m) {
  using namespace py::literals;
  set_interrupt(&look_for_signals);
  py::class_<LimitedBlock>(m, "ThreadLimit", "Limits the calling thread to so many threads of the core.")
      .def(py::init<int>(), "threads"_a)
      .def("__enter__", &LimitedBlock::enter)
      .def("__exit__", [](LimitedBlock& self, const py::args&) { self.leave(); });
  m.def("thread_limit", &thread_limit, "Threads of the core that the calling thread may use.");
  m.def("threads_made", &threads_made, "Threads that the core has made so far.");
}
