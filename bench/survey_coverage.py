"""Coverage of 95 % intervals in samples with informative cluster weights, by kind of standard error.

Clusters are drawn with probabilities that depend on their between parts, and weighted by their inverses; units have
weights that tell nothing. Three variables, all covariances free at both levels. Writes results/survey_coverage.csv:

    python bench/survey_coverage.py --samples 200
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import msem

Floats = NDArray[np.float64]
WITHIN = np.array([[1.0, 0.4, 0.3], [0.4, 1.0, 0.3], [0.3, 0.3, 1.0]])
BETWEEN = np.array([[0.5, 0.2, 0.2], [0.2, 0.5, 0.2], [0.2, 0.2, 0.5]])
MODEL = """
level: 1
  y1 ~~ y1 + y2 + y3
  y2 ~~ y2 + y3
  y3 ~~ y3
level: 2
  y1 ~~ y1 + y2 + y3
  y2 ~~ y2 + y3
  y3 ~~ y3
  y1 ~ 1
  y2 ~ 1
  y3 ~ 1
"""
DESIGNS = [(100, 6), (40, 6), (25, 10)]


def draw(rng: np.random.Generator, nclusters: int, size: int) -> pd.DataFrame:
    """One sample."""
    root_w, root_b = np.linalg.cholesky(WITHIN), np.linalg.cholesky(BETWEEN)
    parts, weights = [], []
    while len(parts) < nclusters:
        part = root_b @ rng.normal(size=3)
        chance = 1 / (1 + np.exp(1 - 1.2 * part[0] / np.sqrt(0.5)))
        if rng.random() < chance:
            parts.append(part)
            weights.append(1 / chance)
    values = np.repeat(parts, size, axis=0) + rng.normal(size=(nclusters * size, 3)) @ root_w.T
    return pd.DataFrame(values, columns=["y1", "y2", "y3"]).assign(
        cluster=np.repeat(np.arange(nclusters), size),
        v=np.repeat(weights, size),
        w=rng.uniform(0.5, 2, nclusters * size),
    )


def truth(table: pd.DataFrame) -> Floats:
    """True values of the rows of a table of estimates."""
    out = []
    for row in table.itertuples():
        cov = WITHIN if row.level == 1 else BETWEEN
        out.append(0.0 if row.op == "~1" else cov[int(row.lhs[1]) - 1, int(row.rhs[1]) - 1])
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200)
    samples = parser.parse_args().samples
    warnings.simplefilter("ignore")
    rows = []
    for nclusters, size in DESIGNS:
        rng = np.random.default_rng([nclusters, size])
        found: list[pd.DataFrame] = []
        for _ in range(samples):
            data = draw(rng, nclusters, size)
            for se in ("robust", "jackknife1"):
                fit = msem.sem(MODEL, data, cluster="cluster", weights="w", cluster_weights="v", se=se)
                table = fit.estimates()
                table = table[table.se > 0]
                kind = np.where(table.op == "~1", "mean", np.where(table.level == 1, "within", "between"))
                covers = np.abs(table.est - truth(table)) < 1.959964 * table.se
                found.append(
                    pd.DataFrame(
                        {"se": se, "kind": kind, "covers": covers, "est": table.est, "error": table.se}
                    )
                )
        every = pd.concat(found)
        every["parameter"] = every.index
        for (se, kind), part in every.groupby(["se", "kind"]):
            spread = part.groupby("parameter")["est"].std()
            median = part.groupby("parameter")["error"].median()
            rows.append(
                {
                    "nclusters": nclusters,
                    "size": size,
                    "samples": samples,
                    "se": se,
                    "parameters": kind,
                    "coverage": round(part["covers"].mean(), 3),
                    "median_se_over_sd": round(float((median / spread).mean()), 3),
                }
            )
    result = pd.DataFrame(rows)
    result.to_csv(Path(__file__).parent / "results" / "survey_coverage.csv", index=False)
    print(result.to_string(index=False))


if __name__ == "__main__":
    main()
