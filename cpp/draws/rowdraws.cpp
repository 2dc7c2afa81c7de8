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

struct RowDraws::Prepared {
  RowPopulation population;
  std::vector<Index> count;               // units of each level
  std::vector<std::vector<Index>> first;  // the first unit of each of them
  std::vector<Index> column;              // of each observed variable among those measured on its level
  std::vector<Index> columns;             // how many these are
  std::vector<std::vector<Index>> place;  // of each variable in the law of each level, -1 where it is not
  std::vector<std::int64_t> codes;        // of the highest clusters
};

std::shared_ptr<const RowDraws::Prepared> RowDraws::prepare(RowPopulation population) {
  auto out = std::make_shared<Prepared>();
  const std::size_t depth = population.levels.size();
  const Index observed = static_cast<Index>(population.measured.size());
  Index all = observed;
  for (const PopulationLevel& one : population.levels) {
    for (const Index v : one.variables) all = std::max(all, v + 1);
  }
  bool fits = depth > 0;
  for (std::size_t l = 0; l < depth; ++l) {
    const PopulationLevel& one = population.levels[l];
    check(one.law);
    fits = fits && one.law.size() == static_cast<Index>(one.variables.size()) &&
           one.of.size() == population.levels[0].of.size();
    out->place.emplace_back(all, -1);
    for (std::size_t j = 0; j < one.variables.size(); ++j) {
      const Index v = one.variables[j];
      fits = fits && v >= 0 && (v >= observed || population.measured[v] <= static_cast<Index>(l));
      if (fits) out->place[l][v] = static_cast<Index>(j);
    }
    for (const DrawnSlope& slope : one.slopes)
      fits = fits && slope.covariate >= 0 && slope.covariate < one.law.size() &&
             slope.effects.size() == one.law.size() && slope.slope >= observed && slope.slope < all;
    out->first.emplace_back();
    for (std::size_t i = 0; fits && i < one.of.size(); ++i) {
      const Index k = one.of[i];
      fits = k >= 0 && k < static_cast<Index>(one.of.size()) && (l > 0 || k == static_cast<Index>(i));
      if (fits && k >= static_cast<Index>(out->first[l].size())) out->first[l].resize(k + 1, -1);
      if (fits && out->first[l][k] < 0) out->first[l][k] = static_cast<Index>(i);
    }
    for (const Index i : out->first[l]) fits = fits && i >= 0;  // a cluster needs units
    out->count.push_back(static_cast<Index>(out->first[l].size()));
  }
  out->columns.assign(depth, 0);
  for (const Index level : population.measured) {
    fits = fits && level >= 0 && level < static_cast<Index>(depth);
    if (fits) out->column.push_back(out->columns[level]++);
  }
  for (const DrawnCuts& one : population.cuts) {
    const double* cut = one.thresholds.data();
    fits = fits && one.variable >= 0 && one.variable < observed && one.logistic >= 0 &&
           std::is_sorted(cut, cut + one.thresholds.size());
  }
  fits = fits && population.given.size() <= depth;
  for (std::size_t l = 0; fits && l < population.given.size(); ++l) {
    const Matrix& own = population.given[l];
    fits = !own.size() || (own.rows() == out->count[l] && own.cols() == out->columns[l]);
  }
  if (!fits) throw std::invalid_argument("the levels of a population do not fit together");
  const std::vector<Index>& top = population.levels.back().of;
  out->codes.assign(top.begin(), top.end());
  out->population = std::move(population);
  return out;
}

RowDraws::RowDraws(std::vector<RowPopulation> groups, std::uint64_t seed) : seed_(seed) {
  for (RowPopulation& one : groups) groups_.push_back(prepare(std::move(one)));
}

// Clusters are drawn with their first units, the highest ones first; logistic residuals after all of them.
std::vector<Matrix> RowDraws::rows(std::uint64_t replicate, Index group) const {
  const Prepared& g = *groups_.at(group);
  const std::vector<PopulationLevel>& levels = g.population.levels;
  const Index depth = static_cast<Index>(levels.size()), n = g.count[0];
  RandomStream random(seed_, replicate, static_cast<std::uint32_t>(group));
  std::vector<Matrix> parts, out;
  for (Index l = 0; l < depth; ++l) {
    parts.emplace_back(levels[l].law.size(), g.count[l]);
    out.push_back(Matrix::Zero(g.count[l], g.columns[l]));
  }
  for (Index i = 0; i < n; ++i) {
    for (Index l = depth - 1; l >= 0; --l) {
      const Index k = levels[l].of[i];
      if (g.first[l][k] != i) continue;
      auto part = parts[l].col(k);
      levels[l].law.draw(random, part);
      for (const DrawnSlope& one : levels[l].slopes) {
        double size = 0;
        for (Index above = l + 1; above < depth; ++above) {
          const Index at = g.place[above][one.slope];
          if (at >= 0) size += parts[above](at, levels[above].of[i]);
        }
        part += part[one.covariate] * size * one.effects;
      }
    }
  }
  for (std::size_t v = 0; v < g.column.size(); ++v) {
    const Index own = g.population.measured[v];
    for (Index l = own; l < depth; ++l) {
      const Index at = g.place[l][v];
      if (at < 0) continue;
      for (Index k = 0; k < g.count[own]; ++k)
        out[own](k, g.column[v]) += parts[l](at, levels[l].of[g.first[own][k]]);
    }
  }
  for (std::size_t l = 0; l < g.population.given.size(); ++l) {
    if (g.population.given[l].size()) out[l] += g.population.given[l];
  }
  for (const DrawnCuts& one : g.population.cuts) {
    const double *begin = one.thresholds.data(), *end = begin + one.thresholds.size();
    for (double& value : out[g.population.measured[one.variable]].col(g.column[one.variable])) {
      if (one.logistic > 0) {
        const double u = random.uniform();
        value += one.logistic * std::log(u / (1 - u));
      }
      value = static_cast<double>(std::lower_bound(begin, end, value) - begin);
    }
  }
  return out;
}

std::vector<GroupDraw> RowDraws::draw(std::uint64_t replicate) const {
  std::vector<GroupDraw> out;
  for (Index k = 0; k < ngroups(); ++k) {
    const Prepared& g = *groups_[k];
    const bool slopes = std::any_of(g.population.levels.begin(), g.population.levels.end(),
                                    [](const PopulationLevel& one) { return !one.slopes.empty(); });
    if (g.count.size() > 2 || slopes)
      throw std::invalid_argument("of more than two levels, or with random slopes, only rows can be drawn");
    const std::vector<Matrix> drawn = rows(replicate, k);
    const Matrix repeated = drawn.back()(g.codes, Eigen::all);
    const Index clusters = drawn.back().rows();
    const ClusteredRows view{drawn.size() > 1 ? columns_of(drawn.front()) : std::vector<Column>(),
                             columns_of(repeated), g.codes.data(),
                             static_cast<std::ptrdiff_t>(g.codes.size()), clusters};
    out.push_back({two_level_statistics(view), clusters});
  }
  return out;
}

}  // namespace msem
