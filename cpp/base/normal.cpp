#include "base/normal.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <limits>

namespace msem {

namespace {

constexpr double kTwoPi = 6.28318530717958647693;
constexpr double kSteep = 0.925;  // correlation from which the integrand is expanded about 1
constexpr double kSmall = 1e-12;  // rectangles below it are integrated by themselves

// Nodes and weights of Gauss-Legendre quadrature on [-1, 1], the positive half.
constexpr double kNodes[10] = {0.0765265211334973, 0.2277858511416451, 0.3737060887154195, 0.5108670019508271,
                               0.6360536807265150, 0.7463319064601508, 0.8391169718222188, 0.9122344282513259,
                               0.9639719272779138, 0.9931285991850949};
constexpr double kWeights[10] = {
    0.1527533871307258, 0.1491729864726037, 0.1420961093183820, 0.1316886384491766, 0.1181945319615184,
    0.1019301198172404, 0.0832767415767048, 0.0626720483341091, 0.0406014298003869, 0.0176140071391521};

constexpr double kSixNodes[] = {0.2386191860831969, 0.6612093864662645, 0.9324695142031521};
constexpr double kSixWeights[] = {0.4679139345726910, 0.3607615730481386, 0.1713244923791704};
constexpr double kEightNodes[] = {0.1834346424956498, 0.5255324099163290, 0.7966664774136267,
                                  0.9602898564975363};
constexpr double kEightWeights[] = {0.3626837833783620, 0.3137066458778873, 0.2223810344533745,
                                    0.1012285362903763};
constexpr double kTenNodes[] = {0.1488743389816312, 0.4333953941292472, 0.6794095682990244,
                                0.8650633666889845, 0.9739065285171717};
constexpr double kTenWeights[] = {0.2955242247147529, 0.2692667193099963, 0.2190863625159820,
                                  0.1494513491505806, 0.0666713443086881};
constexpr double kTwelveNodes[] = {0.1252334085114689, 0.3678314989981802, 0.5873179542866175,
                                   0.7699026741943047, 0.9041172563704749, 0.9815606342467192};
constexpr double kTwelveWeights[] = {0.2491470458134028, 0.2334925365383548, 0.2031674267230659,
                                     0.1600783285433462, 0.1069393259953184, 0.0471753363865118};
constexpr double kSixteenNodes[] = {0.0950125098376374, 0.2816035507792589, 0.4580167776572274,
                                    0.6178762444026438, 0.7554044083550030, 0.8656312023878318,
                                    0.9445750230732326, 0.9894009349916499};
constexpr double kSixteenWeights[] = {0.1894506104550685, 0.1826034150449236, 0.1691565193950025,
                                      0.1495959888165767, 0.1246289712555339, 0.0951585116824928,
                                      0.0622535239386479, 0.0271524594117541};

// The rule of n nodes on either side that gives the integral to 3e-16 up to a correlation of `most`.
struct AngleRule {
  double most;
  int n;
  const double *nodes, *weights;
};
constexpr AngleRule kRules[] = {
    {0.3, 3, kSixNodes, kSixWeights},          {0.5, 4, kEightNodes, kEightWeights},
    {0.65, 5, kTenNodes, kTenWeights},         {0.75, 6, kTwelveNodes, kTwelveWeights},
    {0.85, 8, kSixteenNodes, kSixteenWeights}, {kSteep, 10, kNodes, kWeights}};

// Quadrature over the angle asin r: as many nodes as the correlation needs, of which it knows half.
struct Angles {
  explicit Angles(double r) : half(0.5 * std::asin(r)) {
    const AngleRule* rule = kRules;
    while (std::abs(r) > rule->most && rule->most < kSteep) ++rule;
    n = rule->n;
    nodes = rule->nodes;
    weights = rule->weights;
  }
  double half;
  int n;
  const double *nodes, *weights;
};

// (1 + x) times the ratio of tail and density at x >= 0, as a sum of Chebyshev polynomials of (x - a) / (x +
// a).
constexpr int kTerms = 22;
constexpr double kCentre = 5.5;
constexpr double kMills[kTerms] = {
    1.1540988955333935,      -0.16385223187162568,    -0.0076182486333373593,  0.029713952331241134,
    -0.017636097560684551,   0.0069821347271624389,   -0.0021029779930541006,  0.0004903463553690557,
    -8.4590966450830417e-05, 8.9414732973303046e-06,  5.8233725184209105e-08,  -2.1301661680794838e-07,
    3.1009948457949575e-08,  1.2806699611900285e-09,  -9.8855080565840582e-10, 6.645353600731596e-11,
    2.3241695235043382e-11,  -3.8489922360440686e-12, -4.9158010995142834e-13, 1.5463630376189029e-13,
    1.0003109451872661e-14,  -5.7776006201493145e-15};

// work(from, count, lanes) for n numbers, some of which make a block of the type of lanes.
template <class Work>
void by_blocks(std::ptrdiff_t n, const Work& work) {
  constexpr std::ptrdiff_t whole = 8, small = 4;
  std::ptrdiff_t from = 0;
  for (; n - from > small; from += whole)
    work(from, std::min(whole, n - from), Eigen::Array<double, whole, 1>());
  if (from < n) work(from, n - from, Eigen::Array<double, small, 1>());
}

template <class Block>
Block take(const double* from, std::ptrdiff_t count) {
  if (count == Block::SizeAtCompileTime) return Eigen::Map<const Block>(from);
  Block out = Block::Zero();
  std::copy(from, from + count, out.data());
  return out;
}

template <class Block>
void put(const Block& block, double* to, std::ptrdiff_t count) {
  if (count == Block::SizeAtCompileTime)
    std::copy_n(block.data(), Block::SizeAtCompileTime, to);
  else
    std::copy(block.data(), block.data() + count, to);
}

// P(X > x) for x >= 0, and the density.
template <class Block>
Block tails(const Block& x, Block& density) {
  constexpr double scale = 0.39894228040143267794;  // 1 / sqrt(2 pi)
  density = scale * (-0.5 * x * x).exp();
  const Block t = 2 * (x - kCentre) / (x + kCentre);
  Block one = Block::Zero(), two = Block::Zero();
  for (int k = kTerms - 1; k > 0; --k) {
    const Block next = kMills[k] + t * one - two;
    two = one;
    one = next;
  }
  return (kMills[0] + 0.5 * t * one - two) / (1 + x) * density;
}

// P(X > h, Y > k) by the integral of the density over the correlation, in the angle asin r.
double upper_by_angle(double h, double k, double r) {
  const double product = h * k, squares = 0.5 * (h * h + k * k);
  const Angles angles(r);
  const double half = angles.half;
  double sum = 0;
  for (int i = 0; i < angles.n; ++i) {
    for (const double sign : {-1.0, 1.0}) {
      const double s = std::sin(half * (1 + sign * angles.nodes[i]));
      sum += angles.weights[i] * std::exp((s * product - squares) / (1 - s * s));
    }
  }
  return sum * half / kTwoPi + normal_cdf(-h) * normal_cdf(-k);
}

// The same for correlations close to 1 or -1: the difference from the degenerate distribution, with the
// first terms of its expansion in closed form.
double upper_by_expansion(double h, double k, double r) {
  const bool negative = r < 0;
  if (negative) k = -k;
  const double hk = h * k;
  double sum = 0;
  const double square = (1 - r) * (1 + r);
  if (square > 0) {
    const double a = std::sqrt(square), gap = (h - k) * (h - k), c = (4 - hk) / 8, d = (12 - hk) / 16;
    const double exponent = -0.5 * (gap / square + hk);
    if (exponent > -100)
      sum = a * std::exp(exponent) *
            (1 - c * (gap - square) * (1 - d * gap / 5) / 3 + c * d * square * square / 5);
    if (hk > -100) {
      const double b = std::sqrt(gap);
      sum -= std::exp(-0.5 * hk) * std::sqrt(kTwoPi) * normal_cdf(-b / a) * b *
             (1 - c * gap * (1 - d * gap / 5) / 3);
    }
    for (int i = 0; i < 10; ++i) {
      for (const double sign : {-1.0, 1.0}) {
        const double x = 0.25 * square * (1 + sign * kNodes[i]) * (1 + sign * kNodes[i]);
        const double root = std::sqrt(1 - x), at = -0.5 * (gap / x + hk);
        if (at > -100)
          sum += 0.5 * a * kWeights[i] * std::exp(at) *
                 (std::exp(-hk * x / (2 * (1 + root) * (1 + root))) / root - (1 + c * x * (1 + d * x)));
      }
    }
    sum = -sum / kTwoPi;
  }
  if (!negative) return sum + normal_cdf(-std::max(h, k));
  return -sum + (h < k ? normal_between(h, k) : 0.0);
}

}  // namespace

void normal_tails(const double* z, std::ptrdiff_t n, double* tail, double* density) {
  by_blocks(n, [&](std::ptrdiff_t from, std::ptrdiff_t count, auto lanes) {
    using Block = decltype(lanes);
    Block phi;
    put(tails(take<Block>(z + from, count).abs().eval(), phi), tail + from, count);
    put(phi, density + from, count);
  });
}

void normal_cdfs(const double* z, std::ptrdiff_t n, double* cdf, double* density) {
  by_blocks(n, [&](std::ptrdiff_t from, std::ptrdiff_t count, auto lanes) {
    using Block = decltype(lanes);
    Block phi;
    const Block x = take<Block>(z + from, count);
    Block out = tails(x.abs().eval(), phi);
    for (int i = 0; i < out.size(); ++i) out[i] = x[i] > 0 ? 1 - out[i] : out[i];
    put(out, cdf + from, count);
    put(phi, density + from, count);
  });
}

void normal_intervals(const double* low, const double* high, std::ptrdiff_t n, double* p, double* at_low,
                      double* at_high) {
  by_blocks(n, [&](std::ptrdiff_t from, std::ptrdiff_t count, auto lanes) {
    using Block = decltype(lanes);
    const Block a = take<Block>(low + from, count).max(-kNormalEnd),
                b = take<Block>(high + from, count).min(kNormalEnd);
    Block phi_a, phi_b;
    const Block upper_a = tails(a.abs().eval(), phi_a), upper_b = tails(b.abs().eval(), phi_b);
    Block out;
    for (int i = 0; i < out.size(); ++i) {
      const double beyond = b[i] < 0 ? upper_b[i] - upper_a[i] : 1 - upper_a[i] - upper_b[i];
      out[i] = a[i] > 0 ? upper_a[i] - upper_b[i] : beyond;
    }
    put(out, p + from, count);
    put(phi_a, at_low + from, count);
    put(phi_b, at_high + from, count);
  });
}

double binormal_density(double x, double y, double r) {
  if (std::isinf(x) || std::isinf(y)) return 0;
  const double rest = (1 - r) * (1 + r);
  return std::exp(-0.5 * (x * x - 2 * r * x * y + y * y) / rest) / (kTwoPi * std::sqrt(rest));
}

double binormal_cdf(double x, double y, double r) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (x == -infinity || y == -infinity) return 0;
  if (x == infinity) return normal_cdf(y);
  if (y == infinity) return normal_cdf(x);
  const double value = std::abs(r) < kSteep ? upper_by_angle(-x, -y, r) : upper_by_expansion(-x, -y, r);
  return std::min(std::max(value, 0.0), 1.0);
}

