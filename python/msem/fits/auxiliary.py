"""Auxiliary variables as a user names them, put where they belong."""

from __future__ import annotations

from collections.abc import Sequence

from msem.data.frames import Holes
from msem.data.reading import Source
from msem.data.roles import varying_within
from msem.errors import DataError
from msem.model.auxiliary import with_auxiliary
from msem.model.partable import ParameterTable


def add_auxiliary(table: ParameterTable, source: Source, names: Sequence[str]) -> ParameterTable:
    """Add auxiliary variables to a model: at both levels those that vary within clusters, at the between level others.

    Parameters
    ----------
    table : ParameterTable
    source : Source
        Data with holes.
    names : sequence of str

    Raises
    ------
    DataError
        If a variable is in the model already or not in the data, or holes were not asked for.
    """
    if not names:
        return table
    if not source.incomplete:
        raise DataError(
            'auxiliary variables tell about missing values, and rows with any are left out: add missing="fiml", or '
            "leave out auxiliary="
        )
    for group in range(1, table.ngroups + 1):
        for level in range(1, table.nlevels + 1):
            known = (*table.observed(level, group), *table.latent(level, group))
            for name in names:
                if name in known:
                    raise DataError(
                        f"{name!r} is a variable of the model and cannot be auxiliary too: leave it out"
                    )
    if table.nlevels == 1 or source.cluster is None:
        return with_auxiliary(table, names)
    unit = varying_within(source.data, source.cluster, names, Holes())
    return with_auxiliary(table, unit, [name for name in names if name not in unit])
