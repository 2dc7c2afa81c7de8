"""How many clusters of which sizes: what a user says, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem.errors import DataError
from msem.settings import require_whole

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """Sizes of the clusters of one group, in order; a single-level sample has rows instead, clusters of one.

    Attributes
    ----------
    sizes : tuple of int
    """

    sizes: tuple[int, ...]

    @property
    def nobs(self) -> int:
        """Units."""
        return sum(self.sizes)

    @property
    def nclusters(self) -> int:
        """Clusters."""
        return len(self.sizes)

    def table(self) -> tuple[Floats, Floats]:
        """Distinct sizes, ascending, and the number of clusters of each."""
        sizes, counts = np.unique(np.array(self.sizes), return_counts=True)
        return sizes.astype(np.float64), counts.astype(np.float64)


def read_clusters(nclusters: Any, cluster_sizes: Any) -> Clusters:
    """Clusters of one group.

    Parameters
    ----------
    nclusters : int or None
    cluster_sizes : int, sequence of int, or mapping of int to int
        One size for all; sizes that are dealt out to the clusters in turn, or, without `nclusters`, one for each; the
        number of clusters of each size.

    Raises
    ------
    DataError, ValueError
        If they are no clusters, or do not agree.
    """
    if cluster_sizes is None:
        raise DataError(
            "give cluster_sizes: a size, several that take turns, or a dict of size to number of clusters"
        )
    if isinstance(cluster_sizes, Mapping):
        sizes = _of_table(cluster_sizes)
        if nclusters is not None and len(sizes) != require_whole("nclusters", nclusters, 1):
            raise DataError(
                f"nclusters is {nclusters} and cluster_sizes has {len(sizes)} clusters: leave one of them out"
            )
        return Clusters(sizes)
    several = not hasattr(cluster_sizes, "__index__")
    if several and (isinstance(cluster_sizes, str) or not isinstance(cluster_sizes, (Sequence, np.ndarray))):
        raise DataError(f"cluster_sizes is a whole number, several, or a dict of them, not {cluster_sizes!r}")
    given = [require_whole("a cluster size", n, 1) for n in (cluster_sizes if several else [cluster_sizes])]
    if nclusters is None:
        if not several:
            raise DataError("give nclusters, the number of clusters")
        return Clusters(tuple(given))
    count = require_whole("nclusters", nclusters, 1)
    if not given or len(given) > count:
        raise DataError(f"cluster_sizes has {len(given)} sizes for {count} clusters")
    return Clusters(tuple(given[j % len(given)] for j in range(count)))


def _of_table(table: Mapping[Any, Any]) -> tuple[int, ...]:
    pairs = [
        (require_whole("a cluster size", n, 1), require_whole("a number of clusters", count, 1))
        for n, count in table.items()
    ]
    return tuple(n for n, count in sorted(pairs) for _ in range(count))


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


def require_divided(clusters: Clusters, *, single: bool) -> None:
    """Refuse samples of one cluster or row, and two-level ones whose clusters all have one unit.

    Raises
    ------
    DataError
    """
    if clusters.nclusters < 2 or (not single and clusters.nobs == clusters.nclusters):
        plural = "" if clusters.nclusters == 1 else "s"
        raise DataError(
            f"{clusters.nobs} units in {clusters.nclusters} cluster{plural} cannot be told apart into levels: at least "
            "two clusters, and one with two units, are needed"
            if not single
            else f"{clusters.nobs} rows are too few: two or more are needed"
        )
