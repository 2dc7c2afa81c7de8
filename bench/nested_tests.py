"""Rejection rates of likelihood-ratio, score and Wald tests of a true restriction under data that are not normal.

``PYTHONPATH=python python bench/nested_tests.py --replications 1000``

Two-level factor models with equal loadings at both levels, as the population has them, are tested against models
without that restriction. The data are normal, or have heavy tails: all parts of a unit are multiplied by one factor,
and those of a cluster by another, so that they are t distributed with 6 degrees of freedom. The table shows how often
a test at the 5% level rejects.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter

import numpy as np
import pandas as pd

import msem
from msem.postestimation.restrictions import equalities
from msem.postestimation.score_tests import extend

SIZES = (4, 8, 16)
TAILS = 6  # degrees of freedom of the t distribution
LOADINGS = np.array([1.0, 0.8, 0.8, 0.7])
LARGE = """
level: 1
  fw =~ y1 + y2 + y3 + y4
level: 2
  fb =~ y1 + y2 + y3 + y4
"""
SMALL = LARGE.replace("y2 + y3 + y4", "a*y2 + b*y3 + c*y4")
METHODS = ("standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000")


def draw(kind: str, nclusters: int, rng: np.random.Generator) -> pd.DataFrame:
    """Two-level data whose parts are normal or t distributed."""

    def parts(n: int, factor: float, residual: float) -> np.ndarray:
        own = factor * rng.normal(size=(n, 1)) * LOADINGS + residual * rng.normal(size=(n, 4))
        return own if kind == "normal" else own * np.sqrt((TAILS - 2) / rng.chisquare(TAILS, size=(n, 1)))

    codes = np.repeat(np.arange(nclusters), np.resize(SIZES, nclusters))
    rows = parts(nclusters, 0.8, 0.4)[codes] + parts(len(codes), 1.0, 1.0)
    return pd.DataFrame(rows, columns=["y1", "y2", "y3", "y4"]).assign(cluster=codes)


def rejections(data: pd.DataFrame) -> Counter[str]:
    """Which tests reject, and "fits" if both models have a maximum."""
    large, small = (msem.sem(text, data, cluster="cluster") for text in (LARGE, SMALL))
    if not (large.converged and small.converged):
        return Counter()
    found = Counter(["fits"])
    for method in METHODS:
        table = msem.compare_models(large, small, method=method)
        found[method] += int(table["pvalue"].iloc[1] < 0.05)
        found[f"{method} negative"] += int(np.isnan(table["scaling"].iloc[1]))
    shifted = msem.compare_models(large, small, method="satorra_2000", scaled_shifted=True)
    found["satorra_2000 shifted"] += int(shifted["pvalue"].iloc[1] < 0.05)
    extension = extend(small.estimate, equalities(small.table), (), small.sample.clusters)
    joint = extension.point.joint(extension.further)
    found["score"] += int(joint.statistic > 7.814728)
    found["score robust"] += int(joint.robust > 7.814728)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=300)
    parser.add_argument("--clusters", type=int, nargs="+", default=[50, 100, 200])
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for kind in ("normal", "heavy tails"):
        for nclusters in chosen.clusters:
            rng = np.random.default_rng([nclusters, kind == "normal"])
            total: Counter[str] = Counter()
            for _ in range(chosen.replications):
                total += rejections(draw(kind, nclusters, rng))
            rates = {k: v / total["fits"] for k, v in total.items() if k != "fits"}
            rows.append({"data": kind, "clusters": nclusters, "fits": total["fits"]} | rates)
    print(pd.DataFrame(rows).fillna(0.0).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
