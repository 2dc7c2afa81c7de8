"""Tables derived from that of a model: saturated, baseline, saturated at one level, and with auxiliary variables.

All are plain parameter tables, so they are fitted by the same code as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from msem.language.expressions import Name, names_in
from msem.language.syntax import Constraint
from msem.model.partable import BlockRows, Parameter, ParameterTable, block_rows
from msem.model.references import Names
from msem.model.slopes import Slope

Numbers = Iterator[int]
"""Positions in theta that are still to be given."""
Maker = Callable[[ParameterTable, int, int, Numbers], Iterator[Parameter]]
"""Makes the rows of one level of one group."""


def saturated_table(table: ParameterTable) -> ParameterTable:
    """Unrestricted model (h1) of the same variables.

    Parameters
    ----------
    table : ParameterTable
        The model that is compared with it.

    Returns
    -------
    ParameterTable
        At each level all variances and covariances are free (``~~`` rows), and so are the means where they
        belong: at the between level, and at the within level for variables of that level only. Moments of
        fixed covariates stay fixed.

        With random slopes it is the saturated model of slopes: every outcome of level 1 has a random coefficient of
        every covariate that has one anywhere in the model, and all coefficients have free means and covariances, also
        with what else is at level 2; other covariates of level 1 have free fixed coefficients.
    """
    return _derive(table, lambda level: saturated_rows)


def saturated_npar(table: ParameterTable) -> int:
    """Number of parameters of the saturated model, from which degrees of freedom count."""
    blocks = [(level, g) for level in range(1, table.nlevels + 1) for g in range(1, table.ngroups + 1)]
    return sum(_piece(table, saturated_rows, level, group).npar for level, group in blocks)


def baseline_table(table: ParameterTable) -> ParameterTable:
    """Independence model of the same variables.

    Parameters
    ----------
    table : ParameterTable
        The model that is compared with it.

    Returns
    -------
    ParameterTable
        At each level variances and means are free and covariances 0, but for those among covariates, which
        stay as they are in the model: fixed, or free under ``fixed_x=False``, and those of auxiliary variables.
    """
    return _derive(table, lambda level: _baseline_rows)


def partially_saturated_table(table: ParameterTable, level: int) -> ParameterTable:
    """Keep one level as specified and saturate the others (Ryu and West, 2009).

    Parameters
    ----------
    table : ParameterTable
        A model of two levels or three.
    level : int
        The level that is kept.

    Returns
    -------
    ParameterTable
        Labels that the kept level shares with the other bind within the kept level only; parameters of the
        kept level that are equal over groups stay so.

    Raises
    ------
    ValueError
        When the table has one level, or no such level.
    """
    return of_levels(table, level, saturated_rows)


def of_levels(
    table: ParameterTable,
    level: int,
    others: Maker,
    further: Callable[[int, Numbers], Iterator[Parameter]] | None = None,
) -> ParameterTable:
    """Keep one level as specified and make the others, with further rows of the kept level of each group."""
    _require_level(table, level)
    constraints, defined = constraints_of(table, level)
    derived = _derive(table, lambda here: None if here == level else others, further)
    return replace(derived, constraints=constraints, defined=defined) if constraints or defined else derived


def level_table(table: ParameterTable, level: int, *, means: bool) -> ParameterTable:
    """One level of a model as a single-level model of its own.

    Its parameters keep the names that they have in the whole model.

    Parameters
    ----------
    table : ParameterTable
        A model of two levels or three.
    level : int
    means : bool
        Without, intercepts are left out: the means of variables at higher levels are 0 by definition, and those of
        the level's own variables do not belong to the covariance structure.

    Returns
    -------
    ParameterTable
        Of all groups, in the order of the rows of the level.
    """
    constraints, defined = constraints_of(table, level)
    own = renumbered(row for row in table.rows if row.level == level and (means or row.op != "~1"))
    out = replace(
        table,
        rows=tuple(row._replace(level=1) for row in own),
        nlevels=1,
        meanstructure=means,
        syntax=None,
        constraints=constraints,
        defined=defined,
        clusters=(),
    )
    vars(out)["by_name"] = Names(own)
    return out


def renumbered(rows: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Some rows of a table with their parameters numbered from 1, in the order of theta."""
    own = tuple(rows)
    positions = {free: n for n, free in enumerate(sorted({row.free for row in own if row.free}), 1)}
    return tuple(row.renumbered(positions[row.free]) if row.free else row for row in own)


