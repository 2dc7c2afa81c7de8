"""From a parameter table and a sample to estimates: the steps every kind of fit shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.integrals import refuse
from msem.data.sample import Sample
from msem.errors import ModelError, UnsupportedError
from msem.estimation.constraints import elimination_basis
from msem.estimation.integrals import QuadratureAccuracy, quadrature_accuracy
from msem.estimation.matrices import fill_exogenous, row_values
from msem.estimation.objective import Objective, build_objective
from msem.estimation.optimize import Optimum, as_optimum
from msem.estimation.rotation import (
    RotatedBlock,
    condition_rows,
    follow_rotation,
    rotated_values,
    unrotated_table,
)
from msem.model.partable import ParameterTable
from msem.settings import Space

Floats = NDArray[np.float64]

SPACES = get_args(Space)  # in the order of the core

BAD_START = (
    "the model implies covariance matrices that are not positive definite at all starting values tried: check "
    "the fixed values of its variances, covariances and loadings, or give start() values"
)

__all__ = [
    "Estimate",
    "estimate",
    "require_likelihood",
    "require_maximum",
    "require_no_integral",
    "saturated_moments",
    "starts",
]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A model at the parameters where the optimiser stopped, and how its exploratory blocks were rotated."""

    objective: Objective
    optimum: Optimum
    rotated: tuple[RotatedBlock, ...] = ()

    @property
    def theta(self) -> Floats:
        """Estimates, shape (npar,)."""
        return self.optimum.theta

    @property
    def llf(self) -> float:
        """Log-likelihood given the fixed covariates."""
        penalty = self.objective.penalty(self.theta)
        return -0.5 * (self.optimum.value - penalty) - self.objective.covariate_llf

    @property
    def table(self) -> ParameterTable:
        """The parameter table with the moments of fixed covariates filled in."""
        return self.objective.table

    @cached_property
    def tangent(self) -> Floats:
        """Basis of the directions in which theta was free to move, shape (npar, m).

        The null space of the derivatives of equality and active inequality constraints at theta; parameters at active
        bounds do not move.
        """
        if self.optimum.border is not None:
            return self.optimum.border.tangent
        c = self.objective.constraints
        if self.table.exploratory:
            moving = np.flatnonzero(self.optimum.active == 0)
            basis = elimination_basis(self.held_rows[:, moving], self.sizes[moving])
            return np.eye(len(self.theta))[:, moving] @ basis
        if c is None:
            return np.eye(len(self.theta))[:, self.optimum.active == 0]
        return _core.tangent(
            self.objective.core, c.core, self.theta, self.optimum.active, self.optimum.active_inequalities
        )

    @property
    def unbounded_tangent(self) -> Floats:
        """`tangent` if no inequality or border held an estimate, which samples do and not models."""
        if self.table.exploratory:
            return self.tangent
        n, c = len(self.theta), self.objective.constraints
        if c is None:
            return np.eye(n)
        return _core.tangent(self.objective.core, c.core, self.theta, np.zeros_like(self.optimum.active), [])

    @cached_property
    def held_rows(self) -> Floats:
        """Derivatives of equality constraints, of active inequalities, and of the conditions of rotations."""
        c = self.objective.constraints
        if c is None:
            return self.rotation_rows
        held = c.inequalities.jacobian(self.theta)[list(self.optimum.active_inequalities)]
        return np.vstack([c.equalities.jacobian(self.theta), held, self.rotation_rows])

    @cached_property
    def rotation_rows(self) -> Floats:
        """Derivatives of the conditions that rotated loadings and correlations meet, shape (conditions, npar)."""
        if not self.table.exploratory:
            return np.empty((0, len(self.theta)))
        return condition_rows(self.objective, self.objective.core, self.theta)

    @cached_property
    def quadrature(self) -> QuadratureAccuracy | None:
        """How well integrals were computed; None where nothing is integrated over."""
        if not any(s.nodes for s in self.objective.statistics):
            return None
        return quadrature_accuracy(self.objective, self.theta)

    @cached_property
    def equality_tangent(self) -> Floats:
        """Basis of the directions that equality constraints and rotations leave at theta, shape (npar, nfree)."""
        c = self.objective.constraints
        if c is None and not self.table.exploratory:
            return np.eye(self.table.npar)
        rows = self.rotation_rows
        if c is not None:
            rows = np.vstack([c.equalities.jacobian(self.theta), rows])
        return elimination_basis(rows, self.sizes)

    @property
    def nfree(self) -> int:
        """Parameters less independent equality constraints: what counts in degrees of freedom."""
        if self.objective.constraints is None and not self.table.exploratory:
            return self.table.npar
        return int(self.equality_tangent.shape[1])

    @cached_property
    def sizes(self) -> Floats:
        """Standard errors of the parameters with all others known, shape (npar,); 1 where there is no information."""
        information = self.objective.core.expected_information(self.theta).diagonal()
        return np.where(information > 0, 1 / np.sqrt(np.where(information > 0, information, 1.0)), 1.0)


