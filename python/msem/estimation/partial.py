"""Fit a model one level of which is saturated, from values that are close."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from msem import _core
from msem.data.sample import Sample
from msem.errors import ModelError
from msem.estimation.estimate import Estimate, estimate
from msem.model.partable import ParameterTable

Key = tuple[str, str, str, int, int]
"""What names a row: lhs, op, rhs, level and group."""

TOLERANCE = 1e-8  # on the decrement: the value is the better by another step


def estimate_partially(
    table: ParameterTable,
    sample: Sample,
    level: int,
    values: Mapping[Key, float],
    loss: Sequence[_core.Likelihood] | None = None,
) -> Estimate:
    """Fit a model of several levels, all but one of them saturated.

    Fisher scoring and Newton steps by conjugate gradients, whose cost hardly grows with the parameters of the saturated
    level; if necessary from the usual starts. By the usual steps where that does not converge with fewer than a
    thousand parameters, there are constraints, or the data have holes.

    Parameters
    ----------
    table : ParameterTable
        As made by `partially_saturated_table` or `level_baseline_table`.
    sample : Sample
    level : int
        The level that is not saturated.
    values : mapping from Key to float
        Where its rows start. All others start at the saturated moments, and means where they fit these.
    loss : sequence of _core.Likelihood, optional
        Another discrepancy than the normal likelihood, for each group: then from the usual starts.

    Returns
    -------
    Estimate
    """
    if loss is not None:
        return estimate(table, sample, loss=loss)
    by_products = table.nlevels == 2 and not table.constraints and sample.complete
    other = 3 - level if by_products else 0  # of two levels
    best: Estimate | None = None
    for first in (list(_near(table, sample, level, values)), None):
        try:
            found = estimate(table, sample, tolerance=TOLERANCE, saturated_level=other, first=first)
        except ModelError:
            if best is None and first is None:
                raise
            continue
        if found.optimum.converged:
            return found
        best = found if best is None or found.llf > best.llf else best
    assert best is not None
    return best


def _near(table: ParameterTable, sample: Sample, level: int, values: Mapping[Key, float]) -> Iterator[float]:
    """Where each row starts; nan for intercepts, which fit the means, and for what is not estimated."""
    moments = sample.levels
    for row in table.rows:
        lhs, op, rhs, at, group, free, *_ = row
        if not free or op == "~1":
            yield math.nan
        elif at == level and (known := values.get(row[:5])) is not None:
            yield known
        elif op != "~~":
            yield 0.0
        else:
            own = moments[group - 1][at]
            yield float(own.cov[own.at[lhs], own.at[rhs]])
