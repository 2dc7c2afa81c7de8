"""Named benchmark cases: a model text and simulated data, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """One row of the benchmark; `make` draws the data, with a column named "cluster"."""

    name: str
    stresses: str
    model: str
    make: Callable[[], pd.DataFrame]


DEMO_MODEL = """\
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"""


def demo_data() -> pd.DataFrame:
    """200 clusters of 5, 10, 15 or 20; a factor at each level; covariates at their own level."""
    rng = np.random.default_rng(20240602)
    sizes = np.tile([5, 10, 15, 20], 50)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    x, w = rng.normal(size=(len(cluster), 3)), rng.normal(size=(len(sizes), 2))
    within = x @ [0.5, 0.4, 0.2] + rng.normal(0, 0.75, len(cluster))
    between = w @ [0.15, 0.15] + rng.normal(0, 0.95, len(sizes))
    y = np.outer(within, [1.0, 0.8, 0.7]) + rng.normal(size=(len(cluster), 3))
    y += (np.outer(between, [1.0, 0.7, 0.6]) + rng.normal(0, 0.3, (len(sizes), 3)))[cluster]
    columns = {f"y{i + 1}": y[:, i] for i in range(3)} | {f"x{i + 1}": x[:, i] for i in range(3)}
    columns |= {f"w{i + 1}": w[cluster, i] for i in range(2)}
    return pd.DataFrame(columns | {"cluster": cluster + 1}).round(6)


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
    Case("demo", "small: overhead per fit", DEMO_MODEL, demo_data),
    _factor_case("sizes400", "as many cluster sizes as clusters", 6, 2, np.arange(2, 402)),
    _factor_case("wide", "20 indicators, 4 factors", 20, 4, FORTY_ONE_SIZES),
    _factor_case("wider", "30 indicators, 3 factors", 30, 3, FORTY_ONE_SIZES),
    _factor_case("huge", "500,000 rows in 50 clusters", 6, 2, HUGE_SIZES),
    _factor_case("tiny", "100,000 clusters of 2 to 5", 6, 2, np.tile([2, 3, 4, 5], 25_000)),
)
BY_NAME = {case.name: case for case in CASES}
