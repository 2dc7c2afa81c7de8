"""Simulated two-level data for examples and tests."""

from __future__ import annotations

import gzip
from importlib.resources import files

import pandas as pd


def load_demo() -> pd.DataFrame:
    """Two-level data simulated for demonstration.

    Returns
    -------
    pandas.DataFrame
        2500 units in 200 clusters, 50 each of sizes 5, 10, 15 and 20. Columns: y1-y6, measured on units
        and varying at both levels (two factors, y1-y3 and y4-y6, at each level); x1-x3, covariates of units
        without cluster differences; w1 and w2, covariates of clusters; cluster, numbered 1-200.

    Examples
    --------
    >>> from msem.data.demo import load_demo
    >>> load_demo()["cluster"].nunique()
    200
    """
    source = files("msem.data") / "demo.csv.gz"
    with source.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as text:
        return pd.read_csv(text)
