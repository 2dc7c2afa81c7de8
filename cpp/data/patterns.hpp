// Which of a number of variables are observed: as bits while patterns are found, as positions afterwards.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/linalg.hpp"

namespace msem {

using Pattern = std::vector<Index>;             // positions of the observed variables, ascending
using PatternKey = std::vector<std::uint64_t>;  // a bit for each variable

constexpr Index kKeyBits = 64;  // variables in a word of a key

// Numbers patterns in the order in which they are found.
class PatternNumbers {
 public:
  explicit PatternNumbers(Index variables) : variables_(variables), key_(words(variables)) {}

  static Index words(Index variables) { return variables / kKeyBits + 1; }
  static void mark(std::uint64_t* key, Index variable) {
    key[variable / kKeyBits] |= std::uint64_t{1} << (variable % kKeyBits);
  }

  // Number of the pattern with these bits, `words` of them.
  Index number(const std::uint64_t* key);
  const std::vector<PatternKey>& keys() const { return keys_; }
  std::vector<Pattern> patterns() const;

 private:
  struct Hash {
    std::size_t operator()(const PatternKey& key) const;
  };
  Index variables_;
  PatternKey key_;  // the last one, and its number: rows alike often follow each other
  Index last_ = -1;
  std::unordered_map<PatternKey, Index, Hash> numbers_;
  std::vector<PatternKey> keys_;
};

// Distinct patterns in order: those with most variables first, then by position.
struct SortedPatterns {
  std::vector<Pattern> patterns;
  std::vector<Index> rank;  // of each of the patterns given
};
SortedPatterns sorted(const std::vector<Pattern>& found);

}  // namespace msem
