"""A model that is read once and fitted to many samples."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from msem import _core
from msem.data.given import what_is_given
from msem.data.grouping import text_of
from msem.data.reading import (
    given_labels,
    group_rows,
    has_rows,
    implied_statistics,
    read_alike,
    read_sample,
    require_rows_for_holes,
    with_cluster,
)
from msem.data.sample import Sample
from msem.entry import entries, entry
from msem.errors import ArgumentError, DataError, ModelError, MsemError, UnsupportedError
from msem.estimation.constraints import compile_constraints, elimination_basis
from msem.fits.batches import Batch, make_batch
from msem.fits.categories import ordered_of, ordered_thresholds, require_thresholds, with_categories
from msem.fits.fit import Fit
from msem.fits.manyfits import FitArrays, ManyFits, joined, warn_of_missing
from msem.fits.sem import (
    fit_table,
    require_least_squares,
    resolve,
    table_of,
)
from msem.language.syntax import ModelSyntax, with_constraints
from msem.model.blocks import group_order, has_group_blocks
from msem.model.derived import saturated_npar
from msem.model.drafts import Fun
from msem.model.levels import number_of_levels
from msem.model.partable import ParameterTable, require_no_rotation
from msem.resampling.progress import QUIET, Progress
from msem.resampling.workers import BATCH, Client, ranges, require_client, spread
from msem.settings import ResolvedSettings, Settings, require_threads
from msem.simulation.datasets import DrawnData
from msem.simulation.drawn import DrawnSamples

AT_ONCE = 256  # samples taken from an iterable before they are fitted
# options of sem that are about one sample; auxiliary variables have the levels at which they vary in it
OF_SAMPLES = (
    "sample_cov",
    "sample_mean",
    "sample_nobs",
    "sample_cov_rescale",
    "auxiliary",
    "bootstrap",
    "seed",
)


@entries
@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A model with all options of its fits, ready for samples; immutable. Made by `msem.compile`.

    Attributes
    ----------
    table : ParameterTable
        The parameter table; moments of fixed covariates come from each sample.
    settings : Settings
        How the model is read, estimated and tested, as given to `msem.compile`.
    """

    table: ParameterTable
    settings: Settings

    def fit(self, data: Any) -> Fit:
        """Fit the model to one sample: what `msem.sem` gives with the same options.

        Parameters
        ----------
        data : data frame, LevelMoments, SampleStatistics or mapping
            As in `msem.sem`.

        Returns
        -------
        Fit
        """
        with self.settings.limit():
            return fit_table(self.table, self._read(data), self._resolved(data))

    def fit_many(
        self,
        samples: Iterable[Any],
        *,
        threads: int | None = None,
        progress: bool = True,
        client: Client | None = None,
    ) -> ManyFits:
        """Fit the model to many samples, in compiled threads.

        Every fit is what `fit` gives for its sample, to the last digit, whatever the number of threads. Fits with
        robust standard errors or scaled tests, of data with holes, and of models with random slopes are made one after
        the other.

        Parameters
        ----------
        samples : iterable
            Data frames, `LevelMoments`, sufficient statistics, dicts of them by group, or what `msem.simulate` gives
            with ``as_="statistics"``. A generator is read a few hundred samples at a time.
        threads : int, optional
            Default: that of the model, or one for each processor.
        progress : bool
            Show a bar on the standard error stream when it takes more than a second.
        client : optional
            Makes the fits in batches: a `distributed.Client`, or an executor such as
            `concurrent.futures.ProcessPoolExecutor`. Results are the same. `threads` is then of each batch, by default
            1, and a generator is read to its end first.

        Returns
        -------
        ManyFits

        Raises
        ------
        DataError
            If there is no sample, or none can be used; with the reason of the first. A sample that cannot be used among
            others has the status "failed", and the reason in the column `problem`.

        Warns
        -----
        ConvergenceWarning
            If more than one in a hundred fits have no estimates.
        """
        workers = require_threads(self.settings.threads if threads is None else threads)
        require_client(client)
        require_samples(samples)
        count = len(samples) if isinstance(samples, Sequence) else 0
        with _core.ThreadLimit(workers), Progress("fits", count, progress and count > 0) as shown:
            if isinstance(samples, DrawnSamples):
                require_labels(self.table, samples.labels or None)
            if client is not None:
                arrays = self._elsewhere(samples, client, threads or 1, shown)
            elif isinstance(samples, DrawnSamples):
                arrays = self.batch().drawn(samples, workers, shown)
            else:
                arrays = self._given(samples, workers, shown)
        if not len(arrays):
            raise DataError("there are no samples to fit")
        if (arrays.status == "failed").all():
            raise DataError(f"no sample can be fitted. The first: {arrays.problem[0]}")
        warn_of_missing(arrays)
        return ManyFits(self.table, arrays, self.df, tested=not self.settings.surveyed)

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from their defaults."""
        values = {own.name: getattr(self.settings, own.name) for own in fields(Settings)}
        return {own.name: values[own.name] for own in fields(Settings) if values[own.name] != own.default}

    @property
    def by_cluster(self) -> bool:
        """Whether its standard errors or tests look at single clusters (of one level, rows): not statistics."""
        return self._resolved(None).by_cluster

    @cached_property
    def df(self) -> int:
        """Degrees of freedom: saturated less free parameters, those that equality constraints determine left out."""
        constraints = compile_constraints(self.table) if self.table.constraints else None
        free = self.table.npar
        if constraints is not None:
            somewhere = np.linspace(0.5, 1.5, free)  # nonlinear ones are as many there as elsewhere
            free = elimination_basis(constraints.equalities.jacobian(somewhere)).shape[1]
        return saturated_npar(self.table) - free

    def _given(self, samples: Iterable[Any], threads: int, shown: Progress) -> FitArrays:
        parts: list[FitArrays] = []
        done = 0
        for several in _taken(samples, AT_ONCE):
            parts.append(self._several(several, threads))
            done += len(several)
            shown.update(done)
        return joined(parts) if parts else self.batch().empty()

    def _elsewhere(self, samples: Iterable[Any], client: Client, threads: int, shown: Progress) -> FitArrays:
        parts, done = [self.batch().empty()], 0
        if isinstance(samples, DrawnSamples):
            several: list[Any] = [samples[first:last] for first, last in ranges(0, len(samples))]
        else:
            several = list(_taken(samples, BATCH))
        with closing(spread(client, _fit_batch, self, [(some, threads) for some in several])) as found:
            for some, part in zip(several, found, strict=True):
                parts.append(part)
                done += len(some)
                shown.update(done)
        return joined(parts)

    def drawn(
        self, samples: DrawnSamples | DrawnData, threads: int = 1, shown: Progress = QUIET
    ) -> FitArrays:
        """Fits of samples that are drawn on the way, as statistics or as data."""
        if isinstance(samples, DrawnSamples):
            return self.batch().drawn(samples, threads, shown)
        if self.table.crossed:  # named in the samples as here
            return self._several(samples, threads)
        columns = samples.clusters
        cluster = (columns if len(columns) > 1 else columns[0]) if self.table.multilevel else None
        settings = replace(self.settings, cluster=cluster, group=samples.group if samples.labels else None)
        return replace(self, settings=settings)._several(samples, threads)

    def _several(self, samples: Sequence[Any], threads: int) -> FitArrays:
        """Samples whose standard errors are of the same kind are fitted together."""
        out = self.batch().empty(len(samples))
        ready: dict[ResolvedSettings, dict[int, Sample]] = {}
        known: dict[Hashable, ResolvedSettings] = {}
        for k, sample in enumerate(samples):
            kind = what_is_given(sample).kind
            settings = known.get(kind)
            try:
                if settings is not None:
                    read = read_alike(sample, self.table, self.settings)
                else:
                    read, settings = self._read(sample), self._resolved(sample)
            except MsemError as error:
                out.status[k], out.problem[k] = "failed", str(error)
                continue
            if kind is not None and not self.settings.nodes:
                known[kind] = settings
            ready.setdefault(settings, {})[k] = read
        for settings, chosen in ready.items():
            found = self._batch(settings).given(list(chosen.values()), threads)
            for name, values in vars(found).items():
                getattr(out, name)[list(chosen)] = values
        return out

    def _read(self, data: Any) -> Sample:
        rows = has_rows(data)
        grouping = group_rows(data, self.settings.group) if rows else None
        settings = self.settings
        if not rows and settings.cluster is not None:
            settings = replace(settings, cluster=None)
        require_rows_for_holes(data, settings)
        require_labels(self.table, given_labels(data, settings, grouping))
        if not self.table.ordered.thresholds:
            return read_sample(data, self.table, settings, grouping)
        assert self.table.syntax is not None
        columns = ordered_of(self.table.syntax, data, settings)
        require_thresholds(self.table, columns.thresholds)
        sample = read_sample(columns.data, self.table, settings, grouping)
        return with_categories(sample, self.table, columns.categories, settings)

    def _resolved(self, data: Any) -> ResolvedSettings:
        settings = with_cluster(self.settings, data)
        if settings is not self.settings:
            return resolve(settings, self.table, data)
        expected = implied_statistics(data)
        if expected not in self._resolutions:
            self._resolutions[expected] = resolve(settings, self.table, data)
        return self._resolutions[expected]

    @cached_property
    def _resolutions(self) -> dict[bool, ResolvedSettings]:
        """Of samples that are given with and without rows, made once."""
        return {}

    def batch(self) -> Batch:
        """How samples are fitted from the statistics of rows."""
        return self._batch(self._resolved(None))

    def _batch(self, settings: ResolvedSettings) -> Batch:
        if settings not in self._batches:
            self._batches[settings] = make_batch(self.table, settings)
        return self._batches[settings]

    @cached_property
    def _batches(self) -> dict[ResolvedSettings, Batch]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the compiled part."""
        return {"table": self.table, "settings": self.settings}

    def __repr__(self) -> str:
        levels = number_of_levels(self.table.nlevels)
        return f"<msem.CompiledModel: {self.table.npar} parameters, {levels}>"


