"""Two-level data for the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from msem.model.variables import Variables

UNIT, CLUSTER = ("y1", "y2", "x"), ("z1", "z2")
VARIABLES = Variables.of_units_and_clusters(UNIT, CLUSTER, 2)
WITHIN = [[2.0, 0.8, 0.3], [0.8, 1.5, 0.2], [0.3, 0.2, 1.0]]
BETWEEN = [[1.0, 0.4, 0.2, 0.1], [0.4, 0.8, 0.1, 0.2], [0.2, 0.1, 1.0, -0.3], [0.1, 0.2, -0.3, 1.5]]
SIZES = [1, 7, 3, 3, 1, 12, 7, 3, 5, 5, 300]


def two_level(
    rng: np.random.Generator,
    sizes: Sequence[int],
    within_cov: ArrayLike,
    between_cov: ArrayLike,
    mean: ArrayLike,
    unit: Sequence[str],
    cluster: Sequence[str],
    nboth: int,
) -> pd.DataFrame:
    """Draw normal two-level data, a row per unit; most arguments as in `expected_statistics`.

    The clusters have the given sizes; column "cluster" numbers them from 0.
    """
    p, m = len(unit), len(unit) + len(cluster)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.zeros((len(codes), m)) + np.asarray(mean)
    rows[:, :p] += rng.multivariate_normal(np.zeros(p), within_cov, len(codes))
    level2 = [*range(nboth), *range(p, m)]
    rows[:, level2] += rng.multivariate_normal(np.zeros(len(level2)), between_cov, len(sizes))[codes]
    return pd.DataFrame(rows, columns=[*unit, *cluster]).assign(cluster=codes)


def small_sample(seed: int = 1, mean: float = 0.0) -> pd.DataFrame:
    """347 units: y1 and y2 at both levels, x within only, z1 and z2 between only; means `mean` + 0..4."""
    rng = np.random.default_rng(seed)
    return two_level(rng, SIZES, WITHIN, BETWEEN, np.arange(5) + mean, UNIT, CLUSTER, nboth=2)
