"""Fourth-order products of the statistics of single clusters, summed over the clusters of each size.

Whatever the model, the score of a cluster of size n is linear in t = (1, v, vech(v v'), vech(S)), v its means and S its
products within. So sums over clusters of products of scores are functions of sums of t t', formed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from msem import _core

Floats = NDArray[np.float64]

LONGEST = 160  # length of t from which its products take more space than they save time
WORTH = 4  # clusters of a size, for each element of t, from which its products save time
ENOUGH = 1024  # clusters from which a point among the data, and the spread about it, are known well enough


class ClusterRows(Protocol):
    """Rows that come in clusters."""

    @property
    def cluster_count(self) -> int | None:
        """Clusters."""

    def cluster_products(
        self, unit: Sequence[str], cluster: Sequence[str], origin: Floats, scale: Floats
    ) -> tuple[Floats, list[Floats]] | None:
        """Sizes and sums of products; None where they do not follow from the rows at once."""


@dataclass(frozen=True, eq=False)
class ClusterProducts:
    """Sums of t t' over the clusters of each size.

    Attributes
    ----------
    sizes : ndarray, shape (S,)
        Distinct cluster sizes.
    sums : list of ndarray, S times shape (d, d)
        Weighted, if the clusters have weights.
    origin, scale : ndarray, shape (p + q,)
        v is about `origin`, and v and S are in units of `scale`.
    nwithin : int
        Length of vech(S).
    even : bool
        Whether products of an odd number of values were left out: for scores that have no part in v itself.
    """

    sizes: Floats
    sums: list[Floats]
    origin: Floats
    scale: Floats
    nwithin: int
    even: bool = False

    @cached_property
    def probes(self) -> tuple[Floats, Floats, Floats]:
        """Sizes, means and products within of d made-up clusters of each size, whose scores give those of all.

        First the origin; v = a and v = -a for each variable a; a + b for each pair, b before a; then each element of S.
        """
        v, within, row, col = _unit_probes(len(self.origin), self.nwithin)
        d, count = len(v), len(self.sizes)
        return (
            np.repeat(self.sizes, d),
            np.tile(self.origin + v * self.scale, (count, 1)),
            np.tile(within * (self.scale[row] * self.scale[col]), (count, 1)),
        )

    @property
    def readings(self) -> Floats:
        """Coefficients of t as combinations of the scores of the probes of a size, shape (d, d)."""
        return _readings(len(self.origin), self.nwithin)


# Of so many variables they are always the same, and making them takes longer than using them.
@lru_cache(maxsize=16)
def _unit_probes(m: int, nwithin: int) -> tuple[Floats, Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Means and products of the probes about 0 and in units of 1, and which two variables each product is of."""
    unit = np.eye(m)
    col, row = np.triu_indices(m, 1)
    v = np.vstack([np.zeros((1, m)), unit, -unit, unit[row] + unit[col], np.zeros((nwithin, m))])
    within = np.zeros((len(v), nwithin))
    within[len(v) - nwithin :] = np.eye(nwithin)
    col, row = np.triu_indices(round((np.sqrt(8 * nwithin + 1) - 1) / 2))
    return v, within, row, col


@lru_cache(maxsize=16)
def _readings(m: int, nwithin: int) -> Floats:
    d = _length(m, nwithin)
    out = np.zeros((d, d))
    out[0, 0] = 1.0
    a = np.arange(m)
    out[1 + a, 1 + a], out[1 + a, 1 + m + a] = 0.5, -0.5
    col, row = np.triu_indices(m)
    pair = 1 + m + np.arange(len(row))
    own = row == col
    out[pair[own], 1 + a], out[pair[own], 1 + m + a], out[pair[own], 0] = 0.5, 0.5, -1.0
    cross, i, j = pair[~own], row[~own], col[~own]
    out[cross, 1 + 2 * m + np.arange(len(cross))] = 1.0
    out[cross, 1 + i] = out[cross, 1 + j] = -1.0
    out[cross, 0] = 1.0
    s = np.arange(d - nwithin, d)
    out[s, s], out[s, 0] = 1.0, -1.0
    return out


