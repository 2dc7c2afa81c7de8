"""Simulate the demonstration data that ship with the package: python tests/data/make_demo.py.

200 clusters, 50 each of sizes 5, 10, 15 and 20. Two factors at each level, measured by y1-y3 and y4-y6; the
first is regressed on x1-x3 within and on w1, w2 between clusters.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

TARGET = Path(__file__).parents[2] / "python" / "msem" / "data" / "demo.csv.gz"
SEED = 6
SIZES = (5, 10, 15, 20)
LOADINGS_WITHIN = [[1, 0.8, 0.7, 0, 0, 0], [0, 0, 0, 1, 0.9, 0.8]]
LOADINGS_BETWEEN = [[1, 0.7, 0.6, 0, 0, 0], [0, 0, 0, 1, 0.8, 0.7]]
FACTORS_WITHIN = [[0.55, 0.25], [0.25, 0.8]]
FACTORS_BETWEEN = [[0.9, 0.2], [0.2, 0.5]]
RESIDUALS_WITHIN = [1.0, 1.05, 1.0, 0.9, 1.0, 1.1]
RESIDUALS_BETWEEN = [0.1, 0.12, 0.12, 0.12, 0.15, 0.1]
SLOPES_WITHIN = [0.5, 0.4, 0.2]
SLOPES_BETWEEN = [0.16, 0.13]


def level(
    rng: np.random.Generator,
    covariates: np.ndarray,
    slopes: list[float],
    factors: list[list[float]],
    loadings: list[list[float]],
    residuals: list[float],
) -> np.ndarray:
    """One level's part of y1-y6, a row per row of the covariates."""
    eta = rng.multivariate_normal(np.zeros(2), factors, len(covariates))
    eta[:, 0] += covariates @ slopes
    return eta @ np.array(loadings) + rng.normal(size=(len(covariates), 6)) * np.sqrt(residuals)


def simulate(seed: int) -> pd.DataFrame:
    """The data frame, one row per unit."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(200), np.repeat(SIZES, 50))
    x = rng.normal(size=(len(cluster), 3))
    w = rng.multivariate_normal([0, 0], [[1, -0.1], [-0.1, 1]], 200)
    within = level(rng, x, SLOPES_WITHIN, FACTORS_WITHIN, LOADINGS_WITHIN, RESIDUALS_WITHIN)
    between = level(rng, w, SLOPES_BETWEEN, FACTORS_BETWEEN, LOADINGS_BETWEEN, RESIDUALS_BETWEEN)
    columns = {f"y{k + 1}": (within + between[cluster])[:, k] for k in range(6)}
    columns |= {f"x{k + 1}": x[:, k] for k in range(3)}
    columns |= {f"w{k + 1}": w[cluster, k] for k in range(2)}
    return pd.DataFrame(columns).round(3).assign(cluster=cluster + 1)


def main() -> None:
    """Write the file; no time stamp, so that the same seed gives the same bytes."""
    text = simulate(SEED).to_csv(index=False, float_format="%.3f", lineterminator="\n")
    TARGET.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
