"""A model seen from its saturated model: implied moments and their derivatives as saturated parameters.

From there the scaling of Yuan and Bentler (2000) is tr(U Gamma) with Gamma = A1^-1 B1 A1^-1 at the saturated maximum
and U = A - A D (D'AD)^-1 D'A, where A is the information about the moments at those implied and D their derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Sample
from msem.estimation.estimate import Estimate
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import Objective, build_objective
from msem.estimation.sampling import free_directions
from msem.estimation.scoreproducts import corrected_scores
from msem.model.partable import ParameterTable
from msem.model.special_tables import saturated_table
from msem.postestimation.momentvector import implied_moments, moment_keys

Floats = NDArray[np.float64]


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
        saturated = fill_exogenous(saturated_table(table), sample.levels)
        theta = np.empty(saturated.npar)
        for row in saturated.rows:
            if row.free:
                m = sample.levels[row.group - 1][row.level]
                i = m.at[row.lhs]
                theta[row.free - 1] = m.mean[i] if row.op == "~1" else m.cov[i, m.at[row.rhs]]
        return cls(build_objective(saturated, sample.statistics), theta)

    def information(self, theta: Floats, *, expected: bool) -> Floats:
        """Information about the moments at other values of them."""
        core = self.objective.core
        return core.expected_information(theta) if expected else core.observed_information(theta)

    def implied(self, model: Objective, theta: Floats) -> tuple[Floats, Floats]:
        """Moments implied by a model, shape (moments,), and their derivatives, shape (moments, npar)."""
        places = {
            (row.lhs, row.op, row.rhs, row.level, row.group): row.free - 1
            for row in self.objective.table.rows
            if row.free
        }
        value, jacobian = np.zeros(len(self.theta)), np.zeros((len(self.theta), len(theta)))
        for group, statistics in enumerate(model.statistics, 1):
            values, derivatives = implied_moments(model, theta, group)
            for k, key in enumerate(moment_keys(statistics, group)):
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
