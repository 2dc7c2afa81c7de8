// Random numbers that are a function of (seed, replicate, group, position), so that replicates can be drawn
// in any order and by any number of threads: Philox4x32-10 (Salmon, Moraes, Dror & Shaw, 2011).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace msem {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

// Ten rounds of multiplication and exclusive or: a bijection of the counter for every key.
inline PhiloxCounter philox(PhiloxCounter c, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * c[0], b = std::uint64_t{0xCD9E8D57} * c[2];
    const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
    c = {high(b) ^ c[1] ^ key[0], static_cast<std::uint32_t>(b), high(a) ^ c[3] ^ key[1],
         static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return c;
}

// The random numbers of one replicate in one group, in order.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::uint64_t replicate, std::uint32_t group)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        counter_{0, group, static_cast<std::uint32_t>(replicate),
                 static_cast<std::uint32_t>(replicate >> 32)} {}

  std::uint32_t word() {
    if (used_ == 4) {
      block_ = philox(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }

  // Uniform on the open interval (0, 1).
  double uniform() {
    const std::uint64_t high = word() >> 5, low = word() >> 6;
    return (static_cast<double>((high << 26) | low) + 0.5) * 0x1p-53;
  }

  // Uniform on 0, ..., n - 1 without bias (Lemire, 2019).
  std::uint32_t below(std::uint32_t n) {
    std::uint64_t product = std::uint64_t{word()} * n;
    if (static_cast<std::uint32_t>(product) < n) {
      const std::uint32_t reject = (0u - n) % n;
      while (static_cast<std::uint32_t>(product) < reject) product = std::uint64_t{word()} * n;
    }
    return static_cast<std::uint32_t>(product >> 32);
  }

  // Standard normal by the polar method (Marsaglia & Bray, 1964).
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    double u, v, s;
    do {
      u = 2 * uniform() - 1;
      v = 2 * uniform() - 1;
      s = u * u + v * v;
    } while (s >= 1 || s == 0);
    const double scale = std::sqrt(-2 * std::log(s) / s);
    spare_ = v * scale;
    has_spare_ = true;
    return u * scale;
  }

  // Chi-square with df >= 1 degrees of freedom, twice a gamma variate of shape df / 2 (Marsaglia & Tsang,
  // 2000).
  double chi_square(double df) {
    if (df < 2) {
      const double z = normal();
      return df == 1 ? z * z : chi_square(df + 2) * std::pow(uniform(), 2 / df);
    }
    const double d = 0.5 * df - 1.0 / 3, c = 1 / std::sqrt(9 * d);
    for (;;) {
      const double x = normal(), t = 1 + c * x;
      if (t <= 0) continue;
      const double v = t * t * t;
      if (std::log(uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return 2 * d * v;
    }
  }

 private:
  PhiloxKey key_;
  PhiloxCounter counter_;
  PhiloxCounter block_{};
  int used_ = 4;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace msem
