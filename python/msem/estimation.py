"""From a parameter table and a sample to estimates: the steps every kind of fit shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.levelarrays import LevelArrays
from msem.model import fill_exogenous
from msem.objective import Objective, build_objective
from msem.optimize import Optimum, minimize
from msem.partable import ParameterTable
from msem.sample import SampleStatistics
from msem.saturated import Saturated, solve_saturated
from msem.starting import scaled_start, starting_values

Floats = NDArray[np.float64]

__all__ = ["Estimate", "Sample", "estimate", "saturated_sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Statistics of a sample with its saturated moments.

    Attributes
    ----------
    statistics : SampleStatistics
    saturated : Saturated
    """

    statistics: SampleStatistics
    saturated: Saturated

    @property
    def llf(self) -> float:
        """Saturated log-likelihood of all variables."""
        return self.saturated.llf

    @cached_property
    def levels(self) -> Mapping[int, LevelArrays]:
        """Saturated moments by level; level 1 only for a single-level sample."""
        if not self.statistics.unit:
            return {1: self.saturated.between}
        return {1: self.saturated.within, 2: self.saturated.between}

    @property
    def total_variance(self) -> dict[str, float]:
        """Variance of each observed variable summed over levels."""
        out: dict[str, float] = {}
        for moments in self.levels.values():
            for name, variance in moments.variances.items():
                out[name] = out.get(name, 0.0) + max(variance, 0.0)
        return out


def saturated_sample(statistics: SampleStatistics) -> Sample:
    """Single-level or two-level statistics with their saturated moments."""
    return Sample(statistics, solve_saturated(statistics))


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
    filled = fill_exogenous(table, sample.levels)
    objective = build_objective(filled, sample.statistics, loss)
    first = starting_values(objective, sample.levels, sample.total_variance)
    best: Optimum | None = None
    for share in (1.0, 0.5, 0.0):
        start = first if share == 1.0 else scaled_start(objective, first, sample.levels, share)
        found = minimize(objective, start, max_iterations=max_iterations, tolerance=tolerance)
        if best is None or found.converged or found.value < best.value:
            best = found
        if best.converged:
            break
    assert best is not None
    return Estimate(objective, best)
