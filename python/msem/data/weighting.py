"""What a summary of rows knows of their weights and their design."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import Bools, float_column, listed
from msem.data.identifiers import ClusterIds
from msem.data.sums import ClusterMarks, ClusterSums, same_numbers
from msem.data.survey import (
    Psus,
    Sampled,
    Scale,
    SurveyColumns,
    checked_weights,
    of_clusters,
    require_some_weight,
    require_weights,
    scaled_units,
    whole_sizes,
)
from msem.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OPTIONS = ("weights", "cluster_weights", "psu", "strata", "fpc", "single_psu")


@dataclass(frozen=True, eq=False)
class Weighting:
    """Weights and design of the rows behind the statistics of clusters.

    Attributes
    ----------
    columns : SurveyColumns
    scale : {"size", "effective", "none"}
        What the weights of the units of a cluster add up to.
    cells : ndarray, shape (S,)
        Clusters of each size, not counted by their weights.
    totals : ndarray, shape (4,)
        Sums of the weights of units, clusters included, and of their squares; sums of the weights of clusters as given,
        and of their squares.
    zero : int
        Rows left out because their weight is zero.
    factor : float
        Of the weights of clusters, which are normalised to add up to the number of clusters of the sample.
    pooled : float or None
        Factor of the weights of units in a sample of one level; None: scaled within each cluster.
    psus : Psus or None
        Without a design, or where clusters are not kept: None.
    """

    columns: SurveyColumns
    scale: Scale
    cells: Floats
    totals: Floats
    zero: int = 0
    factor: float = 1.0
    pooled: float | None = None
    psus: Psus | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of a fit that say the same."""
        known = {name: getattr(self.columns, name) for name in OPTIONS} | {"weights_scale": self.scale}
        if self.columns.inner_weights:
            known["cluster_weights"] = (self.columns.cluster_weights, *self.columns.inner_weights)
        return known

    def require_like(self, other: Weighting | None) -> None:
        """Refuse statistics that are not weighted by the same columns in the same way.

        Raises
        ------
        DataError
        """
        if other is not None and self.options == other.options:
            return
        if other is None:
            raise DataError(
                "some of the statistics are of rows with weights or a design, and others are not: summarize all with "
                f"the same options, {', '.join(f'{k}={v!r}' for k, v in self.columns.roles.items())}"
            )
        odd = next(name for name, value in self.options.items() if value != other.options[name])
        raise DataError(
            f"these statistics were made with {odd}={self.options[odd]!r} and {odd}={other.options[odd]!r}: summarize "
            "all with the same options"
        )

    def sampled(self, sums: ClusterSums | None) -> Sampled:
        """How the clusters were sampled."""
        if sums is None or sums.marks is None:
            return Sampled()
        own, psu = sums.marks.weights, sums.marks.psu
        if sums.ids.nlevels > 1:
            own = self._of_level(own, sums, 0)
            codes, labels, _ = sums.tree[-1]
            if psu is not None:
                name = self.columns.psu or "the highest clusters"
                psu = of_clusters(name, psu, codes, labels, "the primary sampling unit")
        weights = None if own is None else self.factor * own
        return Sampled(weights, psu, None if self.psus is None else self.psus.design)

    def _of_level(self, values: Floats | None, sums: ClusterSums, column: int) -> Floats | None:
        """Weights of the clusters of a column, from 0, from those of the lowest clusters in them."""
        if values is None:
            return None
        codes, labels, _ = sums.tree[len(sums.tree) - 1 - column]
        name = (self.columns.cluster_weights, *self.columns.inner_weights)[column]
        return of_clusters(str(name), values, codes, labels, "the weight")

    def inner_weights(self, sums: ClusterSums) -> list[Floats]:
        """Weights of the clusters below the highest, of level 2 first, as they enter the likelihood; empty: all 1."""
        marks, out = sums.marks, []
        assert marks is not None
        for column in range(len(sums.tree) - 1, 0, -1):
            parent = sums.tree[len(sums.tree) - 1 - column][2]
            own = self._of_level(marks.inner[column - 1], sums, column) if marks.inner else None
            out.append(np.empty(0) if own is None else scaled_units(own, parent, self.scale))
        return out

    def _cluster_weights(self, sums: ClusterSums) -> tuple[Floats, Floats]:
        """Weights of the highest clusters as given, and of the lowest ones with those of all that they are in."""
        marks = sums.marks
        assert marks is not None
        own = np.ones(len(sums.sizes)) if marks.weights is None else marks.weights
        if sums.ids.nlevels == 1:
            return own, own
        highest = self._of_level(own, sums, 0)
        assert highest is not None
        overall = own.copy()
        for (codes, _, _), inner in zip(sums.tree[:-1], self.inner_weights(sums), strict=True):
            if len(inner):
                overall *= inner[codes]
        return highest, overall

    def unit_factors(self, sums: ClusterSums) -> Floats:
        """Factors of the weights of the units of each cluster, shape (J,); see `scaled_units`."""
        marks = sums.marks
        assert marks is not None
        if self.pooled is not None:
            return np.full(len(sums.sizes), self.pooled)
        if self.scale == "none":
            return np.ones(len(sums.sizes))
        target = marks.units if self.scale == "size" else sums.sizes**2 / marks.squares
        return np.asarray(target / sums.sizes, dtype=np.float64)

    def scaled(self, sizes: Floats, within: Floats, sums: ClusterSums) -> tuple[Floats, Floats]:
        """Sizes of clusters and products within them, as they enter the likelihood."""
        factors = self.unit_factors(sums)
        return whole_sizes(factors * sizes), factors[:, None] * within

    def table(self, sums: ClusterSums) -> dict[str, Any]:
        """Statistics by size of clusters that were kept, and this weighting with their totals."""
        marks, p = sums.marks, sums.means.shape[1]
        names = ("sizes", "counts", "means", "scatter", "ssw")
        assert marks is not None
        assert sums.within is not None
        if not len(sums.sizes):
            none = (np.empty(0), np.empty(0), np.empty((0, p)), np.empty((0, p, p)), np.zeros((p, p)))
            nothing = replace(self, cells=np.empty(0), totals=np.zeros(4))
            return dict(zip(names, none, strict=True)) | {"weighting": nothing}
        highest, own = self._cluster_weights(sums)
        factor = len(highest) / float(highest.sum())
        sizes, within = self.scaled(sums.sizes, sums.within, sums)
        known = _core.counted_clusters(sizes, sums.means, within, p, factor * own)
        cells = np.bincount(np.searchsorted(known[0], sizes), minlength=len(known[0])).astype(np.float64)
        level2 = own * self.unit_factors(sums)
        totals = [level2 @ sums.sizes, level2**2 @ marks.squares, highest.sum(), highest @ highest]
        found = replace(self, cells=cells, totals=np.array(totals), factor=factor)
        return dict(zip(names, known, strict=True)) | {"weighting": found}


