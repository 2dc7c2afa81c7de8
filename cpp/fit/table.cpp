#include "fit/table.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace msem {

namespace {

// Where the core has what a table names.
struct Arrangement {
  Arrangement(const std::vector<TableRow>& rows, const BlockShape& shape)
      : first_hidden(shape.nobserved + static_cast<int>(shape.exposed.size())),
        places(shape.nvariables),
        measured(shape.nvariables) {
    for (const TableRow& r : rows) {
      if (r.op == Operator::kThreshold) cuts.push_back(&r);
      if (r.op == Operator::kScale) factors.push_back(&r);
    }
    first_cut = first_hidden + shape.nproducts;
    const int hidden = shape.nproducts + static_cast<int>(cuts.size());
    std::iota(places.begin(), places.end(), 0);
    int next = first_hidden + hidden;
    for (int k = shape.nobserved; k < shape.nvariables; ++k) {
      const auto own = std::find(shape.exposed.begin(), shape.exposed.end(), k);
      places[k] = own == shape.exposed.end()
                      ? next++
                      : shape.nobserved + static_cast<int>(own - shape.exposed.begin());
    }
    measured = places;
    size = shape.nvariables + hidden;
    for (const TableRow* r : factors) places[r->lhs] = size++;
  }

  int cut(std::size_t k) const { return first_cut + static_cast<int>(k); }
  const TableRow* factor(int variable) const {
    for (const TableRow* r : factors)
      if (r->lhs == variable) return r;
    return nullptr;
  }

  int first_hidden, first_cut, size;
  std::vector<const TableRow*> cuts, factors;
  std::vector<int> places;    // a variable with a scaling factor is a latent one at the end,
  std::vector<int> measured;  // and this is where it is observed
};

Entry entry_of(const TableRow& r, Slot slot, int to, int from) {
  return {slot, to, from, r.parameter, r.parameter < 0 ? r.value : 0.0};
}

Slot slot_of(Operator op) {
  return op == Operator::kCovariance  ? Slot::kSymmetric
         : op == Operator::kIntercept ? Slot::kIntercept
                                      : Slot::kDirected;
}

bool in_matrices(const TableRow& r) { return r.op != Operator::kThreshold && r.op != Operator::kScale; }

Block block_of(const std::vector<TableRow>& rows, const BlockShape& shape, const Arrangement& at) {
  std::vector<Entry> entries;
  entries.reserve(rows.size());
  for (const TableRow& r : rows) {
    if (!in_matrices(r)) continue;
    const bool measures = r.op == Operator::kMeasures;
    Entry e = entry_of(r, slot_of(r.op), at.places[measures ? r.rhs : r.lhs],
                       measures     ? at.places[r.lhs]
                       : r.rhs >= 0 ? at.places[r.rhs]
                                    : 0);
    // A path with a random slope leads from the product of slope and covariate, a variable that is given,
    // with mean 0, variance 1 and no covariances: what it does to the outcomes is its regression.
    if (r.product >= 0) {
      e.col = at.first_hidden + r.product;
      e.value = 1;
    }
    entries.push_back(e);
  }
  for (int k = 0; k < shape.nproducts; ++k)
    entries.push_back({Slot::kSymmetric, at.first_hidden + k, at.first_hidden + k, -1, 1.0});
  // What is observed of a variable with a scaling factor, and each of its thresholds, is a latent one times
  // that.
  int size = at.size;
  std::vector<int> latent(at.cuts.size());
  for (const TableRow* f : at.factors)
    entries.push_back(entry_of(*f, Slot::kDirected, f->lhs, at.places[f->lhs]));
  for (std::size_t k = 0; k < at.cuts.size(); ++k) {
    latent[k] = at.cut(k);
    if (const TableRow* f = at.factor(at.cuts[k]->lhs)) {
      latent[k] = size++;
      entries.push_back(entry_of(*f, Slot::kDirected, at.cut(k), latent[k]));
    }
  }
  for (std::size_t k = 0; k < at.cuts.size(); ++k)
    entries.push_back(entry_of(*at.cuts[k], Slot::kIntercept, latent[k], 0));
  return Block(at.first_hidden + shape.nslopes + static_cast<int>(at.cuts.size()), size, std::move(entries));
}

}  // namespace

TableBlock::TableBlock(const std::vector<TableRow>& rows, const BlockShape& shape) : block_(0, 0, {}) {
  const Arrangement at(rows, shape);
  block_ = block_of(rows, shape, at);
  const auto start = [&](const TableRow& r, Relation relation, int lhs, int rhs, double from) {
    start_.push_back({relation, lhs, rhs, r.parameter, r.value, from});
  };
  start_.reserve(rows.size());
  places_.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const TableRow& r = rows[i];
    const double inf = std::numeric_limits<double>::infinity();
    if (r.parameter >= 0 && (r.lower > -inf || r.upper < inf))
      bounds_.push_back({r.parameter, r.lower, r.upper});
    if (!in_matrices(r)) continue;
    const bool measures = r.op == Operator::kMeasures;
    if (r.given && r.parameter < 0 && std::isnan(r.value))
      filled_.push_back(static_cast<int>(places_.size()));
    places_.push_back({static_cast<int>(i), slot_of(r.op), measures ? r.rhs : r.lhs,
                       measures     ? r.lhs
                       : r.rhs >= 0 ? r.rhs
                                    : 0});
    if (r.product < 0)
      start(r, static_cast<Relation>(r.op), at.measured[r.lhs], r.rhs < 0 ? 0 : at.measured[r.rhs], r.start);
  }
  // Thresholds are intercepts, and so are scaling factors, which start at 1 unless the user says otherwise.
  for (std::size_t k = 0; k < at.cuts.size(); ++k)
    start(*at.cuts[k], Relation::kIntercept, at.cut(k), 0, at.cuts[k]->start);
  for (const TableRow* f : at.factors)
    start(*f, Relation::kIntercept, f->lhs, 0, std::isnan(f->start) ? 1.0 : f->start);
  for (int k = 0; k < shape.nvariables; ++k) {
    if (!shape.auxiliary[k]) judged_.push_back(at.places[k]);
  }
}

}  // namespace msem
