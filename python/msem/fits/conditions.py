"""The cells of a design: numbers and sizes of clusters, distributions and population values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import SampleStatistics, expected_statistics
from msem.data.draws import DrawsOrigin, require_drawable
from msem.data.sample import Group, Sample
from msem.errors import DataError, ModelError, MsemError, UnsupportedError
from msem.estimation.estimate import estimate
from msem.estimation.plan import arranged
from msem.fits.ordered_truth import ordered_truth, require_same_kind
from msem.fits.simulate import cluster_columns, drawn_categories, read_design
from msem.model.functions import defined_functions
from msem.model.levels import BETWEEN
from msem.model.partable import ParameterTable
from msem.model.variables import Variables
from msem.simulation.datasets import DrawnData
from msem.simulation.designs import Clusters, Design, require_divided
from msem.simulation.drawn import DrawnSamples
from msem.simulation.population import Population
from msem.simulation.shapes import Shape, read_distribution
from msem.simulation.sources import row_draws, statistics_draws

Floats = NDArray[np.float64]

SIZES = ("nclusters", "cluster_sizes", "nobs")
APART = 2**40  # numbers of samples between cells: streams of random numbers do not overlap
SAME = 1e-6  # a value this close to the population's is the population's


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell of a design.

    Attributes
    ----------
    number : int
        From 0, in the order of the grid.
    labels : mapping of str to value
        As tables show them.
    population : Population
    designs : tuple of Design
        Units and clusters of each group.
    origin : DrawsOrigin
        Of its samples.
    seed : int
    rows : bool
        Whether samples are drawn as data and not as statistics: see `need_rows`; also where errors or tests are robust.
    """

    number: int
    labels: Mapping[str, Any]
    population: Population
    designs: tuple[Design, ...]
    origin: DrawsOrigin
    seed: int
    rows: bool = False

    @property
    def clusters(self) -> tuple[Clusters, ...]:
        """Of each group those that are nested in each other."""
        return tuple(one for one in self.designs if isinstance(one, Clusters))

    def samples(self, first: int, last: int) -> DrawnSamples | DrawnData:
        """Samples first, ..., last - 1 of the cell."""
        start = self.number * APART
        table = self.population.table
        numbers = range(start + first, start + last)
        if self.rows:
            draws = self.origin.draws
            assert isinstance(draws, _core.RowDraws)
            variables = self.population.variables
            columns = table.clusters if table.crossed else cluster_columns(None, table, None)
            categories = drawn_categories(self.population, None)
            return DrawnData(
                variables,
                table.group_labels,
                self.designs,
                draws,
                numbers,
                self.seed,
                columns,
                categories=categories,
            )
        return DrawnSamples(self.population.variables, table.group_labels, self.origin, numbers, self.seed)


def read_grid(grid: Any) -> list[dict[str, Any]]:
    """Settings of every cell, from a mapping whose values are crossed, a sequence of mappings, or a data frame.

    Raises
    ------
    DataError
        If there is no cell.
    """
    if isinstance(grid, pd.DataFrame):
        cells = [{str(k): _plain(v) for k, v in row.items()} for row in grid.to_dict("records")]
    elif isinstance(grid, Mapping):
        several = [
            value if isinstance(value, (list, np.ndarray, range, pd.Series)) else [value]
            for value in grid.values()
        ]
        cells = [
            dict(zip(map(str, grid), map(_plain, values), strict=True))
            for values in itertools.product(*several)
        ]
    elif (
        isinstance(grid, Sequence) and not isinstance(grid, str) and all(isinstance(c, Mapping) for c in grid)
    ):
        cells = [{str(k): _plain(v) for k, v in cell.items()} for cell in grid]
    else:
        raise DataError(
            "a design is a dict of settings to the values that they take, a list of dicts, one for each cell, or a "
            f"data frame with a row for each, not {type(grid).__name__}"
        )
    if not cells:
        raise DataError("the design has no cell: a setting has no values, or there is no row")
    return cells


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def need_rows(table: ParameterTable) -> bool:
    """Whether samples are drawn as data: of three levels, of ordered variables, or if any group has random slopes."""
    return table.nlevels > BETWEEN or bool(table.ordered.thresholds) or _has_slopes(table)


def _has_slopes(table: ParameterTable) -> bool:
    return any(table.slopes(group) for group in range(1, table.ngroups + 1))


def make_cells(
    population: Population, model: Any, grid: Any, distribution: Any, seed: int, *, rows: bool = False
) -> tuple[Cell, ...]:
    """Cells ready to be drawn from; nothing is drawn yet.

    `rows`: samples are drawn as data, as they are of three levels, where the population has random slopes, and for
    errors and tests that look at single clusters.

    Raises
    ------
    ModelError, DataError
        If a cell cannot be: with its settings.
    """
    out = []
    for number, settings in enumerate(read_grid(grid)):
        labels = {name: _label(value) for name, value in settings.items()}
        try:
            out.append(_cell(number, labels, settings, population, model, distribution, seed, rows))
        except (MsemError, ValueError) as error:
            shown = ", ".join(f"{name}={value}" for name, value in labels.items())
            kind = ModelError if isinstance(error, ModelError) else DataError
            raise kind(f"design cell {number + 1} ({shown}): {error}") from error
    return tuple(out)


