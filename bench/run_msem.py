"""Times msem on one case: python run_msem.py model.lav data.csv warm.lav warm.csv result.txt estimator missing.

The time is from model text and DataFrame to the text of the full summary: estimates, standard errors,
tests, baseline and saturated model. Starting Python, imports and reading the data are excluded, and a small
fit beforehand takes the cost of first calls out, as in run_lavaan.R. The core time is that of the compiled
optimiser alone, from starting values and sufficient statistics to the optimum.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import pandas as pd

import msem
from msem import _core
from msem.estimation.estimate import starts
from msem.estimation.optimize import bounds

REFITS = 21
ENOUGH = 5.0  # seconds after which it is not refitted again


def whole_fit(model: str, data: pd.DataFrame, estimator: str, missing: str) -> msem.Fit:
    """All that the summary shows, computed."""
    cluster = "cluster" if "cluster" in data.columns else None
    fit = msem.sem(model, data, cluster=cluster, estimator=estimator, missing=missing)
    fit.summary(fit_measures=True)
    return fit


def core_seconds(fit: msem.Fit) -> float:
    """Median time of the optimiser."""
    objective = fit.objective
    start = starts(objective, fit.sample)[0]
    lower, upper = bounds(objective)
    times: list[float] = []
    while len(times) < REFITS and sum(times) < ENOUGH:
        begin = time.perf_counter()
        _core.minimize(objective.core, start, lower, upper)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main(model: str, data: str, warm_model: str, warm_data: str, result: str, *options: str) -> None:
    whole_fit(Path(warm_model).read_text(), pd.read_csv(warm_data), *options)
    text, frame = Path(model).read_text(), pd.read_csv(data)
    start = time.perf_counter()
    fit = whole_fit(text, frame, *options)
    seconds = time.perf_counter() - start
    values = {
        "version": msem.__version__,
        "seconds": seconds,
        "core_seconds": core_seconds(fit),
        "converged": fit.converged,
        "logl": fit.llf,
        "chisq": fit.fit_measures()["chisq_scaled" if options[0] == "MLR" else "chisq"],
    }
    Path(result).write_text("".join(f"{key}\t{value}\n" for key, value in values.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
