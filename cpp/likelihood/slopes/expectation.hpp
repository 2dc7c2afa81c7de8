// Sums over clusters that the expected information of the likelihood with random slopes is made of, whatever
// the parameters: made once at a point.
#pragma once

#include "base/lanes.hpp"
#include "likelihood/slopes/slopes.hpp"

namespace msem {

struct SlopeExpectation {
  explicit SlopeExpectation(const SlopePoint& point);

  // What traces of M^-1 dM_a M^-1 dM_b are made of, in coordinates of the changes of M, which are those of
  // w~, C and lambda; those of the pooled rest are among them.
  Matrix ww, wc, wl, cc, cl, ll;
  // Information about what the means are made of, the cluster variables being random: of the rows of a
  // cluster the intercepts (p), paths from whitened covariates and slopes (p (f + m)), of u its mean (r) and
  // its paths from whitened cluster variables (r q).
  Matrix means;
};

// out := A B, of rows x inner and inner x columns.
template <class Left, class Right>
void multiply_lanes(const Left* a, const Right* b, Lanes* out, Index rows, Index inner, Index columns) {
  std::fill(out, out + rows * columns, Lanes::Zero());
  for (Index j = 0; j < columns; ++j) {
    for (Index k = 0; k < inner; ++k) {
      const Right s = b[j * inner + k];
      for (Index i = 0; i < rows; ++i) out[j * rows + i] += s * a[k * rows + i];
    }
  }
}

}  // namespace msem
