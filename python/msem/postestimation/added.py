"""Parameters that a user names to be added to a model: text to candidates for a score test."""

from __future__ import annotations

from collections.abc import Sequence

from msem.errors import ModelError
from msem.language.syntax import ModelSyntax, Statement, parse
from msem.model.levels import LEVEL_HEADERS
from msem.model.partable import Parameter, ParameterTable
from msem.postestimation.candidates import Candidate, place


def added_parameters(
    table: ParameterTable, text: str, level: int | None, groups: Sequence[int]
) -> tuple[Candidate, ...]:
    """Read the parameters whose freeing is to be tested.

    Parameters
    ----------
    table : ParameterTable
        The model they are not estimated in.
    text : str
        Formulas such as ``y1 ~~ y2``, with ``level:`` headers where there are two levels.
    level : int or None
        Level of formulas without a header.
    groups : sequence of int
        Groups to add them in.

    Returns
    -------
    tuple of Candidate

    Raises
    ------
    ModelError
        When a variable is not in the model, the level is not clear, or the parameter is estimated already.
    """
    syntax = parse(text)
    if syntax.constraints:
        first = syntax.constraints[0]
        raise ModelError(
            syntax.locate(first.at, "add= takes parameters such as 'y1 ~~ y2'; constraints go to release=")
        )
    return tuple(_candidate(table, syntax, s, level, group) for group in groups for s in syntax.statements)


def _candidate(
    table: ParameterTable, syntax: ModelSyntax, statement: Statement, level: int | None, group: int
) -> Candidate:
    here = _level(table, syntax, statement, level, group)
    wanted = Parameter(statement.lhs, statement.op, statement.rhs, here, group, value=0.0)
    written = syntax.text.split("\n")[statement.at.line - 1].strip()
    if wanted.op == "=~" and wanted.lhs not in table.latent(here, group):
        raise ModelError(
            syntax.locate(statement.at, f"'{wanted.lhs}' is not a latent variable at level {here}")
        )
    for i, row in enumerate(table.rows):
        if (row.level, row.group) != (here, group) or place(row) != place(wanted):
            continue
        if row.exo:
            message = f"'{written}' is a moment of a fixed covariate, taken from the data; see fixed_x"
            raise ModelError(syntax.locate(statement.at, message))
        if row.free:
            message = (
                f"'{written}' is estimated already; to test that it equals another parameter use release="
            )
            raise ModelError(syntax.locate(statement.at, message))
        return Candidate(row, i)
    outcome = wanted.rhs if wanted.op == "=~" else wanted.lhs
    touched = {outcome, wanted.rhs} if wanted.op == "~~" else {outcome}
    for name in touched & set(table.exogenous(here, group)):
        message = f"'{name}' is a fixed covariate, whose distribution is not modelled; use fixed_x=False"
        raise ModelError(syntax.locate(statement.at, message))
    return Candidate(wanted)


def _level(
    table: ParameterTable, syntax: ModelSyntax, statement: Statement, level: int | None, group: int
) -> int:
    """Level of a statement: of its header, as asked, or the only one that has its variables."""
    header = syntax.blocks[statement.block].level
    if header is not None and header.casefold() not in LEVEL_HEADERS:
        message = f"'level: {header}' is not known here; write 'level: 1' (within) or 'level: 2' (between)"
        raise ModelError(syntax.locate(statement.at, message))
    names = {name for name in (statement.lhs, statement.rhs) if name}
    having = [
        here
        for here in range(1, table.nlevels + 1)
        if names <= {*table.observed(here, group), *table.latent(here, group)}
    ]
    asked = LEVEL_HEADERS[header.casefold()] if header is not None else level
    if asked is None and len(having) == 1:
        return having[0]
    if asked in having:
        return asked
    where = "" if asked is None else f" at level {asked}"
    message = f"the model{where} does not have all of the variables {', '.join(sorted(names))}"
    if len(having) > 1:
        message = "both levels have these variables: give level=1 (within) or level=2 (between)"
    raise ModelError(syntax.locate(statement.at, message))