def constraints_of(
    table: ParameterTable, level: int
) -> tuple[tuple[Constraint, ...], tuple[Constraint, ...]]:
    """Constraints and definitions that are about one level only; definitions of numbers go with any."""
    constraints = tuple(c for c in table.constraints if levels_of(table, c) == {level})
    return constraints, tuple(c for c in table.defined if levels_of(table, c) <= {level})


def levels_of(table: ParameterTable, constraint: Constraint) -> set[int]:
    """Levels of the parameters that a constraint names, definitions followed."""
    return {row.level for row in rows_named(table, constraint)}


def rows_named(table: ParameterTable, constraint: Constraint) -> list[Parameter]:
    """Rows of the parameters that a constraint names, definitions followed."""
    definitions = {d.lhs.name: d.rhs for d in table.defined if isinstance(d.lhs, Name)}
    names = [name.name for side in (constraint.lhs, constraint.rhs) for name in names_in(side)]
    found: list[Parameter] = []
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in definitions:
            names += [inner.name for inner in names_in(definitions[name])]
            continue
        first = table.by_name.first(name)
        if first is not None:
            meant = table.rows[first]
            found += [meant, *(row for row in table.rows if row.label and row.label == meant.label)]
    return found


def crosses_levels(table: ParameterTable) -> tuple[str, ...]:
    """What ties the levels of a model together: constraints and labels, as text; empty if they are separate."""
    at: dict[int, set[int]] = {}
    for row in table.rows:
        if row.free:
            at.setdefault(row.free, set()).add(row.level)
    shared = [table.names()[free - 1] for free, levels in sorted(at.items()) if len(levels) > 1]
    return (*shared, *(c.text for c in table.constraints if len(levels_of(table, c)) > 1))


def level_baseline_table(table: ParameterTable, level: int) -> ParameterTable:
    """Independence at one level, the other saturated: what the fit of that level is compared with.

    Parameters
    ----------
    table : ParameterTable
        A two-level model.
    level : int
        The level of the independence model, 1 or 2.

    Returns
    -------
    ParameterTable
        At `level` as in `baseline_table`, at the other as in `saturated_table`.

    Raises
    ------
    ValueError
        When the table has one level, or no such level.
    """
    _require_level(table, level)
    return _derive(table, lambda here: _baseline_rows if here == level else saturated_rows)


def _require_level(table: ParameterTable, level: int) -> None:
    if not table.multilevel or level not in range(1, table.nlevels + 1):
        raise ValueError(f"level {level} of a model with {table.nlevels} level(s) cannot be kept on its own")


class _Piece(NamedTuple):
    """A block by itself, with positions in theta from 1 on, and how many there are."""

    block: BlockRows
    npar: int


def _piece(table: ParameterTable, make: Maker, level: int, group: int) -> _Piece:
    """A block of a derived table. It is kept with the table: several models that it is compared with have the same."""
    pieces: dict[tuple[Maker, int, int], _Piece] = vars(table).setdefault("_pieces", {})
    at = (make, level, group)
    if at not in pieces:
        numbers = count(1)
        rows = tuple(make(table, level, group, numbers))
        pieces[at] = _Piece(block_rows(rows), next(numbers) - 1)
    return pieces[at]


def _derive(
    table: ParameterTable,
    chosen: Callable[[int], Maker | None],
    further: Callable[[int, Numbers], Iterator[Parameter]] | None = None,
) -> ParameterTable:
    """The table of other blocks: which there are at each level, None for those of the model, with further rows."""
    blocks: dict[tuple[int, int], BlockRows] = {}
    positions: dict[int, int] = {}  # of the parameters of the model
    first = npar = 0
    for group in range(1, table.ngroups + 1):
        for level in range(1, table.nlevels + 1):
            make = chosen(level)
            if make is None:
                own = table.block_rows(level, group)
                free = dict.fromkeys([row.free for row in own.rows if row.free not in positions and row.free])
                positions.update(zip(free, range(npar + 1, npar + len(free) + 1), strict=True))
                rows = tuple([row.renumbered(positions[row.free]) if row.free else row for row in own.rows])
                numbers = count(npar + len(free) + 1)
                rows += () if further is None else tuple(further(group, numbers))
                count_here = next(numbers) - npar - 1
                block = own._replace(places=tuple(range(first, first + len(rows))), rows=rows)
            else:
                piece, count_here = _piece(table, make, level, group)
                block = piece.moved(first, npar)
            blocks[level, group] = block
            first, npar = first + len(block.rows), npar + count_here
    return table.derived(blocks)


