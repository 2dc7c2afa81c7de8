"""Bias of weighted two-level estimates by the scaling of the weights of units, by simulation.

    python bench/weight_scaling.py --replications 200

A variable with mean 0, variance 1 within and .5 between clusters; units, or clusters too, are drawn with probabilities
that depend on their values and weighted by the inverses, or units have weights that tell nothing. Fitted without
weights and with weights of units scaled in each way. Writes `results/weight_scaling.csv`.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import msem
from study import drawn_with, replicated, simulation, write_table

NCLUSTERS, SIZES, BETWEEN = 80, (5, 20, 50), 0.5
INFORMATIVE = ("nowhere", "level 1", "both levels")
SCALES = ("unweighted", "none", "size", "effective")
MODEL = "level: 1\n  y ~~ y\nlevel: 2\n  y ~~ y\n  y ~ 1\n"
TRUTH = {"mean": 0.0, "within": 1.0, "between": BETWEEN}
Floats = NDArray[np.float64]


def chance(value: Floats) -> Floats:
    """Probability of being drawn, by a standardized value."""
    out: Floats = 1 / (1 + np.exp(1 - 1.2 * value))
    return out


def drawn(rng: np.random.Generator, count: int, informative: bool) -> tuple[Floats, Floats]:
    """Standard normal values of so many that were drawn, and their weights."""
    if not informative:
        return rng.normal(size=count), np.ones(count)
    values = np.empty(0)
    while len(values) < count:
        offered = rng.normal(size=4 * count)
        values = np.concatenate([values, offered[rng.random(len(offered)) < chance(offered)]])
    return values[:count], 1 / chance(values[:count])


def sample(rng: np.random.Generator, size: int, informative: str) -> pd.DataFrame:
    """Clusters of one size."""
    between, v = drawn(rng, NCLUSTERS, informative == "both levels")
    code = np.repeat(np.arange(NCLUSTERS), size)
    within, w = drawn(rng, len(code), informative != "nowhere")
    if informative == "nowhere":
        w = rng.uniform(0.2, 2, len(code))
    y = np.sqrt(BETWEEN) * between[code] + within
    return pd.DataFrame({"y": y, "w": w, "v": v[code], "cluster": code})


def replicate(job: tuple[int, int, str, int]) -> tuple[tuple[int, str], dict[str, Floats]]:
    """One sample: estimates in the order of `TRUTH` by scale."""
    seed, size, informative, number = job
    rng = np.random.default_rng([seed, size, INFORMATIVE.index(informative), number])
    data = sample(rng, size, informative)
    out: dict[str, Floats] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for scale in SCALES:
            weights: dict[str, str] = {"weights": "w", "cluster_weights": "v", "weights_scale": scale}
            if scale == "unweighted":
                weights = {}
            fit = msem.sem(MODEL, data, cluster="cluster", se="none", **weights)
            if fit.converged:
                est = fit.estimates().set_index(["op", "level"])["est"]
                out[scale] = np.array([float(est[key]) for key in (("~1", 2), ("~~", 1), ("~~", 2))])
    return (size, informative), out


def main() -> None:
    """Run the simulation and write its table."""
    given = simulation(__doc__, "weight_scaling", 200)
    jobs = [
        (given.seed, size, informative, k)
        for size in SIZES
        for informative in INFORMATIVE
        for k in range(given.replications)
    ]
    results = replicated(replicate, jobs, given.workers)
    rows: list[dict[str, object]] = []
    for size in SIZES:
        for informative in INFORMATIVE:
            for scale in SCALES:
                found = [
                    out[scale] for design, out in results if design == (size, informative) and scale in out
                ]
                values = np.array(found)
                row: dict[str, object] = {"size": size, "informative": informative, "scale": scale}
                for k, (name, truth) in enumerate(TRUTH.items()):
                    row[f"bias_{name}"] = round(float(values[:, k].mean() - truth), 4)
                    row[f"sd_{name}"] = round(float(values[:, k].std(ddof=1)), 4)
                rows.append(row | {"used": len(found), "of_all": given.replications})
    about = drawn_with(given.seed) | {"nclusters": NCLUSTERS}
    write_table([row | about for row in rows], given.output)


if __name__ == "__main__":
    main()
