// One level of one group of a parameter table as a block: where its rows stand in the matrices, where they
// start, and what a sample fills in.
#pragma once

#include "fit/starting.hpp"

namespace msem {

enum class Operator : int {
  kMeasures = 0,
  kRegression = 1,
  kCovariance = 2,
  kIntercept = 3,
  kThreshold = 4,
  kScale = 5
};

// A row; variables are counted as the table names them, the observed ones first.
struct TableRow {
  Operator op;
  int lhs, rhs;  // rhs is -1 without
  int parameter;
  double value, start, lower, upper;  // start is NaN without
  bool given;                         // a moment of fixed covariates
  int product;                        // of a path with a random slope: which product leads there, or -1
};

// What beside its rows says how the core has the variables of a level: those that the likelihood knows of
// first, i.e. the observed ones, `exposed` latent ones, products of covariates with random slopes,
// thresholds, and those random slopes of other levels that are the first latent variables.
struct BlockShape {
  int nobserved, nvariables;
  std::vector<int> exposed;
  int nproducts;
  int nslopes;  // products included
  std::vector<bool> auxiliary;
};

class TableBlock {
 public:
  TableBlock(const std::vector<TableRow>& rows, const BlockShape& shape);

  // The rows that stand in the matrices of the model, with variables as the table counts them.
  struct Place {
    int row;  // among those of the block
    Slot slot;
    int to, from;
  };
  struct Bound {
    int parameter;
    double lower, upper;
  };

  const Block& block() const { return block_; }
  const std::vector<Place>& places() const { return places_; }
  const std::vector<StartRow>& start() const { return start_; }
  const std::vector<int>& filled() const { return filled_; }    // entries with moments of fixed covariates
  const std::vector<Index>& judged() const { return judged_; }  // all variables but auxiliary ones
  const std::vector<Bound>& bounds() const { return bounds_; }

 private:
  Block block_;
  std::vector<Place> places_;
  std::vector<StartRow> start_;
  std::vector<int> filled_;
  std::vector<Index> judged_;
  std::vector<Bound> bounds_;
};

}  // namespace msem