def cluster_products(
    sizes: Floats, means: Floats, within: Floats, weights: Floats | None = None
) -> ClusterProducts | None:
    """Products of the statistics of clusters; None where there are too few clusters of each size for them to pay.

    Parameters
    ----------
    sizes : ndarray, shape (J,)
    means : ndarray, shape (J, p + q)
    within : ndarray, shape (J, p (p + 1) / 2)
    weights : ndarray, shape (J,), optional
        Of the clusters, whose squares are those of the products.
    """
    length = _length(means.shape[1], within.shape[1])
    if not worth(length, len(sizes), 1) or not worth(length, len(sizes), _distinct(sizes)):
        return None
    some = means[:: max(1, len(means) // ENOUGH)]
    origin, scale = some.mean(axis=0), some.std(axis=0)
    if not (scale > 0).all():
        scale = means.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
    known = np.empty(0) if weights is None else weights
    found, sums = _core.cluster_products(sizes, means, within, origin, scale, known)
    return ClusterProducts(found, sums, origin, scale, within.shape[1])


def row_products(
    columns: Sequence[Floats], about: Floats, weights: Floats | None = None, *, even: bool = False
) -> ClusterProducts | None:
    """The same of rows of a single level as clusters of one; None where it does not pay.

    Parameters
    ----------
    columns : sequence of ndarray, shape (N,)
    about : ndarray, shape (q,)
        What is taken from their values.
    weights : ndarray, shape (N,), optional
        Of the rows, whose squares are those of the products.
    even : bool
        Leave out products of an odd number of values about `about`.
    """
    nrows = len(columns[0]) if columns else 0
    if not worth(_length(len(columns), 0), nrows, 1):
        return None
    some = np.array([column[:: max(1, nrows // ENOUGH)] for column in columns])
    origin, scale = some.mean(axis=1), some.std(axis=1)
    if not (scale > 0).all():
        scale = np.array([column.std() for column in columns])
        scale = np.where(scale > 0, scale, 1.0)
    origin = about if even else origin
    found = _core.row_products(list(columns), nrows, origin, scale, weights, even)
    return ClusterProducts(np.ones(1), [found], origin - about, scale, 0, even)


def _length(m: int, nwithin: int) -> int:
    """Length of t."""
    return 1 + m + m * (m + 1) // 2 + nwithin


def worth(length: int, count: int, distinct: int) -> bool:
    """Whether products of t of some length pay for so many clusters of so many sizes."""
    return length <= LONGEST and count >= WORTH * length * distinct


def products_of_rows(
    rows: ClusterRows,
    unit: Sequence[str],
    cluster: Sequence[str],
    mean: Floats,
    spread: Floats,
    sizes: Floats,
) -> ClusterProducts | None:
    """The same of the clusters of rows; None where it does not pay, or rows do not come cluster by cluster.

    Parameters
    ----------
    rows : ClusterRows
    unit, cluster : sequence of str
        Variables measured on units and on clusters.
    mean, spread : ndarray, shape (p + q,)
        Of the cluster vectors.
    sizes : ndarray, shape (S,)
        Distinct sizes.
    """
    p, count = len(unit), rows.cluster_count
    nwithin = p * (p + 1) // 2
    if count is None or not worth(_length(p + len(cluster), nwithin), count, len(sizes)):
        return None
    scale = np.where(spread > 0, spread, 1.0)
    found = rows.cluster_products(unit, cluster, mean, scale)
    return None if found is None else ClusterProducts(*found, mean, scale, nwithin)


def _distinct(sizes: Floats) -> int:
    """How many different sizes there are, which sums of weights need not have as whole numbers."""
    if (sizes == sizes[0]).all():
        return 1
    whole = sizes.astype(np.int64)
    if (whole == sizes).all():
        return int(np.count_nonzero(np.bincount(whole)))
    return len(np.unique(sizes))
