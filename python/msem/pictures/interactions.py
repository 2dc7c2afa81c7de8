"""Simple slopes and regions of significance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msem.errors import DataError
from msem.pictures.canvas import COLOURS, DASHES, FAINT, INK, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
MOST_LINES = len(COLOURS)
BAND = 0.13  # of the colour of a line: bands that lie over each other are still told apart


@dataclass(frozen=True, eq=False)
class Line:
    """A line with its confidence band, all of one shape.

    Attributes
    ----------
    label : str
    x, est, lower, upper : ndarray
    """

    label: str
    x: Floats
    est: Floats
    lower: Floats
    upper: Floats


def signed(value: float) -> str:
    """A number of a label, with a minus sign of the length of a plus."""
    text = f"{value:.2f}"
    return text.replace("-", "−") if float(text) != 0 else text.lstrip("-")


def draw_slopes(drawn: Axes, lines: Sequence[Line], outcome: str, predictor: str, title: str) -> Axes:
    """Draw an outcome against a predictor, a line with its band for each setting of the moderators."""
    if len(lines) > MOST_LINES:
        raise DataError(
            f"{len(lines)} lines in one picture cannot be told apart ({MOST_LINES} are the most): give fewer "
            "values in at="
        )
    for k, line in enumerate(lines):
        drawn.fill_between(line.x, line.lower, line.upper, color=COLOURS[k], alpha=BAND, linewidth=0)
        drawn.plot(line.x, line.est, color=COLOURS[k], linestyle=DASHES[k], linewidth=1.7, label=line.label)
    drawn.margins(x=0)
    drawn.set_xlabel(predictor)
    drawn.set_ylabel(outcome)
    if title:
        drawn.set_title(title, pad=8 + 14 * (1 + (len(lines) - 1) // 3))
    legend_above(drawn, 3)
    return drawn


def share_scale(axes: Sequence[Axes]) -> None:
    """Give panels one scale of what they show."""
    low, high = zip(*(one.get_ylim() for one in axes), strict=True)
    for one in axes:
        one.set_ylim(min(low), max(high))


def draw_region(
    drawn: Axes,
    line: Line,
    bounds: tuple[float, float],
    significant: str,
    marks: Sequence[float],
    axis: tuple[str, str],
    title: str,
) -> Axes:
    """Draw a slope with its band against a moderator, solid where it differs from 0.

    Parameters
    ----------
    drawn : Axes
    line : Line
    bounds : (float, float)
        Ends of the region of significance.
    significant : {"between", "outside", "everywhere", "nowhere", "unknown"}
    marks : sequence of float
        Values of the moderator to be shown on its axis: mean, one standard deviation below and above it.
    axis : (str, str)
        Names of moderator and slope.
    title : str
    """
    x, (low, high) = line.x, bounds
    inside = {
        "between": (x >= low) & (x <= high),
        "outside": (x <= low) | (x >= high),
        "everywhere": np.ones(len(x), dtype=bool),
    }.get(significant, np.zeros(len(x), dtype=bool))
    for where, colour, text in (
        (inside, COLOURS[0], "differs from 0"),
        (~inside, FAINT, "does not"),
    ):
        if where.any():
            drawn.fill_between(
                x,
                line.lower,
                line.upper,
                where=where.tolist(),
                color=colour,
                alpha=0.22,
                linewidth=0,
                label=text,
            )
    drawn.axhline(0, color=INK, linewidth=0.8)
    drawn.plot(x, line.est, color=COLOURS[0], linewidth=1.7)
    for bound in bounds:
        if x[0] < bound < x[-1]:
            drawn.axvline(bound, color=COLOURS[1], linewidth=1.1, linestyle=DASHES[1])
            drawn.annotate(
                signed(bound),
                (bound, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                va="top",
                fontsize=8,
                color=COLOURS[1],
            )
    drawn.vlines(list(marks), 0, 0.025, transform=drawn.get_xaxis_transform(), color=INK, linewidth=1.1)
    drawn.set_xlim(float(x[0]), float(x[-1]))
    drawn.set_xlabel(axis[0])
    drawn.set_ylabel(axis[1])
    if title:
        drawn.set_title(title, pad=22)
    legend_above(drawn, 3)
    return drawn
