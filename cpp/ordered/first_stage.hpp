// Thresholds, means, variances, slopes and covariances of ordered and continuous variables of one level, one
// variable and then one pair at a time, with the products of their scores (Olsson, 1979; Muthen, 1984).
//
// An ordered variable is a continuous one, of variance 1 given the covariates, cut at thresholds. What is
// known of single variables is held when their pairs are estimated.
#pragma once

#include <vector>

#include "base/linalg.hpp"

namespace msem {

struct FirstStageRows {
  Matrix values;                // N x p: categories from 0, or values; NaN where missing
  Matrix covariates;            // N x q
  std::vector<int> categories;  // of each variable; 0 if it is continuous
  std::vector<int> cluster;     // of each row, from 0; empty for independent rows
  Vector weight;                // how often each row counts; empty: once
};

// Parameters: of each variable its thresholds (or its mean), slopes and, if it is continuous, its residual
// variance; then the covariances of the pairs (2, 1), (3, 1), ..., (3, 2), ...: correlations of two ordered
// variables.
struct FirstStage {
  std::vector<Index> first;  // of the parameters of each variable, and of those of the pairs
  Vector estimates;
  Matrix bread;                  // products of scores, whose inverse turns them into estimates; not symmetric
  Matrix meat;                   // of the scores of independent units
  Matrix scores;                 // of these units, each as often as it counts; empty for independent rows
  std::vector<Index> at_bound;   // pairs whose correlation is at its bound
  std::vector<Index> unsettled;  // variables whose regression has no maximum
  std::vector<Index> unknown;    // pairs that the data say nothing about
};

// starts: of the thresholds of each variable, ascending.
FirstStage first_stage(const FirstStageRows& rows, const std::vector<Vector>& starts);

}  // namespace msem
