#include "likelihood/integrals/integral.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>

#include "base/hermite.hpp"
#include "base/interrupt.hpp"
#include "base/lattice.hpp"
#include "base/threads.hpp"
#include "base/trapezoid.hpp"
#include "likelihood/integrals/small.hpp"

namespace msem {

namespace {

constexpr Index kPieces = 32;        // of clusters, at most
constexpr int kRounds = 60;          // of looking for the nodes, at most
constexpr double kSettled = 1e-5;    // change of the centre in its standard deviations, and of these
constexpr double kStep = 1e-4;       // of moments, relative to their size, for second derivatives
constexpr double kNarrow = 0.3;      // of the spread, where a single node has all weight
constexpr double kSingle = 0.9;      // weight of a node that says nothing of how the distribution is spread
constexpr double kCollapsed = 1e-3;  // standard deviation, in those without data, of nodes that lost it
constexpr int kPatience = 3;         // rounds before a distribution is taken for what it seems,
constexpr double kAbout = 0.3;       // and the most that it may change
constexpr double kFloor = 1e-3;      // least eigenvalue of an information matrix that steps are made with
constexpr double kShort = 1000, kLong = 3000,  // least spread that steps are in, in negligible ones,
    kSmall = 100;                              // and that below which they are long
constexpr double kFades = 100;    // variances, in the least ones, at which these are added no more
constexpr double kLeast = 1e-16;  // weight of a node, beside the greatest, below which it has no derivatives

// a A + b B
Moments combined(double a, const Moments& one, double b, const Moments& other) {
  return {a * one.mean_w + b * other.mean_w, a * one.mean_b + b * other.mean_b,
          a * one.cov_w + b * other.cov_w, a * one.cov_b + b * other.cov_b};
}

// The product rule: d x Q nodes, and log weight + |x|^2 / 2 + d/2 log 2 pi of each.
struct Rule {
  Rule(Index dimensions, Index n) {
    const Hermite one(static_cast<int>(n));
    Index count = 1;
    for (Index d = 0; d < dimensions; ++d) count *= n;
    x.resize(dimensions, count);
    log_w.setConstant(count, 0.5 * kLog2Pi * static_cast<double>(dimensions));
    for (Index q = 0; q < count; ++q) {
      for (Index d = 0, rest = q; d < dimensions; ++d, rest /= n) {
        x(d, q) = one.nodes[rest % n];
        log_w[q] += one.log_weights[rest % n];
      }
    }
    farthest = one.nodes.back() * (1 - 1e-9);
  }
  Matrix x;
  Vector log_w;
  double farthest;
};

}  // namespace

void add_between(const IntegrandColumns& at, ConstVectorRef z, ConstVectorRef rest, double weight,
                 double* between) {
  at.rest_mean(between) += weight * rest;
  add_outer(at.slope(between), weight, rest, z);
  at.zz(between).diagonal().array() += weight;
  add_outer(at.zz(between), -weight, z, z);
  at.z(between) -= 2 * weight * z;
}

SlopeMap::SlopeMap(const Matrix& lambda, const std::vector<Index>& covariate)
    : lambda_(lambda), covariate_(covariate), map_(Matrix::Identity(lambda.rows(), lambda.rows())) {}

// X := (I + s lambda e') X
void SlopeMap::apply(Matrix& x, Index k, double s) {
  row_ = s * x.row(covariate_[k]);
  for (Index j = 0; j < x.cols(); ++j) {
    for (Index i = 0; i < x.rows(); ++i) x(i, j) += lambda_(i, k) * row_[j];
  }
}

void SlopeMap::set(const double* s) {
  map_.setIdentity();
  for (Index k = 0; k < lambda_.cols(); ++k) apply(map_, k, s[k]);
}

void SlopeMap::add_gradient(const double* s, const Matrix& of_map, double weight, MatrixRef lambda,
                            double* of_s) {
  const Index p = lambda_.rows(), m = lambda_.cols();
  // lambda of slope k stands between the maps before and after it
  for (Index k = 0; k < m; ++k) {
    before_.setIdentity(p, p);
    for (Index j = 0; j < k; ++j) apply(before_, j, s[j]);
    after_.setIdentity(p, p);
    for (Index j = k + 1; j < m; ++j) apply(after_, j, s[j]);
    column_ = apply_transposed(after_, msem::apply(of_map, before_.row(covariate_[k]).transpose()));
    lambda.col(k) += weight * s[k] * column_;
    if (of_s) of_s[k] = column_.dot(lambda_.col(k));
  }
}

// The nodes of one cluster after another.
class IntegralPoint::Search {
 public:
  Search(const IntegralPoint& point, const Rule& rule, NodeDensity& density)
      : point_(point),
        over_(*point.over_),
        rule_(rule),
        density_(density),
        d_(over_.integrated),
        centre_(d_),
        moved_(d_),
        prior_(over_.known),
        root_(d_, d_),
        next_(d_, d_),
        cov_(d_, d_) {}

