// Ordered and continuous variables of units in clusters, and of these clusters: their rows, cluster by
// cluster, and what their parameters say of each row.
//
// A variable of units is the sum of a cluster's effect, if it has a part at that level, and a unit's; what
// covariates leave of the unit's part of an ordered one has variance 1. So has what they leave of an ordered
// variable of clusters.
#pragma once

#include <vector>

#include "ordered/rectangle.hpp"

namespace msem {

struct OrderedClusterRows {
  Matrix values;                // N x p: categories from 0, or values; NaN where missing
  Matrix covariates;            // N x q
  std::vector<int> cluster;     // of each row, from 0
  Matrix cluster_values;        // J x r: variables of clusters
  Matrix cluster_covariates;    // J x s: of variables that have a part at the level of clusters
  std::vector<int> categories;  // of the p + r variables; 0 if continuous
  std::vector<int> both;        // whether each of the p has a part at the level of clusters
  Vector weight;                // how often each row counts in its cluster; empty: once
  Vector cluster_weight;        // and each cluster
};

// A variable and where its parameters are among its own: thresholds (or the mean) first.
struct ClusterVariable {
  Index number, width;
  bool ordered, unit, between;  // between: has a part at the level of clusters
  int categories;
  Index unit_slopes, cluster_slopes, residual, above;  // the last, its effect's variance, -1 without
  Vector values;                                       // of units or clusters
  Vector estimates;                                    // once there are any; and from here on
  Vector shift;                                        // what thresholds, or the mean, are taken from
  Vector effect_mean, effect_sd;  // of each cluster's effect given this variable, if it is ordered

  bool effect() const { return above >= 0; }
  bool known(Index row) const { return !std::isnan(values[row]); }
  int category(Index row) const { return static_cast<int>(values[row]); }
  double error(Index row) const { return values[row] - shift[row]; }
  Vector cuts() const { return estimates.head(categories - 1); }
  double residual_variance() const { return ordered ? 1 : estimates[residual]; }
  double effect_variance() const { return effect() ? estimates[above] : 0; }
};

class ClusterVariables {
 public:
  ClusterVariables(const OrderedClusterRows& rows, const std::vector<Vector>& starts);

  Index size() const { return static_cast<Index>(variables_.size()); }
  Index nclusters() const { return rows_.cluster_values.rows(); }
  ClusterVariable& operator[](Index i) { return variables_[i]; }
  const ClusterVariable& operator[](Index i) const { return variables_[i]; }

  // Rows of a variable in a cluster: from first(v)[j] to first(v)[j + 1].
  const std::vector<Index>& first(const ClusterVariable& v) const {
    return v.unit ? first_unit_ : first_cluster_;
  }
  // The same of rows that follow each other and have the same covariates.
  Index kind(const ClusterVariable& v, Index row) const { return v.unit ? kind_[row] : row; }
  bool weighted_rows() const { return weight_.size() > 0; }
  double weight(const ClusterVariable& v, Index row) const {
    return v.unit && weighted_rows() ? weight_[row] : 1;
  }
  // Of clusters; null: all count once.
  const Vector* weights() const { return rows_.cluster_weight.size() ? &rows_.cluster_weight : nullptr; }
  double weight(Index cluster) const { return weights() ? rows_.cluster_weight[cluster] : 1; }

  // What covariates, and the mean of a continuous variable, say of every row.
  Vector shift(const ClusterVariable& v, const Vector& theta) const;
  // The root mean square of what each slope multiplies; 1 for other parameters.
  Vector covariate_sizes(const ClusterVariable& v) const;

  // Adds the derivatives of a row of a cluster for the parameters of a variable but its effect's variance.
  template <class Out>
  void add(const ClusterVariable& v, Index row, Index j, const RowSlope& s, Out&& out) const {
    if (v.ordered) {
      const int k = v.category(row);
      if (k > 0) out[k - 1] += s.lower;
      if (k + 1 < v.categories) out[k] += s.upper;
    } else {
      out[0] += s.shift;
      out[v.residual] += s.variance;
    }
    add_slopes(v, row, j, s.shift, out);
  }

  template <class Out>
  void add_slopes(const ClusterVariable& v, Index row, Index j, double shift, Out&& out) const {
    for (Index c = 0; v.unit && c < covariates_.cols(); ++c)
      out[v.unit_slopes + c] += shift * covariates_(row, c);
    for (Index c = 0; v.between && c < rows_.cluster_covariates.cols(); ++c)
      out[v.cluster_slopes + c] += shift * rows_.cluster_covariates(j, c);
  }

 private:
  void require(const std::vector<Vector>& starts) const;
  void order_rows();
  ClusterVariable variable(Index i) const;

  const OrderedClusterRows& rows_;
  std::vector<Index> order_, kind_, first_unit_, first_cluster_;
  Matrix covariates_;  // of the rows in order
  Vector weight_;      // alike; empty: all count once
  std::vector<ClusterVariable> variables_;
};

// What a cluster's values of a continuous variable add up to, less what its mean is taken from.
struct ClusterSums {
  ClusterSums() = default;
  ClusterSums(const ClusterVariables& rows, const ClusterVariable& v, const Vector& shift, Index j);
  double n = 0, mean = 0, squares = 0;  // squares about their mean
};

// The normal density of a cluster's values, whose effect has a mean and a variance.
struct ClusterNormal {
  ClusterNormal(const ClusterSums& s, double mean, double variance, double residual);
  // with respect to the mean of one value
  double shift(const ClusterSums& s, double error, double residual) const {
    return (error - s.mean) / residual + deviation / whole;
  }
  double value = 0, d_mean = 0, d_variance = 0, d_residual = 0;
  double whole = 0, deviation = 0;  // variance of n times the mean over n; of the mean from its expectation
};

}  // namespace msem
