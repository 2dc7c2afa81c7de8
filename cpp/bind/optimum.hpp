// What a minimiser returns, as a dict.
#pragma once

#include "bind/bind.hpp"
#include "fit/cone.hpp"

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
  out["natural"] = best.natural;
  out["maxima"] = best.maxima;
  out["cone"] = py::none();
  if (best.cone) {
    const msem::ConeOptimum& cone = *best.cone;
    py::list singular;
    for (const auto& one : cone.model.singular(cone.optimum.theta))
      singular.append(py::make_tuple(one.block, one.variables));
    const msem::Matrix free = cone.moving();
    const msem::Objective& objective = cone.model.objective();
    out["cone"] =
        py::make_tuple(msem::product(cone.jacobian, free),
                       msem::sandwich(free, objective.observed_information(cone.optimum.theta)),
                       msem::sandwich(free, objective.expected_information(cone.optimum.theta)), singular);
  }
  return out;
}
