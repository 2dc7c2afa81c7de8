"""Rejection rates of tests of equal loadings over two groups, each level fitted by itself to its saturated matrix.

``PYTHONPATH=python python bench/level_invariance.py --replications 500``

The loadings of both groups are equal, the data normal, with 5 to 11 units in a cluster. The table shows how often a
test at the 5% level rejects at each level: the difference of likelihood ratios, of the normal discrepancies ("ml") and
of least squares ("uls") as `msem.compare_models` has them, and the difference of the naive chi-squares of "ml".
Samples with a between matrix that is not positive definite are none of "ml".
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter

import numpy as np
import pandas as pd

import msem
from msem.distributions import chisq_pvalue
from msem.errors import DataError

NAMES = ["y1", "y2", "y3"]
MODEL = """
level: 1
  fw =~ y1 + y2 + y3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w
"""
LOADINGS = np.array([1.0, 0.8, 0.6])


def moments(nclusters: int, rng: np.random.Generator) -> msem.LevelMoments:
    """Saturated moments of a group."""
    codes = np.repeat(np.arange(nclusters), rng.integers(5, 12, nclusters))
    w = rng.normal(size=nclusters)
    between = np.outer(0.4 * w + np.sqrt(0.6) * rng.normal(size=nclusters), LOADINGS)
    between += rng.normal(size=(nclusters, 3)) * np.sqrt([0.20, 0.15, 0.10])
    within = rng.normal(size=(len(codes), 1)) * np.sqrt(0.95) * LOADINGS
    within += rng.normal(size=(len(codes), 3)) * np.sqrt([1.0, 0.9, 1.1])
    data = pd.DataFrame(between[codes] + within, columns=NAMES).assign(w=w[codes], cluster=codes)
    return msem.saturated(data, cluster="cluster", within=NAMES, between=[*NAMES, "w"])


def rejections(given: dict[str, msem.LevelMoments]) -> Counter[tuple[str, str]]:
    """Which tests reject at which level, and "fits" of each method."""
    found: Counter[tuple[str, str]] = Counter()
    for method in ("likelihood", "ml", "uls"):
        try:
            fits = [
                msem.segregated(MODEL, given, method=method, group_equal=equal)
                for equal in ([], ["loadings"])
            ]
        except DataError:
            continue
        table = msem.compare_models(*fits)
        for level, own in zip(
            ("within", "between"), zip(*(one.levels for one in fits), strict=True), strict=True
        ):
            found[method, "fits"] += level == "within"
            found[method, level] += int(table.loc[(level, "model_2"), "pvalue"] < 0.05)
            if method == "ml":
                large, small = (one.tests.loc["standard", "statistic"] for one in own)
                found["naive", "fits"] += level == "within"
                found["naive", level] += int(chisq_pvalue(small - large, 2) < 0.05)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=300)
    parser.add_argument("--clusters", type=int, nargs="+", default=[60, 100])
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for nclusters in chosen.clusters:
        rng = np.random.default_rng(nclusters)
        total: Counter[tuple[str, str]] = Counter()
        for _ in range(chosen.replications):
            total += rejections({"a": moments(nclusters, rng), "b": moments(nclusters, rng)})
        for method in ("likelihood", "ml", "uls", "naive"):
            fits = total[method, "fits"]
            rates = {level: total[method, level] / fits for level in ("within", "between")}
            rows.append({"clusters": nclusters, "test": method, "fits": fits} | rates)
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
