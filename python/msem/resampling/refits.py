"""Refits of a model to replicates of its sample: in compiled threads here, or in batches by a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.estimation.constraints import compile_constraints
from msem.estimation.estimate import SPACES, saturated_moments
from msem.estimation.optimize import STOPS
from msem.estimation.plan import make_plan
from msem.estimation.problems import UNUSABLE, VERDICTS
from msem.model.partable import ParameterTable, require_no_rotation
from msem.model.variables import Variables
from msem.resampling.ordered_replicates import OrderedSource, refit_rows
from msem.resampling.progress import Progress, chunks
from msem.resampling.replicates import (
    FEW,
    NOT_CONVERGED,
    SINGULAR,
    UNBOUNDED,
    Replicates,
    ReplicateSource,
)
from msem.resampling.workers import Client, Origin, ranges, spread
from msem.settings import Space

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Refitter:
    """All that refits need, without the rows of the data, so that it can be sent to another process.

    Attributes
    ----------
    table : ParameterTable
        Without the sample's moments of fixed covariates.
    variables : tuple of Variables
        Observed ones of each group, in the order of the statistics.
    saturated : list of tuple of ndarray
        Saturated moments of each group, from which those of replicates with holes are sought.
    origin : Origin
    exposed : tuple of mapping
        Latent variables by level that the likelihood of each group knows of.
    space : {"auto", "natural", "psd"}
        Of the sample.
    """

    table: ParameterTable
    variables: tuple[Variables, ...]
    saturated: list[list[tuple[Floats, Floats]]]
    origin: Origin
    exposed: tuple[Mapping[int, tuple[str, ...]], ...] = ()
    space: Space = "auto"

    @cached_property
    def plan(self) -> _core.Plan:
        """The compiled model."""
        return make_plan(self.table, self.variables, compile_constraints(self.table), self.exposed)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the compiled part."""
        return {name: value for name, value in vars(self).items() if name != "plan"}

    def run(self, first: int, last: int, threads: int) -> _core.Fits:
        """Refit the model to replicates first, ..., last - 1."""
        return self.plan.fit(
            self.origin.draws, first, last, threads, saturated=self.saturated, space=SPACES.index(self.space)
        )


def refitter_of(source: ReplicateSource) -> Refitter:
    """What refits need of a source."""
    require_no_rotation(source.table, "refits to replicates of a sample")
    statistics = source.sample.statistics
    return Refitter(
        source.table,
        tuple(s.variables for s in statistics),
        saturated_moments(source.sample),
        source.origin,
        tuple(s.exposed for s in statistics),
        source.sample.space,
    )


def refit(
    source: ReplicateSource | OrderedSource,
    count: int,
    threads: int,
    progress: Progress,
    client: Client | None = None,
) -> Replicates:
    """Refit the model to replicates 0 to count - 1, each from its own start, as `sem` would fit it.

    Parameters
    ----------
    source : ReplicateSource
    count, threads : int
    progress : Progress
    client : Client, optional
        Does the work in batches.
    """
    if isinstance(source, OrderedSource):
        return refit_rows(source, count, progress, client)
    parts, refitter = [], refitter_of(source)
    if client is None:
        for first, last in chunks(count, threads):
            parts.append(refitter.run(first, last, threads))
            progress.update(last)
        return _joined(parts)
    calls = [(first, last, threads) for first, last in ranges(0, count)]
    with closing(spread(client, Refitter.run, refitter, calls)) as found:
        for (_, last, _), part in zip(calls, found, strict=True):
            parts.append(part)
            progress.update(last)
    return _joined(parts)


def refit_chosen(source: ReplicateSource, numbers: Iterable[int]) -> Replicates:
    """Refit the model to the replicates of these numbers, one after the other."""
    refitter = refitter_of(source)
    none = refitter.run(0, 0, 1)
    return _joined([none, *(refitter.run(k, k + 1, 1) for k in numbers)])


def _joined(parts: Sequence[_core.Fits]) -> Replicates:
    return Replicates(
        np.concatenate([part["theta"] for part in parts]),
        np.concatenate([part["value"] for part in parts]),
        np.concatenate([part["saturated"] for part in parts]),
        np.concatenate([_outcomes(part) for part in parts]),
    )


def _outcomes(fits: _core.Fits) -> NDArray[np.intp]:
    """Why there are no estimates: 0, or a key of `FAILURES`."""
    stop, verdict = np.asarray(fits["stop"], dtype=np.intp), np.asarray(fits["verdict"], dtype=np.intp)
    unbounded = stop == STOPS.index("unbounded")
    failed = np.where(fits["few_clusters"], FEW, np.where(verdict == UNUSABLE, SINGULAR, NOT_CONVERGED))
    out: NDArray[np.intp] = np.where(
        verdict < VERDICTS.index("not_converged"), 0, np.where(unbounded, UNBOUNDED, failed)
    )
    return out
