// Levels of parameter tables, read as Python has them.
#include "fit/table.hpp"

#include "bind/bind.hpp"

using namespace msem;

namespace {

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// The fields of `Parameter` by position.
enum Field {
  kLhs = 0,
  kOp,
  kRhs,
  kFree = 5,
  kValue,
  kStart,
  kLower,
  kUpper,
  kGiven = 11,
  kSlope = 13,
  kFields
};

Operator operator_of(PyObject* text) {
  if (!PyUnicode_Check(text)) throw std::invalid_argument("an operator is a text");
  const auto is = [text](const char* op) { return PyUnicode_CompareWithASCIIString(text, op) == 0; };
  if (is("~~")) return Operator::kCovariance;
  if (is("=~")) return Operator::kMeasures;
  if (is("~1")) return Operator::kIntercept;
  if (is("~")) return Operator::kRegression;
  if (is("|")) return Operator::kThreshold;
  if (is("~*~")) return Operator::kScale;
  throw std::invalid_argument("a row has an operator of the language");
}

double number_of(PyObject* x) {
  const double out = x == Py_None ? kMissing : PyFloat_AsDouble(x);
  if (out == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return out;
}

int integer_of(PyObject* x) {
  const long out = PyLong_AsLong(x);
  if (out == -1 && PyErr_Occurred()) throw py::error_already_set();
  return static_cast<int>(out);
}

// Positions of names.
class Numbers {
 public:
  explicit Numbers(const py::tuple& names) : Numbers(names, static_cast<int>(names.size())) {}
  Numbers(const py::tuple& names, int count) {
    for (int k = 0; k < count; ++k) {
      const py::int_ number(k);
      if (PyDict_SetItem(at_.ptr(), PyTuple_GET_ITEM(names.ptr(), k), number.ptr()))
        throw py::error_already_set();
    }
  }
  int operator[](PyObject* name) const {
    PyObject* found = PyDict_GetItemWithError(at_.ptr(), name);
    if (!found && PyErr_Occurred()) throw py::error_already_set();
    if (!found) throw std::invalid_argument("a row has variables of its block");
    return integer_of(found);
  }
  bool operator()(PyObject* name) const { return PyDict_Contains(at_.ptr(), name) == 1; }

 private:
  py::dict at_;
};

TableRow row_of(PyObject* row, const Numbers& variables, const Numbers& products) {
  if (!PyTuple_Check(row) || PyTuple_GET_SIZE(row) < kFields)
    throw std::invalid_argument("rows are those of a parameter table");
  const auto field = [row](Field k) { return PyTuple_GET_ITEM(row, k); };
  TableRow out{};
  out.op = operator_of(field(kOp));
  const bool of_pair = out.op <= Operator::kCovariance;
  out.lhs = variables[field(kLhs)];
  out.rhs = of_pair ? variables[field(kRhs)] : -1;
  out.parameter = integer_of(field(kFree)) - 1;
  out.value = number_of(field(kValue));
  out.start = number_of(field(kStart));
  out.lower = number_of(field(kLower));
  out.upper = number_of(field(kUpper));
  out.given = PyObject_IsTrue(field(kGiven)) == 1;
  out.product = PyObject_IsTrue(field(kSlope)) == 1 ? products[field(kSlope)] : -1;
  return out;
}

std::shared_ptr<TableBlock> make_block(const py::tuple& table, const py::tuple& members,
                                       const py::tuple& names, int nobserved, const py::tuple& exposed,
                                       const py::tuple& slopes, int nproducts, const py::tuple& auxiliary) {
  BlockShape shape{nobserved, static_cast<int>(names.size()),  {},
                   nproducts, static_cast<int>(slopes.size()), {}};
  if (nobserved < 0 || nobserved > shape.nvariables || nproducts < 0 || nproducts > shape.nslopes)
    throw std::invalid_argument("a block has its observed variables and its products");
  const Numbers variables(names), products(slopes, nproducts), without(auxiliary);
  for (const py::handle name : exposed) shape.exposed.push_back(variables[name.ptr()]);
  for (const py::handle name : names) shape.auxiliary.push_back(without(name.ptr()));
  std::vector<TableRow> rows;
  rows.reserve(members.size());
  for (const py::handle i : members) {
    PyObject* row = PyTuple_GetItem(table.ptr(), integer_of(i.ptr()));
    if (!row) throw py::error_already_set();
    rows.push_back(row_of(row, variables, products));
  }
  return std::make_shared<TableBlock>(rows, shape);
}

// Numbers of rows among those of the table that stand in the matrices; matrices; where there, to and from.
py::tuple places_of(const TableBlock& self) {
  const auto& places = self.places();
  const Index n = static_cast<Index>(places.size());
  using Integers = py::array_t<std::int64_t>;
  Integers row(n), slot(n), to(n), from(n);
  for (Index i = 0; i < n; ++i) {
    row.mutable_at(i) = places[i].row;
    slot.mutable_at(i) = static_cast<int>(places[i].slot);
    to.mutable_at(i) = places[i].to;
    from.mutable_at(i) = places[i].from;
  }
  return py::make_tuple(row, slot, to, from);
}

}  // namespace

void bind_table(py::module_& m) {
  using namespace py::literals;
  py::class_<TableBlock, std::shared_ptr<TableBlock>>(m, "TableBlock")
      .def(py::init(&make_block), "table"_a, "members"_a, "names"_a, "nobserved"_a, "exposed"_a, "slopes"_a,
           "nproducts"_a, "auxiliary"_a)
      .def_property_readonly("block", &TableBlock::block)
      .def("places", &places_of);
}
