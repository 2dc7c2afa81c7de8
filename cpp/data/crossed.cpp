#include "data/crossed.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>

#include "base/interrupt.hpp"

namespace msem {

namespace {

void require(bool fits) {
  if (!fits) throw std::invalid_argument("statistics of crossed classifications have inconsistent shapes");
}

void require_levels(const std::vector<std::vector<Index>>& levels, const std::vector<Index>& measured) {
  const Index n = static_cast<Index>(measured.size());
  require(levels.size() == 3 && std::is_sorted(measured.begin(), measured.end()));
  for (Index l = 0; l < 3; ++l) {
    for (const Index v : levels[l]) require(v >= 0 && v < n && (measured[v] == l || measured[v] == 0));
  }
  for (Index v = 0; v < n; ++v) {
    require(measured[v] >= 0 && measured[v] < 3);
    const std::vector<Index>& own = levels[measured[v]];
    require(std::find(own.begin(), own.end(), v) != own.end());
  }
}

}  // namespace

std::vector<Index> CrossedData::on(Index level) const {
  std::vector<Index> out;
  for (Index v = 0; v < nvariables(); ++v) {
    if (measured[v] == level) out.push_back(v);
  }
  return out;
}

CrossedData crossed_data(std::vector<std::vector<Index>> levels, std::vector<Index> measured,
                         const Matrix& units, const std::array<std::vector<Index>, 2>& of,
                         const std::array<Matrix, 2>& values) {
  require_levels(levels, measured);
  CrossedData out;
  out.levels = std::move(levels);
  out.measured = std::move(measured);
  const Index n = units.rows(), p = units.cols();
  require(n > 0 && p == static_cast<Index>(out.on(0).size()));
  out.units = static_cast<double>(n);
  out.origin.resize(out.nvariables());
  out.origin.head(p) = units.colwise().mean();
  Index at = p;
  for (int c = 0; c < 2; ++c) {
    const Index q = values[c].cols(), count = values[c].rows();
    require(static_cast<Index>(of[c].size()) == n && q == static_cast<Index>(out.on(c + 1).size()) &&
            count > 0);
    Classification& own = out.classifications[c];
    own.values = values[c].transpose();
    for (Index v = 0; v < q; ++v, ++at) {
      out.origin[at] = own.values.row(v).mean();
      own.values.row(v).array() -= out.origin[at];
    }
    own.sizes.setZero(count);
    own.sums.setZero(p, count);
  }
  Matrix centred = units.transpose();
  centred.colwise() -= out.origin.head(p);
  std::map<std::pair<Index, Index>, double> cells;
  for (Index i = 0; i < n; ++i) {
    if (i % 65536 == 0) check_interrupt();
    for (int c = 0; c < 2; ++c) {
      Classification& own = out.classifications[c];
      const Index k = of[c][i];
      require(k >= 0 && k < own.count());
      own.sizes[k] += 1;
      own.sums.col(k) += centred.col(i);
    }
    ++cells[{of[0][i], of[1][i]}];
  }
  require(out.classifications[0].sizes.minCoeff() > 0 && out.classifications[1].sizes.minCoeff() > 0);
  out.products = outer(centred, centred);
  out.pairs.resize(static_cast<Index>(cells.size()));
  Index cell = 0;
  for (const auto& [pair, count] : cells) {
    out.first.push_back(pair.first);
    out.second.push_back(pair.second);
    out.pairs[cell++] = count;
  }
  return out;
}

CrossedData restrict_crossed(const CrossedData& data, const std::vector<Index>& variables,
                             std::vector<std::vector<Index>> levels) {
  CrossedData out = data;
  std::array<std::vector<Index>, 3> own;  // kept ones among those measured on each level
  std::array<Index, 3> before = {0, 0, 0};
  for (const Index level : data.measured) {
    for (Index l = level + 1; l < 3; ++l) ++before[l];
  }
  out.measured.clear();
  for (const Index v : variables) {
    require(v >= 0 && v < data.nvariables());
    const Index level = data.measured[v];
    out.measured.push_back(level);
    own[level].push_back(v - before[level]);
  }
  out.origin = select(data.origin, variables);
  out.products = select(data.products, own[0], own[0]);
  for (int c = 0; c < 2; ++c) {
    out.classifications[c].sums = select_rows(data.classifications[c].sums, own[0]);
    out.classifications[c].values = select_rows(data.classifications[c].values, own[c + 1]);
  }
  require_levels(levels, out.measured);
  out.levels = std::move(levels);
  return out;
}

}  // namespace msem
