"""Models with random slopes of which one level is kept and the other saturated.

Beside the level of the paths, the other has the slopes of the model as variables with free means and covariances. Below
the level that the slopes are variables of, every outcome has its own coefficient of every covariate with a slope; what
the model says of these coefficients then belongs to the level that is kept: that slope s adds l times itself to one is
a loading of the coefficient on s, and a fixed path its mean. Such loadings are free where the model estimates them,
whatever it says of them at level 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msem.model.derived import of_levels, saturated_beside, saturated_rows, saturated_slopes
from msem.model.levels import BETWEEN, WITHIN
from msem.model.partable import Parameter, ParameterTable

Edges = Mapping[str, Mapping[str, bool]]
"""Where paths lead from each variable, and whether they are estimated."""


class Coefficient(NamedTuple):
    """What a model says of a coefficient of the saturated model of slopes.

    Attributes
    ----------
    name : str
    loads : mapping from str to bool
        Slopes of the model that it depends on, and whether how far is estimated.
    mean : bool or None
        Whether it has a fixed part that is estimated, or one that is not; None without.
    """

    name: str
    loads: Mapping[str, bool]
    mean: bool | None


def coefficients(table: ParameterTable, group: int) -> tuple[Coefficient, ...]:
    """What a model of two levels says of the coefficients of its saturated model of slopes, by the paths of level 1."""
    rows = [row for row in table.block(WITHIN, group) if not row.slope and (row.free or row.value)]
    edges: dict[str, dict[str, bool]] = {}
    for row in rows:
        if row.op in ("=~", "~"):
            source, to = (row.lhs, row.rhs) if row.op == "=~" else (row.rhs, row.lhs)
            edges.setdefault(source, {})[to] = row.free > 0
    targets = saturated_slopes(table, group)
    exogenous = set(table.exogenous(WITHIN, group))
    found = []
    for target in targets:
        (outcome,), covariate = target.outcomes, target.covariate
        held = {other.covariate for other in targets if other.outcomes == target.outcomes}
        loads = {}
        for slope in table.slopes(group):
            if slope.covariate == covariate:
                starts = [name for name in slope.outcomes if name == outcome or name not in held]
                reached = [_routes(edges, start, outcome, held) for start in starts]
                if any(way is not None for way in reached):
                    loads[slope.name] = any(reached)
        mean = _routes(edges, covariate, outcome, held - {covariate})
        if covariate not in exogenous and _related(rows, edges, covariate, outcome):
            mean = True
        found.append(Coefficient(target.name, loads, mean))
    return tuple(found)


def _routes(edges: Edges, start: str, end: str, held: Iterable[str]) -> bool | None:
    """Whether a path on the ways from one variable to another past some others is estimated; None without ways."""
    if start == end:
        return False
    closed = set(held) - {start}
    after, before = _along(edges, start, closed), _along(_turned(edges), end, closed)
    open_ways = [
        free
        for source in (after & before) - closed
        for to, free in edges.get(source, {}).items()
        if to == end or to in before - closed
    ]
    return any(open_ways) if open_ways else None


def _turned(edges: Edges) -> dict[str, dict[str, bool]]:
    back: dict[str, dict[str, bool]] = {}
    for source, ways in edges.items():
        for to, free in ways.items():
            back.setdefault(to, {})[source] = free
    return back


def _along(edges: Edges, start: str, closed: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            if name == start or name not in closed:
                waiting += edges.get(name, ())
    return found


def _related(rows: Sequence[Parameter], edges: Edges, one: str, other: str) -> bool:
    """Whether two variables, or causes of theirs, have a covariance."""
    first, second = (_along(_turned(edges), name, ()) for name in (one, other))
    return any(
        row.op == "~~"
        and row.lhs != row.rhs
        and not row.exo
        and ((row.lhs in first and row.rhs in second) or (row.rhs in first and row.lhs in second))
        for row in rows
    )


def kept_within(table: ParameterTable) -> ParameterTable:
    """Level 1 as specified, with free means and covariances of intercepts, slopes and variables of level 2."""
    return of_levels(table, WITHIN, saturated_beside)


def kept_between(
    table: ParameterTable, values: Sequence[Mapping[str, tuple[Mapping[str, float], float]]]
) -> ParameterTable:
    """Level 2 as specified, level 1 with a coefficient of its own for every outcome.

    Parameters
    ----------
    table : ParameterTable
    values : sequence of mappings
        By group: of each coefficient, loadings on the slopes of the model and its fixed part, at the estimates.
    """

    def measured(group: int, numbers: Iterator[int]) -> Iterator[Parameter]:
        found = coefficients(table, group)
        scaled: dict[str, str] = {}  # the coefficient that gives a slope its scale
        for slope in table.slopes(group):
            among = [one for one in found if slope.name in one.loads]
            if all(one.loads[slope.name] for one in among):
                scaled[slope.name] = max(
                    among, key=lambda one: abs(values[group - 1][one.name][0][slope.name])
                ).name
        for one in found:
            loads, fixed = values[group - 1][one.name]
            for name, estimated in one.loads.items():
                if estimated and scaled.get(name) != one.name:
                    yield Parameter(name, "=~", one.name, BETWEEN, group, next(numbers), start=loads[name])
                else:
                    yield Parameter(name, "=~", one.name, BETWEEN, group, value=loads[name])
            yield Parameter(one.name, "~~", one.name, BETWEEN, group, value=0.0)
            if one.mean:
                yield Parameter(one.name, "~1", "", BETWEEN, group, next(numbers), start=fixed)
            else:
                yield Parameter(one.name, "~1", "", BETWEEN, group, value=0.0 if one.mean is None else fixed)

    return of_levels(table, BETWEEN, saturated_rows, measured)
