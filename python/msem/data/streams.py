"""`summarize`: statistics of clusters from data of any size, in one pass."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, Literal

import pandas as pd

from msem import _core
from msem.data.chunks import Chunk, FrameReader, chunks_of, reader_of
from msem.data.clusters import ClusterStatistics, combined
from msem.data.columns import numeric_columns, require_known
from msem.data.frames import require_distinct_roles
from msem.data.identifiers import ClusterIds, require_different_texts
from msem.data.screening import no_row_left
from msem.data.sums import finished, sums_of
from msem.entry import entry
from msem.errors import DataError, DataWarning, MsemError, UnsupportedError, warn
from msem.settings import require_threads, several


@entry
def summarize(
    data: Any,
    *,
    cluster: str,
    variables: Sequence[str] | None = None,
    keep_clusters: bool | Literal["means"] = False,
    threads: int | None = None,
    client: Any = None,
) -> ClusterStatistics:
    """Reduce two-level data to the statistics that models are fitted from, in one pass.

    `msem.sem`, `msem.saturated`, `msem.segregated` and compiled models take the result in place of data. Memory is that
    of the clusters and of a block of rows, however many rows there are and in whatever order.

    Parameters
    ----------
    data : data frame, Arrow data, files or iterable of frames
        A pandas, polars or pyarrow table, or a dict of arrays; a lazy frame of polars; a pyarrow data set, scanner or
        reader of record batches, or an object with the Arrow C stream interface; the path of a Parquet or Arrow file or
        of a directory of them, or a list of paths; an iterable of frames; a Dask data frame.
    cluster : str
        Column with the cluster ids: numbers or text, or anything else that can be hashed.
    variables : sequence of str, optional
        Default: all numeric columns but that of the clusters. Rows that lack a value of any of them are left out and
        counted, so name those that models will need.
    keep_clusters : bool or "means"
        Keep the statistics of every single cluster: parts of a cluster in different summaries can then be put together,
        and there are robust standard errors and resampling. "means": only what is needed to put parts together.
    threads : int, optional
        Default: one for each processor.
    client : distributed.Client, optional
        For a Dask data frame; default: what ``dask.compute`` uses.

    Returns
    -------
    ClusterStatistics

    Raises
    ------
    DataError
        If a column is unknown, not numeric, infinite, or changes its type between pieces; if ids differ only by type,
        or no complete row is left; if files are damaged or a stream breaks off.
    ImportError
        If files or Arrow data are given and pyarrow is not installed.

    Warns
    -----
    DataWarning
        If rows have no cluster id.
    """
    if isinstance(cluster, (list, tuple)):
        if len(cluster) != 1:
            raise UnsupportedError(
                f"cluster={list(cluster)!r} names {len(cluster)} columns: summaries know clusters of one kind, and "
                "models of three levels and of crossed classifications are fitted to rows, msem.sem(model, data, "
                f"cluster={list(cluster)!r}); for a model of two levels name the highest clusters only, "
                f"cluster={cluster[0]!r}"
                if cluster
                else "cluster= names no column: give that of the clusters"
            )
        cluster = cluster[0]
    if keep_clusters not in (False, True, "means"):
        raise MsemError(f'keep_clusters must be False, True or "means", not {keep_clusters!r}')
    keep: Keep = "products" if keep_clusters is True else keep_clusters
    count = require_threads(threads)
    if is_dask(data):
        found = summarize_partitions(data, cluster, variables, keep, client)
    elif client is not None:
        raise MsemError(
            "client= is for a Dask data frame: leave it out, or make one, dask.dataframe.read_parquet(...)"
        )
    else:
        found = summary_of(data, cluster, variables, keep, count)
    if found.dropped_no_cluster:
        warn(f"{found.dropped_no_cluster} rows have no cluster id ({cluster}) and were left out", DataWarning)
    return found


Keep = Literal[False, "means", "products"]


class Summary:
    """Statistics that are built up from chunks of rows.

    Parameters
    ----------
    variables : sequence of str
    cluster : str
    keep : {False, "means", "products"}
        What is kept of every cluster.
    threads : int
    """

    def __init__(self, variables: Sequence[str], cluster: str, keep: Keep, threads: int) -> None:
        self.variables, self.cluster, self.keep, self.threads = tuple(variables), cluster, keep, threads
        self.core = _core.Accumulator(len(variables), keep == "products")
        self.ids = ClusterIds(cluster)
        self.nrows = 0
        self.counts = Counter[str]()
        self.missing = Counter[str]()

    def add(self, chunk: Chunk) -> None:
        """Add the rows of a chunk.

        Raises
        ------
        DataError
            If a value is infinite, or ids are of another type than before.
        """
        codes = self.ids.number(chunk.ids, chunk.where)
        report = self.core.add(chunk.columns, codes, len(self.ids), self.threads)
        for name, infinite, first, missing in zip(
            self.variables, report["infinite"], report["first_infinite"], report["missing"], strict=True
        ):
            if infinite:
                raise DataError(
                    f"variable {name!r} is infinite in {infinite} row(s){chunk.where}, first in row "
                    f"{self.nrows + first} (counted from 0): correct the value, or make it missing"
                )
            if missing:
                self.missing[name] += missing
        self.nrows += len(codes)
        self.counts.update({name: report[name] for name in ("used", "incomplete", "no_cluster")})

    def statistics(self) -> ClusterStatistics:
        """The statistics of all that was added.

        Raises
        ------
        DataError
            If ids differ only by type.
        """
        index = self.ids.index
        require_different_texts(self.cluster, index)
        ids, found = finished(self.core, index)
        table: dict[str, Any] = dict(found)
        return ClusterStatistics(
            variables=self.variables,
            cluster=self.cluster,
            nobs=float(self.counts["used"]),
            nclusters=float(table["counts"].sum()),
            origin=self.core.origin,
            sums=sums_of(self.core, ids) if self.keep else None,
            ids=ids,
            nrows=self.nrows,
            dropped=dict(self.missing),
            dropped_rows=self.counts["incomplete"],
            dropped_no_cluster=self.counts["no_cluster"],
            **table,
        )


def summary_of(
    data: Any, cluster: str, variables: Sequence[str] | None, keep: Keep, threads: int
) -> ClusterStatistics:
    """Statistics of data in one piece or in many; see `msem.summarize`."""
    reader = reader_of(data)
    names = chosen_variables(reader.numeric() if variables is None else variables, cluster, variables is None)
    summary = Summary(names, cluster, keep, threads)
    for chunk in chunks_of(reader, names, cluster):
        summary.add(chunk)
    return with_rows(summary.statistics())


def with_rows(found: ClusterStatistics) -> ClusterStatistics:
    """The statistics.

    Raises
    ------
    DataError
        If they are of no row at all.
    """
    if found.nobs:
        return found
    if not found.nrows:
        raise DataError("the data have no rows")
    raise no_row_left(found.dropped, found.dropped_no_cluster, found.cluster, found.nrows)


def chosen_variables(names: Sequence[str], cluster: str, every: bool) -> list[str]:
    """The variables to summarize, each once; of `every` numeric column all but the ids.

    Raises
    ------
    DataError
        If there are none, or the cluster column is among those named.
    """
    chosen = [name for name in several(names) if not (every and name == cluster)]
    require_distinct_roles(chosen, cluster)
    if not chosen:
        raise DataError(
            "there is no numeric column to summarize" if every else "variables= names no variable"
        )
    return chosen


FAN = 8  # summaries that are put together at a time


def is_dask(data: Any) -> bool:
    """Whether data are a Dask data frame; Dask is not imported."""
    return type(data).__module__.partition(".")[0] in ("dask", "dask_expr") and hasattr(data, "to_delayed")


def summarize_partitions(
    data: Any, cluster: str, variables: Sequence[str] | None, keep: Keep, client: Any = None
) -> ClusterStatistics:
    """Summarize a Dask data frame on its workers.

    Clusters may have rows in several partitions: means of every cluster go from task to task, whatever is kept at the
    end. A task depends on its input alone, so that those of a worker that is lost are done again.

    Raises
    ------
    DataError
        As `msem.summarize`; partitions are named by number, from 0.
    """
    dask = importlib.import_module("dask")
    every = variables is None
    given = numeric_columns(data._meta) if variables is None else variables
    names = chosen_variables(given, cluster, every)
    require_known([*names, cluster], list(data.columns))
    make = dask.delayed(partition_statistics, pure=True)
    join = dask.delayed(joined_statistics, pure=True)
    parts = [
        make(part, names, cluster, keep or "means", number)
        for number, part in enumerate(data[[*names, cluster]].to_delayed())
    ]
    while len(parts) > 1:
        parts = [join(parts[at : at + FAN]) for at in range(0, len(parts), FAN)]
    whole = join(parts)
    found: ClusterStatistics = dask.compute(whole)[0] if client is None else client.compute(whole).result()
    return with_rows(found if keep else replace(found, sums=None))


def partition_statistics(
    frame: pd.DataFrame, variables: Sequence[str], cluster: str, keep: Keep, number: int
) -> ClusterStatistics:
    """Statistics of one partition, which may be of no rows."""
    summary = Summary(variables, cluster, keep, 1)
    try:
        for chunk in chunks_of(FrameReader(frame), variables, cluster):
            summary.add(chunk)
    except DataError as error:
        raise DataError(f"partition {number}: {error}") from None
    return summary.statistics()


def joined_statistics(parts: Sequence[ClusterStatistics]) -> ClusterStatistics:
    """Statistics of several partitions together; some may be equal, which is no mistake here."""
    return reduce(combined, parts)
