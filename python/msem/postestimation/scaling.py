"""Scaling of likelihood-ratio tests for data that are not normal, or clusters that are not what the model says.

The likelihood-ratio statistic of a true model is asymptotically a weighted sum of chi-squares with mean

    tr(A1^-1 B1) - tr(A0^-1 B0),

A the information and B the sum over clusters of outer products of scores, of the saturated model (1) and of the
model (0). Divided by the mean over the degrees of freedom it has the mean of a chi-square (Satorra & Bentler, 1994;
Yuan & Bentler, 2000). The variant of Mplus (Asparouhov & Muthen, 2005) takes each term at the maximum of its own model.
That of Yuan and Bentler writes the same mean as tr(U Gamma), with Gamma = A1^-1 B1 A1^-1 at the saturated maximum and
U = A - A D (D'AD)^-1 D'A, where A is the information about the moments at those that the model implies and D their
derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.sample import Group, Sample
from msem.data.saturated import saturated_parts
from msem.data.statistics import Statistics
from msem.errors import UnsupportedError
from msem.estimation.estimate import Estimate
from msem.estimation.matrices import fill_exogenous
from msem.estimation.moment_vector import Moment, implied_moments, moment_keys
from msem.estimation.objective import Objective, build_objective
from msem.estimation.sampling import Bread, free_directions, sampling_covariance
from msem.estimation.scoreproducts import cluster_correction, corrected_scores, score_products
from msem.estimation.slopes import SlopeReference
from msem.estimation.solution import Solution, cached
from msem.model.derived import saturated_npar, saturated_table
from msem.model.partable import ParameterTable
from msem.settings import Information, ScaledTest

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """How far a likelihood-ratio statistic is from a chi-square.

    Attributes
    ----------
    h0, h1 : float
        tr(A^-1 B) of the model and of the saturated model, for each of their parameters. 1 for normal data.
    factor : float
        What the chi-square is divided by; nan without degrees of freedom, or when it would not be positive.
    """

    h0: float
    h1: float
    factor: float


def mplus_scaling(trace0: float, free0: int, trace1: float, free1: int) -> Scaling:
    """Scaling factors from the traces and numbers of free parameters of the model (0) and the saturated one (1)."""
    return _scaling(trace1 - trace0, trace0, free0, trace1, free1)


def full_scaling(
    fit: Estimate, sample: Sample, information: Information, trace1: float, free1: int
) -> Scaling:
    """Scaling factors of Yuan and Bentler (2000) of a model; those of h0 and h1 are reported beside it only."""
    if free1 == fit.nfree:
        return _scaling(0.0, np.nan, fit.nfree, trace1, free1)
    trace0 = model_trace(fit, sample, information, "yuan_bentler")
    total = residual_trace(fit, sample, expected=information == "expected")
    return _scaling(total, trace0, fit.nfree, trace1, free1)


def _scaling(total: float, trace0: float, free0: int, trace1: float, free1: int) -> Scaling:
    df = free1 - free0
    factor = total / df if df > 0 else np.nan
    return Scaling(
        h0=trace0 / free0 if free0 else np.nan,
        h1=trace1 / free1 if free1 else np.nan,
        factor=factor if factor > 0 else np.nan,
    )


def model_trace(fit: Estimate, sample: Sample, information: Information, test: ScaledTest) -> float:
    """tr(A^-1 B) of a model over the directions in which it is free.

    Parameters
    ----------
    fit : Estimate
    sample : Sample
        With raw data.
    information : {"observed", "expected"}
    test : {"yuan_bentler", "yuan_bentler_mplus"}

    Returns
    -------
    float
        nan if the information is not positive definite.
    """
    bread: Bread = "moments" if test == "yuan_bentler" and information == "observed" else information
    return sampling_covariance(
        fit.objective, fit.theta, bread, fit.tangent, sample.clusters, robust=True
    ).trace


def saturated_trace(table: ParameterTable, sample: Sample, information: Information) -> float:
    """tr(A^-1 B) of the saturated model of the variables of a table, at its maximum.

    Parameters
    ----------
    table : ParameterTable
        The model that is held against it, which says what moments of covariates are fixed.
    sample : Sample
        With raw data.
    information : {"observed", "expected"}

    Returns
    -------
    float
        nan if the saturated model has no maximum.
    """
    if not sample.converged:
        return np.nan
    levels = range(1, table.nlevels + 1)
    groups = range(1, len(sample.groups) + 1)
    shared = {name for level in levels for name in table.anchored(level)}
    if any(shared & set(table.exogenous(level, group)) for level in levels for group in groups):
        return _trace_of_matrices(table, sample, information)
    total = 0.0
    for number, group in enumerate(sample.groups, 1):
        trace = _group_trace(table, group, number, information == "expected")
        if trace is None:
            return _trace_of_matrices(table, sample, information)
        total += trace
    return total


def _group_trace(table: ParameterTable, group: Group, number: int, expected: bool) -> float | None:
    s, c, m = group.statistics, group.clusters, group.saturated
    exogenous = [set(table.exogenous(level, number)) for level in range(1, table.nlevels + 1)]
    fixed = [name in exogenous[0] for name in s.unit] + [name in exogenous[-1] for name in s.cluster]
    likelihood, levels = saturated_parts(s, m, c)
    trace = c.saturated_trace(likelihood, levels, fixed, means=table.meanstructure, expected=expected)
    return None if trace is None else trace * cluster_correction(table, c)


def _trace_of_matrices(table: ParameterTable, sample: Sample, information: Information) -> float:
    """tr(A^-1 B) of the saturated model from whole matrices.

    For data with holes, primary sampling units, or where the moments of a covariate at both levels are fixed, so that
    there are no simple coordinates.
    """
    space = MomentSpace.of(table, sample)
    a = space.information(space.theta, expected=information == "expected")
    inverse, pivot = _core.scaled_inverse(a)
    products = score_products(space.objective, space.theta, sample.clusters)
    return float(np.sum(inverse * products)) if pivot > 0 else np.nan


def slopes_trace(reference: SlopeReference, group: Group, information: Information) -> float:
    """tr(A^-1 B) of the saturated model of slopes of one group; nan if it has no maximum."""
    found = reference.estimate
    if reference.reason or found is None:
        return np.nan
    return sampling_covariance(
        found.objective, found.theta, information, clusters=(group.clusters,), robust=True
    ).trace


@dataclass(frozen=True, eq=False)
class MomentSpace:
    """The saturated model of a sample, given the fixed covariates of a table.

    Attributes
    ----------
    objective : Objective
        Of the saturated model; its parameters are the moments that are not fixed.
    theta : ndarray, shape (moments,)
        Its maximum.
    """

    objective: Objective
    theta: Floats

    @classmethod
    def of(cls, table: ParameterTable, sample: Sample) -> MomentSpace:
        """The saturated model of the variables of a table."""
        return cls.at(table, sample.statistics, sample.levels)

    @classmethod
    def at(
        cls,
        table: ParameterTable,
        statistics: Sequence[Statistics],
        levels: Sequence[Mapping[int, LevelArrays]],
    ) -> MomentSpace:
        """The saturated model of the variables of a table whose maximum, by group and level, is known."""
        saturated = fill_exogenous(saturated_table(table), levels)
        theta = np.empty(saturated.npar)
        for row in saturated.rows:
            if row.free:
                m = levels[row.group - 1][row.level]
                i = m.at[row.lhs]
                theta[row.free - 1] = m.mean[i] if row.op == "~1" else m.cov[i, m.at[row.rhs]]
        return cls(build_objective(saturated, statistics), theta)

    @property
    def places(self) -> dict[Moment, int]:
        """Where each moment that is not fixed is in `theta`."""
        return {
            Moment(row.lhs, row.op, row.rhs, row.level, row.group): row.free - 1
            for row in self.objective.table.rows
            if row.free
        }

    def information(self, theta: Floats, *, expected: bool) -> Floats:
        """Information about the moments at other values of them."""
        core = self.objective.core
        return core.expected_information(theta) if expected else core.observed_information(theta)

    def implied(self, model: Objective, theta: Floats) -> tuple[Floats, Floats]:
        """Moments implied by a model, shape (moments,), and their derivatives, shape (moments, npar)."""
        places = self.places
        value, jacobian = np.zeros(len(self.theta)), np.zeros((len(self.theta), len(theta)))
        for group, statistics in enumerate(model.statistics, 1):
            values, derivatives = implied_moments(model, theta, group)
            for k, key in enumerate(moment_keys(statistics.variables, group)):
                place = places.get(key, places.get(key._replace(lhs=key.rhs, rhs=key.lhs)))
                if place is not None:
                    value[place], jacobian[place] = values[k], derivatives[k]
        return value, jacobian

    def gamma_root(self, sample: Sample, *, expected: bool) -> Floats:
        """G with G G' = A1^-1 B1 A1^-1, shape (moments, clusters); nan if A1 is not positive definite."""
        inverse, pivot = _core.scaled_inverse(self.information(self.theta, expected=expected))
        if not pivot > 0:
            return np.full((len(self.theta), 1), np.nan)
        root: Floats = inverse @ corrected_scores(self.objective, self.theta, sample.clusters).T
        return root


