// What is known at a point of moment space, by level: see nested.hpp for the quantities.
#pragma once

#include "likelihood/nested/nested.hpp"

namespace msem {

struct NestedPoint::Level {
  struct OfPattern {
    Matrix b, c, zz;     // B, C, Sigma_zz^-1
    double log_det = 0;  // of Sigma_zz
  };
  std::vector<OfPattern> patterns;
  std::vector<Matrix> t;  // by kind, H - B J
  Vector open, mean;      // means of the open vector and of z
  // by class
  std::vector<Matrix> u, omega, v;  // U, (I + P C)^-1, V
  std::vector<Matrix> k, n;         // U T, (I + P C)^-T T
  std::vector<double> log_dets;     // log |I + P C|
  std::vector<Matrix> s;            // posterior covariance of the open vector above, summed over its clusters
};

struct NestedPoint::Vectors {
  Matrix expected;     // of the open vector, given higher clusters
  Matrix q, ez, e, u;  // about what is expected given higher clusters
  Vector square;       // e_z' Sigma_zz^-1 e_z - q'e: the share of a cluster in -2 log L
  Matrix eb, ub, zb;   // given everything: posterior mean of the open vector, and the residuals about it
  Matrix s;            // derivatives of the log-likelihood with respect to the means of the coordinates
};

// Sums that the gradient of a level is made of.
struct NestedPoint::Sums {
  struct OfPattern {
    double count = 0;
    Matrix c, x, y;   // sum U - K S K', sum K S J', sum J S J'
    Matrix products;  // of residuals that are in no vector
  };
  std::vector<OfPattern> patterns;
  Matrix squares;  // of the derivatives s
  Vector open, z;  // sums of s, for means
};

std::vector<NestedMap<double>::Level> as_map_levels(const Implied& moments);

// Minus the second derivatives for the means of all coordinates, E'c E - E'x F - F'x'E + count Z - F'y F with
// E = [I, -B], F = [0, Sigma_zz^-1] and Z = [0, 0; 0, Sigma_zz^-1].
Matrix curvature(const Matrix& b, const Matrix& zz, double count, const Matrix& c, const Matrix& x,
                 const Matrix& y);

// A x for the columns of each class, A that which its number in `which` says, times a scale, is added.
void add_by_class(Matrix& out, double scale, const std::vector<Matrix>& of, const std::vector<Index>& which,
                  const NestedTree::Level& nodes, const Matrix& x, bool transposed = false);
// The same with a matrix for every class.
void add_by_class(Matrix& out, double scale, const std::vector<Matrix>& of, const NestedTree::Level& nodes,
                  const Matrix& x);
// Columns of parents.
Matrix of_parents(const Matrix& above, const NestedTree::Level& level);
// Sums over the clusters of each parent.
Matrix summed_to_parents(const Matrix& below, const NestedTree::Level& level, Index parents);

}  // namespace msem
