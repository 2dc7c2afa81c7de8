#include "likelihood/crossed/system.hpp"

#include <Eigen/OrderingMethods>
#include <Eigen/SparseCore>
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/interrupt.hpp"

namespace msem {

namespace {

constexpr double kSmall = 1200;     // rows of a matrix that is dense in any case
constexpr double kLargest = 12000;  // rows of a dense matrix
constexpr double kBytes = 4e9;      // of a sparse factor and its inverse
constexpr double kOperations = 3e10;
constexpr double kSlower = 12;  // how much longer an operation takes in a sparse matrix

// Neighbours of each node, without itself; nothing where there are more than `most`.
std::vector<std::vector<Index>> neighbours(Index nodes, const std::vector<Index>& begin,
                                           const std::vector<Index>& column, double most) {
  std::vector<std::vector<Index>> rows(nodes), out(nodes);
  const Index count = static_cast<Index>(begin.size()) - 1;
  for (Index g = 0; g < count; ++g) {
    for (Index k = begin[g]; k < begin[g + 1]; ++k) rows[column[k]].push_back(g);
  }
  std::vector<Index> seen(nodes, -1);
  double edges = 0;
  for (Index h = 0; h < nodes; ++h) {
    if (h % 256 == 0) check_interrupt();
    seen[h] = h;
    for (const Index g : rows[h]) {
      for (Index k = begin[g]; k < begin[g + 1]; ++k) {
        if (seen[column[k]] == h) continue;
        seen[column[k]] = h;
        out[h].push_back(column[k]);
      }
    }
    edges += static_cast<double>(out[h].size());
    if (edges > most) return {};
  }
  return out;
}

std::vector<Index> minimum_degree(const std::vector<std::vector<Index>>& near) {
  const int n = static_cast<int>(near.size());
  std::vector<Eigen::Triplet<double, int>> entries;
  for (int h = 0; h < n; ++h) {
    entries.emplace_back(h, h, 1.0);
    for (const Index other : near[h]) entries.emplace_back(static_cast<int>(other), h, 1.0);
  }
  Eigen::SparseMatrix<double, Eigen::ColMajor, int> pattern(n, n);
  pattern.setFromTriplets(entries.begin(), entries.end());
  Eigen::PermutationMatrix<Eigen::Dynamic, Eigen::Dynamic, int> found;
  Eigen::AMDOrdering<int>()(pattern, found);
  return {found.indices().data(), found.indices().data() + n};
}

// x -= a b' for blocks of `w` rows and columns.
void subtract_outer(double* x, const double* a, const double* b, Index w) {
  for (Index s = 0; s < w; ++s) {
    for (Index c = 0; c < w; ++c) {
      const double factor = b[s * w + c];
      for (Index r = 0; r < w; ++r) x[c * w + r] -= a[s * w + r] * factor;
    }
  }
}

// x -= a b
void subtract_product(double* x, const double* a, const double* b, Index w) {
  for (Index c = 0; c < w; ++c) {
    for (Index s = 0; s < w; ++s) {
      const double factor = b[c * w + s];
      for (Index r = 0; r < w; ++r) x[c * w + r] -= a[s * w + r] * factor;
    }
  }
}

// x -= a' b
void subtract_cross(double* x, const double* a, const double* b, Index w) {
  for (Index c = 0; c < w; ++c) {
    for (Index r = 0; r < w; ++r) {
      double sum = 0;
      for (Index s = 0; s < w; ++s) sum += a[r * w + s] * b[c * w + s];
      x[c * w + r] -= sum;
    }
  }
}

// The lower Cholesky factor of a block in its place; false unless it is positive definite.
bool factor_block(double* x, Index w, double& log_det) {
  for (Index j = 0; j < w; ++j) {
    double pivot = x[j * w + j];
    for (Index s = 0; s < j; ++s) pivot -= x[s * w + j] * x[s * w + j];
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    pivot = std::sqrt(pivot);
    log_det += 2 * std::log(pivot);
    x[j * w + j] = pivot;
    for (Index i = j + 1; i < w; ++i) {
      double sum = x[j * w + i];
      for (Index s = 0; s < j; ++s) sum -= x[s * w + i] * x[s * w + j];
      x[j * w + i] = sum / pivot;
    }
    for (Index i = 0; i < j; ++i) x[j * w + i] = 0;
  }
  return true;
}

// x <- x L^-T
void divide_by_transpose(double* x, const double* l, Index w) {
  for (Index j = 0; j < w; ++j) {
    for (Index s = 0; s < j; ++s) {
      for (Index r = 0; r < w; ++r) x[j * w + r] -= x[s * w + r] * l[s * w + j];
    }
    for (Index r = 0; r < w; ++r) x[j * w + r] /= l[j * w + j];
  }
}

// x <- x L^-1
void divide_by(double* x, const double* l, Index w) {
  for (Index j = w - 1; j >= 0; --j) {
    for (Index s = j + 1; s < w; ++s) {
      for (Index r = 0; r < w; ++r) x[j * w + r] -= x[s * w + r] * l[j * w + s];
    }
    for (Index r = 0; r < w; ++r) x[j * w + r] /= l[j * w + j];
  }
}

}  // namespace

CrossedGraph::CrossedGraph(Index nodes_, Index width_, const std::vector<Index>& begin_,
                           const std::vector<Index>& column, bool sparse)
    : nodes(nodes_), width(width_) {
  const double n = static_cast<double>(nodes * width), w = static_cast<double>(width);
  bytes = 3 * 8 * n * n;
  operations = n * n * n / 3;
  if (!nodes || (n <= kSmall && !sparse)) return;
  // where a tenth of all pairs are joined the factor is as good as dense
  const double all = static_cast<double>(nodes) * static_cast<double>(nodes);
  const auto near = neighbours(nodes, begin_, column, sparse ? kBytes : std::min(0.1 * all, kBytes / 16));
  if (near.empty()) return;
  node = minimum_degree(near);
  place.resize(nodes);
  for (Index k = 0; k < nodes; ++k) place[node[k]] = k;
  std::vector<std::vector<Index>> children(nodes);
  std::vector<Index> seen(nodes, -1), found;
  begin.assign(1, 0);
  double work = 0, blocks = static_cast<double>(nodes);
  const double dense_operations = operations;
  for (Index k = 0; k < nodes; ++k) {
    if (k % 256 == 0) check_interrupt();
    found.clear();
    seen[k] = k;
    const auto take = [&](Index at) {
      if (at <= k || seen[at] == k) return;
      seen[at] = k;
      found.push_back(at);
    };
    for (const Index other : near[node[k]]) take(place[other]);
    for (const Index child : children[k]) {
      for (Index i = begin[child]; i < begin[child + 1]; ++i) take(row[i]);
    }
    std::sort(found.begin(), found.end());
    if (!found.empty()) children[found[0]].push_back(k);
    row.insert(row.end(), found.begin(), found.end());
    begin.push_back(static_cast<Index>(row.size()));
    const double own = static_cast<double>(found.size());
    work += (own + 1) * (own + 1);
    blocks += own;
    if (blocks * (16 * w * w + 24) > kBytes || work * w * w * w > kOperations) break;
  }
  const bool whole = static_cast<Index>(begin.size()) == nodes + 1;
  const double sparse_operations = work * w * w * w;
  if (!sparse && n <= kLargest && (!whole || kSlower * sparse_operations > dense_operations)) {
    place.clear();
    node.clear();
    row.clear();
    begin.clear();
    return;
  }
  dense = false;
  bytes = blocks * (16 * w * w + 24);
  operations = whole ? sparse_operations : std::numeric_limits<double>::infinity();
  if (!whole) bytes = 3 * 8 * n * n;
  if (!possible()) return;
  std::vector<Index> count(nodes, 0);
  for (const Index i : row) ++count[i];
  use_begin.assign(nodes + 1, 0);
  for (Index k = 0; k < nodes; ++k) use_begin[k + 1] = use_begin[k] + count[k];
  uses.resize(row.size());
  std::vector<Index> next(use_begin.begin(), use_begin.end() - 1);
  for (Index k = 0; k < nodes; ++k) {
    for (Index i = begin[k]; i < begin[k + 1]; ++i) uses[next[row[i]]++] = {k, i};
  }
}

bool CrossedGraph::possible() const {
  if (dense) return static_cast<double>(nodes * width) <= kLargest;
  return bytes <= kBytes && operations <= kOperations;
}

Index CrossedGraph::find(Index column, Index row_place) const {
  const auto first = row.begin() + begin[column], last = row.begin() + begin[column + 1];
  const auto at = std::lower_bound(first, last, row_place);
  return at != last && *at == row_place ? static_cast<Index>(at - row.begin()) : -1;
}

void CrossedSystem::reset(const CrossedGraph& graph) {
  graph_ = &graph;
  width_ = graph.width;
  const Index n = graph.nodes * width_;
  if (graph.dense) {
    dense_ = Matrix::Zero(n, n);
    return;
  }
  diagonal_.assign(graph.nodes * width_ * width_, 0.0);
  values_.assign(graph.row.size() * width_ * width_, 0.0);
}

void CrossedSystem::subtract(const Index* nodes, Index count, ConstMatrixRef blocks) {
  const Index w = width_;
  if (graph_->dense) {
    for (Index k = 0; k < count * w; ++k) {
      double* column = dense_.data() + (nodes[k / w] * w + k % w) * dense_.rows();
      const double* from = blocks.data() + k * blocks.outerStride();
      for (Index l = k / w; l < count; ++l) {
        double* x = column + nodes[l] * w;
        for (Index r = 0; r < w; ++r) x[r] -= from[l * w + r];
      }
    }
    return;
  }
  for (Index k = 0; k < count; ++k) {
    for (Index l = k; l < count; ++l) {  // row l, column k
      const Index a = graph_->place[nodes[k]], b = graph_->place[nodes[l]];
      double* x = a == b ? diagonal_.data() + a * w * w : block(graph_->find(std::min(a, b), std::max(a, b)));
      for (Index c = 0; c < w; ++c) {
        for (Index r = 0; r < w; ++r)
          x[c * w + r] -= a <= b ? blocks(l * w + r, k * w + c) : blocks(l * w + c, k * w + r);
      }
    }
  }
}

void CrossedSystem::add_diagonal(Index node, ConstMatrixRef block) {
  const Index w = width_;
  if (graph_->dense) {
    dense_.block(node * w, node * w, w, w) += block;
    return;
  }
  double* x = diagonal_.data() + graph_->place[node] * w * w;
  for (Index c = 0; c < w; ++c) {
    for (Index r = 0; r < w; ++r) x[c * w + r] += block(r, c);
  }
}

bool CrossedSystem::factor() {
  log_det_ = 0;
  if (!graph_->dense) return factor_sparse();
  if (!dense_.rows()) return true;
  const bool ok = cholesky_.compute(dense_);
  dense_.resize(0, 0);
  log_det_ = cholesky_.log_det();
  return ok;
}

// By columns: what earlier ones take off is collected for one of them.
bool CrossedSystem::factor_sparse() {
  const Index w = width_, w2 = w * w;
  const std::vector<Index>&begin = graph_->begin, &row = graph_->row;
  std::vector<Index> at(graph_->nodes, -1);
  for (Index k = 0; k < graph_->nodes; ++k) {
    if (k % 256 == 0) check_interrupt();
    for (Index i = begin[k]; i < begin[k + 1]; ++i) at[row[i]] = i;
    double* own = diagonal_.data() + k * w2;
    for (Index u = graph_->use_begin[k]; u < graph_->use_begin[k + 1]; ++u) {
      const auto [column, first] = graph_->uses[u];
      const double* factor = block(first);
      subtract_outer(own, factor, factor, w);
      for (Index i = first + 1; i < begin[column + 1]; ++i)
        subtract_outer(block(at[row[i]]), block(i), factor, w);
    }
    if (!factor_block(own, w, log_det_)) return false;
    for (Index i = begin[k]; i < begin[k + 1]; ++i) divide_by_transpose(block(i), own, w);
  }
  return true;
}

Matrix CrossedSystem::solve(Matrix right) const {
  if (!right.rows()) return right;
  if (graph_->dense) return cholesky_.solve(std::move(right));
  const Index w = width_, w2 = w * w;
  const std::vector<Index>&begin = graph_->begin, &row = graph_->row;
  std::vector<double> x(right.rows());
  for (Index c = 0; c < right.cols(); ++c) {
    for (Index k = 0; k < graph_->nodes; ++k) {
      for (Index r = 0; r < w; ++r) x[k * w + r] = right(graph_->node[k] * w + r, c);
    }
    for (Index k = 0; k < graph_->nodes; ++k) {
      const double* l = diagonal_.data() + k * w2;
      double* own = x.data() + k * w;
      for (Index r = 0; r < w; ++r) {
        for (Index s = 0; s < r; ++s) own[r] -= l[s * w + r] * own[s];
        own[r] /= l[r * w + r];
      }
      for (Index i = begin[k]; i < begin[k + 1]; ++i) {
        const double* b = block(i);
        double* other = x.data() + row[i] * w;
        for (Index s = 0; s < w; ++s) {
          for (Index r = 0; r < w; ++r) other[r] -= b[s * w + r] * own[s];
        }
      }
    }
    for (Index k = graph_->nodes - 1; k >= 0; --k) {
      const double* l = diagonal_.data() + k * w2;
      double* own = x.data() + k * w;
      for (Index i = begin[k]; i < begin[k + 1]; ++i) {
        const double *b = block(i), *other = x.data() + row[i] * w;
        for (Index s = 0; s < w; ++s) {
          for (Index r = 0; r < w; ++r) own[s] -= b[s * w + r] * other[r];
        }
      }
      for (Index r = w - 1; r >= 0; --r) {
        for (Index s = r + 1; s < w; ++s) own[r] -= l[r * w + s] * own[s];
        own[r] /= l[r * w + r];
      }
    }
    for (Index k = 0; k < graph_->nodes; ++k) {
      for (Index r = 0; r < w; ++r) right(graph_->node[k] * w + r, c) = x[k * w + r];
    }
  }
  return right;
}

void CrossedSystem::invert() {
  if (!graph_->dense) {
    invert_sparse();
  } else if (graph_->nodes * width_ > 0) {
    dense_ = cholesky_.inverse(0);
  }
}

// With Y = L_k^-1 times the column below the diagonal, Z its inverse: Z_ik = -sum_j Z_ij Y_jk,
// Z_kk = (L_k L_k')^-1 - sum_j Y_jk'Z_jk, from the last column to the first.
void CrossedSystem::invert_sparse() {
  const Index w = width_, w2 = w * w;
  const std::vector<Index>&begin = graph_->begin, &row = graph_->row;
  inverse_diagonal_.assign(diagonal_.size(), 0.0);
  inverse_values_.assign(values_.size(), 0.0);
  std::vector<Index> at(graph_->nodes, -1);
  std::vector<double> y;
  std::vector<double> transposed(w2);
  for (Index k = graph_->nodes - 1; k >= 0; --k) {
    if (k % 256 == 0) check_interrupt();
    const double* l = diagonal_.data() + k * w2;
    const Index first = begin[k], count = begin[k + 1] - first;
    y.assign(values_.begin() + first * w2, values_.begin() + (first + count) * w2);
    for (Index i = 0; i < count; ++i) {
      divide_by(y.data() + i * w2, l, w);
      at[row[first + i]] = i;
    }
    double* z = inverse_values_.data() + first * w2;
    for (Index j = 0; j < count; ++j) {
      const Index place = row[first + j];
      const double* yj = y.data() + j * w2;
      subtract_product(z + j * w2, inverse_diagonal_.data() + place * w2, yj, w);
      for (Index i = begin[place]; i < begin[place + 1]; ++i) {
        const Index other = at[row[i]];
        if (other < 0) continue;
        const double* both = inverse_values_.data() + i * w2;
        subtract_product(z + other * w2, both, yj, w);
        subtract_cross(z + j * w2, both, y.data() + other * w2, w);
      }
    }
    double* own = inverse_diagonal_.data() + k * w2;
    for (Index r = 0; r < w; ++r) own[r * w + r] = 1;
    divide_by(own, l, w);  // L^-1
    transposed.assign(own, own + w2);
    std::fill(own, own + w2, 0.0);
    subtract_cross(own, transposed.data(), transposed.data(), w);
    for (Index i = 0; i < w2; ++i) own[i] = -own[i];
    for (Index j = 0; j < count; ++j) subtract_cross(own, y.data() + j * w2, z + j * w2, w);
    for (Index i = 0; i < count; ++i) at[row[first + i]] = -1;
  }
}

void CrossedSystem::gather(const Index* nodes, Index count, MatrixRef out) const {
  const Index w = width_;
  if (graph_->dense) {
    for (Index k = 0; k < count * w; ++k) {
      const double* column = dense_.data() + (nodes[k / w] * w + k % w) * dense_.rows();
      double* to = out.data() + k * out.outerStride();
      for (Index l = 0; l < count; ++l) {
        const double* x = column + nodes[l] * w;
        for (Index r = 0; r < w; ++r) to[l * w + r] = x[r];
      }
    }
    return;
  }
  for (Index k = 0; k < count; ++k) {
    for (Index l = 0; l < count; ++l) {
      const Index a = graph_->place[nodes[k]], b = graph_->place[nodes[l]];
      const double* x = a == b
                            ? inverse_diagonal_.data() + a * w * w
                            : inverse_values_.data() + graph_->find(std::min(a, b), std::max(a, b)) * w * w;
      for (Index c = 0; c < w; ++c) {
        for (Index r = 0; r < w; ++r) out(l * w + r, k * w + c) = a <= b ? x[c * w + r] : x[r * w + c];
      }
    }
  }
}

}  // namespace msem
