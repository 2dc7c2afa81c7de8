"""A model as compiled code fits it to many samples: the table as index maps, without a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import SampleStatistics
from msem.data.statistics import Statistics
from msem.estimation.matrices import BlockMap, block_map, core_block
from msem.estimation.objective import level_names
from msem.estimation.optimize import row_bounds
from msem.model.functions import defined_functions
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]

ATTEMPT = 60  # iterations from the first start, as in `estimate`
RELATIONS = ("=~", "~", "~~", "~1")
# of the core, in its order; "again" and "unusable" come with no estimates
VERDICTS = ("ok", "boundary", "improper", "no_chi_square", "saddle_point", "again", "unusable")
AGAIN = VERDICTS.index("again")


class Variables(NamedTuple):
    """Variables of the samples that a model is fitted to, in the order of their statistics."""

    unit: tuple[str, ...]
    cluster: tuple[str, ...]
    nboth: int

    @property
    def names(self) -> tuple[str, ...]:
        """Unit variables, then cluster variables."""
        return self.unit + self.cluster


@dataclass(frozen=True, eq=False)
class ManyFitter:
    """A compiled model that is fitted to samples in threads.

    Attributes
    ----------
    table : ParameterTable
        Without the moments of fixed covariates, which each sample has its own of.
    core : _core.ManyFitter
    """

    table: ParameterTable
    core: _core.ManyFitter

    def fit(self, draws: _core.Draws, first: int, last: int, threads: int) -> _core.ManyFits:
        """Fit samples first, ..., last - 1; the result does not depend on the number of threads."""
        return self.core.fit(draws, first, last, threads)


def table_variables(table: ParameterTable) -> Variables:
    """Variables of a model by their roles."""
    if table.nlevels == 1:
        return Variables((), table.observed(1), 0)
    return Variables((*table.both, *table.within_only), table.between_only, len(table.both))


def many_fitter(
    table: ParameterTable, *, observed: bool, errors: bool, max_iterations: int, tolerance: float
) -> ManyFitter:
    """Compile a model without constraints other than bounds and equal parameters.

    Parameters
    ----------
    table : ParameterTable
    observed : bool
        Standard errors from observed information, not expected.
    errors : bool
        Whether there are standard errors.
    max_iterations, tolerance
        Of the optimiser; samples that need more than `ATTEMPT` iterations are left to `estimate`.
    """
    blank = _placeholder(table)
    blocks: list[BlockMap] = []
    groups: list[tuple[_core.Loss, int, int]] = []
    for group in range(1, table.ngroups + 1):
        last = len(blocks)
        blocks += [block_map(table, level, group, names) for level, names in level_names(blank).items()]
        within, between = (last, last + 1) if len(blocks) - last == 2 else (-1, last)
        groups.append((blank.likelihood(), within, between))
    objective = _core.Objective(table.npar, [core_block(block, table) for block in blocks], groups)
    core = _core.ManyFitter(
        objective,
        [_start_rows(block, table) for block in blocks],
        *row_bounds(table),
        [_filled(block, table) for block in blocks],
        [fixed_covariates(table, group) for group in range(1, table.ngroups + 1)],
        defined_functions(table).core,
        min(ATTEMPT, max_iterations),
        tolerance,
        observed,
        errors,
    )
    return ManyFitter(table, core)


def _placeholder(table: ParameterTable) -> SampleStatistics:
    """Statistics of the right shape: those of two units with every variable at 0."""
    unit, cluster, nboth = table_variables(table)
    m, p = len(unit) + len(cluster), len(unit)
    return SampleStatistics(
        unit,
        cluster,
        nboth,
        2.0,
        2.0,
        np.ones(1),
        np.full(1, 2.0),
        np.zeros((1, m)),
        np.zeros((1, m, m)),
        np.zeros((p, p)),
        "nothing",
    )


def _start_rows(block: BlockMap, table: ParameterTable) -> list[tuple[int, int, int, int, float, float]]:
    at = {name: i for i, name in enumerate(block.names)}
    rows = (table.rows[i] for i in block.rows)
    return [
        (
            RELATIONS.index(r.op),
            at[r.lhs],
            at[r.rhs] if r.rhs else 0,
            r.free - 1,
            r.value,
            np.nan if r.start is None else r.start,
        )
        for r in rows
    ]


def _filled(block: BlockMap, table: ParameterTable) -> list[int]:
    """Entries of a block that hold moments of fixed covariates."""
    rows = [table.rows[i] for i in block.rows]
    return [i for i, r in enumerate(rows) if r.exo and not r.free and np.isnan(r.value)]


def fixed_covariates(table: ParameterTable, group: int) -> tuple[list[int], list[int]]:
    """Fixed covariates at one level only, among the unit and among the between-level variables."""
    unit, cluster, nboth = table_variables(table)
    exogenous = set(table.exogenous(table.nlevels, group))
    between = [nboth + k for k, name in enumerate(cluster) if name in exogenous]
    if table.nlevels == 1:
        return [], between
    exogenous = set(table.exogenous(1, group))
    return [k for k, name in enumerate(unit) if k >= nboth and name in exogenous], between


def given_samples(samples: Sequence[Sequence[Statistics]]) -> _core.GivenSamples:
    """Statistics of samples, each with one or several groups, as the compiled code takes them."""
    return _core.GivenSamples([[s.arrays for s in groups] for groups in samples])


def arranged(statistics: Statistics, variables: Variables) -> Statistics:
    """The statistics of these variables in this order; the same object if they are already."""
    s = statistics
    if (s.unit, s.cluster, s.nboth) == variables:
        return s
    return s.restrict(*variables)


def selected(draws: _core.Draws, of: Variables, wanted: Variables, *, centred: bool) -> _core.Draws:
    """The draws of some of the variables; centred: without means.

    Raises
    ------
    ValueError
        If a variable is not among those drawn, or at other levels.
    """
    if of == wanted and not centred:
        return draws
    unit = [_position(name, of.unit, of) for name in wanted.unit]
    cluster = [len(of.unit) + _position(name, of.cluster, of) for name in wanted.cluster]
    both = unit[: wanted.nboth]
    if any(k >= of.nboth for k in both):
        odd = next(name for name, k in zip(wanted.unit, both, strict=False) if k >= of.nboth)
        raise ValueError(f"{odd!r} is at both levels of the model, and only within in the samples")
    return _core.SelectedDraws(draws, unit, unit + cluster, centred)


def _position(name: str, among: Sequence[str], of: Variables) -> int:
    if name not in among:
        where = "is measured at another level in the samples" if name in of.names else "is not in the samples"
        raise ValueError(f"{name!r} {where}, which have {', '.join(of.names)}")
    return among.index(name)
