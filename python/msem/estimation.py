"""From a parameter table and a sample to estimates: the steps every kind of fit shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.model import fill_exogenous
from msem.moments import LevelMoments
from msem.objective import Objective, build_objective
from msem.optimize import Optimum, minimize
from msem.partable import ParameterTable
from msem.sample import SampleStatistics
from msem.saturated import estimate_saturated, saturated_single
from msem.starting import scaled_start, starting_values

Floats = NDArray[np.float64]

__all__ = ["Estimate", "Sample", "estimate", "single_sample", "two_level_sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Statistics of a sample with its saturated moments.

    Attributes
    ----------
    statistics : SampleStatistics
    means, covs : mapping from level to Series, DataFrame
    llf : float
        Saturated log-likelihood of all variables.
    moments : LevelMoments or None
        The same moments as an object of the user's; None for a single level.
    """

    statistics: SampleStatistics
    means: Mapping[int, pd.Series]
    covs: Mapping[int, pd.DataFrame]
    llf: float
    moments: LevelMoments | None = None

    @property
    def total_variance(self) -> dict[str, float]:
        """Variance of each observed variable summed over levels."""
        out: dict[str, float] = {}
        for cov in self.covs.values():
            for name, variance in zip(cov.columns, np.diag(cov), strict=True):
                out[name] = out.get(name, 0.0) + max(float(variance), 0.0)
        return out


def two_level_sample(statistics: SampleStatistics) -> Sample:
    """Saturated moments of two-level statistics."""
    h1 = estimate_saturated(statistics)
    return Sample(
        statistics,
        {1: h1.within.mean, 2: h1.between.mean},
        {1: h1.within.cov, 2: h1.between.cov},
        h1.llf,
        h1,
    )


def single_sample(statistics: SampleStatistics) -> Sample:
    """Mean and covariance matrix of single-level statistics."""
    mean, cov, llf = saturated_single(statistics)
    return Sample(statistics, {1: mean}, {1: cov}, llf)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A model at the parameters where the optimiser stopped."""

    objective: Objective
    optimum: Optimum

    @property
    def theta(self) -> Floats:
        """Estimates, shape (npar,)."""
        return self.optimum.theta

    @property
    def llf(self) -> float:
        """Log-likelihood given the fixed covariates."""
        return -0.5 * self.optimum.value - self.objective.covariate_llf

    @property
    def table(self) -> ParameterTable:
        """The parameter table with the moments of fixed covariates filled in."""
        return self.objective.table


def estimate(
    table: ParameterTable,
    sample: Sample,
    *,
    loss: _core.Loss | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
) -> Estimate:
    """Fit a model to a sample, from several starts if the first does not converge.

    Parameters
    ----------
    table : ParameterTable
    sample : Sample
    loss : _core.Loss, optional
        Another discrepancy than the normal likelihood.
    max_iterations : int
    tolerance : float
        On the decrement g' I^-1 g.

    Returns
    -------
    Estimate
        The best of the attempts if none converged.
    """
    filled = fill_exogenous(table, sample.means, sample.covs)
    objective = build_objective(filled, sample.statistics, loss)
    first = starting_values(objective, sample.covs, sample.means, sample.total_variance)
    best: Optimum | None = None
    for share in (1.0, 0.5, 0.0):
        start = first if share == 1.0 else scaled_start(first, filled, share)
        found = minimize(objective, start, max_iterations=max_iterations, tolerance=tolerance)
        if best is None or found.converged or found.value < best.value:
            best = found
        if best.converged:
            break
    assert best is not None
    return Estimate(objective, best)
