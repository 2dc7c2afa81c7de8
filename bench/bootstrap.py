"""Time the cluster bootstrap: all replicates with msem, a few of the same samples with lavaan.

    python bench/bootstrap.py                     # 1,000 refits of the demonstration model, 20 of them with lavaan
    python bench/bootstrap.py --peer-replicates 0 # msem alone

Prints a Markdown table and writes `results/bootstrap.csv`.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import msem
from cases import BY_NAME, Case
from msem.resampling.replicates import ordinary_draws
from study import command_line, machine, report

HERE = Path(__file__).parent
SEED = 1


def time_msem(fit: msem.Fit, replicates: int, repeats: int) -> tuple[float, msem.Bootstrap]:
    """Median seconds of a whole bootstrap: estimates in, table with percentile intervals out."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        boot = fit.bootstrap(replicates, seed=SEED, progress=False)
        boot.to_frame()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), boot


def time_lavaan(case: Case, data: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """Seconds and estimates of lavaan in the same samples."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("model.lav", "data.csv", "weights.csv", "result.csv")]
        paths[0].write_text(case.model)
        data.to_csv(paths[1], index=False)
        pd.DataFrame(weights.astype(int)).to_csv(paths[2], index=False)
        command = ["Rscript", str(HERE / "run_bootstrap.R"), *map(str, paths)]
        subprocess.run(command, check=True)
        return pd.read_csv(paths[3])


def rows_of(case: Case, replicates: int, repeats: int, peer: int) -> list[dict[str, object]]:
    """One row for each program and task."""
    data = case.make()
    fit = msem.sem(case.model, data, cluster="cluster")
    seconds, boot = time_msem(fit, replicates, repeats)
    start = time.perf_counter()
    fit.jackknife(progress=False)
    jackknife = time.perf_counter() - start
    common = {"case": case.name, "program": "msem", "version": msem.__version__}
    rows: list[dict[str, object]] = [
        common | {"task": "bootstrap", "refits": replicates, "seconds": f"{seconds:.4g}", "ratio": 1,
                  "failed": int(boot.failed.sum())},
        common | {"task": "jackknife", "refits": fit.nclusters, "seconds": f"{jackknife:.4g}"},
    ]  # fmt: skip
    if peer and shutil.which("Rscript"):
        draws = ordinary_draws(fit.estimate, fit.sample, SEED)
        weights = np.array([draws.weights(r, 0) for r in range(peer)])
        theirs = time_lavaan(case, data, weights)
        scaled = theirs["seconds"].mean() * replicates
        ours = boot.estimates.reindex(range(peer)).to_numpy()
        difference = np.abs(ours - theirs.iloc[:, 2:].to_numpy()).max(axis=0) / fit.bse.to_numpy()
        rows.append(
            {"case": case.name, "program": "lavaan", "version": theirs["version"][0], "task": "bootstrap",
             "refits": replicates, "timed": peer, "seconds": f"{scaled:.4g}", "ratio": f"{scaled / seconds:.3g}",
             "difference": f"{np.nanmax(difference):.2g}"}
        )  # fmt: skip
    return rows


def main() -> None:
    parser = command_line(__doc__, "bootstrap", replicates=1000, repeats=3)
    parser.add_argument("--peer-replicates", type=int, default=20)
    parser.add_argument("--cases", nargs="+", default=["demo"], choices=list(BY_NAME))
    options = parser.parse_args()
    rows = [
        row
        for name in options.cases
        for row in rows_of(BY_NAME[name], options.replicates, options.repeats, options.peer_replicates)
    ]
    report(rows, machine(), options.output)


if __name__ == "__main__":
    main()
