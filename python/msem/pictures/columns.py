"""The order of variables from left to right: indicators under their factor, causes before what they explain.

A variable that is at both levels has one column in both panels, so that its parts can be joined. Columns come in
units: the indicators of one factor, or one other variable. Units are sorted by their rank in the structural part; of
the orders that ranks leave open, that with the fewest crossings of loadings at both levels is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations, product

from msem.pictures.graph import LevelGraph

ORDERS = 720  # most orders of units that are compared


@dataclass(frozen=True)
class Columns:
    """Variables from left to right.

    Attributes
    ----------
    units : tuple of tuple of str
        Observed variables with a column of their own.
    left, right : mapping of int to tuple of str
        By level: variables of this level alone that only predict, or are only predicted; they are stacked at the sides.
    """

    units: tuple[tuple[str, ...], ...]
    left: Mapping[int, tuple[str, ...]]
    right: Mapping[int, tuple[str, ...]]


def columns_of(graphs: Mapping[int, LevelGraph]) -> Columns:
    """Order the observed variables of all levels.

    Parameters
    ----------
    graphs : mapping of level to LevelGraph
    """
    left, right = {}, {}
    for level, graph in graphs.items():
        lone = [name for name in graph.nodes if _is_lone(name, level, graphs)]
        causes = {a.source for a in graph.of("regression")}
        effects = {a.target for a in graph.of("regression")}
        left[level] = tuple(name for name in lone if name in causes - effects)
        right[level] = tuple(name for name in lone if name in effects - causes)
    stacked = {level: {*left[level], *right[level]} for level in graphs}
    leaders: dict[str, tuple[int, str]] = {}
    finest = sorted(graphs, key=lambda level: -_factors(graphs[level]))
    for level in finest:
        graph = graphs[level]
        for name in graph.nodes:
            if graph.nodes[name].shape != "latent" and name not in stacked[level]:
                factor = next((a.source for a in graph.of("loading") if a.target == name), None)
                if factor is not None:
                    leaders.setdefault(name, (level, factor))
    for level in finest:
        for name in graphs[level].nodes:
            if graphs[level].nodes[name].shape != "latent" and name not in stacked[level]:
                leaders.setdefault(name, (level, name))
    units: dict[tuple[int, str], list[str]] = {}
    for name, leader in leaders.items():
        units.setdefault(leader, []).append(name)
    ranks = {level: structural_ranks(graph) for level, graph in graphs.items()}
    of = {(level, name): ranks[level].get(name, 0) for level, name in units}
    ordered = sorted(units, key=lambda leader: of[leader])
    best = min(_orders(ordered, of), key=lambda order: _disorder([units[u] for u in order], graphs))
    return Columns(tuple(tuple(units[leader]) for leader in best), left, right)


def _factors(graph: LevelGraph) -> int:
    return len({a.source for a in graph.of("loading")})


def _is_lone(name: str, level: int, graphs: Mapping[int, LevelGraph]) -> bool:
    """Whether a variable is observed at this level alone and no indicator."""
    graph = graphs[level]
    if graph.nodes[name].shape == "latent":
        return False
    elsewhere = any(
        name in other.nodes and other.nodes[name].shape != "latent"
        for k, other in graphs.items()
        if k != level
    )
    return not elsewhere and all(a.target != name for a in graph.of("loading"))


def structural_ranks(graph: LevelGraph) -> dict[str, int]:
    """Longest way by regressions that leads to each variable; indicators and factors have one rank.

    Arrows that close a circle do not count.
    """
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while name in root:
            name = root[name]
        return name

    for arrow in graph.of("loading"):
        if find(arrow.source) != find(arrow.target) and graph.nodes[arrow.target].shape == "latent":
            root[find(arrow.target)] = find(arrow.source)
    before: dict[str, list[str]] = {}
    for arrow in graph.of("regression"):
        before.setdefault(find(arrow.target), []).append(find(arrow.source))
    ranks: dict[str, int] = {}

    def rank(name: str, way: tuple[str, ...]) -> int:
        if name not in ranks:
            earlier = [o for o in before.get(name, []) if o not in way and o != name]
            ranks[name] = 1 + max((rank(o, (*way, name)) for o in earlier), default=-1)
        return ranks[name]

    return {name: rank(find(name), ()) for name in graph.nodes}


def _orders(
    units: Sequence[tuple[int, str]], ranks: Mapping[tuple[int, str], int]
) -> Iterator[list[tuple[int, str]]]:
    """Orders of the units that agree with their ranks; the given one first."""
    layers = [[u for u in units if ranks[u] == rank] for rank in sorted({ranks[u] for u in units})]
    if math.prod(math.factorial(len(layer)) for layer in layers) > ORDERS:
        layers_in = [iter([layer]) for layer in layers]
    else:
        layers_in = [map(list, permutations(layer)) for layer in layers]
    for chosen in islice(product(*layers_in), ORDERS):
        yield [unit for layer in chosen for unit in layer]


def _disorder(units: Sequence[Sequence[str]], graphs: Mapping[int, LevelGraph]) -> float:
    """Crossings of loadings, and regressions from right to left."""
    at = {name: float(k) for k, name in enumerate(name for unit in units for name in unit)}
    cost = 0.0
    for graph in graphs.values():
        place = dict(at)
        for factor in graph.latent:
            known = [at[name] for name in graph.indicators(factor) if name in at]
            if known:
                place[factor] = sum(known) / len(known)
        lines = [
            (place[a.source], place[a.target])
            for a in graph.of("loading")
            if a.source in place and a.target in at
        ]
        cost += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(lines, 2))
        back = [a for a in graph.of("regression") if {a.source, a.target} <= set(place)]
        cost += sum(place[a.source] > place[a.target] for a in back)
    return cost
