"""Profile likelihood: of one parameter, or a function of parameters, maximised over everything else.

Of least squares the minimum of the squares. How far it is above the least one is no chi-square with most weights, but
one value is one restriction: the difference, times the variance that the weights imply for the estimate over the one
that it has, is one with one degree of freedom (Satorra, 2000, with a single weight).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.sample import require_simple
from msem.distributions import normal_halfwidth
from msem.errors import ConvergenceWarning, ModelError, UnsupportedError, warn
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, require_converged
from msem.estimation.objective import Objective
from msem.estimation.optimize import bounds, minimize
from msem.estimation.sampling import free_directions, whitening_basis
from msem.estimation.solution import Solution
from msem.model.partable import require_no_rotation
from msem.resampling.named import Named, compile_named, every_parameter, holding, read_named, require_names
from msem.resampling.reports import as_html, as_text
from msem.settings import require_whole

Floats = NDArray[np.float64]
End = Literal["", "bound", "flat", "no solution"]

MAX_STEPS = 60
FAR = 1e5  # Wald half-widths from the estimate beyond which the likelihood counts as flat
CLOSE = 1e-7  # precision of a limit, in Wald half-widths
HIGHER = 1e-4  # -2 log L below that of the estimates by more shows that they are no maximum


@dataclass(frozen=True, slots=True)
class Limit:
    """One end of an interval.

    Attributes
    ----------
    value : float
    end : {"", "bound", "flat", "no solution"}
        Why it is not where the likelihood falls to the level of the interval: the parameter's bound lies before that;
        the likelihood never falls so far, and the limit is infinite; or the model has no maximum with the parameter
        held further out, and the limit is nan.
    """

    value: float
    end: End = ""


@dataclass(frozen=True, eq=False)
class ProfileCurve:
    """Profile of one parameter.

    Attributes
    ----------
    name : str
    est : float
    lower, upper : Limit
    level, group : int
        Where the parameter is; 0 for a function, and for one that several levels or groups share.
    at, deviance : ndarray, shape (points,)
        Values of the parameter, and how far -2 log L, or the squares, scaled, are above their minimum there; nan where
        no maximum was found.
    """

    name: str
    est: float
    lower: Limit
    upper: Limit
    level: int
    group: int
    at: Floats
    deviance: Floats


@dataclass(frozen=True, eq=False)
class Profile:
    """Profiles of the likelihood, with the intervals they give; immutable.

    Attributes
    ----------
    ci_level : float
        Coverage of the intervals.
    curves : tuple of ProfileCurve
    squares : bool
        Whether they are those of least squares.
    """

    ci_level: float
    curves: tuple[ProfileCurve, ...]
    squares: bool = False

    def conf_int(self) -> pd.DataFrame:
        """Likelihood-ratio intervals: columns ci_lower, ci_upper, and why a limit is not a regular one."""
        return self.to_frame().set_index("name").drop(columns=["level", "group", "est"]).rename_axis(None)

    def to_frame(self) -> pd.DataFrame:
        """A row for each parameter: name, level, group, est, ci_lower, ci_upper, lower_end, upper_end.

        The last two are "" for a regular limit, else "bound", "flat" or "no solution"; see `Limit`.
        """
        return pd.DataFrame(
            {
                "name": [c.name for c in self.curves],
                "level": [c.level for c in self.curves],
                "group": [c.group for c in self.curves],
                "est": [c.est for c in self.curves],
                "ci_lower": [c.lower.value for c in self.curves],
                "ci_upper": [c.upper.value for c in self.curves],
                "lower_end": [c.lower.end for c in self.curves],
                "upper_end": [c.upper.end for c in self.curves],
            }
        )

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The curves: name, value, deviance, and its square root with the sign of value - estimate (`root`).

        `root` is a straight line where Wald intervals are right.
        """
        parts = [
            pd.DataFrame(
                {
                    "name": c.name,
                    "value": c.at,
                    "deviance": c.deviance,
                    "root": np.sign(c.at - c.est) * np.sqrt(c.deviance),
                }
            )
            for c in self.curves
        ]
        return pd.concat(parts, ignore_index=True)

    @property
    def _title(self) -> str:
        return "Profile of the squares" if self.squares else "Profile likelihood"

    def __str__(self) -> str:
        return f"{self._title}, level {self.ci_level:g}\n\n{as_text(self.to_frame())}"

    def _repr_html_(self) -> str:
        return f"<p>{self._title}, level {self.ci_level:g}</p>{as_html(self.to_frame())}"

    def __repr__(self) -> str:
        return f"<msem.Profile: {', '.join(c.name for c in self.curves)}>"


class NoSolutionError(ArithmeticError):
    """The model has no maximum with the parameter held there."""


