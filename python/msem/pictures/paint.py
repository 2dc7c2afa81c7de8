"""A scene drawn with matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msem.pictures.canvas import FAINT, INK, NEGATIVE, PALE, PAPER, POSITIVE
from msem.pictures.curves import Curve
from msem.pictures.graph import Arrow
from msem.pictures.scene import DrawnArrow, DrawnNode, Panel, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

NAME, LABEL, TITLE, NOTE = 9.0, 7.5, 9.5, 7.0  # points at a scale of 1
MARGIN = 0.06  # inches
DOT = 0.28  # share of an arrow at which the dot of a random slope is
THIN, THICK = 0.7, 2.2  # lines of arrows


def height_of(scene: Scene, note: str) -> float:
    """Height of a scene with its note, in inches."""
    lines = note.count("\n") + 1 if note else 0
    return scene.height + 2 * MARGIN + (0.16 * lines + MARGIN if lines else 0.0)


def paint(scene: Scene, note: str, ax: Axes) -> None:
    """Draw a scene into axes, as large as they are.

    Parameters
    ----------
    scene : Scene
    note : str
        Below the panels.
    ax : Axes
    """
    height = height_of(scene, note)
    bottom = scene.height + MARGIN - height
    ax.set_xlim(-MARGIN, scene.width + MARGIN)
    ax.set_ylim(bottom, scene.height + MARGIN)
    ax.set_aspect("equal")
    ax.axis("off")
    box = ax.get_window_extent()
    figure: Any = ax.figure
    scale = min(box.width / figure.dpi / (scene.width + 2 * MARGIN), box.height / figure.dpi / height)
    for panel in scene.panels:
        _panel(panel, ax, scale)
    for join in scene.joins:
        ax.plot(*join.points.T, color=FAINT, linewidth=0.8 * scale, linestyle=(0, (2, 2)), zorder=1)
    for arrow in scene.arrows:
        _arrow(arrow, ax, scale)
    for node in scene.nodes:
        _node(node, ax, scale)
    if note:
        ax.text(
            0, bottom + MARGIN, plain(note), fontsize=NOTE * scale, color=INK, va="bottom", linespacing=1.5
        )


def _panel(panel: Panel, ax: Axes, scale: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.1"
    ax.add_patch(
        FancyBboxPatch(
            (panel.x, panel.y),
            panel.width,
            panel.height,
            boxstyle=style,
            fc=PALE,
            ec="#c9d1d9",
            lw=0.7 * scale,
            zorder=0,
        )
    )
    y = panel.y + 0.09 if panel.facing else panel.y + panel.height - 0.09
    ax.text(
        panel.x + 0.12,
        y,
        panel.title,
        fontsize=TITLE * scale,
        va="bottom" if panel.facing else "top",
        color=INK,
        fontweight="bold",
        zorder=5,
    )


def _node(drawn: DrawnNode, ax: Axes, scale: float) -> None:
    from matplotlib.patches import Ellipse, Rectangle

    place = drawn.place
    look: dict[str, Any] = {"fc": PAPER, "ec": INK, "lw": 1.0 * scale, "zorder": 4}
    if place.form == "box":
        corner = (place.x - place.width / 2, place.y - place.height / 2)
        ax.add_patch(Rectangle(corner, place.width, place.height, **look))
    else:
        if drawn.node.shape == "part":
            look["linestyle"] = (0, (4, 1.5))
        ax.add_patch(Ellipse(place.centre, place.width, place.height, **look))
    ax.text(
        place.x,
        place.y,
        plain(drawn.node.name),
        fontsize=NAME * scale,
        ha="center",
        va="center_baseline",
        color=INK,
        zorder=5,
    )


def plain(text: str) -> str:
    """A text without a beginning of mathematics."""
    return text.replace("$", r"\$")


def colour_of(arrow: Arrow) -> str:
    """Blue above 0, orange below, grey where it is fixed or not significant; black without estimates."""
    if arrow.fixed or arrow.weak:
        return FAINT
    if not arrow.text or arrow.slope:
        return INK
    return NEGATIVE if arrow.negative else POSITIVE


def width_of(arrow: Arrow) -> float:
    """Points, by the standardized estimate."""
    if arrow.fixed or math.isnan(arrow.size) or arrow.kind in ("variance", "mean"):
        return 1.0
    return THIN + (THICK - THIN) * arrow.size


def _arrow(drawn: DrawnArrow, ax: Axes, scale: float) -> None:
    from matplotlib.patches import Circle, FancyArrowPatch, Polygon

    arrow = drawn.arrow
    two = drawn.form in ("arc", "loop")
    width = width_of(arrow) * scale
    head = (4.2 + 1.2 * width) * scale
    colour = colour_of(arrow)
    ax.add_patch(
        FancyArrowPatch(
            path=_path(drawn.curve),
            arrowstyle=f"{'<|-|>' if two else '-|>'},head_length={head},head_width={0.42 * head}",
            mutation_scale=1,
            shrinkA=0,
            shrinkB=0,
            lw=width,
            color=colour,
            linestyle=(0, (4, 2)) if arrow.fixed and arrow.kind not in ("variance", "mean") else "-",
            zorder=2,
        )
    )
    if drawn.form == "mean":
        x, y = drawn.curve.points[0]
        side = 0.11
        corners = [(x - side, y - 0.8 * side), (x + side, y - 0.8 * side), (x, y + side)]
        ax.add_patch(Polygon(corners, closed=True, fc=PAPER, ec=INK, lw=0.8 * scale, zorder=3))
        ax.text(x, y - 0.03, "1", fontsize=5.5 * scale, ha="center", va="center", color=INK, zorder=4)
    if arrow.slope:
        x, y = drawn.curve.at(np.array([DOT]))[0]
        ax.add_patch(Circle((x, y), 0.045, fc=INK, ec=INK, lw=0, zorder=3))
    if drawn.label is not None:
        _label(drawn, colour if not (arrow.fixed or arrow.weak) else "#555555", ax, scale)


def _label(drawn: DrawnArrow, colour: str, ax: Axes, scale: float) -> None:
    arrow = drawn.arrow
    assert drawn.label is not None
    mark = rf"$^{{\mathregular{{{_mathematical(arrow.mark)}}}}}$" if arrow.mark else ""
    between = "\n" if arrow.error.startswith("(") else ""
    background = None
    if drawn.form in ("arrow", "arc"):
        background = {"boxstyle": "square,pad=0.08", "fc": PALE, "ec": "none"}
    ax.text(
        *drawn.label,
        f"{arrow.text}{mark}{between}{arrow.error}" if between else f"{arrow.text}{arrow.error}{mark}",
        fontsize=LABEL * scale,
        ha=drawn.side,
        va="center",
        linespacing=1.05,
        color=colour,
        bbox=background,
        zorder=3,
    )


def _mathematical(text: str) -> str:
    return "".join(c if c.isalnum() else {"_": r"\_"}.get(c, " ") for c in text)


def _path(curve: Curve) -> Any:
    from matplotlib.path import Path

    codes = {2: [Path.LINETO], 3: [Path.CURVE3] * 2, 4: [Path.CURVE4] * 3}
    n = len(curve.points)
    if not curve.bent:
        return Path(curve.points, [Path.MOVETO, *[Path.LINETO] * (n - 1)])
    return Path(curve.points, [Path.MOVETO, *codes[n]])
