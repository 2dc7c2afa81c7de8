"""Statistics of clusters from a Dask data frame: one summary for each partition, put together in a tree."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import pandas as pd

from msem.data.chunks import FrameReader, chunks_of
from msem.data.clusterstatistics import ClusterStatistics, combined
from msem.data.columns import numeric_columns, require_known
from msem.data.summary import Keep, Summary, chosen_variables, with_rows
from msem.errors import DataError

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
