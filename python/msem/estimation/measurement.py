"""The measurement part of a model in blocks of its own: the first step of structural-after-measurement.

A block is what cannot be taken apart: factors that share indicators, at one level or over levels, or whose indicators
have correlated residuals. At a level at which a block has no factor its variables are saturated (Rosseel & Loh, 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem.data.sample import Sample
from msem.errors import ModelError, UnsupportedError
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.matrices import row_values
from msem.language.expressions import Name, names_in
from msem.model.levels import BETWEEN, WITHIN
from msem.model.partable import (
    Parameter,
    ParameterTable,
    require_no_rotation,
    require_no_slopes,
    require_two_levels,
)

Floats = NDArray[np.float64]
Numbers = NDArray[Any]  # float64 or complex128
Place = tuple[str, int]  # name and level of a latent variable

SMALL = 1e-4  # residual variance over total variance: with smaller ones indicators are not weighted by them


@dataclass(frozen=True, eq=False)
class MeasurementBlock:
    """One block.

    Attributes
    ----------
    factors : tuple of (str, int)
        Names and levels.
    indicators : tuple of str
    table : ParameterTable
        Of the block alone.
    own : ndarray of int
        For each of its parameters the position in theta of the whole model, -1 for those that the whole has not.
    of_clusters : bool
        Whether all is measured on clusters: then the table has one level.
    """

    factors: tuple[Place, ...]
    indicators: tuple[str, ...]
    table: ParameterTable
    own: NDArray[np.intp]
    of_clusters: bool = False

    @property
    def name(self) -> str:
        """The factors, each once."""
        return ", ".join(dict.fromkeys(name for name, _ in self.factors))


def structural_names(table: ParameterTable, level: int, group: int) -> tuple[str, ...]:
    """Variables of the structural part of a level: latent ones, then observed ones that are no indicators there."""
    indicators = {row.rhs for row in table.block(level, group) if row.op == "=~"}
    observed = (name for name in table.observed(level, group) if name not in indicators)
    return (*table.latent(level, group), *observed)


def measures(table: ParameterTable, row: Parameter) -> bool:
    """Whether a row belongs to the measurement part: loadings, residuals of indicators."""
    if row.op == "=~":
        return True
    structural = structural_names(table, row.level, row.group)
    return row.op == "~~" and row.lhs not in structural and row.rhs not in structural


def require_measured(table: ParameterTable) -> None:
    """Refuse models whose measurement part cannot be fitted by itself.

    Raises
    ------
    ModelError
        Naming the variable and the remedy.
    """
    if table.crossed:
        require_two_levels(table, "structural-after-measurement estimates")
    require_no_slopes(table, "structural-after-measurement estimates")
    require_no_rotation(table, "structural-after-measurement estimates")
    for level, group in _places(table):
        rows, latent = table.block(level, group), table.latent(level, group)
        if not latent:
            continue
        structural = structural_names(table, level, group)
        for row in rows:
            if row.op == "=~" and row.rhs in latent:
                raise UnsupportedError(
                    f"'{row.lhs} =~ {row.rhs}': factors of factors are not available in msem.sam; use msem.sem"
                )
            mixed = (row.lhs in structural) != (row.rhs in structural)
            direct = row.op == "~" and (row.lhs not in structural or row.rhs not in structural)
            if direct or (row.op == "~~" and mixed):
                raise ModelError(
                    f"'{row.lhs} {row.op} {row.rhs}' ties an indicator to the structural part, which msem.sam cannot "
                    "take apart: use msem.sem"
                )
            mean = row.op == "~1" and row.lhs in latent and (row.free or row.value != 0)
            if mean:
                raise UnsupportedError(
                    f"'{row.lhs} ~ 1': structural-after-measurement takes means as they are, and means of latent "
                    "variables cannot be estimated; use msem.sem"
                )
        for factor in latent:
            marked = any(r.op == "=~" and r.lhs == factor and not r.free and r.value != 0 for r in rows)
            if not marked:
                raise ModelError(
                    f"'{factor}' has no loading that is fixed, which gives it a scale before there is a structural "
                    "part: leave out std_lv=True and NA*; standardized estimates are fit.standardized()"
                )
    _require_separate(table)


def _require_separate(table: ParameterTable) -> None:
    parts: dict[int, bool] = {}
    for row in table.rows:
        if row.free:
            part = measures(table, row)
            if parts.setdefault(row.free, part) != part:
                raise ModelError(
                    f"the measurement and the structural part share the parameter '{row.label}': use msem.sem"
                )
    labels = {row.label for row in table.rows if row.label and not measures(table, row) and row.op != "~1"}
    for constraint in table.constraints:
        names = {name.name for side in (constraint.lhs, constraint.rhs) for name in names_in(side)}
        definitions = {d.lhs.name for d in table.defined if isinstance(d.lhs, Name)}
        if not names <= labels or names & definitions:
            raise UnsupportedError(
                f"'{constraint.text}': msem.sam knows constraints among labels of the structural part only; use "
                "msem.sem"
            )


def _places(table: ParameterTable) -> list[tuple[int, int]]:
    return [(level, group) for group in range(1, table.ngroups + 1) for level in range(1, table.nlevels + 1)]


def measurement_blocks(table: ParameterTable) -> tuple[MeasurementBlock, ...]:
    """The blocks of a model, in order of their factors."""
    joined: dict[str, str] = {}

    def find(name: str) -> str:
        while joined.setdefault(name, name) != name:
            name = joined[name]
        return name

    factors: dict[Place, dict[str, None]] = {}
    for level, group in _places(table):
        structural = structural_names(table, level, group)
        for row in table.block(level, group):
            if row.op == "=~":
                factors.setdefault((row.lhs, level), {})[row.rhs] = None
            tied = row.op == "~~" and row.lhs != row.rhs and row.lhs not in structural
            if tied and (row.free or row.value != 0):
                joined[find(row.lhs)] = find(row.rhs)
    shared: dict[int, str] = {}
    for row in table.rows:
        if row.free and measures(table, row):
            joined[find(row.rhs)] = find(shared.setdefault(row.free, row.rhs))
    for names in factors.values():
        first = next(iter(names))
        for name in names:
            joined[find(name)] = find(first)
    groups: dict[str, list[Place]] = {}
    for place, names in factors.items():
        groups.setdefault(find(next(iter(names))), []).append(place)
    return tuple(_block(table, places, factors) for places in groups.values())


def _block(
    table: ParameterTable, places: Sequence[Place], factors: dict[Place, dict[str, None]]
) -> MeasurementBlock:
    indicators = tuple(dict.fromkeys(name for place in places for name in factors[place]))
    numbers, known, own = count(1), {0: 0}, [-1]
    rows: list[Parameter] = []

    def keep(row: Parameter) -> None:
        if row.free not in known:
            known[row.free] = next(numbers)
            own.append(row.free - 1)
        rows.append(row._replace(free=known[row.free], label="", exo=False))

    def add(lhs: str, op: str, rhs: str, level: int, group: int) -> None:
        own.append(-1)
        rows.append(Parameter(lhs, op, rhs, level, group, next(numbers)))

    for level, group in _places(table):
        latent = [name for name, at in places if at == level and name in table.latent(level, group)]
        observed = [name for name in table.observed(level, group) if name in indicators]
        structural = structural_names(table, level, group)
        measured = [name for name in observed if name not in structural]
        others = [name for name in observed if name in structural]
        for row in table.block(level, group):
            if (row.op == "=~" and row.lhs in latent) or (
                row.op in ("~~", "~1") and row.lhs in measured and (row.op == "~1" or row.rhs in measured)
            ):
                keep(row)
        free = [*latent, *others]
        for i, lhs in enumerate(free):
            for rhs in free[i:]:
                add(lhs, "~~", rhs, level, group)
        if not table.meanstructure:
            continue
        rows += [Parameter(name, "~1", "", level, group, value=0.0) for name in latent]
        for name in others:
            if level < table.variables.top(name):
                rows.append(Parameter(name, "~1", "", level, group, value=0.0))
            else:
                add(name, "~1", "", level, group)
    of_clusters = table.nlevels == BETWEEN and all(row.level == BETWEEN for row in rows)
    if of_clusters:  # a model of one level, of the clusters
        rows = [row._replace(level=WITHIN) for row in rows]
    nlevels = 1 if of_clusters else table.nlevels
    part = replace(
        table, rows=tuple(rows), nlevels=nlevels, syntax=None, constraints=(), defined=(), auxiliary=()
    )
    return MeasurementBlock(
        tuple(places), indicators, part, np.array(own[1:], dtype=np.intp), of_clusters=of_clusters
    )


@dataclass(frozen=True, eq=False)
class FittedBlock:
    """A block at its estimates.

    Attributes
    ----------
    block : MeasurementBlock
    estimate : Estimate
    sample : Sample
        Of its variables.
    """

    block: MeasurementBlock
    estimate: Estimate
    sample: Sample

    @property
    def values(self) -> Floats:
        """Value of every row of its table."""
        return row_values(self.block.table, self.estimate.theta)


def fit_block(
    block: MeasurementBlock, sample: Sample, *, max_iterations: int, tolerance: float
) -> FittedBlock:
    """Fit one block by maximum likelihood.

    Raises
    ------
    ModelError
        If it has no maximum.
    """
    variables = block.table.variables
    own = replace(
        sample,
        groups=tuple(replace(g, statistics=g.statistics.with_variables(variables)) for g in sample.groups),
    )
    found = estimate(block.table, own, max_iterations=max_iterations, tolerance=tolerance)
    if not found.optimum.converged:
        raise ModelError(
            f"the measurement model of {block.name} has not converged by itself ({found.optimum.stop}): fit it alone "
            "with msem.sem to see why, or use msem.sem for the whole model"
        )
    return FittedBlock(block, found, own)


@dataclass(frozen=True, eq=False)
class LevelMeasurement:
    """Where the measurement part of one level of one group stands in the rows of a block's table.

    Attributes
    ----------
    factors, indicators : tuple of str
    loadings : list of (int, int, int)
        Row of the table, indicator, factor.
    residuals : list of (int, int, int)
        Row of the table, and the two indicators.
    """

    factors: tuple[str, ...]
    indicators: tuple[str, ...]
    loadings: list[tuple[int, int, int]]
    residuals: list[tuple[int, int, int]]

    def matrices(self, values: Numbers) -> tuple[Numbers, Numbers]:
        """Lambda and Theta, shapes (..., p, m) and (..., p, p), from the values of the rows."""
        p, m = len(self.indicators), len(self.factors)
        lead = values.shape[:-1]
        loadings = np.zeros((*lead, p, m), values.dtype)
        residuals = np.zeros((*lead, p, p), values.dtype)
        for k, i, j in self.loadings:
            loadings[..., i, j] = values[..., k]
        for k, i, j in self.residuals:
            residuals[..., i, j] = residuals[..., j, i] = values[..., k]
        return loadings, residuals


def level_measurement(block: MeasurementBlock, level: int, group: int) -> LevelMeasurement:
    """The measurement part of a block at one level of one group; nothing where it has no factor there."""
    rows = block.table.rows
    if block.of_clusters:
        level = WITHIN if level == BETWEEN else 0
    own = [(k, r) for k, r in enumerate(rows) if (r.level, r.group) == (level, group)]
    factors = tuple(dict.fromkeys(r.lhs for _, r in own if r.op == "=~"))
    indicators = tuple(dict.fromkeys(r.rhs for _, r in own if r.op == "=~"))
    f, y = ({name: i for i, name in enumerate(names)} for names in (factors, indicators))
    return LevelMeasurement(
        factors,
        indicators,
        [(k, y[r.rhs], f[r.lhs]) for k, r in own if r.op == "=~"],
        [(k, y[r.lhs], y[r.rhs]) for k, r in own if r.op == "~~" and r.lhs in y and r.rhs in y],
    )


def mapping(loadings: Numbers, residuals: Numbers, *, weighted: bool) -> Numbers:
    """M with M L = I: (L'T^-1 L)^-1 L'T^-1, or (L'L)^-1 L' where indicators are not weighted; shape (..., m, p)."""
    transposed = np.swapaxes(loadings, -1, -2)
    left = transposed @ np.linalg.inv(residuals) if weighted else transposed
    out: Numbers = np.linalg.inv(left @ loadings) @ left
    return out


def weighs(residuals: Floats, covariance: Floats) -> bool:
    """Whether indicators can be weighted by their residuals: all variances well above 0, the matrix definite."""
    variance, total = residuals.diagonal(), np.abs(covariance.diagonal())
    return bool(np.all(variance > SMALL * total)) and bool(np.linalg.eigvalsh(residuals).min() > 0)