class _Profiler:
    """Refits with one parameter, or a function of them, held, each from the nearest that is known."""

    def __init__(self, estimate: Estimate, named: Named, discrepancy: LevelDiscrepancy | None) -> None:
        self.objective = estimate.objective
        self.named = named
        self.lower, self.upper = bounds(estimate.objective)
        self.best = estimate.optimum.value
        theta = estimate.theta
        gradient = np.zeros(len(theta))
        if named.position >= 0:
            self.est = float(theta[named.position])
            gradient[named.position] = 1.0
        else:
            function = compile_named(estimate.table, [named])
            self.est = float(function.values(theta)[0])
            gradient = function.jacobian(theta)[0]
        self.known = [(self.est, 0.0, theta)]
        self.slope, self.se = self._direction(estimate, gradient)
        self.scale = 1.0  # of the deviance
        if discrepancy is not None:
            self.scale = variance_ratio(estimate, discrepancy, gradient)
            self.se /= math.sqrt(self.scale)
        self.lowest = 0.0

    def _direction(self, estimate: Estimate, gradient: Floats) -> tuple[Floats, float]:
        """How the estimates follow the value near the maximum, and a standard error."""
        basis = free_directions(estimate)
        column = basis @ (basis.T @ gradient)
        variance = column @ gradient
        if variance > 0:
            return column / variance, math.sqrt(variance)
        return column, max(abs(self.est), 1e-3)

    def root(self, value: float) -> float:
        """Square root of the deviance with the parameter held at a value.

        Raises
        ------
        NoSolutionError
        """
        return math.sqrt(max(self.deviance(value), 0.0))

    def deviance(self, value: float) -> float:
        near, known, theta = min(self.known, key=lambda point: abs(point[0] - value))
        if near == value:
            return known
        objective, lower, upper = self._held(value)
        for start in (theta + (value - near) * self.slope, theta):
            found = minimize(objective, np.minimum(np.maximum(start, lower), upper), lower=lower, upper=upper)
            if found.converged:
                deviance = self.scale * (found.value - self.best)
                self.known.append((value, deviance, found.theta))
                self.lowest = min(self.lowest, deviance)
                return deviance
        raise NoSolutionError

    def _held(self, value: float) -> tuple[Objective, Floats, Floats]:
        """Objective and bounds under which the parameter or function has that value."""
        lower, upper = self.lower.copy(), self.upper.copy()
        if self.named.position >= 0:
            lower[self.named.position] = upper[self.named.position] = value
            return self.objective, lower, upper
        try:
            return holding(self.objective, self.named, value), lower, upper
        except ModelError as error:
            raise NoSolutionError from error

    def limit(self, sign: int, z: float) -> Limit:
        """Where the root of the deviance is z, on the side of the sign."""
        bound = sign * math.inf
        if self.named.position >= 0:
            bound = float((self.lower if sign < 0 else self.upper)[self.named.position])
        width = z * self.se
        inside, beyond = self.est, math.nan  # the latter has no solution
        value = self.est + sign * width
        for _ in range(MAX_STEPS):
            value = min(value, bound) if sign > 0 else max(value, bound)
            if value == inside:
                return Limit(bound, "bound")
            try:
                root = self.root(value)
            except NoSolutionError:
                beyond = value
            else:
                if root >= z:
                    return self.crossing(inside, value, z, CLOSE * width)
                inside = value
            if not math.isnan(beyond):
                if abs(beyond - inside) < CLOSE * width:
                    return Limit(math.nan, "no solution")
                value = 0.5 * (inside + beyond)
            elif inside == bound:
                return Limit(bound, "bound")
            elif abs(inside - self.est) > FAR * width:
                return Limit(sign * math.inf, "flat")
            else:
                factor = min(max(1.05 * z / root, 1.1), 4.0) if root > 0 else 4.0
                value = self.est + (inside - self.est) * factor
        return Limit(math.nan, "no solution")

    def crossing(self, inside: float, outside: float, z: float, precision: float) -> Limit:
        from scipy.optimize import brentq

        try:
            return Limit(
                float(brentq(lambda x: self.root(x) - z, inside, outside, xtol=precision, rtol=1e-12))
            )
        except NoSolutionError:
            return Limit(math.nan, "no solution")

    def at(self, value: float) -> float:
        """Deviance, or nan without a solution."""
        try:
            return max(self.deviance(value), 0.0)
        except NoSolutionError:
            return math.nan


def variance_ratio(estimate: Estimate, discrepancy: LevelDiscrepancy, gradient: Floats) -> float:
    """Variance of a function of the estimates if the weights were right, over its sampling variance.

    Parameters
    ----------
    estimate : Estimate
    discrepancy : LevelDiscrepancy
    gradient : ndarray, shape (npar,)
        Of the function. That of an estimate on its bound may move here.

    Raises
    ------
    ModelError
        If the function has no sampling variance.
    """
    objective, theta, tangent = estimate.objective, estimate.theta, estimate.tangent
    if not (tangent.T @ gradient).any():
        tangent = np.column_stack([tangent, gradient])
    factor = objective.core.information_factor(theta)
    basis = tangent @ whitening_basis(factor @ tangent)[0]
    along = basis.T @ gradient
    root = discrepancy.gradient_root(objective, theta) @ (basis @ along)
    plain, robust = float(along @ along), float(root @ root)
    if not (plain > 0 and robust > 0):
        raise ModelError(
            "a profile of least squares is scaled by the variance of the estimate, which has none"
        )
    return plain / robust


