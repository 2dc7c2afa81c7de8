// The model of one block (a level of a group) in RAM form: a map from parameters to positions in the directed
// paths A, the residual covariances S and the intercepts m, and from there to the implied moments
//   Sigma = [(I-A)^-1 S (I-A)^-T]_observed,   mu = [(I-A)^-1 m]_observed        (McArdle & McDonald, 1984).
#pragma once

#include "model/tangents.hpp"

namespace msem {

enum class Slot : int { kDirected = 0, kSymmetric = 1, kIntercept = 2 };

struct Entry {
  Slot slot;
  int row, col;   // col is ignored for intercepts; symmetric entries are given once
  int parameter;  // position in theta, or -1
  double value;   // used when parameter is -1
};

// Implied moments of a block at one theta, with what their derivatives need.
struct BlockPoint {
  Matrix paths;  // (I - A)^-1
  Matrix total;  // covariance of all variables, observed first
  Vector mean;   // means of all variables
};

class Block {
 public:
  Block(int nobserved, int nvariables, std::vector<Entry> entries);

  int nobserved() const { return nobserved_; }
  int nvariables() const { return nvariables_; }
  // Parameters that enter this block, ascending; tangents have one column for each.
  const std::vector<int>& parameters() const { return parameters_; }
  const std::vector<Entry>& free_entries() const { return free_; }
  const std::vector<Entry>& entries() const { return entries_; }
  // Gives an entry that is fixed another value.
  void set_value(int entry, double value) { entries_.at(entry).value = value; }

  // Returns false when I - A is singular.
  bool evaluate(ConstVectorRef theta, BlockPoint& point) const;
  // Sets the means of a point that is right but for intercepts.
  void set_mean(ConstVectorRef theta, BlockPoint& point) const;
  Tangents tangents(const BlockPoint& point) const;
  // Derivative of the means of all variables in the direction delta (length npar).
  Vector mean_change(const BlockPoint& point, const Vector& delta) const;
  // Derivatives of the observed means with respect to parameters that are intercepts.
  Matrix intercept_columns(const BlockPoint& point, const std::vector<int>& intercepts) const;
  // Adds to `out` (length npar) the derivative of a function whose gradient with respect to the observed mean
  // and covariance is given.
  void pull_back(const BlockPoint& point, const Vector& mean_gradient, const Matrix& cov_gradient,
                 Vector& out) const;
  // Second derivatives of the moments contracted with such a gradient: k x k over `parameters()`.
  Matrix curvature(const BlockPoint& point, const Vector& mean_gradient, const Matrix& cov_gradient) const;

 private:
  void sort_paths();
  // (I - A)^-1, which has infinite elements when I - A is singular.
  Matrix inverse_paths(ConstVectorRef theta) const;

  int nobserved_, nvariables_;
  std::vector<Entry> entries_;
  std::vector<Entry> free_;  // entries with a parameter
  std::vector<int> local_;   // for each of `free_`, its column among `parameters_`
  std::vector<int> parameters_;
  std::vector<int>
      order_;  // of the directed entries: those into a variable before those out of it; if there is one
  bool recursive_ = false;  // whether there is
};

}  // namespace msem
