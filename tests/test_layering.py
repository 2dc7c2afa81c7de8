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
PACKAGES = {
    "": ("_core", "errors", "version", "distributions", "printing", "settings"),
    "language": ("expressions", "terms", "grammar", "syntax", "hypotheses"),
    "table": (
        *("levels", "drafts", "defaults", "groups", "invariance"),
        *("sharing", "partable", "auxiliary", "lookup", "special_tables", "functions"),
    ),
    "sample": (
        *(
            "screening",
            "columns",
            "identifiers",
            "frames",
            "grouping",
            "products",
            "sufficient",
            "statistics",
        ),
        *("incomplete", "cells", "roles", "patterns", "demo"),
        *("clustersums", "disclosure", "arrowdata", "storage", "clusterstatistics"),
        *("fromclusters", "chunks", "summary", "partitions", "summarize"),
    ),
    "moments": (
        *("arrays", "gamma", "covariance", "checks", "intraclass", "levelmoments"),
        *("robust", "saturated", "single"),
    ),
    "estimation": (
        *("constraints", "matrices", "objective", "samples", "starting", "optimize"),
        *("restarts", "estimate", "partial", "manyfits"),
    ),
    "inference": (
        *("scoreproducts", "sampling", "problems", "smallsamples", "discrepancy", "uls"),
        *("momentvector", "contributions", "momentspace", "scaling", "fitmeasures", "scaledmeasures"),
        *("multipliers", "residuals", "ram", "delta", "defined", "standardized"),
        *("unrestricted", "icc", "composites", "reliability", "paths", "effects"),
        *("candidates", "added", "releases", "scoretests", "modification"),
        *("wald", "comparable", "nested", "differences"),
        *("momentresiduals", "momenterrors", "residualrms", "levelmeasures"),
        *("projected", "missinginformation"),
    ),
    "resampling": (
        *("progress", "workers", "intervals", "reports", "named", "replicates", "refits"),
        *("targets",),
        *("jackknife", "bootstrap", "profile"),
    ),
    "simulation": ("population", "shapes", "designs", "drawn", "datasets", "sources"),
    "prediction": ("rows", "posterior", "frames", "factorscores", "distances", "influence"),
    "output": ("tables", "derived", "sections", "scaledsections", "summary", "text", "html"),
    "fits": (
        *("options", "choices", "measures", "solution", "robust", "constrained"),
        *("reporting", "scoretables", "testing", "hypotheses"),
        *("resampled", "profiled", "levelspecific", "residualtables", "quantities", "prediction"),
        *("missingness", "diagnostics", "fit", "levelfit", "segregated"),
        *("sources", "auxiliary", "fitting", "simultaneous", "levelwise"),
        *("compare", "model_comparison"),
        *("manyfits", "batches", "compiled", "simulate", "powergrid", "powerfile", "power"),
    ),
}
BUILDS = ("_core_baseline", "_core_avx2")  # of the extension module
LAST = ("cli", "__main__")
# each module imports only modules to its left
FLOW = (
    *(f"{package}.{name}".lstrip(".") for package, names in PACKAGES.items() for name in names),
    *LAST,
)


def imported(tree):
    """Modules of the package that a module imports anywhere, inside functions too.

    What is taken from a package rather than from one of its modules counts as "msem": that would go round
    through the top. So do relative imports, which the package does not use.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (below(alias.name) for alias in node.names if alias.name.split(".")[0] == "msem")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "msem"
            elif node.module and node.module.split(".")[0] == "msem":
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield below(whole) if below(whole) != "msem" else below(node.module)


def below(name):
    """Name of a module below the package, or "msem" where there is none."""
    module = name.partition(".")[2]
    return module if module in (*FLOW, *BUILDS) else "msem"


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.stem != "__init__")


def test_every_module_has_a_place_in_the_flow():
    assert {module_name(path) for path in MODULES} == set(FLOW)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_import_only_upstream(path):
    allowed = FLOW[: FLOW.index(module_name(path))]
    assert set(imported(ast.parse(path.read_text()))) <= {*allowed, *BUILDS}


def test_packages_import_nothing_themselves():
    for package in PACKAGES:
        if package:
            assert not list(imported(ast.parse((PACKAGE / package / "__init__.py").read_text())))


SPELLINGS = ("import msem.fits.fit", "from msem.fits.fit import Fit", "from msem.fits import fit")


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_an_import_is_seen(text):
    assert list(imported(ast.parse(f"def f():\n    {text}"))) == ["fits.fit"]


@pytest.mark.parametrize(
    "text", ["import msem", "from msem import sem", "from . import sem", "from .fit import Fit"]
)
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
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    lengths = [code_lines(node) for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    assert max(lengths) <= 60
    assert statistics.median(lengths) <= 8
    assert sum(n <= 30 for n in lengths) >= 0.95 * len(lengths)


def test_readme_maps_the_source():
    """README names every package and every file of the core."""
    text = (ROOT / "README.md").read_text()
    packages = {f"`{name}/`" for name in PACKAGES if name}
    core = {path.stem for path in (ROOT / "cpp").iterdir() if not path.name.startswith("bind")}
    assert not {name for name in packages if name not in text}
    assert not {name for name in core if not re.search(rf"`{name}\.", text)}
