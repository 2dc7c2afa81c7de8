"""`missing_patterns`: which variables are observed together, before any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import numeric_columns
from msem.data.frames import Holes, clustered_data
from msem.data.levels import chosen_levels
from msem.data.rows import cluster_codes, columns_of
from msem.data.screening import require_constant_within
from msem.entry import entry
from msem.errors import DataError
from msem.printing import frame_html, frame_text
from msem.settings import several

Bools = NDArray[np.bool_]

SHOWN = 20  # patterns in print, at most
COUNTS = ("count", "share")  # columns after those of the variables


@dataclass(frozen=True, eq=False)
class MissingPatterns:
    """Which variables of a sample are observed together.

    Rows without a cluster id have no part in any of this. The tables are made anew whenever they are asked for, so
    changing one changes nothing else.

    Attributes
    ----------
    unit, between_only : tuple of str
        Variables measured on units, those at both levels first, and on clusters only.
    nboth : int
        Number of `unit` variables that are at both levels.
    nrows, nclusters : int
        Units and clusters, those included in which nothing is observed. Without clusters, 0 of them.
    cluster : str or None
        Column with the cluster ids.
    no_cluster : int
        Rows without a cluster id.
    empty_rows : pandas.Index
        Labels of the rows in which nothing is observed.
    empty_clusters : pandas.Index
        Ids of the clusters in which nothing is observed.
    """

    unit: tuple[str, ...]
    between_only: tuple[str, ...]
    nboth: int
    nrows: int
    nclusters: int
    cluster: str | None
    no_cluster: int
    empty_rows: pd.Index[Any]
    empty_clusters: pd.Index[Any]
    _data: _core.IncompleteData = field(repr=False)

    @property
    def patterns(self) -> pd.DataFrame:
        """Patterns of the variables measured on units: a row for each, those with most variables first.

        A column for each variable, True where it is observed; then `count`, the units with the pattern, and `share`,
        of all units. Units in which no such variable is observed are the last pattern.
        """
        d = self._data
        return _pattern_frame(d.unit_patterns, d.pattern_rows, self.nrows, self.unit)

    @property
    def cluster_patterns(self) -> pd.DataFrame:
        """The same for the variables measured on clusters only; `count` and `share` are of clusters."""
        d = self._data
        counts = np.bincount(d.cluster_pattern, minlength=len(d.cluster_patterns))
        observed = d.cluster_patterns.any(axis=1)
        return _pattern_frame(
            d.cluster_patterns[observed], counts[observed], self.nclusters, self.between_only
        )

    @property
    def coverage(self) -> dict[int, pd.DataFrame]:
        """Share of units (level 1) and of clusters (level 2) in which both of two variables are observed.

        At level 2 a variable that is measured on units counts as observed in a cluster if some unit has it.
        """
        units, clusters = self._data.coverage()
        p = len(self.unit)
        out = {1: pd.DataFrame(units / max(self.nrows, 1), index=list(self.unit), columns=list(self.unit))}
        if self.cluster is not None:
            level2 = [*range(self.nboth), *range(p, p + len(self.between_only))]
            names = [(*self.unit, *self.between_only)[k] for k in level2]
            shares = clusters[np.ix_(level2, level2)] / self.nclusters
            out[2] = pd.DataFrame(shares, index=names, columns=names)
        return out

    @property
    def variables(self) -> pd.DataFrame:
        """A row for each variable and level: variable, level, n observed (units, or clusters), share missing."""
        totals = {1: self.nrows, 2: self.nclusters}
        rows = [
            (name, level, round(share * totals[level]), 1 - share)
            for level, shares in self.coverage.items()
            for name, share in zip(shares.index, np.diag(shares), strict=True)
        ]
        return pd.DataFrame(rows, columns=["variable", "level", "n", "missing"])

    def __str__(self) -> str:
        parts = [f"{title}:\n\n{frame_text(frame)}" for title, frame in self._tables()]
        return "\n\n".join(["\n".join(self._lines()), *parts])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        parts = [f"<div><b>{escape(title)}</b></div>\n{frame_html(frame)}" for title, frame in self._tables()]
        lines = [f"<div>{escape(line)}</div>" for line in self._lines()]
        return "\n".join(['<div class="msem">', *lines, *parts, "</div>"])

    def _lines(self) -> list[str]:
        """What there is, and what is empty, in words."""
        clusters = "" if self.cluster is None else f" in {self.nclusters} clusters [{self.cluster}]"
        lines = [f"Missing data patterns of {self.nrows} rows{clusters}"]
        if len(self.empty_rows):
            lines.append(f"Rows in which nothing is observed: {len(self.empty_rows)}")
        if len(self.empty_clusters):
            lines.append(f"Clusters in which nothing is observed: {len(self.empty_clusters)}")
        if self.no_cluster:
            lines.append(f"Rows without a cluster id, left aside: {self.no_cluster}")
        return lines

    def _tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Titles and tables in print."""
        yield "Observed values", self.variables
        for title, frame in (("Units", self.patterns), ("Clusters", self.cluster_patterns)):
            if len(frame):
                more = f", the first {SHOWN} of {len(frame)}" if len(frame) > SHOWN else ""
                yield f"{title} by what is observed (x) in them{more}", _marked(frame.head(SHOWN))
        names = {1: "units", 2: "clusters"}
        for level, shares in self.coverage.items():
            if len(shares):
                yield f"Share of {names[level]} that have both variables", shares