  const Vector& centre() const { return centre_; }
  const Matrix& cov() const { return cov_; }

  // The value and what the posterior weights make of the nodes.
  double sum(Index cluster, const double* nodes, const double* log_weights, Index count) {
    logs_.resize(count);
    for (Index k = 0; k < count; ++k)
      logs_[k] = log_weights[k] - 0.5 * density_.value(cluster, nodes + k * d_);
    const double top = logs_.maxCoeff();
    if (!std::isfinite(top)) return -std::numeric_limits<double>::infinity();
    weights_ = (logs_.array() - top).exp().matrix();
    const double total = weights_.sum();
    weights_ /= total;
    moments(nodes, weights_);
    return top + std::log(total);
  }

  // Mean and covariance matrix of nodes with some weights.
  void moments(const double* nodes, const Vector& weights) {
    centre_.setZero();
    cov_.setZero();
    for (Index k = 0; k < weights.size(); ++k) {
      for (Index i = 0; i < d_; ++i) centre_[i] += weights[k] * nodes[k * d_ + i];
    }
    for (Index k = 0; k < weights.size(); ++k) {
      const double* x = nodes + k * d_;
      for (Index j = 0; j < d_; ++j) {
        for (Index i = 0; i < d_; ++i) cov_(i, j) += weights[k] * (x[i] - centre_[i]) * (x[j] - centre_[j]);
      }
    }
  }

  // The nodes of a cluster and their log weights.
  void find(Index cluster, Vector& nodes, Vector& log_weights) {
    const Matrix& root_z = point_.at_.root_z;
    const Index known = over_.known;
    for (Index k = 0; k < known; ++k) prior_[k] = over_.known_values(k, cluster) - point_.at_.between.mu_z[k];
    for (Index k = 0; k < known; ++k) {
      prior_[k] /= root_z(k, k);
      for (Index i = k + 1; i < known; ++i) prior_[i] -= root_z(i, k) * prior_[k];
    }
    Vector around = point_.at_.between.mu_z.tail(d_);
    if (known) add_applied(around, 1, root_z.bottomLeftCorner(d_, known), prior_);
    root_ = root_z.bottomRightCorner(d_, d_);
    nodes_.resize(rule_.x.size());
    log_weights_.resize(rule_.log_w.size());
    const bool spread = d_ > 0 && d_ <= Lattice::kDimensions && over_.nodes >= kFewNodes;
    const Vector prior = around;
    const Matrix prior_root = root_;
    bool settled = false;
    for (int round = 0; d_ && round < kRounds && !settled; ++round) {
      place(around, root_, nodes_.data(), log_weights_.data());
      if (!std::isfinite(sum(cluster, nodes_.data(), log_weights_.data(), log_weights_.size()))) break;
      moved_ = centre_ - around;
      next_ = cov_;
      double log_det = 0;
      Index best = 0;
      const double most = weights_.maxCoeff(&best);
      const bool wide = most < 0.99 && factorise(next_.data(), d_, log_det);
      // a single node has all weight: farther out if it is one of the outermost, narrower otherwise
      const bool outermost = rule_.x.col(best).cwiseAbs().maxCoeff() >= rule_.farthest;
      bool about = spread && round >= kPatience && wide;
      for (Index k = 0; k < d_; ++k) {
        about = about && std::abs(moved_[k]) < kAbout * root_(k, k) &&
                std::abs(next_(k, k) / root_(k, k) - 1) < kAbout;
      }
      if (about && far_from_normal()) break;
      around = centre_;
      settled = wide;
      for (Index k = 0; k < d_; ++k) {
        settled = settled && std::abs(moved_[k]) < kSettled * root_(k, k) &&
                  std::abs(next_(k, k) / root_(k, k) - 1) < kSettled;
      }
      if (wide) {
        root_ = next_.triangularView<Eigen::Lower>();
      } else if (!outermost || log_weights_.size() < 2) {
        root_ *= kNarrow;
      }
    }
    if (spread && spread_out(cluster, settled, prior, prior_root, nodes, log_weights)) return;
    nodes.resize(rule_.x.size());
    log_weights.resize(rule_.log_w.size());
    place(around, root_, nodes.data(), log_weights.data());
  }

