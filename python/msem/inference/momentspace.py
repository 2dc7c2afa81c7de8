"""A model seen from its saturated model: implied moments and their derivatives as saturated parameters.

From there the scaling of Yuan and Bentler (2000) is tr(U Gamma) with Gamma = A1^-1 B1 A1^-1 at the saturated maximum
and U = A - A D (D'AD)^-1 D'A, where A is the information about the moments at those implied and D their derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.estimation.estimate import Estimate
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import Objective, build_objective
from msem.estimation.samples import Sample
from msem.inference.sampling import free_directions
from msem.inference.scoreproducts import corrected_scores
from msem.table.partable import Parameter, ParameterTable
from msem.table.special_tables import saturated_table

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
        parts = [_stacked(model, theta, i) for i in range(len(model.blocks))]
        value, jacobian = np.zeros(len(self.theta)), np.zeros((len(self.theta), len(theta)))
        for row in self.objective.table.rows:
            if row.free:
                for block, position in _positions(row, model):
                    value[row.free - 1] += parts[block][0][position]
                    jacobian[row.free - 1] += parts[block][1][position]
        return value, jacobian

    def gamma_root(self, sample: Sample, *, expected: bool) -> Floats:
        """G with G G' = A1^-1 B1 A1^-1, shape (moments, clusters); nan if A1 is not positive definite."""
        inverse, pivot = _core.scaled_inverse(self.information(self.theta, expected=expected))
        if not pivot > 0:
            return np.full((len(self.theta), 1), np.nan)
        root: Floats = inverse @ corrected_scores(self.objective, self.theta, sample.clusters).T
        return root


def _stacked(model: Objective, theta: Floats, block: int) -> tuple[Floats, Floats]:
    """Implied observed means, then the lower triangle of covariances by column, with derivatives."""
    mean, cov = model.core.implied(theta, block)
    n = model.blocks[block].nobserved
    col, row = np.triu_indices(n)
    return np.concatenate([mean[:n], cov[row, col]]), model.core.jacobian(theta, block)


def _positions(row: Parameter, model: Objective) -> Iterator[tuple[int, int]]:
    """Blocks of a model, and places there, that a saturated moment is the sum of.

    The mean of a variable at both levels is one moment, wherever its parts come from.
    """
    for number, block in enumerate(model.blocks):
        at = {name: i for i, name in enumerate(block.names[: block.nobserved])}
        if block.group != row.group or row.lhs not in at:
            continue
        if row.op == "~1":
            if block.level == row.level or row.lhs in model.table.both:
                yield number, at[row.lhs]
        elif block.level == row.level:
            i, j = max(at[row.lhs], at[row.rhs]), min(at[row.lhs], at[row.rhs])
            yield number, block.nobserved + j * block.nobserved - j * (j - 1) // 2 + i - j


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
