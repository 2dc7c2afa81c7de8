"""The ways of arrows: straight where nothing is in between, else the gentlest curve that runs through no node."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msem.pictures.curves import Curve, Outline, Outlines, crossings, nearness
from msem.pictures.graph import Arrow, Kind, LevelGraph

Floats = NDArray[np.float64]
Key = tuple[str, str, Kind]
Routes = dict[Key, Curve]

MARGIN = 0.06  # inches between an arrow and a node it passes
INTO = 0.02  # by which it may run into its own
BENDS = (0.0, 0.12, -0.12, 0.25, -0.25, 0.4, -0.4, 0.6, -0.6, 0.9, -0.9)  # in lengths of the straight line
COARSE = 4  # of the points of a trace, one for crossings
COMPARED = 8  # free ways of an arrow
CELL = 0.12  # of the grid on which a way is sought when no curve is free
AWAY = 0.9  # inches around all nodes in which it may run


def routed(graph: LevelGraph, places: Mapping[str, Outline]) -> Routes:
    """Ways of all arrows between nodes: loadings first, then regressions, then covariances.

    Parameters
    ----------
    graph : LevelGraph
    places : mapping of str to Outline

    Returns
    -------
    dict of Arrow.key to Curve
        Each from the border of its source to that of its target, through no other node.
    """
    routes: Routes = {}
    for arrow in graph.of("loading", "regression", "covariance"):
        if arrow.kind == "loading":
            routes[arrow.key] = _best(arrow, graph, places, routes)
    for kind in ("regression", "covariance"):
        arrows = [arrow for arrow in graph.arrows if arrow.kind == kind]
        for arrow in sorted(arrows, key=lambda a: _distance(places[a.source], places[a.target])):
            routes[arrow.key] = _best(arrow, graph, places, routes)
    return routes


def _distance(one: Outline, other: Outline) -> float:
    return float(np.hypot(one.x - other.x, one.y - other.y))


def _best(arrow: Arrow, graph: LevelGraph, places: Mapping[str, Outline], known: Routes) -> Curve:
    """The first way if it is free and crosses nothing, else the cheapest that is free.

    Loadings may cross: they are straight where they can be.
    """
    others = [place for name, place in places.items() if name not in (arrow.source, arrow.target)]
    obstacles = Outlines(others)
    own, straight = Outlines([places[arrow.source], places[arrow.target]]), arrow.kind == "loading"
    there = np.array([] if straight else [curve.trace[::COARSE] for curve in known.values()])

    def is_free(curve: Curve) -> bool:
        return not obstacles.hit(curve.trace, MARGIN).any() and not own.hit(curve.trace, -INTO).any()

    tried: list[tuple[float, Curve]] = []
    for cost, curve in _candidates(arrow, graph, places):
        if not tried and is_free(curve) and (straight or not _conflict(curve, there)):
            return curve
        tried.append((cost, curve))
    best: Curve | None = None
    least, free = np.inf, 0
    for cost, curve in sorted(tried, key=lambda candidate: candidate[0]):
        if cost >= least or free == COMPARED:
            break
        if is_free(curve):
            free += 1
            whole = cost + (0.0 if straight else _conflict(curve, there))
            if whole < least:
                best, least = curve, whole
    return best or _around(places[arrow.source], places[arrow.target], others)


def _conflict(curve: Curve, known: Floats) -> float:
    """Crossings with arrows that are there already, and running along them.

    Parameters
    ----------
    curve : Curve
    known : ndarray, shape (arrows, points, 2)
        Coarse traces.
    """
    if not len(known):
        return 0.0
    trace = curve.trace[::COARSE]
    along = np.maximum(nearness(trace, known, 0.07) - 0.2, 0.0)
    return float(0.35 * crossings(trace, known).sum() + 4.0 * along.sum())


def _candidates(
    arrow: Arrow, graph: LevelGraph, places: Mapping[str, Outline]
) -> Iterator[tuple[float, Curve]]:
    """Curves from border to border, each with its cost."""
    source, target = places[arrow.source], places[arrow.target]
    if arrow.kind == "covariance":
        yield from _arcs(arrow, graph, source, target)
        return
    ends: list[tuple[float, bool]] = [(0.0, False), (0.25, True)]
    if target.form == "box" or graph.nodes[arrow.target].shape == "part":
        ends = [(0.0, True), (0.3, False)] if arrow.kind == "loading" else ends
    for extra, port in ends:
        end = _port(target, source) if port else target.centre
        for bend in BENDS:
            curve = _bowed(source.centre, end, bend).clipped(source, None if port else target)
            yield curve.length * (1 + 0.5 * abs(bend)) + 0.8 * abs(bend) + extra, curve


def _port(target: Outline, source: Outline) -> tuple[float, float]:
    """The middle of the side that faces away from the border between the levels, or of the one towards the source."""
    side = 1 if source.y >= target.y else -1
    return target.x, target.y + side * target.height / 2


def _bowed(start: tuple[float, float], end: tuple[float, float], bend: float) -> Curve:
    """A quadratic curve that leaves the straight line by a share of its length."""
    p, q = np.array(start), np.array(end)
    if bend == 0:
        return Curve(np.array([p, q]))
    normal = np.array([-(q - p)[1], (q - p)[0]])
    return Curve(np.array([p, 0.5 * (p + q) + bend * normal, q]))


def _arcs(arrow: Arrow, graph: LevelGraph, source: Outline, target: Outline) -> Iterator[tuple[float, Curve]]:
    """Arcs of a covariance: outside, so on the side of the node where its loadings are not."""
    left, right = sorted((source, target), key=lambda place: (place.x, place.y))
    span = _distance(left, right)
    factors = {a.source for a in graph.of("loading")}
    outward = bool({arrow.source, arrow.target} & factors)
    rise = 0.24 + 0.13 * span
    for k, factor in enumerate((1.0, 1.3, 1.7, 0.75, 2.2)):
        height = max(min(rise * factor, 2.6), 0.28)
        away = 0.15 * k
        if right.x - left.x > 0.3:
            for side in (1, -1):
                wrong = 0.0 if (side > 0) == outward else 1.2
                curve = _raised(left, right, side * height)
                yield 0.2 * curve.length + away + wrong, curve
        for side in (-1, 1):
            wrong = 0.0 if right.x - left.x <= 0.3 else 1.6
            curve = _bulged(left, right, side * height)
            yield 0.2 * curve.length + away + wrong + (0.1 if side > 0 else 0.0), curve
    for bend in BENDS[1:]:
        curve = _bowed(left.centre, right.centre, bend).clipped(left, right)
        yield 0.2 * curve.length + 2.0 + abs(bend), curve


def _raised(left: Outline, right: Outline, height: float) -> Curve:
    """From the upper (or lower) side of one node to that of another."""
    lean = 0.25 * (right.x - left.x)
    top = max(left.y, right.y) if height > 0 else min(left.y, right.y)
    if left.form == right.form == "ellipse":
        p, q = np.array(left.centre), np.array(right.centre)
        ends: tuple[Outline | None, Outline | None] = (left, right)
    else:
        sign = 1 if height > 0 else -1
        p = np.array([left.x + 0.12 * left.width, left.y + sign * left.height / 2])
        q = np.array([right.x - 0.12 * right.width, right.y + sign * right.height / 2])
        ends = (None, None)
    crest = top + 1.33 * height
    inner = np.array([[p[0] + lean, crest], [q[0] - lean, crest]])
    return Curve(np.array([p, *inner, q])).clipped(*ends)


def _bulged(left: Outline, right: Outline, width: float) -> Curve:
    """From the left (or right) side of one node to that of another."""
    sign = 1 if width > 0 else -1
    low, high = sorted((left, right), key=lambda place: place.y)
    p = np.array([low.x + sign * low.width / 2, low.y])
    q = np.array([high.x + sign * high.width / 2, high.y])
    far = (max if sign > 0 else min)(p[0], q[0]) + 1.33 * width
    lean = 0.2 * (high.y - low.y)
    return Curve(np.array([p, [far, low.y + lean], [far, high.y - lean], q]))


def _around(source: Outline, target: Outline, others: Sequence[Outline]) -> Curve:
    """The shortest way on a grid that keeps off the nodes, with as few corners as they allow."""
    everything = [source, target, *others]
    low = np.array([min(o.x - o.width / 2 for o in everything), min(o.y - o.height / 2 for o in everything)])
    high = np.array([max(o.x + o.width / 2 for o in everything), max(o.y + o.height / 2 for o in everything)])
    low, high = low - AWAY, high + AWAY
    shape = np.ceil((high - low) / CELL).astype(int) + 1
    grid = low + CELL * np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    blocked = np.zeros(tuple(shape), dtype=bool)
    for place in others:
        blocked |= place.covers(grid, MARGIN + 0.02)

    def cell(place: Outline) -> tuple[int, int]:
        i, j = np.rint((np.array(place.centre) - low) / CELL).astype(int)
        return int(i), int(j)

    way = _shortest(blocked, cell(source), cell(target))
    points = np.array([source.centre, *(grid[c] for c in way[1:-1]), target.centre])
    return Curve(_pulled(points, others), bent=False).clipped(source, target)


def _shortest(
    blocked: NDArray[np.bool_], start: tuple[int, int], goal: tuple[int, int]
) -> list[tuple[int, int]]:
    """A* on eight neighbours."""
    queue: list[tuple[float, float, tuple[int, int]]] = [(0.0, 0.0, start)]
    before: dict[tuple[int, int], tuple[int, int]] = {}
    reached = {start: 0.0}
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    while queue:
        _, cost, here = heapq.heappop(queue)
        if here == goal:
            break
        for i, j in steps:
            there = (here[0] + i, here[1] + j)
            inside = 0 <= there[0] < blocked.shape[0] and 0 <= there[1] < blocked.shape[1]
            if not inside or (blocked[there] and there != goal):
                continue
            new = cost + float(np.hypot(i, j))
            if new < reached.get(there, np.inf):
                reached[there], before[there] = new, here
                left = float(np.hypot(goal[0] - there[0], goal[1] - there[1]))
                heapq.heappush(queue, (new + left, new, there))
    way = [goal]
    while way[-1] != start and way[-1] in before:
        way.append(before[way[-1]])
    return way[::-1]


def _pulled(points: Floats, others: Sequence[Outline]) -> Floats:
    """A way without the corners that can be cut."""
    obstacles = Outlines(others)
    kept, here = [points[0]], 0
    while here < len(points) - 1:
        step = len(points) - 1
        while step > here + 1:
            line = Curve(points[[here, step]], bent=False)
            if not obstacles.hit(line.trace, MARGIN).any():
                break
            step -= 1
        kept.append(points[step])
        here = step
    return np.array(kept)
