#include "model/expression.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <stdexcept>

namespace msem {

namespace {

constexpr std::array<const char*, 26> kNames = {
    "constant",  "parameter", "result", "negate", "+",    "-",     "*",   "/",    "^",
    "^constant", "abs",       "acos",   "asin",   "atan", "atanh", "cos", "cosh", "exp",
    "log",       "log10",     "log2",   "sin",    "sinh", "sqrt",  "tan", "tanh"};
constexpr double kLn2 = 0.69314718055994530941723212145818, kLn10 = 2.30258509299404568401799145468436;

bool is_binary(Op op) { return op >= Op::kAdd && op <= Op::kPower; }
bool is_leaf(Op op) { return op <= Op::kResult; }

// Value and first two derivatives of a function of one argument.
struct Scalar {
  double f, d, dd;
};

Scalar power(double x, double c) {
  // The factor decides: 0 * x^-1 is 0 at x = 0 too.
  const double d = c == 0 ? 0 : c * std::pow(x, c - 1);
  const double dd = c == 0 || c == 1 ? 0 : c * (c - 1) * std::pow(x, c - 2);
  return {std::pow(x, c), d, dd};
}

Scalar logarithm(double x, double base) { return {std::log(x) / base, 1 / (x * base), -1 / (x * x * base)}; }

Scalar magnitude(double x) {
  const double sign = x > 0 ? 1 : x < 0 ? -1 : std::numeric_limits<double>::quiet_NaN();
  return {std::abs(x), sign, 0 * sign};
}

Scalar arc_sine(double x) {
  const double rest = 1 - x * x, d = 1 / std::sqrt(rest);
  return {std::asin(x), d, x * d / rest};
}

Scalar apply(const Instruction& step, double x) {
  switch (step.op) {
    case Op::kNegate:
      return {-x, -1, 0};
    case Op::kConstantPower:
      return power(x, step.value);
    case Op::kAbs:
      return magnitude(x);
    case Op::kAsin:
      return arc_sine(x);
    case Op::kAcos: {
      const Scalar s = arc_sine(x);
      return {std::acos(x), -s.d, -s.dd};
    }
    case Op::kAtan: {
      const double d = 1 / (1 + x * x);
      return {std::atan(x), d, -2 * x * d * d};
    }
    case Op::kAtanh: {
      const double d = 1 / (1 - x * x);
      return {std::atanh(x), d, 2 * x * d * d};
    }
    case Op::kCos:
      return {std::cos(x), -std::sin(x), -std::cos(x)};
    case Op::kCosh:
      return {std::cosh(x), std::sinh(x), std::cosh(x)};
    case Op::kExp:
      return {std::exp(x), std::exp(x), std::exp(x)};
    case Op::kLog:
      return logarithm(x, 1);
    case Op::kLog10:
      return logarithm(x, kLn10);
    case Op::kLog2:
      return logarithm(x, kLn2);
    case Op::kSin:
      return {std::sin(x), std::cos(x), -std::sin(x)};
    case Op::kSinh:
      return {std::sinh(x), std::cosh(x), std::sinh(x)};
    case Op::kSqrt:
      return {std::sqrt(x), 0.5 / std::sqrt(x), -0.25 / (x * std::sqrt(x))};
    case Op::kTan: {
      const double t = std::tan(x);
      return {t, 1 + t * t, 2 * t * (1 + t * t)};
    }
    default: {
      const double t = std::tanh(x);
      return {t, 1 - t * t, -2 * t * (1 - t * t)};
    }
  }
}

double combine(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return a + b;
    case Op::kSubtract:
      return a - b;
    case Op::kMultiply:
      return a * b;
    case Op::kDivide:
      return a / b;
    default:
      return std::pow(a, b);
  }
}

void chain(Scalar s, Jet& x) {
  if (std::isnan(s.f)) s.d = s.dd = s.f;  // outside the domain the formulas of derivatives may have values
  if (x.hessian.size()) {
    x.hessian *= s.d;
    add_outer(x.hessian, s.dd, x.gradient, x.gradient);
  }
  x.gradient *= s.d;
  x.value = s.f;
}

void multiply(Jet& a, const Jet& b) {
  if (a.hessian.size()) {
    a.hessian = (a.value * b.hessian + b.value * a.hessian).eval();
    add_with_transpose(a.hessian, 1, outer(a.gradient, b.gradient));
  }
  a.gradient = (a.value * b.gradient + b.value * a.gradient).eval();
  a.value *= b.value;
}

void combine(Op op, Jet& a, Jet b) {
  switch (op) {
    case Op::kAdd:
    case Op::kSubtract: {
      const double sign = op == Op::kAdd ? 1 : -1;
      a.value += sign * b.value;
      a.gradient += sign * b.gradient;
      a.hessian += sign * b.hessian;
      return;
    }
    case Op::kMultiply:
      return multiply(a, b);
    case Op::kDivide:
      chain(power(b.value, -1), b);
      return multiply(a, b);
    default: {  // a^b = exp(b log a)
      const double value = std::pow(a.value, b.value);
      chain(logarithm(a.value, 1), a);
      multiply(a, b);
      chain({value, value, value}, a);
    }
  }
}

}  // namespace

Op op_named(const std::string& name) {
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<Op>(i);
  }
  throw std::invalid_argument("there is no operation '" + name + "'");
}

