"""The jackknife: the sample without each of its clusters in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Sample, require_simple
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, require_converged
from msem.estimation.solution import Solution
from msem.resampling.intervals import acceleration
from msem.resampling.progress import Progress
from msem.resampling.refits import Source, refit
from msem.resampling.replicates import (
    ReplicateSource,
    cluster_counts,
    leave_one_out,
)
from msem.resampling.reports import as_html, as_text, require_enough, warn_of_failures
from msem.resampling.row_replicates import row_source
from msem.resampling.targets import (
    OfTarget,
    Statistic,
    Target,
    labelled_frame,
    target_of,
    target_values,
)
from msem.settings import require_threads

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Jackknife(OfTarget):
    """Values of a statistic when each cluster is left out; rows are left out of a single-level sample.

    Attributes
    ----------
    target : Target
        What is resampled, with its names and its values in the whole sample.
    array : ndarray, shape (n, k)
        Leave-one-out values of the refits that converged.
    group : ndarray of int, shape (n,)
        Group of the cluster that is left out, counted from 1.
    cluster : Index
        Its id; the number of the row for a single level.
    counts : tuple of int
        Clusters of each group.
    failures : mapping of str to int
        Refits that failed, by reason.
    """

    target: Target
    array: Floats
    group: NDArray[np.intp]
    cluster: pd.Index
    counts: tuple[int, ...]
    failures: Mapping[str, int]

    @property
    def estimates(self) -> pd.DataFrame:
        """Leave-one-out values, a row for each cluster: index (group, cluster), columns the statistics."""
        index = pd.MultiIndex.from_arrays([self.group, self.cluster], names=["group", "cluster"])
        return pd.DataFrame(self.array, index=index, columns=list(self.names))

    @cached_property
    def _parts(self) -> list[tuple[int, Floats]]:
        """Clusters and leave-one-out values of each group."""
        return [(count, self.array[self.group == g]) for g, count in enumerate(self.counts, 1)]

    @property
    def bias(self) -> pd.Series:
        """Jackknife estimate of bias, (J - 1) times how far the mean of the values is above the estimate."""
        total = sum((count - 1) * (part.mean(axis=0) - self.point) for count, part in self._parts)
        return pd.Series(total, index=list(self.names), name="bias")

    @property
    def bse(self) -> pd.Series:
        """Jackknife standard errors."""
        return pd.Series(np.sqrt(np.diag(self._cov)), index=list(self.names), name="se")

    @cached_property
    def _cov(self) -> Floats:
        cov = np.zeros((len(self.names),) * 2)
        for count, part in self._parts:
            centred = part - part.mean(axis=0)
            cov += (count - 1) / len(part) * centred.T @ centred
        return cov

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix: (J - 1) / J times the sum of squares and products of the values, summed over groups."""
        return pd.DataFrame(self._cov, index=list(self.names), columns=list(self.names))

    @cached_property
    def acceleration(self) -> Floats:
        """Acceleration constants of BCa intervals, shape (k,)."""
        return acceleration([(count - 1) * (part.mean(axis=0) - part) for count, part in self._parts])

    def to_frame(self) -> pd.DataFrame:
        """A row for each statistic: name, level, group, est, bias, se, acceleration."""
        columns = {
            "est": self.point,
            "bias": self.bias.to_numpy(),
            "se": self.bse.to_numpy(),
            "acceleration": self.acceleration,
        }
        return labelled_frame(self.target, columns)

    def __str__(self) -> str:
        return f"{self!r}\n\n{as_text(self.to_frame())}"

    def _repr_html_(self) -> str:
        return as_html(self.to_frame())

    def __repr__(self) -> str:
        return f"<msem.Jackknife: {len(self.array)} of {sum(self.counts)} refits of {len(self.names)} statistics>"


def draw_jackknife(
    estimate: Estimate,
    sample: Sample,
    target: Target,
    *,
    threads: int,
    show: bool = False,
    discrepancy: LevelDiscrepancy | None = None,
) -> Jackknife:
    """Refit without each cluster in turn.

    Parameters
    ----------
    estimate : Estimate
    sample : Sample
    target : Target
    threads : int
    show : bool
        Show progress.
    discrepancy : LevelDiscrepancy, optional
        Of fits by least squares.

    Raises
    ------
    DataError
        Without raw data, with one cluster in a group, or when hardly any refit converges.
    """
    require_converged(estimate, "jackknives")
    require_simple(sample, "jackknives", "use the standard errors of the fit")
    source: Source
    if estimate.table.ordered.thresholds or discrepancy is not None:
        source = row_source(estimate, sample, discrepancy, None)
        counts = source.counts
    else:
        source = ReplicateSource(estimate, sample, leave_one_out(estimate, sample))
        counts = cluster_counts(sample)
    total = sum(counts)
    with _core.ThreadLimit(threads), Progress("jackknife", total, show) as progress:
        replicates = refit(source, total, threads, progress)
        found = target_values(target, replicates, source, progress)
    group = np.repeat(np.arange(1, len(counts) + 1), counts)[found.numbers]
    for g in range(1, len(counts) + 1):
        require_enough(int((group == g).sum()), found.failed)
    warn_of_failures("jackknife", total, found.failed)
    ids = sample.identifiers[found.numbers].rename("cluster")
    return Jackknife(target, found.values, group, ids, tuple(counts), found.failed)


def jackknife(
    fit: Solution, *, statistic: Statistic | None = None, threads: int | None = None, progress: bool = True
) -> Jackknife:
    """Refit without each cluster in turn: exact leave-one-out values, bias and standard errors.

    Of a single-level sample the rows are left out. Parameters and errors are those of `bootstrap`.

    Returns
    -------
    Jackknife
    """
    workers = require_threads(threads)
    target = target_of(fit, statistic)
    return draw_jackknife(
        fit.estimate, fit.sample, target, threads=workers, show=progress, discrepancy=fit.discrepancy
    )
