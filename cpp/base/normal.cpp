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
  constexpr std::ptrdiff_t kBlock = 16;
  constexpr double scale = 0.39894228040143267794;  // 1 / sqrt(2 pi)
  using Block = Eigen::Array<double, kBlock, 1>;
  for (std::ptrdiff_t from = 0; from < n; from += kBlock) {
    const std::ptrdiff_t count = std::min(kBlock, n - from);
    Block x = Block::Zero();
    for (std::ptrdiff_t i = 0; i < count; ++i) x[i] = std::abs(z[from + i]);
    const Block phi = scale * (-0.5 * x * x).exp();
    const Block t = 2 * (x - kCentre) / (x + kCentre);
    Block one = Block::Zero(), two = Block::Zero();
    for (int k = kTerms - 1; k > 0; --k) {
      const Block next = kMills[k] + t * one - two;
      two = one;
      one = next;
    }
    const Block ratio = (kMills[0] + 0.5 * t * one - two) / (1 + x) * phi;
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      tail[from + i] = ratio[i];
      density[from + i] = phi[i];
    }
  }
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

void binormal_cdf(Eigen::Ref<const Eigen::ArrayXd> x, Eigen::Ref<const Eigen::ArrayXd> y,
                  Eigen::Ref<const Eigen::ArrayXd> cdf_x, Eigen::Ref<const Eigen::ArrayXd> cdf_y, double r,
                  Eigen::Ref<Eigen::ArrayXd> out) {
  if (std::abs(r) >= kSteep) {
    for (Eigen::Index i = 0; i < x.size(); ++i) out[i] = binormal_cdf(x[i], y[i], r);
    return;
  }
  out = cdf_x * cdf_y;
  const Angles angles(r);
  for (int i = 0; i < angles.n; ++i) {
    for (const double sign : {-1.0, 1.0}) {
      const double s = std::sin(angles.half * (1 + sign * angles.nodes[i])), scale = 1 / (1 - s * s);
      const double weight = angles.weights[i] * angles.half / kTwoPi;
      out += weight * (scale * (s * x * y - 0.5 * (x.square() + y.square()))).exp();
    }
  }
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
