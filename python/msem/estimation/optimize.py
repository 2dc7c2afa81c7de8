"""Minimise an objective by Fisher scoring and tell how it went."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.estimation.objective import Objective

Floats = NDArray[np.float64]

# of the core, in its order
STOPS = (
    "converged",
    "iteration limit",
    "no further progress",
    "no valid start",
    "infeasible",
    "unbounded",
)


@dataclass(frozen=True, eq=False)
class Border:
    """Where a maximum lies on the border of the cone of positive semidefinite matrices.

    Attributes
    ----------
    tangent : ndarray, shape (npar, m)
        Independent directions in which the parameters can move along the border.
    observed, expected : ndarray, shape (m, m)
        Information about these directions, with the curvature of the border.
    singular : tuple of (int, tuple of int)
        Blocks, and the variables in each whose covariance matrix is singular although no variance is 0.
    """

    tangent: Floats
    observed: Floats
    expected: Floats
    singular: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the optimiser stopped.

    Attributes
    ----------
    theta : ndarray, shape (npar,)
    value : float
        -2 log L, covariates included.
    gradient : ndarray, shape (npar,)
    stop : str
        "converged" when the decrement g' I^-1 g, the expected gain in -2 log L of a further step, fell below
        the tolerance; it does not depend on the units of the variables. "unbounded" when the value is below that
        of the saturated model, "infeasible" when constraints are violated.
    active : ndarray of int, shape (npar,)
        -1 at its lower bound, 1 at its upper bound, 0 free.
    iterations : DataFrame
        value, decrement, damping and kind of step of each iteration.
    active_inequalities : tuple of int
        Inequality constraints that are active.
    surpassed : float
        How much lower -2 log L was seen to be elsewhere, in directions without a minimum.
    border : Border or None
        Of a maximum on the border of the cone.
    natural : float
        -2 log L at a maximum outside the cone; nan if there is none.
    maxima : tuple of float
        -2 log L at other local maxima that were met, ascending.
    """

    theta: Floats
    value: float
    gradient: Floats
    stop: str
    active: NDArray[np.intp]
    diary: tuple[tuple[float, float, float, bool], ...]
    active_inequalities: tuple[int, ...] = ()
    surpassed: float = 0.0
    border: Border | None = None
    natural: float = math.nan
    maxima: tuple[float, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the stopping rule was met."""
        return self.stop == "converged"

    @property
    def iterations(self) -> pd.DataFrame:
        """Diary of the iterations."""
        frame = pd.DataFrame(list(self.diary), columns=["value", "decrement", "damping", "newton"])
        frame["step"] = np.where(frame.pop("newton").astype(bool), "newton", "scoring")
        return frame


def bounds(objective: Objective) -> tuple[Floats, Floats]:
    """Lower and upper bound of every parameter, the tightest among rows that share it."""
    return objective.plan.lower, objective.plan.upper


def minimize(
    objective: Objective,
    start: Floats,
    *,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
    lower: Floats | None = None,
    upper: Floats | None = None,
) -> Optimum:
    """Minimise -2 log L from one start, under the constraints that there are.

    Parameters
    ----------
    objective : Objective
    start : ndarray, shape (npar,)
    max_iterations : int
    tolerance : float
        On the decrement.
    lower, upper : ndarray, shape (npar,), optional
        Bounds; default: those of the model.

    Returns
    -------
    Optimum
    """
    least, most = bounds(objective)
    constraints = objective.constraints
    return as_optimum(
        _core.minimize(
            objective.core,
            start,
            least if lower is None else lower,
            most if upper is None else upper,
            max_iterations,
            tolerance,
            None if constraints is None else constraints.core,
        )
    )


def as_optimum(found: _core.Found) -> Optimum:
    """What an optimiser of the core returns."""
    for array in (found["theta"], found["gradient"]):
        array.flags.writeable = False
    return Optimum(
        found["theta"],
        found["value"],
        found["gradient"],
        STOPS[found["stop"]],
        np.array(found["active"], dtype=np.intp),
        tuple(found["iterations"]),
        tuple(found["active_inequalities"]),
        found["surpassed"],
        _border(found["cone"]),
        found["natural"],
        tuple(found["maxima"]),
    )


def _border(found: _core.BorderTuple | None) -> Border | None:
    if found is None:
        return None
    tangent, observed, expected, singular = found
    return Border(tangent, observed, expected, tuple((block, tuple(at)) for block, at in singular))
