"""Models and simulated data of the benchmark cases, the same on every machine."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Y = [f"y{i + 1}" for i in range(6)]


def factor_model(variables: int, factors: int) -> str:
    """The same simple structure at both levels: each factor has its own block of indicators."""
    blocks = np.array_split([f"y{i + 1}" for i in range(variables)], factors)
    lines = []
    for level, factor in ((1, "fw"), (2, "fb")):
        lines.append(f"level: {level}")
        lines += [f"  {factor}{k + 1} =~ {' + '.join(block)}" for k, block in enumerate(blocks)]
    return "\n".join(lines) + "\n"


COVARIATE_MODEL = factor_model(6, 1) + "  fb1 ~ w1 + w2\n"
INTERCEPT_MODEL = "level: 1\n  y ~ x\nlevel: 2\n  y ~ w\n"
SINGLE_MODEL = "f1 =~ y1 + y2 + y3\nf2 =~ y4 + y5 + y6\nf3 =~ y7 + y8 + y9\n"


def loadings_of(variables: int, factors: int) -> FloatArray:
    """Loadings from 1 down to 0.7 in the block of each factor (factors x variables)."""
    loadings = np.zeros((factors, variables))
    for k, block in enumerate(np.array_split(np.arange(variables), factors)):
        loadings[k, block] = np.linspace(1.0, 0.7, len(block))
    return loadings


def unit_part(rng: np.random.Generator, rows: int, loadings: FloatArray) -> FloatArray:
    """What units add to their cluster."""
    factors, variables = loadings.shape
    y: FloatArray = rng.normal(0, 0.8, (rows, variables))
    y += correlated_factors(rng, rows, factors) @ loadings
    return y


def cluster_part(rng: np.random.Generator, clusters: int, loadings: FloatArray) -> FloatArray:
    """Values of the clusters; about a fifth of the variance of an indicator."""
    factors, variables = loadings.shape
    between: FloatArray = rng.normal(0, 0.3, (clusters, variables))
    between += 0.5 * correlated_factors(rng, clusters, factors) @ loadings
    return between


def correlated_factors(rng: np.random.Generator, rows: int, factors: int) -> FloatArray:
    """Standard normal factors that all correlate 0.4."""
    own: FloatArray = rng.normal(size=(rows, factors))
    common: FloatArray = rng.normal(size=(rows, 1))
    return own * 0.6**0.5 + common * 0.4**0.5


def factor_data(seed: int, variables: int, factors: int, sizes: IntArray) -> pd.DataFrame:
    """Correlated factors at both levels."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    loadings = loadings_of(variables, factors)
    y = unit_part(rng, len(cluster), loadings)
    y += cluster_part(rng, len(sizes), loadings)[cluster]
    data = pd.DataFrame(y.round(6), columns=[f"y{i + 1}" for i in range(variables)])
    return data.assign(cluster=cluster + 1)


def covariate_data(seed: int, clusters: int, rows: int) -> pd.DataFrame:
    """Six indicators of one factor per level, the one between regressed on two covariates of the cluster."""
    data = factor_data(seed, 6, 1, np.full(clusters, rows))
    w = np.random.default_rng(seed + 1).normal(size=(clusters, 2)).round(6)[data["cluster"] - 1]
    effect = np.outer(w @ [0.3, 0.2], np.linspace(1.0, 0.7, 6))
    data.iloc[:, :6] = (data.iloc[:, :6] + effect).round(6)
    return data.assign(w1=w[:, 0], w2=w[:, 1])


def with_holes(data: pd.DataFrame, columns: list[str], share: float) -> pd.DataFrame:
    """Holes completely at random."""
    rng = np.random.default_rng(3)
    return data.assign(**{c: data[c].where(rng.random(len(data)) >= share) for c in columns})


def planned_holes(data: pd.DataFrame) -> pd.DataFrame:
    """Five patterns in every cluster however many rows it has, as in forms of a questionnaire that leave out items."""
    form = data.groupby("cluster").cumcount() % 5
    left_out = {1: ["y1", "y2"], 2: ["y3", "y4"], 3: ["y5", "y6"], 4: ["y2", "y5"]}
    return data.assign(**{c: data[c].where(~form.isin([f for f in left_out if c in left_out[f]])) for c in Y})


def intercept_data(seed: int, clusters: int, rows: int) -> pd.DataFrame:
    """A regression on a covariate of units and one of clusters, with an intercept that varies over clusters.

    The clusters have from half to three halves of `rows` / `clusters` units.
    """
    rng = np.random.default_rng(seed)
    mean = rows // clusters
    spread = np.resize(np.arange(-(mean // 2), mean // 2 + 1), clusters // 2)
    cluster = np.repeat(np.arange(clusters), np.concatenate([mean + spread, mean - spread]))
    x, w = rng.normal(size=len(cluster)), rng.normal(size=clusters)
    intercept = 1.0 + 0.3 * w + rng.normal(0, 0.6, clusters)
    y = intercept[cluster] + 0.5 * x + rng.normal(size=len(cluster))
    return pd.DataFrame({"y": y, "x": x, "w": w[cluster]}).round(6).assign(cluster=cluster + 1)


def single_data(seed: int, rows: int) -> pd.DataFrame:
    """Nine indicators of three correlated factors, units independent of each other."""
    y = unit_part(np.random.default_rng(seed), rows, loadings_of(9, 3))
    return pd.DataFrame(y.round(6), columns=[f"y{i + 1}" for i in range(9)])


def spread_sizes(clusters: int, mean: int, distinct: int) -> IntArray:
    """Sizes of clusters: so many different ones, equally frequent and symmetric about their mean."""
    offsets = np.arange(1, distinct // 2 + 1)
    values = mean + (np.concatenate([-offsets, offsets]) if distinct > 1 else np.zeros(1, dtype=int))
    return np.resize(values, clusters).astype(np.int64)
