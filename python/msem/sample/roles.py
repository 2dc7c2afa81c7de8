"""Levels of variables, told from the data where nobody says them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msem import _core
from msem.errors import DataError
from msem.sample.columns import numeric_columns
from msem.sample.frames import Holes, clustered_data
from msem.sample.statistics import cluster_codes, columns_of


def settled_levels(
    data: Any,
    cluster: str,
    within: Sequence[str] | None,
    between: Sequence[str] | None,
    holes: Holes | None = None,
) -> tuple[Sequence[str], Sequence[str]]:
    """Variables of each level, those not given inferred as `saturated` says."""
    for name, given in (("within", within), ("between", between)):
        if isinstance(given, str):
            raise DataError(f"{name} must be a list of variables: {name}=[{given!r}]")
    if within is not None:
        once = list(dict.fromkeys(within))
        return once, once if between is None else list(dict.fromkeys(between))
    if between is None:
        names = [name for name in numeric_columns(data) if name != cluster]
    else:
        names = list(dict.fromkeys(between))
    return varying_within(data, cluster, names, holes), names


def varying_within(data: Any, cluster: str, names: Sequence[str], holes: Holes | None = None) -> list[str]:
    """Those of the columns that vary within clusters."""
    clustered = clustered_data(data, names, cluster, holes)
    codes, count = cluster_codes(clustered), len(clustered.clusters)
    _, varying = _core.cluster_values(columns_of(clustered, names), codes, count)
    return [name for name, (clusters, _) in zip(names, varying, strict=True) if clusters]
