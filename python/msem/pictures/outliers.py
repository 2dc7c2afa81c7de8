"""Clusters and units by how far out they are, or what they weigh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import beta_quantile, normal_quantile
from msem.errors import DataError
from msem.pictures.canvas import COLOURS, FAINT, INK, PAPER, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


def draw_index(values: pd.Series, label: str, what: str, named: int, ax: Axes | None) -> Axes:
    """Draw one value for each cluster or unit in the order of the data, the largest with their names.

    Parameters
    ----------
    values : Series
    label : str
        Of the scale.
    what : str
        What there is a value for.
    named : int
        How many get their name.
    ax : Axes, optional
    """
    known = values.dropna()
    if not len(known):
        raise DataError(f"there is no {label.lower()} to draw: all are missing")
    numbers = known.to_numpy(dtype=float)
    place = np.arange(1, len(numbers) + 1)
    largest = np.argsort(-np.abs(numbers), kind="stable")[:named]
    with axes(ax, 6.0, 3.0) as drawn:
        drawn.vlines(
            place, 0, numbers, color="#9fb2c1", linewidth=float(np.clip(200 / len(numbers), 0.4, 1.6))
        )
        drawn.axhline(0, color=INK, linewidth=0.7)
        drawn.plot(
            place[largest],
            numbers[largest],
            "o",
            markersize=4,
            color=COLOURS[1],
            markeredgecolor=INK,
            markeredgewidth=0.5,
        )
        for k in largest:
            up = numbers[k] >= 0
            drawn.annotate(
                str(known.index[k]),
                (float(place[k]), float(numbers[k])),
                xytext=(0, 4 if up else -4),
                textcoords="offset points",
                ha="center",
                va="bottom" if up else "top",
                fontsize=8,
            )
        drawn.set_xlim(0, len(numbers) + 1)
        drawn.margins(y=0.12)
        marked = f"; the {len(largest)} largest are named" if len(largest) > 1 else "; the largest is named"
        drawn.set_xlabel(f"{what} in the order of the data{marked if len(largest) else ''}")
        drawn.set_ylabel(label)
        return drawn


def draw_quantiles(pvalues: pd.Series, what: str, named: int, ax: Axes | None) -> Axes:
    """Draw quantiles of distances against those that the model implies.

    Distances have different degrees of freedom, so they are compared as normal scores of their p-values. The band holds
    95% of the values at each place (order statistics of uniform variables have beta distributions).

    Parameters
    ----------
    pvalues : Series
    what : str
        What there is a distance of.
    named : int
        How many of the farthest get their name.
    ax : Axes, optional
    """
    known = pvalues.dropna().sort_values(ascending=False)
    if not len(known):
        raise DataError("there are no distances to draw: all are missing")
    n = len(known)
    rank = np.arange(1, n + 1)
    expected = normal_quantile((rank - 0.5) / n)
    scores = -normal_quantile(np.clip(known.to_numpy(dtype=float), 1e-300, 1 - 1e-16))
    lower, upper = (normal_quantile(beta_quantile(share, rank, n + 1 - rank)) for share in (0.025, 0.975))
    with axes(ax, 3.8, 3.6) as drawn:
        drawn.fill_between(expected, lower, upper, color="#dde5eb", linewidth=0, zorder=0)
        drawn.plot(expected, expected, color=FAINT, linewidth=0.9, zorder=1)
        drawn.plot(
            expected,
            scores,
            "o",
            markersize=3,
            color=COLOURS[0],
            markerfacecolor=PAPER,
            markeredgewidth=0.7,
            zorder=2,
        )
        for k in range(n - min(named, n), n):
            if scores[k] > upper[k]:
                drawn.annotate(
                    str(known.index[k]),
                    (float(expected[k]), float(scores[k])),
                    xytext=(-5, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=8,
                )
        drawn.set_xlabel("Expected under the model (normal scores)")
        drawn.set_ylabel(f"Distances of {what.lower()} (normal scores)")
        return drawn
