#include "fit/filled.hpp"

namespace msem {

std::shared_ptr<const TwoLevelLoss> loss_of(const TwoLevelStatistics& s, Index nboth) {
  const Index m = s.means.cols();
  const Eigen::Map<const Matrix> stacked(s.scatter.data(), m * m, s.sizes.size());
  return std::make_shared<TwoLevelLoss>(TwoLevelData(nboth, s.ssw, s.sizes, s.counts, s.means, stacked));
}

Objective filled_objective(const Objective& model, const std::vector<std::vector<int>>& filled,
                           const std::vector<std::shared_ptr<const Loss>>& losses,
                           const std::vector<Moments>& saturated) {
  std::vector<Group> groups = model.groups();
  std::vector<Block> blocks = model.blocks();
  const auto fill = [&](int b, const Vector& mean, const Matrix& cov) {
    if (b < 0) return;
    for (const int i : filled[b]) {
      const Entry& e = blocks[b].entries()[i];
      blocks[b].set_value(i, e.slot == Slot::kIntercept ? mean[e.row] : cov(e.row, e.col));
    }
  };
  for (std::size_t g = 0; g < groups.size(); ++g) {
    groups[g].loss = losses[g];
    fill(groups[g].within, saturated[g].mean_w, saturated[g].cov_w);
    fill(groups[g].between, saturated[g].mean_b, saturated[g].cov_b);
  }
  return Objective(model.npar(), std::move(blocks), std::move(groups));
}

}  // namespace msem
