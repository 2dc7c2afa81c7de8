"""Named benchmark cases: a model text, simulated data, and the programs that can fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from casedata import (
    COVARIATE_MODEL,
    INTERCEPT_MODEL,
    SINGLE_MODEL,
    IntArray,
    Y,
    covariate_data,
    factor_data,
    factor_model,
    intercept_data,
    planned_holes,
    single_data,
    spread_sizes,
    with_holes,
)
from msem import load_demo
from msem.cli import DEMO_MODEL

LAVAAN = ("lavaan",)
LAVAAN_AND_OPENMX = ("lavaan", "openmx")


@dataclass(frozen=True)
class Design:
    """What grows in the cases of the set "growth"."""

    rows: int
    clusters: int
    sizes: int
    variables: int


@dataclass(frozen=True)
class Case:
    """One row of the benchmark.

    `make` draws the data; the clusters of a two-level model are in the column "cluster". `peers` are the programs
    beside msem that can fit the model. Every process fits the case named `warm` first.
    """

    name: str
    stresses: str
    model: str
    make: Callable[[], pd.DataFrame]
    missing: str = "listwise"
    peers: tuple[str, ...] = LAVAAN
    warm: str = "demo"
    design: Design | None = None


def _factor_case(
    name: str, stresses: str, variables: int, factors: int, sizes: IntArray, peers: tuple[str, ...] = LAVAAN
) -> Case:
    model = factor_model(variables, factors)
    return Case(name, stresses, model, lambda: factor_data(1, variables, factors, sizes), peers=peers)


def _holes_case(name: str, stresses: str, clusters: int, rows: int) -> Case:
    def make() -> pd.DataFrame:
        return with_holes(covariate_data(1, clusters, rows), Y, 0.15)

    return Case(name, stresses, COVARIATE_MODEL, make, "fiml", warm="demo_holes")


def _planned_case(rows: int) -> Case:
    return Case(
        f"cells{rows}",
        f"2,500 clusters of {rows} rows, 12,500 cells",
        COVARIATE_MODEL,
        lambda: planned_holes(covariate_data(1, 2_500, rows)),
        "fiml",
        warm="demo_holes",
    )


def _intercept_case(name: str, clusters: int, rows: int, peers: tuple[str, ...]) -> Case:
    stresses = f"random-intercept regression, {rows:,} rows in {clusters:,} clusters"
    return Case(
        name,
        stresses,
        INTERCEPT_MODEL,
        lambda: intercept_data(1, clusters, rows),
        peers=peers,
        warm="intercepts",
    )


def _growth_case(prefix: str, design: Design) -> Case:
    """One factor per level; clusters of rows / clusters units, or symmetric about that."""
    sizes = spread_sizes(design.clusters, design.rows // design.clusters, design.sizes)
    # Beyond these, lavaan takes longer than a plot is worth.
    small = design.rows <= 480_000 and design.clusters <= 24_000 and design.variables <= 24
    case = _factor_case(
        f"{prefix}{getattr(design, VARIED[prefix]) if prefix in VARIED else ''}",
        f"{design.rows:,} rows, {design.clusters:,} clusters, {design.sizes} sizes, {design.variables} indicators",
        design.variables,
        1,
        sizes,
        LAVAAN if small else (),
    )
    return replace(case, design=design)


FORTY_ONE_SIZES = np.resize(np.arange(7, 48), 200)
HUGE_SIZES = np.linspace(8_000, 12_000, 50).round().astype(int)
CASES = (
    Case("demo", "small: overhead per fit", DEMO_MODEL, load_demo, peers=LAVAAN_AND_OPENMX),
    _factor_case("sizes400", "as many cluster sizes as clusters", 6, 2, np.arange(2, 402)),
    _factor_case("wide", "20 indicators, 4 factors", 20, 4, FORTY_ONE_SIZES),
    _factor_case("wider", "30 indicators, 3 factors", 30, 3, FORTY_ONE_SIZES),
    _factor_case("huge", "500,000 rows in 50 clusters", 6, 2, HUGE_SIZES),
    _factor_case("tiny", "100,000 clusters of 2 to 5", 6, 2, np.tile([2, 3, 4, 5], 25_000)),
)
SHARED = (
    _intercept_case("intercepts", 200, 2_500, ("lavaan", "openmx", "lme4", "statsmodels")),
    _intercept_case("intercepts_large", 5_000, 100_000, ("lavaan", "lme4", "statsmodels")),
    Case(
        "single",
        "single level: 9 indicators, 3 factors, 5,000 rows",
        SINGLE_MODEL,
        lambda: single_data(1, 5_000),
        peers=("lavaan", "semopy"),
        warm="single",
    ),
)
LARGE = (
    _factor_case(
        "million",
        "1,000,000 rows in 50,000 clusters; 8 indicators",
        8,
        2,
        np.full(50_000, 20),
        LAVAAN_AND_OPENMX,
    ),
)
MISSING = (
    Case(
        "demo_holes",
        "10% of y1 to y3 missing",
        DEMO_MODEL,
        lambda: with_holes(load_demo(), ["y1", "y2", "y3"], 0.1),
        "fiml",
        LAVAAN_AND_OPENMX,
        "demo_holes",
    ),
    _holes_case("holes", "1,000,000 rows in 50,000 clusters, all 64 patterns", 50_000, 20),
)
SCALING = (
    *(_holes_case(f"holes{j}", f"{j:,} clusters of 20 rows", j, 20) for j in (6_250, 12_500, 25_000)),
    *(_planned_case(rows) for rows in (20, 80, 320)),
)
BASE = Design(rows=48_000, clusters=400, sizes=1, variables=6)
VARIED = {"N": "rows", "J": "clusters", "sizes": "sizes", "p": "variables"}
LINES = {
    "N": (1_600, 8_000, 160_000, 480_000, 2_000_000),
    "J": (100, 1_600, 6_000, 24_000),
    "sizes": (4, 20, 80, 200),
    "p": (3, 12, 24, 48),
}
GROWTH = (
    _growth_case("base", BASE),
    *(
        _growth_case(prefix, replace(BASE, **{VARIED[prefix]: value}))
        for prefix, values in LINES.items()
        for value in values
    ),
)
SETS = {
    "complete": CASES,
    "shared": SHARED,
    "large": LARGE,
    "missing": MISSING,
    "scaling": SCALING,
    "growth": GROWTH,
}
BY_NAME = {case.name: case for cases in SETS.values() for case in cases}
