"""Time one revision of msem against another: does HEAD take longer than BASE, or fit otherwise?

    python bench/compare.py main~5 main
    python bench/compare.py HEAD .          # the working tree
    python bench/compare.py main . --cases demo wide tiny --repeats 9 --relative 1.05 --absolute 0.002

Each revision is installed into a directory of its own (kept by commit in `--builds`; the working tree is always built
again) and used with the other packages of this Python, which needs some msem to draw the data. Every repeat times both,
in turn first, in processes of their own. Fails (status 1) where the median of the paired ratios exceeds `--relative`
and that of the paired differences exceeds `--absolute`, or where the log-likelihoods differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
USUAL = ("demo", "sizes400", "wide", "tiny", "demo_holes", "single")
REFITS, ENOUGH = 25, 1.0  # fits of a process: so many at most, until so many seconds have passed

CHILD = f"""
import json, statistics, sys, time
import pandas as pd
import msem
model, data, missing = open(sys.argv[1]).read(), pd.read_csv(sys.argv[2]), sys.argv[3]
cluster = "cluster" if "cluster" in data.columns else None
def fit():
    found = msem.sem(model, data, cluster=cluster, missing=missing)
    found.summary(fit_measures=True)
    return found
llf = float(fit().llf)
times = []
while len(times) < {REFITS} and sum(times) < {ENOUGH}:
    start = time.perf_counter()
    fit()
    times.append(time.perf_counter() - start)
print(json.dumps({{"seconds": statistics.median(times), "logl": llf, "file": msem.__file__}}))
"""


@dataclass(frozen=True)
class Limits:
    """How much slower is too slow, and how far log-likelihoods may be apart."""

    relative: float = 1.10
    absolute: float = 0.005
    logl: float = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What the paired runs of a case say."""

    ratio: float
    lowest: float
    highest: float
    difference: float
    slower: bool
    differs: bool

    @property
    def text(self) -> str:
        """In a word or two."""
        found = [
            word for word, true in (("slower", self.slower), ("other log-likelihood", self.differs)) if true
        ]
        return ", ".join(found) or "ok"


def verdict(
    base: list[float], head: list[float], base_logl: float, head_logl: float, limits: Limits
) -> Verdict:
    """Judge paired seconds, and log-likelihoods to an absolute limit and to ten digits where they are large."""
    ratios = [after / before for before, after in zip(base, head, strict=True)]
    difference = statistics.median(after - before for before, after in zip(base, head, strict=True))
    ratio = statistics.median(ratios)
    allowed = max(limits.logl, 1e-10 * abs(base_logl))
    return Verdict(
        ratio,
        min(ratios),
        max(ratios),
        difference,
        slower=ratio > limits.relative and difference > limits.absolute,
        differs=not abs(head_logl - base_logl) <= allowed,  # also where one is nan
    )


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def build(revision: str, builds: Path, pip: list[str]) -> Path:
    """Directory with this revision installed."""
    commit = "tree" if revision == "." else git("rev-parse", f"{revision}^{{commit}}")
    place = builds / commit[:12]
    target, done = place / "site", place / "done"
    if commit != "tree" and done.exists():
        return target
    source = ROOT
    if commit != "tree":
        source = place / "source"
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", commit], check=True, stdout=subprocess.PIPE
        ).stdout
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    print(f"building {revision} in {place}", flush=True)
    options = [f"--config-settings=build-dir={place / 'build'}", "--target", str(target), "--upgrade", *pip]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *options, str(source)]
    subprocess.run(command, check=True, env=without_path())
    done.touch()
    return target


def without_path() -> dict[str, str]:
    """The environment without PYTHONPATH, which may lead to another msem."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def fitted(site: Path, files: list[str]) -> dict[str, Any]:
    """Seconds and log-likelihood of an installed revision on one case."""
    command = [sys.executable, "-c", CHILD, *files]
    environment = without_path() | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(found.pop("file")).is_relative_to(site):
        raise SystemExit(f"another msem than that in {site} was imported")
    return found


def paired(sites: tuple[Path, Path], files: list[str], repeats: int, limits: Limits) -> Verdict:
    """Run both sides of a case in alternation."""
    runs: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            runs[side].append(fitted(sites[side], files))
    base, head = ([run["seconds"] for run in found] for found in runs)
    return verdict(base, head, runs[0][-1]["logl"], runs[1][-1]["logl"], limits)


def arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="a revision of git, or . for the working tree")
    parser.add_argument("head", help="the same")
    parser.add_argument("--cases", nargs="+", choices=names, default=list(USUAL))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--relative", type=float, default=Limits.relative, help="ratio of times")
    parser.add_argument("--absolute", type=float, default=Limits.absolute, help="difference in seconds")
    parser.add_argument("--logl", type=float, default=Limits.logl, help="difference of log-likelihoods")
    parser.add_argument("--builds", type=Path, default=Path(tempfile.gettempdir()) / "msem-builds")
    parser.add_argument(
        "--pip", nargs="+", default=[], metavar="OPTION", help="e.g. --pip=--no-build-isolation"
    )
    return parser.parse_args()


def main() -> int:
    from cases import BY_NAME
    from run import write_case

    options = arguments(list(BY_NAME))
    limits = Limits(options.relative, options.absolute, options.logl)
    sites = tuple(build(revision, options.builds, options.pip) for revision in (options.base, options.head))
    bad = False
    print("| case | ratio | lowest | highest | difference, ms | verdict |\n" + "| --- " * 6 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for case in map(BY_NAME.__getitem__, options.cases):
            files = [*write_case(case, Path(folder)), case.missing]
            v = paired((sites[0], sites[1]), files, options.repeats, limits)
            cells = [f"{v.ratio:.3f}", f"{v.lowest:.3f}", f"{v.highest:.3f}", f"{1e3 * v.difference:+.2f}"]
            print(f"| {case.name} | {' | '.join(cells)} | {v.text} |", flush=True)
            bad = bad or v.slower or v.differs
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
