"""Estimates with intervals, one below the other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError
from msem.model.levels import BETWEEN, level_title
from msem.output.variants import reported
from msem.pictures.canvas import COLOURS, DASHES, FAINT, INK, MARKERS, PAPER, axes, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

MOST_ROWS = 80
MOST_SERIES = len(COLOURS)
CUTOFFS = {"1 − CFI": 0.05, "1 − TLI": 0.05, "RMSEA": 0.06, "SRMR": 0.08}  # Hu & Bentler (1999)


@dataclass(frozen=True, eq=False)
class Series:
    """Estimates under one name, by row.

    Attributes
    ----------
    name : str
    est, lower, upper : ndarray, shape (rows,)
        nan where there is none.
    """

    name: str
    est: Floats
    lower: Floats
    upper: Floats


def draw_forest(
    ax: Axes, labels: Sequence[str], series: Sequence[Series], heads: Mapping[int, str], zero: float | None
) -> None:
    """Rows of estimates with intervals.

    Parameters
    ----------
    ax : Axes
    labels : sequence of str
        Of the rows, from the top.
    series : sequence of Series
        Beside each other in each row, told apart by colour, marker and line.
    heads : mapping of int to str
        Headings above some of the rows.
    zero : float or None
        Where a line stands.
    """
    places = np.arange(len(labels), dtype=float)
    for row in heads:
        places[row:] += 1.0
    if zero is not None:
        ax.axvline(zero, color=FAINT, linewidth=0.8, zorder=0)
    width = 0.72 / max(len(series), 1)
    for k, one in enumerate(series):
        y = places + width * (k - (len(series) - 1) / 2)
        colour = COLOURS[k]
        ax.hlines(y, one.lower, one.upper, color=colour, linewidth=1.3, linestyle=DASHES[0], zorder=2)
        ax.plot(
            one.est,
            y,
            MARKERS[k],
            color=colour,
            markersize=4.6,
            markerfacecolor=PAPER if k % 2 else colour,
            markeredgewidth=1.1,
            label=one.name,
            zorder=3,
        )
    at = {float(places[row]) - 1.0: text for row, text in heads.items()}
    ticks = dict(sorted((dict(zip(places.tolist(), labels, strict=True)) | at).items()))
    ax.set_yticks(list(ticks), list(ticks.values()))
    for place, label in zip(ticks, ax.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if place in at else "normal")
    ax.set_ylim(places[-1] + 0.7, min(ticks) - 0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    if len(series) > 1:
        legend_above(ax)


def draw_coefficients(
    table: pd.DataFrame, names: Sequence[str], ax: Axes | None, what: str, groups: Sequence[str] = ()
) -> Axes:
    """Draw coefficients of several fits.

    Parameters
    ----------
    table : DataFrame
        As `msem.compare` gives it, with the columns est, se, ci_lower and ci_upper.
    names : sequence of str
        Of the fits.
    ax : Axes, optional
    what : str
        Label of the scale.
    groups : sequence of str
        Labels of the groups, if all fits have the same ones.
    """
    if len(names) > MOST_SERIES:
        raise DataError(
            f"{len(names)} fits beside each other cannot be told apart; {MOST_SERIES} are the most"
        )
    errors = np.column_stack([table[name, "se"].to_numpy(dtype=float) for name in names])
    table = table[(np.nan_to_num(errors) > 0).any(axis=1)]
    if not len(table):
        raise DataError("nothing is estimated among these rows: choose others with ops= and level=")
    if len(table) > MOST_ROWS:
        raise DataError(
            f"{len(table)} coefficients cannot be read in one picture ({MOST_ROWS} are the most): choose some with "
            "ops= and level="
        )
    keys = list(table.index.to_frame(index=False).itertuples(index=False, name=None))
    order = sorted(range(len(keys)), key=lambda k: (-keys[k][0], k))  # the between level above
    labels = [" ".join(part for part in map(str, keys[k][-3:]) if part) for k in order]
    heads: dict[int, str] = {}
    before: Hashable = None
    for row, k in enumerate(order):
        block = keys[k][:-3]
        if block != before and len({key[:-3] for key in keys}) > 1:
            heads[row] = _heading(block, groups, several=len({key[0] for key in keys}) > 1)
        before = block
    series = [
        Series(
            name,
            *(table[name, column].to_numpy(dtype=float)[order] for column in ("est", "ci_lower", "ci_upper")),
        )
        for name in names
    ]
    height = 0.9 + (len(labels) + len(heads)) * max(0.24, 0.05 + 0.115 * len(names))
    with axes(ax, 5.4, height) as drawn:
        draw_forest(drawn, labels, series, heads, 0.0)
        drawn.set_xlabel(what)
        return drawn


def _heading(block: tuple[Any, ...], groups: Sequence[str], *, several: bool) -> str:
    level = "Defined" if not block[0] else level_title(block[0], max(block[0], BETWEEN))
    if len(block) == 1 or not block[1]:
        return level
    group = groups[block[1] - 1] if groups else f"group {block[1]}"
    return f"{level}, {group}" if several else group


def draw_icc(table: pd.DataFrame, labels: Sequence[str], ax: Axes | None) -> Axes:
    """Draw intraclass correlations, as `Fit.icc_table` gives them: of each group, and each level above the first."""
    names = list(dict.fromkeys(table["lhs"]))
    series = []
    of = ["group", "level"] if "level" in table else ["group"]
    several = len(table[of].drop_duplicates()) > table["group"].nunique()
    for block, own in table.groupby(of, sort=True):
        rows = own.set_index("lhs").reindex(names)
        number, *level = (int(str(one)) for one in block)
        said = [labels[number - 1]] if labels else []
        said += [level_title(level[0], int(table["level"].max()))] if several else []
        title = ", ".join(said)
        series.append(
            Series(title, *(rows[c].to_numpy(dtype=float) for c in ("icc", "ci_lower", "ci_upper")))
        )
    if len(series) > MOST_SERIES:
        raise DataError(
            f"{len(series)} groups or levels beside each other cannot be told apart; {MOST_SERIES} are the most"
        )
    with axes(ax, 4.8, 0.9 + len(names) * max(0.3, 0.13 * len(series))) as drawn:
        draw_forest(drawn, names, series, {}, None)
        drawn.set_xlim(0, max(0.05, min(1.0, 1.08 * float(np.nanmax(table["ci_upper"])))))
        drawn.set_xlabel("Intraclass correlation with 95% interval")
        return drawn


def draw_caterpillar(scores: pd.DataFrame, name: str, z: float, label: str, ax: Axes | None) -> Axes:
    """Draw scores in order of size, with intervals.

    Parameters
    ----------
    scores : DataFrame
        Columns `name` and ``<name>_se``.
    name : str
    z : float
        Half the width of an interval, in standard deviations.
    label : str
        Of the scale.
    ax : Axes, optional
    """
    shown = scores[[name, f"{name}_se"]].dropna().sort_values(name)
    if not len(shown):
        raise DataError(f"there are no scores of {name!r}")
    est, half = shown[name].to_numpy(dtype=float), z * shown[f"{name}_se"].to_numpy(dtype=float)
    rank = np.arange(1, len(est) + 1)
    apart = np.abs(est) > half
    with axes(ax, 6.0, 3.2) as drawn:
        drawn.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        thin = float(np.clip(160 / len(est), 0.35, 1.4))
        drawn.vlines(rank, est - half, est + half, color="#b9c4cd", linewidth=thin, zorder=1)
        size = float(np.clip(450 / len(est), 1.2, 4.5))
        for chosen, fill, text in (
            (apart, COLOURS[0], "interval without 0"),
            (~apart, PAPER, "interval with 0"),
        ):
            if chosen.any():
                drawn.plot(
                    rank[chosen],
                    est[chosen],
                    "o",
                    markersize=size,
                    color=COLOURS[0],
                    markerfacecolor=fill,
                    markeredgewidth=0.6,
                    label=text,
                    zorder=2,
                )
        drawn.set_xlim(0, len(est) + 1)
        drawn.set_xlabel(f"Clusters in order of their scores ({len(est)})")
        drawn.set_ylabel(label)
        legend_above(drawn)
        return drawn


def _shown(measures: pd.Series, name: str) -> float:
    """A measure in the variant that is reported; nan if there is none."""
    return float(measures.get(reported(name, measures.index), np.nan))


def draw_level_fit(measures: Mapping[str, pd.Series], ax: Axes | None) -> Axes:
    """Draw fit measures on one scale, on which 0 is perfect.

    Parameters
    ----------
    measures : mapping of str to Series
        cfi, tli, rmsea with its interval and srmr, by what they are of.
    ax : Axes, optional
    """
    labels = list(CUTOFFS)
    series = []
    for name, own in measures.items():
        value = {key: _shown(own, key) for key in ("cfi", "tli", "rmsea", "srmr")}
        est = np.array([1 - value["cfi"], 1 - value["tli"], value["rmsea"], value["srmr"]])
        lower, upper = est.copy(), est.copy()
        lower[2], upper[2] = (_shown(own, f"rmsea_ci_{end}") for end in ("lower", "upper"))
        series.append(Series(name, est, lower, upper))
    with axes(ax, 5.4, 0.9 + len(labels) * max(0.34, 0.15 * len(series))) as drawn:
        draw_forest(drawn, labels, series, {}, 0.0)
        for place, cut in zip(drawn.get_yticks(), CUTOFFS.values(), strict=True):
            drawn.vlines(
                cut, place - 0.42, place + 0.42, color=INK, linewidth=1.0, linestyle=DASHES[2], zorder=1
            )
        drawn.set_xlabel("Misfit: 0 is perfect; RMSEA with 90% interval; dotted: .95, .95, .06, .08")
        return drawn
