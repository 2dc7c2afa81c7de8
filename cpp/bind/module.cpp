// Table of contents of the extension module; each part is bound in its own file.
#include "bind/bind.hpp"

void bind_accumulate(py::module_& m);
void bind_constraints(py::module_& m);
void bind_incomplete(py::module_& m);
void bind_iterative(py::module_& m);
void bind_manyfits(py::module_& m);
void bind_objective(py::module_& m);
void bind_influence(py::module_& m);
void bind_posterior(py::module_& m);
void bind_resampling(py::module_& m);
void bind_robust(py::module_& m);
void bind_rowdraws(py::module_& m);
void bind_saturated(py::module_& m);
void bind_statistics(py::module_& m);
void bind_threads(py::module_& m);

// The build compiles this once for every processor it can run on, and under another name for newer ones.
#define MSEM_MODULE_NAMED(name) PYBIND11_MODULE(name, m, py::mod_gil_not_used())

MSEM_MODULE_NAMED(MSEM_MODULE) {
  m.doc() = "Compiled core of msem.";
  bind_statistics(m);
  bind_threads(m);
  bind_accumulate(m);
  bind_incomplete(m);
  bind_objective(m);
  bind_iterative(m);
  bind_influence(m);
  bind_posterior(m);
  bind_robust(m);
  bind_saturated(m);
  bind_resampling(m);
  bind_constraints(m);
  bind_manyfits(m);
  bind_rowdraws(m);
}
