"""Time many fits of the demonstration model, and the way from simulation to tidy frame.

    python bench/many_fits.py                # 2,000 fits, 1,000 replications, best of seven
    python bench/many_fits.py --repeats 3

Prints a Markdown table and writes `results/many_fits.csv`.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import msem
from cases import BY_NAME
from study import command_line, machine, report

SEED = 1
FITS, REPLICATIONS, ONE_BY_ONE = 2000, 1000, 100


def best(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Least seconds of processor and of clock over the repeats: other programs on the machine only add to them."""
    spent, passed = [], []
    for _ in range(repeats):
        begun, started = time.perf_counter(), time.process_time()
        work()
        spent.append(time.process_time() - started)
        passed.append(time.perf_counter() - begun)
    return min(spent), min(passed)


def one_by_one(text: str, samples: list[Any]) -> None:
    """Fits of `sem`, with their chi-square."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample in samples:
            msem.sem(text, sample).fit_measures()


def rows_of(repeats: int) -> list[dict[str, object]]:
    """One row for each task."""
    case = BY_NAME["demo"]
    fit = msem.sem(case.model, case.make(), cluster="cluster")
    model = msem.compile(case.model)
    drawn = msem.simulate(fit, seed=SEED, replications=FITS, as_="statistics")
    given = list(drawn)
    design = {"nclusters": [200], "cluster_sizes": [(5, 10, 15, 20)]}
    tasks: dict[str, tuple[int, int, Callable[[], Any]]] = {
        "fits, statistics given": (FITS, 1, lambda: model.fit_many(given, threads=1, progress=False).fits),
        "fits, statistics drawn": (FITS, 1, lambda: model.fit_many(drawn, threads=1, progress=False).fits),
        "sem, one by one": (ONE_BY_ONE, 1, lambda: one_by_one(case.model, given[:ONE_BY_ONE])),
        "simulation to frame": (
            REPLICATIONS,
            os.cpu_count() or 1,
            lambda: msem.power(
                case.model, fit, design, replications=REPLICATIONS, seed=SEED, progress=False
            ).to_frame(),
        ),
    }
    rows: list[dict[str, object]] = []
    for task, (count, threads, work) in tasks.items():
        spent, passed = best(work, repeats)
        rows.append(
            {"case": "demo", "task": task, "fits": count, "threads": threads, "cpu_seconds": f"{spent:.4g}",
             "seconds": f"{passed:.4g}", "fits_per_cpu_second": f"{count / spent:.4g}"}
        )  # fmt: skip
    return rows


def main() -> None:
    options = command_line(__doc__, "many_fits", repeats=7).parse_args()
    report(rows_of(options.repeats), machine(), options.output)


if __name__ == "__main__":
    main()
