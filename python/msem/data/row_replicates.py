"""Samples made of some of the rows of another: of clusters drawn with replacement, or all but one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.complete import SampleStatistics
from msem.data.complete_rows import sample_statistics, simple_statistics
from msem.data.model_statistics import statistics_of_rows
from msem.data.numbering import InnerClusters
from msem.data.ordered import ordered_statistics
from msem.data.rows import ClusteredData
from msem.data.sample import Group
from msem.data.survey import Sampled
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]


def some_rows(rows: ClusteredData, units: NDArray[np.intp]) -> ClusteredData:
    """The rows of some clusters, or some rows where they come in none; one that is named again is another one."""
    if rows.codes is None:
        chosen, codes = units, None
    else:
        order = np.argsort(rows.codes, kind="stable")
        first = np.searchsorted(rows.codes[order], np.arange(len(rows.clusters) + 1))
        chosen = np.concatenate([order[first[k] : first[k + 1]] for k in units])
        codes = np.repeat(np.arange(len(units)), np.diff(first)[units])
    columns = {name: values[chosen] for name, values in rows.columns.items()}
    return ClusteredData(
        columns,
        codes,
        pd.RangeIndex(0 if codes is None else len(units)),
        len(chosen),
        {},
        0,
        0,
        complete=rows.complete,
        index=pd.RangeIndex(len(chosen)),
        inner={} if codes is None else inner_clusters(rows.inner, chosen, codes),
    )


def inner_clusters(
    inner: Mapping[str, InnerClusters], chosen: NDArray[np.intp], codes: NDArray[np.intp]
) -> dict[str, InnerClusters]:
    """Clusters within clusters for some of the rows, whose clusters have new numbers; see `some_rows`."""
    out, above = {}, codes
    for name, own in inner.items():
        here = own.codes[chosen]
        _, first, which = np.unique(above * len(own.parent) + here, return_index=True, return_inverse=True)
        order = np.argsort(first)  # of first appearance
        number = np.empty(len(first), dtype=np.int64)
        number[order] = np.arange(len(first))
        kept = here[first[order]]
        weights = None if own.weights is None else own.weights[kept]
        out[name] = InnerClusters(number[which.ravel()], above[first[order]], own.ids[kept], weights=weights)
        above = out[name].codes
    return out


def with_weights(rows: ClusteredData, units: Floats | None, counts: Floats) -> ClusteredData:
    """Rows with other weights, without those that count for nothing.

    Parameters
    ----------
    rows : ClusteredData
    units : ndarray, shape (N,), or None
        Weights of rows within their clusters.
    counts : ndarray
        Of the independent units: clusters, or rows that come in none.
    """
    if rows.codes is None:
        chosen = np.flatnonzero(counts > 0)
        out = some_rows(rows, chosen)
        return replace(out, weights=counts[chosen], sampled=Sampled(counts[chosen]))
    there = np.flatnonzero(counts > 0)
    kept = np.isin(rows.codes, there) & (True if units is None else units > 0)
    codes = np.searchsorted(there, rows.codes[kept])
    columns = {name: values[kept] for name, values in rows.columns.items()}
    n = int(kept.sum())
    return ClusteredData(
        columns,
        codes,
        rows.clusters[there],
        n,
        {},
        0,
        0,
        complete=rows.complete,
        index=pd.RangeIndex(n),
        weights=None if units is None else units[kept],
        sampled=Sampled(counts[there]),
    )


def in_own_order(rows: ClusteredData, order: NDArray[np.intp]) -> ClusteredData:
    """Rows by the order of their clusters and, within these, their values, in whatever order they were given."""
    rows = some_rows(rows, order)
    values = [np.nan_to_num(rows.columns[name], nan=np.inf) for name in sorted(rows.columns)]
    chosen = np.lexsort([*values, *([] if rows.codes is None else [rows.codes])])
    columns = {name: values[chosen] for name, values in rows.columns.items()}
    return replace(rows, columns=columns, codes=None if rows.codes is None else rows.codes[chosen])


def drawn_rows(
    rows: ClusteredData, names: Sequence[Sequence[str]], values: Sequence[NDArray[np.float64]]
) -> ClusteredData:
    """Rows with other values of some variables, missing where they are.

    Parameters
    ----------
    rows : ClusteredData
    names : sequence of sequences of str
        Of variables of units, and of clusters.
    values : sequence of ndarray
        A row for each of these, a column for each variable.
    """
    columns = dict(rows.columns)
    for level, (own, drawn) in enumerate(zip(names, values, strict=True)):
        of_rows = drawn if not level else drawn[rows.cluster_of_row]
        for k, name in enumerate(own):
            columns[name] = np.where(np.isnan(columns[name]), np.nan, of_rows[:, k])
    return replace(rows, columns=columns)


def group_of_rows(table: ParameterTable, group: Group, rows: ClusteredData, number: int) -> Group:
    """A group with other rows of the same variables.

    Raises
    ------
    DataError
        If a category does not occur among them, or a first stage cannot be estimated.
    """
    s = group.statistics
    if s.first_stage is not None:
        return first_stage_of_rows(table, group, rows, number)
    found = statistics_of_rows(table, rows, number)
    if s.integral is not None:
        found = s.integral.again(found, rows)
    elif not table.meanstructure:
        found = found.centred()
    return replace(group, statistics=found, data=rows)


def first_stage_of_rows(table: ParameterTable, group: Group, rows: ClusteredData, number: int) -> Group:
    """A group with the first stage of rows of its variables.

    Raises
    ------
    DataError
        If it cannot be estimated.
    """
    s = group.statistics
    levels = range(1, table.nlevels + 1)
    found = ordered_statistics(
        counted_statistics(table, rows),
        rows,
        s.labels,
        [table.exogenous(level, number) for level in levels],
        [table.thresholds(level, number) for level in levels],
        group.place,
    )
    return replace(group, statistics=found, data=rows)


def counted_statistics(table: ParameterTable, rows: ClusteredData) -> SampleStatistics:
    """Statistics of rows for what they count: where values are missing, as if they were at the mean."""
    if not rows.complete:
        columns = {
            name: np.where(np.isnan(own), np.nanmean(own), own) if np.isnan(own).any() else own
            for name, own in rows.columns.items()
        }
        rows = replace(rows, columns=columns, complete=True)
    if not table.multilevel:
        return simple_statistics(rows, table.observed(1))
    return sample_statistics(rows, table.variables)


def first_alike(rows: ClusteredData, names: Sequence[str], count: int) -> NDArray[np.intp]:
    """For each unit the first one with the same values: itself where rows come in clusters."""
    if rows.codes is not None:
        return np.arange(count)
    values = np.nan_to_num(rows.values(tuple(names)), nan=np.inf)
    _, first, which = np.unique(values, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[which.ravel()], dtype=np.intp)


def drawn_units(counts: Sequence[int], seed: int, number: int) -> list[NDArray[np.intp]]:
    """Units of each group drawn with replacement, from the stream of a replicate."""
    stream = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
    return [stream.integers(0, count, count).astype(np.intp) for count in counts]


def all_but_one(counts: Sequence[int], number: int) -> list[NDArray[np.intp]]:
    """Units of each group without one, which are counted over all groups."""
    out = []
    for count in counts:
        units = np.arange(count)
        out.append(np.delete(units, number) if 0 <= number < count else units)
        number -= count
    return out
