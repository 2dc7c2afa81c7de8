"""How many clusters of which sizes: what a user says, and what it means."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError
from msem.model.levels import NUMBERS, number_of_levels
from msem.settings import require_whole

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class Design(Protocol):
    """The units of one group of a sample, and their clusters."""

    @property
    def nobs(self) -> int:
        """Units."""

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Cluster of every unit, from 0, for level 2 and those above."""

    def identifiers(self, columns: Sequence[str], before: Sequence[Design]) -> dict[str, Any]:
        """Columns with the clusters of the units, the highest first; `before` are the groups before this one."""


@dataclass(frozen=True)
class Clusters:
    """Sizes of the clusters of one group, in order; a single-level sample has rows instead, clusters of one.

    Attributes
    ----------
    sizes : tuple of int
        Of the lowest clusters.
    parents : tuple of tuple of int
        For every level above that of the lowest clusters, the cluster that each of the level below is in.
    multilevel : bool
        Whether there are clusters.
    """

    sizes: tuple[int, ...]
    parents: tuple[tuple[int, ...], ...] = ()
    multilevel: bool = True

    @property
    def nobs(self) -> int:
        """Units."""
        return sum(self.sizes)

    @property
    def nclusters(self) -> int:
        """The highest clusters."""
        return max(self.parents[-1]) + 1 if self.parents else len(self.sizes)

    @property
    def codes(self) -> tuple[Codes, ...]:
        """Cluster of every unit, for level 2 and those above."""
        if not self.multilevel:
            return ()
        out = [np.repeat(np.arange(len(self.sizes)), self.sizes)]
        for parent in self.parents:
            out.append(np.array(parent)[out[-1]])
        return tuple(out)

    def identifiers(self, columns: Sequence[str], before: Sequence[Design]) -> dict[str, Any]:
        """Clusters numbered from 1 through all groups."""
        first = [sum(int(one.codes[k].max()) + 1 for one in before) for k in range(len(columns))]
        numbered = [own + start + 1 for own, start in zip(self.codes, first, strict=True)]
        return dict(zip(columns, numbered[::-1], strict=True))

    def table(self) -> tuple[Floats, Floats]:
        """Distinct sizes, ascending, and the number of clusters of each."""
        sizes, counts = np.unique(np.array(self.sizes), return_counts=True)
        return sizes.astype(np.float64), counts.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Units with their clusters in two crossed classifications.

    Attributes
    ----------
    codes : tuple of ndarray of int
        Cluster of every unit, of levels 2 and 3.
    ids : tuple of pandas.Index
        Of the clusters.
    """

    codes: tuple[Codes, ...]
    ids: tuple[pd.Index[Any], ...]

    @property
    def nobs(self) -> int:
        """Units."""
        return len(self.codes[0])

    def identifiers(self, columns: Sequence[str], before: Sequence[Design]) -> dict[str, Any]:
        """Clusters by their ids, the classification of level 2 first."""
        named = zip(columns[::-1], self.codes, self.ids, strict=True)
        return {name: ids[codes] for name, codes, ids in named}


def read_clusters(nclusters: Any, cluster_sizes: Any, nlevels: int = 2) -> Clusters:
    """Clusters of one group.

    Parameters
    ----------
    nclusters : int, sequence, or None
        Of three levels and more the number of the highest clusters, and those of the lower ones in each of these: one
        number, or several that take turns.
    cluster_sizes : int, sequence or Series of int, or mapping of int to int
        One size for all; sizes that are dealt out to the clusters in turn, or, without `nclusters`, one for each; the
        number of clusters of each size.
    nlevels : int

    Raises
    ------
    DataError, ValueError
        If they are no clusters, or do not agree.
    """
    if cluster_sizes is None:
        raise DataError(
            "give cluster_sizes: a size, several that take turns, or a dict of size to number of clusters"
        )
    if nlevels > 2:
        parents = _within(nclusters, nlevels)
        return Clusters(read_clusters(len(parents[0]), cluster_sizes).sizes, parents)
    if isinstance(cluster_sizes, pd.Series):
        cluster_sizes = cluster_sizes.to_numpy()
    if isinstance(cluster_sizes, Mapping):
        sizes = _of_table(cluster_sizes)
        if nclusters is not None and len(sizes) != require_whole("nclusters", nclusters, 1):
            raise DataError(
                f"nclusters is {nclusters} and cluster_sizes has {len(sizes)} clusters: leave one of them out"
            )
        return Clusters(sizes)
    given = _numbers("cluster_sizes", cluster_sizes, "a cluster size")
    if nclusters is None:
        if np.ndim(cluster_sizes) == 0:
            raise DataError("give nclusters, the number of clusters")
        return Clusters(given)
    count = require_whole("nclusters", nclusters, 1)
    if not given or len(given) > count:
        raise DataError(f"cluster_sizes has {len(given)} sizes for {count} clusters")
    return Clusters(tuple(given[j % len(given)] for j in range(count)))


def _numbers(name: str, given: Any, what: str) -> tuple[int, ...]:
    """A whole number, or several."""
    several = np.ndim(given) > 0 or not hasattr(given, "__index__")
    if several and (isinstance(given, str) or not isinstance(given, (Sequence, np.ndarray))):
        raise DataError(f"{name} is a whole number, several, or a dict of them, not {given!r}")
    return tuple(require_whole(what, n, 1) for n in (given if several else [given]))


def _within(nclusters: Any, nlevels: int) -> tuple[tuple[int, ...], ...]:
    """The cluster of the next level that each is in, from level 2 on."""
    several = isinstance(nclusters, (Sequence, np.ndarray)) and not isinstance(nclusters, str)
    if not several or len(nclusters) != nlevels - 1:
        words = (
            "(schools, classes), the number of the highest clusters and that of clusters within each of them"
        )
        if nlevels > 3:
            words = f"{NUMBERS[nlevels - 1]} numbers, that of the highest clusters and those of clusters within each"
        raise DataError(
            f"a population of {number_of_levels(nlevels)} needs nclusters={words}, not {nclusters!r}"
        )
    above = require_whole("nclusters", nclusters[0], 1)
    parents: list[tuple[int, ...]] = []
    for given in nclusters[1:]:
        each = _numbers("nclusters", given, "a number of clusters")
        if not each or len(each) > above:
            raise DataError(f"nclusters has {len(each)} numbers of clusters within {above} clusters")
        parents.append(tuple(k for k in range(above) for _ in range(each[k % len(each)])))
        above = len(parents[-1])
    return tuple(parents[::-1])


def _of_table(table: Mapping[Any, Any]) -> tuple[int, ...]:
    pairs = [
        (require_whole("a cluster size", n, 1), require_whole("a number of clusters", count, 1))
        for n, count in table.items()
    ]
    return tuple(n for n, count in sorted(pairs) for _ in range(count))


def read_pairs(nclusters: Any, nobs: Any, cluster_sizes: Any, seed: int, group: int) -> Pairs:
    """Units of a group, counted from 0, in two crossed classifications: numbers of clusters of levels 2 and 3.

    Raises
    ------
    DataError, ValueError
        If they are none, or a cluster would have no unit.
    """
    pair = isinstance(nclusters, (Sequence, np.ndarray)) and not isinstance(nclusters, str)
    if not pair or len(nclusters) != 2 or nobs is None or cluster_sizes is not None:
        raise DataError(
            "a population of crossed classifications needs nclusters=(pupils, schools), numbers of clusters of both, "
            "nobs, the number of units, and no cluster_sizes"
        )
    counts = [require_whole("nclusters", one, 2) for one in nclusters]
    units = require_whole("nobs", nobs, 2)
    if units < max(counts):
        raise DataError(f"nobs is {units}, and {max(counts)} clusters need a unit each")
    rng = np.random.default_rng([seed, group])
    of = [np.arange(units, dtype=np.int64) % count for count in counts]
    rng.shuffle(of[int(counts[0] >= counts[1])])  # every cluster has its share
    return Pairs(tuple(of), tuple(pd.RangeIndex(1, count + 1) for count in counts))


def by_group(given: Any, labels: Sequence[str]) -> list[Any]:
    """What is given for each group: the same for all, or a mapping of label to its own.

    Raises
    ------
    DataError
        If a group is missing or unknown.
    """
    if not labels or not isinstance(given, Mapping):
        return [given] * max(len(labels), 1)
    named = {str(label): one for label, one in given.items()}
    if all(isinstance(label, int) for label in given) and not set(named) & set(labels):
        return [given] * len(labels)  # a table of sizes, the same for all
    if set(named) != set(labels):
        raise DataError(
            f"the groups are {', '.join(labels)}: give one value, or a dict with one for each of them"
        )
    return [named[label] for label in labels]


def require_divided(clusters: Clusters) -> None:
    """Refuse samples of one cluster or row, and those of several levels whose clusters all have one unit.

    Raises
    ------
    DataError
    """
    if not clusters.multilevel:
        if clusters.nobs < 2:
            raise DataError(f"{clusters.nobs} rows are too few: two or more are needed")
        return
    counts = [clusters.nobs, *(int(codes.max()) + 1 for codes in clusters.codes)]
    if counts[-1] < 2 or any(below == above for below, above in itertools.pairwise(counts)):
        within = "".join(f" in {count} cluster{'' if count == 1 else 's'}" for count in counts[1:])
        raise DataError(
            f"{counts[0]} units{within} cannot be told apart into levels: at least two clusters, and one with two "
            "units, are needed"
        )
