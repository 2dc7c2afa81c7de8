"""Where a sample comes from, and what of it was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample comes from, and what of it was left out.

    Attributes
    ----------
    given_as : str
        What the sample was given as: raw data, moments with cluster sizes, moments with N and J only.
    dropped_rows, dropped_no_cluster, dropped_no_group : int
        Rows left out because a variable, the cluster id, or the group was missing.
    dropped_empty : int
        Rows left out because nothing was observed in them, where rows with missing values are kept.
    dropped : mapping of str to int
        Rows in which each variable was missing.
    """

    given_as: str = "raw data"
    dropped_rows: int = 0
    dropped_empty: int = 0
    dropped_no_cluster: int = 0
    dropped_no_group: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
