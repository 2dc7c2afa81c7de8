#include "fit/markers.hpp"

#include <algorithm>

namespace msem {

namespace {

// What multiplies an entry when its variables are multiplied by `scale`.
double factor_of(const Entry& e, const Vector& scale) {
  if (e.slot == Slot::kDirected) return scale[e.row] / scale[e.col];
  if (e.slot == Slot::kSymmetric) return scale[e.row] * scale[e.col];
  return scale[e.row];
}

bool concerns(const Entry& e, Index factor) {
  return e.row == factor || (e.slot != Slot::kIntercept && e.col == factor);
}

void rescale(const Block& block, const Vector& scale, const Vector& from, Vector& to) {
  for (const Entry& e : block.free_entries()) to[e.parameter] = from[e.parameter] * factor_of(e, scale);
}

}  // namespace

Vector OtherMarkers::back(const std::vector<Block>& old, const Vector& found) const {
  Vector out = found;
  for (std::size_t b = 0; b < old.size(); ++b) {
    Vector scale = Vector::Ones(old[b].nvariables());
    for (Index f = 0; f < scale.size(); ++f) {
      if (marked[b][f] >= 0) scale[f] = found[marked[b][f]] / value[b][f];
    }
    rescale(old[b], scale, found, out);
    // the new marker, which was fixed
    for (Index f = 0; f < scale.size(); ++f) {
      if (marked[b][f] >= 0) out[marked[b][f]] = value[b][f] / scale[f];
    }
  }
  return out;
}

std::optional<OtherMarkers> other_markers(const std::vector<Block>& blocks, const Vector& theta,
                                          const Vector& lower, const Vector& upper) {
  std::vector<int> uses(theta.size(), 0);
  for (const Block& block : blocks) {
    for (const Entry& e : block.free_entries()) ++uses[e.parameter];
  }
  OtherMarkers out{{}, theta, {}, {}};
  bool any = false;
  for (const Block& block : blocks) {
    std::vector<Entry> entries = block.entries();
    out.marked.emplace_back(block.nvariables(), -1);
    out.value.emplace_back(block.nvariables(), 0.0);
    Vector scale = Vector::Ones(block.nvariables());
    for (Index f = block.nobserved(); f < block.nvariables(); ++f) {
      int marker = -1, most = -1;
      bool free = true;
      for (int i = 0; i < static_cast<int>(entries.size()); ++i) {
        const Entry& e = entries[i];
        if (!concerns(e, f)) continue;
        const bool loading = e.slot == Slot::kDirected && e.col == f && e.row < block.nobserved();
        if (e.parameter < 0) {
          if (e.value == 0) continue;
          free = free && loading && marker < 0;
          marker = i;
          continue;
        }
        const bool variance = e.slot == Slot::kSymmetric && e.row == e.col;
        const double least = lower[e.parameter];
        const bool bounded =
            std::isfinite(upper[e.parameter]) || (std::isfinite(least) && !(variance && least == 0));
        free = free && uses[e.parameter] == 1 && !bounded;
        if (loading && (most < 0 || std::abs(theta[e.parameter]) > std::abs(theta[entries[most].parameter])))
          most = i;
      }
      if (!free || marker < 0 || most < 0) continue;
      const double value = entries[marker].value, loading = theta[entries[most].parameter];
      if (!(std::abs(loading) > std::abs(value))) continue;
      out.marked.back()[f] = entries[most].parameter;
      out.value.back()[f] = value;
      scale[f] = loading / value;
      std::swap(entries[marker].parameter, entries[most].parameter);
      entries[most].value = value;
      any = true;
    }
    rescale(block, scale, theta, out.theta);
    for (Index f = 0; f < scale.size(); ++f) {
      if (out.marked.back()[f] >= 0) out.theta[out.marked.back()[f]] = out.value.back()[f] / scale[f];
    }
    out.blocks.emplace_back(block.nobserved(), block.nvariables(), std::move(entries));
  }
  if (!any) return std::nullopt;
  return out;
}

}  // namespace msem