class SurveySums:
    """Weights and design of rows that come in pieces.

    Parameters
    ----------
    columns : SurveyColumns
    scale : {"size", "effective", "none"}
    cluster : str
        Column of the highest clusters.
    """

    def __init__(self, columns: SurveyColumns, scale: Scale, cluster: str) -> None:
        self.columns, self.scale = columns, scale
        self.zero = 0
        self._of_clusters = (columns.cluster_weights, *columns.inner_weights)
        named = [name for name in (columns.weights, *self._of_clusters) if name is not None]
        self._known = dict.fromkeys(named, False)
        self._positive = dict.fromkeys(named, False)
        self._weights, self._psu = [_OfClusters() for _ in self._of_clusters], _OfClusters()
        designed = columns.psu is not None or columns.strata is not None or columns.fpc is not None
        self._psus = Psus.nothing(columns, cluster) if designed else None
        self._psu_ids = None if columns.psu is None else ClusterIds(columns.psu)
        self._strata_ids = None if columns.strata is None else ClusterIds(columns.strata)

    def _role(self, name: str) -> str:
        return "weights" if name == self.columns.weights else "cluster_weights"

    def read(self, given: Mapping[str, Any], nrows: int, first: int) -> dict[str, Floats]:
        """Weights of the rows of a piece by their column; `first` is the number of its first row."""
        out = {}
        for name in self._known:
            values = float_column(name, given[name])
            known, _, greatest = require_weights(self._role(name), name, values, first)
            self._known[name] |= known > 0
            self._positive[name] |= greatest > 0
            out[name] = values
        return out

    def add_design(
        self, given: Mapping[str, Any], codes: Ints, ids: pd.Index[Any], first: int
    ) -> Ints | None:
        """Count the PSUs of all rows of a piece, used or not; those of the rows, -1 where missing.

        Parameters
        ----------
        given : mapping of str to column
        codes : ndarray of int, shape (rows,)
            The highest clusters, which are the PSUs if no column of these is named.
        ids : pandas.Index
            Of these.
        first : int
            Number of the first row.
        """
        if self._psus is None:
            return None
        columns = self.columns
        psu, index = codes, ids
        if self._psu_ids is not None:
            psu = self._psu_ids.number(given[str(columns.psu)])
            index = self._psu_ids.index
        stratum, strata = np.zeros(len(psu), dtype=np.int64), pd.Index(["all"])
        if self._strata_ids is not None:
            stratum = self._strata_ids.number(given[str(columns.strata)])
            strata = self._strata_ids.index
        fpc = None if columns.fpc is None else float_column(columns.fpc, given[columns.fpc])
        self._psus = self._psus.with_rows(psu, index, stratum, strata, fpc, first)
        return psu

    def add(
        self,
        weights: Mapping[str, Floats],
        psu: Ints | None,
        codes: Sequence[Ints],
        keep: Bools,
        labels: Sequence[pd.Index[Any]],
        first: int,
    ) -> Floats | None:
        """Take what the used rows say of their clusters; their weights, for all rows.

        Parameters
        ----------
        weights : mapping of str to ndarray, shape (rows,)
            By column.
        psu : ndarray of int, shape (rows,), or None
        codes : sequence of ndarray of int, shape (rows,)
            Their clusters, the highest first.
        keep : ndarray of bool, shape (rows,)
            Rows that are used.
        labels : sequence of pandas.Index
            Ids of the clusters.
        first : int
            Number of the first row.
        """
        own = self.columns
        known = zip(self._of_clusters, self._weights, codes, labels, strict=False)
        for name, found, numbers, index in known:
            if name is not None:
                values = checked_weights(name, weights[name], keep, first)
                found.add(values, numbers[keep], len(index), name, "the weight", index)
        if psu is not None:
            if (psu[keep] < 0).any():
                row = first + int(np.flatnonzero(keep)[(psu[keep] < 0).argmax()])
                raise DataError(
                    f"the primary sampling unit ({own.psu!r}) is missing in {(psu[keep] < 0).sum()} row(s) that would "
                    f"be used, first in row {row} (counted from 0)"
                )
            what = "the primary sampling unit"
            values = psu[keep].astype(np.float64)
            self._psu.add(values, codes[0][keep], len(labels[0]), str(own.psu), what, labels[0])
        if own.weights is None:
            return None
        checked_weights(own.weights, weights[own.weights], keep, first)
        return weights[own.weights]

    def require_some(self) -> None:
        """Refuse weights none of which is positive."""
        for name, known in self._known.items():
            require_some_weight(self._role(name), name, known=known, positive=self._positive[name])

    def marks(self, tally: Floats, above: Sequence[Ints]) -> ClusterMarks:
        """What is known of the lowest clusters; `above` are the clusters that each is in, the highest first."""
        known = [
            None if name is None else own.known[codes]
            for name, own, codes in zip(self._of_clusters, self._weights, above, strict=False)
        ]
        psu = None if self._psus is None else self._psu.known[above[0]].astype(np.int64)
        return ClusterMarks(tally[:, 0], tally[:, 1], known[0], psu, tuple(known[1:]))

    @property
    def weighting(self) -> Weighting:
        """The weighting of all rows so far, without what follows from the clusters."""
        return Weighting(self.columns, self.scale, np.empty(0), np.zeros(4), self.zero, psus=self._psus)


