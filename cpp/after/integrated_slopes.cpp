#include "after/integrated_slopes.hpp"

#include <cmath>
#include <numeric>
#include <stdexcept>

#include "base/interrupt.hpp"
#include "base/threads.hpp"
#include "draws/normals.hpp"
#include "likelihood/slopes/density.hpp"

namespace msem {

namespace {

constexpr Index kScorePieces = 32;  // of clusters, at most
constexpr int kChain = 60;          // proposals of slopes
constexpr double kDegrees = 4;      // of freedom, of their distribution

std::vector<Index> range(Index first, Index last) {
  std::vector<Index> out(last - first);
  std::iota(out.begin(), out.end(), first);
  return out;
}

// Mean and covariance matrix of a mixture, about a centre near the mean.
class Mixture {
 public:
  explicit Mixture(Index d) : centre_(d), off_(d), mean_(d), cov_(d, d) {}
  void clear() {
    total_ = 0;
    mean_.setZero();
    cov_.setZero();
  }
  void add(double weight, const Vector& mean, const Matrix& cov) {
    if (total_ == 0) centre_ = mean;
    off_ = mean - centre_;
    total_ += weight;
    mean_ += weight * off_;
    cov_ += weight * cov;
    add_outer(cov_, weight, off_, off_);
  }
  void write(double* mean, double* cov) const {
    const Index d = mean_.size();
    for (Index i = 0; i < d; ++i) mean[i] = centre_[i] + mean_[i] / total_;
    for (Index j = 0; j < d; ++j) {
      for (Index i = 0; i < d; ++i)
        cov[j * d + i] = cov_(i, j) / total_ - mean_[i] / total_ * (mean_[j] / total_);
    }
  }

 private:
  double total_ = 0;
  Vector centre_, off_, mean_;
  Matrix cov_;
};

}  // namespace

IntegratedSlopes::IntegratedSlopes(std::shared_ptr<const SlopeClusterData> data, Implied levels)
    : data_(std::move(data)), over_(integration(*data_)) {
  const Index n = over_.shape.p, r = data_->nboth + data_->q + data_->nslopes();
  if (levels.size() != 2 || levels[0].mean.size() < n || levels[1].mean.size() < r)
    throw std::invalid_argument("the data and the moments of the model do not fit together");
  moments_ = {std::move(levels[0].mean), std::move(levels[1].mean), std::move(levels[0].cov),
              std::move(levels[1].cov)};
  const Moments observed{moments_.mean_w.head(n), moments_.mean_b.head(r), moments_.cov_w.topLeftCorner(n, n),
                         moments_.cov_b.topLeftCorner(r, r)};
  if (!point_.prepare(*data_, over_, observed))
    throw std::domain_error("the moments are not those of a distribution");
}

// Given the slopes and the cluster variables the others are normal; the units say what they do about the
// parts of variables of level 1.
struct IntegratedSlopes::Between {
  explicit Between(const IntegratedSlopes& of)
      : data(*of.data_),
        given(range(data.nboth, data.nboth + data.q + data.nslopes())),
        own(range(0, data.nboth)) {
    for (Index k = data.nboth + data.q; k < of.moments_.mean_b.size(); ++k) own.push_back(k);
    Cholesky chol;
    if (!chol.compute(select(of.moments_.cov_b, given, given)))
      throw std::domain_error("the covariance matrix of slopes and cluster variables is singular");
    const Matrix joint = select(of.moments_.cov_b, given, own);
    paths = chol.solve(joint).transpose();
    left = select(of.moments_.cov_b, own, own) - product(paths, joint);
    symmetrise(left);
    for (Index k = data.nboth; k < data.nboth + data.nslopes(); ++k) {  // slopes are what they are
      left.row(k).setZero();
      left.col(k).setZero();
      paths.row(k).setZero();
      paths(k, data.q + k - data.nboth) = 1;
    }
    mean = select(of.moments_.mean_b, own);
    centre = select(of.moments_.mean_b, given);
    reach = left.leftCols(data.nboth);
  }
  Index size() const { return static_cast<Index>(own.size()); }

  // At the slopes that the density was asked for last.
  void at(Index cluster, const double* s, SlopeDensity& density, Vector& expected, Matrix& cov) const {
    const Index q = data.q;
    Vector known(q + data.nslopes());
    known.head(q) = data.cluster_values.col(cluster);
    for (Index k = 0; k < data.nslopes(); ++k) known[q + k] = s[k];
    known -= centre;
    expected = mean;
    add_applied(expected, 1, paths, known);
    add_applied(expected, 1, reach, density.score());
    cov = left;
    add_outer(cov, -1, product(reach, density.information()), reach);
  }

