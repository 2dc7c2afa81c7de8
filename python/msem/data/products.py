"""Fourth-order products of the statistics of single clusters, summed over the clusters of each size.

Whatever the model, the score of a cluster of size n is linear in t = (1, v, vech(v v'), vech(S)), v its means and S its
products within. So sums over clusters of products of scores are functions of sums of t t', formed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msem import _core

Floats = NDArray[np.float64]

LONGEST = 160  # length of t from which its products take more space than they save time
WORTH = 4  # clusters of a size, for each element of t, from which its products save time
ENOUGH = 1024  # clusters from which a point among the data, and the spread about it, are known well enough


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
    """

    sizes: Floats
    sums: list[Floats]
    origin: Floats
    scale: Floats
    nwithin: int

    @cached_property
    def probes(self) -> tuple[Floats, Floats, Floats]:
        """Sizes, means and products within of d made-up clusters of each size, whose scores give those of all.

        First the origin; v = a and v = -a for each variable a; a + b for each pair, b before a; then each element of S.
        """
        m, d = len(self.origin), len(self.sums[0])
        unit = np.eye(m)
        col, row = np.triu_indices(m, 1)
        v = np.vstack([np.zeros((1, m)), unit, -unit, unit[row] + unit[col], np.zeros((self.nwithin, m))])
        within = np.zeros((d, self.nwithin))
        within[d - self.nwithin :] = np.eye(self.nwithin)
        p_col, p_row = np.triu_indices(round((np.sqrt(8 * self.nwithin + 1) - 1) / 2))
        count = len(self.sizes)
        return (
            np.repeat(self.sizes, d),
            np.tile(self.origin + v * self.scale, (count, 1)),
            np.tile(within * (self.scale[p_row] * self.scale[p_col]), (count, 1)),
        )

    @cached_property
    def readings(self) -> Floats:
        """Coefficients of t as combinations of the scores of the probes of a size, shape (d, d)."""
        m, d = len(self.origin), len(self.sums[0])
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
        s = np.arange(d - self.nwithin, d)
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
        Of the products.
    """
    m = means.shape[1]
    length = 1 + m + m * (m + 1) // 2 + within.shape[1]
    if length > LONGEST or len(sizes) < WORTH * length:
        return None
    if len(sizes) < WORTH * length * _distinct(sizes):
        return None
    some = means[:: max(1, len(means) // ENOUGH)]
    origin, scale = some.mean(axis=0), some.std(axis=0)
    if not (scale > 0).all():
        scale = means.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
    known = np.empty(0) if weights is None else weights
    found, sums = _core.cluster_products(sizes, means, within, origin, scale, known)
    return ClusterProducts(found, sums, origin, scale, within.shape[1])


def _distinct(sizes: Floats) -> int:
    """How many different sizes there are, which sums of weights need not have as whole numbers."""
    if (sizes == sizes[0]).all():
        return 1
    whole = sizes.astype(np.int64)
    if (whole == sizes).all():
        return int(np.count_nonzero(np.bincount(whole)))
    return len(np.unique(sizes))