Binormal::Binormal(double r) : r_(r), steep_(std::abs(r) >= kSteep) {
  if (steep_) return;
  const Angles angles(r);
  for (int i = 0; i < angles.n; ++i) {
    for (const double sign : {-1.0, 1.0}) {
      const double s = std::sin(angles.half * (1 + sign * angles.nodes[i]));
      nodes_[count_++] = {s, 1 / (1 - s * s), angles.weights[i] * angles.half / kTwoPi};
    }
  }
}

void Binormal::cdf(const double* x, const double* y, const double* cdf_x, const double* cdf_y,
                   std::ptrdiff_t n, double* out, double* density) const {
  const double rest = 1 / ((1 - r_) * (1 + r_)), constant = std::sqrt(rest) / kTwoPi;
  by_blocks(n, [&](std::ptrdiff_t from, std::ptrdiff_t m, auto lanes) {
    using Block = decltype(lanes);
    const Block u = take<Block>(x + from, m), v = take<Block>(y + from, m);
    const Block product = u * v, half = 0.5 * (u * u + v * v);
    put((constant * (rest * (r_ * product - half)).exp()).eval(), density + from, m);
    if (steep_) return;
    Block sum = take<Block>(cdf_x + from, m) * take<Block>(cdf_y + from, m);
    for (int i = 0; i < count_; ++i)
      sum += nodes_[i].weight * (nodes_[i].scale * (nodes_[i].s * product - half)).exp();
    put(sum, out + from, m);
  });
  for (std::ptrdiff_t i = 0; i < n && steep_; ++i) out[i] = binormal_cdf(x[i], y[i], r_);
}

double binormal_between(double x1, double x2, double y1, double y2, double r) {
  const double corners =
      binormal_cdf(x1, y1, r) - binormal_cdf(x2, y1, r) - binormal_cdf(x1, y2, r) + binormal_cdf(x2, y2, r);
  if (corners > kSmall) return corners;
  const double low = std::max(x2, -9.0), high = std::min(x1, 9.0), root = std::sqrt((1 - r) * (1 + r));
  if (!(low < high)) return std::max(corners, 0.0);
  double sum = 0;
  for (int i = 0; i < 10; ++i) {
    for (const double sign : {-1.0, 1.0}) {
      const double t = 0.5 * (low + high) + 0.5 * (high - low) * sign * kNodes[i];
      sum += kWeights[i] * normal_density(t) * normal_between((y2 - r * t) / root, (y1 - r * t) / root);
    }
  }
  return 0.5 * (high - low) * sum;
}

}  // namespace msem