  const SlopeClusterData& data;
  std::vector<Index> given, own;
  Matrix paths, left, reach;
  Vector mean, centre;
};

IntegratedSlopes::ClusterScores IntegratedSlopes::clusters() const {
  const Between between(*this);
  const Index d = between.size(), J = data_->nclusters();
  ClusterScores out{Matrix(d, J), Matrix(d * d, J)};
  const Index pieces = std::min(kScorePieces, J);
  in_threads(pieces, 0, [&](std::ptrdiff_t piece) {
    SlopeDensity density(point_);
    Mixture mixture(d);
    Vector expected(d);
    Matrix cov(d, d);
    for (Index j = J * piece / pieces; j < J * (piece + 1) / pieces; ++j) {
      check_interrupt();
      mixture.clear();
      point_.at_nodes(j, density, [&](const double* s, double weight) {
        between.at(j, s, density, expected, cov);
        mixture.add(weight, expected, cov);
      });
      mixture.write(out.mean.col(j).data(), out.cov.col(j).data());
    }
  });
  return out;
}

struct IntegratedSlopes::Within {
  Within(const IntegratedSlopes& of, const ClusteredRows& rows_)
      : data(*of.data_),
        rows(rows_),
        p(data.p),
        b(data.nboth),
        n(of.moments_.mean_w.size() - data.nslopes()),
        patterns(row_patterns(rows.unit, rows.nrows)),
        of_cluster(data.nclusters()) {
    const Index l = p + data.latent, m = data.nslopes(), J = data.nclusters();
    if (static_cast<Index>(rows.unit.size()) != p || rows.nclusters != J)
      throw std::invalid_argument("the rows and the moments of the model do not fit together");
    // all variables of level 1 but products; covariates of slopes are among the first l
    std::vector<Index> own = range(0, l);
    for (Index k = l + m; k < of.moments_.mean_w.size(); ++k) own.push_back(k);
    lambda = select(of.moments_.cov_w, own, range(l, l + m));
    sigma = select(of.moments_.cov_w, own, own);
    add_outer(sigma, -1, lambda, lambda);
    mu = select(of.moments_.mean_w, own);
    for (std::ptrdiff_t i = 0; i < rows.nrows; ++i) {
      if (rows.codes[i] < 0 || rows.codes[i] >= J)
        throw std::invalid_argument("a cluster code is out of range");
      of_cluster[rows.codes[i]].push_back(static_cast<Index>(i));
    }
  }
  Index size() const { return n - p; }
  std::size_t pattern(Index unit) const {
    const std::int32_t own = patterns.of_row[unit];
    return own < 0 ? patterns.patterns.size() : static_cast<std::size_t>(own);
  }

  const SlopeClusterData& data;
  const ClusteredRows& rows;
  Index p, b, n;
  RowPatterns patterns;
  std::vector<std::vector<Index>> of_cluster;
  Matrix lambda, sigma;
  Vector mu;

  // At some slopes: of units given the parts of level 2, by pattern, made when it is asked for.
  struct Given {
    explicit Given(const Within& of)
        : within(of),
          map(of.lambda, of.data.covariate),
          half(of.n, of.n),
          whole(of.n, of.n),
          mean(of.n),
          gains(of.patterns.patterns.size() + 1),
          left(gains.size()),
          off(of.p) {}
    void at(const double* s) {
      map.set(s);
      set_product(half, map.map(), within.sigma);
      whole.setZero();
      add_outer(whole, 1, half, map.map());
      mean.setZero();
      add_applied(mean, 1, map.map(), within.mu);
      for (Matrix& gain : gains) gain.resize(0, 0);
    }
    // False where the observed variables have no distribution; `fresh` says whether it is made now.
    bool has(std::size_t number, bool& fresh) {
      const Index p = within.p, d = within.size();
      fresh = !gains[number].size();
      if (!fresh) return true;
      const Pattern seen =
          number < within.patterns.patterns.size() ? within.patterns.patterns[number] : Pattern();
      gains[number] = Matrix::Zero(d, p);
      left[number] = whole.bottomRightCorner(d, d);
      if (seen.empty()) return true;
      Cholesky chol;
      if (!chol.compute(select(whole, seen, seen))) return false;
      const Matrix joint = select(whole, seen, range(p, within.n)), solved = chol.solve(joint);
      for (std::size_t a = 0; a < seen.size(); ++a)
        gains[number].col(seen[a]) = solved.row(static_cast<Index>(a));
      add_cross(left[number], -1, joint, solved);
      return true;
    }
    // The expectation of a unit; `part` those of level 2.
    template <class Part>
    void expect(Index unit, std::size_t number, const Part& part, Vector& out) {
      for (Index v = 0; v < within.p; ++v) {
        const double y = within.rows.unit[v][unit];
        off[v] = std::isnan(y) ? 0.0 : y - mean[v] - (v < within.b ? part(v) : 0.0);
      }
      out = mean.tail(within.size());
      add_applied(out, 1, gains[number], off);
    }

