"""Simulate residuals and SRMR: rejection of true and wrong models, bias, and coverage of the intervals.

    python bench/srmr_coverage.py                      # 400 samples of 60 and of 200 clusters
    python bench/srmr_coverage.py --replications 1000

A factor with four indicators at each level, a between covariate, clusters of 4 to 20 units. The wrong population has a
residual covariance at each level and an effect of the covariate on one indicator. The population SRMR is that of the
model fitted to the population moments. Prints a Markdown table and writes `results/srmr_coverage.csv`.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import msem

Floats = NDArray[np.float64]
Populations = dict[str, tuple[Floats, Floats]]

INDICATORS = ["y1", "y2", "y3", "y4"]
BETWEEN = [*INDICATORS, "w"]
MODEL = "level: 1\nfw =~ y1 + y2 + y3 + y4\nlevel: 2\nfb =~ y1 + y2 + y3 + y4\nfb ~ w"
SIZES = (4, 8, 12, 20)
LEVELS = {1: "within", 2: "between", 0: "both"}
USABLE = ("ok", "improper", "boundary")


def populations() -> Populations:
    """Within and between covariance matrix of a true and of a wrong model."""
    within_loadings, between_loadings = np.array([1, 0.8, 0.7, 0.9]), np.array([1, 0.7, 0.6, 0.8])
    within = 0.6 * np.outer(within_loadings, within_loadings) + np.diag([0.9, 1, 0.8, 0.7])
    between = np.eye(5)
    between[:4, :4] = 0.5 * np.outer(between_loadings, between_loadings) + np.diag([0.15, 0.2, 0.15, 0.2])
    between[4, :4] = between[:4, 4] = 0.25 * between_loadings
    wrong_within, wrong_between = within.copy(), between.copy()
    wrong_within[[0, 1], [1, 0]] += 0.2
    wrong_between[[0, 1], [1, 0]] += 0.12
    wrong_between[[3, 4], [4, 3]] += 0.12
    return {"true": (within, between), "wrong": (wrong_within, wrong_between)}


def draw(rng: np.random.Generator, clusters: int, within: Floats, between: Floats) -> pd.DataFrame:
    """One normal sample."""
    code = np.repeat(np.arange(clusters), rng.choice(SIZES, clusters))
    second = rng.multivariate_normal(np.zeros(5), between, clusters)[code]
    second[:, :4] += rng.multivariate_normal(np.zeros(4), within, len(code))
    return pd.DataFrame(second, columns=BETWEEN).assign(cluster=code)


def population_srmr(clusters: int, within: Floats, between: Floats) -> pd.Series:
    """SRMR of the model at the population moments, by level."""
    moments = msem.LevelMoments(
        pd.DataFrame(within, INDICATORS, INDICATORS),
        pd.DataFrame(between, BETWEEN, BETWEEN),
        cluster_sizes=dict.fromkeys(SIZES, clusters // len(SIZES)),
    )
    return by_level(msem.sem(MODEL, moments))["value"]


def by_level(fit: msem.Fit) -> pd.DataFrame:
    """SRMR of covariances of each level and of both."""
    table = fit.srmr()
    return table[(table["measure"] == "srmr") & (table["part"] == "cov")].set_index("level")


def simulate(name: str, clusters: int, replications: int) -> pd.DataFrame:
    """One row for each level."""
    within, between = populations()[name]
    truth = population_srmr(clusters, within, between)
    rng = np.random.default_rng(clusters)
    samples, rejected = [], []
    for _ in range(replications):
        fit = msem.sem(MODEL, draw(rng, clusters, within, between), cluster="cluster")
        if fit.status in USABLE:
            samples.append(by_level(fit))
            table = fit.residuals("cor")
            rejected.append((table["pvalue"] < 0.05)[table["pvalue"].notna()].groupby(table["level"]).mean())
    every = pd.concat(samples, keys=range(len(samples)))
    covered = every["ci_lower"].le(truth, level=1) & every["ci_upper"].ge(truth, level=1)
    means = every.groupby(level=1)[["value", "unbiased"]].mean()
    return means.assign(
        clusters=clusters,
        model=name,
        population=truth,
        coverage=covered.groupby(level=1).mean(),
        exact_rejected=(every["exact_pvalue"] < 0.05).groupby(level=1).mean(),
        residuals_rejected=pd.concat(rejected).groupby(level=0).mean(),
        samples=len(samples),
    )


def main() -> None:
    """Run all conditions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replications", type=int, default=400)
    replications = parser.parse_args().replications
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = [simulate(name, j, replications) for j in (60, 200) for name in populations()]
    table = pd.concat(parts).rename(index=LEVELS).reset_index(names="level")
    first = ["clusters", "model", "level", "population"]
    table = table[[*first, *(name for name in table.columns if name not in first)]]
    table.round(4).to_csv(Path(__file__).parent / "results" / "srmr_coverage.csv", index=False)
    print("| " + " | ".join(table.columns) + " |\n" + "|---" * len(table.columns) + "|")
    for row in table.round(3).to_numpy().tolist():
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