 private:
  // Nodes where the posterior distribution, by the last ones, is far from normal, or they came to no end;
  // false if it is not.
  bool spread_out(Index cluster, bool settled, const Vector& prior, const Matrix& prior_root, Vector& nodes,
                  Vector& log_weights) {
    bool known = weights_.size() == log_weights_.size() && weights_.maxCoeff() < kSingle;
    for (Index k = 0; k < d_; ++k) known = known && cov_(k, k) > std::pow(kCollapsed * prior_root(k, k), 2);
    if (settled && !far_from_normal()) return false;
    if (!known) {
      // what is known without the data
      place(prior, prior_root, nodes_.data(), log_weights_.data());
      weights_.resize(rule_.log_w.size());
      for (Index k = 0; k < weights_.size(); ++k)
        weights_[k] = std::exp(rule_.log_w[k] - 0.5 * rule_.x.col(k).squaredNorm());
      weights_ /= weights_.sum();
    }
    const auto log_f = [&](const double* at) { return -0.5 * density_.value(cluster, at); };
    if (!lattice_.find(log_f, static_cast<int>(d_), nodes_.data(), weights_.data(), weights_.size(),
                       over_.nodes <= kFewNodes))
      return false;
    nodes = lattice_.nodes;
    log_weights = lattice_.log_weights;
    return true;
  }

  bool far_from_normal() {
    for (Index i = 0; i < d_; ++i) {
      along_.resize(weights_.size());
      for (Index k = 0; k < weights_.size(); ++k) along_[k] = nodes_[k * d_ + i];
      if (uneven(along_.data(), weights_.data(), weights_.size(), centre_[i], std::sqrt(cov_(i, i))))
        return true;
    }
    return false;
  }

  void place(const Vector& around, const Matrix& root, double* nodes, double* log_weights) const {
    const double log_scale = root.diagonal().array().log().sum();
    for (Index k = 0; k < rule_.log_w.size(); ++k) {
      double* x = nodes + k * d_;
      for (Index i = 0; i < d_; ++i) {
        x[i] = around[i];
        for (Index j = 0; j <= i; ++j) x[i] += root(i, j) * rule_.x(j, k);
      }
      log_weights[k] = rule_.log_w[k] + log_scale;
    }
  }

