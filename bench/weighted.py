"""Time weighted fits beside unweighted ones.

    OPENBLAS_NUM_THREADS=1 python bench/weighted.py
    OPENBLAS_NUM_THREADS=1 python bench/weighted.py --cases demo tiny --repeats 9

Frame in, summary with errors, tests and fit measures out; without weights by ML and by MLR (a weighted fit has sandwich
errors and a scaled test, as MLR), with weights of units, of units and clusters, and of units as they are
(`weights_scale="none"`, which makes all sizes of clusters differ). The ways take turns; seconds are the least, of the
processor, and `over_ml` and `over_mlr` medians of the ratios of one turn. Writes `results/weighted.csv`.
"""

from __future__ import annotations

import statistics
import time
import warnings

import numpy as np
import pandas as pd

import msem
from casedata import single_data
from cases import BY_NAME
from study import command_line, machine, report

USUAL = ("demo", "sizes400", "wide", "huge", "tiny", "demo_holes", "single", "single_large")
WAYS: dict[str, dict[str, str]] = {
    "ML": {},
    "MLR": {"estimator": "MLR"},
    "units": {"weights": "w"},
    "units and clusters": {"weights": "w", "cluster_weights": "v"},
    "units as they are": {"weights": "w", "weights_scale": "none"},
}


def data_of(name: str) -> tuple[str, pd.DataFrame, str]:
    """Model, data with weights, and how missing values are treated."""
    case = BY_NAME["single" if name == "single_large" else name]
    data = single_data(1, 500_000) if name == "single_large" else case.make()
    rng = np.random.default_rng(1)
    data = data.assign(w=rng.uniform(0.5, 2, len(data)))
    if "cluster" in data:
        codes = pd.factorize(data["cluster"])[0]
        data["v"] = rng.uniform(0.5, 2, codes.max() + 1)[codes]
    return case.model, data, case.missing


def rows_of(name: str, repeats: int, limit: float) -> list[dict[str, object]]:
    """One row for each way."""
    model, data, missing = data_of(name)
    cluster = "cluster" if "cluster" in data else None
    ways = {way: own for way, own in WAYS.items() if cluster or way in ("ML", "MLR", "units")}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):  # the first one warms up
        for way, options in ways.items():
            if spent[way] and sum(spent[way]) > limit:
                continue
            begun = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                msem.sem(model, data, cluster=cluster, missing=missing, **options).summary(fit_measures=True)
            if repeat:
                spent[way].append(time.process_time() - begun)
    rows = []
    for way, seconds in spent.items():
        row: dict[str, object] = {"case": name, "way": way, "cpu_seconds": f"{min(seconds):.4g}"}
        for other in ("ML", "MLR"):
            ratios = [one / two for one, two in zip(seconds, spent[other], strict=False)]
            row[f"over_{other.lower()}"] = f"{statistics.median(ratios):.3g}"
        rows.append(row | {"repeats": len(seconds)})
    return rows


def main() -> None:
    """Run, print and write."""
    parser = command_line(
        __doc__, "weighted", repeats=7, limit=10.0
    )  # seconds after which a way is not repeated
    parser.add_argument("--cases", nargs="+", default=list(USUAL))
    given = parser.parse_args()
    rows = []
    for name in given.cases:
        rows += rows_of(name, given.repeats, given.limit)
    report(rows, machine(), given.output)


if __name__ == "__main__":
    main()
