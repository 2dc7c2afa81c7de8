// The way from starts to a maximum.
#include <algorithm>
#include <optional>

#include "fit/cone.hpp"
#include "fit/engine.hpp"
#include "fit/iterative.hpp"
#include "fit/markers.hpp"

namespace msem {

namespace {

constexpr double kNotable =
    0.05;  // in -2 log L: what an attempt has to be lower by than others without a maximum
constexpr int kMatrix =
    1000;  // parameters whose information matrix is formed where products with it do not do
constexpr int kAttempt = 60;           // iterations from one start before another is tried
constexpr int kGlance = 12;            // of an integral in the cone, where a maximum outside is known
constexpr double kRough = 1e-6;        // decrement at which a search with few nodes ends
constexpr double kBeyond = 1e-4;       // -2 log L below the saturated model's by more is no maximum
constexpr double kSame = 1e-3;         // difference in -2 log L between maxima that counts as none
constexpr int kStarts = 8;             // random ones, where there may be several maxima
constexpr int kAgreeing = 3;           // starts in a row that end at the best of them: enough,
constexpr int kAgreeingIntegrals = 2;  // of integrals by quadrature, which take their time,
constexpr double kFew = 30;            // unless there are so few clusters,
constexpr double kFewRows = 100;       // or rows of a single level
constexpr double kSpread = 0.3;        // of random loadings, in standard deviations of their variables
constexpr int kSortings = 3;           // times that variables are sorted
constexpr double kTie = 1e-7;     // between values of one maximum: the first start that leads there counts
constexpr double kNarrow = 0.01;  // at which they are not made smaller any more
constexpr int kComponents = 2;    // principal ones that loadings start with

// What the loadings of the last level are multiplied by.
const std::vector<std::vector<double>> kFactors = {
    {1.5, -0.6, 0.9}, {-1.2, 0.5, -1.8}, {0.4, 1.7, -0.8}, {-0.9, -1.3, 0.6}};

// Whether a likelihood says nothing there.
bool nowhere(const Optimum& o) { return o.stop == Stop::kUnbounded || o.stop == Stop::kInfeasible; }

bool bounded(const Optimum& o) {
  return !o.active_inequalities.empty() ||
         std::any_of(o.active.begin(), o.active.end(), [](int a) { return a != 0; });
}

class Route {
 public:
  Route(const Plan& plan, const Objective& objective, const SampleLikelihood& sample,
        const FitOptions& options)
      : plan_(plan), objective_(objective), sample_(sample), options_(options) {
    if (options.known.size()) start_ = plan.start.from(options.known);
    for (const Group& g : objective.groups()) {
      if (!options_.starts && g.likelihood->costly_value()) options_.starts = -1;
    }
    // An integral says less and less of slopes whose variance vanishes, and nothing beyond: steps among
    // improper matrices lead along that border, and none but proper ones are asked for.
    brief_ = objective.integrated() && options.space == Space::kAuto && options.starts <= 0 && !sample.cone;
  }

  Optimum run() {
    first_ = start().values(objective_, sample_.saturated);
    few_ = std::min(kAttempt, options_.max_iterations);
    Optimum best = ordinary();
    const bool found = best.stop == Stop::kConverged && options_.space != Space::kCone && !sample_.cone;
    if ((found || many()) && !options_.saturated.empty()) return best;
    if (regular(best) && options_.starts <= 0 && !few_clusters()) {
      best.proper = true;
      return best;
    }
    if (options_.space != Space::kCone && !brief_) best = from_other_signs(std::move(best));
    if (inside_ && !acceptable(best)) best = std::move(*inside_);
    if (options_.space != Space::kNatural && to_cone(best)) best = in_cone(std::move(best));
    std::sort(maxima_.begin(), maxima_.end());
    for (const double value : maxima_) {
      const bool known = value < (best.maxima.empty() ? best.value : best.maxima.back()) + kSame;
      if (!known) best.maxima.push_back(value);
    }
    return best;
  }

  std::vector<Vector> starts() {
    first_ = start().values(objective_, sample_.saturated);
    std::vector<Vector> out = {first_};
    for (int k = 0; k < kRestarts; ++k) out.push_back(other(k));
    return out;
  }

 private:
  static constexpr int kRestarts = 9;

  const StartPlan& start() const { return start_ ? *start_ : plan_.start; }

