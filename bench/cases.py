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
BY_NAME = {case.name: case for case in CASES}
