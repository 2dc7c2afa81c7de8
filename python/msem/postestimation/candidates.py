"""Parameters that a model could have but does not: the rows of modification indices and score tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

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
        of the rows are identified.
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
            if not row.free and not row.exo:
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
    for factor in latent:
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
        freed = replace(candidate.row, free=k)
        if candidate.index is None:
            rows.append(freed)
        else:
            rows[candidate.index] = freed
    return replace(table, rows=tuple(rows))
