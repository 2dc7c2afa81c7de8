"""The shape of the source: what may import what, with the order found in the imports themselves."""

import ast
import graphlib
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "msem"
CORE = ROOT / "cpp"


def module_name(path):
    """Dotted name below the package; that of the package itself is "msem"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "msem"


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = sorted(name for name, path in FILES.items() if path.stem != "__init__")


def imported(tree):
    """Modules of the package that a module imports anywhere, inside functions too.

    What is taken from a package rather than from one of its modules counts as that package: it would go round through
    the top. So do relative imports, which the package does not use.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (below(alias.name) for alias in node.names if alias.name.split(".")[0] == "msem")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "msem"
            elif node.module and node.module.split(".")[0] == "msem":
                yield from (below(node.module, alias.name) for alias in node.names)


def below(*names):
    """The longest part of a dotted name that is a module, below the package; "msem" for the package itself."""
    parts = ".".join(names).split(".")[1:]
    while parts and ".".join(parts) not in FILES and not parts[0].startswith("_core"):
        parts = parts[:-1]
    return ".".join(parts) or "msem"


def graph_of_modules():
    return {name: set(imported(ast.parse(FILES[name].read_text()))) for name in MODULES}


def folded(graph, group):
    """The graph between groups of its nodes."""
    out = defaultdict(set)
    for node, others in graph.items():
        out[group(node)] |= {group(other) for other in others} - {group(node)}
    return out


def circle(graph):
    """Names along a circle of a graph; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_modules_import_without_circles():
    assert not circle(graph_of_modules())


def test_packages_import_without_circles():
    """A package is a stage: if it imports from another one, that one takes nothing from it."""
    packages = {name.split(".")[0] for name in MODULES if "." in name}
    graph = {n: others for n, others in graph_of_modules().items() if n.split(".")[0] in packages}
    assert not circle(folded(graph, lambda name: name.split(".")[0]))


def test_modules_import_from_modules():
    """Not from the top, and not from a package, which would make the order of imports matter."""
    doors = {name for name, path in FILES.items() if path.stem == "__init__"}
    for name, others in graph_of_modules().items():
        assert not others & doors, name


def test_packages_import_nothing_themselves():
    for name, path in FILES.items():
        if path.stem == "__init__" and name != "msem":
            assert not list(imported(ast.parse(path.read_text()))), name


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


def test_a_circle_is_seen():
    assert circle({"a.x": {"b.y"}, "b.y": {"a.z"}, "a.z": set()}) == []
    assert circle(folded({"a.x": {"b.y"}, "b.y": {"a.z"}, "a.z": set()}, lambda name: name[0]))


def includes():
    """Files of the core, by path below cpp/, and those of its own that each includes."""
    local = re.compile(r'^#include "([\w/]+\.hpp)"', re.MULTILINE)
    files = [path for path in CORE.rglob("*") if path.suffix in {".cpp", ".hpp"}]
    return {
        path.relative_to(CORE).as_posix(): {
            name for name in local.findall(path.read_text()) if name != path.with_suffix(".hpp").name
        }
        for path in files
    }


def test_core_includes_run_one_way():
    graph = includes()
    assert {name for others in graph.values() for name in others} <= set(graph)
    assert not circle({name: others for name, others in graph.items() if name.endswith(".hpp")})
    assert not circle(folded(graph, lambda name: name.split("/")[0]))


def test_only_the_bindings_know_python():
    files = [path for path in CORE.rglob("*.[ch]pp") if path.parent.name != "bind"]
    assert files
    assert not [path.name for path in files if re.search(r"pybind11|Python\.h", path.read_text())]


FREE = re.compile(r"^[A-Za-z_][\w:<>,&* ]*?[ &*](\w+)\(", re.MULTILINE)


def test_functions_that_are_bound_by_address_have_names_of_their_own():
    """The bindings are compiled several files at a time, where a name of two functions has no address."""
    texts = {path: path.read_text() for path in (*CORE.rglob("*.hpp"), *(CORE / "bind").glob("*.cpp"))}
    where = defaultdict(set)
    for path, text in texts.items():
        for name in FREE.findall(text):
            where[name].add(path.name)
    assert {"clusters_by_size", "bind_statistics"} <= set(where)
    for text in texts.values():
        for name in re.findall(r'\.def\("\w+", &(\w+)[,)]', text):
            assert len(where[name]) == 1, (name, where[name])


def test_the_core_asks_no_object_for_its_kind():
    """What differs between kinds of data is a virtual function."""
    assert not [path.name for path in CORE.rglob("*.[ch]pp") if "dynamic_cast" in path.read_text()]


def test_one_place_makes_threads():
    makes = re.compile(r"std::(thread|jthread|async)\b|pthread_create|#pragma omp")
    files = [path for path in CORE.rglob("*.[ch]pp") if makes.search(path.read_text())]
    assert [path.relative_to(CORE).as_posix() for path in files] == ["base/threads.cpp"]


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
