"""`summarize`: statistics of clusters from data of any size, in one pass."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.chunks import Chunk, FrameReader, chunks_of, reader_of
from msem.data.clusters import ClusterStatistics
from msem.data.columns import numeric_columns, require_known
from msem.data.frames import require_distinct_roles
from msem.data.identifiers import NestedIds, require_different_texts
from msem.data.merging import combined
from msem.data.screening import no_row_left
from msem.data.sums import finished, sums_of
from msem.data.survey import Scale, SurveyColumns, survey_columns
from msem.data.weighting import SurveySums
from msem.entry import entry
from msem.errors import DataError, DataWarning, MsemError, UnsupportedError, warn
from msem.settings import Settings, require_threads, several

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@entry
def summarize(
    data: Any,
    *,
    cluster: str | Sequence[str],
    variables: Sequence[str] | None = None,
    keep_clusters: bool | Literal["means"] = False,
    weights: str | None = None,
    cluster_weights: str | Sequence[str | None] | None = None,
    weights_scale: str = "size",
    psu: str | None = None,
    strata: str | None = None,
    fpc: str | None = None,
    single_psu: str = "error",
    threads: int | None = None,
    client: Any = None,
) -> ClusterStatistics:
    """Reduce clustered data to the statistics that models are fitted from, in one pass.

    `msem.sem`, `msem.saturated`, `msem.segregated` and compiled models take the result in place of data. Memory is that
    of the clusters and of a block of rows, however many rows there are and in whatever order.

    Parameters
    ----------
    data : data frame, Arrow data, files or iterable of frames
        A pandas, polars or pyarrow table, or a dict of arrays; a lazy frame of polars; a pyarrow data set, scanner or
        reader of record batches, or an object with the Arrow C stream interface; the path of a Parquet or Arrow file or
        of a directory of them, or a list of paths; an iterable of frames; a Dask data frame.
    cluster : str or sequence of str
        Column with the cluster ids: numbers or text, or anything else that can be hashed. For models of three and more
        levels several, the highest clusters first, with ``keep_clusters=True``.
    variables : sequence of str, optional
        Default: all numeric columns but those of the clusters. Rows that lack a value of any of them are left out and
        counted, so name those that models will need.
    keep_clusters : bool or "means"
        Keep the statistics of every single cluster: parts of a cluster in different summaries can then be put together,
        and there are robust standard errors and resampling. "means": only what is needed to put parts together (with
        weights all of it is).
    weights, cluster_weights, weights_scale, psu, strata, fpc, single_psu
        How the rows were sampled; see `sem`. What is fitted to the statistics takes this from them. Errors come from
        single clusters, so they need `keep_clusters`; without, there are estimates, and `saturated` moments without
        Gamma.
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
        or no complete row is left; if files are damaged or a stream breaks off; if columns of clusters are not named
        from the highest down, or weights or a design cannot be used, as in `sem`.
    ImportError
        If files or Arrow data are given and pyarrow is not installed.

    Warns
    -----
    DataWarning
        If rows have no cluster id.
    """
    if keep_clusters not in (False, True, "means"):
        raise MsemError(f'keep_clusters must be False, True or "means", not {keep_clusters!r}')
    keep: Keep = "products" if keep_clusters is True else keep_clusters
    names = _clusters_of_summary(cluster, keep)
    count = require_threads(threads)
    given = {"weights": weights, "cluster_weights": cluster_weights, "weights_scale": weights_scale}
    given |= {"psu": psu, "strata": strata, "fpc": fpc, "single_psu": single_psu}
    settings = Settings.read(given, "summarize")
    survey = _survey_of_summary(settings, names, keep)
    if is_dask(data):
        found = summarize_partitions(data, names, variables, keep, client, survey)
    elif client is not None:
        raise MsemError(
            "client= is for a Dask data frame: leave it out, or make one, dask.dataframe.read_parquet(...)"
        )
    else:
        found = summary_of(data, names, variables, keep, count, survey)
    found.require_order(told_apart=False)
    if found.dropped_no_cluster:
        warn(
            f"{found.dropped_no_cluster} rows have no cluster id ({found.cluster_text}) and were left out",
            DataWarning,
        )
    return found


def _survey_of_summary(settings: Settings, cluster: tuple[str, ...], keep: Keep) -> Survey | None:
    """How rows are sampled; None for a simple sample.

    Raises
    ------
    UnsupportedError, DataError
        If that cannot go with what is kept.
    """
    columns = survey_columns(settings)
    if columns is None:
        return None
    columns.require_kinds(len(cluster))
    if keep == "means":
        raise DataError(
            'keep_clusters="means" is not available with weights or a design, whose errors take the products of every '
            "cluster: keep_clusters=False shares no cluster, True all of it"
        )
    return columns, settings.weights_scale


def _clusters_of_summary(cluster: Any, keep: Keep) -> tuple[str, ...]:
    """The columns of clusters, the highest first.

    Raises
    ------
    UnsupportedError
        If they are crossed.
    DataError
        If there are several and clusters are not kept.
    """
    settings = Settings.read({"cluster": cluster}, "summarize")
    names = settings.cluster_columns
    if settings.crossed:
        raise UnsupportedError(
            f"cluster={settings.cluster_text}: there are no summaries of crossed classifications in this version; "
            "models of these are fitted to rows, msem.sem(model, data, cluster=...)"
        )
    if len(names) > 1 and keep != "products":
        raise DataError(
            f"cluster={list(names)!r}: the statistics of clusters within clusters are those of every single "
            "cluster, which file and value would tell: say keep_clusters=True; for a model of two levels name the "
            f"highest clusters only, cluster={names[0]!r}"
        )
    return names


Keep = Literal[False, "means", "products"]
Survey = tuple[SurveyColumns, Scale]


class Summary:
    """Statistics that are built up from chunks of rows.

    Parameters
    ----------
    variables : sequence of str
    cluster : tuple of str
        Columns of clusters, the highest first.
    keep : {False, "means", "products"}
        What is kept of every cluster.
    threads : int
    survey : (SurveyColumns, str), optional
        How rows are sampled, and the scale of weights.
    """

    def __init__(
        self,
        variables: Sequence[str],
        cluster: tuple[str, ...],
        keep: Keep,
        threads: int,
        survey: Survey | None = None,
    ) -> None:
        self.variables, self.cluster, self.keep, self.threads = tuple(variables), cluster, keep, threads
        self.survey = None if survey is None else SurveySums(*survey, cluster[0])
        # weights are scaled within clusters when all of their rows are known
        weighted = self.survey is not None
        self.core = _core.Accumulator(len(variables), keep == "products" or weighted, weighted)
        self.ids = NestedIds(cluster)
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
        upper = [chunk.beside[name] for name in self.cluster[:-1]]
        numbers = self.ids.number([*upper, chunk.ids], chunk.where)
        codes = numbers[-1]
        columns, weights, rows = chunk.columns, None, None
        nrows = len(codes)
        if self.survey is not None:
            columns, codes, weights, rows = self._sampled(self.survey, chunk, numbers)
        report = self.core.add(columns, codes, len(self.ids), self.threads, weights)
        for name, infinite, first, missing in zip(
            self.variables, report["infinite"], report["first_infinite"], report["missing"], strict=True
        ):
            if infinite:
                at = self.nrows + (first if rows is None else int(rows[first]))
                raise DataError(
                    f"variable {name!r} is infinite in {infinite} row(s){chunk.where}, first in row "
                    f"{at} (counted from 0): correct the value, or make it missing"
                )
            if missing:
                self.missing[name] += missing
        self.nrows += nrows
        self.counts.update({name: report[name] for name in ("used", "incomplete", "no_cluster")})

    def _sampled(
        self, survey: SurveySums, chunk: Chunk, numbers: Sequence[Ints]
    ) -> tuple[list[NDArray[Any]], Ints, Floats | None, Ints | None]:
        """Columns, codes and weights of the rows of a chunk that count, and which these are; None for all.

        `numbers` are the clusters of all rows, the highest first.
        """
        codes = numbers[-1]
        labels = [self.ids.labels(k) for k in range(len(numbers))]
        given = survey.read(chunk.beside, len(codes), self.nrows)
        psu = survey.add_design(chunk.beside, numbers[0], labels[0], self.nrows)
        columns, rows = chunk.columns, None
        zero = np.zeros(len(codes), dtype=bool)
        for values in given.values():
            zero |= values == 0
        keep = _core.complete_rows(columns, np.where(zero, -1, codes), self.threads)
        weights = survey.add(given, psu, numbers, keep, labels, self.nrows)
        if zero.any():
            rows = np.flatnonzero(~zero)
            survey.zero += len(zero) - len(rows)
            columns, codes = [np.ascontiguousarray(one[rows]) for one in columns], codes[rows]
            weights = None if weights is None else weights[rows]
        return columns, codes, None if weights is None else np.ascontiguousarray(weights), rows

    def statistics(self) -> ClusterStatistics:
        """The statistics of all that was added.

        Raises
        ------
        DataError
            If ids differ only by type.
        """
        index = self.ids.index
        require_different_texts(self.cluster[0], index)
        ids, found, codes = finished(self.core, index)
        table: dict[str, Any] = dict(found)
        sums = sums_of(self.core, ids) if self.keep or self.survey is not None else None
        nclusters = float(table["counts"].sum())
        if self.survey is not None and sums is not None:
            above = [own[codes] for own in self.ids.above()]
            sums = replace(sums, marks=self.survey.marks(self.core.tally(), above))
            table = self.survey.weighting.table(sums)
            if not self.keep:
                sums, table["weighting"] = None, replace(table["weighting"], psus=None)
        return ClusterStatistics(
            variables=self.variables,
            cluster=self.cluster if len(self.cluster) > 1 else self.cluster[0],
            nobs=float(self.counts["used"]),
            nclusters=nclusters,
            origin=self.core.origin,
            sums=sums,
            ids=ids,
            nrows=self.nrows,
            dropped=dict(self.missing),
            dropped_rows=self.counts["incomplete"],
            dropped_no_cluster=self.counts["no_cluster"],
            **table,
        )


def summary_of(
    data: Any,
    cluster: tuple[str, ...],
    variables: Sequence[str] | None,
    keep: Keep,
    threads: int,
    survey: Survey | None = None,
) -> ClusterStatistics:
    """Statistics of data in one piece or in many; see `msem.summarize`."""
    reader = reader_of(data)
    beside = _beside(cluster, survey)
    names = chosen_variables(
        reader.numeric() if variables is None else variables, cluster, variables is None, beside
    )
    summary = Summary(names, cluster, keep, threads, survey)
    for chunk in chunks_of(reader, names, cluster[-1], beside):
        summary.add(chunk)
    if summary.survey is not None and summary.nrows:
        summary.survey.require_some()
    return with_rows(summary.statistics())


def _beside(cluster: tuple[str, ...], survey: Survey | None) -> tuple[str, ...]:
    """Columns that are needed beside the variables and the ids of the lowest clusters."""
    return (*cluster[:-1], *(() if survey is None else survey[0].names))


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
    raise no_row_left(found.dropped, found.dropped_no_cluster, str(found.cluster), found.nrows)


def chosen_variables(
    names: Sequence[str], cluster: Sequence[str], every: bool, beside: Sequence[str] = ()
) -> list[str]:
    """The variables to summarize, each once; of `every` numeric column all but the ids and weights.

    Raises
    ------
    DataError
        If there are none, or the cluster column is among those named.
    """
    chosen = [name for name in several(names) if not (every and name in (*cluster, *beside))]
    for column in cluster:
        require_distinct_roles(chosen, column)
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
    data: Any,
    cluster: tuple[str, ...],
    variables: Sequence[str] | None,
    keep: Keep,
    client: Any = None,
    survey: Survey | None = None,
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
    beside = _beside(cluster, survey)
    names = chosen_variables(given, cluster, every, beside)
    needed = list(dict.fromkeys([*names, *beside, *cluster]))
    require_known(needed, list(data.columns))
    make = dask.delayed(partition_statistics, pure=True)
    join = dask.delayed(joined_statistics, pure=True)
    parts = [
        make(part, names, cluster, keep or "means", number, survey)
        for number, part in enumerate(data[needed].to_delayed())
    ]
    while len(parts) > 1:
        parts = [join(parts[at : at + FAN]) for at in range(0, len(parts), FAN)]
    whole = join(parts)
    found: ClusterStatistics = dask.compute(whole)[0] if client is None else client.compute(whole).result()
    return with_rows(found if keep else found.without_clusters)


def partition_statistics(
    frame: pd.DataFrame,
    variables: Sequence[str],
    cluster: tuple[str, ...],
    keep: Keep,
    number: int,
    survey: Survey | None = None,
) -> ClusterStatistics:
    """Statistics of one partition, which may be of no rows."""
    summary = Summary(variables, cluster, keep, 1, survey)
    try:
        for chunk in chunks_of(FrameReader(frame), variables, cluster[-1], _beside(cluster, survey)):
            summary.add(chunk)
    except DataError as error:
        raise DataError(f"partition {number}: {error}") from None
    return summary.statistics()


def joined_statistics(parts: Sequence[ClusterStatistics]) -> ClusterStatistics:
    """Statistics of several partitions together; some may be equal, which is no mistake here."""
    return reduce(combined, parts)
