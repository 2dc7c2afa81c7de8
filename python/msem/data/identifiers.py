"""Cluster ids of data that come in pieces, numbered in order of first appearance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from numbers import Number
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import kept_ids, missing_ids, plain_numbers
from msem.errors import DataError

Codes = NDArray[np.int64]
SHIFT = 31  # bits of the number of a lower cluster in that of a pair
EXACT = 2.0**53  # whole numbers below are exact as floats


class ClusterIds:
    """Numbers 0, 1, ... for the ids of a column that comes in pieces.

    Whole numbers are numbered in compiled code, whatever their machine type; other ids by a dictionary.

    Parameters
    ----------
    column : str
        Name of the column, for messages.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._kind = ""
        self._whole: _core.Identifiers | None = _core.Identifiers()
        self._others: dict[Any, int] = {}
        self._type: np.dtype[Any] | None = None

    def __len__(self) -> int:
        return len(self._others) if self._whole is None else len(self._whole)

    def number(self, ids: nw.Series[Any], where: str = "") -> Codes:
        """Codes of the ids of a piece, -1 where the id is missing.

        Raises
        ------
        DataError
            If they are of another kind than those before, or cannot be told apart.
        """
        values = plain_numbers(ids)
        if values is not None and values.dtype.kind in "iu" and self._takes(values, where):
            return self._number_whole(values)
        present = ~missing_ids(ids)
        codes = np.full(len(present), -1, dtype=np.int64)
        if present.any():
            codes[present] = self._number_present(kept_ids(ids, present), where)
        return codes

    def _number_present(self, values: Any, where: str) -> Codes:
        numbers = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iuf"
        if numbers and self._takes(values, where) and are_whole(values):
            return self._number_whole(values.astype(np.int64, copy=False), values.dtype)
        codes, unique = factorized(self.column, values)
        found = list(unique)
        self._require_kind(kind_of(found), where)
        if self._whole is not None:
            self._others = {int(one): code for code, one in enumerate(self._whole.ids())}
            self._whole = None
        self._type = None
        places = [self._others.setdefault(_plain(one), len(self._others)) for one in found]
        return np.array(places, dtype=np.int64)[codes]

    def _number_whole(self, values: NDArray[Any], given: np.dtype[Any] | None = None) -> Codes:
        assert self._whole is not None
        kind = values.dtype if given is None else given
        self._type = kind if self._type is None else np.result_type(self._type, kind)
        return self._whole.number(values)

    def _takes(self, values: NDArray[Any], where: str) -> bool:
        """Whether whole numbers of this type fit those before."""
        self._require_kind("numbers", where)
        large = values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max
        return self._whole is not None and not large

    def _require_kind(self, kind: str, where: str) -> None:
        if self._kind and kind != self._kind:
            raise DataError(
                f"the ids in cluster column {self.column!r} are {kind}{where}, those before are {self._kind}: an id of "
                "another type would be another cluster; convert the column to one type"
            )
        self._kind = kind

    @property
    def index(self) -> pd.Index[Any]:
        """The ids by number."""
        if self._whole is None:
            others: pd.Index[Any] = pd.Index(list(self._others), tupleize_cols=False)
            return others
        ids = self._whole.ids()
        return pd.Index(ids if self._type is None else ids.astype(self._type, copy=False))


class NestedIds:
    """Numbers 0, 1, ... for clusters, or clusters within clusters, of which the columns come in pieces.

    Clusters within clusters have a number for each path.

    Parameters
    ----------
    columns : sequence of str
        Of the highest clusters, of those within them, and so on.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._parts = [ClusterIds(column) for column in columns]
        self._pairs = [_core.Identifiers() for _ in columns[1:]]

    def __len__(self) -> int:
        return len(self._pairs[-1] if self._pairs else self._parts[0])

    def number(self, ids: Sequence[nw.Series[Any]], where: str = "") -> list[Codes]:
        """Codes of the clusters of each column in a piece, -1 where an id is missing; see `ClusterIds.number`."""
        own = [part.number(one, where) for part, one in zip(self._parts, ids, strict=True)]
        if not self._pairs:
            return own
        present = np.logical_and.reduce([codes >= 0 for codes in own])
        path = own[0][present]
        out = [np.full(len(present), -1, dtype=np.int64) for _ in own]
        out[0][present] = path
        for pairs, codes, numbers in zip(self._pairs, own[1:], out[1:], strict=True):
            path = pairs.number(path << SHIFT | codes[present])
            numbers[present] = path
        return out

    def labels(self, column: int) -> pd.Index[Any]:
        """Ids of the clusters of a column (from 0) by number; they may repeat in different clusters above."""
        part = self._parts[column].index
        if not column:
            return part
        known = np.asarray(self._pairs[column - 1].ids(), dtype=np.int64)
        return part[known & ((1 << SHIFT) - 1)]

    def above(self) -> list[Codes]:
        """The cluster of each column, the highest first, that each lowest one is in, itself at last."""
        path = np.arange(len(self))
        out = [path]
        for pairs in self._pairs[::-1]:
            path = np.asarray(pairs.ids(), dtype=np.int64)[path] >> SHIFT
            out.append(path)
        return out[::-1]

    @property
    def index(self) -> pd.Index[Any]:
        """The paths of ids by number; of one column its ids."""
        if not self._pairs:
            return self.labels(0)
        ids = [self.labels(k)[path] for k, path in enumerate(self.above())]
        return pd.MultiIndex.from_arrays(ids, names=self.columns)


def factorized(column: str, values: Any) -> tuple[Codes, pd.Index[Any]]:
    """Codes of ids in order of first appearance, and the ids in that order.

    Raises
    ------
    DataError
        If they cannot be hashed.
    """
    try:
        codes, unique = pd.factorize(values)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the ids in cluster column {column!r} cannot be told apart ({error}): use numbers or strings"
        ) from None
    return codes.astype(np.int64, copy=False), pd.Index(unique, tupleize_cols=False)


def are_whole(values: NDArray[Any]) -> bool:
    """Whether numbers are whole, and exact as floats if they are floats."""
    if values.dtype.kind in "iu":
        return True
    return values.dtype.kind == "f" and bool(((values == np.trunc(values)) & (np.abs(values) < EXACT)).all())


def kind_of(ids: Iterable[Any]) -> str:
    """What ids are, in words."""
    kinds = list(dict.fromkeys(map(_kind, ids)))
    return " and ".join(kinds) if kinds else "numbers"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, (bool, np.bool_)):
        return "truth values"
    if isinstance(value, Number):
        return "numbers"
    if isinstance(value, (dt.date, dt.timedelta, np.datetime64, np.timedelta64)):
        return "times"
    return f"of type {type(value).__name__}"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def require_different_texts(column: str, ids: pd.Index[Any]) -> None:
    """Refuse ids of several types that look alike, such as 1 and "1".

    Raises
    ------
    DataError
        Naming the first such pair.
    """
    if isinstance(ids, pd.MultiIndex):
        for k, name in enumerate(ids.names):
            require_different_texts(str(name), ids.get_level_values(k).unique())
        return
    if ids.dtype != object or " and " not in kind_of(ids):
        return
    seen: dict[str, Any] = {}
    for one in ids:
        other = seen.setdefault(str(one), one)
        if _kind(other) != _kind(one):
            raise DataError(
                f"cluster column {column!r} has the ids {other!r} and {one!r}, which differ only by type: is that one "
                "cluster or two? Convert the column to one type"
            )
