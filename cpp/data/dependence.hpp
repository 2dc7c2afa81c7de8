// Whether variables determine one another.
#pragma once

#include <optional>
#include <vector>

#include "base/linalg.hpp"

namespace msem {

// A variable, and those before it that it is a linear combination of.
struct Dependence {
  Index variable;
  std::vector<Index> others;
};

// The first variable of which the ones before it leave less than the share `least` of its variance. One that
// depends on variables that are all `passing`, as it is itself, is passed over, and so are variables that do
// not vary.
std::optional<Dependence> first_dependence(const Matrix& scatter, const std::vector<bool>& passing,
                                           double least);

}  // namespace msem
