"""Parameters by the names a user has for them."""

from __future__ import annotations

import difflib

from msem.errors import ModelError
from msem.model.partable import ParameterTable
from msem.model.references import readings


def find_parameter(
    table: ParameterTable, name: str, *, level: int | None = None, group: int | None = None
) -> int:
    """Position in theta of the parameter that a text names.

    Parameters
    ----------
    table : ParameterTable
    name : str
        A name of `ParameterTable.names`, as it is written there (``fb=~y2.l2``), a label, or a formula: ``fb =~ y2``,
        ``y1 ~~ y2``, ``y1 ~ 1``.
    level, group : int, optional
        Which of several parameters with the same formula is meant.

    Returns
    -------
    int
        Counted from 0.

    Raises
    ------
    ModelError
        If there is no such parameter, it is not estimated, or several are meant.
    """
    names = table.names()
    found = [table.rows[i] for i in table.by_name.find(name, level=level, group=group)]
    free = sorted({row.free for row in found if row.free})
    if len(free) == 1:
        return free[0] - 1
    if free:
        several = ", ".join(names[k - 1] for k in free)
        raise ModelError(f"'{name}' may be any of {several}: use one of these names, without blanks")
    if found:
        raise ModelError(f"parameter '{name}' is not estimated: it is fixed at {found[0].value:g}")
    near = difflib.get_close_matches(name.strip(), names, n=3) or names[:8]
    raise ModelError(f"the model has no parameter '{name}'; there are {', '.join(near)}, for example")


def is_formula(text: str) -> bool:
    """Whether a text can only be the name of a parameter, such as ``fb =~ y2``, and no expression of names."""
    return "`" not in text and next(readings(text), None) is not None


def parameter_places(table: ParameterTable) -> list[tuple[int, int]]:
    """Level and group of each parameter of theta; 0 for one that several levels, or groups, share."""
    levels: list[set[int]] = [set() for _ in range(table.npar)]
    groups: list[set[int]] = [set() for _ in range(table.npar)]
    for row in table.rows:
        if row.free:
            levels[row.free - 1].add(row.level)
            groups[row.free - 1].add(row.group)
    return [(only(level), only(group)) for level, group in zip(levels, groups, strict=True)]


def only(values: set[int]) -> int:
    """The only element of a set, or 0."""
    return next(iter(values)) if len(values) == 1 else 0