def profile_curve(
    estimate: Estimate,
    named: Named,
    ci_level: float,
    points: int,
    discrepancy: LevelDiscrepancy | None = None,
) -> ProfileCurve:
    """Profile one parameter or function of parameters.

    Parameters
    ----------
    estimate : Estimate
    named : Named
    ci_level : float
        Coverage of the interval.
    points : int
        Of the curve, from the lower limit to the upper one; three standard errors where there is none.
    discrepancy : LevelDiscrepancy, optional
        Of fits by least squares.

    Returns
    -------
    ProfileCurve

    Warns
    -----
    ConvergenceWarning
        If the likelihood is higher elsewhere than at the estimates.
    """
    z = normal_halfwidth(ci_level)
    profiler = _Profiler(estimate, named, discrepancy)
    lower, upper = profiler.limit(-1, z), profiler.limit(1, z)
    reach = 3 * profiler.se
    first = lower.value if math.isfinite(lower.value) else profiler.est - reach
    last = upper.value if math.isfinite(upper.value) else profiler.est + reach
    values = np.linspace(first, last, points)
    # outwards from the estimate, so that each refit starts next to one that is known
    order = np.argsort(np.abs(values - profiler.est), kind="stable")
    deviance = np.empty(points)
    for k in order:
        deviance[k] = profiler.at(float(values[k]))
    if profiler.lowest < -HIGHER:
        better = f"a likelihood higher by {-0.5 * profiler.lowest:.3g} than that of the fit, which is a local maximum"
        if discrepancy is not None:
            better = (
                f"squares lower by {-profiler.lowest:.3g} than those of the fit, which are a local minimum"
            )
        warn(
            f"the profile of {named.name} found {better}: give other start() values",
            ConvergenceWarning,
        )
    return ProfileCurve(named.name, profiler.est, lower, upper, named.level, named.group, values, deviance)


def profile_curves(
    estimate: Estimate,
    named: Sequence[Named],
    ci_level: float,
    points: int,
    discrepancy: LevelDiscrepancy | None = None,
) -> Profile:
    """Profiles of several parameters; see `profile_curve`."""
    curves = tuple(profile_curve(estimate, one, ci_level, points, discrepancy) for one in named)
    return Profile(ci_level, curves, discrepancy is not None)


def profile(
    fit: Solution, names: str | Sequence[str] | None = None, *, ci_level: float = 0.95, points: int = 21
) -> Profile:
    """Profile the likelihood of parameters, and the intervals that it gives.

    The interval holds the values at which -2 log L, minimised over all other parameters, is above its minimum by no
    more than the chi-square quantile with one degree of freedom. It needs no standard error, respects bounds and
    need not be symmetric (Venzon & Moolgavkar, 1988; Neale & Miller, 1997).

    By least squares it is the squares that are minimised over all other parameters, with the weights of the fit. Their
    difference, times the variance of the estimate that the weights imply over its sampling variance, is the scaled
    chi-square test of a fixed value (Satorra, 2000), which for one degree of freedom needs no shift.

    Parameters
    ----------
    names : str or sequence of str, optional
        Names of `params`, labels, formulas such as ``"fb =~ y2"``, or functions of parameters such as ``"a*b"``.
        Default: all parameters and definitions.
    ci_level : float
        Coverage.
    points : int
        Of each curve in `Profile.frame`.

    Returns
    -------
    Profile

    Raises
    ------
    ModelError
        If a name is not that of one estimated parameter, or the fit has not converged.
    UnsupportedError
        With weights, PSUs or strata, and of a likelihood of one level with clusters.

    Warns
    -----
    ConvergenceWarning
        If the likelihood is higher, or the squares lower, elsewhere than at the estimates.

    References
    ----------
    Satorra (2000). In Heijmans, Pollock & Satorra (Eds.), Innovations in multivariate statistical analysis, 233-247.
    Kluwer.
    """
    require_converged(fit.estimate, "profiles")
    require_no_rotation(fit.table, "profiles")
    require_simple(fit.sample, "profile likelihoods", "use conf_int(reference='t')")
    squares = fit.discrepancy is not None
    if not squares and not fit.table.multilevel and any(group.in_clusters for group in fit.sample.groups):
        raise UnsupportedError(
            "the likelihood of a single-level model takes the rows of a cluster as independent, so its profile "
            "would give intervals that are too short: use bootstrap(), or levels in the model"
        )
    require_whole("points", points, 2)
    table = fit.table
    chosen = (
        every_parameter(table)
        if names is None
        else [read_named(table, name) for name in require_names(names)]
    )
    return profile_curves(fit.estimate, chosen, ci_level, points, fit.discrepancy)
