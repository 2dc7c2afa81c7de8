// Functions of the parameters, as written in constraints and definitions: postfix programs evaluated with
// value, gradient and second derivatives in forward mode, exact to rounding (Griewank & Walther, 2008,
// Evaluating Derivatives, ch. 3 and 13).
#pragma once

#include <string>

#include "base/linalg.hpp"

namespace msem {

enum class Op : int {
  kConstant,
  kParameter,
  kResult,  // of an earlier program
  kNegate,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kPower,
  kConstantPower,  // exponent in `value`: also for a negative base
  kAbs,
  kAcos,
  kAsin,
  kAtan,
  kAtanh,
  kCos,
  kCosh,
  kExp,
  kLog,
  kLog10,
  kLog2,
  kSin,
  kSinh,
  kSqrt,
  kTan,
  kTanh
};

// By the name that the language has for it; throws std::invalid_argument for any other.
Op op_named(const std::string& name);

struct Instruction {
  Op op;
  int index;     // of the parameter or the earlier program
  double value;  // constant or exponent
};

using Program = std::vector<Instruction>;

// A function near a point: second derivatives are empty when only the gradient was asked for. Outside the
// domain of a function (log of a negative number) everything is NaN.
struct Jet {
  double value = 0;
  Vector gradient;
  Matrix hessian;
};

// Several functions of one parameter vector. Programs before `first` serve the others and are not results.
class Expressions {
 public:
  Expressions() = default;
  Expressions(int npar, std::vector<Program> programs, int first = 0);

  // The same and more results as functions of further parameters, which come last.
  Expressions extended(int npar, const std::vector<Program>& more) const;

  int npar() const { return npar_; }
  int size() const { return static_cast<int>(programs_.size()) - first_; }
  // Parameters that result i depends on, ascending.
  const std::vector<int>& variables(int i) const { return variables_.at(first_ + i); }

  Vector values(ConstVectorRef theta) const;
  // One row of results for each row of parameters.
  Matrix values_of_rows(const Matrix& thetas) const;
  // size x npar
  Matrix jacobian(ConstVectorRef theta) const;
  // Value and derivatives of every result over its own variables.
  std::vector<Jet> jets(ConstVectorRef theta) const { return jets(theta, true); }
  // Sum of weighted second derivatives, npar x npar.
  Matrix curvature(ConstVectorRef theta, const Vector& weights) const;

 private:
  void check(const Program& program, int at) const;
  void collect_variables(int at);
  std::vector<Jet> jets(ConstVectorRef theta, bool second) const;
  void require_length(Index length) const;

  int npar_ = 0, first_ = 0;
  std::vector<Program> programs_;
  std::vector<std::vector<int>> variables_;  // of every program
};

}  // namespace msem
