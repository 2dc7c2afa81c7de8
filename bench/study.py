"""What simulations and timings share: command line, replications on all cores, tables with what they depend on."""

from __future__ import annotations

import argparse
import csv
import datetime
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import msem

RESULTS = Path(__file__).parent / "results"
Row = Mapping[str, Any]
Job = TypeVar("Job")
Found = TypeVar("Found")


def command_line(doc: str | None, name: str, **numbers: float) -> argparse.ArgumentParser:
    """A parser with an option for each number, such as ``--replications 500``, and the file of results by its name."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in numbers.items():
        parser.add_argument(f"--{option}", type=type(default), default=default)
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.csv")
    return parser


def simulation(doc: str | None, name: str, replications: int) -> argparse.Namespace:
    """The command line of a simulation: replications, seed, workers and output."""
    workers = os.cpu_count() or 1
    parser = command_line(doc, name, replications=replications, seed=1, workers=workers)
    return parser.parse_args()


def replicated(replicate: Callable[[Job], Found], jobs: Sequence[Job], workers: int) -> list[Found]:
    """What every job gives, in their order; says how long they took."""
    begin = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found = list(pool.imap(replicate, jobs, chunksize=10))
    print(f"{len(jobs)} samples in {time.perf_counter() - begin:.0f} s")
    return found


def machine() -> dict[str, Any]:
    """What seconds depend on besides the programs."""
    return {
        "version": msem.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "os": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def drawn_with(seed: int) -> dict[str, Any]:
    """What simulated rates depend on."""
    return {"seed": seed, "msem": msem.__version__, "python": platform.python_version()}


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_table(rows: Iterable[Row], path: Path) -> None:
    """A CSV file with the columns of all rows, in the order in which they come first."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def show(rows: Sequence[Row]) -> str:
    """Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(rows: Sequence[Row], about: Row, path: Path) -> None:
    """Print the rows, and write them with what they depend on."""
    print(show(rows))
    write_table([{**row, **about} for row in rows], path)
