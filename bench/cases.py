"""Named benchmark cases: a model text and simulated data, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import load_demo
from msem.cli import DEMO_MODEL


@dataclass(frozen=True)
class Case:
    """One row of the benchmark; `make` draws the data, with a column named "cluster"."""

    name: str
    stresses: str
    model: str
    make: Callable[[], pd.DataFrame]
    missing: str = "listwise"


def factor_model(variables: int, factors: int) -> str:
    """The same simple structure at both levels: each factor has its own block of indicators."""
    blocks = np.array_split([f"y{i + 1}" for i in range(variables)], factors)
    lines = []
    for level, factor in ((1, "fw"), (2, "fb")):
        lines.append(f"level: {level}")
        lines += [f"  {factor}{k + 1} =~ {' + '.join(block)}" for k, block in enumerate(blocks)]
    return "\n".join(lines) + "\n"


def factor_data(seed: int, variables: int, factors: int, sizes: NDArray[np.int64]) -> pd.DataFrame:
    """Correlated factors at both levels; about a fifth of the variance of an indicator is between."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    loadings = np.zeros((factors, variables))
    for k, block in enumerate(np.array_split(np.arange(variables), factors)):
        loadings[k, block] = np.linspace(1.0, 0.7, len(block))
    y = rng.normal(0, 0.8, (len(cluster), variables))
    y += _factors(rng, len(cluster), factors) @ loadings
    between = rng.normal(0, 0.3, (len(sizes), variables))
    between += 0.5 * _factors(rng, len(sizes), factors) @ loadings
    y += between[cluster]
    data = pd.DataFrame(y.round(6), columns=[f"y{i + 1}" for i in range(variables)])
    return data.assign(cluster=cluster + 1)


def _factors(rng: np.random.Generator, rows: int, factors: int) -> NDArray[np.float64]:
    """Standard normal factors that all correlate 0.4."""
    own: NDArray[np.float64] = rng.normal(size=(rows, factors))
    common: NDArray[np.float64] = rng.normal(size=(rows, 1))
    return own * 0.6**0.5 + common * 0.4**0.5


def _factor_case(name: str, stresses: str, variables: int, factors: int, sizes: NDArray[np.int64]) -> Case:
    model = factor_model(variables, factors)
    return Case(name, stresses, model, lambda: factor_data(1, variables, factors, sizes))


COVARIATE_MODEL = factor_model(6, 1) + "  fb1 ~ w1 + w2\n"


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


def _holes_case(name: str, stresses: str, clusters: int, rows: int) -> Case:
    def make() -> pd.DataFrame:
        return with_holes(covariate_data(1, clusters, rows), Y, 0.15)

    return Case(name, stresses, COVARIATE_MODEL, make, "fiml")


def _planned_case(rows: int) -> Case:
    stresses = f"2,500 clusters of {rows} rows, 12,500 cells"
    return Case(
        f"cells{rows}",
        stresses,
        COVARIATE_MODEL,
        lambda: planned_holes(covariate_data(1, 2_500, rows)),
        "fiml",
    )


Y = [f"y{i + 1}" for i in range(6)]
FORTY_ONE_SIZES = np.resize(np.arange(7, 48), 200)
HUGE_SIZES = np.linspace(8_000, 12_000, 50).round().astype(int)
CASES = (
    Case("demo", "small: overhead per fit", DEMO_MODEL, load_demo),
    _factor_case("sizes400", "as many cluster sizes as clusters", 6, 2, np.arange(2, 402)),
    _factor_case("wide", "20 indicators, 4 factors", 20, 4, FORTY_ONE_SIZES),
    _factor_case("wider", "30 indicators, 3 factors", 30, 3, FORTY_ONE_SIZES),
    _factor_case("huge", "500,000 rows in 50 clusters", 6, 2, HUGE_SIZES),
    _factor_case("tiny", "100,000 clusters of 2 to 5", 6, 2, np.tile([2, 3, 4, 5], 25_000)),
)
MISSING = (
    Case(
        "demo_holes",
        "10% of y1 to y3 missing",
        DEMO_MODEL,
        lambda: with_holes(load_demo(), ["y1", "y2", "y3"], 0.1),
        "fiml",
    ),
    _holes_case("holes", "1,000,000 rows in 50,000 clusters, all 64 patterns", 50_000, 20),
)
SCALING = (
    *(_holes_case(f"holes{j}", f"{j:,} clusters of 20 rows", j, 20) for j in (6_250, 12_500, 25_000)),
    *(_planned_case(rows) for rows in (20, 80, 320)),
)
SETS = {"complete": CASES, "missing": MISSING, "scaling": SCALING}
BY_NAME = {case.name: case for cases in SETS.values() for case in cases}
