#include "likelihood/two_levels.hpp"

#include <algorithm>
#include <numeric>

namespace msem {

Index Layout::shared() const {
  if (levels.size() < 2) return 0;
  const auto [one, two] =
      std::mismatch(levels[0].begin(), levels[0].end(), levels[1].begin(), levels[1].end());
  return one - levels[0].begin();
}

Layout TwoLevels::layout() const {
  Layout out{{}, p + q};
  if (within()) {
    out.levels.emplace_back(p);
    std::iota(out.levels.back().begin(), out.levels.back().end(), Index{0});
  }
  if (between()) {
    out.levels.emplace_back(nboth + q);
    std::vector<Index>& at = out.levels.back();
    std::iota(at.begin(), at.begin() + nboth, Index{0});
    std::iota(at.begin() + nboth, at.end(), p);
  }
  return out;
}

Moments TwoLevels::moments(Implied levels) const {
  const std::size_t count = std::size_t{within()} + std::size_t{between()};
  const bool fits = levels.size() == count && (!within() || levels.front().mean.size() == p) &&
                    (!between() || levels.back().mean.size() == nboth + q);
  if (!fits) throw std::invalid_argument("the blocks do not have the variables of the statistics");
  Moments out{Vector(0), Vector(0), Matrix(0, 0), Matrix(0, 0)};
  if (within()) {
    out.mean_w = std::move(levels.front().mean);
    out.cov_w = std::move(levels.front().cov);
  }
  if (between()) {
    out.mean_b = std::move(levels.back().mean);
    out.cov_b = std::move(levels.back().cov);
  }
  return out;
}

Implied TwoLevels::levels(Moments moments) const {
  Implied out;
  out.reserve(2);
  if (within()) out.push_back({std::move(moments.mean_w), std::move(moments.cov_w)});
  if (between()) out.push_back({std::move(moments.mean_b), std::move(moments.cov_b)});
  return out;
}

namespace {

const Tangents kNone;

}  // namespace

const Tangents& TwoLevels::within(const LevelTangents& tangents) const {
  return within() ? tangents.front() : kNone;
}

const Tangents& TwoLevels::between(const LevelTangents& tangents) const {
  return between() ? tangents.back() : kNone;
}

std::vector<Matrix> TwoLevels::by_level(std::pair<Matrix, Matrix> parts) const {
  std::vector<Matrix> out;
  if (within()) out.push_back(std::move(parts.first));
  if (between()) out.push_back(std::move(parts.second));
  return out;
}

LevelBlocks TwoLevelKernel::information(Information kind, const LevelTangents& tangents) const {
  const Tangents &within = shape_.within(tangents), &between = shape_.between(tangents);
  BlockInformation part = kind == Information::kObserved   ? observed(within, between)
                          : kind == Information::kExpected ? expected(within, between)
                                                           : approximate(within, between);
  LevelBlocks out(tangents.size());
  const std::size_t last = tangents.size() - 1;
  if (shape_.between()) out(last, last) = std::move(part.bb);
  if (shape_.within()) out(0, 0) = std::move(part.ww);
  if (last > 0) out(0, last) = std::move(part.wb);
  return out;
}

std::vector<Matrix> TwoLevelKernel::factor(const LevelTangents& tangents) const {
  return shape_.by_level(factors(shape_.within(tangents), shape_.between(tangents)));
}

Implied TwoLevelKernel::expected_product(const Implied& change) const {
  return shape_.levels(moment_product(shape_.moments(change)));
}

}  // namespace msem