    const Within& within;
    SlopeMap map;
    Matrix half, whole;
    Vector mean;
    std::vector<Matrix> gains, left;
    Vector off;
  };
};

IntegratedSlopes::UnitScores IntegratedSlopes::units(const ClusteredRows& rows) const {
  const Within within(*this, rows);
  const Index d = within.size(), b = within.b, J = data_->nclusters();
  const Matrix& c = point_.integrand().between.cov;
  UnitScores out{RowMatrix(rows.nrows, d), Matrix(d * d, rows.nrows)};
  const Index pieces = std::min(kScorePieces, J);
  in_threads(pieces, 0, [&](std::ptrdiff_t piece) {
    SlopeDensity density(point_);
    Within::Given given(within);
    std::vector<Mixture> mixtures;
    Vector score(d);
    Matrix between(b, b);
    for (Index j = J * piece / pieces; j < J * (piece + 1) / pieces; ++j) {
      check_interrupt();
      const std::vector<Index>& units = within.of_cluster[j];
      mixtures.resize(std::max(mixtures.size(), units.size()), Mixture(d));
      for (std::size_t k = 0; k < units.size(); ++k) mixtures[k].clear();
      point_.at_nodes(j, density, [&](const double* s, double weight) {
        given.at(s);
        between = c - outer_sandwich(c, density.information());
        for (std::size_t k = 0; k < units.size(); ++k) {
          const std::size_t at = within.pattern(units[k]);
          bool fresh = false;
          if (!given.has(at, fresh)) return;
          if (fresh) given.left[at] += outer_sandwich(given.gains[at].leftCols(b), between);
          given.expect(units[k], at, [&](Index v) { return density.part(v); }, score);
          mixtures[k].add(weight, score, given.left[at]);
        }
      });
      for (std::size_t k = 0; k < units.size(); ++k) {
        Vector found(d);
        mixtures[k].write(found.data(), out.cov.col(units[k]).data());
        out.mean.row(units[k]) = found;
      }
    }
  });
  return out;
}

void IntegratedSlopes::draw_slopes(Index j, SlopeDensity& density, RandomStream& random, Vector& s) const {
  const Index m = data_->nslopes();
  std::vector<std::pair<Vector, double>> nodes;
  double total = 0;
  Vector centre = Vector::Zero(m);
  point_.at_nodes(j, density, [&](const double* at, double weight) {
    nodes.emplace_back(Eigen::Map<const Vector>(at, m), weight);
    total += weight;
    centre += weight * nodes.back().first;
  });
  centre /= total;
  Matrix spread = Matrix::Zero(m, m);
  for (const auto& [at, weight] : nodes) {
    const Vector off = at - centre;
    add_outer(spread, weight / total, off, off);
  }
  double left = total * random.uniform();
  s = nodes.back().first;
  for (const auto& [at, weight] : nodes) {
    left -= weight;
    if (left > 0) continue;
    s = at;
    break;
  }
  Cholesky chol;
  if (!chol.compute(spread)) return;  // a slope that does not vary
  const Matrix lower = chol.lower();
  // minus twice the logarithm of target over proposal
  const auto ratio = [&](const Vector& at) {
    const double distance = chol.whiten(Matrix(at - centre)).squaredNorm();
    return density.value(j, at.data()) -
           (kDegrees + static_cast<double>(m)) * std::log1p(distance / kDegrees);
  };
  double here = ratio(s);
  Vector next(m);
  for (int k = 0; k < kChain; ++k) {
    next = centre;
    const double scale = std::sqrt(kDegrees / random.chi_square(kDegrees));
    add_applied(next, scale, lower, normals(m, 1, random).col(0));
    const double there = ratio(next);
    if (std::log(random.uniform()) >= 0.5 * (here - there)) continue;
    here = there;
    s = next;
  }
}

IntegratedSlopes::Draw IntegratedSlopes::draw(const ClusteredRows& rows, std::uint64_t seed) const {
  const Between between(*this);
  const Within within(*this, rows);
  const Index b = data_->nboth, J = data_->nclusters();
  Draw out{Matrix(between.size(), J), RowMatrix(rows.nrows, within.size())};
  const Index pieces = std::min(kScorePieces, J);
  in_threads(pieces, 0, [&](std::ptrdiff_t piece) {
    SlopeDensity density(point_);
    Within::Given given(within);
    std::vector<Matrix> roots(given.gains.size());
    Vector s, parts, unit;
    Matrix cov;
    for (Index j = J * piece / pieces; j < J * (piece + 1) / pieces; ++j) {
      check_interrupt();
      RandomStream random(seed, static_cast<std::uint64_t>(j), 0);
      draw_slopes(j, density, random, s);
      density.value(j, s.data());
      between.at(j, s.data(), density, parts, cov);
      add_applied(parts, 1, semidefinite_root(cov), normals(between.size(), 1, random).col(0));
      out.clusters.col(j) = parts;
      given.at(s.data());
      for (const Index i : within.of_cluster[j]) {
        const std::size_t at = within.pattern(i);
        bool fresh = false;
        if (!given.has(at, fresh)) throw std::domain_error("the moments are not those of a distribution");
        if (fresh) roots[at] = semidefinite_root(given.left[at]);
        given.expect(i, at, [&](Index v) { return v < b ? parts[v] : 0.0; }, unit);
        add_applied(unit, 1, roots[at], normals(within.size(), 1, random).col(0));
        out.units.row(i) = unit;
      }
    }
  });
  return out;
}

}  // namespace msem
