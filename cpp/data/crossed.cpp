#include "data/crossed.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "base/interrupt.hpp"

namespace msem {

namespace {

void require_crossed(bool fits) {
  if (!fits) throw std::invalid_argument("statistics of crossed classifications have inconsistent shapes");
}

void require_crossed_levels(const std::vector<std::vector<Index>>& levels,
                            const std::vector<Index>& measured) {
  const Index n = static_cast<Index>(measured.size());
  require_crossed(levels.size() == 3 && std::is_sorted(measured.begin(), measured.end()));
  for (Index l = 0; l < 3; ++l) {
    for (const Index v : levels[l])
      require_crossed(v >= 0 && v < n && (measured[v] == l || measured[v] == 0));
  }
  for (Index v = 0; v < n; ++v) {
    require_crossed(measured[v] >= 0 && measured[v] < 3);
    const std::vector<Index>& own = levels[measured[v]];
    require_crossed(std::find(own.begin(), own.end(), v) != own.end());
  }
}

// Cells that are put together from others, in order.
class CombinedCells {
 public:
  explicit CombinedCells(Index p, Index width) : p_(p * width), width_(width * width) {}

  // `design` and `sums` as in `CrossedData`.
  void add(Index first, Index second, Index pattern, const double* design, const double* sums) {
    const auto [at, fresh] =
        numbers_.try_emplace({first, second, pattern}, static_cast<Index>(numbers_.size()));
    if (fresh) {
      design_.resize(design_.size() + width_, 0.0);
      sums_.resize(sums_.size() + p_, 0.0);
    }
    for (Index v = 0; v < width_; ++v) design_[at->second * width_ + v] += design[v];
    for (Index v = 0; v < p_; ++v) sums_[at->second * p_ + v] += sums[v];
  }

  void write(CrossedData& out) const {
    const Index n = static_cast<Index>(numbers_.size());
    out.design.resize(width_, n);
    out.sums.resize(p_, n);
    Index cell = 0;
    for (const auto& [key, at] : numbers_) {
      out.first.push_back(key[0]);
      out.second.push_back(key[1]);
      out.pattern.push_back(key[2]);
      for (Index v = 0; v < width_; ++v) out.design(v, cell) = design_[at * width_ + v];
      for (Index v = 0; v < p_; ++v) out.sums(v, cell) = sums_[at * p_ + v];
      ++cell;
    }
    out.count = out.design.row(0);
  }

