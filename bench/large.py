"""Time a fit of a large data frame against the means of its clusters in pandas, and take its memory.

    python bench/large.py                                     # 10,000,000 rows x 8 variables, 500,000 clusters
    python bench/large.py --rows 200_000 --clusters 10_000    # a small one

In turn, in one process: `frame.groupby("cluster").mean()`, `msem.sem` from the frame to the text of the summary, and
the same by way of `msem.summarize`; then each once more in a process of its own, for its peak memory (Linux). Prints a
Markdown table and writes `results/large.csv`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import memory
import msem
from casedata import factor_data
from columnar import FACTORS, MODEL, VARIABLES, load_frame, save_arrays
from run import machine, quotient
from study import show, write_table

HERE = Path(__file__).parent
SEED = 1


def sem(frame: pd.DataFrame) -> float:
    """The whole way from the frame to the summary; its log-likelihood."""
    fit = msem.sem(MODEL, frame, cluster="cluster")
    fit.summary(fit_measures=True)
    return fit.llf


def summarize_and_sem(frame: pd.DataFrame) -> float:
    """The same by way of the statistics of the clusters."""
    fit = msem.sem(MODEL, msem.summarize(frame, cluster="cluster"))
    fit.summary(fit_measures=True)
    return fit.llf


def group_means(frame: pd.DataFrame) -> None:
    frame.groupby("cluster").mean()


TASKS: dict[str, Callable[[pd.DataFrame], float | None]] = {
    "groupby().mean()": group_means,
    "sem": sem,
    "summarize, sem": summarize_and_sem,
}


def small_frame() -> pd.DataFrame:
    """For first calls, which cost more."""
    return factor_data(1, VARIABLES, FACTORS, np.full(100, 20))


def times(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each task, in alternation."""
    frame = load_frame(folder)
    for work in TASKS.values():
        work(small_frame())
    spent: dict[str, list[float]] = {task: [] for task in TASKS}
    for _ in range(repeats):
        for task, work in TASKS.items():
            start = time.perf_counter()
            work(frame)
            spent[task].append(time.perf_counter() - start)
            print(f"{task:18} {spent[task][-1]:.3f}", file=sys.stderr, flush=True)
    return spent


def peak_of(folder: Path, task: str) -> dict[str, Any]:
    """Memory of this process before the frame, with it, and at most while the task ran; a small fit goes before."""
    TASKS[task](small_frame())
    empty = memory.resident()
    frame = load_frame(folder)
    loaded = memory.resident()
    memory.reset_peak()
    result = TASKS[task](frame)
    return {
        "logl": result,
        "frame_mb": frame.memory_usage(index=False).sum() / 2**20,
        "python_mb": empty,
        "loaded_mb": loaded,
        "peak_mb": memory.peak(),
    }


def child(*arguments: object) -> Any:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def row_of(order: str, task: str, spent: dict[str, list[float]], used: dict[str, Any]) -> dict[str, object]:
    """Peak over frame: all that the process holds; task over frame: what the task itself added, the frame being one."""
    frame = used["frame_mb"]
    seconds, reference = (statistics.median(spent[t]) for t in (task, "groupby().mean()"))
    return {
        "order": order,
        "task": task,
        "seconds": f"{seconds:.4g}",
        "repeats": len(spent[task]),
        "ratio": quotient(seconds, reference),
        "frame_mb": round(frame),
        "python_mb": round(used["python_mb"]),
        "peak_mb": round(used["peak_mb"]),
        "peak_over_frame": f"{used['peak_mb'] / frame:.3f}",
        "task_over_frame": f"{1 + (used['peak_mb'] - used['loaded_mb']) / frame:.3f}",
        "logl": "" if used["logl"] is None else f"{used['logl']:.6f}",
    }


def rows_of(options: argparse.Namespace) -> list[dict[str, object]]:
    rows = []
    for order in options.orders:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            save_arrays(folder, options.rows, options.clusters, order == "shuffled", SEED)
            spent = child("--times", folder, "--repeats", options.repeats)
            for task in TASKS:
                rows.append(row_of(order, task, spent, child("--peak", folder, "--task", task)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--clusters", type=int, default=500_000)
    parser.add_argument("--orders", nargs="+", choices=["sorted", "shuffled"], default=["sorted", "shuffled"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the data go for a while (720 MB each)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "large.csv")
    parser.add_argument("--times", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=list(TASKS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.times:
        print(json.dumps(times(options.times, options.repeats)))
    elif options.peak:
        print(json.dumps(peak_of(options.peak, options.task)))
    else:
        rows = rows_of(options)
        size = {"rows": options.rows, "clusters": options.clusters, "version": msem.__version__}
        write_table([row | size | machine() for row in rows], options.output)
        print(show(rows))


if __name__ == "__main__":
    main()
