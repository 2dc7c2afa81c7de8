"""Results for clusters and for units as data frames that line up with the data of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.postestimation.rows import Rows

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class GroupColumns:
    """Columns of one group.

    Attributes
    ----------
    rows : Rows
    columns : mapping of str to ndarray
        One value for each cluster or for each unit.
    label : str
        Of the group; "" when there is one group only.
    """

    rows: Rows
    columns: Columns
    label: str = ""


def cluster_frame(parts: Sequence[GroupColumns], cluster: str) -> pd.DataFrame:
    """One row for each cluster, indexed by cluster id, in order of first appearance.

    If the model has several groups the first column is `group`, the label of the cluster's group.
    """
    frames = []
    for part in parts:
        frame = pd.DataFrame(dict(part.columns), index=part.rows.data.clusters)
        if part.label:
            frame.insert(0, "group", part.label)
        frames.append(frame)
    return pd.concat(frames).rename_axis(index=cluster or None)


def unit_frame(parts: Sequence[GroupColumns]) -> pd.DataFrame:
    """One row for each row of the data as given, with its index; nan in rows that were left out."""
    index = parts[0].rows.data.index
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    out = {name: np.full(len(index), np.nan) for name in names}
    for part in parts:
        at: Any = slice(None) if part.rows.data.rows is None else part.rows.data.rows
        for name, values in part.columns.items():
            out[name][at] = values
    return pd.DataFrame(out, index=index)


def merged(within: Columns, between: Columns, rows: Rows) -> dict[str, Floats]:
    """Columns of units and those of their clusters; the latter end in ``.l2`` where both have the name."""
    codes = rows.data.codes
    assert codes is not None
    out = dict(within)
    for name, values in between.items():
        out[f"{name}.l2" if name in within else name] = values[codes]
    return out