def _pattern_frame(patterns: Bools, counts: Any, total: int, names: Sequence[str]) -> pd.DataFrame:
    """A table of patterns, with what is missing of `total` as the pattern without any variable."""
    if not names:
        return pd.DataFrame(columns=[*COUNTS])
    counts = np.rint(counts).astype(np.int64)
    rest = total - int(counts.sum())
    if rest:
        patterns = np.vstack([patterns, np.zeros((1, len(names)), dtype=bool)])
        counts = np.append(counts, rest)
    frame = pd.DataFrame(patterns, columns=list(names))
    return frame.assign(count=counts, share=counts / total)


def _marked(frame: pd.DataFrame) -> pd.DataFrame:
    """The patterns as marks, which are easier to see than words."""
    marks = {name: np.where(frame[name], "x", ".") for name in frame.columns if name not in COUNTS}
    return frame.assign(**marks)


@entry
def missing_patterns(
    data: Any,
    *,
    cluster: str | None = None,
    within: Sequence[str] | None = None,
    between: Sequence[str] | None = None,
) -> MissingPatterns:
    """Tell which variables are observed together, in how many units and clusters.

    Parameters
    ----------
    data : data frame
        One row per unit.
    cluster : str, optional
        Column with the cluster ids; without it there is one level.
    within, between : sequence of str, optional
        Variables of each level, as in `saturated`; one in both lists is at both levels. Default: all numeric columns,
        those whose observed values are constant within clusters at the between level only.

    Returns
    -------
    MissingPatterns

    Raises
    ------
    DataError
        If the data cannot be read, or nothing is observed in them.
    """
    unit, only_between, nboth = _roles(data, cluster, within, between)
    clustered = clustered_data(data, [*unit, *only_between], cluster, Holes())
    if cluster is None:
        codes, J = np.zeros(clustered.nobs, dtype=np.int64), 1
    else:
        codes, J = cluster_codes(clustered), len(clustered.clusters)
    columns = columns_of(clustered, only_between)
    require_constant_within(only_between, _core.cluster_values(columns, codes, J)[1], clustered.clusters)
    empty = clustered.left_out.get("no observed value", np.empty(0, dtype=np.int64))
    return MissingPatterns(
        unit=tuple(unit),
        between_only=tuple(only_between),
        nboth=nboth,
        nrows=clustered.nobs + clustered.dropped_empty,
        nclusters=0 if cluster is None else J + len(clustered.lost_clusters),
        cluster=cluster,
        no_cluster=clustered.dropped_no_cluster,
        empty_rows=clustered.index[empty],
        empty_clusters=clustered.lost_clusters,
        _data=_core.incomplete_data(columns_of(clustered, unit), columns, codes, J, nboth),
    )


def _roles(
    data: Any, cluster: str | None, within: Sequence[str] | None, between: Sequence[str] | None
) -> tuple[list[str], list[str], int]:
    """Variables measured on units, those at both levels first, and on clusters only; how many are at both."""
    if cluster is None:
        if between is not None:
            raise DataError('between= names variables of clusters: name their column too, cluster="..."')
        names = several(numeric_columns(data) if within is None else within)
        unit, only_between, nboth = list(names), [], 0
    else:
        within, between = chosen_levels(data, [cluster], (within, between), Holes())
        both = [name for name in within if name in set(between)]
        unit = [*both, *(name for name in within if name not in both)]
        only_between, nboth = [name for name in between if name not in both], len(both)
    taken = [name for name in (*unit, *only_between) if name in COUNTS]
    if taken:
        raise DataError(f"variable {taken[0]!r} has the name of a column of the result: rename it")
    if not (unit or only_between):
        raise DataError("there are no numeric columns: name the variables, within=[...]")
    return unit, only_between, nboth
