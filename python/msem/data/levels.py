"""Variables of each level, told from the rows where they are not named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from msem import _core
from msem.data.columns import numeric_columns
from msem.data.frames import Holes, clustered_data
from msem.data.rows import cluster_codes, columns_of
from msem.errors import DataError
from msem.settings import several


def chosen_levels(
    data: Any,
    columns: Sequence[str],
    chosen: Sequence[Sequence[str] | None],
    holes: Holes | None = None,
    without: Collection[str] = (),
) -> list[Sequence[str]]:
    """Variables of each level, those not given inferred as `saturated` says.

    Parameters
    ----------
    data : data frame
    columns : sequence of str
        Columns of cluster ids, the highest first.
    chosen : sequence of (sequence of str or None)
        Variables of each level, level 1 first. Some may be None if there are two levels; else all or none.
    holes : Holes, optional
    without : collection of str
        Columns that are not variables unless they are named: weights, strata and the like.

    Raises
    ------
    DataError
        If they are given for another number of levels.
    """

    def every() -> list[str]:
        return [name for name in numeric_columns(data) if name not in columns and name not in without]

    if len(columns) == 1 and len(chosen) == 2:
        within, between = chosen

        def varying(names: Sequence[str]) -> Sequence[str]:
            return varying_within(data, columns[0], names, holes)

        return list(resolve_levels(within, between, every, varying))
    given = [own for own in chosen if own is not None]
    if given and len(given) != len(columns) + 1:
        raise DataError(
            f"cluster= names {len(columns)} column{'s' if len(columns) > 1 else ''}, so there are {len(columns) + 1} "
            "levels: levels= takes the variables of each, level 1 first"
        )
    return given or levels_of(data, columns, every(), holes)


def levels_of(
    data: Any, columns: Sequence[str], names: Sequence[str], holes: Holes | None = None
) -> list[Sequence[str]]:
    """Each variable at the lowest level at which it varies, and at all above, level 1 first."""
    highest, *inner = columns
    clustered = clustered_data(data, names, highest, holes, inner=inner)
    lower = list(clustered.inner.values())[::-1]
    codes = [
        *((one.codes, len(one.parent)) for one in lower),
        (cluster_codes(clustered), len(clustered.clusters)),
    ]
    out: list[Sequence[str]] = []
    below = set[str]()
    for code, count in codes:
        _, varying = _core.cluster_values(columns_of(clustered, names), code, count)
        below |= {name for name, (clusters, _) in zip(names, varying, strict=True) if clusters}
        out.append([name for name in names if name in below])
    return [*out, names]


def resolve_levels(
    within: Sequence[str] | None,
    between: Sequence[str] | None,
    every: Callable[[], Sequence[str]],
    varying: Callable[[Sequence[str]], Sequence[str]],
) -> tuple[Sequence[str], Sequence[str]]:
    """Variables of each level of data of any kind, those not given inferred as `saturated` says.

    `every` gives all variables, `varying` those of some that vary within clusters.

    """
    if within is not None:
        once = several(within)
        return once, once if between is None else several(between)
    names = several(every() if between is None else between)
    return varying(names), names


def varying_within(data: Any, cluster: str, names: Sequence[str], holes: Holes | None = None) -> list[str]:
    """Those of the columns that vary within clusters."""
    return list(levels_of(data, [cluster], names, holes)[0])
