#include "draws/samples.hpp"

#include <stdexcept>

#include "data/dependence.hpp"

namespace msem {

namespace {

void require_among(const std::vector<Index>& chosen, Index count) {
  for (const Index k : chosen) {
    if (k < 0 || k >= count)
      throw std::invalid_argument("a selected variable is not among those of the samples");
  }
}

}  // namespace

GivenSamples::GivenSamples(std::vector<std::vector<TwoLevelStatistics>> groups) : groups_(std::move(groups)) {
  for (const auto& samples : groups_) {
    if (samples.size() != groups_.front().size())
      throw std::invalid_argument("all groups must have the same samples");
    for (const TwoLevelStatistics& s : samples) {
      const Index S = s.sizes.size(), m = s.means.cols();
      if (s.counts.size() != S || s.means.rows() != S || static_cast<Index>(s.scatter.size()) != S * m * m ||
          s.ssw.rows() != s.ssw.cols() || s.ssw.rows() > m)
        throw std::invalid_argument("sufficient statistics have inconsistent shapes");
    }
  }
}

std::vector<GroupDraw> GivenSamples::draw(std::uint64_t replicate) const {
  std::vector<GroupDraw> out;
  for (const auto& samples : groups_) {
    if (replicate >= samples.size()) throw std::invalid_argument("there are fewer samples");
    const TwoLevelStatistics& s = samples[replicate];
    out.push_back({s, static_cast<Index>(std::round(s.counts.sum()))});
  }
  return out;
}

std::vector<Index> GivenSamples::dependent(Index group, const std::vector<Index>& unit,
                                           const std::vector<Index>& cluster, double least) const {
  std::vector<Index> out;
  const std::vector<TwoLevelStatistics>& samples = groups_.at(group);
  for (std::size_t r = 0; r < samples.size(); ++r) {
    const TwoLevelStatistics& s = samples[r];
    require_among(unit, s.ssw.rows());
    require_among(cluster, s.means.cols() - s.ssw.rows());
    const TotalCov cov = total_cov(s.sizes, s.counts, s.means, s.scatter.data(), s.ssw, unit, cluster);
    if (first_dependence(cov.units, std::vector<bool>(unit.size()), least) ||
        first_dependence(cov.clusters, std::vector<bool>(cluster.size()), least))
      out.push_back(static_cast<Index>(r));
  }
  return out;
}

SelectedDraws::SelectedDraws(std::shared_ptr<const Draws> from, std::vector<Index> unit,
                             std::vector<Index> all, bool centred)
    : from_(std::move(from)), unit_(std::move(unit)), all_(std::move(all)), centred_(centred) {
  if (!from_) throw std::invalid_argument("there is nothing to select from");
}

std::vector<GroupDraw> SelectedDraws::draw(std::uint64_t replicate) const {
  std::vector<GroupDraw> out = from_->draw(replicate);
  const Index n = static_cast<Index>(all_.size());
  for (GroupDraw& one : out) {
    TwoLevelStatistics* complete = std::get_if<TwoLevelStatistics>(&one.data);
    if (!complete) throw std::invalid_argument("variables are selected from complete data only");
    TwoLevelStatistics& s = *complete;
    const Index m = s.means.cols(), S = s.sizes.size();
    require_among(unit_, s.ssw.rows());
    require_among(all_, m);
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
