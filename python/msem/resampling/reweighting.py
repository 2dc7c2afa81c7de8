"""Estimates under replicate weights, and the sampling covariance that they give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msem.data.model_statistics import statistics_of_rows
from msem.data.row_replicates import group_of_rows, with_weights
from msem.data.sample import Group, Sample
from msem.data.survey import Replication
from msem.errors import ModelError, MsemError
from msem.estimation.estimate import Estimate, estimate, require_converged
from msem.estimation.least_squares import LeastSquaresSolution, second_stage
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.estimation.optimize import minimize
from msem.model.partable import ParameterTable, require_no_rotation

Floats = NDArray[np.float64]


def replicate_sample(table: ParameterTable, sample: Sample, number: int) -> Sample:
    """The sample with the weights of a replicate."""
    design = sample.design
    assert isinstance(design, Replication)
    groups: list[Group] = []
    for group in sample.groups:
        data = group.rows
        assert data.sampled is not None
        assert data.sampled.psu is not None
        factors = design.factors[number, data.sampled.psu]
        own = data.sampled.weights
        counts = factors if own is None else factors * own
        weights = data.weights if data.codes is not None else counts
        if group.statistics.ordered:
            # of a first stage in a replicate only the estimates are used, and units are independent for its errors
            counted = with_weights(data, weights, counts)
            groups.append(group_of_rows(table, group, counted, len(groups) + 1))
            continue
        counted = replace(data, weights=weights, sampled=replace(data.sampled, weights=counts))
        groups.append(Group(statistics_of_rows(table, counted), group.label, counted))
    return Sample(tuple(groups), sample.without_group)


def replicate_estimates(
    model: Estimate, table: ParameterTable, sample: Sample, discrepancy: LeastSquaresSolution | None = None
) -> Floats:
    """Estimates with each set of replicate weights, shape (R, npar), refitted from the estimates of the whole sample.

    Parameters
    ----------
    model : Estimate
        Of the sample with its own weights.
    table : ParameterTable
        Without the moments of fixed covariates, which are those of each replicate.
    sample : Sample
    discrepancy : LeastSquaresSolution, optional
        Of a model by least squares, whose weight matrix is that of the whole sample in all replicates.

    Raises
    ------
    ModelError
        If the model cannot be fitted with the weights of a replicate.
    """
    require_converged(model, "standard errors from replicate weights")
    require_no_rotation(table, "standard errors from replicate weights")
    design = sample.design
    assert isinstance(design, Replication)
    out = np.empty((len(design.scale), len(model.theta)))
    for number in range(len(out)):
        try:
            out[number] = _refitted(model, table, replicate_sample(table, sample, number), discrepancy)
        except MsemError as error:
            raise ModelError(f"with the replicate weights number {number + 1}: {error}") from None
    return out


def _refitted(
    model: Estimate, table: ParameterTable, sample: Sample, discrepancy: LeastSquaresSolution | None
) -> Floats:
    losses = None
    if discrepancy is not None:
        losses = [
            second_stage(
                table, group, number, discrepancy.weighting, robust=True, known=stage.weight
            ).likelihood
            for number, (group, stage) in enumerate(zip(sample.groups, discrepancy.stages, strict=True), 1)
        ]
    if not table.meanstructure:
        sample = replace(
            sample,
            groups=tuple(replace(group, statistics=group.statistics.centred()) for group in sample.groups),
        )
    if not table.constraints:
        objective = build_objective(fill_exogenous(table, sample.levels), sample.statistics, losses)
        found = minimize(objective, model.theta)
        if found.converged:
            return found.theta
    again = estimate(table, sample, loss=losses)
    if not again.optimum.converged:
        raise ModelError('the model has not converged; simplify it, or take se="robust"')
    return again.theta


def replicate_covariance(
    model: Estimate, table: ParameterTable, sample: Sample, discrepancy: LeastSquaresSolution | None = None
) -> Floats:
    """Covariance matrix of the estimates, sum of c_r (t_r - t)(t_r - t)' over the replicates (Wolter, 2007)."""
    design = sample.design
    assert isinstance(design, Replication)
    deviations = replicate_estimates(model, table, sample, discrepancy) - model.theta
    covariance: Floats = (deviations.T * design.scale) @ deviations
    return covariance
