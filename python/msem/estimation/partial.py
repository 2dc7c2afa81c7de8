"""Fit a model one level of which is saturated, from values that are close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Sample
from msem.errors import ModelError
from msem.estimation.estimate import BEYOND, Estimate, estimate
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import Objective, build_objective
from msem.estimation.optimize import Optimum, as_optimum, bounds
from msem.estimation.starting import clip, set_intercepts
from msem.model.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]
Key = tuple[str, str, str, int, int]

TOLERANCE = 1e-8  # on the decrement: the value is the better by another step


def key(row: Parameter) -> Key:
    """What names a row: lhs, op, rhs, level and group."""
    return row.lhs, row.op, row.rhs, row.level, row.group


def estimate_partially(
    table: ParameterTable, sample: Sample, level: int, values: Mapping[Key, float]
) -> Estimate:
    """Fit a model of two levels, one of them saturated.

    Fisher scoring by conjugate gradients, whose cost hardly grows with the parameters of the saturated level; by the
    usual steps, if necessary from the usual starts, where that does not converge, there are constraints, or the data
    have holes.

    Parameters
    ----------
    table : ParameterTable
        As made by `partially_saturated_table` or `level_baseline_table`.
    sample : Sample
    level : {1, 2}
        The level that is not saturated.
    values : mapping from Key to float
        Where its rows start. All others start at the saturated moments, and means where they fit these.

    Returns
    -------
    Estimate
    """
    filled = fill_exogenous(table, sample.levels)
    objective = build_objective(filled, sample.statistics)
    theta = _start(objective, sample, level, values)
    by_products = not objective.constraints and all(s.complete for s in sample.statistics)
    found = _minimize(objective, theta, level) if by_products else None
    if found is not None and found.converged and found.value > -2 * sample.llf - BEYOND:
        return Estimate(objective, found)
    started = tuple(replace(r, start=float(theta[r.free - 1])) if r.free else r for r in table.rows)
    best: Estimate | None = None
    for rows in (started, table.rows):
        try:
            other = estimate(replace(table, rows=rows), sample, tolerance=TOLERANCE)
        except ModelError:
            if best is None and rows is table.rows:
                raise
            continue
        if other.optimum.converged:
            return other
        best = other if best is None or other.llf > best.llf else best
    assert best is not None
    return best


def _start(objective: Objective, sample: Sample, level: int, values: Mapping[Key, float]) -> Floats:
    theta = np.zeros(objective.table.npar)
    for row in objective.table.rows:
        if row.free and row.level == level and key(row) in values:
            theta[row.free - 1] = values[key(row)]
        elif row.free and row.op == "~~":
            moments = sample.levels[row.group - 1][row.level]
            theta[row.free - 1] = moments.cov[moments.at[row.lhs], moments.at[row.rhs]]
    clip(theta, objective.table)
    set_intercepts(objective, theta, sample)
    return theta


def _minimize(objective: Objective, start: Floats, level: int) -> Optimum:
    lower, upper = bounds(objective)
    saturated = [block.level != level for block in objective.blocks]
    found = _core.minimize_iteratively(objective.core, start, lower, upper, saturated, tolerance=TOLERANCE)
    return as_optimum(found)
