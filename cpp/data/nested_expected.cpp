// Statistics of nested clusters that have the expectations of those of a distribution.
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

// Clusters of one level that are alike: of level 2 in their size, above in the shapes of what is in them.
struct Shape {
  struct Group {
    Index shape;    // of the clusters below
    Index members;  // that have it
  };
  Index level = 1;  // from 0
  double size = 0;  // of level 2
  std::vector<Group> groups;
};

// All shapes there are, and how many of the highest clusters have each.
struct Shapes {
  std::vector<Shape> all;
  std::map<Index, double> highest;
};

Shapes shapes_of(const NestedData& data, const Vector& sizes) {
  Shapes out;
  std::map<double, Index> of_size;
  std::vector<Index> own(sizes.size());
  for (Index j = 0; j < sizes.size(); ++j) {
    const auto [place, fresh] = of_size.emplace(sizes[j], static_cast<Index>(out.all.size()));
    if (fresh) out.all.push_back({1, sizes[j], {}});
    own[j] = place->second;
  }
  for (Index level = 2; level < data.nlevels(); ++level) {
    const std::vector<Index>& parent = data.parent[level - 1];
    std::vector<std::map<Index, Index>> members(data.values[level].cols());
    for (std::size_t j = 0; j < own.size(); ++j) ++members[parent[j]][own[j]];
    std::map<std::map<Index, Index>, Index> known;
    own.resize(members.size());
    for (std::size_t k = 0; k < members.size(); ++k) {
      const auto [place, fresh] = known.emplace(members[k], static_cast<Index>(out.all.size()));
      if (fresh) {
        Shape shape;
        shape.level = level;
        for (const auto& [below, count] : members[k]) shape.groups.push_back({below, count});
        out.all.push_back(std::move(shape));
      }
      own[k] = place->second;
    }
  }
  for (std::size_t k = 0; k < own.size(); ++k) out.highest[own[k]] += data.weight[static_cast<Index>(k)];
  return out;
}

// Clusters that are alike, taken together: the mean of `count` of them, within one of the next level.
struct Node {
  Index shape, parent;
  double count;
  Index first, size;  // its elements of the vector of means
};

// What a cluster of one shape looks like where all that are alike in it have their mean.
class Collapsed {
 public:
  Collapsed(const NestedData& data, const std::vector<Matrix>& cov, const Shapes& shapes, Index shape) {
    add(data, shapes, shape, -1, 1);
    std::vector<std::vector<Index>> on(data.nlevels());
    for (Index l = 0; l < data.nlevels(); ++l) on[l] = data.on(l);
    std::vector<Index> variables;
    std::vector<Index> node;
    for (std::size_t k = 0; k < nodes.size(); ++k) {
      const Index level = shapes.all[nodes[k].shape].level;
      for (const Index l : level == 1 ? std::vector<Index>{0, 1} : std::vector<Index>{level}) {
        for (const Index v : on[l]) {
          variables.push_back(v);
          node.push_back(static_cast<Index>(k));
        }
      }
    }
    const Index D = static_cast<Index>(variables.size());
    Matrix out = Matrix::Zero(D, D);
    for (Index a = 0; a < D; ++a) {
      for (Index b = 0; b <= a; ++b) {
        Index i = node[a], j = node[b];
        const Index va = variables[a], vb = variables[b];
        double sum = 0;
        if (i == j && shapes.all[nodes[i].shape].level == 1 && shapes.all[nodes[i].shape].size > 0)
          sum += cov[0](va, vb) / shapes.all[nodes[i].shape].size / above(i);
        // up to the cluster that both are in, and from there what all above it adds
        while (i != j) {
          if (shapes.all[nodes[i].shape].level <= shapes.all[nodes[j].shape].level) {
            i = nodes[i].parent;
          } else {
            j = nodes[j].parent;
          }
        }
        for (; i >= 0; i = nodes[i].parent) sum += cov[shapes.all[nodes[i].shape].level](va, vb) / above(i);
        out(a, b) = out(b, a) = sum;
      }
    }
    root = root_of(out);
  }

  std::vector<Node> nodes;  // the cluster itself first
  Matrix root;

