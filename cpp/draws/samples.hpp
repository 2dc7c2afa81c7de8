// Samples that are given, and parts of samples that are drawn.
#pragma once

#include "draws/draws.hpp"

namespace msem {

// Statistics by number; clusters count as different.
class GivenSamples : public Draws {
 public:
  // Of each group: its statistics in every sample.
  explicit GivenSamples(std::vector<std::vector<TwoLevelStatistics>> groups);
  Index ngroups() const override { return static_cast<Index>(groups_.size()); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;
  // Samples in which some of these variables of a group are, among those of units or of clusters, determined
  // by others; see `first_dependence`.
  std::vector<Index> dependent(Index group, const std::vector<Index>& unit, const std::vector<Index>& cluster,
                               double least) const;

 private:
  std::vector<std::vector<TwoLevelStatistics>> groups_;
};

// Some of the variables of other draws: `unit` of the unit variables, and `all` of all variables, those of
// `unit` first; for one level the means may be left out.
class SelectedDraws : public Draws {
 public:
  SelectedDraws(std::shared_ptr<const Draws> from, std::vector<Index> unit, std::vector<Index> all,
                bool centred);
  Index ngroups() const override { return from_->ngroups(); }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  std::shared_ptr<const Draws> from_;
  std::vector<Index> unit_, all_;
  bool centred_;
};

}  // namespace msem
