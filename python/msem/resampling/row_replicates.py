"""Refits of models of ordered variables, and by least squares, to replicates of their rows.

There are no sums of single clusters that replicates could be added up from. A first stage, or saturated moments with
their covariance matrix, are estimated again from the rows of the clusters of a replicate, and the model fitted to them.
A likelihood counts each cluster as often as it was drawn, and its maximum is sought from that of the whole sample.
Without one of some rows that are alike all is the same.
A parametric bootstrap has the rows of the sample with other categories and values: drawn from the model at the
estimates, given clusters and covariates, and missing where those of the sample are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.row_replicates import (
    all_but_one,
    drawn_rows,
    drawn_units,
    first_alike,
    group_of_rows,
    in_own_order,
    some_rows,
)
from msem.data.rows import ClusteredData
from msem.data.sample import Sample
from msem.errors import DataError, ModelError, MsemError, UnsupportedError
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.least_squares import second_stages
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.estimation.optimize import Optimum, minimize
from msem.model.partable import ParameterTable
from msem.resampling.replicates import (
    EMPTY,
    FEWEST,
    NO_DEPENDENCE,
    NOT_CONVERGED,
    Replicates,
    open_exogenous,
    order_by_id,
)
from msem.settings import Weighting
from msem.simulation.population import fitted_population
from msem.simulation.sources import conditional_draws

Floats = NDArray[np.float64]

PATIENCE = 50  # iterations from the true values, of a likelihood that may have its maximum at infinity


@dataclass(frozen=True, eq=False)
class RowSource:
    """A model with the replicates of the rows of its sample.

    Attributes
    ----------
    estimate, sample
        Of the whole sample.
    weighting : {"ULS", "DWLS", "WLS", "GLS"} or None
        Of least squares; None for maximum likelihood.
    normal : bool
        Whether the covariance matrix of the moments is that of normal variables.
    seed : int or None
        Of clusters drawn with replacement, or of samples from the model; None: each cluster is left out in turn.
    parametric : bool
        Samples are from the model.
    """

    estimate: Estimate
    sample: Sample
    weighting: Weighting | None
    normal: bool
    seed: int | None
    parametric: bool = False

    @cached_property
    def table(self) -> ParameterTable:
        """The parameter table without the sample's moments of fixed covariates."""
        return open_exogenous(self.estimate.table, self.sample)

    @cached_property
    def counts(self) -> list[int]:
        """Units of each group: clusters, or rows that come in none."""
        return [len(group.identifiers) for group in self.sample.groups]

    @cached_property
    def _orders(self) -> list[NDArray[np.intp]]:
        return [order_by_id(group) for group in self.sample.groups]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without what follows."""
        return {
            name: getattr(self, name)
            for name in ("estimate", "sample", "weighting", "normal", "seed", "parametric")
        }

    @cached_property
    def _distinct(self) -> NDArray[np.intp]:
        """For each replicate without a unit the first one with the same estimates: without a row that is alike."""
        parts, first = [], 0
        for group, count in zip(self.sample.groups, self.counts, strict=True):
            parts.append(first + first_alike(group.rows, group.statistics.names, count))
            first += count
        return np.concatenate(parts)

    def _units(self, number: int) -> list[NDArray[np.intp]]:
        """Units of each group that a replicate has, one that is drawn again several times."""
        if self.seed is None:
            return all_but_one(self.counts, number)
        drawn = drawn_units(self.counts, self.seed, number)
        return [order[own] for order, own in zip(self._orders, drawn, strict=True)]

    @cached_property
    def _designs(self) -> list[ClusteredData]:
        """Rows of each group in an order that is not that of the data."""
        groups = zip(self.sample.groups, self._orders, strict=True)
        return [in_own_order(group.rows, order) for group, order in groups]

    @cached_property
    def draws(self) -> tuple[_core.RowDraws, list[tuple[tuple[str, ...], ...]]]:
        """Samples from the model, and the names of what is drawn; see `conditional_draws`."""
        population = fitted_population(self.estimate.table, self.estimate.theta)
        return conditional_draws(population, self._designs, self.seed or 0)

    def rows(self, number: int) -> list[ClusteredData]:
        """Rows of each group in a replicate."""
        if not self.parametric:
            units = zip(self.sample.groups, self._units(number), strict=True)
            return [some_rows(group.rows, own) for group, own in units]
        draws, names = self.draws
        designs = zip(self._designs, names, strict=True)
        return [drawn_rows(rows, own, draws.rows(number, k)) for k, (rows, own) in enumerate(designs)]

    def replicate(self, number: int) -> Sample:
        """The sample of a replicate."""
        groups = [
            group_of_rows(self.table, group, rows, k)
            for k, (group, rows) in enumerate(zip(self.sample.groups, self.rows(number), strict=True), 1)
        ]
        return replace(self.sample, groups=tuple(groups))

    @property
    def refitter(self) -> RowSource:
        """The source itself: rows are needed for every replicate."""
        return self

    def pieces(self, count: int, threads: int) -> Iterator[tuple[int, int]]:
        """Replicates one by one."""
        return ((number, number + 1) for number in range(count))

    def run(self, first: int, last: int, threads: int) -> Replicates:
        """Refit the model to replicates first, ..., last - 1, one after the other."""
        found = [self._refit(number) for number in range(first, last)]
        return Replicates(
            np.array([theta for theta, _, _ in found]).reshape(len(found), self.table.npar),
            np.array([value for _, value, _ in found]),
            np.full(len(found), np.nan if self.weighting is None else 0.0),
            np.array([outcome for _, _, outcome in found], dtype=np.intp),
        )

    def _refit(self, number: int) -> tuple[Floats, float, int]:
        """Estimates in a replicate, the minimum, and why there are none: 0, or a key of `FAILURES`."""
        if self.seed is not None:
            return self._sought(number)
        first = int(self._distinct[number])
        if first not in self._known:
            self._known[first] = self._sought(first)
        return self._known[first]

    @cached_property
    def _known(self) -> dict[int, tuple[Floats, float, int]]:
        """Refits without a unit, by the first of those that are alike."""
        return {}

    def _sought(self, number: int) -> tuple[Floats, float, int]:
        nothing = np.full(self.table.npar, np.nan)
        try:
            near = self._near(number) if self.weighting is None else None
            if near is not None:
                return near.theta, near.value, 0
            if self.parametric and self.weighting is None:  # not even from the truth
                return nothing, np.nan, NOT_CONVERGED
            sample = self.replicate(number)
            found = estimate(self.table, sample, loss=self._losses(sample))
        except DataError:
            return nothing, np.nan, EMPTY
        except MsemError:
            return nothing, np.nan, NOT_CONVERGED
        if not found.optimum.converged:
            return nothing, np.nan, NOT_CONVERGED
        return found.theta, found.optimum.value, 0

    def _near(self, number: int) -> Optimum | None:
        """The maximum of the likelihood of a replicate next to that of the sample; None if there is none."""
        losses: list[Any] = []
        if self.parametric:
            losses = [group.statistics.likelihood() for group in self.replicate(number).groups]
            return self._from_estimates(losses, PATIENCE)
        for group, units in zip(self.sample.groups, self._units(number), strict=True):
            own = group.statistics.integral
            times = np.bincount(units, minlength=len(group.identifiers)).astype(np.float64)
            likelihood = None if own is None else own.reweighted(times)
            if likelihood is None:
                return None
            losses.append(likelihood)
        return self._from_estimates(losses)

    def _from_estimates(self, losses: list[Any], most: int = 500) -> Optimum | None:
        known = self.estimate.objective
        found = minimize(
            replace(known, core=known.with_losses(losses)), self.estimate.theta, max_iterations=most
        )
        return found if found.converged else None

    def _losses(self, sample: Sample) -> list[Any] | None:
        if self.weighting is None:
            return None
        stages = second_stages(self.table, sample.groups, self.weighting, robust=not self.normal)
        return [stage.likelihood for stage in stages]

    def fitted(self, number: int, theta: Floats, value: float) -> tuple[Estimate, Sample]:
        """The model at its estimates in one replicate, and that replicate's sample."""
        again = self.replicate(number)
        objective = build_objective(
            fill_exogenous(self.table, again.levels), again.statistics, self._losses(again)
        )
        active = np.zeros(len(theta), dtype=np.intp)
        if self.weighting is None:  # with the covariates of the replicate
            value = objective.core.value(theta)
        return Estimate(
            objective, Optimum(theta, value, np.zeros_like(theta), "converged", active, ())
        ), again