 private:
  void add(const NestedData& data, const Shapes& shapes, Index shape, Index parent, double count) {
    const Shape& own = shapes.all[shape];
    Index size = static_cast<Index>(data.on(own.level).size());
    if (own.level == 1) size += static_cast<Index>(data.on(0).size());
    const Index first = nodes.empty() ? 0 : nodes.back().first + nodes.back().size;
    const Index me = static_cast<Index>(nodes.size());
    nodes.push_back({shape, parent, count, first, size});
    for (const Shape::Group& group : own.groups)
      add(data, shapes, group.shape, me, static_cast<double>(group.members));
  }

  // How many clusters a mean is of.
  double above(Index node) const {
    double out = 1;
    for (; node >= 0; node = nodes[node].parent) out *= nodes[node].count;
    return out;
  }
};

// The data that are made, one highest cluster after the other.
class Drawn {
 public:
  Drawn(const NestedData& data, const Shapes& shapes, const std::vector<Matrix>& cov) : shapes_(shapes) {
    nlevels_ = data.nlevels();
    p_ = static_cast<Index>(data.on(0).size());
    values_.resize(nlevels_);
    parent_.resize(nlevels_ - 1);
    for (std::size_t shape = 0; shape < shapes.all.size(); ++shape)
      collapsed_.emplace_back(data, cov, shapes, static_cast<Index>(shape));
  }

  // All that stands for the clusters of one shape. Of clusters that are alike count their mean, and their
  // differences from it, which are the same in any direction: one contrast between two of them stands for
  // all, and every column of its root is a highest cluster. Means are at the corners of a simplex, whose mean
  // is that of the distribution.
  void add_shape(Index top, double count) {
    first_ = contrasts(top);
    const Index D = collapsed_[top].root.rows();
    draws_ = static_cast<double>(D + 1 + first_);
    const Matrix corners =
        std::sqrt(draws_ / static_cast<double>(D + 1)) * product(collapsed_[top].root, simplex(D));
    for (Index d = 0; d <= D; ++d) add(top, count, {{{}, 1.0, top, corners.col(d)}});
    std::vector<Index> path;
    add_contrasts(top, top, count, std::sqrt(draws_), path);
  }

  NestedData data(const NestedData& like) const {
    NestedData out;
    out.levels = like.levels;
    out.measured = like.measured;
    out.given = like.given;
    out.sizes = vector_of(sizes_);
    for (const std::vector<Vector>& columns : values_) {
      Matrix all(columns.empty() ? 0 : columns[0].size(), static_cast<Index>(columns.size()));
      for (std::size_t j = 0; j < columns.size(); ++j) all.col(static_cast<Index>(j)) = columns[j];
      Pattern every(all.rows());
      for (Index i = 0; i < all.rows(); ++i) every[i] = i;
      out.patterns.push_back({std::move(every)});
      out.pattern.emplace_back(all.cols(), 0);
      out.values.push_back(std::move(all));
    }
    out.parent = parent_;
    out.multiple = {vector_of(multiple_)};
    for (Index l = 1; l + 1 < nlevels_; ++l) out.multiple.push_back(Vector::Ones(out.values[l].cols()));
    out.design.resize(nlevels_);
    out.weight = vector_of(weight_);
    out.beyond = Vector::Zero(out.weight.size());
    return out;
  }

  // Degrees of freedom of the units within their clusters, in each highest cluster.
  const std::vector<double>& inner() const { return inner_; }

 private:
  // Values of the clusters below one of them, which `path` leads to, as a mean of a shape; times a sign.
  struct Part {
    std::vector<Index> path;
    double times;
    Index shape;
    Vector means;
  };

  static Vector vector_of(const std::vector<double>& x) {
    return Eigen::Map<const Vector>(x.data(), static_cast<Index>(x.size()));
  }

  // Clusters that contrasts of a shape and of those in it take.
  Index contrasts(Index shape) const {
    Index out = 0;
    for (const Shape::Group& group : shapes_.all[shape].groups) {
      if (group.members > 1) out += collapsed_[group.shape].root.cols();
      out += contrasts(group.shape);
    }
    return out;
  }

