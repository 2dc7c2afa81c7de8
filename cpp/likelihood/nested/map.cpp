#include "likelihood/nested/map.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "likelihood/slope_layout.hpp"

namespace msem {

namespace {

// A coordinate: the coefficient of a variable on the product of these covariates, by level.
struct Coefficient {
  Index variable;
  std::vector<std::pair<Index, Index>> on;
  bool operator==(const Coefficient& other) const { return variable == other.variable && on == other.on; }
};

bool stands_above(const NestedData& data, const std::pair<Index, Index>& covariate, Index level) {
  return std::any_of(data.slopes.begin(), data.slopes.end(), [&](const RandomSlope& slope) {
    return slope.level == covariate.first && slope.covariate == covariate.second && !slope.at.empty() &&
           *std::max_element(slope.at.begin(), slope.at.end()) > level;
  });
}

// Products of small matrices of either kind of number.
template <class S>
using Dense = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic>;

template <class S>
Dense<S> product(const Dense<S>& a, const Dense<S>& b) {
  Dense<S> out = Dense<S>::Zero(a.rows(), b.cols());
  for (Index j = 0; j < b.cols(); ++j) {
    for (Index k = 0; k < a.cols(); ++k) {
      for (Index i = 0; i < a.rows(); ++i) out(i, j) += a(i, k) * b(k, j);
    }
  }
  return out;
}

// A'B and A B'
template <class S>
Dense<S> cross(const Dense<S>& a, const Dense<S>& b) {
  return product<S>(a.transpose(), b);
}
template <class S>
Dense<S> outer(const Dense<S>& a, const Dense<S>& b) {
  return product<S>(a, b.transpose());
}

}  // namespace

std::vector<NestedCoordinates> nested_coordinates(const NestedData& data) {
  const Index depth = data.nlevels();
  std::vector<Index> highest(data.nvariables(), 0);
  for (Index l = 0; l < depth; ++l) {
    for (const Index v : data.levels[l]) highest[v] = std::max(highest[v], l);
  }
  std::vector<NestedCoordinates> out(depth);
  std::vector<Coefficient> here;
  for (Index l = 0; l < depth; ++l) {
    NestedCoordinates& own = out[l];
    own.open = static_cast<Index>(here.size());
    own.z = data.on(l);
    for (const Index v : own.z) here.push_back({v, {}});
    for (const Index v : data.levels[l])
      own.of_variable.push_back(std::find(here.begin(), here.end(), Coefficient{v, {}}) - here.begin());
    Index covariates = 0;
    for (std::size_t k = 0; k < data.slopes.size(); ++k) {
      const RandomSlope& slope = data.slopes[k];
      if (slope.level == l) {
        own.products.push_back(static_cast<Index>(k));
        covariates = std::max(covariates, slope.covariate);
      }
      if (std::find(slope.at.begin(), slope.at.end(), l) != slope.at.end())
        own.standing.push_back(static_cast<Index>(k));
    }
    // what stays open: a covariate is kept about its mean, so that its coefficient goes with the one before
    const std::size_t count = here.size();
    std::vector<bool> carried(count), kept(count);
    for (std::size_t i = 0; i < count; ++i) {
      const Coefficient& one = here[i];
      carried[i] = covariates > 0 && !data.given[one.variable];
      kept[i] =
          carried[i] || (one.on.empty() ? highest[one.variable] > l : stands_above(data, one.on.back(), l));
    }
    for (std::size_t i = count; i-- > 0;) {
      if (!kept[i] || here[i].on.empty()) continue;
      Coefficient before = here[i];
      before.on.pop_back();
      const auto at = std::find(here.begin(), here.end(), before);
      if (at != here.end()) kept[at - here.begin()] = true;
    }
    std::vector<Coefficient> above;
    for (std::size_t i = 0; i < count; ++i) {
      if (!kept[i]) continue;
      own.above.push_back({static_cast<Index>(i), 0});
      above.push_back(here[i]);
    }
    for (Index c = 1; c <= covariates; ++c) {
      for (std::size_t i = 0; i < count; ++i) {
        if (!carried[i]) continue;
        own.above.push_back({static_cast<Index>(i), c});
        above.push_back(here[i]);
        above.back().on.emplace_back(l, c);
      }
    }
    here = std::move(above);
  }
  return out;
}

Layout nested_layout(const NestedData& data) {
  return slope_layout(data.levels, data.nvariables(), data.slopes);
}

template <class S>
NestedMap<S>::NestedMap(const NestedData& data, const std::vector<NestedCoordinates>& coordinates,
                        std::vector<Level> moments)
    : data_(data), coordinates_(coordinates), moments_(std::move(moments)) {
  bool fits = moments_.size() == coordinates.size();
  for (std::size_t l = 0; fits && l < coordinates.size(); ++l)
    fits = moments_[l].mean.size() ==
           static_cast<Index>(coordinates[l].of_variable.size() + coordinates[l].products.size() +
                              coordinates[l].standing.size());
  if (!fits) throw std::invalid_argument("the blocks do not have the variables of the statistics");
  std::vector<V> columns(data.slopes.size());  // what each slope does to the coordinates of the level
  for (std::size_t l = 0; l < coordinates.size(); ++l) {
    const NestedCoordinates& own = coordinates[l];
    const Index n = static_cast<Index>(own.of_variable.size()), m = static_cast<Index>(own.products.size()),
                k = static_cast<Index>(own.standing.size());
    M matrix = M::Zero(own.size(), n + k);
    for (Index i = 0; i < n; ++i) matrix(own.of_variable[i], i) = 1;
    for (Index i = 0; i < k; ++i) matrix.col(n + i).head(own.open) = columns[own.standing[i]];
    M paths(n + k, m), residual(n + k, n + k);
    const auto at = [&](Index i) { return i < n ? i : i + m; };
    const M& cov = moments_[l].cov;
    for (Index i = 0; i < n + k; ++i) {
      for (Index j = 0; j < m; ++j) paths(i, j) = cov(at(i), n + j);
      for (Index j = 0; j < n + k; ++j) residual(i, j) = cov(at(i), at(j));
    }
    if (m) residual -= outer<S>(paths, paths);
    for (auto& column : columns) {
      if (!column.size()) continue;
      V next(static_cast<Index>(own.above.size()));
      for (Index a = 0; a < next.size(); ++a)
        next[a] = own.above[a].covariate || own.above[a].from >= own.open ? S(0) : column[own.above[a].from];
      column = std::move(next);
    }
    const M reach = product<S>(matrix, paths);
    for (Index j = 0; j < m; ++j) {
      const RandomSlope& slope = data.slopes[own.products[j]];
      V& column = columns[own.products[j]];
      column.resize(static_cast<Index>(own.above.size()));
      for (Index a = 0; a < column.size(); ++a) {
        const Index c = own.above[a].covariate;
        const double times = c == 0 ? slope.mean : c == slope.covariate ? slope.spread : 0.0;
        column[a] = times * reach(own.above[a].from, j);
      }
    }
    matrix_.push_back(std::move(matrix));
    paths_.push_back(std::move(paths));
    residual_.push_back(std::move(residual));
  }
}

template <class S>
std::vector<FullLevel<S>> NestedMap<S>::full() const {
  V mean = -data_.origin.template cast<S>();
  for (std::size_t l = 0; l < coordinates_.size(); ++l) {
    for (std::size_t i = 0; i < data_.levels[l].size(); ++i)
      mean[data_.levels[l][i]] += moments_[l].mean[static_cast<Index>(i)];
  }
  std::vector<FullLevel<S>> out;
  for (std::size_t l = 0; l < coordinates_.size(); ++l) {
    const NestedCoordinates& own = coordinates_[l];
    const Index k = static_cast<Index>(own.standing.size());
    const M half = product<S>(matrix_[l], residual_[l]);
    FullLevel<S> one{outer<S>(half, matrix_[l]), V::Zero(own.open), V(static_cast<Index>(own.z.size()))};
    for (std::size_t i = 0; i < own.z.size(); ++i) one.z[static_cast<Index>(i)] = mean[own.z[i]];
    const Index last = matrix_[l].cols() - 1, end = moments_[l].mean.size() - 1;
    for (Index s = 0; s < k; ++s) {
      for (Index i = 0; i < own.open; ++i) one.open[i] += matrix_[l](i, last - s) * moments_[l].mean[end - s];
    }
    out.push_back(std::move(one));
  }
  return out;
}

template <class S>
std::vector<typename NestedMap<S>::Level> NestedMap<S>::back(
    const std::vector<FullLevel<S>>& gradient) const {
  V means(data_.nvariables());
  for (std::size_t l = 0; l < coordinates_.size(); ++l) {
    for (std::size_t i = 0; i < coordinates_[l].z.size(); ++i)
      means[coordinates_[l].z[i]] = gradient[l].z[static_cast<Index>(i)];
  }
  std::vector<Level> out(coordinates_.size());
  std::vector<V> columns(data_.slopes.size());  // derivatives with respect to those of the level above
  for (std::size_t l = coordinates_.size(); l-- > 0;) {
    const NestedCoordinates& own = coordinates_[l];
    const Index n = static_cast<Index>(own.of_variable.size()), m = static_cast<Index>(own.products.size()),
                k = static_cast<Index>(own.standing.size());
    const M& matrix = matrix_[l];
    const M half = product<S>(gradient[l].cov, matrix);
    const M inner = cross<S>(matrix, half);
    Level& one = out[l];
    one.mean = V::Zero(n + m + k);
    one.cov = M::Zero(n + m + k, n + m + k);
    for (Index i = 0; i < n; ++i) one.mean[i] = means[data_.levels[l][i]];
    for (Index s = 0; s < k; ++s) {
      for (Index i = 0; i < own.open; ++i) one.mean[n + m + s] += matrix(i, n + s) * gradient[l].open[i];
    }
    const auto at = [&](Index i) { return i < n ? i : i + m; };
    for (Index i = 0; i < n + k; ++i) {
      for (Index j = 0; j < n + k; ++j) one.cov(at(i), at(j)) = inner(i, j);
    }
    M reach = M::Zero(own.size(), m);
    for (Index j = 0; j < m; ++j) {
      const RandomSlope& slope = data_.slopes[own.products[j]];
      const V& column = columns[own.products[j]];
      for (Index a = 0; a < column.size(); ++a) {
        const Index c = own.above[a].covariate;
        const double times = c == 0 ? slope.mean : c == slope.covariate ? slope.spread : 0.0;
        reach(own.above[a].from, j) += times * column[a];
      }
    }
    const M turned = cross<S>(matrix, reach), bent = product<S>(inner, paths_[l]);
    for (Index j = 0; j < m; ++j) {
      for (Index i = 0; i < n + k; ++i)
        one.cov(at(i), n + j) = one.cov(n + j, at(i)) = S(0.5) * turned(i, j) - bent(i, j);
    }
    // derivatives with respect to the columns of the slopes in `matrix`
    M of_slopes(own.size(), k);
    const M spread = product<S>(half, residual_[l]);
    for (Index s = 0; s < k; ++s) {
      for (Index i = 0; i < own.size(); ++i) {
        of_slopes(i, s) = S(2) * spread(i, n + s);
        if (i < own.open) of_slopes(i, s) += gradient[l].open[i] * moments_[l].mean[n + m + s];
        for (Index j = 0; j < m; ++j) of_slopes(i, s) += reach(i, j) * paths_[l](n + s, j);
      }
    }
    for (std::size_t s = 0; s < columns.size(); ++s) {
      if (data_.slopes[s].level >= static_cast<Index>(l)) continue;
      V below = V::Zero(own.open);
      for (Index a = 0; a < columns[s].size(); ++a) {
        const auto [from, covariate] = own.above[a];
        if (!covariate && from < own.open) below[from] += columns[s][a];
      }
      columns[s] = std::move(below);
    }
    for (Index i = 0; i < k; ++i) columns[own.standing[i]] += of_slopes.col(i).head(own.open);
  }
  return out;
}

template class NestedMap<double>;
template class NestedMap<std::complex<double>>;

}  // namespace msem
