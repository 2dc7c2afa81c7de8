"""Times msem on one case: python run_msem.py model.lav data.csv warm.lav warm.csv result.txt.

The time is from model text and DataFrame to the text of the full summary: estimates, standard errors,
tests, baseline and saturated model. Starting Python, imports and reading the data are excluded, and a small
fit beforehand takes the cost of first calls out, as in run_lavaan.R.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd

import msem


def whole_fit(model: str, data: pd.DataFrame) -> msem.Fit:
    """All that the summary shows, computed."""
    fit = msem.sem(model, data, cluster="cluster")
    str(fit.summary())
    return fit


def main(model: str, data: str, warm_model: str, warm_data: str, result: str) -> None:
    whole_fit(Path(warm_model).read_text(), pd.read_csv(warm_data))
    text, frame = Path(model).read_text(), pd.read_csv(data)
    start = time.perf_counter()
    fit = whole_fit(text, frame)
    seconds = time.perf_counter() - start
    values = {
        "version": msem.__version__,
        "seconds": seconds,
        "converged": fit.converged,
        "logl": fit.logl,
        "chisq": fit.chisq,
    }
    Path(result).write_text("".join(f"{key}\t{value}\n" for key, value in values.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
