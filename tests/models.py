"""Models written as rows, random models, and data drawn from them: what the tests of the core share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import oracle
from msem.data.arrays import vech
from msem.data.complete import SampleStatistics
from msem.data.complete_clusters import ClusterArrays
from msem.estimation.objective import Objective, build_objective
from msem.model.partable import Parameter, ParameterTable
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Row = tuple[
    str, str, str, int, float, str
]  # lhs, op, rhs, level, value, label; "=" is fixed, "" is on its own


def parameter_table(rows: Sequence[Row]) -> tuple[ParameterTable, Floats]:
    """Table of the rows, and theta with their values. Rows with the same label share a parameter."""
    theta: list[float] = []
    labels: dict[str, int] = {}
    out = []
    for lhs, op, rhs, level, value, label in rows:
        free = 0 if label == "=" else labels.get(label, len(theta) + 1)
        if free > len(theta):
            theta.append(value)
        if label not in ("", "="):
            labels[label] = free
        shown = "" if label == "=" else label
        out.append(Parameter(lhs, op, rhs, level, 1, free, np.nan if free else value, label=shown))
    return ParameterTable(tuple(out), max(r[3] for r in rows), 1, True, False, None), np.array(theta)


@dataclass(frozen=True, eq=False)
class Case:
    """A model with data; single-level models have no `unit` variables and a cluster for each row."""

    rows: Sequence[Row]
    unit: tuple[str, ...]
    cluster: tuple[str, ...]
    nboth: int
    sizes: Sequence[int]
    seed: int = 1

    @cached_property
    def table(self) -> ParameterTable:
        return parameter_table(self.rows)[0]

    @cached_property
    def theta(self) -> Floats:
        """The values the data are drawn at."""
        return parameter_table(self.rows)[1]

    @cached_property
    def near(self) -> Floats:
        """A point at which neither gradient nor any residual vanishes."""
        return self.theta + 0.04 * np.random.default_rng(self.seed + 1).normal(size=len(self.theta))

    def moments(self, theta: Floats) -> oracle.Moments:
        if self.unit:
            return oracle.table_moments(self.table.rows, theta, self.unit, self.cluster, self.nboth)
        between = oracle.implied(self.table.rows, np.asarray(theta), 1, self.cluster)
        return oracle.Moments(np.zeros(0), np.zeros((0, 0)), *between, 0)

    @cached_property
    def sample(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """y (N, p), z (J, q) and cluster codes, as the oracle takes them."""
        m, rng = self.moments(self.theta), np.random.default_rng(self.seed)
        if self.unit:
            return oracle.simulate(rng, m.sigma_w, m.sigma_b, self.sizes, self.nboth, m.mu_w, m.mu_b)
        n = len(self.sizes)
        return np.empty((n, 0)), rng.multivariate_normal(m.mu_b, m.sigma_b, n), np.arange(n)

    @cached_property
    def frame(self) -> pd.DataFrame:
        return oracle.frame(*self.sample, self.unit, self.cluster)

    def logliks(self, theta: Floats) -> Floats:
        return oracle.cluster_logliks(self.moments(theta), *self.sample)

    def loglik(self, theta: Floats) -> float:
        return self.logliks(theta).sum()

    @cached_property
    def statistics(self) -> SampleStatistics:
        return sample_statistics(self.sample, self.unit, self.cluster, self.nboth)

    @cached_property
    def clusters(self) -> ClusterArrays:
        y, z, codes = self.sample
        size = np.bincount(codes)
        means = np.array([y[codes == j].mean(axis=0) for j in range(len(z))])
        deviation = [y[codes == j] - means[j] for j in range(len(z))]
        within = np.array([vech(d.T @ d) for d in deviation]).reshape(len(z), -1)
        return ClusterArrays(size.astype(float), np.hstack([means, z]), within)

    @cached_property
    def objective(self) -> Objective:
        return build_objective(self.table, self.statistics)


def sample_statistics(
    sample: tuple[Floats, Floats, NDArray[np.int64]], unit: Sequence[str], cluster: Sequence[str], nboth: int
) -> SampleStatistics:
    """The oracle's statistics as the package's type."""
    s = oracle.statistics(*sample)
    return SampleStatistics(Variables.of_units_and_clusters(unit, cluster, nboth), source="data", **vars(s))


def two_level(rows: Sequence[Row], sizes: Sequence[int], seed: int = 1) -> Case:
    """Case whose variables are those of the rows, with names y* at both levels, x* within, w* between."""
    names = list(dict.fromkeys(name for r in rows for name in (r[0], r[2]) if name))
    both, within, between = (tuple(sorted(n for n in names if n[0] == kind)) for kind in "yxw")
    return Case(rows, both + within, between, len(both), sizes, seed)


def factor_rows(slope: float = 0.4) -> list[Row]:
    """One factor at each level, a covariate of it within and another between, all parameters identified."""
    rows: list[Row] = []
    for level, factor, covariate in ((1, "fw", "x1"), (2, "fb", "w1")):
        loadings = zip(("y1", "y2", "y3"), (1.0, 0.8, 1.2), ("=", "", ""), strict=True)
        rows += [(factor, "=~", y, level, value, label) for y, value, label in loadings]
        rows += [(y, "~~", y, level, v, "") for y, v in (("y1", 0.5), ("y2", 0.6), ("y3", 0.4))]
        rows += [(factor, "~~", factor, level, 0.9, ""), (factor, "~", covariate, level, slope, "")]
        rows += [(covariate, "~~", covariate, level, 1.1, ""), (covariate, "~1", "", level, 0.3, "")]
    return rows + [(y, "~1", "", 2, v, "") for y, v in (("y1", 0.5), ("y2", -1.0), ("y3", 2.0))]


def random_case(seed: int, both: int, within: int, between: int, sizes: Sequence[int]) -> Case:
    """Random structure and values: factors, paths (also reciprocal), labels within and across levels."""
    rng = np.random.default_rng(seed)
    y, x, w = (
        [f"{kind}{i + 1}" for i in range(n)] for kind, n in (("y", both), ("x", within), ("w", between))
    )
    single = not y and not x
    rows = [] if single else _level_rows(rng, 1, y, x)
    rows += _level_rows(rng, 1 if single else 2, y, w)
    rows += [(v, "~1", "", 2, rng.normal(), "") for v in y]
    if y and rng.random() < 0.5:
        rows.append((y[0], "~1", "", 1, 0.3, ""))
    return Case(rows, tuple(y + x), tuple(w), both, sizes, seed)


def _level_rows(rng: np.random.Generator, level: int, both: list[str], only: list[str]) -> list[Row]:
    rows: list[Row] = []
    shared = rng.random() < 0.7  # loadings and slopes have the same labels at both levels
    factor, path = f"f{level}", rng.uniform(0.2, 0.4)
    for k, v in enumerate(both):
        label = "=" if k == 0 else f"l{k}" if shared else "l" if rng.random() < 0.3 else ""
        rows.append((factor, "=~", v, level, 1.0 if k == 0 else 0.7, label))
    rows += [(v, "~~", v, level, rng.uniform(0.8, 1.5), "") for v in both + only]
    rows += [(v, "~1", "", level, rng.normal(), "") for v in only]
    rows += [(a, "~~", b, level, rng.uniform(-0.2, 0.2), "") for a, b in zip(only[1:], only, strict=False)]
    if both:
        rows += [(factor, "~~", factor, level, rng.uniform(0.4, 1.0), ""), (factor, "~1", "", level, 0.2, "")]
    if both and only:
        rows += [(factor, "~", only[0], level, path, "b" if shared else "")]
        rows += [(both[-1], "~", only[-1], level, 0.3, "b" if rng.random() < 0.3 else "")]
    if len(both) > 2:
        rows += [(both[0], "~~", both[2], level, 0.1, "c" if shared else "")]
    if len(both) > 2 and rng.random() < 0.6:  # a reciprocal pair
        rows += [(both[0], "~", both[1], level, 0.15, ""), (both[1], "~", both[0], level, -0.2, "")]
    if not both and len(only) > 1:
        rows += [(only[-1], "~", only[0], level, path, "")]
    return rows


FEW = [3] * 6 + [5] * 5 + [2] * 4
MANY = [*range(1, 15)]
ONES = [1] * 9 + [2] * 4 + [7] * 2
# number of variables at both levels, within only, between only; sizes
SHAPES = {
    "both levels": (3, 0, 0, FEW),
    "both levels, many sizes": (4, 0, 0, MANY),
    "one variable": (1, 0, 0, ONES),
    "within-only": (3, 2, 0, ONES),
    "between-only": (3, 0, 2, FEW),
    "all kinds": (3, 2, 2, MANY),
    "all kinds, balanced": (3, 1, 1, [4] * 12),
    "nothing at both levels": (0, 3, 2, FEW),
    "single level": (0, 0, 4, [1] * 25),
}


def shape_case(shape: str, seed: int = 1) -> Case:
    """Random model with the numbers of variables of `SHAPES`."""
    return random_case(seed, *SHAPES[shape])
