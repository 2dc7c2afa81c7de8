// Samples that are given, and parts of samples that are drawn.
#pragma once

#include "draws/draws.hpp"

namespace msem {

// Statistics by number; clusters count as different.
class GivenSamples : public Draws {
 public:
  explicit GivenSamples(std::vector<std::vector<TwoLevelStatistics>> samples);
  Index ngroups() const override { return ngroups_; }
  std::vector<GroupDraw> draw(std::uint64_t replicate) const override;

 private:
  std::vector<std::vector<TwoLevelStatistics>> samples_;
  Index ngroups_ = 0;
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
