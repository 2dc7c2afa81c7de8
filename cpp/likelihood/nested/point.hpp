// What is known at a point of moment space, by level: see nested.hpp for the quantities.
#pragma once

#include "likelihood/nested/nested.hpp"

namespace msem {

struct NestedPoint::Level {
  Matrix b, c, zz;     // B, C, Sigma_zz^-1
  Matrix t, j;         // from the open vector above
  Vector mean;         // of z
  double log_det = 0;  // of Sigma_zz
  // by class
  std::vector<Matrix> u, omega, v;  // U, (I + P C)^-1, V
  std::vector<Matrix> k, n;         // U T, (I + P C)^-T T
  std::vector<double> log_dets;     // log |I + P C|
  std::vector<Matrix> s;            // posterior covariance of the open vector above, summed over its clusters
};

struct NestedPoint::Vectors {
  Matrix q, ez, e, u;  // about what is expected given higher clusters
  Vector square;       // e_z' Sigma_zz^-1 e_z - q'e: the share of a cluster in -2 log L
  Matrix eb, ub, zb;   // given everything: posterior mean of the open vector, and the residuals about it
};

// Sums that the gradient of a level is made of.
struct NestedPoint::Sums {
  double count = 0;
  Matrix uu, uz, zz;  // products of the residuals given everything
  Vector u, z;
  Matrix c, b, j;  // sum U - K S K', sum K S J', J sum S J'
};

// A x for the columns of each class, A of the class, times a scale, is added.
void add_by_class(Matrix& out, double scale, const std::vector<Matrix>& of, const NestedTree::Level& nodes,
                  const Matrix& x);
// Columns of parents.
Matrix of_parents(const Matrix& above, const NestedTree::Level& level);
// Sums over the clusters of each parent.
Matrix summed_to_parents(const Matrix& below, const NestedTree::Level& level, Index parents);

}  // namespace msem
