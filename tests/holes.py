"""The demonstration data with holes, always the same ones, for msem here and for the programs it is held to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

# seed, share, columns of units, columns of clusters
DATA: dict[str, tuple[int, float, Sequence[str], Sequence[str]]] = {
    "y": (1, 0.1, ("y1", "y2", "y3"), ()),
    "all": (2, 0.1, ("y1", "y2", "y3", "x1", "x2", "x3"), ("w1", "w2")),
    "rows": (3, 0.1, ("y1", "y2", "y3", "y4", "y5", "y6", "x1", "x2"), ()),
}


def punched(demo: pd.DataFrame, name: str) -> pd.DataFrame:
    """Holes completely at random; a variable of clusters is missing for all rows of a cluster."""
    seed, share, unit, cluster = DATA[name]
    rng, out = np.random.default_rng(seed), demo.copy()
    for column in unit:
        out.loc[rng.random(len(out)) < share, column] = np.nan
    groups = demo["cluster"].unique()
    for column in cluster:
        out.loc[out["cluster"].isin(groups[rng.random(len(groups)) < share]), column] = np.nan
    return out
