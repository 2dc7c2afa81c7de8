"""Statistics of single clusters: what is kept so that parts of a cluster can be put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.identifiers import are_whole, kind_of
from msem.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClusterMarks:
    """What is known of the weights and the design of every cluster of weighted rows.

    Attributes
    ----------
    units : ndarray, shape (J,)
        Rows of each, whatever they weigh.
    squares : ndarray, shape (J,)
        Sums of their squared weights.
    weights : ndarray, shape (J,), or None
        Of the clusters, as given; of nested clusters those of the highest one that each lowest is in.
    psu : ndarray of int, shape (J,), or None
        Number of the primary sampling unit of each.
    inner : tuple of (ndarray, shape (J,), or None)
        Weights of the clusters below the highest, these first, that each lowest one is in; empty without.
    """

    units: Floats
    squares: Floats
    weights: Floats | None = None
    psu: NDArray[np.int64] | None = None
    inner: tuple[Floats | None, ...] = ()

    @property
    def tally(self) -> Floats:
        """Units and sums of squared weights, shape (J, 2)."""
        return np.column_stack([self.units, self.squares])


@dataclass(frozen=True, eq=False)
class ClusterSums:
    """Sizes, means and products of every cluster, for p variables.

    Attributes
    ----------
    ids : pandas.Index, length J
    sizes : ndarray, shape (J,)
        Units, or sums of their weights as given.
    means : ndarray, shape (J, p)
        Less the origin of the statistics they belong to.
    within : ndarray, shape (J, p (p + 1) / 2), or None
        Sums of squares and products about the cluster mean, the lower triangle column by column. None: not kept.
    marks : ClusterMarks or None
        Of rows with weights or a design.
    """

    ids: pd.Index[Any]
    sizes: Floats
    means: Floats
    within: Floats | None
    marks: ClusterMarks | None = None

    def __post_init__(self) -> None:
        for name in ("sizes", "means", "within"):
            given = getattr(self, name)
            if given is not None:
                array = np.asarray(given, dtype=np.float64).view()
                array.flags.writeable = False
                object.__setattr__(self, name, array)

    @property
    def keeps_products(self) -> bool:
        """Whether products within every cluster are there."""
        return self.within is not None

    def require_fit(self, p: int, nclusters: float) -> None:
        """Refuse arrays of other shapes than p variables need, or numbers that are not finite.

        Raises
        ------
        DataError
        """
        J = len(self.sizes)
        fit = self.means.shape == (J, p) and len(self.ids) == J == nclusters and self.ids.is_unique
        if self.within is not None:
            fit = fit and self.within.shape == (J, p * (p + 1) // 2)
        arrays = [self.sizes, self.means, *([] if self.within is None else [self.within])]
        if self.marks is not None:
            own = [self.marks.units, self.marks.squares]
            own += [one for one in (self.marks.weights, *self.marks.inner) if one is not None]
            fit = (
                fit and self.within is not None and all(one.shape == (J,) and (one > 0).all() for one in own)
            )
            fit = fit and (self.marks.psu is None or self.marks.psu.shape == (J,))
            arrays += own
        if not fit or not all(map(_core.all_finite, (one.ravel() for one in arrays))):
            raise DataError("the statistics of single clusters do not fit together")
        if not (self.sizes > 0).all():
            raise DataError("cluster sizes must be positive")

    @cached_property
    def tree(self) -> list[tuple[NDArray[np.int64], pd.Index[Any], NDArray[np.int64]]]:
        """Of each level from 2 on: the cluster that each lowest one is in, the ids of these, and their parents."""
        out: list[tuple[NDArray[np.int64], pd.Index[Any], NDArray[np.int64]]] = []
        above = np.zeros(len(self.ids), dtype=np.int64)
        for k in range(self.ids.nlevels):
            labels = self.ids.get_level_values(k)
            number = pd.factorize(labels)[0]
            path = above * (number.max() + 1) + number
            _, first, codes = np.unique(path, return_index=True, return_inverse=True)
            order = np.argsort(np.argsort(first))  # by first appearance
            place = np.sort(first)
            out.append((order[codes].astype(np.int64), labels[place], above[place]))
            above = out[-1][0]
        return out[::-1]

    def restrict(self, at: Sequence[int], p: int) -> ClusterSums:
        """Of some of the p variables."""
        within = None if self.within is None else self.products(at, p)
        return ClusterSums(self.ids, self.sizes, self.means[:, list(at)], within, self.marks)

    def products(self, at: Sequence[int], p: int) -> Floats:
        """Columns of `within` for some of the p variables, in their order."""
        assert self.within is not None
        columns = [_place(at[a], at[b], p) for a in range(len(at)) for b in range(a, len(at))]
        return self.within if columns == list(range(self.within.shape[1])) else self.within[:, columns]

    def squares(self, at: int, p: int) -> Floats:
        """Sums of squares of one of the p variables, shape (J,)."""
        assert self.within is not None
        squares: Floats = self.within[:, _place(at, at, p)]
        return squares


def _place(a: int, b: int, p: int) -> int:
    """Where the product of two variables stands in a lower triangle that is stored column by column."""
    column, row = min(a, b), max(a, b)
    return column * p - column * (column - 1) // 2 + row - column


def common_ids(one: pd.Index[Any], two: pd.Index[Any], cluster: str) -> pd.Index[Any]:
    """Ids of both, each once: those of the first, then the new ones of the second.

    Raises
    ------
    DataError
        If they are of different types, so that "1" and 1 would be two clusters.
    """
    one, two = same_numbers(one, two)
    return one.append(two[~two.isin(one)])


def same_numbers(
    one: pd.Index[Any], two: pd.Index[Any], cluster: str = ""
) -> tuple[pd.Index[Any], pd.Index[Any]]:
    """Two sets of ids as one type; of pairs each part of them."""
    if isinstance(one, pd.MultiIndex):
        levels = [
            same_numbers(one.get_level_values(k), two.get_level_values(k), str(name))
            for k, name in enumerate(one.names)
        ]
        first, second = (pd.MultiIndex.from_arrays(own, names=one.names) for own in zip(*levels, strict=True))
        return first, second
    if not len(one) or not len(two):
        return (one.astype(two.dtype), two) if len(two) else (one, two.astype(one.dtype))
    kinds = [index_kind(ids) for ids in (one, two)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"the ids in cluster column {cluster!r} are {kinds[0]} on one side and {kinds[1]} on the other: an id of "
            "another type would be another cluster; convert the column to one type"
        )
    if one.dtype != two.dtype and kinds[0] == "numbers":
        kind = np.int64 if all(are_whole(ids.to_numpy()) for ids in (one, two)) else object
        return one.astype(kind), two.astype(kind)
    return one, two


def index_kind(ids: pd.Index[Any]) -> str:
    """What ids are, in words."""
    if pd.api.types.is_bool_dtype(ids.dtype):
        return "truth values"
    if pd.api.types.is_numeric_dtype(ids.dtype):
        return "numbers"
    if isinstance(ids.dtype, pd.StringDtype):
        return "text"
    return kind_of(ids)


Part = tuple[ClusterSums, Floats, Floats]  # clusters, origin, ssw


def merged_sums(
    one: Part, two: Part, cluster: str
) -> tuple[ClusterSums, dict[str, Floats], NDArray[np.int64], Floats | None]:
    """The clusters of both, those in both put together (Chan, Golub & LeVeque, 1983), and their statistics by size.

    Means are less the origin of the first. Where the clusters of the second stand among those of both, and the tally of
    weighted rows.
    """
    first, second = one[0], two[0]
    own, other = same_numbers(first.ids, second.ids, cluster)
    place = own.get_indexer(other)
    new = place < 0
    place[new] = len(own) + np.arange(int(new.sum()))
    ids = own.append(other[new])
    keep = first.within is not None and second.within is not None
    tally = first.marks is not None and second.marks is not None
    core = _core.Accumulator(len(one[1]), keep, tally)
    for (sums, origin, ssw), codes in ((one, np.arange(len(own))), (two, place)):
        core.add_clusters(
            codes.astype(np.int64),
            len(ids),
            sums.sizes,
            sums.means,
            sums.within if keep else None,
            origin,
            ssw,
            sums.marks.tally if tally and sums.marks is not None else None,
        )
    own, table, _ = finished(core, ids)
    return sums_of(core, own), table, place, core.tally() if tally else None


def finished(
    core: _core.Accumulator, ids: pd.Index[Any]
) -> tuple[pd.Index[Any], dict[str, Floats], NDArray[np.int64]]:
    """Ids of the clusters that have rows in an accumulator, their statistics by size, and their codes among `ids`."""
    found = core.finish()
    own = ids if len(found["codes"]) == len(ids) else ids[found["codes"]]
    table = {name: found[name] for name in ("sizes", "counts", "means", "scatter", "ssw")}
    return own, table, found["codes"]


def sums_of(core: _core.Accumulator, ids: pd.Index[Any]) -> ClusterSums:
    """The clusters of an accumulator that is finished, with their ids."""
    return ClusterSums(ids, core.sizes(), core.means(), core.within() if core.keeps else None)


def by_size(sums: ClusterSums, origin: Floats, ssw: Floats) -> dict[str, Floats]:
    """Statistics by size of clusters that have statistics of their own."""
    J = len(sums.sizes)
    core = _core.Accumulator(len(origin), False)
    core.add_clusters(np.arange(J), J, sums.sizes, sums.means, None, origin, ssw)
    table = finished(core, sums.ids)[1]
    del table["ssw"]  # as given
    return table
