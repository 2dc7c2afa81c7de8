"""Auxiliary variables as saturated correlates (Graham, 2003, Structural Equation Modeling, 10, 80-100)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from msem.model.levels import BETWEEN, WITHIN
from msem.model.partable import Parameter, ParameterTable


def with_auxiliary(
    table: ParameterTable, unit: Sequence[str] = (), cluster: Sequence[str] = ()
) -> ParameterTable:
    """Add variables that are correlated with all that a model leaves unexplained.

    At each of their levels they have free variances, means, and covariances with each other and with every observed
    variable, or its residual: the model restricts nothing of them, so its degrees of freedom stay as they are.

    Parameters
    ----------
    table : ParameterTable
    unit : sequence of str
        Variables of both levels, or of a single one.
    cluster : sequence of str
        Variables of the between level only.

    Returns
    -------
    ParameterTable
        With their parameters after those of the model.
    """
    numbers = count(table.npar + 1)
    rows: list[Parameter] = []
    for group in range(1, table.ngroups + 1):
        for level in range(1, table.nlevels + 1):
            own = (*unit, *cluster) if level == BETWEEN else tuple(unit)
            rows += table.block(level, group)
            rows += _correlates(table, own, level, group, numbers)
    return replace(table, rows=tuple(rows), auxiliary=(*unit, *cluster))


def _correlates(
    table: ParameterTable, names: Sequence[str], level: int, group: int, numbers: Iterator[int]
) -> Iterator[Parameter]:
    anchored = level == WITHIN and table.nlevels == BETWEEN
    for i, name in enumerate(names):
        for other in (*names[i:], *table.observed(level, group)):
            yield Parameter(name, "~~", other, level, group, next(numbers))
        if table.meanstructure:
            free = 0 if anchored else next(numbers)
            yield Parameter(name, "~1", "", level, group, free, value=0.0 if anchored else float("nan"))