@entry
def compile(
    model: str, *, fun: Fun = "sem", group_labels: Sequence[str] | None = None, **options: Any
) -> CompiledModel:
    r"""Read a model once, to fit it to many samples.

    Parameters
    ----------
    model : str
        As in `msem.sem`.
    fun : {"sem", "cfa", "growth"}
        Whose defaults the model has.
    group_labels : sequence of str, optional
        Labels of the groups, for a model of several groups without ``group:`` headers.
    **options
        Those of `msem.sem`. The text has to name the thresholds of ordered variables, as in ``y1 | t1 + t2``, since no
        data say how many there are. Not the options about one sample: ``sample_cov``, ``sample_mean``, ``sample_nobs``,
        ``sample_cov_rescale``, ``auxiliary``, ``bootstrap`` and ``seed``.

    Returns
    -------
    CompiledModel

    Raises
    ------
    ModelSyntaxError, ModelError
        As in `msem.sem`.

    Examples
    --------
    >>> import msem
    >>> model = msem.compile("level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n g =~ y1 + y2 + y3", cluster="cluster")
    >>> model
    <msem.CompiledModel: 15 parameters, two levels>
    >>> model.fit(msem.load_demo()).status
    'ok'
    """
    return compile_for(model, options, fun=fun, group_labels=group_labels)


