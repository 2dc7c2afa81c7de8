"""Parameters that a model could have but does not: the rows of modification indices and score tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from msem.errors import ModelError
from msem.language.syntax import ModelSyntax, Statement, parse
from msem.model.levels import BETWEEN, headed_level
from msem.model.partable import Parameter, ParameterTable

Place = tuple[str, frozenset[str] | tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A parameter that is not estimated.

    Attributes
    ----------
    row : Parameter
        With the value at which it is fixed.
    index : int or None
        Its position in the parameter table; None when the table does not have it, which fixes it at 0.
    """

    row: Parameter
    index: int | None = None


def place(row: Parameter) -> Place:
    """What a row is a parameter of: ``f =~ y`` and ``y ~ f`` are the same, and so is a covariance turned round."""
    if row.op == "~~":
        return "~~", frozenset((row.lhs, row.rhs))
    return ("~", (row.rhs, row.lhs)) if row.op == "=~" else (row.op, (row.lhs, row.rhs))


def candidates(table: ParameterTable) -> tuple[Candidate, ...]:
    """All parameters that modification indices are computed for, by group and level.

    Parameters
    ----------
    table : ParameterTable
        With the moments of fixed covariates filled in.

    Returns
    -------
    tuple of Candidate
        In each block: rows that are fixed; loadings of its indicators on the other factors; regressions
        among the variables of its structural part, and of the indicators on the covariates; covariances of
        observed variables and of latent variables. Moments of fixed covariates, and regressions of those
        covariates, are parameters of their distribution, which is not modelled: they are left out. Not all
        of the rows are identified. Random slopes are variables of level 2 there.
    """
    found: list[Candidate] = []
    for group in range(1, table.ngroups + 1):
        for level in range(1, table.nlevels + 1):
            found += _block_candidates(table, level, group)
    return tuple(found)


def _block_candidates(table: ParameterTable, level: int, group: int) -> Iterator[Candidate]:
    taken = set()
    for i, row in enumerate(table.rows):
        if (row.level, row.group) == (level, group):
            taken.add(place(row))
            if not row.free and not row.exo and not row.slope:
                yield Candidate(row, i)
    for lhs, op, rhs in _new_rows(table, level, group):
        row = Parameter(lhs, op, rhs, level, group, value=0.0)
        if place(row) not in taken:
            taken.add(place(row))
            yield Candidate(row)


def _new_rows(table: ParameterTable, level: int, group: int) -> Iterator[tuple[str, str, str]]:
    rows = table.block(level, group)
    latent, covariates = table.latent(level, group), table.covariates(level, group)
    exogenous = set(table.exogenous(level, group))
    indicators = dict.fromkeys(r.rhs for r in rows if r.op == "=~")
    structural = dict.fromkeys(name for r in rows if r.op == "~" for name in (r.lhs, r.rhs))
    slopes = {slope.name for slope in table.slopes(group)} if level == BETWEEN else set()
    for factor in latent:
        if factor not in slopes:  # which have no indicators: what depends on them is regressed on them
            yield from ((factor, "=~", name) for name in indicators if name != factor)
    for lhs in structural:
        if lhs not in exogenous:
            yield from ((lhs, "~", rhs) for rhs in structural if lhs != rhs)
    for lhs in indicators:
        yield from ((lhs, "~", rhs) for rhs in covariates if lhs != rhs)
    outcomes = [name for name in table.observed(level, group) if name not in covariates]
    random = [name for name in covariates if name not in exogenous]
    for names in (outcomes, latent, random):
        yield from ((lhs, "~~", rhs) for lhs, rhs in combinations(names, 2))


def extended_table(table: ParameterTable, added: Sequence[Candidate]) -> ParameterTable:
    """The model with candidates freed, in this order after its own parameters.

    Parameters
    ----------
    table : ParameterTable
    added : sequence of Candidate

    Returns
    -------
    ParameterTable
        With `npar` larger by the number of candidates.
    """
    rows = list(table.rows)
    for k, candidate in enumerate(added, start=table.npar + 1):
        freed = candidate.row._replace(free=k)
        if candidate.index is None:
            rows.append(freed)
        else:
            rows[candidate.index] = freed
    return replace(table, rows=tuple(rows))


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
    if header is not None and headed_level(header, table.nlevels) is None:
        message = f"'level: {header}' is not known here; write 'level: 1' (within) or 'level: 2' (between)"
        if table.nlevels > 2:
            message = (
                f"'level: {header}' is not known here; write the number of the level, 1 to {table.nlevels}"
            )
        raise ModelError(syntax.locate(statement.at, message))
    names = {name for name in (statement.lhs, statement.rhs) if name}
    having = [
        here
        for here in range(1, table.nlevels + 1)
        if names <= {*table.observed(here, group), *table.latent(here, group)}
    ]
    asked = headed_level(header, table.nlevels) if header is not None else level
    if asked is None and len(having) == 1:
        return having[0]
    if asked in having:
        return asked
    where = "" if asked is None else f" at level {asked}"
    message = f"the model{where} does not have all of the variables {', '.join(sorted(names))}"
    if len(having) > 1:
        message = "both levels have these variables: give level=1 (within) or level=2 (between)"
        if table.nlevels > 2:
            message = f"levels {', '.join(map(str, having))} have these variables: say which, level="
    raise ModelError(syntax.locate(statement.at, message))
