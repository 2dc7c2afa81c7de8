"""Parameters that are one: shared labels, `equal()`, and the bounds that come with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msem.errors import ModelError
from msem.language.syntax import ModelSyntax, Position
from msem.model.drafts import Draft
from msem.model.levels import Bound
from msem.model.references import Names


def share(
    rows: Sequence[Draft],
    syntax: ModelSyntax,
    equal: Sequence[Sequence[Draft]] = (),
    bounds: Sequence[Bound] = (),
) -> list[int]:
    """Unite rows that share a parameter; they then agree on value, start and bounds.

    Parameters
    ----------
    rows : sequence of Draft
        All rows of the table; values, starts and bounds are set in place.
    syntax : ModelSyntax
        For the places of errors.
    equal : sequence of sequence of Draft
        Rows that are one parameter for another reason than the text; see `hold_equal`.
    bounds : sequence of (label, lower, upper)
        Such as ``a > 0``.

    Returns
    -------
    list of int
        For each row, the index of the first row that it shares its parameter with (its own if none).

    Raises
    ------
    ModelError
        When `equal()` names nothing, rows of one label are fixed at different values, or bounds exclude
        each other or a fixed value.
    """
    _apply_bounds(rows, bounds)
    first = list(range(len(rows)))
    by_label: dict[str, int] = {}
    for index, row in enumerate(rows):
        if row.label:
            first[index] = by_label.setdefault(row.label, index)
    at = {id(row): index for index, row in enumerate(rows)}
    for one, *others in equal:
        for other in others:
            _unite(first, at[id(one)], at[id(other)])
    for index, row in enumerate(rows):
        if "equal" in row.said and row.said["equal"].values[0] is not None:
            _unite(first, index, _find_target(index, rows, syntax))
    groups: dict[int, list[Draft]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(first[index], []).append(row)
    for members in groups.values():
        if len(members) > 1:
            _agree(members, syntax)
        if members[0].lower != -math.inf or members[0].upper != math.inf:
            _check_bounds(members[0], syntax)
    return first


def _apply_bounds(rows: Sequence[Draft], bounds: Sequence[Bound]) -> None:
    for label, lower, upper in bounds:
        for row in rows:
            if row.label == label:
                row.lower, row.upper = max(row.lower, lower), min(row.upper, upper)


def _unite(first: list[int], one: int, other: int) -> None:
    low, high = sorted((first[one], first[other]))
    for index, root in enumerate(first):
        if root == high:
            first[index] = low


def _find_target(index: int, rows: Sequence[Draft], syntax: ModelSyntax) -> int:
    """Index of the row that `equal()` of a row names, by label or as in "f=~y2"."""
    row = rows[index]
    modifier = row.said["equal"]
    name = str(modifier.values[0])
    try:
        found = [i for i in Names(rows).find(name, everywhere=True) if i != index]
    except ModelError as error:
        raise ModelError(syntax.locate(modifier.at, str(error))) from None
    # Where the name does not say it, the same group and the same level come first.
    found.sort(key=lambda i: (rows[i].group != row.group, rows[i].level != row.level))
    if found:
        return _estimable(found[0], rows, syntax, modifier.at)
    message = (
        f"equal({name!r}) names no other parameter of the model; give a label, or a parameter such as 'f=~y2'"
    )
    raise ModelError(syntax.locate(modifier.at, message))


def _estimable(target: int, rows: Sequence[Draft], syntax: ModelSyntax, at: Position) -> int:
    if rows[target].exo:
        message = f"'{rows[target]}' is a moment of a fixed covariate and cannot be shared; see fixed_x"
        raise ModelError(syntax.locate(at, message))
    return target


def _place(row: Draft) -> str:
    group = f" of group {row.group}" if row.group > 1 else ""
    return f"'{row}'{group} (line {row.at.line})" if row.at else f"'{row}'{group}"


def _agree(members: list[Draft], syntax: ModelSyntax) -> None:
    """Give all rows of one parameter the same value, start and bounds."""
    fixed = [row for row in members if not row.free]
    for row in fixed:
        if row.value != fixed[0].value:
            message = f"{_place(row)} and {_place(fixed[0])} are equal by label but fixed at different values"
            raise ModelError(syntax.locate(row.at or Position(1, 1), message))
    if fixed:
        freed = next((row for row in members if "free" in row.said), None)
        if freed is not None:
            message = f"{_place(freed)} is freed by NA, but it equals {_place(fixed[0])}, which is fixed"
            raise ModelError(syntax.locate(freed.at or Position(1, 1), message))
    start = next((row.start for row in members if row.start is not None), None)
    lower, upper = max(row.lower for row in members), min(row.upper for row in members)
    for row in members:
        row.start, row.lower, row.upper = start, lower, upper
        if fixed:
            row.value = fixed[0].value


def _check_bounds(row: Draft, syntax: ModelSyntax) -> None:
    problem = ""
    if row.lower >= row.upper:
        problem = f"has lower bound {row.lower:g} and upper bound {row.upper:g}, which leave no room"
    elif not row.free and not row.lower <= row.value <= row.upper:
        problem = f"is fixed at {row.value:g}, outside its bounds {row.lower:g} and {row.upper:g}"
    if problem:
        raise ModelError(syntax.locate(row.at or Position(1, 1), f"'{row}' {problem}"))