  const IntegralPoint& point_;
  const Integration& over_;
  const Rule& rule_;
  NodeDensity& density_;
  Index d_;
  Lattice lattice_;
  Vector logs_, weights_, along_, centre_, moved_, prior_, nodes_, log_weights_;
  Matrix root_, next_, cov_;
};

bool IntegralPoint::prepare_moments(const Moments& moments) {
  if (!moments.mean_w.allFinite() || !moments.cov_w.allFinite() || !moments.mean_b.allFinite() ||
      !moments.cov_b.allFinite())
    return false;
  const Index p = over_->p, m = over_->m;
  if (!moments.cov_w.bottomRightCorner(m, m).isIdentity(1e-9) || !moments.mean_w.tail(m).isZero(0))
    throw std::invalid_argument("products with slopes must be standardized");
  at_.moments = moments;
  at_.lambda = moments.cov_w.topRightCorner(p, m);
  at_.sigma = moments.cov_w.topLeftCorner(p, p);
  if (m) at_.sigma -= outer(at_.lambda, at_.lambda);
  at_.mu = moments.mean_w.head(p);
  if (p && !positive_definite(at_.sigma)) return false;
  Matrix cov = select(moments.cov_b, over_->order, over_->order);
  if (!add_spread(cov.bottomRightCorner(over_->given(), over_->given()))) return false;
  const Vector mean = select(moments.mean_b, over_->order);
  if (!at_.between.compute(cov, mean, over_->rest)) return false;
  at_.root_z = at_.between.chol_z.lower();
  at_.mean_rest = mean.head(over_->rest);
  at_.cut = select(moments.mean_b, over_->cut);
  return at_.between.cov.allFinite() && prepare_integrand();
}

// Adds to the variances of what is integrated over where they are as good as none given all others.
bool IntegralPoint::add_spread(MatrixRef cov) {
  const Index d = over_->integrated, g = over_->given();
  least_ = negligible_spread();
  alone_ = added_ = Vector::Zero(d);
  combination_ = Matrix::Zero(g, d);
  if (least_.isZero(0)) return true;
  Matrix wide = cov;
  wide.diagonal().tail(d) += least_.cwiseAbs2();
  Cholesky chol;
  if (!chol.compute(wide)) return false;
  for (Index k = 0; k < d; ++k) {
    const double variance = least_[k] * least_[k];
    const Vector row = chol.solve(Vector(Vector::Unit(g, over_->known + k)));
    const double precision = row[over_->known + k];
    combination_.col(k) = row / precision;
    alone_[k] = 1 / precision;
    added_[k] = variance * std::exp(-(alone_[k] - variance) / (kFades * variance));
  }
  cov.diagonal().tail(d) += added_;
  return true;
}

bool IntegralPoint::prepare(const Integration& over, const Moments& moments, const IntegralPoint* given) {
  over_ = &over;
  shape_ = over.shape;
  if (!prepare_moments(moments)) return false;
  const Index d = over.integrated;
  const Rule rule(d, over.nodes);
  const Index J = over.nclusters(), Q = rule.log_w.size();
  const IntegrandColumns at = columns();
  nodes_.resize(J);
  log_weights_.resize(J);
  centre_.setZero(d, J);
  spread_.setZero(d * d, J);
  loglik_.resize(J);
  of_within_.setZero(at.within(), J);
  of_between_.setZero(at.between(), J);
  const Index pieces = std::min(kPieces, J);
  std::vector<char> fine(pieces, 1);
  in_threads(pieces, J * Q * (over.p + over.rest) > 4000 ? 0 : 1, [&](std::ptrdiff_t piece) {
    const std::unique_ptr<NodeDensity> integrand = density();
    Search search(*this, rule, *integrand);
    Vector logs;
    for (Index j = J * piece / pieces; j < J * (piece + 1) / pieces; ++j) {
      check_interrupt();
      if (given) {
        nodes_[j] = given->nodes_[j];
        log_weights_[j] = given->log_weights_[j];
      } else {
        search.find(j, nodes_[j], log_weights_[j]);
      }
      const double* nodes = nodes_[j].data();
      const Vector& log_weights = log_weights_[j];
      logs.resize(log_weights.size());
      double* within = of_within_.col(j).data();
      double* between = of_between_.col(j).data();
      // Derivatives are added as nodes are visited, in units of the greatest term so far.
      double top = -std::numeric_limits<double>::infinity(), total = 0;
      for (Index k = 0; k < logs.size(); ++k) {
        const double log_term = log_weights[k] - 0.5 * integrand->value(j, nodes + k * d);
        logs[k] = log_term;
        if (!std::isfinite(log_term)) continue;
        if (log_term > top) {
          const double scale = std::exp(top - log_term);
          of_within_.col(j) *= scale;
          of_between_.col(j) *= scale;
          total *= scale;
          top = log_term;
        }
        const double term = std::exp(log_term - top);
        total += term;
        if (term > kLeast) integrand->add_gradient(j, nodes + k * d, term, within, between);
      }
      loglik_[j] = top + std::log(total);
      if (!std::isfinite(loglik_[j])) {
        fine[piece] = 0;
        return;
      }
      of_within_.col(j) /= total;
      of_between_.col(j) /= total;
      search.moments(nodes, (logs.array() - loglik_[j]).exp().matrix());
      centre_.col(j) = search.centre();
      spread_.col(j) = Eigen::Map<const Vector>(search.cov().data(), d * d);
    }
  });
  if (std::find(fine.begin(), fine.end(), 0) != fine.end()) return false;
  value_ = -2 * loglik_.dot(over.weight);
  gradient_ = from_columns(apply(of_within_, over.weight), apply(of_between_, over.weight));
  for (Index k = 0; k < d; ++k) value_ -= added_[k] * gradient_.cov_b(place(k), place(k));
  return std::isfinite(value_);
}

// Derivatives with respect to the moments of both levels, from sums of columns of clusters.
Moments IntegralPoint::from_columns(ConstVectorRef within, ConstVectorRef between) const {
  const IntegrandColumns at = columns();
  const Index p = at.p, m = at.m;
  Vector w = within, b = between;
  Moments out;
  out.mean_w = Vector::Zero(p + m);
  out.mean_w.head(p) = at.mean(w.data());
  out.cov_w = Matrix::Zero(p + m, p + m);
  out.cov_w.topLeftCorner(p, p) = at.cov(w.data());
  if (m) {
    // Sigma = cov - lambda lambda'
    Matrix lambda = 0.5 * at.lambda(w.data());
    add_product(lambda, -1, at.cov(w.data()), at_.lambda);
    out.cov_w.topRightCorner(p, m) = lambda;
    out.cov_w.bottomLeftCorner(m, p) = lambda.transpose();
  }
  symmetrise(out.cov_w);
  const BetweenGradient found =
      between_gradient(at_.between.projection, at_.between.chol_z, at.c(b.data()), at.rest_mean(b.data()),
                       at.slope(b.data()), at.zz(b.data()), at.z(b.data()));
  const Index n = at_.moments.mean_b.size();
  out.mean_b = Vector::Zero(n);
  out.cov_b = Matrix::Zero(n, n);
  add(out.cov_b, over_->order, found.cov);
  for (std::size_t k = 0; k < over_->order.size(); ++k) out.mean_b[over_->order[k]] = found.mean[k];
  const Index given = over_->given();
  for (Index k = 0; k < over_->integrated; ++k) {
    if (!(added_[k] > 0)) continue;
    // what is added gets less where there is more
    const double of_added = found.cov(over_->rest + over_->known + k, over_->rest + over_->known + k),
                 fades = -of_added * added_[k] / (kFades * least_[k] * least_[k]);
    Matrix moved = Matrix::Zero(given, given);
    add_outer(moved, fades, combination_.col(k), combination_.col(k));
    add(out.cov_b, std::vector<Index>(over_->order.end() - given, over_->order.end()), moved);
  }
  for (std::size_t k = 0; k < over_->cut.size(); ++k) out.mean_b[over_->cut[k]] = at.cut(b.data())[k];
  return out;
}

std::pair<Matrix, Matrix> IntegralPoint::cluster_scores(const Matrix&, const Tangents& within,
                                                        const Tangents& between) const {
  const Index J = over_->nclusters(), nw = at_.moments.mean_w.size(), nb = at_.moments.mean_b.size();
  Matrix cov_w(nw * nw, J), mean_w(nw, J), cov_b(nb * nb, J), mean_b(nb, J);
  for (Index j = 0; j < J; ++j) {
    const Moments own = from_columns(of_within_.col(j), of_between_.col(j));
    slice(cov_w, j, nw, nw) = own.cov_w;
    slice(cov_b, j, nb, nb) = own.cov_b;
    mean_w.col(j) = own.mean_w;
    mean_b.col(j) = own.mean_b;
  }
  const auto scores = [&](const Matrix& cov, const Matrix& mean, const Tangents& tangents, Index n) {
    if (!n) return Matrix(J, tangents.k());
    Matrix out = -0.5 * cross(cov, rotated_cov(tangents, Matrix::Identity(n, n)));
    add_cross(out, -0.5, mean, tangents.mean);
    return out;
  };
  return {scores(cov_w, mean_w, within, nw), scores(cov_b, mean_b, between, nb)};
}

// Half the second derivatives of -2 log L in the parameters of both levels, without the curvature of the
// moments: differences of the gradient at the same nodes.
// `rough`: with few nodes and one-sided, for steps whose target does not depend on it.
Matrix IntegralPoint::curvature(const Tangents& within, const Tangents& between, bool rough) const {
  if (within.k() + between.k() == 0) return Matrix(0, 0);
  Integration few;
  std::unique_ptr<IntegralPoint> own;
  const IntegralPoint* base = this;
  if (rough && over_->nodes > kFewNodes) {
    few = *over_;
    few.nodes = kFewNodes;
    own = another();
    if (own->prepare(few, at_.moments)) base = own.get();
  }
  const Moments& moments = at_.moments;
  const Index n = moments.mean_w.size(), r = moments.mean_b.size(), kw = n ? within.k() : 0, kb = between.k(),
              m = over_->m;
  const Matrix dw = n ? rotated_cov(within, Matrix::Identity(n, n)) : Matrix(0, 0),
               db = rotated_cov(between, Matrix::Identity(r, r));
  Matrix out(kw + kb, kw + kb);
  // steps do not get shorter with the spread of what is integrated over: where that is small its variance has
  // derivatives with little more than rounding in them
  const auto little = [&](Index k) { return alone_[k] < std::pow(kSmall * least_[k], 2); };
  Matrix cov_between = moments.cov_b;
  for (Index k = 0; k < over_->integrated; ++k) {
    double& variance = cov_between(place(k), place(k));
    const double sd = little(k) ? kLong * least_[k] : kShort * least_[k];
    variance = std::max(variance, sd * sd);
  }
  // whether nodes are as good after a change of the moments of level 2
  const auto stay = [&](const Matrix& change, const Vector& mean) {
    for (Index k = 0; k < over_->integrated; ++k) {
      if (little(k) && !(change.col(place(k)).isZero(0) && mean[place(k)] == 0)) return false;
    }
    return true;
  };
  // in standard deviations; those of thresholds, which have none, are about 1
  const auto size_of = [](const Matrix& change, const Vector& mean, const Matrix& cov) {
    const Vector sd =
        cov.diagonal().cwiseAbs().cwiseSqrt().unaryExpr([](double s) { return s > 0 ? s : 1.0; });
    double largest = mean.cwiseQuotient(sd).cwiseAbs().maxCoeff();
    for (Index j = 0; j < cov.rows(); ++j)
      largest = std::max(largest, change.col(j).cwiseQuotient(sd).cwiseAbs().maxCoeff() / sd[j]);
    return largest;
  };
  for (Index a = 0; a < kw + kb; ++a) {
    const bool first = a < kw;
    const Matrix change = first ? Matrix(slice(dw, a, n, n)) : Matrix(slice(db, a - kw, r, r));
    const Vector mean = first ? within.mean.col(a) : between.mean.col(a - kw);
    const double size = first ? size_of(change, mean, moments.cov_w) : size_of(change, mean, cov_between);
    if (!(size > 0)) {
      out.col(a).setZero();
      continue;
    }
    const auto gradient_at = [&](double step) -> std::optional<Moments> {
      Moments moved = moments;
      (first ? moved.cov_w : moved.cov_b) += step * change;
      (first ? moved.mean_w : moved.mean_b) += step * mean;
      if (first) moved.cov_w.bottomRightCorner(m, m).setIdentity();
      const std::unique_ptr<IntegralPoint> at = another();
      const bool same = first || stay(change, mean);
      if (!at->prepare(*base->over_, moved, same ? base : nullptr)) return std::nullopt;
      return std::move(at->gradient_);
    };
    const Moments& here = base->gradient_;
    double h = kStep / size;
    std::optional<Moments> up, down;
    for (int attempt = 0; attempt < 12; ++attempt, h /= 4) {
      // next to the border one side is outside
      up = gradient_at(h);
      if (!rough || !up) down = gradient_at(-h);
      if (up || down) break;
    }
    // up and down are multiples of h away; on one side only two steps are as good as one on either
    double over = 1 / (4 * h);
    if (!up && !down) {
      out.setConstant(std::numeric_limits<double>::quiet_NaN());
      return out;
    }
    Moments slope;
    if (up && down) {
      slope = combined(over, *up, -over, *down);
    } else {
      if (!up) h = -h;
      over = 1 / (2 * h);
      const Moments& one = up ? *up : *down;
      slope = combined(over, one, -over, here);
      const std::optional<Moments> two = rough ? std::nullopt : gradient_at(2 * h);
      if (two) slope = combined(2, slope, -1, combined(over / 2, *two, -over / 2, here));
    }
    const Matrix &cov_w = slope.cov_w, &cov_b = slope.cov_b;
    const Vector &mean_w = slope.mean_w, &mean_b = slope.mean_b;
    if (kw) {
      out.col(a).head(kw) = apply_transposed(dw, Eigen::Map<const Vector>(cov_w.data(), n * n)) +
                            apply_transposed(within.mean, mean_w);
    }
    out.col(a).tail(kb) = apply_transposed(db, Eigen::Map<const Vector>(cov_b.data(), r * r)) +
                          apply_transposed(between.mean, mean_b);
  }
  symmetrise(out);
  return out;
}

BlockInformation IntegralPoint::observed(const Tangents& within, const Tangents& between) const {
  const Matrix whole = curvature(within, between, false);
  const Index kb = between.k(), kw = whole.rows() - kb;
  return {whole.topLeftCorner(kw, kw), whole.topRightCorner(kw, kb), whole.bottomRightCorner(kb, kb)};
}

// F with F'F the observed information, made positive definite: eigenvalues in the metric of its diagonal by
// their size.
Matrix IntegralPoint::regular_root(const Tangents& within, const Tangents& between) const {
  const Matrix whole = curvature(within, between, true);
  if (!whole.allFinite()) return whole;  // which no step can be taken by
  Vector scale = whole.diagonal().cwiseAbs().cwiseSqrt();
  const Vector inverse = scale.unaryExpr([](double s) { return s > 0 ? 1 / s : 0.0; });
  const SymmetricEigen eigen(scale_both(inverse, whole));
  const double top = eigen.values.cwiseAbs().maxCoeff();
  Vector values = eigen.values.cwiseAbs();
  for (Index k = 0; k < values.size(); ++k) {
    if (eigen.values[k] < 0) values[k] = std::max(values[k], kFloor * top);
  }
  return scale_cols(scale_cols(eigen.vectors, values.cwiseSqrt()).transpose(), scale);
}

BlockInformation IntegralPoint::expected(const Tangents& within, const Tangents& between) const {
  const Matrix root = regular_root(within, between);
  const Index kb = between.k(), kw = root.cols() - kb;
  const Matrix whole = cross(root, root);
  return {whole.topLeftCorner(kw, kw), whole.topRightCorner(kw, kb), whole.bottomRightCorner(kb, kb)};
}

std::pair<Matrix, Matrix> IntegralPoint::factors(const Tangents& within, const Tangents& between) const {
  const Matrix root = regular_root(within, between);
  return {root.leftCols(root.cols() - between.k()), root.rightCols(between.k())};
}

}  // namespace msem