def row_source(
    estimate: Estimate,
    sample: Sample,
    discrepancy: LevelDiscrepancy | None,
    seed: int | None,
    *,
    parametric: bool = False,
) -> RowSource:
    """Replicates of the rows of a sample.

    Parameters
    ----------
    estimate : Estimate
    sample : Sample
    discrepancy : LevelDiscrepancy or None
        What the estimates minimise; None for maximum likelihood.
    seed : int or None
    parametric : bool
        See `RowSource`.

    Raises
    ------
    DataError
        Without rows, with too few clusters to draw from, or if samples cannot be drawn from the model.
    """
    if any(group.data is None for group in sample.groups):
        what = "fits by least squares" if discrepancy is not None else "ordered variables"
        raise DataError(f"replicates of {what} need the rows of the data, and these are moments")
    weighting, normal = (None, False) if discrepancy is None else discrepancy.stage_options
    source = RowSource(estimate, sample, weighting, normal, seed, parametric)
    if parametric:
        if not estimate.table.multilevel and any(group.in_clusters for group in sample.groups):
            raise DataError(NO_DEPENDENCE)
        try:
            _ = source.draws
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f'{error}; kind="ordinary" draws clusters with replacement') from error
        return source
    fewest = FEWEST if estimate.table.multilevel and seed is not None else 2
    if any(count < fewest for count in source.counts):
        raise DataError(f"replicates of a sample need {fewest} clusters or more in each group")
    return source