 private:
  Index p_, width_;
  std::map<std::array<Index, 3>, Index> numbers_;
  std::vector<double> design_, sums_;
};

// Numbers of patterns in order of appearance.
Index pattern_number(std::map<std::vector<Index>, Index>& known, CrossedData& out,
                     const std::vector<Index>& observed, Index p) {
  const auto [at, fresh] = known.try_emplace(observed, static_cast<Index>(out.patterns.size()));
  if (fresh) out.patterns.push_back({observed, 0, Matrix::Zero(p, p)});
  return at->second;
}

}  // namespace

bool CrossedData::complete() const {
  const std::size_t p = on(0).size();
  return std::all_of(patterns.begin(), patterns.end(),
                     [&](const auto& one) { return one.observed.size() == p; });
}

Matrix CrossedData::products() const {
  const Index p = nunit();
  Matrix out = Matrix::Zero(p, p);
  for (const CrossedPattern& one : patterns) out += one.products;
  return out;
}

Matrix CrossedData::observed() const {
  const Index p = nunit();
  Matrix out = Matrix::Zero(p, p);
  for (const CrossedPattern& one : patterns) {
    for (const Index v : one.observed) {
      for (const Index w : one.observed) out(v, w) += one.units;
    }
  }
  return out;
}

std::vector<Index> CrossedData::on(Index level) const {
  std::vector<Index> out;
  for (Index v = 0; v < nvariables(); ++v) {
    if (measured[v] == level) out.push_back(v);
  }
  return out;
}

CrossedData crossed_data(std::vector<std::vector<Index>> levels, std::vector<Index> measured,
                         const Matrix& units, const std::array<std::vector<Index>, 2>& of,
                         const std::array<Matrix, 2>& values, const Matrix& covariates) {
  require_crossed_levels(levels, measured);
  CrossedData out;
  out.levels = std::move(levels);
  out.measured = std::move(measured);
  const Index n = units.rows(), p = units.cols();
  require_crossed(n > 0 && p == static_cast<Index>(out.on(0).size()) &&
                  (!covariates.size() || covariates.rows() == n) && covariates.allFinite());
  const Index width = 1 + covariates.cols();
  out.width = width;
  out.units = static_cast<double>(n);
  out.origin.setZero(out.nvariables());
  for (Index v = 0; v < p; ++v) {
    double sum = 0, seen = 0;
    for (Index i = 0; i < n; ++i) {
      if (std::isnan(units(i, v))) continue;
      sum += units(i, v);
      seen += 1;
    }
    if (seen > 0) out.origin[v] = sum / seen;
  }
  Index at = p;
  for (int c = 0; c < 2; ++c) {
    const Index q = values[c].cols(), count = values[c].rows();
    require_crossed(static_cast<Index>(of[c].size()) == n && q == static_cast<Index>(out.on(c + 1).size()) &&
                    count > 0);
    Classification& own = out.classifications[c];
    own.values = values[c].transpose();
    for (Index v = 0; v < q; ++v, ++at) {
      out.origin[at] = own.values.row(v).mean();
      own.values.row(v).array() -= out.origin[at];
    }
    own.sizes.setZero(count);
  }
  CombinedCells cells(p, width);
  std::map<std::vector<Index>, Index> known;
  std::vector<Index> observed, before;
  Vector x = Vector::Ones(width), row(p * width);
  Matrix design(width, width);
  Index number = -1;
  for (Index i = 0; i < n; ++i) {
    if (i % 65536 == 0) check_interrupt();
    for (int c = 0; c < 2; ++c) {
      Classification& own = out.classifications[c];
      const Index k = of[c][i];
      require_crossed(k >= 0 && k < own.count());
      own.sizes[k] += 1;
    }
    observed.clear();
    for (Index v = 0; v < p; ++v) {
      const bool here = !std::isnan(units(i, v));
      row[v] = here ? units(i, v) - out.origin[v] : 0.0;
      if (here) observed.push_back(v);
    }
    if (observed.empty()) continue;
    if (number < 0 || observed != before) {
      number = pattern_number(known, out, observed, p);
      before = observed;
    }
    CrossedPattern& own = out.patterns[number];
    own.units += 1;
    for (const Index v : observed) {
      for (const Index w : observed) own.products(w, v) += row[w] * row[v];
    }
    for (Index c = 1; c < width; ++c) {
      x[c] = covariates(i, c - 1);
      for (Index v = 0; v < p; ++v) row[c * p + v] = x[c] * row[v];
    }
    for (Index c = 0; c < width; ++c) {
      for (Index d = 0; d < width; ++d) design(d, c) = x[d] * x[c];
    }
    cells.add(of[0][i], of[1][i], number, design.data(), row.data());
  }
  require_crossed(out.classifications[0].sizes.minCoeff() > 0 && out.classifications[1].sizes.minCoeff() > 0);
  cells.write(out);
  return out;
}

CrossedData with_slopes(const CrossedData& data, std::vector<RandomSlope> slopes,
                        const std::vector<Index>& given) {
  for (const RandomSlope& slope : slopes) {
    require_crossed(slope.level == 0 && slope.covariate > 0 && slope.covariate < data.width);
    for (const Index l : slope.at) require_crossed(l == 1 || l == 2);
  }
  CrossedData out = data;
  out.slopes = std::move(slopes);
  out.given.assign(data.nvariables(), false);
  for (const Index v : given) out.given.at(v) = true;
  return out;
}

CrossedData restrict_crossed(const CrossedData& data, const std::vector<Index>& variables,
                             std::vector<std::vector<Index>> levels) {
  CrossedData out;
  out.units = data.units;
  out.classifications = data.classifications;
  std::array<std::vector<Index>, 3> own;  // kept ones among those measured on each level
  std::array<Index, 3> before = {0, 0, 0};
  for (const Index level : data.measured) {
    for (Index l = level + 1; l < 3; ++l) ++before[l];
  }
  for (const Index v : variables) {
    require_crossed(v >= 0 && v < data.nvariables());
    const Index level = data.measured[v];
    out.measured.push_back(level);
    own[level].push_back(v - before[level]);
  }
  out.origin = select(data.origin, variables);
  const Index p = static_cast<Index>(own[0].size());
  std::map<std::vector<Index>, Index> known;
  std::vector<Index> becomes;
  for (const CrossedPattern& one : data.patterns) {
    std::vector<Index> observed;
    for (Index k = 0; k < p; ++k) {
      if (std::binary_search(one.observed.begin(), one.observed.end(), own[0][k])) observed.push_back(k);
    }
    becomes.push_back(observed.empty() ? -1 : pattern_number(known, out, observed, p));
    if (becomes.back() < 0) continue;
    CrossedPattern& kept = out.patterns[becomes.back()];
    kept.units += one.units;
    kept.products += select(one.products, own[0], own[0]);
  }
  CombinedCells cells(p, 1);
  const Matrix sums = select_rows(data.sums, own[0]);
  for (std::size_t c = 0; c < data.first.size(); ++c) {
    const Index k = static_cast<Index>(c);
    if (becomes[data.pattern[c]] >= 0)
      cells.add(data.first[c], data.second[c], becomes[data.pattern[c]], &data.count[k], sums.col(k).data());
  }
  cells.write(out);
  for (int c = 0; c < 2; ++c)
    out.classifications[c].values = select_rows(data.classifications[c].values, own[c + 1]);
  require_crossed_levels(levels, out.measured);
  out.levels = std::move(levels);
  return out;
}

}  // namespace msem