def compile_for(
    model: str,
    options: Mapping[str, Any],
    thresholds: Mapping[str, int] | None = None,
    *,
    fun: Fun = "sem",
    group_labels: Sequence[str] | None = None,
) -> CompiledModel:
    """What `compile` does; `thresholds` are how many ordered variables have of which the text does not say so."""
    useless = next((name for name in OF_SAMPLES if name in options), None)
    if useless is not None:
        raise ArgumentError(
            f"compile() has no option {useless!r}: it is about one sample, and the model is for many"
        )
    settings = Settings.read(options, fun)
    syntax = with_constraints(model, settings.constraints)
    counts = ordered_thresholds(syntax, settings, thresholds or {})
    settings = replace(settings.for_ordered(), ordered=tuple(counts)) if counts else settings
    table = table_of(syntax, fun, settings, group_names(syntax, settings.group, group_labels), counts)
    require_no_rotation(table, "many fits of one model")
    if settings.penalty:
        raise UnsupportedError("penalty= is not available for many fits of one model in this version")
    require_least_squares(resolve(settings, table), table)
    if settings.se == "bootstrap":
        raise MsemError('se="bootstrap" is for one sample: fit.bootstrap() of a fit that needs it')
    return CompiledModel(table, settings)


def _fit_batch(model: CompiledModel, samples: Sequence[Any], threads: int) -> FitArrays:
    """Fits of some samples, by a worker."""
    with _core.ThreadLimit(threads):
        if isinstance(samples, DrawnSamples):
            return model.drawn(samples, threads)
        return model._several(samples, threads)


def group_names(
    syntax: ModelSyntax, column: str | None, labels: Sequence[str] | None
) -> tuple[str, ...] | None:
    """Labels of the groups of a model: as given, or from its ``group:`` headers; None for one group.

    Raises
    ------
    ModelError
        If there are groups without labels.
    """
    if labels is not None:
        given = (labels,) if isinstance(labels, str) else tuple(map(text_of, labels))
        if len(set(given)) < max(len(given), 2):
            raise ModelError(f"group_labels must be two or more different labels, not {labels!r}")
        return group_order(syntax, given)
    if has_group_blocks(syntax):
        headers = dict.fromkeys(str(block.group) for block in syntax.blocks if block.group is not None)
        return group_order(syntax, tuple(headers))
    if column is not None:
        raise ModelError(
            f"group={column!r}: the model is read without data, so the groups have to be named: group_labels=[...]"
        )
    return None


def require_samples(samples: Any) -> None:
    """Refuse one sample in the place of several.

    Raises
    ------
    TypeError
    """
    one = isinstance(samples, (pd.DataFrame, Mapping, str, bytes)) or not has_rows(samples)
    if one or not isinstance(samples, Iterable):
        raise ArgumentError(
            f"fit_many takes several samples, such as a list of data frames, and this is a {type(samples).__name__}: "
            "for one sample use fit"
        )


def require_labels(table: ParameterTable, labels: Sequence[str] | None) -> None:
    """Refuse a sample of other groups than those of the model.

    Raises
    ------
    DataError
    """
    given, wanted = tuple(labels or ()), table.group_labels
    if set(given) != set(wanted):
        has = f"the groups {', '.join(given)}" if given else "one group"
        needs = f"the groups {', '.join(wanted)}" if wanted else "one group"
        raise DataError(f"the sample has {has} and the model {needs}")


def _taken(samples: Iterable[Any], count: int) -> Iterator[list[Any]]:
    iterator = iter(samples)
    while several := list(islice(iterator, count)):
        yield several
