#include "draws/samples.hpp"

#include <stdexcept>

namespace msem {

GivenSamples::GivenSamples(std::vector<std::vector<TwoLevelStatistics>> samples)
    : samples_(std::move(samples)) {
  if (!samples_.empty()) ngroups_ = static_cast<Index>(samples_.front().size());
  for (const auto& groups : samples_) {
    if (static_cast<Index>(groups.size()) != ngroups_)
      throw std::invalid_argument("all samples must have the same groups");
    for (const TwoLevelStatistics& s : groups) {
      const Index S = s.sizes.size(), m = s.means.cols();
      if (s.counts.size() != S || s.means.rows() != S || static_cast<Index>(s.scatter.size()) != S * m * m ||
          s.ssw.rows() != s.ssw.cols() || s.ssw.rows() > m)
        throw std::invalid_argument("sufficient statistics have inconsistent shapes");
    }
  }
}

std::vector<GroupDraw> GivenSamples::draw(std::uint64_t replicate) const {
  if (replicate >= samples_.size()) throw std::invalid_argument("there are fewer samples");
  std::vector<GroupDraw> out;
  for (const TwoLevelStatistics& s : samples_[replicate])
    out.push_back({s, static_cast<Index>(std::round(s.counts.sum()))});
  return out;
}

SelectedDraws::SelectedDraws(std::shared_ptr<const Draws> from, std::vector<Index> unit,
                             std::vector<Index> all, bool centred)
    : from_(std::move(from)), unit_(std::move(unit)), all_(std::move(all)), centred_(centred) {
  if (!from_) throw std::invalid_argument("there is nothing to select from");
}

std::vector<GroupDraw> SelectedDraws::draw(std::uint64_t replicate) const {
  std::vector<GroupDraw> out = from_->draw(replicate);
  const auto within = [](const std::vector<Index>& chosen, Index count) {
    for (const Index k : chosen) {
      if (k < 0 || k >= count) throw std::invalid_argument("a selected variable is not among those drawn");
    }
  };
  const Index n = static_cast<Index>(all_.size());
  for (GroupDraw& one : out) {
    TwoLevelStatistics* complete = std::get_if<TwoLevelStatistics>(&one.data);
    if (!complete) throw std::invalid_argument("variables are selected from complete data only");
    TwoLevelStatistics& s = *complete;
    const Index m = s.means.cols(), S = s.sizes.size();
    within(unit_, s.ssw.rows());
    within(all_, m);
    s.ssw = Matrix(s.ssw(unit_, unit_));
    s.means = RowMatrix(s.means(Eigen::all, all_));
    if (centred_) s.means.setZero();
    std::vector<double> scatter(S * n * n);
    for (Index k = 0; k < S; ++k) {
      const Eigen::Map<const Matrix> whole(s.scatter.data() + k * m * m, m, m);
      Eigen::Map<Matrix>(scatter.data() + k * n * n, n, n) = whole(all_, all_);
    }
    s.scatter = std::move(scatter);
  }
  return out;
}

}  // namespace msem
