// A model in coordinates for searching: nothing that has a limit lies at infinity and, in the cone, variances
// and covariance matrices of residuals and latent variables are positive semidefinite.
//
// An exogenous factor that is scaled by a marker has the variance 1 (or -1) and a free loading of the marker
// instead: the loadings of a factor whose variance vanishes go to zero, where those about the marker are
// arbitrary, and a marker whose loading vanishes has no others near infinity. A covariance matrix S of
// several variables is L L' in terms of new latent variables of variance 1; for variables without a scale of
// their own the rows of L have fixed lengths, and two of them a bounded covariance. A pattern of zeros in S
// is that of L where its graph is chordal (Agler, Helton, McCullough & Rodman, 1988). What is none of this
// keeps its parameters, with variances that are not negative.
#pragma once

#include <cstdint>
#include <optional>

#include "fit/covariance.hpp"
#include "fit/starting.hpp"

namespace msem {

constexpr double kRounding = 1e-9;  // least eigenvalue of correlation matrices near the border

class SearchModel {
 public:
  // `signs`, in turn, of the variances of factors of the last level that are scaled by their loadings alone;
  // without `cone` nothing else changes. At `sorted` the variables of a singular matrix are in an order in
  // which its root is unique. `saturated` are the moments of each group, for the sizes of variables.
  SearchModel(const Objective& objective, const Vector& lower, const Vector& upper,
              const Constraints& constraints, const std::vector<Implied>& saturated, bool cone,
              const std::vector<double>& signs = {1}, const Vector* sorted = nullptr);

  // The same coordinates with other likelihoods of the same moments.
  SearchModel with(const std::vector<Group>& groups) const;

  const Objective& objective() const { return *objective_; }
  const Vector& lower() const { return lower_; }
  const Vector& upper() const { return upper_; }
  const Constraints& constraints() const { return constraints_; }
  bool has_loadings() const { return !loadings_.empty(); }  // of the last level
  bool has_signs() const { return !scales_.empty(); }       // factors that are scaled by their loadings
  // Whether coordinates have variances as squares.
  bool curved() const { return !roots_.empty(); }

  // A point at or near theta; correlation matrices have no smaller eigenvalues than `least` there.
  Vector near(const Vector& theta, double least = 0.05) const;
  // The parameters of the model there; those of factors without variance are `otherwise`.
  Vector parameters(const Vector& point, const Vector& otherwise) const;
  // Their derivatives; zero for those of factors without variance.
  Matrix jacobian(const Vector& point) const;

  // The point with other loadings at the last level: random ones, of so many standard deviations of their
  // variables,
  Vector random(const Vector& point, std::uint64_t number, double spread) const;
  // or those by an eigenvector, 0 that of the greatest eigenvalue, of the saturated covariance matrix of the
  // indicators of each factor.
  Vector principal(const Vector& point, Index which) const;

  // Variables, by block, whose covariance matrix is singular there.
  struct Singular {
    int block;
    std::vector<int> variables;
  };
  std::vector<Singular> singular(const Vector& point) const;
  // Parameters of the model that are variances of zero there.
  std::vector<int> vanished(const Vector& point) const;

 private:
  // Group and level of a block.
  std::pair<std::size_t, std::size_t> place_of(int block) const;
  // Of a factor; the loading of its marker has the place of its variance.
  struct Scale {
    int block, factor, parameter;
    double marker, sign;
    std::vector<int> concerned;    // parameters that go with the scale other than
    std::vector<int> covariances;  // those of the factor
  };
  struct Loading {
    int block, factor, row, parameter;
    double size;  // standard deviation of its variable, over that of the marker if there is one
  };
  // A covariance matrix as L L'.
  struct Root {
    int block;
    std::vector<int> order;                    // of the variables
    std::vector<std::vector<int>> parameter;   // of L, -1 for zeros
    std::vector<std::vector<int>> covariance;  // of S in theta, -1 for what is fixed
    std::vector<double> length;                // of the rows, 0 where it is free
  };
  // Two variables without scales of their own, by their covariance.
  struct Pair {
    int block, i, j, parameter;
    double most;
  };
  class Builder;

  const Scale* scale_of(int block, int variable) const;
  bool vanishes(const Scale& scale, const Vector& point) const;
  Vector with_markers(Vector point) const;

  int npar_ = 0;  // of the model
  bool cone_;
  std::vector<Block> original_;
  std::vector<Implied> saturated_;
  std::optional<Objective> objective_;
  Vector lower_, upper_;
  Constraints constraints_;
  Expressions back_;
  std::vector<Scale> scales_;
  std::vector<Loading> loadings_;
  std::vector<Root> roots_;
  std::vector<Pair> pairs_;
  std::vector<int> variances_;  // parameters that are variances by themselves
};

// A maximum in the cone, in such coordinates.
struct ConeOptimum {
  SearchModel model;
  Optimum optimum;
  Matrix jacobian;  // of the parameters about the coordinates

  // Directions of the coordinates in which the parameters move, independent of each other.
  Matrix moving() const;
};

// By the delta method from that of the coordinates; no variances of what the border holds.
SamplingCovariance sampling_covariance(const ConeOptimum& at, ErrorKind kind);

}  // namespace msem
