"""Lines and Bézier curves between nodes, and what they run through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINOMIAL = {n: np.array([comb(n, k) for k in range(n + 1)]) for n in range(1, 4)}
FINE = 96  # points at which a curve is looked at


@dataclass(frozen=True)
class Outline:
    """Where a node is: a box or an ellipse, by centre and size in inches."""

    x: float
    y: float
    width: float
    height: float
    form: Literal["box", "ellipse"] = "box"

    def covers(self, points: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which of the points, shape (..., 2), are inside, or closer than the margin."""
        dx, dy = np.abs(points[..., 0] - self.x), np.abs(points[..., 1] - self.y)
        a, b = self.width / 2 + margin, self.height / 2 + margin
        inside: NDArray[np.bool_]
        inside = (dx < a) & (dy < b) if self.form == "box" else (dx / a) ** 2 + (dy / b) ** 2 < 1
        return inside

    @property
    def centre(self) -> tuple[float, float]:
        """Of the node."""
        return self.x, self.y


@dataclass(frozen=True, eq=False)
class Curve:
    """A Bézier curve, or a line through points.

    Attributes
    ----------
    points : ndarray, shape (n, 2)
        Control points of the curve, at most 4; or corners of the line.
    bent : bool
        Whether they are control points.
    """

    points: Floats
    bent: bool = True

    @cached_property
    def trace(self) -> Floats:
        """Points along it, shape (FINE, 2)."""
        return self.at(np.linspace(0, 1, FINE))

    def at(self, t: Floats) -> Floats:
        """Points at shares of the curve, or of the length of the line."""
        p, n = self.points, len(self.points) - 1
        if self.bent:
            k = np.arange(n + 1)
            t = np.asarray(t)[..., None]
            curve: Floats = (BINOMIAL[n] * t**k * (1 - t) ** (n - k)) @ p
            return curve
        length = np.append(0, np.cumsum(np.hypot(*np.diff(p, axis=0).T)))
        along = t * length[-1]
        return np.stack([np.interp(along, length, p[:, 0]), np.interp(along, length, p[:, 1])], axis=-1)

    @cached_property
    def length(self) -> float:
        """Of the trace."""
        return float(np.hypot(*np.diff(self.trace, axis=0).T).sum())

    def between(self, first: float, last: float) -> Curve:
        """The part from one share to another."""
        if not self.bent:
            t = np.linspace(first, last, FINE)
            inner = [p for p, s in zip(self.points, self._shares, strict=True) if first < s < last]
            ends = self.at(t[[0, -1]])
            return Curve(np.array([ends[0], *inner, ends[1]]), bent=False)
        right = _split(self.points, first)[1]
        share = (last - first) / (1 - first) if first < 1 else 1.0
        return Curve(_split(right, share)[0])

    @property
    def _shares(self) -> Floats:
        length = np.append(0, np.cumsum(np.hypot(*np.diff(self.points, axis=0).T)))
        shares: Floats = length / length[-1]
        return shares

    def clipped(self, source: Outline | None, target: Outline | None) -> Curve:
        """The part outside two nodes that it joins; None where it starts or ends at a point of the border."""
        first, last = 0.0, 1.0
        t = np.linspace(0, 1, 3 * FINE)
        points = self.at(t)
        if source is not None:
            inside = np.flatnonzero(source.covers(points))
            first = t[min(inside[-1] + 1, len(t) - 2)] if len(inside) else 0.0
        if target is not None:
            inside = np.flatnonzero(target.covers(points) & (t > first))
            last = t[max(inside[0] - 1, 1)] if len(inside) else 1.0
        return self.between(float(first), float(max(last, first + 1e-3)))

    def flipped(self) -> Curve:
        """Upside down."""
        return Curve(self.points * (1, -1), self.bent)

    def moved(self, dx: float, dy: float) -> Curve:
        """Somewhere else."""
        return Curve(np.add(self.points, (dx, dy)), self.bent)


def _split(points: Floats, t: float) -> tuple[Floats, Floats]:
    """The two parts of a Bézier curve (de Casteljau)."""
    left, right = [points[0]], [points[-1]]
    while len(points) > 1:
        points = (1 - t) * points[:-1] + t * points[1:]
        left.append(points[0])
        right.append(points[-1])
    return np.array(left), np.array(right[::-1])


def crossings(one: Floats, others: Floats) -> NDArray[np.intp]:
    """How often a trace, shape (n, 2), crosses each of several, shape (k, m, 2)."""
    p, r = one[:-1, None], np.diff(one, axis=0)[:, None]
    q, s = others[:, None, :-1], np.diff(others, axis=1)[:, None]
    across = r[..., 0] * s[..., 1] - r[..., 1] * s[..., 0]
    x, y = q[..., 0] - p[..., 0], q[..., 1] - p[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (x * s[..., 1] - y * s[..., 0]) / across
        u = (x * r[..., 1] - y * r[..., 0]) / across
    found: NDArray[np.intp] = ((t > 0) & (t < 1) & (u > 0) & (u < 1)).sum(axis=(1, 2))
    return found


def nearness(one: Floats, others: Floats, distance: float) -> Floats:
    """Share of a trace that is close to each of several."""
    x = one[:, None, 0] - others[:, None, :, 0]
    y = one[:, None, 1] - others[:, None, :, 1]
    near: Floats = ((x * x + y * y).min(axis=2) < distance**2).mean(axis=1)
    return near


class Outlines:
    """Several nodes at once."""

    def __init__(self, outlines: Sequence[Outline]) -> None:
        rows = [(o.x, o.y, o.width / 2, o.height / 2) for o in outlines]
        self._at = np.array(rows, dtype=np.float64).reshape(-1, 4, 1).transpose(1, 0, 2)
        self._boxes = np.array([o.form == "box" for o in outlines], dtype=bool)[:, None]

    def hit(self, trace: Floats, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which of the nodes a trace runs through, or comes closer to than the margin, shape (nodes,)."""
        x, y, a, b = self._at
        dx, dy = np.abs(trace[:, 0] - x) / (a + margin), np.abs(trace[:, 1] - y) / (b + margin)
        depth: Floats = np.where(self._boxes, np.maximum(dx, dy), dx * dx + dy * dy).min(axis=1)
        return depth < 1

    def overlap(self, box: Outline) -> float:
        """Area that a box has in common with them, ellipses being taken for boxes."""
        x, y, a, b = self._at[..., 0]
        dx = np.minimum(box.x + box.width / 2, x + a) - np.maximum(box.x - box.width / 2, x - a)
        dy = np.minimum(box.y + box.height / 2, y + b) - np.maximum(box.y - box.height / 2, y - b)
        return float((np.maximum(dx, 0) * np.maximum(dy, 0)).sum())
