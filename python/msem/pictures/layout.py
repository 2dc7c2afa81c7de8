"""Where the variables of a diagram stand: x from left to right, depth away from the border between the levels.

Observed variables stand in a row at the border, where the parts of a variable at both levels face each other. Factors
stand over the middle of their indicators, factors of factors over these. What only predicts at its level is stacked on
the left, what is only predicted on the right. Variables of the structural part move away from the border where straight
arrows between them would run through others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from msem.model.levels import WITHIN
from msem.pictures.columns import Columns, columns_of, structural_ranks
from msem.pictures.curves import Outline
from msem.pictures.graph import Arrow, LevelGraph, Node

Floats = NDArray[np.float64]

CHARACTER = 0.082  # inches of a character of a name, at 9 points
BOX, ELLIPSE = 0.36, 0.5  # heights
PITCH = BOX + 0.22  # of variables in a stack
LIFT = 0.95  # by which a variable moves away from the border
MOVABLE = 7  # variables for which every combination of moves is tried


@dataclass(frozen=True)
class Spacing:
    """Distances in inches.

    Attributes
    ----------
    gap : float
        Between indicators; wide enough for labels of loadings.
    unit, tie : float
        Between indicators of different factors, and between variables that are no indicators, in addition.
    side, edge : float
        Between stacks and what they are tied to, and any other variable.
    """

    gap: float = 0.16
    unit: float = 0.3
    tie: float = 0.5
    side: float = 1.1
    edge: float = 0.4


Places = dict[str, Outline]


def layout(graphs: Mapping[int, LevelGraph], spacing: Spacing) -> dict[int, Places]:
    """Outlines of the nodes by level.

    Parameters
    ----------
    graphs : mapping of level to LevelGraph
        Of all levels, what the groups have in common.
    spacing : Spacing

    Returns
    -------
    dict of level to dict of str to Outline
        x from left to right; y is the depth, from 0 at the border between the levels.
    """
    columns = columns_of(graphs)
    at = _columns_at(columns, graphs, spacing)
    return {level: _level_places(graph, level, columns, at, spacing) for level, graph in graphs.items()}


def outline(node: Node, x: float = 0.0, y: float = 0.0) -> Outline:
    """A node at some place, as large as its name needs."""
    width = CHARACTER * len(node.name)
    if node.shape == "observed":
        return Outline(x, y, max(0.56, width + 0.16), BOX)
    if node.shape == "part":
        return Outline(x, y, max(0.56, 1.15 * width + 0.2), BOX + 0.02, "ellipse")
    return Outline(x, y, max(0.84, 1.2 * width + 0.3), ELLIPSE, "ellipse")


def _columns_at(columns: Columns, graphs: Mapping[int, LevelGraph], spacing: Spacing) -> dict[str, float]:
    """Where every variable that has a column is from left to right."""
    at: dict[str, float] = {}
    x, lone = 0.0, False
    factored = {arrow.target for graph in graphs.values() for arrow in graph.of("loading")}
    for unit in columns.units:
        # arrows between variables that are no indicators run along the row, and need room for a label
        if at and (lone or unit[0] not in factored):
            x += spacing.tie if lone and unit[0] not in factored else 0.5 * spacing.tie
        lone = unit[0] not in factored
        for name in unit:
            shapes = [graph.nodes[name] for graph in graphs.values() if name in graph.nodes]
            width = max(outline(node).width for node in shapes)
            at[name] = x + width / 2
            x += width + spacing.gap
        x += spacing.unit
    return at


def _level_places(
    graph: LevelGraph, level: int, columns: Columns, at: Mapping[str, float], spacing: Spacing
) -> Places:
    """Outlines of one level."""
    observed = {name: at[name] for name in graph.nodes if name in at and graph.nodes[name].shape != "latent"}
    places = {name: outline(graph.nodes[name], x, 0.0) for name, x in observed.items()}
    _place_factors(graph, places)
    lifted = _lifted(graph, places)
    _stack(graph, columns.left[level], lifted, spacing, -1)
    _stack(graph, columns.right[level], lifted, spacing, 1)
    return lifted


def _place_factors(graph: LevelGraph, places: Places) -> None:
    """Factors over the middle of their indicators, those of factors over these."""
    waiting = graph.latent
    base = 0.0
    while waiting:
        ready = [f for f in waiting if set(graph.indicators(f)) <= set(places)] or waiting
        targets = {f: _middle(graph, f, places) for f in ready}
        spread = max((_half_width(graph, f, places) for f in ready), default=0.0)
        depth = base + float(np.clip(0.75 + 0.42 * spread, 1.35, 2.9))
        order = sorted(ready, key=lambda f: (targets[f], structural_ranks(graph)[f]))
        widths = [outline(graph.nodes[f]).width for f in order]
        xs = spaced([targets[f] for f in order], widths, 0.62)
        for factor, x in zip(order, xs, strict=True):
            places[factor] = outline(graph.nodes[factor], x, depth)
        waiting = [f for f in waiting if f not in ready]
        base = depth


def _middle(graph: LevelGraph, factor: str, places: Places) -> float:
    known = [places[name].x for name in graph.indicators(factor) if name in places]
    if not known:
        known = [place.x for place in places.values()]
    return 0.5 * (min(known) + max(known)) if known else 0.0


def _half_width(graph: LevelGraph, factor: str, places: Places) -> float:
    known = [places[name].x for name in graph.indicators(factor) if name in places]
    return 0.5 * (max(known) - min(known)) if known else 0.0


def spaced(targets: Sequence[float], widths: Sequence[float], gap: float) -> list[float]:
    """Places as close to the targets, in their order, as widths and gaps allow (least squares, by pooling)."""
    offsets = np.append(0.0, np.cumsum([(a + b) / 2 + gap for a, b in pairwise(widths)]))
    pools: list[tuple[float, int]] = []
    for target, offset in zip(targets, offsets, strict=True):
        mean, size = target - float(offset), 1
        while pools and pools[-1][0] > mean:
            before, count = pools.pop()
            mean, size = (mean * size + before * count) / (size + count), size + count
        pools.append((mean, size))
    means = [mean for mean, size in pools for _ in range(size)]
    return [mean + float(offset) for mean, offset in zip(means, offsets, strict=True)]


def _lifted(graph: LevelGraph, places: Places) -> Places:
    """Move variables of the structural part away from the border where that clears the straight arrows."""
    ties = [a for a in graph.of("regression") if {a.source, a.target} <= set(places)]
    movable = list(dict.fromkeys(v for a in ties for v in (a.source, a.target)))
    above = {a.source for a in graph.of("loading") if graph.nodes[a.target].shape == "latent"}
    if len(ties) < 2 or not movable:
        return places
    movable = [name for name in movable if name not in above][:MOVABLE]
    middle = {a.source for a in ties} & {a.target for a in ties}  # mediators move first
    best, least = places, _tangle(graph, places)
    for lifts in product((0.0, LIFT), repeat=len(movable)):
        moved = dict(places)
        for name, lift in zip(movable, lifts, strict=True):
            old = places[name]
            moved[name] = outline(graph.nodes[name], old.x, old.y + lift)
        cost = _tangle(graph, moved) + sum(
            (0.3 if name in middle else 0.4) for name, lift in zip(movable, lifts, strict=True) if lift
        )
        if cost < least:
            best, least = moved, cost
    return best


def _tangle(graph: LevelGraph, places: Places) -> float:
    """What is wrong with a layout if arrows are straight: ways through nodes, and crossings."""
    arrows = [a for a in graph.of("regression", "loading") if {a.source, a.target} <= set(places)]
    ends = np.array([[places[a.source].centre, places[a.target].centre] for a in arrows])
    t = np.linspace(0, 1, 48)[:, None]
    lines = (1 - t) * ends[:, None, 0] + t * ends[:, None, 1]
    cost = 0.0
    for name, place in places.items():
        own = np.array([name in (a.source, a.target) for a in arrows])
        cost += 10 * float((place.covers(lines, 0.1).any(axis=1) & ~own).sum())
    return cost + _crossed(arrows, ends)


def _crossed(arrows: Sequence[Arrow], ends: Floats) -> float:
    """Pairs of straight arrows that cross, those with a common end aside."""
    p, r = ends[:, 0], ends[:, 1] - ends[:, 0]
    d = p[None] - p[:, None]
    across = r[:, None, 0] * r[None, :, 1] - r[:, None, 1] * r[None, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (d[..., 0] * r[None, :, 1] - d[..., 1] * r[None, :, 0]) / across
        u = (d[..., 0] * r[:, None, 1] - d[..., 1] * r[:, None, 0]) / across
    inside = (t > 1e-6) & (t < 1 - 1e-6) & (u > 1e-6) & (u < 1 - 1e-6)
    return float(np.triu(inside, 1).sum())


def _stack(graph: LevelGraph, names: Sequence[str], places: Places, spacing: Spacing, side: int) -> None:
    """A column of variables at one side, in the middle of what they are tied to, as the text has them from the top."""
    if not names:
        return
    tied = [place for name in names for place in _tied(graph, name, places)] or list(places.values())
    widest = max(outline(graph.nodes[name]).width for name in names)
    x, middle = 0.0, 0.0
    if tied:
        inner = max(side * place.x + place.width / 2 for place in tied)
        edge = max(side * place.x + place.width / 2 for place in places.values())
        x = side * (max(inner + spacing.side, edge + spacing.edge) + widest / 2)
        middle = float(np.mean([place.y for place in tied]))
    first = max(middle - PITCH * (len(names) - 1) / 2, 0.0)
    for k, name in enumerate(names if graph.level == WITHIN and graph.facing else reversed(names)):
        places[name] = outline(graph.nodes[name], x, first + k * PITCH)


def _tied(graph: LevelGraph, name: str, places: Places) -> list[Outline]:
    others = [
        a.target if a.source == name else a.source
        for a in graph.of("regression", "covariance")
        if name in (a.source, a.target)
    ]
    return [places[other] for other in others if other in places]
