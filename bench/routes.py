"""Coverage of intervals and size of tests by estimator, by simulation.

    python bench/routes.py --replications 500
    python bench/routes.py --kinds ordered residuals --routes WLSMV ULSMV

A true model, a factor of four indicators at each level with a covariate at each, in four kinds of samples of 50, 100
and 200 clusters of 10 units:

* continuous: normal variables, by maximum likelihood (ML, MLR), least squares on saturated moments (ULSMV, DWLS, WLS,
  GLS), structural after measurement (SAM) and a penalty on the between level;
* weighted: clusters drawn with probabilities that depend on their factor and weighted by the inverses, by the sandwich
  and by the jackknife; unweighted MLR beside it;
* ordered: three categories of each indicator, which have no residuals between clusters, by WLSMV, ULSMV and maximum
  likelihood (a fifth of the samples);
* residuals: the same with residuals between clusters, which are too many dimensions for maximum likelihood.

Counted are 95% intervals that contain the population value, and rejections at the 5% level by each chi-square. Writes
`results/routes.csv`; what the file has of other kinds and routes stays.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import msem
from msem.errors import MsemError
from study import command_line, drawn_with, replicated, write_table

CLUSTERS = (50, 100, 200)
UNITS = 10
SHARE = {"ordered": 5}  # one in so many of the samples: integrals take seconds
Z = 1.959963984540054
ITEMS = ("y1", "y2", "y3", "y4")
LOADINGS = (1.0, 0.8, 0.8, 0.6)
CUTS = (-0.7, 0.9)
MODEL = "level: 1\n  fw =~ y1 + y2 + y3 + y4\n  fw ~ x\nlevel: 2\n  fb =~ y1 + y2 + y3 + y4\n  fb ~ w\n"
# an ordered variable with a residual between clusters is a dimension of the integral
WITHOUT_RESIDUALS = MODEL + "".join(f"  {name} ~~ 0*{name}\n" for name in ITEMS)
TRUTH = {
    "within loading": (("fw", "=~", "y2", 1), 0.8),
    "within regression": (("fw", "~", "x", 1), 0.5),
    "between loading": (("fb", "=~", "y2", 2), 0.8),
    "between regression": (("fb", "~", "w", 2), 0.4),
    "between variance": (("fb", "~~", "fb", 2), 0.4),
}
Outcome = dict[tuple[str, str], tuple[float, float]]  # (route, what): estimate and error, or 1 or 0 and nan


def sample(rng: np.random.Generator, nclusters: int, kind: str) -> pd.DataFrame:
    """One sample from the population."""
    w, factor, weight = rng.normal(size=nclusters), np.empty(nclusters), np.ones(nclusters)
    for j in range(nclusters):
        while True:
            factor[j] = 0.4 * w[j] + np.sqrt(0.4) * rng.normal()
            chance = 1 / (1 + np.exp(1 - factor[j])) if kind == "weighted" else 1.0
            if rng.random() < chance:
                break
            w[j] = rng.normal()
        weight[j] = 1 / chance
    code = np.repeat(np.arange(nclusters), UNITS)
    x = rng.normal(size=len(code))
    value = factor[code] + 0.5 * x + np.sqrt(0.75) * rng.normal(size=len(code))
    frame = pd.DataFrame({"cluster": code, "x": x, "w": w[code], "weight": weight[code]})
    between, within = {"ordered": (0.0, 1.0), "residuals": (0.4, 1.0)}.get(kind, (0.3, 0.7))
    for name, loading in zip(ITEMS, LOADINGS, strict=True):
        residual = between * rng.normal(size=nclusters)[code] + within * rng.normal(size=len(code))
        y = loading * value + residual
        frame[name] = np.digitize(y, CUTS) if kind in ("ordered", "residuals") else y
    return frame


def weighted(data: pd.DataFrame, se: str | None = None) -> msem.Fit:
    """With weights of clusters, and errors by the sandwich or by another name."""
    return msem.sem(MODEL, data, cluster="cluster", cluster_weights="weight", se=se)


ROUTES: Mapping[str, Mapping[str, Callable[[pd.DataFrame], object]]] = {
    "continuous": {
        "ML": lambda data: msem.sem(MODEL, data, cluster="cluster"),
        "MLR": lambda data: msem.sem(MODEL, data, cluster="cluster", estimator="MLR"),
        "ULSMV": lambda data: msem.sem(MODEL, data, cluster="cluster", estimator="ULSMV"),
        "DWLS": lambda data: msem.sem(MODEL, data, cluster="cluster", estimator="DWLS"),
        "WLS": lambda data: msem.sem(MODEL, data, cluster="cluster", estimator="WLS"),
        "GLS": lambda data: msem.sem(MODEL, data, cluster="cluster", estimator="GLS"),
        "SAM": lambda data: msem.sam(MODEL, data, cluster="cluster"),
        "penalty": lambda data: msem.sem(MODEL, data, cluster="cluster", penalty="between"),
    },
    "weighted": {
        "sandwich": weighted,
        "jackknife": lambda data: weighted(data, "jackknife1"),
        "unweighted": lambda data: msem.sem(MODEL, data, cluster="cluster", estimator="MLR"),
    },
    "ordered": {
        name: partial(msem.sem, WITHOUT_RESIDUALS, cluster="cluster", ordered=ITEMS, estimator=name)
        for name in ("WLSMV", "ULSMV", "ML")
    },
    "residuals": {
        name: partial(msem.sem, MODEL, cluster="cluster", ordered=ITEMS, estimator=name)
        for name in ("WLSMV", "ULSMV")
    },
}


def outcome(fit: object, route: str) -> Outcome:
    """Estimates with their errors, and which tests reject."""
    if not getattr(fit, "converged", True):
        return {}
    rows = fit.estimates().set_index(["lhs", "op", "rhs", "level"])  # type: ignore[attr-defined]
    out: Outcome = {
        (route, what): (float(rows.loc[key, "est"]), float(rows.loc[key, "se"]))
        for what, (key, _) in TRUTH.items()
    }
    if isinstance(fit, msem.Fit):
        for name, pvalue in fit.tests()["pvalue"].items():
            out[route, f"test: {name}"] = (float(pvalue < 0.05) if pvalue == pvalue else np.nan, np.nan)
    return out


def replicate(job: tuple[int, str, int, int, tuple[str, ...]]) -> tuple[tuple[str, int], Outcome]:
    """One sample, by some routes."""
    seed, kind, nclusters, number, routes = job
    data = sample(np.random.default_rng([seed, list(ROUTES).index(kind), nclusters, number]), nclusters, kind)
    out: Outcome = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what fails is counted instead
        for route in routes:
            try:
                out |= outcome(ROUTES[kind][route](data), route)
            except MsemError:
                continue
    return (kind, nclusters), out


def table(
    results: list[tuple[tuple[str, int], Outcome]], replications: Mapping[str, int]
) -> list[dict[str, object]]:
    """Rates by kind of sample, number of clusters, route, and parameter or test."""
    every: dict[tuple[str, int, str, str], list[tuple[float, float]]] = defaultdict(list)
    for design, found in results:
        for (route, what), pair in found.items():
            if np.isfinite(pair[0]) and (what.startswith("test") or np.isfinite(pair[1])):
                every[(*design, route, what)].append(pair)
    rows: list[dict[str, object]] = []
    for (kind, nclusters, route, what), pairs in every.items():
        values, errors = np.array(pairs).T
        row: dict[str, object] = {"kind": kind, "nclusters": nclusters, "route": route, "what": what}
        row |= dict.fromkeys(("coverage", "bias", "median_se_over_sd", "rejections"), "")
        if what in TRUTH:
            truth = TRUTH[what][1]
            row["coverage"] = round(float((np.abs(values - truth) <= Z * errors).mean()), 4)
            row["bias"] = round(float(values.mean() - truth), 4)
            row["median_se_over_sd"] = round(float(np.median(errors) / values.std(ddof=1)), 3)
        else:
            row["rejections"] = round(float(values.mean()), 4)
        rows.append(row | {"used": len(values), "of_all": replications[kind]})
    return rows


def ordered(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """By kind, route, parameter or test, and number of clusters."""
    order = {what: k for k, what in enumerate(TRUTH)}
    return sorted(
        rows,
        key=lambda row: (
            list(ROUTES).index(str(row["kind"])),
            list(ROUTES[str(row["kind"])]).index(str(row["route"])),
            order.get(str(row["what"]), len(order)),
            str(row["what"]),
            int(str(row["nclusters"])),
        ),
    )


def others(path: Path, run: set[tuple[str, str]]) -> list[dict[str, object]]:
    """Rows of a file that are of other kinds and routes."""
    if not path.exists():
        return []
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [{str(k): v for k, v in row.items()} for row in rows if (row["kind"], row["route"]) not in run]


def main() -> None:
    """Run the simulation and write its table."""
    numbers = {"replications": 500, "seed": 1, "workers": os.cpu_count() or 1}
    parser = command_line(__doc__, "routes", **numbers)
    names = list(dict.fromkeys(route for kind in ROUTES.values() for route in kind))
    parser.add_argument("--kinds", nargs="+", choices=list(ROUTES), default=list(ROUTES))
    parser.add_argument("--routes", nargs="+", choices=names, default=names)
    given = parser.parse_args()
    routes = {kind: tuple(route for route in ROUTES[kind] if route in given.routes) for kind in given.kinds}
    count = {kind: given.replications // SHARE.get(kind, 1) for kind in given.kinds}
    jobs = [
        (given.seed, kind, nclusters, k, routes[kind])
        for kind in given.kinds
        for nclusters in CLUSTERS
        for k in range(count[kind])
    ]
    about = drawn_with(given.seed)
    rows = [row | about for row in table(replicated(replicate, jobs, given.workers), count)]
    run = {(kind, route) for kind in given.kinds for route in routes[kind]}
    write_table(ordered(rows + others(given.output, run)), given.output)


if __name__ == "__main__":
    main()