Expressions::Expressions(int npar, std::vector<Program> programs, int first)
    : npar_(npar), first_(first), programs_(std::move(programs)), variables_(programs_.size()) {
  const int count = static_cast<int>(programs_.size());
  if (first < 0 || first > count) throw std::invalid_argument("the first result must be one of the programs");
  for (int i = 0; i < count; ++i) {
    check(programs_[i], i);
    collect_variables(i);
  }
}

Expressions Expressions::extended(int npar, const std::vector<Program>& more) const {
  std::vector<Program> all = programs_;
  all.insert(all.end(), more.begin(), more.end());
  return Expressions(npar, std::move(all), first_);
}

void Expressions::check(const Program& program, int at) const {
  int depth = 0;
  for (const Instruction& step : program) {
    const int limit = step.op == Op::kParameter ? npar_ : step.op == Op::kResult ? at : 1;
    if (is_leaf(step.op) && step.op != Op::kConstant && (step.index < 0 || step.index >= limit))
      throw std::invalid_argument("a program refers to a parameter or result that is not there");
    const int needs = is_leaf(step.op) ? 0 : is_binary(step.op) ? 2 : 1;
    if (depth < needs) throw std::invalid_argument("a program lacks an operand");
    depth += 1 - needs;
  }
  if (depth != 1) throw std::invalid_argument("a program must leave one value");
}

void Expressions::collect_variables(int at) {
  std::set<int> found;
  for (const Instruction& step : programs_[at]) {
    if (step.op == Op::kParameter) found.insert(step.index);
    if (step.op == Op::kResult) found.insert(variables_[step.index].begin(), variables_[step.index].end());
  }
  variables_[at].assign(found.begin(), found.end());
}

void Expressions::require_length(Index length) const {
  if (length != npar_) throw std::invalid_argument("there must be one value per parameter");
}

Matrix Expressions::values_of_rows(const Matrix& thetas) const {
  require_length(thetas.cols());
  const Index count = static_cast<Index>(programs_.size());
  Matrix out(thetas.rows(), size());
  std::vector<double> results(count), stack;
  for (Index row = 0; row < thetas.rows(); ++row) {
    for (Index i = 0; i < count; ++i) {
      stack.clear();
      for (const Instruction& step : programs_[i]) {
        if (step.op == Op::kConstant) {
          stack.push_back(step.value);
        } else if (step.op == Op::kParameter) {
          stack.push_back(thetas(row, step.index));
        } else if (step.op == Op::kResult) {
          stack.push_back(results[step.index]);
        } else if (is_binary(step.op)) {
          const double b = stack.back();
          stack.pop_back();
          stack.back() = combine(step.op, stack.back(), b);
        } else {
          stack.back() = apply(step, stack.back()).f;
        }
      }
      results[i] = stack.back();
      if (i >= first_) out(row, i - first_) = results[i];
    }
  }
  return out;
}

Vector Expressions::values(ConstVectorRef theta) const {
  return values_of_rows(theta.transpose()).row(0).transpose();
}

std::vector<Jet> Expressions::jets(ConstVectorRef theta, bool second) const {
  require_length(theta.size());
  std::vector<Jet> results(programs_.size());
  for (std::size_t i = 0; i < programs_.size(); ++i) {
    const std::vector<int>& mine = variables_[i];
    const Index k = static_cast<Index>(mine.size());
    const auto local = [&](int parameter) {
      return std::lower_bound(mine.begin(), mine.end(), parameter) - mine.begin();
    };
    std::vector<Jet> stack;
    for (const Instruction& step : programs_[i]) {
      if (is_leaf(step.op)) {
        Jet leaf{step.value, Vector::Zero(k), second ? Matrix::Zero(k, k) : Matrix()};
        if (step.op == Op::kParameter) {
          leaf.value = theta[step.index];
          leaf.gradient[local(step.index)] = 1;
        } else if (step.op == Op::kResult) {
          const Jet& from = results[step.index];
          std::vector<Index> to;
          for (const int parameter : variables_[step.index]) to.push_back(local(parameter));
          leaf.value = from.value;
          leaf.gradient(to) = from.gradient;
          if (second) leaf.hessian(to, to) = from.hessian;
        }
        stack.push_back(std::move(leaf));
      } else if (is_binary(step.op)) {
        Jet b = std::move(stack.back());
        stack.pop_back();
        combine(step.op, stack.back(), std::move(b));
      } else {
        chain(apply(step, stack.back().value), stack.back());
      }
    }
    results[i] = std::move(stack.back());
  }
  return {std::make_move_iterator(results.begin() + first_), std::make_move_iterator(results.end())};
}

Matrix Expressions::jacobian(ConstVectorRef theta) const {
  const std::vector<Jet> all = jets(theta, false);
  Matrix out = Matrix::Zero(size(), npar_);
  for (int i = 0; i < size(); ++i) out(i, variables(i)) = all[i].gradient.transpose();
  return out;
}

Matrix Expressions::curvature(ConstVectorRef theta, const Vector& weights) const {
  if (weights.size() != size()) throw std::invalid_argument("there must be one weight per result");
  const std::vector<Jet> all = jets(theta, true);
  Matrix out = Matrix::Zero(npar_, npar_);
  for (int i = 0; i < size(); ++i) {
    if (weights[i] != 0) out(variables(i), variables(i)) += weights[i] * all[i].hessian;
  }
  symmetrise(out);
  return out;
}

}  // namespace msem