  // In the parameters of the model.
  Optimum ordinary() {
    if (!options_.saturated.empty()) {
      Optimum near = minimize_iteratively(objective_, first_, plan_.lower, plan_.upper, options_.saturated,
                                          {few_, options_.tolerance});
      if (many() || (near.stop == Stop::kConverged && !below_saturated(near))) return near;
    }
    if (std::optional<Optimum> found = by_few_nodes()) return std::move(*found);
    Optimum best = attempt(first_, few_);
    const bool more = options_.max_iterations > kAttempt || best.stop == Stop::kBadStart;
    return best.stop != Stop::kConverged && more && !brief_ ? restart(std::move(best), few_) : best;
  }

  bool many() const { return objective_.npar() > kMatrix; }

  // A maximum within the cone, and not at its border.
  bool regular(const Optimum& o) const {
    return o.stop == Stop::kConverged && o.surpassed == 0 && !bounded(o) &&
           improprieties(plan_, objective_, o.theta, o.point.get()).empty();
  }

  // A maximum that need not be looked for in the cone.
  bool acceptable(const Optimum& o) const {
    if (options_.space == Space::kAuto && o.stop == Stop::kConverged && o.surpassed == 0 && !sample_.cone)
      return latent_distribution(plan_, objective_, o.theta);
    return false;
  }

  bool few_clusters() const {
    for (const Group& g : objective_.groups()) {
      const std::vector<double> units = g.likelihood->units();
      if (!units.empty() && units.back() < (units.size() > 1 ? kFew : kFewRows)) return true;
    }
    return false;
  }

  Optimum attempt(const Vector& start, int iterations) const {
    return attempt(start, iterations, plan_.lower);
  }

  Optimum attempt(const Vector& start, int iterations, const Vector& lower, double rival = kInfinity) const {
    ScoringOptions how{iterations, options_.tolerance};
    how.reuse = true;
    how.rival = rival;
    how.brief = brief_;
    Optimum out = minimize(objective_, plan_.constraints, start, lower, plan_.upper, how);
    if (below_saturated(out) && out.stop != Stop::kInfeasible) out.stop = Stop::kUnbounded;
    return out;
  }

  // A penalized likelihood has no bound there.
  bool below_saturated(const Optimum& o) const {
    return objective_.terms().empty() && o.value < sample_.saturated_value - kBeyond;
  }

  // Integrals go to a maximum with few nodes, and on to their own from there; nothing where there is none.
  std::optional<Optimum> by_few_nodes() const {
    const std::optional<Objective> coarse = objective_.coarse();
    if (!coarse) return std::nullopt;
    ScoringOptions how{few_, std::max(kRough, options_.tolerance)};
    how.reuse = true;
    how.brief = brief_;
    const Optimum near = minimize(*coarse, plan_.constraints, first_, plan_.lower, plan_.upper, how);
    if (near.stop != Stop::kConverged) return std::nullopt;
    how.tolerance = options_.tolerance;
    how.curved = how.near = true;
    Optimum out = minimize(objective_, plan_.constraints, near.theta, plan_.lower, plan_.upper, how);
    if (out.stop != Stop::kConverged || below_saturated(out)) return std::nullopt;
    out.iterations.insert(out.iterations.begin(), near.iterations.begin(), near.iterations.end());
    return out;
  }

  // Starts other than the first, the most promising first.
  Vector other(int k) {
    const StartPlan& start = this->start();
    if (k == 0) return cautious_ = start.cautious(objective_, sample_.saturated, first_);
    if (k <= 2) return attempt(k == 1 ? first_ : cautious_, kAttempt, start.nonnegative()).theta;
    if (k <= 4) return start.shrunk(objective_, sample_.saturated, first_, k == 3 ? 0.5 : 0.0);
    return start.rescaled(objective_, sample_.saturated, first_, kFactors[k - 5]);
  }

  // Attempts are made one by one and end with the first maximum than which nothing higher was seen.
  Optimum restart(Optimum best, int few) {
    std::optional<Optimum> maximum;
    Optimum top = std::move(best);
    std::vector<Vector> tried = {first_};
    for (int k = 0; k < kRestarts; ++k) {
      const Vector start = other(k);
      if (std::find(tried.begin(), tried.end(), start) != tried.end()) continue;
      tried.push_back(start);
      const double rival = nowhere(top) ? kInfinity : top.value - kNotable;
      Optimum next = attempt(start, few, plan_.lower, rival);
      const bool higher = nowhere(top) || (next.value < top.value && !nowhere(next));
      if (next.stop == Stop::kConverged && (!maximum || next.value < maximum->value)) maximum = next;
      if (higher) top = std::move(next);
      if (maximum && (nowhere(top) || maximum->value < top.value + kSame)) return *maximum;
    }
    Optimum rest = attempt(top.theta, options_.max_iterations - few);
    if (rest.stop != Stop::kConverged) {
      std::optional<Optimum> again = by_other_markers(rest, few);
      if (again && !(maximum && maximum->value < again->value)) return std::move(*again);
    }
    if (rest.stop == Stop::kConverged || !maximum) {
      rest.iterations.insert(rest.iterations.begin(), top.iterations.begin(), top.iterations.end());
      return rest;
    }
    if (!nowhere(rest)) maximum->surpassed = maximum->value - rest.value;
    return *maximum;
  }

