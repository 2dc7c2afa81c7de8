"""Matplotlib: axes, colours, and a clear word where it is absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from msem.errors import DataError, ExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# told apart in grey, and by people who see red and green alike (after Okabe & Ito, 2008)
COLOURS = ("#0b3c5d", "#d55e00", "#009e73", "#8a6fb0", "#7a7a7a", "#c79a00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)), (0, (3, 3)))
POSITIVE, NEGATIVE = COLOURS[:2]
INK, FAINT, PALE, PAPER = "#222222", "#8c8c8c", "#f4f6f8", "#ffffff"
RULES: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "svg.hashsalt": "msem",
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.06,
}


def require_matplotlib() -> None:
    """Ask for the extra if matplotlib is not there.

    Raises
    ------
    ExtraError
        With the command that installs it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ExtraError("pictures are drawn with matplotlib: pip install 'msem[plot]'") from None


HANDLE, LETTER = 0.45, 0.052  # inches of an entry of a legend


@contextmanager
def axes(ax: Axes | None, width: float, height: float, *, bare: bool = False) -> Iterator[Axes]:
    """The axes to draw into: those given, or new ones of a figure of this size in inches.

    Parameters
    ----------
    ax : Axes, optional
    width, height : float
    bare : bool
        The whole of the figure, without room for scales.

    Raises
    ------
    ExtraError
        Without matplotlib.
    DataError
        If `ax` is something else than axes.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.axes import Axes as Kind
    from matplotlib.pyplot import figure, subplots

    if ax is not None and not isinstance(ax, Kind):
        raise DataError(f"ax must be axes of matplotlib, such as plt.subplots()[1], not {type(ax).__name__}")
    with rc_context(RULES):
        if ax is not None:
            yield ax
        elif bare:
            yield figure(figsize=(width, height)).add_axes((0, 0, 1, 1))
        else:
            yield subplots(figsize=(width, height), layout="constrained")[1]


@contextmanager
def panels(ax: Any, count: int, width: float, height: float) -> Iterator[list[Axes]]:
    """Several axes beside each other: those given, one after the other, or new ones.

    Raises
    ------
    DataError
        If their number is another.
    """
    if ax is not None:
        given = list(np.atleast_1d(np.asarray(ax, dtype=object)).ravel())
        if len(given) != count:
            raise DataError(
                f"this picture has {count} panels: give ax= as many axes, not {len(given)}, or level="
            )
        with ExitStack() as stack:
            yield [stack.enter_context(axes(one, width, height)) for one in given]
        return
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.pyplot import subplots

    with rc_context(RULES):
        _, made = subplots(1, count, figsize=(width * count, height), layout="constrained", squeeze=False)
        yield list(made[0])


def legend_above(ax: Axes, columns: int = 4) -> None:
    """A legend above the axes, so that it covers no data; of as many columns as there is room for, at most."""
    texts = ax.get_legend_handles_labels()[1]
    widths = sorted((HANDLE + LETTER * len(text) for text in texts), reverse=True)
    # where the axes are one of several panels, or beside long names, a part of the figure is theirs
    room = float(ax.get_figure(root=True).get_size_inches()[0]) * ax.get_position().width * 1.1  # type: ignore[union-attr]
    fitting = max((k for k in range(1, len(widths) + 1) if sum(widths[:k]) <= room), default=1)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=min(columns, fitting),
        borderaxespad=0.3,
        handlelength=2.2,
    )
