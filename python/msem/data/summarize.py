"""`summarize`: statistics of clusters from data of any size, in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from msem.data.clusterstatistics import ClusterStatistics
from msem.data.partitions import is_dask, summarize_partitions
from msem.data.summary import Keep, summary_of
from msem.errors import DataWarning
from msem.settings import require_threads


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
    if keep_clusters not in (False, True, "means"):
        raise ValueError(f'keep_clusters must be False, True or "means", not {keep_clusters!r}')
    keep: Keep = "products" if keep_clusters is True else keep_clusters
    count = require_threads(threads)
    if is_dask(data):
        found = summarize_partitions(data, cluster, variables, keep, client)
    elif client is not None:
        raise ValueError(
            "client= is for a Dask data frame: leave it out, or make one, dask.dataframe.read_parquet(...)"
        )
    else:
        found = summary_of(data, cluster, variables, keep, count)
    if found.dropped_no_cluster:
        warnings.warn(
            f"{found.dropped_no_cluster} rows have no cluster id ({cluster}) and were left out",
            DataWarning,
            stacklevel=2,
        )
    return found