  // A maximum near which factors have large loadings is found where they are scaled by other indicators.
  std::optional<Optimum> by_other_markers(const Optimum& from, int few) const {
    if (!plan_.constraints.none() || !objective_.terms().empty() || !from.theta.allFinite())
      return std::nullopt;
    const auto other = other_markers(objective_.blocks(), from.theta, plan_.lower, plan_.upper);
    if (!other) return std::nullopt;
    const Objective same(plan_.npar, other->blocks, objective_.groups());
    const Optimum found = minimize(same, other->theta, plan_.lower, plan_.upper,
                                   {options_.max_iterations, options_.tolerance, true});
    if (found.stop != Stop::kConverged || below_saturated(found)) return std::nullopt;
    Optimum out = attempt(other->back(objective_.blocks(), found.theta), few);
    if (out.stop != Stop::kConverged) return std::nullopt;
    return out;
  }

  // An attempt in the cone. At a singular matrix the root need not be unique, and steps are not, unless its
  // variables are sorted.
  std::pair<SearchModel, Optimum> descend(const Objective& objective, SearchModel model, const Vector& start,
                                          int iterations) const {
    Optimum found = minimize_in(model, start, iterations);
    for (int k = 0; k < kSortings && model.curved(); ++k) {
      if (found.stop != Stop::kMaxIterations && found.stop != Stop::kNoProgress) break;
      const Vector theta = model.parameters(found.theta, first_);
      SearchModel next = cone_model(objective, &theta);
      Optimum better = minimize_in(next, next.near(theta, kRounding), iterations);
      if (better.stop == Stop::kBadStart || better.value > found.value + kSame) break;
      model = std::move(next);
      found = std::move(better);
    }
    return {std::move(model), std::move(found)};
  }

  Optimum minimize_in(const SearchModel& model, const Vector& start, int iterations,
                      double rival = kInfinity) const {
    ScoringOptions how{iterations, options_.tolerance};
    how.curved = model.curved();
    how.rival = rival;
    return minimize(model.objective(), model.constraints(), start, model.lower(), model.upper(), how);
  }

  int random_starts() const {  // below 0: none
    return options_.starts > 0 ? options_.starts : options_.starts < 0 ? 0 : kStarts;
  }

  // Maxima beyond infinity, where a factor has a negative variance or its marker another sign, and others.
  Optimum from_other_signs(Optimum best) {
    if (best.stop == Stop::kConverged) maxima_.push_back(best.value);
    keep_inside(best);
    std::optional<Optimum> valley;
    const int positive = random_starts() + 1, count = positive + 2 + random_starts() / 2;
    const bool many = options_.starts == 0 && !few_clusters();
    bool signs = true;  // whether a factor could have a negative variance
    int agreeing = 0;
    for (int k = -1; k < count && (k < positive || signs); ++k) {
      if (many && agreeing == kAgreeing) {
        if (k >= positive || !signs) break;
        k = positive;
        agreeing = 0;
      }
      const SearchModel model = signed_model(k < positive ? 0 : 1 + k - positive);
      if (!model.has_loadings()) return best;
      signs = model.has_signs();
      const Vector from = model.near(first_);
      Optimum found;
      found.stop = Stop::kBadStart;
      double rival = best.stop == Stop::kConverged ? best.value : kInfinity;
      if (valley && !(valley->value > rival)) rival = valley->value;
      if (k < 0) {
        found = minimize_in(model, from, few_, rival);
      } else if ((k == 0 || k == positive) && best.theta.allFinite()) {
        found = minimize_in(model, model.near(best.theta), few_, rival);
      }
      // negative variances have to be small
      for (double spread = kSpread; k >= 0 && found.stop == Stop::kBadStart && spread > kNarrow;
           spread *= 0.5)
        found = minimize_in(model, model.random(from, k, spread), few_, rival);
      const bool improves = best.stop != Stop::kConverged || found.value < best.value - kSame;
      if (found.stop == Stop::kBadStart || found.stop == Stop::kInfeasible || below_saturated(found))
        continue;
      if (found.stop != Stop::kConverged) {
        if (improves && (!valley || found.value < valley->value)) {
          found.theta = model.parameters(found.theta, first_);
          valley = std::move(found);
        }
        continue;
      }
      maxima_.push_back(found.value);
      agreeing = improves || std::abs(found.value - best.value) > kSame ? 0 : agreeing + 1;
      if (!improves && !(options_.space == Space::kAuto && !acceptable(best))) continue;
      Optimum better = in_parameters(model, found);
      keep_inside(better);
      if (improves && better.stop == Stop::kConverged) best = std::move(better);
    }
    if (best.stop == Stop::kConverged && valley && valley->value < best.value - kSame && !regular(best))
      best.surpassed = std::max(best.surpassed, best.value - valley->value);
    return best;
  }

