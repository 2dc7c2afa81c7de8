"""A model as compiled code fits it: the table as index maps, without a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.statistics import Statistics
from msem.errors import MsemError
from msem.estimation.constraints import Constraints, compile_constraints
from msem.estimation.matrices import BlockMap, block_maps, core_block
from msem.estimation.penalty import penalty_terms
from msem.model.functions import defined_functions
from msem.model.partable import Parameter, ParameterTable, fixed_covariates
from msem.model.variables import Variables

Floats = NDArray[np.float64]

RELATIONS = {
    "=~": 0,
    "~": 1,
    "~~": 2,
    "~1": 3,
    "|": 3,
    "~*~": 3,
}  # numbers of the core: thresholds are intercepts there, and so are scaling factors, which have starts of their own


def make_plan(
    table: ParameterTable,
    variables: Sequence[Variables],
    constraints: Constraints | None,
    exposed: Sequence[Mapping[int, tuple[str, ...]]] = (),
    known: Sequence[tuple[BlockMap, _core.Block]] = (),
) -> _core.Plan:
    """Compile what fitting a model takes beside a sample.

    Parameters
    ----------
    table : ParameterTable
        Moments of fixed covariates that are nan are those of each sample.
    variables : sequence of Variables
        Observed ones of each group, in the order of its statistics.
    constraints : Constraints or None
        Of the table.
    exposed : sequence of mapping
        Latent variables by level that the likelihood of each group knows of; default: none.
    known : sequence of pairs of BlockMap and _core.Block
        The blocks, where they are there already.
    """
    pairs = known or [(block, core_block(block, table)) for block in block_maps(table, variables, exposed)]
    blocks = [block for block, _ in pairs]
    compiled = [
        (core, _start_rows(block, table), _filled(block, table), _judged(block, table))
        for block, core in pairs
    ]
    places: dict[int, list[int]] = {}
    for place, block in enumerate(blocks):
        places.setdefault(block.group, []).append(place)
    groups = [
        (at, len(own.both), _covariate_positions(table, own, group))
        for (group, at), own in zip(places.items(), variables, strict=True)
    ]
    return _core.Plan(
        table.npar,
        compiled,
        groups,
        *row_bounds(table),
        None if constraints is None else constraints.core,
        defined_functions(table).core,
        penalty_terms(table, blocks),
    )


def table_plan(table: ParameterTable) -> _core.Plan:
    """The plan of a model for samples whose variables are in the order of `ParameterTable.variables`.

    Raises
    ------
    ModelError
        If constraints contradict each other, or are about moments of fixed covariates, which each sample has its own
        of.
    """
    return make_plan(table, [table.variables] * table.ngroups, compile_constraints(table))


def row_bounds(table: ParameterTable) -> tuple[Floats, Floats]:
    """Lower and upper bound of every parameter, the tightest among rows that share it."""
    lower, upper = [-math.inf] * table.npar, [math.inf] * table.npar
    for r in table.rows:
        if r.free and (r.lower > -math.inf or r.upper < math.inf):
            lower[r.free - 1] = max(lower[r.free - 1], r.lower)
            upper[r.free - 1] = min(upper[r.free - 1], r.upper)
    return np.array(lower), np.array(upper)


def _start_rows(block: BlockMap, table: ParameterTable) -> list[tuple[int, int, int, int, float, float]]:
    at = {"": 0} | dict(zip(block.names, block.measured.tolist(), strict=True))
    first = block.first_hidden + block.products

    def entry(r: Parameter, lhs: int, rhs: int) -> tuple[int, int, int, int, float, float]:
        return RELATIONS[r.op], lhs, rhs, r.free - 1, r.value, math.nan if r.start is None else r.start

    rows = [table.rows[i] for i in block.rows.tolist()]
    return [
        *[entry(r, at[r.lhs], at[r.rhs]) for r in rows if not r.slope],
        *[entry(table.rows[i], first + k, 0) for k, i in enumerate(block.threshold_rows)],
        *[entry(_started(table.rows[i]), k, 0) for k, i in zip(block.scaled, block.scale_rows, strict=True)],
    ]


def _started(factor: Parameter) -> Parameter:
    """A scaling factor with its start: 1 unless the user gives another."""
    return factor._replace(start=1.0 if factor.start is None else factor.start)


def _filled(block: BlockMap, table: ParameterTable) -> list[int]:
    """Entries of a block that hold moments of fixed covariates."""
    rows = [table.rows[i] for i in block.rows.tolist()]
    return [i for i, r in enumerate(rows) if r.exo and not r.free and r.value != r.value]


def _judged(block: BlockMap, table: ParameterTable) -> list[int]:
    """Variables of a block whose covariance matrices have to be proper: not the auxiliary ones."""
    places: list[int] = block.places.tolist()
    if not table.auxiliary:
        return places
    return [place for name, place in zip(block.names, places, strict=True) if name not in table.auxiliary]


def _covariate_positions(table: ParameterTable, variables: Variables, group: int) -> list[list[int]]:
    """Where the fixed covariates stand among the variables of each level."""
    levels = variables.levels
    names = fixed_covariates(table, variables, group)[-len(levels) :]
    return [[own.index(name) for name in some] for own, some in zip(levels, names, strict=True)]


def given_samples(samples: Sequence[Sequence[Statistics]]) -> _core.GivenSamples:
    """Statistics of samples, each with the same groups, as the compiled code takes them."""
    return _core.GivenSamples([_stacked([s.arrays for s in group]) for group in zip(*samples, strict=True)])


def _stacked(
    arrays: Sequence[tuple[Floats, ...]],
) -> tuple[list[int], Floats, Floats, Floats, Floats, Floats]:
    sizes, counts, means, scatter, ssw = map(np.concatenate, zip(*arrays, strict=True))
    return [len(one[0]) for one in arrays], sizes, counts, means, scatter, ssw


def arranged(statistics: Statistics, variables: Variables) -> Statistics:
    """The statistics of these variables in this order; the same object if they are already."""
    s = statistics
    if s.variables == variables:
        return s
    return s.with_variables(variables)


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
    odd = next((name for name in wanted.both if name not in of.both), None)
    if odd is not None:
        raise MsemError(f"{odd!r} is at both levels of the model, and only within in the samples")
    return _core.SelectedDraws(draws, unit, unit + cluster, centred)


def _position(name: str, among: Sequence[str], of: Variables) -> int:
    if name not in among:
        where = "is measured at another level in the samples" if name in of.names else "is not in the samples"
        raise MsemError(f"{name!r} {where}, which have {', '.join(of.names)}")
    return among.index(name)
