"""Two-level data for the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


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
    """Draw normal two-level data, a row per unit; arguments as in `msem.statistics.expected_statistics`.

    The clusters have the given sizes; column "cluster" numbers them from 0.
    """
    p, m = len(unit), len(unit) + len(cluster)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.zeros((len(codes), m)) + np.asarray(mean)
    rows[:, :p] += rng.multivariate_normal(np.zeros(p), within_cov, len(codes))
    level2 = [*range(nboth), *range(p, m)]
    rows[:, level2] += rng.multivariate_normal(np.zeros(len(level2)), between_cov, len(sizes))[codes]
    return pd.DataFrame(rows, columns=[*unit, *cluster]).assign(cluster=codes)
