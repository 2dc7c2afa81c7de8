// Moments of what is measured on a level, as Python gets them.
#pragma once

#include "bind/bind.hpp"
#include "data/measured_moments.hpp"

namespace msem {

// Means, numbers of pairs and covariances.
template <class Data>
pybind11::tuple moments_on(const Data& data, Index level) {
  MeasuredMoments found;
  {
    pybind11::gil_scoped_release released;
    found = measured_moments(data, level);
  }
  return pybind11::make_tuple(std::move(found.mean), std::move(found.pairs), std::move(found.cov));
}

}  // namespace msem
