// Statistics built up from blocks of rows: convert, release the GIL, compute, build the result.
#include "data/accumulate.hpp"

#include <optional>

#include "bind/typed.hpp"
#include "data/identifiers.hpp"

namespace {

using Codes = py::array_t<std::int64_t, py::array::c_style>;
using Rows = py::array_t<double, py::array::c_style>;
using msem::Accumulator;
using msem::Identifiers;

template <class T>
py::array_t<T> copied(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

Codes number(Identifiers& identifiers, const py::array& ids) {
  const msem::TypedColumn column = typed_column(ids, ids.size());
  if (column.number == msem::Number::f64 || column.number == msem::Number::f32)
    throw std::invalid_argument("ids must be whole numbers");
  Codes codes(ids.size());
  std::int64_t* out = codes.mutable_data();
  const py::ssize_t count = ids.size();
  {
    py::gil_scoped_release unlocked;
    identifiers.number(column, count, out);
  }
  return codes;
}

msem::CodedRows coded_rows(const std::vector<py::array>& columns, const Codes& codes) {
  msem::CodedRows rows{{}, codes.data(), codes.size()};
  for (const py::array& one : columns) rows.columns.push_back(typed_column(one, codes.size()));
  return rows;
}

py::array_t<bool> rows_complete(const std::vector<py::array>& columns, const Codes& codes, int threads) {
  const msem::CodedRows rows = coded_rows(columns, codes);
  std::vector<std::uint8_t> found;
  {
    py::gil_scoped_release unlocked;
    found = msem::complete_rows(rows, threads);
  }
  py::array_t<bool> out(codes.size());
  std::copy(found.begin(), found.end(), out.mutable_data());
  return out;
}

py::dict add_rows(Accumulator& sums, const std::vector<py::array>& columns, const Codes& codes,
                  py::ssize_t nclusters, int threads, const std::optional<Rows>& weights) {
  if (static_cast<py::ssize_t>(columns.size()) != sums.size())
    throw std::invalid_argument("wrong number of columns");
  if (weights && weights->size() != codes.size()) throw std::invalid_argument("weights are one for each row");
  msem::CodedRows rows = coded_rows(columns, codes);
  if (weights) rows.weights = weights->data();
  msem::RowReport report;
  {
    py::gil_scoped_release unlocked;
    report = sums.add(rows, nclusters, threads);
  }
  py::dict out;
  out["used"] = report.used;
  out["incomplete"] = report.incomplete;
  out["no_cluster"] = report.no_cluster;
  out["missing"] = report.missing;
  out["infinite"] = report.infinite;
  out["first_infinite"] = report.first_infinite;
  return out;
}

bool column_is_finite(const py::array& array) {
  const msem::TypedColumn column = typed_column(array, array.size());
  const py::ssize_t count = array.size();
  py::gil_scoped_release unlocked;
  return msem::all_finite(column, count, 0);
}

void require_rows(const Rows& array, py::ssize_t rows, py::ssize_t columns) {
  if (array.ndim() != 2 || array.shape(0) != rows || array.shape(1) != columns)
    throw std::invalid_argument("statistics of clusters do not fit together");
}

void add_clusters(Accumulator& sums, const Codes& codes, py::ssize_t nclusters, const Rows& sizes,
                  const Rows& means, const std::optional<Rows>& within, const Eigen::VectorXd& origin,
                  const Eigen::MatrixXd& ssw, const std::optional<Rows>& tally) {
  const py::ssize_t J = codes.size(), p = sums.size(), elements = p * (p + 1) / 2;
  if (sizes.size() != J || origin.size() != p || ssw.rows() != p || ssw.cols() != p)
    throw std::invalid_argument("statistics of clusters do not fit together");
  require_rows(means, J, p);
  if (sums.keeps() && !within) throw std::invalid_argument("products within clusters are missing");
  if (within) require_rows(*within, J, elements);
  if (sums.tallies() && !tally) throw std::invalid_argument("the tally of the clusters is missing");
  if (tally) require_rows(*tally, J, 2);
  const double* products = within ? within->data() : nullptr;
  const double* counted = tally ? tally->data() : nullptr;
  const msem::CodedClusters clusters{codes.data(),
                                     {sizes.data(), J},
                                     {means.data(), J, p},
                                     {products, products ? J : 0, elements},
                                     origin,
                                     ssw,
                                     {counted, counted ? J : 0, 2}};
  py::gil_scoped_release unlocked;
  sums.add_clusters(clusters, nclusters);
}

py::dict finish(Accumulator& sums) {
  msem::SizeTable table;
  std::vector<std::int64_t> codes;
  Eigen::MatrixXd ssw;
  {
    py::gil_scoped_release unlocked;
    sums.finish();
    table = sums.table();
    codes = sums.codes();
    ssw = sums.ssw();
  }
  const py::ssize_t S = table.sizes.size(), p = sums.size();
  py::dict out;
  out["codes"] = copied(codes);
  out["sizes"] = table.sizes;
  out["counts"] = table.counts;
  out["means"] = table.means;
  out["scatter"] = py::array_t<double>({S, p, p}, table.scatter.data());
  out["ssw"] = ssw;
  return out;
}

}  // namespace

void bind_accumulate(py::module_& m) {
  m.def("all_finite", &column_is_finite, py::arg("column"), "Whether no value is missing or infinite.");
  m.def("complete_rows", &rows_complete, py::arg("columns"), py::arg("codes"), py::arg("threads") = 0,
        "Which rows have a cluster, a code that is not negative, and all values.");
  py::class_<Identifiers>(m, "Identifiers", "Whole numbers as ids, numbered in order of first appearance.")
      .def(py::init<>())
      .def("__len__", [](const Identifiers& self) { return self.ids().size(); })
      .def("number", &number, py::arg("ids"), "Codes of ids; new ones get the next codes.")
      .def("ids", [](const Identifiers& self) { return copied(self.ids()); }, "The ids by code.");
  py::class_<Accumulator>(m, "Accumulator", "Statistics of clusters, built up in one pass.")
      .def(py::init<py::ssize_t, bool, bool>(), py::arg("nvariables"), py::arg("keep_within"),
           py::arg("tally") = false)
      .def("add", &add_rows, py::arg("columns"), py::arg("codes"), py::arg("nclusters"),
           py::arg("threads") = 0, py::arg("weights") = py::none(),
           "Add complete rows that have a cluster (a code that is not negative); what became of the rows.")
      .def("add_clusters", &add_clusters, py::arg("codes"), py::arg("nclusters"), py::arg("sizes"),
           py::arg("means"), py::arg("within"), py::arg("origin"), py::arg("ssw"),
           py::arg("tally") = py::none(), "Add clusters that have statistics already.")
      .def("finish", &finish,
           "Statistics by cluster size, means less the origin, and the codes of the clusters that have rows.")
      .def_property_readonly("origin", &Accumulator::origin)
      .def_property_readonly("keeps", &Accumulator::keeps, "Whether products within clusters are kept.")
      .def("sizes", &Accumulator::sizes, "After `finish`: sizes of the clusters that have rows.")
      .def("means", &Accumulator::means, "After `finish`: their means less the origin.")
      .def("tally", &Accumulator::tally,
           "After `finish`: rows of each cluster, and the sum of their squared weights.")
      .def("within", &Accumulator::within, "After `finish`: their products, lower triangle by columns.");
}
