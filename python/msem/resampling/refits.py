"""Refits of a model to replicates of its sample: in compiled threads here, or in batches by a client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.estimation.objective import Objective
from msem.estimation.optimize import bounds
from msem.resampling.progress import Progress, chunks
from msem.resampling.replicates import Replicates, ReplicateSource
from msem.resampling.workers import Client, Origin, ranges, spread

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Refitter:
    """All that refits need, without the rows of the data, so that it can be sent to another process.

    Attributes
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
        Where refits start.
    filled : list of list of int
        See `ReplicateSource.filled`.
    origin : Origin
    """

    objective: Objective
    theta: Floats
    filled: list[list[int]]
    origin: Origin

    def run(self, first: int, last: int, threads: int) -> _core.Refits:
        """Refit the model to replicates first, ..., last - 1."""
        lower, upper = bounds(self.objective)
        constraints = self.objective.constraints
        return _core.refit(
            self.objective.core,
            self.origin.draws,
            self.theta,
            lower,
            upper,
            self.filled,
            first,
            last,
            threads,
            constraints=None if constraints is None else constraints.core,
        )


def refitter_of(source: ReplicateSource) -> Refitter:
    """What refits need of a source."""
    return Refitter(source.estimate.objective, source.estimate.theta, source.filled, source.origin)


def refit(
    source: ReplicateSource, count: int, threads: int, progress: Progress, client: Client | None = None
) -> Replicates:
    """Refit the model to replicates 0 to count - 1, starting from the estimates.

    Parameters
    ----------
    source : ReplicateSource
    count, threads : int
    progress : Progress
    client : Client, optional
        Does the work in batches.
    """
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


def _joined(parts: Sequence[_core.Refits]) -> Replicates:
    return Replicates(
        np.concatenate([part["theta"] for part in parts]),
        np.concatenate([part["value"] for part in parts]),
        np.concatenate([part["saturated"] for part in parts]),
        np.concatenate([np.asarray(part["outcome"], dtype=np.intp) for part in parts]),
    )
