#include "draws/rowdraws.hpp"

#include <algorithm>
#include <stdexcept>

namespace msem {

namespace {

void check(const LevelLaw& law) {
  const Index n = law.size();
  const bool bent = law.polynomial.size() > 0;
  if (law.root.rows() != n || (bent && (law.polynomial.rows() != n || law.polynomial.cols() != 4)) ||
      (bent && law.scale.size() != n) || law.df < 0)
    throw std::invalid_argument("the distribution of a level has inconsistent shapes");
}

std::vector<Column> columns_of(const Matrix& values) {
  std::vector<Column> out;
  for (Index k = 0; k < values.cols(); ++k) out.push_back({values.col(k).data(), 1});
  return out;
}

}  // namespace

void LevelLaw::draw(RandomStream& random, Eigen::Ref<Vector> out) const {
  Vector z(root.cols());
  for (Index k = 0; k < z.size(); ++k) z[k] = random.normal();
  out.setZero();
  add_applied(out, 1, root, z);
  if (polynomial.size()) {
    for (Index i = 0; i < out.size(); ++i) {
      const auto c = polynomial.row(i);
      const double y = out[i];
      out[i] = scale[i] * (c[0] + y * (c[1] + y * (c[2] + y * c[3])));
    }
  } else if (df > 0) {
    out *= std::sqrt((df - 2) / random.chi_square(df));
  }
  out += mean;
}

RowDraws::RowDraws(std::vector<RowPopulation> groups, std::uint64_t seed)
    : groups_(std::move(groups)), seed_(seed) {
  for (const RowPopulation& g : groups_) {
    check(g.within);
    check(g.between);
    for (const DrawnSlope& slope : g.slopes) {
      if (slope.covariate < g.nboth || slope.covariate >= g.p() || slope.effects.size() != g.p())
        throw std::invalid_argument("the slopes of a population do not fit its variables");
    }
    if (g.nboth < 0 || g.nboth > g.p() || g.q() < 0)
      throw std::invalid_argument("the levels of a population do not fit together");
    codes_.emplace_back();
    for (std::size_t j = 0; j < g.sizes.size(); ++j) {
      if (g.sizes[j] < 1) throw std::invalid_argument("a cluster needs units");
      codes_.back().insert(codes_.back().end(), g.sizes[j], static_cast<std::int64_t>(j));
    }
  }
}

DrawnRows RowDraws::rows(std::uint64_t replicate, Index group) const {
  const RowPopulation& g = groups_.at(group);
  RandomStream random(seed_, replicate, static_cast<std::uint32_t>(group));
  const Index J = static_cast<Index>(g.sizes.size()), N = static_cast<Index>(codes_[group].size());
  DrawnRows out{Matrix(N, g.p()), Matrix(J, g.q())};
  Vector between(g.between.size()), unit(g.p());
  Index row = 0;
  for (Index j = 0; j < J; ++j) {
    g.between.draw(random, between);
    out.cluster.row(j) = between.segment(g.nboth, g.q());
    if (g.p() == 0) continue;
    for (Index i = 0; i < g.sizes[j]; ++i) {
      g.within.draw(random, unit);
      unit.head(g.nboth) += between.head(g.nboth);
      for (std::size_t k = 0; k < g.slopes.size(); ++k) {
        const double slope = between[g.nboth + g.q() + static_cast<Index>(k)];
        unit += unit[g.slopes[k].covariate] * slope * g.slopes[k].effects;
      }
      out.unit.row(row++) = unit;
    }
  }
  return out;
}

std::vector<GroupDraw> RowDraws::draw(std::uint64_t replicate) const {
  for (const RowPopulation& g : groups_) {
    if (!g.slopes.empty()) throw std::invalid_argument("with random slopes only rows can be drawn");
  }
  std::vector<GroupDraw> out;
  for (Index g = 0; g < ngroups(); ++g) {
    const DrawnRows drawn = rows(replicate, g);
    const Index J = drawn.cluster.rows();
    const Matrix repeated = drawn.cluster(codes_[g], Eigen::all);
    const ClusteredRows view{columns_of(drawn.unit), columns_of(repeated), codes_[g].data(),
                             static_cast<std::ptrdiff_t>(codes_[g].size()), J};
    out.push_back({two_level_statistics(view), J});
  }
  return out;
}

CrossedRowDraws::CrossedRowDraws(std::vector<CrossedPopulation> groups, std::uint64_t seed)
    : groups_(std::move(groups)), seed_(seed) {
  for (const CrossedPopulation& g : groups_) {
    check(g.units);
    counts_.push_back({0, 0});
    for (int s = 0; s < 2; ++s) {
      check(g.clusters[s]);
      bool fits =
          g.of[s].size() == g.of[0].size() && static_cast<Index>(g.open[s].size()) <= g.clusters[s].size();
      for (const Index v : g.open[s]) fits = fits && v >= 0 && v < g.units.size();
      for (const Index k : g.of[s]) {
        fits = fits && k >= 0;
        counts_.back()[s] = std::max(counts_.back()[s], k + 1);
      }
      if (!fits) throw std::invalid_argument("the classifications of a population do not fit together");
    }
  }
}

std::array<Matrix, 3> CrossedRowDraws::rows(std::uint64_t replicate, Index group) const {
  const CrossedPopulation& g = groups_.at(group);
  RandomStream random(seed_, replicate, static_cast<std::uint32_t>(group));
  const Index n = static_cast<Index>(g.of[0].size()), p = g.units.size();
  std::array<Matrix, 3> out;
  std::array<Matrix, 2> effects;
  for (int s = 0; s < 2; ++s) {
    const Index open = static_cast<Index>(g.open[s].size()), all = g.clusters[s].size();
    out[s + 1].resize(counts_[group][s], all - open);
    effects[s] = Matrix::Zero(p, counts_[group][s]);
    Vector drawn(all);
    for (Index k = 0; k < counts_[group][s]; ++k) {
      g.clusters[s].draw(random, drawn);
      for (Index i = 0; i < open; ++i) effects[s](g.open[s][i], k) = drawn[i];
      out[s + 1].row(k) = drawn.tail(all - open);
    }
  }
  out[0].resize(n, p);
  Vector unit(p);
  for (Index i = 0; i < n; ++i) {
    g.units.draw(random, unit);
    out[0].row(i) = unit + effects[0].col(g.of[0][i]) + effects[1].col(g.of[1][i]);
  }
  return out;
}

}  // namespace msem
