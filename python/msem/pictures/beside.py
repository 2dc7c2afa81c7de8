"""What stands beside nodes and arrows: labels, variances and means, where they hide nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem.pictures.curves import Curve, Outline, Outlines, nearness
from msem.pictures.graph import Arrow, LevelGraph
from msem.pictures.routes import Key, Routes

Floats = NDArray[np.float64]
Point = tuple[float, float]
Side = Literal["center", "left", "right"]

CHARACTER, LINE = 0.062, 0.125  # inches of a label at 7.5 points
ON_LOADING = (0.64, 0.56, 0.7, 0.5, 0.76, 0.44, 0.36, 0.82, 0.3)
ON_OTHER = (0.5, 0.42, 0.58, 0.34, 0.66, 0.27, 0.73, 0.2, 0.8)
ANGLES = (90, 60, 120, 35, 145, 75, 105, 0, 180, 15, 165, -20, 200, -45, 225, -90)
STUB = 0.3  # inches


@dataclass(frozen=True)
class Stub:
    """A variance or mean at its node.

    Attributes
    ----------
    curve : Curve
        From outside to the node; from the node back to it for the variance of what nothing explains.
    form : {"residual", "loop", "mean"}
    label : tuple of float
        Where its number stands.
    side : {"center", "left"}
        Where the number begins.
    """

    curve: Curve
    form: Literal["residual", "loop", "mean"]
    label: Point
    side: Side = "center"


@dataclass(frozen=True)
class Beside:
    """Places of labels of arrows between nodes, and of variances and means."""

    labels: Mapping[Key, Point]
    stubs: Mapping[Key, Stub]


def size_of(arrow: Arrow) -> tuple[float, float]:
    """Width and height of a label."""
    lines = arrow.label.split("\n")
    width = CHARACTER * (max(map(len, lines)) + 0.7 * len(arrow.mark)) + 0.05
    return width, LINE * len(lines) + 0.02


def _box(centre: Point, size: tuple[float, float], side: Side = "center") -> Outline:
    shift = {"center": 0.0, "left": 0.5, "right": -0.5}[side]
    return Outline(centre[0] + shift * size[0], centre[1], *size)


def beside(graph: LevelGraph, places: Mapping[str, Outline], routes: Routes) -> Beside:
    """Place labels and stubs: stubs first, since labels can move along their arrows.

    Parameters
    ----------
    graph : LevelGraph
    places : mapping of str to Outline
    routes : mapping of Arrow.key to Curve
    """
    traces = np.array([curve.trace[::2] for curve in routes.values()])
    taken: list[Outline] = []
    stubs: dict[Key, Stub] = {}
    for arrow in graph.of("variance", "mean"):
        stub = _stub(arrow, graph, places, traces, taken)
        stubs[arrow.key] = stub
        taken += [_box(stub.label, size_of(arrow), stub.side), *_covered(stub.curve)]
    labels: dict[Key, Point] = {}
    arrows = [a for a in graph.of("loading", "regression", "covariance") if a.label]
    boxes: dict[Key, Outline] = {}
    nodes = Outlines(list(places.values()))
    for _ in range(2):  # again, when the others have their places
        for arrow in arrows:
            others = taken + [box for key, box in boxes.items() if key != arrow.key]
            labels[arrow.key] = _label(arrow, nodes, traces, routes[arrow.key], others)
            boxes[arrow.key] = _box(labels[arrow.key], size_of(arrow))
    return Beside(labels, stubs)


def _covered(curve: Curve) -> list[Outline]:
    """Where a stub is, as boxes that labels keep off."""
    points = curve.at(np.linspace(0, 1, 5))
    return [Outline(float(x), float(y), 0.08, 0.08) for x, y in points]


def _label(arrow: Arrow, nodes: Outlines, traces: Floats, curve: Curve, taken: Sequence[Outline]) -> Point:
    """The place along an arrow where its label hides least."""
    size, used = size_of(arrow), Outlines(taken)
    best, least = (0.0, 0.0), np.inf
    shares = ON_LOADING if arrow.kind == "loading" else ON_OTHER
    for k, (x, y) in enumerate(curve.at(np.array(shares)).tolist()):
        if 0.012 * k >= least:
            break
        box = _box((x, y), size)
        cost = 0.012 * k + 8 * used.overlap(box) + 20 * nodes.overlap(box)
        cost += 0.25 * (float(box.covers(traces, 0.02).any(axis=1).sum()) - 1)  # it is on its own arrow
        if cost < least:
            best, least = (x, y), cost
    return best


def _stub(
    arrow: Arrow,
    graph: LevelGraph,
    places: Mapping[str, Outline],
    traces: Floats,
    taken: Sequence[Outline],
) -> Stub:
    """The direction from which a variance or mean hides least."""
    here = places[arrow.source]
    others = Outlines([place for name, place in places.items() if name != arrow.source])
    nodes, used = Outlines(list(places.values())), Outlines(taken)
    near = traces[here.covers(traces, 1.2).any(axis=1)] if len(traces) else traces
    best: Stub | None = None
    least = np.inf
    for k, stub in enumerate(_stubs(arrow, graph, here)):
        if 0.05 * k >= least:
            break
        box = _box(stub.label, size_of(arrow), stub.side)
        trace = stub.curve.trace[::6]
        cost = 0.05 * k + 12 * used.overlap(box) + 30 * nodes.overlap(box)
        cost += 20.0 * others.hit(trace, 0.05).sum() + 3.0 * used.hit(trace).sum()
        if len(near):
            cost += float((nearness(trace, near, 0.05) > 0).sum() + box.covers(near, 0.01).any(axis=1).sum())
        if cost < least:
            best, least = stub, cost
    assert best is not None
    return best


def _stubs(arrow: Arrow, graph: LevelGraph, place: Outline) -> Iterator[Stub]:
    """Stubs from all directions; those of the row at the border from there, beside the line that joins the levels."""
    explained = any(a.target == arrow.source for a in graph.of("loading", "regression"))
    form: Literal["residual", "loop", "mean"]
    form = "mean" if arrow.kind == "mean" else "residual" if explained else "loop"
    width, height = size_of(arrow)
    if place.y < 0.01 and form != "loop":
        dx = 0.15 if form == "residual" else -0.15
        foot = place.y - place.height / 2 * (1 if place.form == "box" else 0.86)
        tail = foot - STUB - (0.05 if form == "mean" else 0)
        curve = Curve(np.array([[place.x + dx, tail], [place.x + dx, foot]]))
        if form == "residual":
            yield Stub(curve, form, (place.x + dx + 0.04, tail + 0.06), "left")
        else:
            yield Stub(curve, form, (place.x + dx - 0.08, tail - 0.14 - 0.5 * height))
    for degrees in ANGLES:
        direction = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        if form == "loop":
            curve = _loop(place, degrees)
            reach = float(np.max((curve.trace - place.centre) @ direction))
        else:
            border = _border(place, degrees)
            tail_at = border + (STUB + (0.06 if form == "mean" else 0)) * direction
            curve = Curve(np.array([tail_at, border]))
            reach = float((tail_at - place.centre) @ direction) + (0.16 if form == "mean" else 0)
        along = np.abs(direction) + 1e-9
        room = 0.03 + 0.5 * float(min(width / along[0], height / along[1]))
        x, y = np.array(place.centre) + (reach + room) * direction
        yield Stub(curve, form, (float(x), float(y)))


def _border(place: Outline, degrees: float) -> Floats:
    """Where the ray from the centre leaves a node."""
    direction = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    a, b = place.width / 2, place.height / 2
    if place.form == "box":
        reach = min(a / max(abs(direction[0]), 1e-9), b / max(abs(direction[1]), 1e-9))
    else:
        reach = 1 / np.hypot(direction[0] / a, direction[1] / b)
    out: Floats = np.array(place.centre) + reach * direction
    return out


def _loop(place: Outline, degrees: float) -> Curve:
    """A small arc from a node to itself."""
    flat = place.width / place.height
    half = 16 if abs(np.sin(np.radians(degrees))) > 0.5 else 24 * min(flat / 1.5, 1.4)
    first, last = _border(place, degrees - half), _border(place, degrees + half)
    direction = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    across = (last - first) * 0.7
    return Curve(np.array([first, first + 0.4 * direction - across, last + 0.4 * direction + across, last]))
