"""Statistics of clusters of several sources: merged into one, or taken together as the groups of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from msem.data.cluster_table import BY_SIZE, ClusterTable
from msem.data.columns import listed
from msem.data.complete import merge_sizes
from msem.data.sums import ClusterSums, common_ids, merged_sums, same_numbers
from msem.data.weighting import Weighting, merged_marks, merged_weighting
from msem.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Table = TypeVar("Table", bound=ClusterTable)


def require_same_variables(one: ClusterTable, two: ClusterTable) -> None:
    """Refuse statistics of different variables or cluster columns."""
    if set(one.variables) != set(two.variables):
        only = [listed(sorted(set(a.variables) - set(b.variables))) for a, b in ((one, two), (two, one))]
        raise DataError(
            f"cannot merge statistics of different variables: only the first have {only[0] or 'none'}, only the second "
            f"{only[1] or 'none'}. Rows that lack a value of any variable are left out, so summarize the same variables"
        )
    if one.cluster != two.cluster:
        raise DataError(
            f"cannot merge statistics by cluster column {one.cluster_text} and by {two.cluster_text}: rename the column"
        )


def combined(one: Table, two: Table) -> Table:
    """Statistics of both without looking at whether they have a summary in common."""
    if not one.nclusters:
        one, two = two, one  # which has a point within the data as origin
    two = two if one.variables == two.variables else two.restrict(one.variables)
    sums: ClusterSums | None = None
    parts: dict[str, Any] | None = None
    weighting, psus = one.weighting, None
    if one.weighting is not None and two.weighting is not None:
        weighting, psus = merged_weighting(one.weighting, two.weighting)
    elif one.weighting is not None or two.weighting is not None:
        known = one.weighting or two.weighting
        assert known is not None
        known.require_like(None)
    a, b = one.ids, two.ids
    ids = None if a is None or b is None else common_ids(a, b, str(one.cluster))
    if one.sums is not None and two.sums is not None:
        sums, parts, place, tally = merged_sums(
            (one.sums, one.origin, one.ssw), (two.sums, two.origin, two.ssw), str(one.cluster)
        )
        ids = sums.ids
        if weighting is not None and tally is not None:
            marks = merged_marks(one.sums, two.sums, place, tally, weighting.columns, psus)
            sums = replace(sums, marks=marks)
            parts = weighting.table(sums)
    elif ids is not None and len(ids) < len(one.ids) + len(two.ids):  # type: ignore[arg-type]
        shared = listed(list(one.ids.intersection(two.ids)), most=5)  # type: ignore[union-attr,arg-type]
        raise DataError(
            f"clusters occur on both sides of the sum: {shared}. Parts of one cluster can be put together only if all "
            "summaries keep their clusters: msem.summarize(..., keep_clusters=True)"
        )
    if parts is None:
        shift = two.origin - one.origin
        other = replace(two, means=two.means + shift)
        if weighting is not None:
            one, other = one.with_factor(1.0), other.with_factor(1.0)
        by_size = merge_sizes(
            (one.sizes, one.counts, one.means, one.scatter),
            (other.sizes, other.counts, other.means, other.scatter),
        )
        table: dict[str, Any] = dict(zip(BY_SIZE, by_size, strict=True)) | {"ssw": one.ssw + other.ssw}
        if weighting is not None:
            table["weighting"] = _merged_cells(weighting, one, other, by_size[0])
        parts = table
    names = dict.fromkeys([*one.dropped, *two.dropped])
    cells = parts["counts"] if weighting is None else parts["weighting"].cells
    found = replace(
        one,
        **parts,
        nobs=one.nobs + two.nobs,
        nclusters=float(cells.sum()),
        sums=sums,
        ids=ids,
        nrows=one.nrows + two.nrows,
        dropped={name: one.dropped.get(name, 0) + two.dropped.get(name, 0) for name in names},
        dropped_rows=one.dropped_rows + two.dropped_rows,
        dropped_no_cluster=one.dropped_no_cluster + two.dropped_no_cluster,
        origins=one.origins | two.origins,
    )
    return found if weighting is None or sums is not None else found.normalised


def _merged_cells(weighting: Weighting, one: ClusterTable, two: ClusterTable, sizes: Floats) -> Weighting:
    """The weighting of both, whose clusters are counted by weights as given."""
    cells = np.zeros(len(sizes))
    for part in (one, two):
        assert part.weighting is not None
        cells[np.searchsorted(sizes, part.sizes)] += part.weighting.cells
    return replace(weighting, cells=cells, factor=1.0, psus=None)


def scaled_together(parts: Sequence[Table], nlevels: int) -> tuple[Table, ...]:
    """The groups of a sample with weights as they enter the likelihood; see `scaled_weights`.

    Parameters
    ----------
    parts : sequence of ClusterTable
    nlevels : {1, 2}

    Raises
    ------
    DataError
        If some have weights and others have not, or for one level clusters have weights or were not kept.
    """
    known = [part.weighting for part in parts if part.weighting is not None]
    if not known:
        return tuple(parts)
    for part in parts:
        known[0].require_like(part.weighting)
    psus, places = known[0].psus, [np.arange(0 if known[0].psus is None else len(known[0].psus.ids))]
    for own in known[1:]:
        if psus is None or own.psus is None:
            break
        psus, place = psus.joined(own.psus, same_numbers)
        places.append(place)
    moved = [
        replace(part, weighting=replace(own, psus=psus), sums=_with_psus(part.sums, place))
        for part, own, place in zip_longest(parts, known, places)
    ]
    if nlevels > 1:
        independent = [
            len(part.kept.tree[-1][1]) if part.has_inner else own.cells.sum()
            for part, own in zip(parts, known, strict=True)
        ]
        total = sum(own.totals[2] for own in known)
        return tuple(part.with_factor(sum(independent) / total) for part in moved)
    columns, scale = known[0].columns, known[0].scale
    if columns.cluster_weights is not None:
        raise DataError(
            f"cluster_weights={columns.cluster_weights!r} of these statistics are for two-level models: a single-level "
            "model has weights= of its rows; summarize these with weights= alone"
        )
    if columns.weights is None or (scale == "none" and all(part.sums is None for part in parts)):
        return tuple(moved)
    sums = [part.kept for part in parts]
    total = sum(float(one.sizes.sum()) for one in sums)
    if scale == "none":
        pooled = 1.0
    elif scale == "size":
        pooled = sum(part.nobs for part in parts) / total
    else:
        pooled = total / sum(float(one.marks.squares.sum()) for one in sums if one.marks is not None)
    return tuple(
        replace(part, **replace(part.weighting, pooled=pooled).table(part.kept)) if part.weighting else part
        for part in moved
    )


def _with_psus(sums: ClusterSums | None, place: Ints | None) -> ClusterSums | None:
    """The clusters with their PSUs numbered anew."""
    if sums is None or sums.marks is None or sums.marks.psu is None or place is None:
        return sums
    return replace(sums, marks=replace(sums.marks, psu=place[sums.marks.psu]))