def estimate(
    table: ParameterTable,
    sample: Sample,
    *,
    loss: _core.Likelihood | Sequence[_core.Likelihood] | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
    saturated_level: int = 0,
    random_starts: int = 0,
    first: Sequence[float] | None = None,
) -> Estimate:
    """Fit a model to a sample, from several starts if the first does not converge.

    Parameters
    ----------
    table : ParameterTable
    sample : Sample
    loss : _core.Likelihood or a sequence of them, optional
        Another discrepancy than the normal likelihood, for each group.
    max_iterations : int
    tolerance : float
        On the decrement g' I^-1 g.
    saturated_level : int
        A level of two that the model leaves saturated: scoring then goes by conjugate gradients first, whose cost
        hardly grows with the parameters of that level.
    random_starts : int
        As `starts` of `sem`.
    first : sequence of float, optional
        Where rows of the table start, whatever they say themselves; nan for others.

    Returns
    -------
    Estimate
        The best of the attempts if none converged.

    Raises
    ------
    ModelError
        If the model is not a distribution at any of the starts, or a constraint has no value there.
    DataError
        If it is not, and a group has a variable that does not vary or that others determine.
    """
    filled = fill_exogenous(table, sample.levels)
    if filled.exploratory:
        found = estimate(
            unrotated_table(filled, sample),
            sample,
            loss=loss,
            max_iterations=max_iterations,
            tolerance=tolerance,
            saturated_level=saturated_level,
            random_starts=random_starts,
            first=first,
        )
        return rotated(found, filled)
    objective = build_objective(filled, sample.statistics, loss)
    objective.constraints  # noqa: B018  contradictions are reported before anything is fitted
    optimum = as_optimum(
        objective.plan.estimate(
            objective.core,
            saturated_moments(sample),
            np.nan if loss is not None or filled.penalty else -2 * sample.llf,
            max_iterations,
            tolerance,
            [block.level == saturated_level for block in objective.blocks] if saturated_level else [],
            SPACES.index("natural" if loss is not None or filled.penalty else sample.space),
            random_starts,
            sample.in_cone,
            np.empty(0) if first is None else _of_parameters(filled, first),
        )
    )
    if optimum.stop == "no valid start":
        at = starts(objective, sample)[0]
        without = [] if objective.constraints is None else objective.constraints.undefined(at)
        if without:
            raise ModelError(
                f"these constraints have no value at the starting values: {', '.join(map(repr, without))}; give "
                "start() values at which they have"
            )
        for group in sample.groups:
            for one in group.findings:  # of this group alone, which equal parameters might have made up for
                raise one.error(group.label)
        raise ModelError(BAD_START)
    return Estimate(objective, optimum)


def _of_parameters(table: ParameterTable, values: Sequence[float]) -> Floats:
    """Values of rows as those of parameters, nan for those of which none is known."""
    out = np.full(table.npar, np.nan)
    for row, value in zip(table.rows, values, strict=True):
        if row.free and value == value:
            out[row.free - 1] = value
    return out


