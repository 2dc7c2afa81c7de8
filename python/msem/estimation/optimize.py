"""Minimise an objective by Fisher scoring and tell how it went."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.estimation.objective import Objective
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]

STOPS = ("converged", "iteration limit", "no further progress", "no valid start", "infeasible")


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
    held : tuple of int
        Inequality constraints that are active.
    surpassed : float
        How much lower -2 log L was seen to be elsewhere, in directions without a minimum.
    """

    theta: Floats
    value: float
    gradient: Floats
    stop: str
    active: NDArray[np.intp]
    diary: tuple[tuple[float, float, float, bool], ...]
    held: tuple[int, ...] = ()
    surpassed: float = 0.0

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
    return row_bounds(objective.table)


def row_bounds(table: ParameterTable) -> tuple[Floats, Floats]:
    """The same of a table."""
    lower = np.full(table.npar, -np.inf)
    upper = np.full(table.npar, np.inf)
    for r in table.rows:
        if r.free:
            lower[r.free - 1] = max(lower[r.free - 1], r.lower)
            upper[r.free - 1] = min(upper[r.free - 1], r.upper)
    return lower, upper


def minimize(
    objective: Objective,
    start: Floats,
    *,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
    lower: Floats | None = None,
    floor: float = -np.inf,
) -> Optimum:
    """Minimise -2 log L from a start.

    Parameters
    ----------
    objective : Objective
    start : ndarray, shape (npar,)
    max_iterations : int
    tolerance : float
        On the decrement.
    lower : ndarray, shape (npar,), optional
        Lower bounds beside those of the model.
    floor : float
        -2 log L of the saturated model. A point below it shows that the likelihood is unbounded: with few clusters
        of the largest size their covariance matrix can become singular where the data do not vary.

    Returns
    -------
    Optimum
    """
    least, most = bounds(objective)
    if lower is not None:
        least = np.minimum(np.maximum(least, lower), most)
    found, held = run_core(objective, start, least, most, max_iterations, tolerance)
    return as_optimum(found, floor, held)


def as_optimum(found: _core.Found, floor: float = -np.inf, held: tuple[int, ...] = ()) -> Optimum:
    """What an optimiser of the core returns; `floor` as in `minimize`, `held` the active inequalities."""
    for array in (found["theta"], found["gradient"]):
        array.flags.writeable = False
    stop = STOPS[found["stop"]]
    return Optimum(
        found["theta"],
        found["value"],
        found["gradient"],
        "unbounded" if found["value"] < floor and stop != "infeasible" else stop,
        np.array(found["active"], dtype=np.intp),
        tuple(found["iterations"]),
        held,
    )


def run_core(
    objective: Objective,
    start: Floats,
    lower: Floats,
    upper: Floats,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
) -> tuple[_core.Found, tuple[int, ...]]:
    """Run the compiled optimiser for the constraints that there are; also the inequalities that it found active."""
    c = objective.constraints
    if c is None:
        return _core.minimize(objective.core, start, lower, upper, max_iterations, tolerance), ()
    projected = c.project(start)
    if c.linear and c.basis.shape[1] and not np.isfinite([lower, upper]).any():
        found = _core.minimize(objective.core, projected, lower, upper, max_iterations, tolerance, c.basis)
        if STOPS[found["stop"]] != "no valid start":
            return found, ()
    functions = c.equalities.core, c.inequalities.core
    for first in (projected, start):
        other = _core.minimize_constrained(
            objective.core, *functions, first, lower, upper, max_iterations, tolerance
        )
        if STOPS[other["stop"]] != "no valid start":
            break
    return other, tuple(int(i) for i in np.flatnonzero(other["inequality_multipliers"] > 0))