class _OfClusters:
    """A value of each cluster, the same in all of its rows."""

    def __init__(self) -> None:
        self.known = np.empty(0)

    def add(
        self, values: Floats, codes: Ints, nclusters: int, name: str, what: str, index: pd.Index[Any]
    ) -> None:
        """Take the values of some rows; `DataError` if they differ within a cluster."""
        before = len(self.known)
        if nclusters > before:
            self.known = np.concatenate([self.known, np.full(nclusters - before, np.nan)])
        fresh = np.isnan(self.known[codes])
        self.known[codes[fresh][::-1]] = values[fresh][::-1]
        odd = np.unique(codes[values != self.known[codes]])
        if len(odd):
            raise _differ(name, what, index[odd].tolist())


def _differ(name: str, what: str, clusters: Sequence[Any]) -> DataError:
    return DataError(
        f"{what} {name!r} must be the same in all rows of a cluster, and differs within {len(clusters)} cluster(s): "
        f"{listed(list(clusters), most=8)}"
    )


def merged_marks(
    one: ClusterSums, two: ClusterSums, place: Ints, tally: Floats, columns: SurveyColumns, psus: Ints | None
) -> ClusterMarks:
    """What is known of the clusters of both; `place` are those of the second, and `psus` its PSUs among those of both.

    Raises
    ------
    DataError
        If a cluster has different weights, or is in different PSUs, on both sides.
    """
    first, second = one.marks, two.marks
    assert first is not None
    assert second is not None
    psu = None if second.psu is None or psus is None else psus[second.psu]
    inner = zip(first.inner, second.inner, columns.inner_weights, strict=True)
    parts = (
        (first.weights, second.weights, columns.cluster_weights, "the weight"),
        (first.psu, psu, columns.psu, "the primary sampling unit"),
        *((own, other, name, "the weight") for own, other, name in inner),
    )
    out: list[Any] = []
    for own, other, name, what in parts:
        if own is None or other is None:
            out.append(None)
            continue
        values = np.empty(len(tally), dtype=own.dtype)
        values[place] = other
        both = place[place < len(own)]
        odd = both[own[both] != values[both]]
        if len(odd):
            raise _differ(str(name), what, one.ids[odd].tolist())
        values[: len(own)] = own
        out.append(values)
    return ClusterMarks(tally[:, 0], tally[:, 1], weights=out[0], psu=out[1], inner=tuple(out[2:]))


def merged_weighting(one: Weighting, two: Weighting) -> tuple[Weighting, Ints | None]:
    """The weighting of both, without what follows from the clusters, and the PSUs of the second among those of both."""
    one.require_like(two)
    psus, place = one.psus, None
    if one.psus is not None and two.psus is not None:
        psus, place = one.psus.joined(two.psus, same_numbers)
    return replace(one, totals=one.totals + two.totals, zero=one.zero + two.zero, psus=psus), place
