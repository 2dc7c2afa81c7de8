// Table of contents of the extension module; each part is bound in its own file.
#include "bind.hpp"

void bind_objective(py::module_& m);
void bind_saturated(py::module_& m);
void bind_statistics(py::module_& m);

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled core of msem.";
  bind_statistics(m);
  bind_objective(m);
  bind_saturated(m);
}