  // The highest maximum at which latent variables can have their covariance matrix, whatever is higher.
  void keep_inside(const Optimum& o) {
    if (acceptable(o) && (!inside_ || o.value < inside_->value)) inside_ = o;
  }

  // The signs of the variances of factors by the bits of a number: all positive, all negative, others.
  SearchModel signed_model(int k) const {
    std::vector<double> signs;
    for (int bit = 0; bit < 8; ++bit) {
      const bool negative = k % 4 < 2 ? k % 2 == 1 : (k >> (2 + bit)) % 2 == (bit + k) % 2;
      signs.push_back(negative ? -1 : 1);
    }
    return SearchModel(objective_, plan_.lower, plan_.upper, plan_.constraints, sample_.saturated, false,
                       signs);
  }

  // A maximum that was found in other coordinates.
  Optimum in_parameters(const SearchModel& model, const Optimum& found) const {
    const Vector theta = model.parameters(found.theta, first_);
    Optimum out = attempt(theta, few_);
    if (out.stop == Stop::kConverged && out.value < found.value + kSame) return out;
    Evaluation at = objective_.evaluate(theta);
    out = found;
    if (!at.in_domain || !(std::abs(at.value - found.value) < kSame)) out.stop = Stop::kNoProgress;
    out.theta = theta;
    out.value = at.value;
    out.gradient = at.gradient;
    out.point = at.point;
    out.active = active_bounds(theta, at.gradient, plan_.lower, plan_.upper);
    return out;
  }

  // Whether an improper maximum is lower than one within the cone: then it is not that of the natural space.
  bool surpassed_in_cone(const Optimum& o) const {
    if (options_.space != Space::kAuto || regular(o) || bounded(o)) return false;
    const SearchModel model = cone_model(objective_);
    for (const Vector& start : {model.near(first_), model.near(o.theta)}) {
      // integrals take their time, and what is behind after so many steps is no higher maximum
      const Optimum found = brief_ ? minimize_in(model, start, kGlance, o.value)
                                   : descend(objective_, model, start, few_).second;
      const bool ahead = found.stop == Stop::kConverged || (brief_ && found.stop == Stop::kMaxIterations);
      if (ahead && found.value < o.value - kSame) return true;
    }
    return false;
  }

  // Improper steps of an integral end where rounding does: what is beyond the cone is seen from its border.
  bool to_cone(const Optimum& o) const { return !regular(o) && (!acceptable(o) || surpassed_in_cone(o)); }

  SearchModel cone_model(const Objective& objective, const Vector* sorted = nullptr) const {
    return SearchModel(objective, plan_.lower, plan_.upper, plan_.constraints, sample_.saturated, true, {1},
                       sorted);
  }

  using InCone = std::pair<SearchModel, Optimum>;

  // The highest of the maxima in the cone that are found from several starts; `outside` if there is none.
  Optimum in_cone(Optimum outside) {
    maxima_.clear();
    std::optional<InCone> best = with_all_nodes(outside), top;
    if (!best) {
      maxima_.clear();
      best = highest_in_cone(objective_, outside, top);
    }
    if (!best && options_.space == Space::kCone && top) return at_border(top->first, top->second, outside);
    if (!best) return outside;
    if (brief_ && acceptable(outside) && outside.value < best->second.value - kSame) {
      maxima_.clear();  // those of another space
      return outside;
    }
    return at_border(best->first, best->second, outside);
  }

  // Integrals are searched with few nodes first; nothing where that does not lead to a maximum.
  std::optional<InCone> with_all_nodes(const Optimum& outside) {
    const std::optional<Objective> coarse = objective_.coarse();
    if (!coarse) return std::nullopt;
    std::optional<InCone> top;
    const std::optional<InCone> near = highest_in_cone(*coarse, outside, top);
    if (!near) return std::nullopt;
    SearchModel model = near->first.with(objective_.groups());
    ScoringOptions how{few_, options_.tolerance};
    how.curved = model.curved();
    how.near = true;
    const Optimum polished = minimize(model.objective(), model.constraints(), near->second.theta,
                                      model.lower(), model.upper(), how);
    if (polished.stop != Stop::kConverged) return std::nullopt;
    InCone found{std::move(model), polished};
    for (double& value : maxima_) value += found.second.value - near->second.value;
    return found;
  }

