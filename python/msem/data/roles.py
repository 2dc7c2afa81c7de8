"""Levels of variables, told from the data where nobody says them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msem import _core
from msem.data.columns import numeric_columns
from msem.data.frames import Holes, cluster_codes, clustered_data, columns_of
from msem.errors import DataError


def settled_levels(
    data: Any,
    cluster: str,
    within: Sequence[str] | None,
    between: Sequence[str] | None,
    holes: Holes | None = None,
) -> tuple[Sequence[str], Sequence[str]]:
    """Variables of each level, those not given inferred as `saturated` says."""

    def varying(names: Sequence[str]) -> Sequence[str]:
        return varying_within(data, cluster, names, holes)

    return given_levels(
        within, between, lambda: [name for name in numeric_columns(data) if name != cluster], varying
    )


def given_levels(
    within: Sequence[str] | None,
    between: Sequence[str] | None,
    every: Callable[[], Sequence[str]],
    varying: Callable[[Sequence[str]], Sequence[str]],
) -> tuple[Sequence[str], Sequence[str]]:
    """The same, for data of which `every` gives the variables, and `varying` those that vary within clusters."""
    for name, given in (("within", within), ("between", between)):
        if isinstance(given, str):
            raise DataError(f"{name} must be a list of variables: {name}=[{given!r}]")
    if within is not None:
        once = list(dict.fromkeys(within))
        return once, once if between is None else list(dict.fromkeys(between))
    names = list(every()) if between is None else list(dict.fromkeys(between))
    return varying(names), names


def varying_within(data: Any, cluster: str, names: Sequence[str], holes: Holes | None = None) -> list[str]:
    """Those of the columns that vary within clusters."""
    clustered = clustered_data(data, names, cluster, holes)
    codes, count = cluster_codes(clustered), len(clustered.clusters)
    _, varying = _core.cluster_values(columns_of(clustered, names), codes, count)
    return [name for name, (clusters, _) in zip(names, varying, strict=True) if clusters]
