"""Directed paths among the variables of a block: which lead from a cause to an outcome, and where they return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msem.errors import ModelError
from msem.model.partable import ParameterTable

Graph = Mapping[str, Sequence[str]]
MOST = 5000  # specific effects of a model that are still worth a table

__all__ = ["Graph", "cycle_between", "directed", "has_cycle", "reachable", "simple_paths"]


def directed(table: ParameterTable, level: int, group: int) -> dict[str, list[str]]:
    """Variables that each variable has a direct effect on: regressions and loadings that are not fixed at 0."""
    graph: dict[str, list[str]] = {}
    for row in table.block(level, group):
        if row.op in ("~", "=~") and (row.free or row.value != 0):
            cause, effect = (row.rhs, row.lhs) if row.op == "~" else (row.lhs, row.rhs)
            graph.setdefault(cause, []).append(effect)
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Variables that a variable has any effect on; itself too if paths lead back to it."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(graph.get(name, ()))
    return found


def has_cycle(graph: Graph) -> bool:
    """Whether paths lead from a variable back to it."""
    return any(name in reachable(graph, name) for name in graph)


def cycle_between(graph: Graph, cause: str, outcome: str) -> list[str]:
    """Variables of a feedback loop on the way from the cause to the outcome; none if the way is recursive."""
    after = reachable(graph, cause) | {cause}
    on_way = [
        name for name in graph if name in after and (name == outcome or outcome in reachable(graph, name))
    ]
    for name in on_way:
        if name in reachable(graph, name):
            return [
                other
                for other in on_way
                if other in reachable(graph, name) and name in reachable(graph, other)
            ]
    return []


def simple_paths(graph: Graph, cause: str, outcome: str) -> Iterator[tuple[str, ...]]:
    """Paths from the cause to the outcome as the variables that they pass, ends included, shortest first.

    Raises
    ------
    ModelError
        If there are more than a table can show.
    """
    waiting: list[tuple[str, ...]] = [(cause,)]
    useful = {name for name in graph if outcome in reachable(graph, name)}
    count = 0
    while waiting:
        path = waiting.pop(0)
        for name in graph.get(path[-1], ()):
            if name == outcome:
                yield (*path, name)
                count += 1
            elif name in useful and name not in path:
                waiting.append((*path, name))
        if count + len(waiting) > MOST:
            raise ModelError(
                f"more than {MOST} paths lead from {cause} to {outcome}: ask for total effects only, specific=False"
            )
