"""From a parameter table and a sample to estimates: the steps every kind of fit shares."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Sample
from msem.errors import ModelError, UnsupportedError
from msem.estimation.constraints import elimination_basis
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import Objective, build_objective
from msem.estimation.optimize import Optimum, minimize
from msem.estimation.restarts import restarts
from msem.estimation.starting import starting_values
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]

ATTEMPT = 60  # iterations from one start before another is tried
BEYOND = 1e-4  # -2 log L below that of the saturated model by more than this is no maximum of a nested one
STATIONARY = 1e-2  # in -2 log L: an optimum under constraints that a step would improve by more is none
RANK = 1e-11  # relative singular value of the information factor
NOWHERE = ("unbounded", "infeasible")  # where a likelihood says nothing
SAME = 1e-3  # difference in -2 log L between maxima that counts as none

__all__ = ["Estimate", "estimate", "require_likelihood", "require_maximum"]


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

    @cached_property
    def tangent(self) -> Floats:
        """Basis of the directions in which theta was free to move, shape (npar, m).

        The null space of the derivatives of equality and active inequality constraints at theta; parameters at active
        bounds do not move.
        """
        moving = np.flatnonzero(self.optimum.active == 0)
        identity = np.eye(len(self.theta))[:, moving]
        c = self.objective.constraints
        if c is None:
            return identity
        held = c.inequalities.jacobian(self.theta)[list(self.optimum.held)]
        rows = np.vstack([c.equalities.jacobian(self.theta), held])[:, moving]
        return identity @ elimination_basis(rows, self.sizes[moving])

    @cached_property
    def equality_tangent(self) -> Floats:
        """Basis of the directions that the equality constraints leave at theta, shape (npar, nfree)."""
        c = self.objective.constraints
        if c is None:
            return np.eye(self.table.npar)
        return elimination_basis(c.equalities.jacobian(self.theta), self.sizes)

    @property
    def nfree(self) -> int:
        """Parameters less independent equality constraints: what counts in degrees of freedom."""
        return int(self.equality_tangent.shape[1])

    @property
    def decrement(self) -> float:
        """What a scoring step along the tangent would still gain in -2 log L, g'T (T'IT)^-1 T'g / 4.

        In the metric of the information factor, in which covariates with huge means do not hide it.
        """
        factor = self.objective.core.information_factor(self.theta) @ self.tangent
        norm = np.linalg.norm(factor, axis=0)
        scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        slope = self.tangent.T @ self.optimum.gradient * scale
        step = np.linalg.lstsq((factor * scale).T, slope, rcond=RANK)[0]
        return float(step @ step) / 4

    @property
    def stationary(self) -> bool:
        """Whether an optimum under constraints is one; without constraints the optimiser has seen to it."""
        return self.objective.constraints is None or self.decrement <= STATIONARY

    @cached_property
    def sizes(self) -> Floats:
        """Standard errors of the parameters with all others known, shape (npar,); 1 where there is no information."""
        information = self.objective.core.expected_information(self.theta).diagonal()
        return np.where(information > 0, 1 / np.sqrt(np.where(information > 0, information, 1.0)), 1.0)


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
        Another discrepancy than the normal likelihood, for a sample of one group.
    max_iterations : int
    tolerance : float
        On the decrement g' I^-1 g.

    Returns
    -------
    Estimate
        The best of the attempts if none converged.

    Raises
    ------
    ModelError
        If the model is not a distribution at any of the starts, or a constraint has no value there.
    """
    filled = fill_exogenous(table, sample.levels)
    objective = build_objective(filled, sample.statistics, loss)
    objective.constraints  # noqa: B018  contradictions are reported before anything is fitted
    first = starting_values(objective, sample)
    floor = -np.inf if loss is not None else -2 * sample.llf - BEYOND

    def attempt(start: Floats, iterations: int) -> Optimum:
        return minimize(objective, start, max_iterations=iterations, tolerance=tolerance, floor=floor)

    short = min(ATTEMPT, max_iterations)
    best = attempt(first, short)
    if not best.converged and (max_iterations > ATTEMPT or best.stop == "no valid start"):
        others = restarts(objective, first, sample)
        found = (attempt(start, short) for start in others)
        maximum, top = highest(itertools.chain([best], found))
        best = maximum or top
        if best is not top or maximum is None:
            rest = attempt(top.theta, max_iterations - short)
            if rest.converged or maximum is None:
                best = replace(rest, diary=top.diary + rest.diary)
            elif rest.stop not in NOWHERE:
                best = replace(maximum, surpassed=maximum.value - rest.value)
    if best.stop == "no valid start":
        without = [] if objective.constraints is None else objective.constraints.undefined(first)
        if without:
            raise ModelError(
                f"these constraints have no value at the starting values: {', '.join(map(repr, without))}; give "
                "start() values at which they have"
            )
        raise ModelError(
            "the model implies covariance matrices that are not positive definite at all starting values tried: check "
            "the fixed values of its variances, covariances and loadings, or give start() values"
        )
    reached = Estimate(objective, best)
    if best.converged and not reached.stationary:
        return Estimate(objective, replace(best, stop="no further progress"))
    return reached


def require_likelihood(fit: Estimate, what: str) -> None:
    """Refuse what a fit by least squares does not have, named in the plural.

    Raises
    ------
    UnsupportedError
    """
    if fit.objective.loss is not None:
        raise UnsupportedError(
            f'{what} need maximum likelihood, and this fit is by least squares: use estimator="ML"'
        )


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
    if not fit.optimum.converged:
        raise ModelError(f"{what} need a maximum of the likelihood, and this fit has not converged")


def highest(attempts: Iterable[Optimum]) -> tuple[Optimum | None, Optimum]:
    """The highest maximum among attempts, and the highest point that any of them came to.

    Attempts are made one by one and end with the first maximum than which nothing higher was seen: that maximum is
    then both results.
    """
    top: Optimum | None = None
    maximum: Optimum | None = None
    for found in attempts:
        if top is None or top.stop in NOWHERE or (found.value < top.value and found.stop not in NOWHERE):
            top = found
        if found.converged and (maximum is None or found.value < maximum.value):
            maximum = found
        if maximum is not None and (top.stop in NOWHERE or maximum.value < top.value + SAME):
            return maximum, maximum
    assert top is not None
    return maximum, top
