// What a minimiser returns, as a dict.
#pragma once

#include "bind/bind.hpp"
#include "fit/scoring.hpp"

inline py::dict optimum_dict(const msem::Optimum& best) {
  py::list iterations;
  for (const msem::Iteration& i : best.iterations)
    iterations.append(py::make_tuple(i.value, i.decrement, i.damping, i.newton));
  py::dict out;
  out["theta"] = best.theta;
  out["value"] = best.value;
  out["gradient"] = best.gradient;
  out["stop"] = static_cast<int>(best.stop);
  out["active"] = best.active;
  out["active_inequalities"] = best.active_inequalities;
  out["surpassed"] = best.surpassed;
  out["iterations"] = iterations;
  return out;
}
