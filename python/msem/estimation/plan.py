"""A model as compiled code fits it: the table as index maps, without a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.statistics import Statistics
from msem.errors import MsemError
from msem.estimation.constraints import Constraints, compile_constraints
from msem.estimation.matrices import BlockMap, block_maps
from msem.estimation.penalty import penalty_terms
from msem.model.functions import defined_functions
from msem.model.partable import ParameterTable, fixed_covariates
from msem.model.variables import Variables

Floats = NDArray[np.float64]


def make_plan(
    table: ParameterTable,
    variables: Sequence[Variables],
    constraints: Constraints | None,
    exposed: Sequence[Mapping[int, tuple[str, ...]]] = (),
    known: Sequence[BlockMap] = (),
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
    known : sequence of BlockMap
        The blocks, where they are there already.
    """
    blocks = known or block_maps(table, variables, exposed)
    places: dict[int, list[int]] = {}
    for place, block in enumerate(blocks):
        places.setdefault(block.group, []).append(place)
    groups = [
        (at, len(own.both), _covariate_positions(table, own, group))
        for (group, at), own in zip(places.items(), variables, strict=True)
    ]
    return _core.Plan(
        table.npar,
        [block.compiled for block in blocks],
        groups,
        None if constraints is None else constraints.core,
        defined_functions(table).core if table.defined else None,
        penalty_terms(table, blocks) if table.penalty else [],
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
