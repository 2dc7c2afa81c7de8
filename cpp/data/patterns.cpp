#include "data/patterns.hpp"

#include <algorithm>
#include <numeric>

namespace msem {
namespace {

bool before(const Pattern& a, const Pattern& b) { return a.size() != b.size() ? a.size() > b.size() : a < b; }

}  // namespace

std::size_t PatternNumbers::Hash::operator()(const PatternKey& key) const {
  std::uint64_t h = 1469598103934665603ULL;
  for (const std::uint64_t word : key) {
    h ^= word + (h >> 29);
    h *= 0x9E3779B97F4A7C15ULL;
  }
  return static_cast<std::size_t>(h ^ (h >> 32));
}

Index PatternNumbers::number(const std::uint64_t* key) {
  if (last_ >= 0 && std::equal(key_.begin(), key_.end(), key)) return last_;
  std::copy_n(key, key_.size(), key_.begin());
  const auto [at, fresh] = numbers_.try_emplace(key_, static_cast<Index>(keys_.size()));
  if (fresh) keys_.push_back(key_);
  return last_ = at->second;
}

std::vector<Pattern> PatternNumbers::patterns() const {
  std::vector<Pattern> out(keys_.size());
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    for (Index k = 0; k < variables_; ++k) {
      if (keys_[i][k / kKeyBits] >> (k % kKeyBits) & 1) out[i].push_back(k);
    }
  }
  return out;
}

SortedPatterns sorted(const std::vector<Pattern>& found) {
  std::vector<Index> order(found.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::sort(order.begin(), order.end(), [&](Index a, Index b) { return before(found[a], found[b]); });
  SortedPatterns out{{}, std::vector<Index>(found.size())};
  for (const Index k : order) {
    out.rank[k] = static_cast<Index>(out.patterns.size());
    out.patterns.push_back(found[k]);
  }
  return out;
}

}  // namespace msem