def saturated_rows(table: ParameterTable, level: int, group: int, numbers: Numbers) -> Iterator[Parameter]:
    """Rows of a level of the saturated model."""
    slopes = saturated_slopes(table, group)
    standing = [slope.name for slope in slopes if level in slope.at]
    if any(slope.level == level for slope in slopes):
        yield from _saturated_paths(table, level, slopes, standing, group, numbers)
    else:
        yield from _saturated_moments(table, level, slopes, standing, group, numbers)


def saturated_beside(table: ParameterTable, level: int, group: int, numbers: Numbers) -> Iterator[Parameter]:
    """Free means and covariances of what a level has, the slopes that the model gives to others among it."""
    slopes = table.slopes(group)
    standing = [slope.name for slope in slopes if level in slope.at]
    return _saturated_moments(table, level, slopes, standing, group, numbers)


def _saturated_moments(
    table: ParameterTable,
    level: int,
    slopes: Sequence[Slope],
    standing: Sequence[str],
    group: int,
    numbers: Numbers,
) -> Iterator[Parameter]:
    exogenous = dict.fromkeys(table.exogenous(level, group))
    names = [*_outcomes(table, level, group), *standing]
    for i, lhs in enumerate(names):
        for rhs in (*names[i:], *exogenous):
            yield _moment(table, lhs, rhs, level, group, numbers)
    yield from _exogenous_rows(table, level, group, "~~")
    yield from _saturated_means(table, names, slopes, level, group, numbers)


def saturated_slopes(table: ParameterTable, group: int) -> tuple[Slope, ...]:
    """Random slopes of the saturated model of a group: one for each outcome and each covariate that has one.

    Of three levels, slopes of lower levels are outcomes themselves; a slope varies at all levels at which one of the
    model on the same covariate does.
    """
    found: list[Slope] = []
    for level in range(1, table.nlevels):
        among = [slope for slope in table.slopes(group) if slope.level == level]
        covariates = dict.fromkeys(slope.covariate for slope in among)
        outcomes = [*_outcomes(table, level, group), *(slope.name for slope in found if level in slope.at)]
        # a covariate that is an outcome itself has those slopes that the model gives it
        own = {(outcome, slope.covariate) for slope in among for outcome in slope.outcomes}
        found += [
            Slope(
                f"{outcome}*{covariate}",
                covariate,
                (outcome,),
                level,
                tuple(sorted({at for slope in among if slope.covariate == covariate for at in slope.at})),
            )
            for covariate in covariates
            for outcome in outcomes
            if outcome not in covariates or (outcome, covariate) in own
        ]
    return tuple(found)


def _outcomes(table: ParameterTable, level: int, group: int) -> list[str]:
    exogenous = table.exogenous(level, group)
    return [name for name in table.observed(level, group) if name not in exogenous]


def _saturated_paths(
    table: ParameterTable,
    level: int,
    slopes: Sequence[Slope],
    standing: Sequence[str],
    group: int,
    numbers: Numbers,
) -> Iterator[Parameter]:
    """A level of the saturated model of slopes at which covariates have some."""
    names = [*_outcomes(table, level, group), *standing]
    known = {(slope.outcomes[0], slope.covariate): slope.name for slope in slopes if slope.level == level}
    for (outcome, covariate), slope in known.items():
        yield Parameter(outcome, "~", covariate, level, group, value=0.0, slope=slope)
    for name in names:
        for x in table.exogenous(level, group):
            if (name, x) not in known:
                yield Parameter(name, "~", x, level, group, next(numbers))
    for i, lhs in enumerate(names):
        for rhs in names[i:]:
            if (lhs, rhs) not in known and (rhs, lhs) not in known:
                yield Parameter(lhs, "~~", rhs, level, group, next(numbers))
    yield from _exogenous_rows(table, level, group, "~~")
    yield from _saturated_means(table, names, slopes, level, group, numbers)


