"""Refits of a model to replicates of its sample: here, or in batches by a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from msem.data.sample import Sample
from msem.estimation.estimate import Estimate
from msem.model.partable import ParameterTable, require_no_rotation
from msem.resampling.progress import Progress
from msem.resampling.replicates import Replicates
from msem.resampling.workers import Client, ranges, spread

Floats = NDArray[np.float64]


class Refits(Protocol):
    """What refits a model to replicates; it can be sent to another process."""

    def pieces(self, count: int, threads: int) -> Iterator[tuple[int, int]]:
        """Ranges of replicates to be refitted at a time, so that the user can interrupt."""

    def run(self, first: int, last: int, threads: int) -> Replicates:
        """Refit the model to replicates first, ..., last - 1."""


class Source(Protocol):
    """A model with the replicates of its sample."""

    @property
    def table(self) -> ParameterTable:
        """The parameter table without the sample's moments of fixed covariates."""

    @property
    def refitter(self) -> Refits:
        """What refits the model to the replicates."""

    def fitted(self, number: int, theta: Floats, value: float) -> tuple[Estimate, Sample]:
        """The model at its estimates in one replicate, and that replicate's sample; see `ReplicateSource.fitted`."""


def refit(
    source: Source, count: int, threads: int, progress: Progress, client: Client | None = None
) -> Replicates:
    """Refit the model to replicates 0 to count - 1, each from its own start, as `sem` would fit it.

    Parameters
    ----------
    source : Source
    count, threads : int
    progress : Progress
    client : Client, optional
        Does the work in batches.
    """
    refitter = _refitter(source)
    parts = []
    if client is None:
        for first, last in refitter.pieces(count, threads):
            parts.append(refitter.run(first, last, threads))
            progress.update(last)
        return _joined(parts)
    calls = [(first, last, threads) for first, last in ranges(0, count)]
    with closing(spread(client, type(refitter).run, refitter, calls)) as found:
        for (_, last, _), part in zip(calls, found, strict=True):
            parts.append(part)
            progress.update(last)
    return _joined(parts)


def refit_chosen(source: Source, numbers: Iterable[int]) -> Replicates:
    """Refit the model to the replicates of these numbers, one after the other."""
    refitter = _refitter(source)
    none = refitter.run(0, 0, 1)
    return _joined([none, *(refitter.run(k, k + 1, 1) for k in numbers)])


def _refitter(source: Source) -> Refits:
    require_no_rotation(source.table, "refits to replicates of a sample")
    return source.refitter


def _joined(parts: Sequence[Replicates]) -> Replicates:
    return Replicates(
        np.concatenate([part.theta for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.saturated for part in parts]),
        np.concatenate([part.outcome for part in parts]),
    )
