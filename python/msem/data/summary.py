"""Statistics of clusters built up from chunks of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from msem import _core
from msem.data.chunks import Chunk, chunks_of, reader_of
from msem.data.clusterstatistics import ClusterStatistics
from msem.data.clustersums import finished, sums_of
from msem.data.frames import require_distinct_roles
from msem.data.identifiers import ClusterIds, require_different_texts
from msem.data.screening import no_row_left
from msem.errors import DataError

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
    if isinstance(names, str):
        raise DataError(f"variables must be a list of names: variables=[{names!r}]")
    chosen = list(dict.fromkeys(name for name in names if not (every and name == cluster)))
    require_distinct_roles(chosen, cluster)
    if not chosen:
        raise DataError(
            "there is no numeric column to summarize" if every else "variables= names no variable"
        )
    return chosen