def residual_trace(fit: Estimate, sample: Sample, *, expected: bool) -> float:
    """tr(U Gamma) of a model.

    Parameters
    ----------
    fit : Estimate
    sample : Sample
        With raw data.
    expected : bool
        Expected instead of observed information throughout.

    Returns
    -------
    float
        nan if the information is singular.
    """
    space = MomentSpace.of(fit.table, sample)
    root = space.gamma_root(sample, expected=expected)
    moments, jacobian = space.implied(fit.objective, fit.theta)
    d = jacobian @ free_directions(fit)
    a = space.information(moments, expected=expected)
    whole = a @ root
    part = d.T @ whole
    try:
        return float(np.sum(root * whole) - np.sum(part * np.linalg.solve(d.T @ a @ d, part)))
    except np.linalg.LinAlgError:
        return np.nan


def model_scaling(fit: Solution, test: ScaledTest) -> Scaling:
    """Scaling factors of a test of the model of a fit."""
    known = np.nan if fit.sampling is None else fit.sampling.trace
    return scaling_of(fit, test, fit.estimate, known)


def scaling_of(fit: Solution, test: ScaledTest, model: Estimate, trace: float = np.nan) -> Scaling:
    """Scaling factors of a test of any model of the variables of a fit, whose tr(A^-1 B) may be known."""
    information = fit.options.information
    if test == "yuan_bentler" and fit.has_slopes:
        raise UnsupportedError(
            'test="yuan_bentler" needs saturated moments, which models with random slopes have none of: use '
            'test="yuan_bentler_mplus"'
        )
    if test == "yuan_bentler":
        return full_scaling(model, fit.sample, information, *traced(fit))
    if np.isnan(trace):
        trace = model_trace(model, fit.sample, information, test)
    return mplus_scaling(trace, model.nfree, *traced(fit))


@cached
def traced(fit: Solution) -> tuple[float, int]:
    """tr(A^-1 B) of the saturated model of a fit, and the number of its parameters."""
    if fit.has_slopes:
        trace = sum(
            slopes_trace(group.slope_reference, group.sample, fit.options.information)
            for group in fit.groups.values()
        )
    else:
        trace = saturated_trace(fit.table, fit.sample, fit.options.information)
    return trace, saturated_npar(fit.table)
