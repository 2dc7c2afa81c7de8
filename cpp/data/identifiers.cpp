#include "data/identifiers.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "base/prefetch.hpp"

namespace msem {
namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t kIdBlock = 1024;
constexpr std::uint64_t kSmallTable = 1U << 22;  // ids: sixteen megabytes
constexpr ptrdiff_t kIdsAhead = 64;              // ids whose places are asked for before they are needed

std::uint64_t mixed(std::int64_t id) {  // the finaliser of SplitMix64
  auto x = static_cast<std::uint64_t>(id);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Call visit(first row, number of rows, their ids) for one block after the other, until it says false.
template <class Visit>
void for_each_id_block(const TypedColumn& column, ptrdiff_t first, ptrdiff_t last, Visit visit) {
  std::int64_t buffer[kIdBlock];
  for (ptrdiff_t start = first; start < last; start += kIdBlock) {
    const ptrdiff_t length = std::min(kIdBlock, last - start);
    for_each_value<std::int64_t>(column, start, length,
                                 [&](ptrdiff_t i, std::int64_t id) { buffer[i] = id; });
    if (!visit(start, length, buffer)) return;
  }
}

}  // namespace

std::int64_t Identifiers::append(std::int64_t id) {
  if (ids_.size() >= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
    throw std::length_error("more than two billion clusters");
  ids_.push_back(id);
  return static_cast<std::int64_t>(ids_.size()) - 1;
}

void Identifiers::number(const TypedColumn& column, ptrdiff_t count, std::int64_t* codes) {
  ptrdiff_t done = 0;
  if (ascending_) {
    for_each_id_block(column, 0, count, [&](ptrdiff_t start, ptrdiff_t length, const std::int64_t* ids) {
      std::int64_t code = static_cast<std::int64_t>(ids_.size()) - 1;
      std::int64_t last = ids_.empty() ? 0 : ids_.back();
      for (ptrdiff_t i = 0; i < length; ++i) {
        if (code < 0 || ids[i] > last) {
          code = append(ids[i]);
          last = ids[i];
        } else if (ids[i] < last) {
          ascending_ = false;
          done = start + i;
          return false;
        }
        codes[start + i] = code;
      }
      done = start + length;
      return true;
    });
  }
  if (done < count) number_any(column, done, count, codes);
}

void Identifiers::number_any(const TypedColumn& column, ptrdiff_t first, ptrdiff_t count,
                             std::int64_t* codes) {
  std::int64_t low = std::numeric_limits<std::int64_t>::max(),
               high = std::numeric_limits<std::int64_t>::min();
  for_each_id_block(column, first, count, [&](ptrdiff_t, ptrdiff_t length, const std::int64_t* ids) {
    for (ptrdiff_t i = 0; i < length; ++i) {
      low = std::min(low, ids[i]);
      high = std::max(high, ids[i]);
    }
    return true;
  });
  prepare_tables(low, high, count - first);
  const bool direct = !direct_.empty();
  for_each_id_block(column, first, count, [&](ptrdiff_t start, ptrdiff_t length, const std::int64_t* ids) {
    for (ptrdiff_t i = 0; i < length; ++i) {
      if (direct && i + kIdsAhead < length)
        ask_for(&direct_[static_cast<std::size_t>(ids[i + kIdsAhead] - low_)]);
      const bool same = i > 0 && ids[i] == ids[i - 1];
      codes[start + i] = same ? codes[start + i - 1] : direct ? code_direct(ids[i]) : code_hashed(ids[i]);
    }
    return true;
  });
}

// Tables that hold all ids so far and have room for ids from low to high: an array if it is not much longer
// than the rows or the ids it is for.
void Identifiers::prepare_tables(std::int64_t low, std::int64_t high, ptrdiff_t rows) {
  if (!slots_.empty()) return;
  const auto covered = low_ + static_cast<std::int64_t>(direct_.size());
  if (!direct_.empty() && low >= low_ && high < covered) return;
  for (const std::int64_t id : ids_) {
    low = std::min(low, id);
    high = std::max(high, id);
  }
  const std::uint64_t span = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  const std::uint64_t most =
      std::max<std::uint64_t>({kSmallTable, static_cast<std::uint64_t>(rows) / 2, 8 * ids_.size()});
  // ids that climb from one call to the next: room for as many again, so that the array is not made each time
  const auto room =
      static_cast<std::int64_t>(std::min<std::uint64_t>(direct_.size(), most - std::min(span, most)));
  if (span < most)
    make_direct(low, high <= std::numeric_limits<std::int64_t>::max() - room ? high + room : high);
  else
    make_hash(1U << 10);
}

void Identifiers::make_direct(std::int64_t low, std::int64_t high) {
  low_ = low;
  direct_.assign(static_cast<std::size_t>(high - low) + 1, -1);
  for (std::size_t code = 0; code < ids_.size(); ++code)
    direct_[static_cast<std::size_t>(ids_[code] - low_)] = static_cast<std::int32_t>(code);
}

void Identifiers::make_hash(std::size_t slots) {
  std::vector<std::int32_t>().swap(direct_);
  while (slots < 4 * ids_.size()) slots *= 2;
  slots_.assign(slots, Slot{0, -1});
  for (std::size_t code = 0; code < ids_.size(); ++code)
    slot_of(ids_[code]) = {ids_[code], static_cast<std::int64_t>(code)};
}

std::int64_t Identifiers::code_direct(std::int64_t id) {
  std::int32_t& code = direct_[static_cast<std::size_t>(id - low_)];
  if (code < 0) code = static_cast<std::int32_t>(append(id));
  return code;
}

Identifiers::Slot& Identifiers::slot_of(std::int64_t id) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = mixed(id) & mask;
  while (slots_[at].code >= 0 && slots_[at].id != id) at = (at + 1) & mask;
  return slots_[at];
}

std::int64_t Identifiers::code_hashed(std::int64_t id) {
  Slot& slot = slot_of(id);
  if (slot.code >= 0) return slot.code;
  const std::int64_t code = append(id);
  slot = {id, code};
  if (2 * ids_.size() > slots_.size()) make_hash(2 * slots_.size());
  return code;
}

}  // namespace msem