  // `top`: the highest point that was seen, a maximum or not.
  std::optional<InCone> highest_in_cone(const Objective& objective, const Optimum& outside,
                                        std::optional<InCone>& top) {
    const SearchModel model = cone_model(objective);
    const Vector first = model.near(first_);
    std::vector<Vector> starts = {first};
    if (outside.theta.allFinite()) starts.push_back(model.near(outside.theta));
    if (model.has_loadings()) {
      for (Index k = 0; k < kComponents; ++k) starts.push_back(model.principal(first, k));
      for (int k = 0; k < random_starts(); ++k) starts.push_back(model.random(first, k, kSpread));
    }
    const int enough = objective.integrated() && options_.starts <= 0 ? kAgreeingIntegrals : 0;
    int agreeing = 0;
    std::optional<InCone> best;
    for (const Vector& start : starts) {
      InCone found = descend(objective, model, start, few_);
      const Optimum& o = found.second;
      if (o.stop == Stop::kBadStart || o.stop == Stop::kInfeasible) continue;
      if (!top || o.value < top->second.value) top.emplace(found);
      if (o.stop != Stop::kConverged) continue;
      maxima_.push_back(o.value);
      const bool same = best && std::abs(o.value - best->second.value) < kSame;
      agreeing = same || !best ? agreeing + 1 : o.value < best->second.value ? 1 : 0;
      if (!best || o.value < best->second.value - kTie) best.emplace(std::move(found));
      if (enough && agreeing == enough && !(top->second.value < best->second.value - kSame)) return best;
    }
    if (top && (!best || top->second.value < best->second.value - kSame)) {
      InCone longer = descend(objective, top->first, top->second.theta, options_.max_iterations);
      if (longer.second.stop == Stop::kConverged) {
        maxima_.push_back(longer.second.value);
        best.emplace(std::move(longer));
      }
    }
    return best;
  }

  Optimum at_border(const SearchModel& model, const Optimum& found, const Optimum& outside) const {
    const std::vector<int> vanished = model.vanished(found.theta);
    if (vanished.empty() && model.singular(found.theta).empty() && !bounded(found)) {
      Optimum inside = in_parameters(model, found);
      if (inside.stop == Stop::kConverged) return inside;
    }
    Optimum out = found;
    out.theta = model.parameters(found.theta, first_);
    if (brief_ && found.stop == Stop::kConverged) {
      // where a slope vanishes there is nothing beyond but rounding
      Optimum beyond = attempt(out.theta, few_);
      if (acceptable(beyond) && beyond.value < found.value - kSame) return beyond;
    }
    const Evaluation at = objective_.evaluate(out.theta);
    out.value = at.value;
    out.gradient = at.gradient;
    out.point = at.point;
    if (!at.in_domain || !(std::abs(at.value - found.value) < kSame)) out.stop = Stop::kNoProgress;
    out.active.assign(plan_.npar, 0);
    for (const int k : vanished) out.active[k] = -1;
    for (int k = 0; k < plan_.npar; ++k) {
      if (out.theta[k] <= plan_.lower[k] && found.active[k] < 0) out.active[k] = -1;
      if (out.theta[k] >= plan_.upper[k] && found.active[k] > 0) out.active[k] = 1;
    }
    out.cone = std::make_shared<ConeOptimum>(ConeOptimum{model, found, model.jacobian(found.theta)});
    if (outside.stop == Stop::kConverged && !sample_.cone && outside.value < out.value)
      out.natural = outside.value;
    return out;
  }

  const Plan& plan_;
  const Objective& objective_;
  const SampleLikelihood& sample_;
  FitOptions options_;
  std::optional<StartPlan> start_;  // where some values are known
  Vector first_, cautious_;
  int few_ = kAttempt;
  bool brief_ = false;  // whether what does not get along leads to the cone
  std::vector<double> maxima_;
  std::optional<Optimum> inside_;
};

}  // namespace

Optimum estimate(const Plan& plan, const Objective& objective, const SampleLikelihood& sample,
                 const FitOptions& options) {
  return Route(plan, objective, sample, options).run();
}

std::vector<Vector> all_starts(const Plan& plan, const Objective& objective, const SampleLikelihood& sample) {
  return Route(plan, objective, sample, {}).starts();
}

}  // namespace msem
