"""Noncentrality of a model for complete data, when values are missing.

The likelihood ratio of data with missing values grows with what is observed, so that RMSEA and CFI made from it shrink
where much is missing. What the same units would show without holes is the discrepancy of complete data between the
saturated moments s and the implied ones (Zhang & Savalei, 2023, Psychological Methods, 28, 263-283):

    T = D(s, sigma) = -2 log L(sigma) + 2 log L(s),    L the likelihood of complete data with the moments s,

for two levels with the cluster sizes of the sample. It is quadratic in s near the model, so its bias under a true model
is tr(U V), with V the sampling covariance of s as estimated from the data with holes (the inverse information, or the
sandwich), W the complete-data information about the moments at the implied ones, D their derivatives, and

    U = W - W D (D'WD)^-1 D'W.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.sample import Group
from msem.data.statistics import Statistics
from msem.estimation.estimate import Estimate
from msem.estimation.objective import build_objective
from msem.estimation.sampling import whitening_basis
from msem.estimation.solution import Solution, cached
from msem.model.partable import ParameterTable
from msem.model.variables import Variables
from msem.postestimation.scaling import MomentSpace

Floats = NDArray[np.float64]


class Noncentrality(NamedTuple):
    """A discrepancy on the scale of chi-square, and its expectation under a true model.

    Attributes
    ----------
    chisq : float
    bias : float
        0 without degrees of freedom.
    """

    chisq: float
    bias: float

    @property
    def excess(self) -> float:
        """Estimate of the noncentrality; may be negative."""
        return self.chisq - self.bias


UNKNOWN = Noncentrality(np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class CompleteData:
    """What complete data of the same units and clusters would say about the saturated moments.

    Attributes
    ----------
    statistics : tuple of Statistics
        Those that complete data with the saturated moments have, of the variables of the model, for each group.
    space : MomentSpace
        Their saturated model.
    minimum : float
        Its -2 log L.
    root : ndarray, shape (moments, k)
        Times its transpose the sampling covariance of the saturated moments as estimated from the data with holes.
    """

    statistics: tuple[Statistics, ...]
    space: MomentSpace
    minimum: float
    root: Floats

    def noncentrality(self, model: Estimate) -> Noncentrality:
        """Discrepancy and bias of a model of these variables; nan outside the domain of the likelihood."""
        table = _without(model.table, model.table.auxiliary)
        theta = model.theta[: table.npar]
        objective = build_objective(table, self.statistics)
        chisq = objective.core.value(theta) - self.minimum
        if not np.isfinite(chisq):
            return UNKNOWN
        moments, jacobian = self.space.implied(objective, theta)
        factor = self.space.objective.core.information_factor(moments)
        return Noncentrality(
            max(chisq, 0.0), _bias(factor @ self.root, factor @ jacobian @ model.tangent[: table.npar])
        )


def _bias(root: Floats, tangents: Floats) -> float:
    """tr(U V) where the information is the identity: what of V is at right angles to the tangents of the model."""
    if tangents.shape[1]:
        basis = tangents @ whitening_basis(tangents)[0]
        root = root - basis @ (basis.T @ root)
    return float(np.sum(root**2))


def _without(table: ParameterTable, names: Collection[str]) -> ParameterTable:
    """A table without some variables, whose other parameters keep their numbers."""
    if not names:
        return table
    rows = tuple(row for row in table.rows if row.lhs not in names and row.rhs not in names)
    return replace(table, rows=rows, auxiliary=())


@cached
def complete_data(fit: Solution) -> CompleteData | None:
    """Complete data like those of a fit; None where there are none.

    So it is if the saturated moments are no maximum or have no covariance, and where clusters are not independent.
    """
    sample = fit.sample
    if not sample.converged or not all(s.independent for s in sample.statistics):
        return None
    auxiliary = fit.table.auxiliary
    levels = [{k: m.without(auxiliary) for k, m in group.items()} for group in sample.levels]
    groups = zip(sample.groups, levels, strict=True)
    statistics = tuple(_expected(group, own, auxiliary) for group, own in groups)
    space = MomentSpace.at(_without(fit.table, auxiliary), statistics, levels)
    minimum = space.objective.core.value(space.theta)
    root = _saturated_root(fit, space)
    if not (np.isfinite(minimum) and np.isfinite(root).all()):
        return None
    return CompleteData(statistics, space, minimum, root)


def _expected(group: Group, levels: Mapping[int, LevelArrays], auxiliary: Collection[str]) -> Statistics:
    """Statistics of complete data with given moments, in clusters of the sizes of a group."""
    s = group.statistics
    kept = tuple(tuple(name for name in names if name not in auxiliary) for names in s.variables.levels)
    return s.expected(levels, Variables(kept), "saturated moments")


def _saturated_root(fit: Solution, space: MomentSpace) -> Floats:
    """Root of the sampling covariance of the saturated moments of the variables of a space."""
    whole = MomentSpace.of(fit.table, fit.sample)
    expected = fit.options.information == "expected"
    if fit.options.robust:
        root = whole.gamma_root(fit.sample, expected=expected)
    else:
        root = _cholesky(whole.information(whole.theta, expected=expected))
    root = root[[whole.places[key] for key in space.places]]
    # a column for each cluster otherwise
    if root.shape[1] <= len(root):
        return root
    upper: Floats = np.linalg.qr(root.T).R
    return upper.T


def _cholesky(information: Floats) -> Floats:
    """Root of the inverse of an information matrix; nan if it is not positive definite."""
    inverse, pivot = _core.scaled_inverse(information)
    if not pivot > 0:
        return np.full_like(information, np.nan)
    return np.asarray(np.linalg.cholesky(inverse), dtype=np.float64)


def noncentralities(
    fit: Solution, model: Estimate, baseline: Estimate
) -> tuple[Noncentrality, Noncentrality]:
    """Noncentralities of a model of the variables of a fit and of its baseline where values are missing.

    Without missing values they follow from the likelihood ratio.
    """
    complete = complete_data(fit)
    if complete is None:
        return UNKNOWN, UNKNOWN
    null = complete.noncentrality(baseline) if baseline.optimum.converged else UNKNOWN
    return complete.noncentrality(model), null
