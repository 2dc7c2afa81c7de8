"""Size of tests and coverage of confidence intervals, by simulation: `python bench/montecarlo.py --help`.

A true two-level factor model is fitted to samples of 50, 100 and 200 clusters of unequal size, from normal and from
skewed variables. Counted are rejections at the 5% level and 95% intervals that contain the population value, for the
simultaneous fit (ML, MLR) and for each level fitted by itself (segregated), with naive and with corrected errors.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import msem
from study import drawn_with, replicated, simulation, write_table

CLUSTERS = (50, 100, 200)
SHAPES = ("normal", "skewed")
SIZES = (5, 10, 15, 20)
GAMMAS: tuple[Literal["observed", "robust"], ...] = ("observed", "robust")
NAMES = ("y1", "y2", "y3", "y4")
LOADINGS = np.array([1.0, 0.8, 0.7, 0.9])
FACTOR = {"within": 1.0, "between": 0.4}
RESIDUAL = {"within": 0.8, "between": 0.1}
MODEL = """
level: 1
  fw =~ y1 + y2 + y3 + y4
level: 2
  fb =~ y1 + y2 + y3 + y4
"""
TRUTH = {"fw=~y2": 0.8, "fb=~y2.l2": 0.8, "fb~~fb.l2": 0.4}
Z = 1.959963984540054
Floats = NDArray[np.float64]
Outcome = dict[tuple[str, str, str], float]  # (what, method, of) -> 1 or 0, nan where there is no result


def draw(rng: np.random.Generator, shape: str, rows: int, columns: int) -> Floats:
    """Standardized variables: normal, or chi-square with 3 degrees of freedom (skewness 1.63, excess kurtosis 4)."""
    if shape == "normal":
        return rng.standard_normal((rows, columns))
    return (rng.chisquare(3, (rows, columns)) - 3) / np.sqrt(6)


def part(rng: np.random.Generator, shape: str, rows: int, level: str) -> Floats:
    """Indicators at one level."""
    factor = np.sqrt(FACTOR[level]) * draw(rng, shape, rows, 1)
    return factor * LOADINGS + np.sqrt(RESIDUAL[level]) * draw(rng, shape, rows, len(LOADINGS))


def sample(rng: np.random.Generator, nclusters: int, shape: str) -> pd.DataFrame:
    """Data with equal numbers of clusters of each size."""
    codes = np.repeat(np.arange(nclusters), np.resize(SIZES, nclusters))
    values = part(rng, shape, len(codes), "within") + part(rng, shape, nclusters, "between")[codes]
    return pd.DataFrame(values, columns=list(NAMES)).assign(cluster=codes)


def covered(params: pd.Series, bse: pd.Series, method: str) -> Outcome:
    """Whether 95% intervals contain the population values."""
    out: Outcome = {}
    for name, truth in TRUTH.items():
        if name in params.index and np.isfinite(bse[name]):
            out["coverage", method, name] = float(abs(params[name] - truth) <= Z * bse[name])
            out["se", method, name] = float(bse[name])
            out["estimate", method, name] = float(params[name])
    return out


def simultaneous(data: pd.DataFrame) -> Outcome:
    """Both levels together: likelihood ratio and scaled test, observed-information and sandwich errors."""
    ml = msem.sem(MODEL, data, cluster="cluster")
    mlr = msem.sem(MODEL, data, cluster="cluster", estimator="MLR")
    out: Outcome = {}
    for fit, method, test in ((ml, "ML", "standard"), (mlr, "MLR", "yuan_bentler_mplus")):
        if fit.converged:
            out["rejection", method, "both"] = _rejects(fit.tests().loc[test, "pvalue"])
            out |= covered(fit.params, fit.bse, method)
    return out


def segregated(data: pd.DataFrame) -> Outcome:
    """Each level by itself, from the saturated moments."""
    out: Outcome = {}
    for gamma in GAMMAS:
        h1 = msem.saturated(data, cluster="cluster", within=list(NAMES), gamma=gamma)
        definite = float(np.linalg.eigvalsh(h1.between.cov)[0] > 0)
        out["definite", "saturated", "between"] = definite
        for method in ("likelihood", "ml", "uls") if definite else ("likelihood", "uls"):
            fit = msem.segregated(MODEL, h1, method=method, gamma=gamma)
            out |= by_level(fit, f"segregated {method}" + (", robust" if gamma == "robust" else ""))
            if method == "ml" and gamma != "robust":
                for each in fit.naive.levels:
                    out |= covered(each.params, each.bse, "separate (naive)")
    return out


def by_level(fit: msem.SegregatedFit, name: str) -> Outcome:
    """Tests and intervals of each level that converged."""
    out: Outcome = {}
    for level, each in zip(("within", "between"), fit.levels, strict=True):
        if each.converged:
            for test, p in each.tests["pvalue"].items():
                out["rejection", f"{name}: {test}", level] = _rejects(p)
            out |= covered(each.params, each.bse, name)
    return out


def _rejects(pvalue: float) -> float:
    return float(pvalue < 0.05) if np.isfinite(pvalue) else np.nan


def replicate(job: tuple[int, int, str, int]) -> tuple[tuple[int, str], Outcome]:
    """One sample, fitted in every way."""
    seed, nclusters, shape, number = job
    rng = np.random.default_rng([seed, nclusters, SHAPES.index(shape), number])
    data = sample(rng, nclusters, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each outcome is counted instead
        return (nclusters, shape), simultaneous(data) | segregated(data)


def table(results: list[tuple[tuple[int, str], Outcome]], replications: int) -> list[dict[str, object]]:
    """Rates by design, method and level, with their simulation errors."""
    values: dict[tuple[int, str, str, str, str], list[float]] = defaultdict(list)
    for (nclusters, shape), outcome in results:
        for (what, method, of), value in outcome.items():
            if np.isfinite(value):
                values[nclusters, shape, what, method, of].append(value)
    rows: list[dict[str, object]] = []
    for (nclusters, shape, what, method, of), found in sorted(values.items()):
        mean, count = float(np.mean(found)), len(found)
        row = {"nclusters": nclusters, "shape": shape, "what": what, "method": method, "of": of}
        spread = float(np.std(found, ddof=1)) if count > 1 else np.nan
        rows.append(
            row | {"value": f"{mean:.4f}", "sd": f"{spread:.4f}", "used": count, "of_all": replications}
        )
    return rows


def main() -> None:
    """Run the simulation and write its table."""
    given = simulation(__doc__, "montecarlo", 1000)
    cells = [(j, shape) for j in CLUSTERS for shape in SHAPES]
    jobs = [(given.seed, j, shape, k) for j, shape in cells for k in range(given.replications)]
    rows = table(replicated(replicate, jobs, given.workers), given.replications)
    write_table([row | drawn_with(given.seed) for row in rows], given.output)


if __name__ == "__main__":
    main()