def _saturated_means(
    table: ParameterTable,
    names: list[str],
    slopes: Sequence[Slope],
    level: int,
    group: int,
    numbers: Numbers,
) -> Iterator[Parameter]:
    """Means, those of slopes at the highest level that they are a variable of."""
    below = {slope.name for slope in slopes if level < max(slope.at)}
    yield from _means(table, [name for name in names if name not in below], level, group, numbers)
    for name in names:
        if name in below:
            yield Parameter(name, "~1", "", level, group, value=0.0)


def _baseline_rows(table: ParameterTable, level: int, group: int, numbers: Numbers) -> Iterator[Parameter]:
    exogenous = dict.fromkeys(table.exogenous(level, group))
    covariates = set(table.covariates(level, group))
    names = [name for name in table.observed(level, group) if name not in exogenous]
    correlates = [name for name in names if name in table.auxiliary]
    for name in names:
        yield _moment(table, name, name, level, group, numbers)
    for i, name in enumerate(correlates):  # free in the model too, so that they decide nothing
        others = [other for other in (*names, *exogenous) if other not in correlates]
        for other in (*correlates[i + 1 :], *others):
            yield Parameter(name, "~~", other, level, group, next(numbers))
    if table.ordered.thresholds:  # slopes are statistics of their own, and free as in lavaan
        for name in names:
            for x in exogenous:
                yield Parameter(name, "~", x, level, group, next(numbers))
    for row in table.block(level, group):
        if row.op == "~~" and row.free and row.lhs != row.rhs and {row.lhs, row.rhs} <= covariates:
            yield Parameter(row.lhs, "~~", row.rhs, level, group, next(numbers))
    yield from _exogenous_rows(table, level, group, "~~")
    yield from _means(table, names, level, group, numbers)


def _exogenous_rows(table: ParameterTable, level: int, group: int, op: str) -> Iterator[Parameter]:
    return (row for row in table.block(level, group) if row.exo and row.op == op)


def _means(
    table: ParameterTable, names: list[str], level: int, group: int, numbers: Numbers
) -> Iterator[Parameter]:
    """Means of variables that are not fixed, then of those that are.

    The mean of a variable at several levels belongs to the highest one and is 0 below.
    """
    if not table.meanstructure:
        return
    anchored = set(table.anchored(level))
    for name in names:
        if name in anchored or name in table.ordered.thresholds:
            yield Parameter(name, "~1", "", level, group, value=0.0)
        else:
            yield Parameter(name, "~1", "", level, group, next(numbers))
    yield from _exogenous_rows(table, level, group, "~1")
    for name, threshold in table.thresholds(level, group):
        yield Parameter(name, "|", threshold, level, group, next(numbers))


def _moment(table: ParameterTable, lhs: str, rhs: str, level: int, group: int, numbers: Numbers) -> Parameter:
    """A variance or covariance that is free; the variance of an ordered variable is 1."""
    if lhs == rhs and lhs in table.ordered.thresholds and level == table.scale_level(lhs):
        return Parameter(lhs, "~~", rhs, level, group, value=1.0)
    return Parameter(lhs, "~~", rhs, level, group, next(numbers))


def with_auxiliary(
    table: ParameterTable, unit: Sequence[str] = (), cluster: Sequence[str] = ()
) -> ParameterTable:
    """Add auxiliary variables as saturated correlates: they are correlated with all that a model leaves unexplained.

    At each of their levels they have free variances, means, and covariances with each other and with every observed
    variable, or its residual: the model restricts nothing of them, so its degrees of freedom stay as they are
    (Graham, 2003, Structural Equation Modeling, 10, 80-100).

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
            own = (*unit, *cluster) if level == table.nlevels else tuple(unit)
            rows += table.block(level, group)
            rows += _correlates(table, own, level, group, numbers)
    return replace(table, rows=tuple(rows), auxiliary=(*unit, *cluster))


def _correlates(
    table: ParameterTable, names: Sequence[str], level: int, group: int, numbers: Iterator[int]
) -> Iterator[Parameter]:
    anchored = level < table.nlevels
    for i, name in enumerate(names):
        for other in (*names[i:], *table.observed(level, group)):
            yield Parameter(name, "~~", other, level, group, next(numbers))
        if table.meanstructure:
            free = 0 if anchored else next(numbers)
            yield Parameter(name, "~1", "", level, group, free, value=0.0 if anchored else float("nan"))
