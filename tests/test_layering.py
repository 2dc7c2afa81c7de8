"""The shape of the source: what may import what, how long a file may be, and the map in the README."""

import ast
import graphlib
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "msem"
SOURCES = sorted(
    path
    for folder in ("python", "cpp", "tests", "bench")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".pyi", ".lark", ".cpp", ".hpp", ".R"}
)
LANGUAGE = ("errors", "version", "distributions", "expressions", "terms", "grammar", "syntax")
TABLE = ("levels", "drafts", "defaults", "sharing", "partable", "special_tables")
SAMPLE = ("data", "screening", "sample", "statistics", "demo", "levelarrays", "gamma", "covariance")
MOMENTS = ("momentchecks", "moments", "saturated", "single")
ESTIMATION = ("model", "objective", "starting", "optimize", "restarts", "estimation", "inference", "checks")
DISCREPANCY = ("discrepancy", "uls")
OUTPUT = (
    "fitmeasures",
    "residuals",
    "standardized",
    "tables",
    "sections",
    "summary",
    "summary_text",
    "summary_html",
)
USER = (
    "options",
    "reporting",
    "fitting",
    "fit",
    "levelfit",
    "segregated",
    "samples",
    "api",
    "levelwise",
    "compare",
)
COMMAND = ("cli", "__main__")
FLOW = (
    LANGUAGE + TABLE + SAMPLE + MOMENTS + ESTIMATION + DISCREPANCY + OUTPUT + USER + COMMAND
)  # imports go left only


def imported(tree):
    """Modules of the package that a module imports anywhere, inside functions too.

    A public name taken from the package itself counts as "msem": that would go round through the top.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (top(alias.name) for alias in node.names if alias.name.split(".")[0] == "msem")
        elif isinstance(node, ast.ImportFrom):
            name = ".".join(part for part in ("msem" if node.level else "", node.module or "") if part)
            if name == "msem":
                yield from (top(f"msem.{alias.name}") for alias in node.names)
            elif name.startswith("msem."):
                yield top(name)


def top(name):
    """Name of the module below the package, or "msem" where there is none; "_core" for the extension."""
    module = name.split(".")[1] if "." in name else "msem"
    return module if module in (*FLOW, "_core") else "msem"


def test_every_module_has_a_place_in_the_flow():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(FLOW)


@pytest.mark.parametrize("path", [p for p in PACKAGE.glob("*.py") if p.stem in FLOW], ids=lambda p: p.stem)
def test_modules_import_only_upstream(path):
    allowed = FLOW[: FLOW.index(path.stem)]
    assert set(imported(ast.parse(path.read_text()))) <= {*allowed, "_core"}


SPELLINGS = (
    *("import msem.fit", "from msem.fit import Fit", "from msem import fit"),
    *("from .fit import Fit", "from . import fit"),
)


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_an_import_is_seen(text):
    assert list(imported(ast.parse(f"def f():\n    {text}"))) == ["fit"]


@pytest.mark.parametrize("text", ["import msem", "from msem import sem", "from . import sem"])
def test_going_through_the_package_is_seen(text):
    assert list(imported(ast.parse(text))) == ["msem"]


def test_foreign_imports_are_not_counted():
    assert not list(imported(ast.parse("import numpy.fit\nfrom scipy import optimize")))


def test_core_includes_run_one_way():
    local = re.compile(r'^#include "(\w+\.hpp)"', re.MULTILINE)
    graph = {path.name: local.findall(path.read_text()) for path in (ROOT / "cpp").glob("*.hpp")}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_only_the_bindings_know_python():
    files = [path for path in (ROOT / "cpp").iterdir() if not path.name.startswith("bind")]
    assert not [path.name for path in files if re.search(r"pybind11|Python\.h", path.read_text())]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def code_lines(function):
    """Lines of a function that hold code: no docstring, no blank or comment line, no signature."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return len({line for statement in body for node in ast.walk(statement) for line in spanned(node)})


def spanned(node):
    return range(node.lineno, node.end_lineno + 1) if hasattr(node, "lineno") else ()


def test_functions_are_short():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    trees = [ast.parse(path.read_text()) for path in PACKAGE.glob("*.py")]
    lengths = [code_lines(node) for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    assert max(lengths) <= 60
    assert statistics.median(lengths) <= 8
    assert sum(n <= 30 for n in lengths) >= 0.95 * len(lengths)


def test_readme_maps_the_source():
    """README names every source file (tests of a module excepted), and no file that does not exist."""
    text = re.sub(r"(\w+)\.\{(\w+),(\w+)\}", r"\1.\2 \1.\3", (ROOT / "README.md").read_text())
    named = set(re.findall(r"\w+\.(?:pyi|py|lark|cpp|hpp|R)\b", text))
    names = {path.name for path in SOURCES}
    assert {name for name in names if not name.startswith("test_")} <= named
    assert named <= names