def rotated(found: Estimate, table: ParameterTable) -> Estimate:
    """A model with the exploratory blocks of its solution rotated.

    Parameters
    ----------
    found : Estimate
        Of the model in which what rotation leaves open is fixed.
    table : ParameterTable
        Of the model in which it is free.
    """
    own = found.objective
    objective = build_objective(table, own.statistics, own.loss)
    values = row_values(found.table, found.theta)
    variances = own.variances(found.theta)
    after, blocks = rotated_values(table, objective.blocks, values, variances)
    theta, active = np.empty(table.npar), np.zeros(table.npar, dtype=np.intp)
    for i, (row, before) in enumerate(zip(table.rows, found.table.rows, strict=True)):
        if row.free:
            theta[row.free - 1] = after[i]
            active[row.free - 1] = found.optimum.active[before.free - 1] if before.free else 0
    theta.flags.writeable = False
    gradient = objective.core.evaluate(theta)[1]
    optimum = replace(found.optimum, theta=theta, gradient=gradient, active=active)
    border = found.optimum.border
    if border is not None:
        moves = np.zeros((len(table.rows), border.tangent.shape[1]))
        for i, row in enumerate(found.table.rows):
            if row.free:
                moves[i] = border.tangent[row.free - 1]
        tangent = follow_rotation(objective, objective.core, theta, blocks, moves)
        optimum = replace(optimum, border=replace(border, tangent=tangent))
    return Estimate(objective, optimum, blocks)


def saturated_moments(sample: Sample) -> list[list[tuple[Floats, Floats]]]:
    """Means and covariances of each level of each group, as the core takes them."""
    return [group.saturated.moments for group in sample.groups]


def starts(objective: Objective, sample: Sample) -> list[Floats]:
    """Starting values, and those of the restarts in their order, each of shape (npar,)."""
    return objective.plan.starts(objective.core, saturated_moments(sample), np.nan)


def require_likelihood(fit: Estimate, what: str) -> None:
    """Refuse what a fit by least squares does not have, named in the plural.

    Raises
    ------
    UnsupportedError
    """
    if fit.objective.loss and fit.table.ordered.thresholds:
        raise UnsupportedError(
            f"{what} need maximum likelihood, and this fit is by least squares, the default for ordered variables: use "
            'estimator="ML", which integrates over few latent variables'
        )
    if fit.objective.loss:
        raise UnsupportedError(
            f'{what} need maximum likelihood, and this fit is by least squares: use estimator="ML"'
        )


def require_unpenalized(fit: Estimate, what: str) -> None:
    """Refuse what rests on a maximum of the likelihood itself, named in the plural.

    Raises
    ------
    UnsupportedError
        For a penalized likelihood.
    """
    if fit.table.penalty:
        raise UnsupportedError(
            f"{what} rest on a maximum of the likelihood, and penalty= has another one: use fit.wald_test(), "
            "fit.profile() or estimates(reference='t')"
        )


def require_no_integral(fit: Estimate, what: str) -> None:
    """Refuse what is not there for ordered variables by maximum likelihood, named in the plural.

    Raises
    ------
    UnsupportedError
    """
    if any(s.integral is not None for s in fit.objective.statistics):
        refuse(what)


def require_maximum(fit: Estimate, what: str) -> None:
    """Refuse what needs a maximum of the likelihood, named in the plural.

    Raises
    ------
    UnsupportedError
        For least squares.
    ModelError
        If the fit has not converged.
    """
    require_likelihood(fit, what)
    require_converged(fit, what)


def require_converged(fit: Estimate, what: str) -> None:
    """Refuse what needs a maximum of the likelihood, or a minimum of least squares, named in the plural.

    Raises
    ------
    ModelError
    """
    if not fit.optimum.converged:
        kind = "minimum of the squares" if fit.objective.loss else "maximum of the likelihood"
        raise ModelError(f"{what} need a {kind}, and this fit has not converged")
