"""Curves: profile likelihoods, distributions of replicates, power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import normal_halfwidth
from msem.errors import DataError
from msem.pictures.canvas import COLOURS, DASHES, FAINT, INK, MARKERS, PAPER, axes, legend_above
from msem.resampling.profile import ProfileCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

MOST_LINES = len(COLOURS)
SETTINGS = {"nclusters": "Number of clusters", "cluster_sizes": "Size of clusters", "nobs": "Number of rows"}


def draw_profile(
    curve: ProfileCurve, coverage: float, se: float, ax: Axes | None, *, squares: bool = False
) -> Axes:
    """Draw the deviance as a function of one parameter, with its interval and the parabola of the Wald interval.

    Parameters
    ----------
    curve : ProfileCurve
    coverage : float
        Of the interval.
    se : float
        Standard error; nan for no parabola.
    ax : Axes, optional
    squares : bool
        Of least squares.
    """
    label, above = "profile likelihood", "−2 log L above its"
    if squares:
        label, above = "profile of the squares", "squares above their"
    cut = normal_halfwidth(coverage) ** 2
    with axes(ax, 4.6, 3.2) as drawn:
        drawn.plot(curve.at, curve.deviance, color=COLOURS[0], linewidth=1.7, label=label)
        if np.isfinite(se) and se > 0:
            reach = np.linspace(curve.est - np.sqrt(cut) * se, curve.est + np.sqrt(cut) * se, 101)
            parabola = ((reach - curve.est) / se) ** 2
            drawn.plot(reach, parabola, color=COLOURS[1], linewidth=1.3, linestyle=DASHES[1], label="Wald")
        drawn.axhline(cut, color=FAINT, linewidth=0.9, linestyle=DASHES[2])
        limits = [limit.value for limit in (curve.lower, curve.upper) if np.isfinite(limit.value)]
        drawn.vlines(limits, 0, cut, color=COLOURS[0], linewidth=0.8, linestyle=DASHES[2])
        drawn.plot([curve.est], [0], "o", color=COLOURS[0], markersize=4.5, clip_on=False, zorder=4)
        drawn.text(
            1.0, cut, f" {coverage:.0%}", transform=drawn.get_yaxis_transform(), va="center", fontsize=8
        )
        drawn.set_ylim(0, 1.25 * cut)
        drawn.set_xlabel(curve.name)
        drawn.set_ylabel(f"Deviance, {above} minimum")
        legend_above(drawn)
        return drawn


def draw_replicates(
    values: Floats, est: float, limits: tuple[float, float], se: float, label: str, ax: Axes | None
) -> Axes:
    """Draw the distribution of a statistic over replicates.

    Parameters
    ----------
    values : ndarray, shape (R,)
    est : float
        In the sample.
    limits : tuple of float
        Interval.
    se : float
        Standard error of the normal curve around the estimate.
    label : str
    ax : Axes, optional
    """
    known = values[np.isfinite(values)]
    if len(known) < 2:
        raise DataError(f"there are no replicates of {label} to draw")
    with axes(ax, 4.6, 3.2) as drawn:
        bins = int(np.clip(2 * len(known) ** (1 / 3), 8, 60))
        drawn.hist(known, bins=bins, density=True, color="#cfdae3", edgecolor=PAPER, linewidth=0.5)
        if se > 0:
            grid = np.linspace(known.min(), known.max(), 201)
            normal = np.exp(-0.5 * ((grid - est) / se) ** 2) / (se * np.sqrt(2 * np.pi))
            drawn.plot(
                grid, normal, color=COLOURS[1], linewidth=1.3, linestyle=DASHES[1], label="normal, same SE"
            )
        drawn.axvline(est, color=COLOURS[0], linewidth=1.6, label="estimate")
        for k, limit in enumerate(limits):
            drawn.axvline(
                limit, color=COLOURS[0], linewidth=1.1, linestyle=DASHES[2], label="" if k else "interval"
            )
        drawn.set_yticks([])
        drawn.spines["left"].set_visible(False)
        drawn.set_xlabel(f"{label} in {len(known)} replicates")
        legend_above(drawn)
        return drawn


def draw_power(table: pd.DataFrame, names: Sequence[str], along: str, about: str, ax: Axes | None) -> Axes:
    """Draw power against one setting of the design, with simulation errors.

    Parameters
    ----------
    table : DataFrame
        Columns `along`, line, power, power_error.
    names : sequence of str
        Of the lines.
    along : str
    about : str
        What follows "Power" on the axis: of what, and the level of the tests.
    ax : Axes, optional
    """
    if len(names) > MOST_LINES:
        raise DataError(
            f"{len(names)} lines in one picture cannot be told apart ({MOST_LINES} are the most): choose some with "
            "parameters="
        )
    with axes(ax, 5.2, 3.4) as drawn:
        drawn.axhline(0.8, color=FAINT, linewidth=0.9, linestyle=DASHES[2])
        for k, name in enumerate(names):
            own = table[table["line"] == name].sort_values(along)
            drawn.errorbar(
                own[along].to_numpy(),
                own["power"].to_numpy(dtype=float),
                yerr=1.96 * own["power_error"].to_numpy(dtype=float),
                color=COLOURS[k],
                linestyle=DASHES[k],
                marker=MARKERS[k],
                markersize=4.6,
                markerfacecolor=PAPER if k % 2 else COLOURS[k],
                linewidth=1.4,
                elinewidth=0.9,
                label=name,
            )
        drawn.set_ylim(0, 1.02)
        drawn.set_xticks(sorted(table[along].unique()))
        drawn.set_xlabel(SETTINGS.get(along, along))
        drawn.set_ylabel(f"Power {about}", color=INK)
        legend_above(drawn, 3)
        return drawn
