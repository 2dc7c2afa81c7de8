"""What a checkout is made of, counted: modules, kinds told apart from outside, calls into the core.

`python bench/structure.py [CHECKOUT ...] [--out FILE]` prints a row for each figure and a column for each checkout. A
checkout has to be importable: its core stands in `python/msem/`, or is installed where this Python finds it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

# what only code that knows of exactly two levels has reason to say
TWO_LEVELS = re.compile(r"nboth|within_only|between_only|\.within\b|\.between\b|nlevels [!=]= [12]")
TWO_LEVELS_CORE = re.compile(r"\.within\b|\.between\b|cov_w|cov_b|nboth|\.ww|\.bb|\bwb\b")
KINDS = re.compile(r"isinstance\([^)]*(?:Statistics|Moments|Given)\b")

# run in another process, with the package of the checkout: prints the figures of one fit and its summary
RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import msem

model = '''
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
'''
data = msem.load_demo()
entered, calls = set(), 0


def counted(method):
    def call(*given, **named):
        global calls
        calls += 1
        return method(*given, **named)

    return call


def watch(frame, event, arg):
    if event == "call":
        name = frame.f_globals.get("__name__", "")
        if name.startswith("msem."):
            entered.add(name)


for name, method in list(vars(msem._core.Objective).items()):
    if not name.startswith("_") and callable(method):
        setattr(msem._core.Objective, name, counted(method))
sys.setprofile(watch)
fit = msem.sem(model, data, cluster="cluster")
before = calls
fit.summary(fit_measures=True)
sys.setprofile(None)
print(json.dumps({"entered": len(entered), "calls": calls - before}))
"""


def files(root: Path, *suffixes: str) -> dict[Path, str]:
    """Text of every file below a folder with one of these suffixes."""
    return {path: path.read_text() for path in root.rglob("*") if path.suffix in suffixes and path.is_file()}


def run(checkout: Path) -> dict[str, int]:
    """Modules entered by a fit with its summary, and calls of the objective by the summary."""
    where = os.pathsep.join([str(checkout / "python"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        check=True,
    )
    out: dict[str, int] = json.loads(done.stdout)
    return out


def figures(checkout: Path) -> dict[str, int]:
    """The figures of a checkout."""
    python = files(checkout / "python" / "msem", ".py")
    core = files(checkout / "cpp", ".cpp", ".hpp")
    measured = run(checkout)
    return {
        "modules (Python)": sum(path.stem != "__init__" for path in python),
        "lines (Python)": sum(len(text.splitlines()) for text in python.values()),
        "files (core)": len(core),
        "lines (core)": sum(len(text.splitlines()) for text in core.values()),
        "modules entered by sem(...).summary(fit_measures=True)": measured["entered"],
        "calls of the objective by a summary": measured["calls"],
        "isinstance on statistics": sum(len(KINDS.findall(text)) for text in python.values()),
        "dynamic_cast": sum(text.count("dynamic_cast<") for text in core.values()),
        "modules that know of two levels": sum(bool(TWO_LEVELS.search(text)) for text in python.values()),
        "files of the core that know of two levels": sum(
            bool(TWO_LEVELS_CORE.search(text)) for text in core.values()
        ),
    }


def main() -> None:
    """Read the command line, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    parser.add_argument("--names", nargs="*", help="of the checkouts, for the head of the table")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = given.names or [path.resolve().name for path in given.checkouts]
    columns = [figures(path.resolve()) for path in given.checkouts]
    rows = [["figure", *names], *([name, *(str(one[name]) for one in columns)] for name in columns[0])]
    for row in rows:
        print(f"{row[0]:60}" + "".join(f"{value:>12}" for value in row[1:]))
    if given.out:
        with given.out.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