def _cell(
    number: int,
    labels: Mapping[str, Any],
    settings: Mapping[str, Any],
    population: Population,
    model: Any,
    distribution: Any,
    seed: int,
    rows: bool,
) -> Cell:
    values = {name: float(value) for name, value in settings.items() if name not in (*SIZES, "distribution")}
    here = population.changed(values)
    counts, sizes, nobs = (settings.get(name) for name in SIZES)
    designs = read_design(here, model, counts, sizes, nobs, seed=seed)
    clusters = [one for one in designs if isinstance(one, Clusters)]
    shapes: Mapping[int, Shape] = read_distribution(settings.get("distribution", distribution), here.table)
    rows = rows or need_rows(here.table)
    for one in clusters if rows else ():
        require_divided(one)
    draws = partial(row_draws, here, designs) if rows else partial(statistics_draws, here, clusters)
    origin = DrawsOrigin(partial(draws, shapes, seed))
    require_drawable(origin)
    return Cell(number, labels, here, tuple(designs), origin, seed, rows)


def _label(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else str(value)


@dataclass(frozen=True, eq=False)
class Truth:
    """What a model estimates in a population.

    Attributes
    ----------
    theta : ndarray, shape (P,)
        The parameters, defined ones last.
    chisq : float
        Noncentrality of the likelihood-ratio test in samples of the cell: 0 if the model holds.
    """

    theta: Floats
    chisq: float


def truth(table: ParameterTable, cell: Cell) -> Truth:
    """Values of the parameters of a model that fits the population best: the population's own if the model holds.

    The maximum of the expected log-likelihood, so that a model may be identified in another way than the population,
    or wrong (White, 1982).

    Raises
    ------
    ModelError
        If there is no maximum.
    """
    if table.ordered.thresholds:
        require_same_kind(table, cell.population.table)
    if table.ordered.thresholds and not table.ordered.logistic and not _has_slopes(table):
        theta = ordered_truth(table, cell.population, cell.clusters)
        return Truth(_with_defined(table, _settled(table, theta, cell.population)), 0.0)
    if need_rows(table) or need_rows(cell.population.table):
        return _same(table, cell)
    sample = Sample(tuple(_expected(table, cell)))
    found = estimate(table, sample)
    if not found.optimum.converged:
        raise ModelError(
            "the model does not converge when it is fitted to the moments of the population: check that it is "
            "identified"
        )
    theta = _settled(table, found.theta, cell.population)
    chisq = 2 * (sample.llf - found.objective.covariate_llf - found.llf)
    return Truth(_with_defined(table, theta), chisq if chisq > SAME else 0.0)


def _settled(table: ParameterTable, theta: Floats, population: Population) -> Floats:
    """Values that are the population's, or 0, to rounding."""
    theta, known = theta.copy(), population.truth()
    for row in table.rows:
        value = known.get((row.lhs, row.op, row.rhs, row.level, row.group), np.nan)
        if row.free and abs(theta[row.free - 1] - value) <= SAME * max(1.0, abs(value)):
            theta[row.free - 1] = value
        elif row.free and abs(theta[row.free - 1]) <= SAME:
            theta[row.free - 1] = 0.0
    return theta


def _with_defined(table: ParameterTable, theta: Floats) -> Floats:
    return np.append(theta, defined_functions(table).values(theta) if table.defined else np.empty(0))


def _same(table: ParameterTable, cell: Cell) -> Truth:
    """The values of a model that is the population's, as it has to be where samples are drawn as data."""
    known = cell.population.truth()
    why = (
        "of three levels"
        if table.nlevels > BETWEEN
        else "with random slopes"
        if _has_slopes(table)
        else 'with link="logit"'
    )
    theta = np.full(table.npar, np.nan)
    for row, name in zip(table.rows, table.by_name.shown, strict=True):
        value = known.pop((row.lhs, row.op, row.rhs, row.level, row.group), None)
        if row.exo:
            continue
        if value is None or (not row.free and abs(value - row.value) > SAME):
            raise UnsupportedError(
                f"{why} the model has to be that of the population, and {name} is "
                + ("not in the population: give it a value there" if value is None else "another value there")
            )
        if row.free:
            theta[row.free - 1] = value
    given = {row.lhs for row in cell.population.table.rows if row.exo}
    other = next((key for key, value in known.items() if value != 0 and key[0] not in given), None)
    if other is not None:
        raise UnsupportedError(
            f"{why} the model has to be that of the population, and does not have {''.join(other[:3])}"
        )
    return Truth(_with_defined(table, theta), 0.0)


def _expected(table: ParameterTable, cell: Cell) -> list[Any]:
    """Expected statistics of each group of a cell with their saturated moments."""
    wanted, of = table.variables, cell.population.variables
    out = []
    for group, clusters in enumerate(cell.clusters, 1):
        statistics = arranged(_statistics(cell.population, of, clusters, group), wanted)
        if not table.meanstructure:
            statistics = statistics.centred()
        label = table.group_labels[group - 1] if table.group_labels else ""
        out.append(Group(statistics, label=label))
    return out


def _statistics(population: Population, of: Variables, clusters: Clusters, group: int) -> SampleStatistics:
    moments = population.moments(group)
    between = moments[max(moments)]
    mean = of.summed([moments[level].mean for level in sorted(moments)])
    within = moments[1].cov if of.unit else np.empty((0, 0))
    sizes, counts = clusters.table()
    return expected_statistics(within, between.cov, mean, sizes, counts, of, source="data")
