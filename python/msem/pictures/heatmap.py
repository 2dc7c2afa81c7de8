"""Matrices as tiles: residuals of every level, and patterns of missing values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError
from msem.pictures.canvas import COLOURS, INK, PAPER, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

WITH_NUMBERS = 16  # variables for which cells have room for numbers
MOST_PATTERNS = 25


def draw_residuals(ax: Axes, rows: pd.DataFrame, limit: float, digits: int, title: str) -> None:
    """Draw the covariances among residuals of one level as a lower triangle.

    Parameters
    ----------
    ax : Axes
    rows : DataFrame
        As `Fit.residuals` gives them, of one level and group.
    limit : float
        Where colours are darkest.
    digits : int
        Decimals of the numbers.
    title : str
    """
    from matplotlib.colors import LinearSegmentedColormap

    names = list(dict.fromkeys([*rows.loc[rows["op"] == "~~", "lhs"], *rows.loc[rows["op"] == "~~", "rhs"]]))
    at = {name: k for k, name in enumerate(names)}
    values, strong = np.full((len(names),) * 2, np.nan), np.zeros((len(names),) * 2, dtype=bool)
    for lhs, op, rhs, value, z in rows[["lhs", "op", "rhs", "residual", "z"]].itertuples(index=False):
        if op == "~~":
            i, j = max(at[lhs], at[rhs]), min(at[lhs], at[rhs])
            values[i, j], strong[i, j] = value, abs(z) > 1.96
    colours = LinearSegmentedColormap.from_list(
        "msem", ["#d55e00", "#f6d2b8", "#ffffff", "#b9cfe0", "#0b3c5d"]
    )
    ax.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=-limit, vmax=limit)
    if len(names) <= WITH_NUMBERS:
        for i, j in np.argwhere(np.isfinite(values)):
            text = f"{values[i, j]:.{digits}f}".replace("-", "−")
            if float(values[i, j].round(digits)) == 0:
                text = text.replace("−", "")
            dark = abs(values[i, j]) > 0.8 * limit
            weight = "bold" if strong[i, j] else "normal"
            ax.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=7,
                fontweight=weight,
                color=PAPER if dark else INK,
            )
    ax.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title)


def draw_patterns(patterns: pd.DataFrame, what: str, ax: Axes | None) -> Axes:
    """Draw patterns of missing values: a row for each, filled where a variable is observed.

    Parameters
    ----------
    patterns : DataFrame
        A column for each variable, then count and share.
    what : str
        What is counted.
    ax : Axes, optional
    """
    if not len(patterns):
        raise DataError(f"there are no variables of {what}, so there are no patterns")
    ordered = patterns.sort_values("count", ascending=False, kind="stable")
    shown, rest = ordered.head(MOST_PATTERNS), ordered.iloc[MOST_PATTERNS:]
    names = [str(name) for name in patterns.columns if name not in ("count", "share")]
    observed = shown[names].to_numpy(dtype=bool)
    with axes(ax, 1.6 + 0.34 * len(names) + 1.2, 0.9 + 0.24 * len(shown)) as drawn:
        rows, columns = np.indices(observed.shape)
        size = 62.0
        for chosen, fill in ((observed, COLOURS[0]), (~observed, PAPER)):
            drawn.scatter(
                columns[chosen],
                rows[chosen],
                s=size,
                marker="s",
                facecolor=fill,
                edgecolor=COLOURS[0],
                linewidth=0.7,
            )
        for k, (count, share) in enumerate(zip(shown["count"], shown["share"], strict=True)):
            drawn.text(
                len(names) - 0.3,
                k,
                f"{count}  ({share:.1%})" if share >= 0.0005 else f"{count}  (<0.1%)",
                va="center",
                fontsize=8,
                color=INK,
            )
        drawn.set_xlim(-0.6, len(names) + 1.6)
        drawn.set_ylim(len(shown) - 0.4, -0.6)
        drawn.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        drawn.set_yticks([])
        drawn.xaxis.tick_top()
        drawn.tick_params(length=0)
        drawn.spines[:].set_visible(False)
        more = f"; {len(rest)} rarer patterns of {rest['count'].sum()} are left out" if len(rest) else ""
        drawn.set_xlabel(f"Filled: observed, empty: missing; number of {what}{more}")
        return drawn
