// A random slope of data with more than two levels: which covariate it multiplies, and where it is a
// variable.
//
// Covariates are kept about their mean in units of their standard deviation: `mean` and `spread` say which
// these are.
#pragma once

#include <vector>

#include "base/linalg.hpp"

namespace msem {

struct RandomSlope {
  Index level = 0;              // of the covariate, from 0
  Index covariate = 0;          // its row of the design there, from 1 on
  double mean = 0, spread = 1;  // of the covariate
  std::vector<Index> at;        // levels at which the slope is a variable
};

}  // namespace msem
