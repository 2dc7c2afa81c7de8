// Table of contents of the extension module; each part is bound in its own file.
#include "base/linalg.hpp"
#include "bind/bind.hpp"
#if defined(__x86_64__) && __has_include(<sys/platform/x86.h>)
#include <sys/platform/x86.h>
#endif

void bind_accumulate(py::module_& m);
void bind_constraints(py::module_& m);
void bind_engine(py::module_& m);
void bind_incomplete(py::module_& m);
void bind_integrals(py::module_& m);
void bind_iterative(py::module_& m);
void bind_crossed(py::module_& m);
void bind_nested(py::module_& m);
void bind_objective(py::module_& m);
void bind_influence(py::module_& m);
void bind_ordered(py::module_& m);
void bind_posterior(py::module_& m);
void bind_resampling(py::module_& m);
void bind_robust(py::module_& m);
void bind_rotation(py::module_& m);
void bind_rowdraws(py::module_& m);
void bind_saturated(py::module_& m);
void bind_slopes(py::module_& m);
void bind_statistics(py::module_& m);
void bind_table(py::module_& m);
void bind_threads(py::module_& m);

namespace {

// As the loader sees it, which takes the processor for a lesser one when GLIBC_TUNABLES says so.
bool has_avx2() {
#if defined(CPU_FEATURE_ACTIVE)
  return CPU_FEATURE_ACTIVE(AVX2) && CPU_FEATURE_ACTIVE(FMA);
#elif defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled core of msem.";
  if (msem::compiled_for_avx2() && !has_avx2())
    throw py::import_error(
        "msem was compiled for processors with AVX2 only, which this one lacks: "
        "pip install . --config-settings=cmake.define.MSEM_BUILDS=all compiles it for every processor");
  m.attr("avx2") = msem::compiled_for_avx2();
  bind_statistics(m);
  bind_threads(m);
  bind_accumulate(m);
  bind_incomplete(m);
  bind_objective(m);
  bind_table(m);
  bind_slopes(m);
  bind_nested(m);
  bind_crossed(m);
  bind_integrals(m);
  bind_iterative(m);
  bind_influence(m);
  bind_ordered(m);
  bind_posterior(m);
  bind_robust(m);
  bind_saturated(m);
  bind_resampling(m);
  bind_constraints(m);
  bind_engine(m);
  bind_rotation(m);
  bind_rowdraws(m);
}
