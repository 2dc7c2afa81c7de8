"""Coverage of intervals and size of tests of models with random slopes, by simulation.

    python bench/slope_coverage.py --replications 500

Two true models: an outcome with a random slope, and a factor of three indicators with one; the slope has a mean, a
variance and a predictor (the cross-level interaction). Clusters of 10, or of 2, 5, 10 and 23 units. Counted are 95%
intervals that contain the population value and rejections at the 5% level by the chi-square against the saturated model
of slopes where there is one, by ML and MLR. Of the factor a fifth of the samples are drawn. Writes
`results/slope_coverage.csv`.
"""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import pandas as pd

import msem
from study import drawn_with, replicated, simulation, write_table

CLUSTERS = (30, 50, 100, 300)
LARGE = (100, 300)  # with fewer the saturated model of the slopes of three indicators seldom has a maximum
SIZES = {"balanced": (10,), "unbalanced": (2, 5, 10, 23)}
SHARE = 5  # of the samples of an outcome that are drawn of a factor: its saturated model takes seconds where it ends
Z = 1.959963984540054
MODELS = {
    "outcome": 'level: 1\n  y ~ rv("s")*x\nlevel: 2\n  y ~ w + v\n  s ~ w\n  y ~~ s\n',
    "factor": 'level: 1\n  f =~ y1 + y2 + y3\n  f ~ rv("s")*x\n'
    "level: 2\n  g =~ y1 + y2 + y3\n  g + s ~ w\n  g ~~ s\n",
}
TRUTH = {
    "mean of slopes": (("s~1.l2", "s~1"), 0.4),
    "variance of slopes": (("s~~s.l2", "s~~s"), 0.15),
    "cross-level interaction": (("s~w.l2", "s~w"), 0.2),
}
Outcome = dict[
    tuple[str, str], tuple[float, float]
]  # (what, method): value and standard error, or 1 or 0 and nan


def sample(rng: np.random.Generator, model: str, nclusters: int, sizes: tuple[int, ...]) -> pd.DataFrame:
    """One sample from the population."""
    code = np.repeat(np.arange(nclusters), np.resize(sizes, nclusters))
    x, w, v = rng.normal(size=len(code)), rng.normal(size=nclusters), rng.normal(size=nclusters)
    root = np.linalg.cholesky([[0.4, 0.08], [0.08, 0.15]])
    effects = rng.normal(size=(nclusters, 2)) @ root.T
    value = 0.3 * w[code] + effects[code, 0] + (0.4 + 0.2 * w[code] + effects[code, 1]) * x
    frame = pd.DataFrame({"x": x, "w": w[code], "v": v[code], "cluster": code})
    if model == "outcome":
        return frame.assign(y=value + rng.normal(size=len(code)))
    value = value + np.sqrt(0.6) * rng.normal(size=len(code))
    for k, loading in enumerate((1.0, 0.8, 0.6)):
        own = 0.3 * rng.normal(size=nclusters)[code] + 0.7 * rng.normal(size=len(code))
        frame[f"y{k + 1}"] = loading * value + own
    return frame


def outcome(fit: msem.Fit, method: str) -> Outcome:
    """Estimates with their errors, and whether the chi-square rejects."""
    out: Outcome = {}
    if not fit.converged:
        return out
    for what, (names, _) in TRUTH.items():
        name = next(name for name in names if name in fit.params.index)
        out[what, method] = (float(fit.params[name]), float(fit.bse[name]))
    test = fit.tests().loc["standard" if method == "ML" else "yuan_bentler_mplus"]
    if np.isfinite(test["pvalue"]):
        out["chi-square", method] = (float(test["pvalue"] < 0.05), np.nan)
    return out


def replicate(job: tuple[int, str, str, int, int]) -> tuple[tuple[str, str, int], Outcome]:
    """One sample, fitted by ML and MLR."""
    seed, model, sizes, nclusters, number = job
    rng = np.random.default_rng(
        [seed, list(MODELS).index(model), list(SIZES).index(sizes), nclusters, number]
    )
    data = sample(rng, model, nclusters, SIZES[sizes])
    out: Outcome = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each outcome is counted instead
        for method in ("ML", "MLR"):
            out |= outcome(msem.sem(MODELS[model], data, cluster="cluster", estimator=method), method)
    return (model, sizes, nclusters), out


def table(
    results: list[tuple[tuple[str, str, int], Outcome]], replications: dict[str, int]
) -> list[dict[str, object]]:
    """Rates by design, method and parameter."""
    every: dict[tuple[str, str, int, str, str], list[tuple[float, float]]] = defaultdict(list)
    for design, found in results:
        for (what, method), value in found.items():
            every[(*design, what, method)].append(value)
    rows: list[dict[str, object]] = []
    for (model, sizes, nclusters, what, method), pairs in sorted(every.items()):
        values, errors = np.array(pairs).T
        row: dict[str, object] = {
            "model": model, "sizes": sizes, "nclusters": nclusters, "what": what, "method": method,
            "used": len(values), "of_all": replications[model],
        }  # fmt: skip
        if what == "chi-square":
            row["rejections"] = round(float(values.mean()), 4)
        else:
            truth = TRUTH[what][1]
            row["coverage"] = round(float((np.abs(values - truth) <= Z * errors).mean()), 4)
            row["bias"] = round(float(values.mean() - truth), 4)
            row["median_se_over_sd"] = round(float(np.median(errors) / values.std(ddof=1)), 3)
        rows.append(row)
    return rows


def main() -> None:
    """Run the simulation and write its table."""
    given = simulation(__doc__, "slope_coverage", 500)
    count = {"outcome": given.replications, "factor": given.replications // SHARE}
    jobs = [
        (given.seed, model, sizes, nclusters, k)
        for model in MODELS
        for sizes in SIZES
        for nclusters in (CLUSTERS if model == "outcome" else LARGE)
        for k in range(count[model])
    ]
    rows = table(replicated(replicate, jobs, given.workers), count)
    names = [
        "model", "sizes", "nclusters", "what", "method", "coverage", "rejections", "bias", "median_se_over_sd",
        "used", "of_all",
    ]  # fmt: skip
    about = drawn_with(given.seed)
    write_table([{name: row.get(name, "") for name in names} | about for row in rows], given.output)


if __name__ == "__main__":
    main()
