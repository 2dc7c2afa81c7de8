"""A path diagram as shapes with their places, in inches: what every form of output draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem.model.levels import level_title
from msem.pictures.beside import Beside, Point, Side, beside, size_of
from msem.pictures.curves import Curve, Outline
from msem.pictures.graph import Arrow, LevelGraph, Node, merged
from msem.pictures.layout import Places, Spacing, layout
from msem.pictures.routes import Key, Routes, routed

Floats = NDArray[np.float64]

PAD = 0.18  # inches between what is in a panel and its frame
TITLE = 0.24  # for the title of a panel
BETWEEN_PANELS = 0.22
BETWEEN_GROUPS = 0.3


@dataclass(frozen=True)
class DrawnNode:
    """A variable with its place."""

    node: Node
    level: int
    group: int
    place: Outline


@dataclass(frozen=True)
class DrawnArrow:
    """An arrow with its way and the place of its label; none where it has none.

    Attributes
    ----------
    form : {"arrow", "arc", "residual", "loop", "mean"}
        Arcs and loops have two heads; the tail of a mean is a triangle.
    """

    arrow: Arrow
    level: int
    group: int
    curve: Curve
    form: Literal["arrow", "arc", "residual", "loop", "mean"]
    label: Point | None
    side: Side = "center"


@dataclass(frozen=True)
class Panel:
    """The frame of one level of one group; its title stands where other levels do not join."""

    title: str
    facing: bool
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Scene:
    """All shapes of a diagram.

    Attributes
    ----------
    width, height : float
    panels : tuple of Panel
    nodes : tuple of DrawnNode
    arrows : tuple of DrawnArrow
    joins : tuple of Curve
        From the between part of a variable to the variable itself.
    """

    width: float
    height: float
    panels: tuple[Panel, ...]
    nodes: tuple[DrawnNode, ...]
    arrows: tuple[DrawnArrow, ...]
    joins: tuple[Curve, ...]


@dataclass(frozen=True, eq=False)
class _Plan:
    """One level as it is laid out for all groups, with what it takes up."""

    places: Places
    routes: Routes
    beside: Beside
    low: Floats
    high: Floats


def compose(
    graphs: Mapping[tuple[int, int], LevelGraph],
    titles: Mapping[int, str],
    spacing: Spacing,
    *,
    multilevel: bool,
) -> Scene:
    """Lay out levels and groups.

    Parameters
    ----------
    graphs : mapping of (level, group) to LevelGraph
    titles : mapping of int to str
        Titles of the groups; empty for one.
    spacing : Spacing
    multilevel : bool
        Whether panels say their level.
    """
    levels = sorted({level for level, _ in graphs})
    groups = sorted({group for _, group in graphs})
    common = {k: merged([graphs[k, g] for g in groups if (k, g) in graphs]) for k in levels}
    places = layout(common, spacing)
    plans = {level: _plan(common[level], places[level]) for level in levels}
    left = min(plan.low[0] for plan in plans.values()) - PAD
    right = max(plan.high[0] for plan in plans.values()) + PAD
    width = right - left
    titled = multilevel or any(titles.values())
    bottoms, tops = _bands(plans, TITLE if titled else 0.0)
    panels, nodes, arrows, joins = [], [], [], []
    for column, group in enumerate(groups):
        dx = column * (width + BETWEEN_GROUPS) - left
        for level in levels:
            if (level, group) not in graphs:
                continue
            panels.append(
                Panel(
                    _title(level_title(level, max(levels)) if multilevel else "", titles.get(group, "")),
                    common[level].facing,
                    dx + left,
                    bottoms[level],
                    width,
                    tops[level] - bottoms[level],
                )
            )
            frame = _Frame(
                plans[level], dx, _origin(plans[level], bottoms[level], tops[level], common[level])
            )
            nodes += frame.nodes(graphs[level, group], group)
            arrows += frame.arrows(graphs[level, group], group)
        joins += _joins([node for node in nodes if node.group == group])
    total = len(groups) * (width + BETWEEN_GROUPS) - BETWEEN_GROUPS
    return Scene(total, max(tops.values()), tuple(panels), tuple(nodes), tuple(arrows), tuple(joins))


def _title(level: str, group: str) -> str:
    return ": ".join(part for part in (group, level) if part)


def _plan(graph: LevelGraph, places: Places) -> _Plan:
    routes = routed(graph, places)
    found = beside(graph, places, routes)
    corners = [
        corner
        for box in (*places.values(), *_label_boxes(graph, found))
        for corner in (
            (box.x - box.width / 2, box.y - box.height / 2),
            (box.x + box.width / 2, box.y + box.height / 2),
        )
    ]
    traces = [curve.trace for curve in routes.values()]
    traces += [stub.curve.trace for stub in found.stubs.values()]
    points = np.concatenate([np.array(corners).reshape(-1, 2), *traces])
    low, high = points.min(axis=0), points.max(axis=0)
    return _Plan(places, routes, found, low, high)


def _label_boxes(graph: LevelGraph, found: Beside) -> list[Outline]:
    boxes = []
    for arrow in graph.arrows:
        size = size_of(arrow)
        if arrow.key in found.labels:
            boxes.append(Outline(*found.labels[arrow.key], *size))
        if arrow.key in found.stubs:
            stub = found.stubs[arrow.key]
            shift = 0.5 * size[0] if stub.side == "left" else 0.0
            boxes.append(Outline(stub.label[0] + shift, stub.label[1], *size))
    return boxes


def _bands(plans: Mapping[int, _Plan], title: float) -> tuple[dict[int, float], dict[int, float]]:
    """Bottoms and tops of the panels, the lowest level lowest."""
    bottoms, tops, y = {}, {}, 0.0
    for level, plan in sorted(plans.items()):
        bottoms[level] = y
        y += float(plan.high[1] - plan.low[1]) + 2 * PAD + title
        tops[level] = y
        y += BETWEEN_PANELS
    return bottoms, tops


def _origin(plan: _Plan, bottom: float, top: float, graph: LevelGraph) -> tuple[float, int]:
    """Where depth 0 is, and whether it grows upwards."""
    if graph.facing:
        return top - PAD + float(plan.low[1]), -1
    return bottom + PAD - float(plan.low[1]), 1


class _Frame:
    """From the places of a plan to those of a panel."""

    def __init__(self, plan: _Plan, dx: float, origin: tuple[float, int]) -> None:
        self.plan, self.dx = plan, dx
        self.y, self.up = origin

    def point(self, at: Point) -> Point:
        return at[0] + self.dx, self.y + self.up * at[1]

    def curve(self, curve: Curve) -> Curve:
        return (curve if self.up > 0 else curve.flipped()).moved(self.dx, self.y)

    def nodes(self, graph: LevelGraph, group: int) -> list[DrawnNode]:
        out = []
        for name, node in graph.nodes.items():
            place = self.plan.places[name]
            there = Outline(*self.point(place.centre), place.width, place.height, place.form)
            out.append(DrawnNode(node, graph.level, group, there))
        return out

    def arrows(self, graph: LevelGraph, group: int) -> list[DrawnArrow]:
        out = []
        for arrow in graph.arrows:
            key: Key = arrow.key
            if key in self.plan.routes:
                form: Literal["arrow", "arc"] = "arc" if arrow.kind == "covariance" else "arrow"
                at = self.plan.beside.labels.get(key)
                label = self.point(at) if at is not None and arrow.label else None
                out.append(
                    DrawnArrow(arrow, graph.level, group, self.curve(self.plan.routes[key]), form, label)
                )
            else:
                stub = self.plan.beside.stubs[key]
                label = self.point(stub.label) if arrow.label else None
                out.append(
                    DrawnArrow(arrow, graph.level, group, self.curve(stub.curve), stub.form, label, stub.side)
                )
        return out


def _joins(nodes: Sequence[DrawnNode]) -> list[Curve]:
    """Lines from the parts of variables to where they are at the next lower level, if no node is in the way."""
    out = []
    for part in nodes:
        whole = below(part, nodes)
        if whole is None:
            continue
        here, there = part.place, whole.place
        ends = np.array([[here.x, here.y - here.height / 2], [there.x, there.y + there.height / 2]])
        points = ends[0] + np.linspace(0, 1, 200)[:, None] * (ends[1] - ends[0])
        if not any(one.place.covers(points).any() for one in nodes if one not in (part, whole)):
            out.append(Curve(ends))
    return out


def below(part: DrawnNode, nodes: Sequence[DrawnNode]) -> DrawnNode | None:
    """Where the variable of a part is at the next lower level of its group; None if it is no part, or not drawn."""
    same = [
        one
        for one in nodes
        if (one.node.name, one.group) == (part.node.name, part.group) and one.level < part.level
    ]
    return max(same, key=lambda one: one.level, default=None) if part.node.shape == "part" else None
