"""Clusters of rows, and clusters within them, numbered in order of first appearance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import Bools, Column, Columns, Floats, kept_ids
from msem.data.identifiers import factorized, require_different_texts
from msem.errors import DataError, DataWarning, warn


@dataclass(frozen=True, eq=False)
class InnerClusters:
    """Clusters within clusters, told apart by the pair of ids.

    Attributes
    ----------
    codes : ndarray of int64, shape (N,)
        Cluster of each row, numbered 0..J-1 in order of first appearance.
    parent : ndarray of int64, shape (J,)
        The cluster one level above that each is in.
    ids : pandas.Index, length J
        Their ids, which may repeat in different clusters above.
    crossed : bool
        Whether they do not lie within the others, but are crossed with them; then they have no parents.
    weights : ndarray, shape (J,), or None
        How often each counts in the cluster that it is in; None if all count once.
    """

    codes: NDArray[np.int64]
    parent: NDArray[np.int64]
    ids: pd.Index[Any]
    crossed: bool = False
    weights: Floats | None = None


def number_clusters(cluster: str, ids: Column, keep: Bools) -> tuple[NDArray[np.int64], pd.Index[Any]]:
    """Codes 0..J-1 of the kept rows in order of first appearance, and the ids in that order."""
    values = kept_ids(ids, keep)
    plain = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.isnative
    if plain and values.dtype.kind == "i":
        numbers = _core.Identifiers()
        codes = numbers.number(values)
        return codes, pd.Index(numbers.ids().astype(values.dtype, copy=False))
    ordered = plain and values.dtype.kind in "ufM"
    if ordered and (values[1:] >= values[:-1]).all():
        return number_runs(values)
    codes, index = factorized(cluster, values)
    require_different_texts(cluster, index)
    return codes, index


def number_inner(
    columns: Columns,
    upper: str,
    codes: NDArray[np.int64],
    keep: Bools,
    *,
    crossed: bool,
    known: bool,
) -> dict[str, InnerClusters]:
    """Number the clusters within clusters.

    Parameters
    ----------
    columns : mapping of str to Column
        Their ids, the highest first.
    upper : str
        Column of the clusters that they are in.
    codes : ndarray of int64, shape (N,)
        Of the kept rows, by these.
    keep : ndarray of bool
    crossed : bool
        Whether they are crossed with these instead.
    known : bool
        Whether that need not be seen in the rows.

    Raises
    ------
    DataError
        If a column of clusters is that of the clusters above in truth, or has the same clusters.
    """
    out = {}
    above = codes
    for name, ids in columns.items():
        labels, found = number_clusters(name, ids, keep)
        if crossed and (known or _are_crossed(name, labels, upper, above)):
            return {name: InnerClusters(labels, np.empty(0, dtype=np.int64), found, crossed=True)}
        pairs = above * len(found) + labels
        numbers = _core.Identifiers()
        own = numbers.number(pairs)
        parent, label = np.divmod(np.asarray(numbers.ids()), len(found))
        if not known:
            require_order(upper, name, int(above.max()) + 1, len(parent), len(found))
        out[name] = InnerClusters(own, parent.astype(np.int64), found[label])
        above, upper = own, name
    return out


def require_order(upper: str, name: str, parents: int, count: int, ids: int) -> None:
    """Refuse columns of clusters of which the second does not have more clusters, within those of the first.

    Parameters
    ----------
    upper, name : str
        The columns.
    parents, count : int
        Clusters of the first, and of the second within these.
    ids : int
        Different ids of the second.

    Raises
    ------
    DataError
        Naming the right order, if there is one.
    """
    if count > parents:
        return
    if ids < count:
        raise DataError(
            f"every {upper!r} lies within one {name!r}, so that {name!r} is the higher level: name the highest "
            f"first, cluster=[{name!r}, {upper!r}]"
        )
    raise DataError(
        f"every {upper!r} has one {name!r}, so that these levels cannot be told apart: leave one of them out "
        "of cluster= and of the model"
    )


def _are_crossed(name: str, labels: NDArray[np.int64], upper: str, above: NDArray[np.int64]) -> bool:
    """Whether clusters said to be crossed are to be fitted so; with a warning if they are nested.

    Those of level 2 within those of level 3 are levels in the order of nested ones; the other way round the likelihood
    of crossed ones is the one that has them in the order of the model.

    Raises
    ------
    DataError
        If the clusters are the same.
    """
    count, parents = int(labels.max()) + 1, int(above.max()) + 1
    numbers = _core.Identifiers()
    numbers.number(above * count + labels)
    pairs = len(np.asarray(numbers.ids()))
    if pairs == count and count > parents:
        warn(
            f"every {name!r} lies within one {upper!r}: the classifications are nested, not crossed, and are fitted "
            f"so, as with cluster=[{upper!r}, {name!r}]",
            DataWarning,
        )
        return False
    if pairs == parents and parents > count:
        warn(
            f"every {upper!r} lies within one {name!r}: the classifications are nested, not crossed. The model is the "
            f"same; its robust errors and scores need cluster=[{name!r}, {upper!r}] and the block of {upper!r} before "
            f"that of {name!r}",
            DataWarning,
        )
    elif pairs == parents:
        raise DataError(
            f"every {upper!r} has one {name!r}, so that these levels cannot be told apart: leave one of them out "
            "of cluster= and of the model"
        )
    return True


def number_runs(ids: NDArray[Any]) -> tuple[NDArray[np.int64], pd.Index[Any]]:
    """Codes of sorted ids: a new cluster wherever the id changes."""
    starts = np.r_[True, ids[1:] != ids[:-1]]
    return np.cumsum(starts, dtype=np.int64) - 1, pd.Index(ids[starts])


def renumbered(
    codes: NDArray[np.int64], clusters: pd.Index[Any], keep: Bools
) -> tuple[NDArray[np.int64], pd.Index[Any], pd.Index[Any]]:
    """Codes and ids of the clusters of the kept rows, and the ids of those that have none."""
    if keep.all():
        return codes, clusters, clusters[:0]
    own, found = pd.factorize(codes[keep])
    lost = np.ones(len(clusters), dtype=bool)
    lost[found] = False
    return own.astype(np.int64, copy=False), clusters[found], clusters[lost]
