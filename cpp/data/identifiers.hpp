// Whole numbers that stand for clusters, numbered 0, 1, ... in order of first appearance.
//
// Ids that never descend need no table: the next one is the last one or new. Once one descends, ids that lie
// close together are looked up in an array, others in a hash table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/typed.hpp"

namespace msem {

class Identifiers {
 public:
  // Codes of `count` ids of a column of whole numbers; ids that were not there before get the next codes.
  void number(const TypedColumn& ids, std::ptrdiff_t count, std::int64_t* codes);
  const std::vector<std::int64_t>& ids() const { return ids_; }

 private:
  struct Slot {
    std::int64_t id;
    std::int64_t code;  // -1: empty
  };

  void number_any(const TypedColumn& ids, std::ptrdiff_t first, std::ptrdiff_t count, std::int64_t* codes);
  std::int64_t append(std::int64_t id);
  void prepare_tables(std::int64_t low, std::int64_t high, std::ptrdiff_t rows);
  void make_direct(std::int64_t low, std::int64_t high);
  void make_hash(std::size_t slots);
  std::int64_t code_direct(std::int64_t id);
  std::int64_t code_hashed(std::int64_t id);
  Slot& slot_of(std::int64_t id);

  std::vector<std::int64_t> ids_;
  bool ascending_ = true;
  std::int64_t low_ = 0;              // of the array
  std::vector<std::int32_t> direct_;  // code by id less low_; -1: none
  std::vector<Slot> slots_;           // a power of two of them, at most half in use
};

}  // namespace msem
