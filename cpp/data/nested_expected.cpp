// Statistics of three levels that have the expectations of those of a distribution.
#include <algorithm>
#include <map>
#include <stdexcept>

#include "data/nested.hpp"

namespace msem {

namespace {

constexpr double kRoundingOfZero = 1e-8;  // a negative eigenvalue that is none, in the metric of correlations

// R with R R' = a.
Matrix root_of(const Matrix& a) {
  Vector sd = a.diagonal().cwiseMax(0).cwiseSqrt();
  for (double& x : sd) x = x > 0 ? x : 1.0;
  const SymmetricEigen eigen(scale_both(sd.cwiseInverse(), a));
  const double least = eigen.values.size() ? eigen.values[0] : 0;
  if (!eigen.converged || least < -kRoundingOfZero)
    throw std::domain_error("the moments are not those of a distribution");
  return scale_rows(sd, scale_cols(eigen.vectors, eigen.values.cwiseMax(0).cwiseSqrt()));
}

// Columns that add up to zero, one more than rows, with S S' = (n + 1) I: the corners of a simplex.
Matrix simplex(Index n) {
  Matrix out = Matrix::Zero(n, n + 1);
  for (Index i = 0; i < n; ++i) {
    const double k = static_cast<double>(i + 1), step = std::sqrt(static_cast<double>(n + 1) / (k * (k + 1)));
    for (Index j = 0; j <= i; ++j) out(i, j) = step;
    out(i, i + 1) = -k * step;
  }
  return out;
}

// Classes of a school that have the same size.
struct SizeGroup {
  double size;
  std::vector<Index> members;
};

}  // namespace

NestedData expected_nested(const NestedData& data, const std::vector<std::pair<Vector, Matrix>>& moments,
                           const Vector& sizes) {
  if (data.nlevels() != 3 || moments.size() != 3 || sizes.size() != data.values[1].cols())
    throw std::invalid_argument("expected statistics are those of three levels");
  const Index n = data.nvariables();
  const std::vector<Index> units = data.on(0), classes = data.on(1), schools = data.on(2);
  const Index p = static_cast<Index>(units.size()), q2 = static_cast<Index>(classes.size()),
              q3 = static_cast<Index>(schools.size()), e = p + q2;
  std::vector<Matrix> cov(3, Matrix::Zero(n, n));
  NestedData out;
  out.levels = data.levels;
  out.measured = data.measured;
  out.given = data.given;
  out.origin = Vector::Zero(n);
  for (std::size_t l = 0; l < 3; ++l) {
    put(cov[l], data.levels[l], data.levels[l], moments[l].second);
    for (std::size_t i = 0; i < data.levels[l].size(); ++i)
      out.origin[data.levels[l][i]] += moments[l].first[static_cast<Index>(i)];
  }
  // schools with equal numbers of equally large classes
  std::map<std::vector<double>, double> shapes;
  std::vector<std::vector<double>> own(data.nclusters());
  for (Index j = 0; j < sizes.size(); ++j) own[data.parent[1][j]].push_back(sizes[j]);
  for (Index k = 0; k < data.nclusters(); ++k) {
    std::sort(own[k].begin(), own[k].end());
    shapes[own[k]] += data.weight[k];
  }
  // Of the classes of one size count their mean, and the products of their differences from it, which are the
  // same in any direction: one contrast stands for all, and every column of its root is a school. Means are
  // at the corners of a simplex, whose mean is that of the distribution.
  std::vector<Matrix> unit_values, class_values, school_values;
  std::vector<Index> parent, cell_parent;
  std::vector<double> class_sizes, multiple, products;
  const Matrix within = cov[0].topLeftCorner(p, p), shared = cov[2].topLeftCorner(e, e);
  Index made = 0;
  std::vector<double> weight;
  for (const auto& [shape, count] : shapes) {
    if (count == 0) continue;
    std::vector<SizeGroup> groups;
    for (std::size_t j = 0; j < shape.size(); ++j) {
      if (groups.empty() || groups.back().size != shape[j]) groups.push_back({shape[j], {}});
      groups.back().members.push_back(static_cast<Index>(j));
    }
    const Index G = static_cast<Index>(groups.size()), D = G * e + q3;
    Matrix mean_cov = Matrix::Zero(D, D);
    std::vector<Matrix> roots(G);
    Index draws = D + 1;
    double inner = 0;  // degrees of freedom within classes
    for (Index g = 0; g < G; ++g) {
      const double m = static_cast<double>(groups[g].members.size()), size = groups[g].size;
      Matrix between = cov[1].topLeftCorner(e, e);
      if (size > 0) between.topLeftCorner(p, p) += within / size;
      for (Index h = 0; h < G; ++h) mean_cov.block(g * e, h * e, e, e) = shared;
      mean_cov.block(g * e, g * e, e, e) += between / m;
      mean_cov.block(g * e, G * e, e, q3) = cov[2].topRightCorner(e, q3);
      mean_cov.block(G * e, g * e, q3, e) = cov[2].bottomLeftCorner(q3, e);
      inner += m * std::max(0.0, size - 1);
      if (m < 2) continue;
      roots[g] = root_of(between);
      draws += e;
    }
    mean_cov.bottomRightCorner(q3, q3) = cov[2].bottomRightCorner(q3, q3);
    const Matrix mean_root = root_of(mean_cov);
    const auto add_school = [&](const Matrix& of_class, const Vector& of_school) {
      const Index first = static_cast<Index>(class_sizes.size());
      for (std::size_t j = 0; j < shape.size(); ++j) {
        class_sizes.push_back(shape[j]);
        parent.push_back(made);
        if (shape[j] <= 0) continue;
        cell_parent.push_back(first + static_cast<Index>(j));
        unit_values.push_back(of_class.col(static_cast<Index>(j)).head(p));
        multiple.push_back(shape[j]);
      }
      class_values.push_back(of_class.bottomRows(q2));
      school_values.push_back(of_school);
      weight.push_back(count / static_cast<double>(draws));
      products.push_back(inner);
      ++made;
    };
    const Index m_all = static_cast<Index>(shape.size());
    const double all = static_cast<double>(draws);
    const Matrix corners = std::sqrt(all / static_cast<double>(D + 1)) * product(mean_root, simplex(D));
    for (Index d = 0; d <= D; ++d) {
      Matrix of_class(e, m_all);
      for (Index g = 0; g < G; ++g) {
        for (const Index j : groups[g].members) of_class.col(j) = corners.col(d).segment(g * e, e);
      }
      add_school(of_class, corners.col(d).tail(q3));
    }
    for (Index g = 0; g < G; ++g) {
      const Index m = static_cast<Index>(groups[g].members.size());
      if (m < 2) continue;
      const double times = std::sqrt(0.5 * all * static_cast<double>(m - 1));
      for (Index i = 0; i < e; ++i) {
        Matrix of_class = Matrix::Zero(e, m_all);
        of_class.col(groups[g].members[0]) = times * roots[g].col(i);
        of_class.col(groups[g].members[1]) = -times * roots[g].col(i);
        add_school(of_class, Vector::Zero(q3));
      }
    }
  }
  const auto joined = [](const std::vector<Matrix>& parts, Index rows) {
    Index cols = 0;
    for (const Matrix& part : parts) cols += part.cols();
    Matrix all(rows, cols);
    Index at = 0;
    for (const Matrix& part : parts) {
      all.middleCols(at, part.cols()) = part;
      at += part.cols();
    }
    return all;
  };
  const auto vector_of = [](const std::vector<double>& x) {
    return Vector(Eigen::Map<const Vector>(x.data(), static_cast<Index>(x.size())));
  };
  out.sizes = vector_of(class_sizes);
  out.values = {joined(unit_values, p), joined(class_values, q2), joined(school_values, q3)};
  for (std::size_t l = 0; l < 3; ++l) {
    Pattern all(out.values[l].rows());
    for (Index i = 0; i < out.values[l].rows(); ++i) all[i] = i;
    out.patterns.push_back({std::move(all)});
    out.pattern.emplace_back(out.values[l].cols(), 0);
  }
  out.parent = {std::move(cell_parent), std::move(parent)};
  out.multiple = {vector_of(multiple), Vector::Ones(out.sizes.size())};
  out.design.resize(3);
  out.products.resize(made, p * (p + 1) / 2);
  for (Index k = 0; k < made; ++k) {
    Index at = 0;
    for (Index j = 0; j < p; ++j) {
      for (Index i = j; i < p; ++i) out.products(k, at++) = products[k] * within(i, j);
    }
    out.product_top.push_back(k);
  }
  out.product_pattern.assign(made, 0);
  out.beyond = Vector::Zero(made);
  out.weight = vector_of(weight);
  return out;
}

}  // namespace msem
