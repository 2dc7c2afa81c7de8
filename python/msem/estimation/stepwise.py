"""Estimates of a whole model in two steps, measurement first, with the standard errors of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem.data.sample import Sample
from msem.errors import ModelError
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.evidence import (
    Evidence,
    block_influence,
    evidence_of,
    fitted_means,
    inverse_within,
    mean_parameters,
    sampling_rows,
    stacked,
)
from msem.estimation.matrices import fill_exogenous, row_values
from msem.estimation.measurement import FittedBlock, fit_block, measurement_blocks, measures
from msem.estimation.objective import build_objective
from msem.estimation.optimize import Optimum
from msem.estimation.structure import LatentLevel, Structure, fit_structure, latent_level
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]
Route = Literal["local", "global"]


@dataclass(frozen=True, eq=False)
class StepwiseSolution:
    """Estimates of a whole model in two steps.

    Attributes
    ----------
    estimate : Estimate
        The whole model at these estimates, which are no maximum of its likelihood.
    vcov : ndarray, shape (npar, npar)
    blocks : tuple of FittedBlock
    structure : Structure
    tests : LevelDiscrepancy
        Of the structural part.
    """

    estimate: Estimate
    vcov: Floats
    blocks: tuple[FittedBlock, ...]
    structure: Structure
    tests: LevelDiscrepancy


def fit_stepwise(
    table: ParameterTable,
    sample: Sample,
    route: Route,
    *,
    robust: bool,
    max_iterations: int,
    tolerance: float,
) -> StepwiseSolution:
    """Fit the measurement part in blocks, then the structural part.

    Parameters
    ----------
    table : ParameterTable
    sample : Sample
    route : {"local", "global"}
        The structural part from the moments of the latent variables, or from the likelihood of the whole model with the
        measurement part held.
    robust : bool
        Influence functions of single clusters (rows); otherwise as for normal variables.
    max_iterations, tolerance
        Of each step.
    """
    filled = fill_exogenous(table, sample.levels)
    evidence = [
        evidence_of(group, number, table, robust=robust) for number, group in enumerate(sample.groups, 1)
    ]
    blocks = tuple(
        fit_block(one, sample, max_iterations=max_iterations, tolerance=tolerance)
        for one in measurement_blocks(table)
    )
    of_blocks = [block_influence(block, evidence) for block in blocks]
    levels = [
        latent_level(table, blocks, sample, level, group)
        for group in range(1, table.ngroups + 1)
        for level in range(1, table.nlevels + 1)
    ]
    structure = fit_structure(table, levels, max_iterations=max_iterations, tolerance=tolerance)
    latent = [_latent_influence(one, of_blocks, evidence) for one in levels]
    tests = _structural_tests(structure, sampling_rows(np.hstack(latent), evidence))
    theta = np.zeros(table.npar)
    influence = np.zeros((len(of_blocks[0]) if of_blocks else sum(len(e.rows) for e in evidence), table.npar))
    for block, rows in zip(blocks, of_blocks, strict=True):
        known = block.block.own >= 0
        theta[block.block.own[known]] = block.estimate.theta[known]
        influence[:, block.block.own[known]] = rows[:, known]
    known = structure.own >= 0
    theta[structure.own[known]] = structure.estimate.theta[known]
    moved = sum(rows @ d.T for rows, d in zip(latent, structure.by_moments, strict=True))
    assert isinstance(moved, np.ndarray)
    influence[:, structure.own[known]] = moved[:, known]
    if route == "global":
        theta, influence = _global(filled, sample, theta, influence, evidence, (max_iterations, tolerance))
    elif table.meanstructure:
        theta, influence = _with_means(filled, sample, theta, influence, evidence)
    rows = sampling_rows(influence, evidence)
    whole = build_objective(filled, sample.statistics)
    theta.flags.writeable = False
    value, gradient = whole.core.evaluate(theta)[:2]
    optimum = Optimum(theta, value, gradient, "converged", np.zeros(len(theta), dtype=np.intp), ())
    return StepwiseSolution(Estimate(whole, optimum), rows.T @ rows, blocks, structure, tests)


def _latent_influence(
    level: LatentLevel, of_blocks: Sequence[Floats], evidence: Sequence[Evidence]
) -> Floats:
    """Influence on the lower triangle of the covariance matrix of the structural variables of one level."""
    own = evidence[level.group - 1]
    out = stacked([(own.number, own.rows @ level.by_moments.T)], evidence, len(level.by_moments))
    for number, slopes in level.by_blocks:
        out = out + of_blocks[number] @ slopes.T
    return out


def _structural_tests(structure: Structure, rows: Floats) -> LevelDiscrepancy:
    """Tests of the structural part, whose moments are estimates themselves."""
    residual = np.concatenate(structure.residuals)
    size = len(residual)
    weight = np.zeros((size, size))
    ends = np.cumsum([0, *(len(w) for w in structure.weights)])
    for (first, last), own in zip(pairwise(ends), structure.weights, strict=True):
        weight[first:last, first:last] = own
    jacobian = np.vstack(structure.jacobians) @ structure.estimate.tangent
    value = float(residual @ weight @ residual)
    return LevelDiscrepancy(residual, jacobian, weight, rows.T @ rows, value, value, exact=False)


def _with_means(
    table: ParameterTable, sample: Sample, theta: Floats, influence: Floats, evidence: Sequence[Evidence]
) -> tuple[Floats, Floats]:
    """The intercepts at which the means are the saturated ones, and influence on them."""
    objective = build_objective(table, sample.statistics)
    theta, free, parts, inverse = fitted_means(objective, theta, sample)
    out = influence.copy()
    out[:, free] = 0.0
    rows = []
    for part in parts:
        moments = evidence[part.number - 1].rows
        gaps = moments[:, part.own] - moments[:, part.given] @ part.by_given.T
        rows.append(stacked([(part.number, gaps)], evidence, len(part.own)) - out @ part.jacobian.T)
    out[:, free] = np.hstack(rows) @ inverse.T
    return theta, out


def _global(
    table: ParameterTable,
    sample: Sample,
    theta: Floats,
    influence: Floats,
    evidence: Sequence[Evidence],
    settings: tuple[int, float],
) -> tuple[Floats, Floats]:
    """The structural part, and the intercepts, by the likelihood of the whole model with the measurement part held."""
    values = row_values(table, theta)
    held = np.array(
        sorted({row.free - 1 for row in table.rows if row.free and measures(table, row)}), dtype=np.intp
    )
    moving = np.setdiff1d(np.arange(table.npar), held)
    numbers = {int(k) + 1: n for n, k in enumerate(moving, 1)}
    intercepts = set(mean_parameters(table).tolist())
    rows = tuple(
        row._replace(
            free=numbers.get(row.free, 0),
            value=value if row.free and row.free not in numbers else row.value,
            start=value if row.free in numbers and row.free - 1 not in intercepts else None,
        )
        for row, value in zip(table.rows, values.tolist(), strict=True)
    )
    part = replace(table, rows=rows, syntax=None, defined=())
    found = estimate(part, sample, max_iterations=settings[0], tolerance=settings[1])
    if not found.optimum.converged:
        raise ModelError(
            f"the structural part has not converged with the measurement part held ({found.optimum.stop}): use "
            'method="local", or msem.sem for the whole model'
        )
    out = theta.copy()
    out[moving] = found.theta
    objective = build_objective(table, sample.statistics)
    information = objective.core.observed_information(out)
    scores = stacked(
        [
            (one.number, one.scores(objective, out, one.group.statistics, of_clusters=False))
            for one in evidence
        ],
        evidence,
        table.npar,
    )
    bread = inverse_within(found.tangent, information[np.ix_(moving, moving)])
    moved = influence.copy()
    moved[:, moving] = (scores[:, moving] - influence[:, held] @ information[np.ix_(held, moving)]) @ bread
    return out, moved