  // `path` are the places of clusters below the highest, each among those in the one before.
  void add_contrasts(Index top, Index shape, double count, double times, std::vector<Index>& path) {
    Index place = 0;
    for (const Shape::Group& group : shapes_.all[shape].groups) {
      const double m = static_cast<double>(group.members);
      path.push_back(place);
      if (group.members > 1) {
        std::vector<Index> other = path;
        ++other.back();
        const Matrix columns = std::sqrt(0.5 * (m - 1)) * times * collapsed_[group.shape].root;
        for (Index i = 0; i < columns.cols(); ++i)
          add(top, count,
              {{path, 1.0, group.shape, columns.col(i)}, {other, -1.0, group.shape, columns.col(i)}});
      }
      add_contrasts(top, group.shape, count, std::sqrt(m) * times, path);
      path.pop_back();
      place += group.members;
    }
  }

  void add(Index top, double count, const std::vector<Part>& parts) {
    inner_.push_back(0);
    weight_.push_back(count / draws_);
    std::vector<Index> path;
    add_cluster(top, -1, path, parts, nullptr, 0);
  }

  // A cluster and all below it; `of` is the part that has its values, at this node.
  void add_cluster(Index shape, Index parent, std::vector<Index>& path, const std::vector<Part>& parts,
                   const Part* of, Index node) {
    const Shape& own = shapes_.all[shape];
    if (of == nullptr) {
      for (const Part& part : parts) {
        if (part.path == path) of = &part, node = 0;
      }
    }
    const Node& mean = collapsed_[of != nullptr ? of->shape : shape].nodes[of != nullptr ? node : 0];
    const Vector values = of != nullptr ? Vector(of->times * of->means.segment(mean.first, mean.size))
                                        : Vector::Zero(mean.size);
    const Index me = static_cast<Index>(values_[own.level].size());
    if (parent >= 0) parent_[own.level].push_back(parent);
    if (own.level == 1) {
      sizes_.push_back(own.size);
      inner_.back() += std::max(0.0, own.size - 1);
      if (own.size > 0) {
        parent_[0].push_back(me);
        values_[0].push_back(values.head(p_));
        multiple_.push_back(own.size);
      }
      values_[1].push_back(values.tail(mean.size - p_));
      return;
    }
    values_[own.level].push_back(values);
    Index place = 0, below = node + 1;
    for (const Shape::Group& group : own.groups) {
      for (Index i = 0; i < group.members; ++i) {
        path.push_back(place++);
        add_cluster(group.shape, me, path, parts, of, below);
        path.pop_back();
      }
      below += static_cast<Index>(collapsed_[group.shape].nodes.size());
    }
  }

  const Shapes& shapes_;
  std::vector<Collapsed> collapsed_;
  Index nlevels_ = 0, p_ = 0, first_ = 0;
  double draws_ = 0;
  std::vector<std::vector<Vector>> values_;
  std::vector<std::vector<Index>> parent_;
  std::vector<double> sizes_, multiple_, weight_, inner_;
};

}  // namespace

NestedData expected_nested(const NestedData& data, const std::vector<std::pair<Vector, Matrix>>& moments,
                           const Vector& sizes) {
  const std::size_t nlevels = data.levels.size();
  if (nlevels < 3 || moments.size() != nlevels || sizes.size() != data.values[1].cols())
    throw std::invalid_argument("expected statistics need moments of every level");
  const Index n = data.nvariables(), p = static_cast<Index>(data.on(0).size());
  std::vector<Matrix> cov(nlevels, Matrix::Zero(n, n));
  Vector origin = Vector::Zero(n);
  for (std::size_t l = 0; l < nlevels; ++l) {
    put(cov[l], data.levels[l], data.levels[l], moments[l].second);
    for (std::size_t i = 0; i < data.levels[l].size(); ++i)
      origin[data.levels[l][i]] += moments[l].first[static_cast<Index>(i)];
  }
  const Shapes shapes = shapes_of(data, sizes);
  Drawn drawn(data, shapes, cov);
  for (const auto& [shape, count] : shapes.highest) {
    if (count != 0) drawn.add_shape(shape, count);
  }
  NestedData out = drawn.data(data);
  out.origin = std::move(origin);
  const Index made = out.weight.size();
  out.products.resize(made, p * (p + 1) / 2);
  for (Index k = 0; k < made; ++k) {
    Index at = 0;
    for (Index j = 0; j < p; ++j) {
      for (Index i = j; i < p; ++i) out.products(k, at++) = drawn.inner()[k] * cov[0](i, j);
    }
    out.product_top.push_back(k);
  }
  out.product_pattern.assign(made, 0);
  return out;
}

}  // namespace msem
