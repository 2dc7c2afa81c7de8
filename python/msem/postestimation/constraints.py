"""What constraints cost: their values, whether they are active, and their Lagrange multipliers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.estimation.estimate import Estimate
from msem.language.characters import outside_quotes

Floats = NDArray[np.float64]


class Held(NamedTuple):
    """One constraint at a solution.

    Attributes
    ----------
    constraint : str
        As written; a bound as ``name > value``.
    kind : str
        "equality", "inequality" or "bound".
    value : float
        Left less right side.
    active : bool
    multiplier : float
        How much the log-likelihood would rise per unit if an inequality or bound were relaxed, and per unit by which
        the right side of an equality were lowered; 0 for what is not active.
    """

    constraint: str
    kind: str
    value: float
    active: bool
    multiplier: float


def held_constraints(estimate: Estimate) -> list[Held]:
    """All constraints and bounds of a model at its solution, in order of the text, bounds last."""
    theta, optimum, c = estimate.theta, estimate.optimum, estimate.objective.constraints
    rows: list[Floats] = []
    out: list[Held] = []
    if c is not None:
        rows += [*c.equalities.jacobian(theta)]
        out += [
            Held(t, "equality", v, True, 0.0)
            for t, v in zip(c.equalities.texts, c.equalities.values(theta), strict=True)
        ]
        slopes, values = c.inequalities.jacobian(theta), c.inequalities.values(theta)
        for i, text in enumerate(c.inequalities.texts):
            sign = -1.0 if "<" in outside_quotes(text) else 1.0
            out.append(Held(text, "inequality", sign * values[i], i in optimum.held, 0.0))
            rows += [slopes[i]]
    shown = zip(estimate.table.rows, estimate.table.by_name.shown, strict=True)
    for row, name in {row.free: (row, name) for row, name in shown if row.free}.values():
        k = row.free - 1
        for side, bound, op in ((-1, row.lower, ">"), (1, row.upper, "<")):
            if np.isfinite(bound):
                text = f"{name} {op} {bound:g}"
                out.append(Held(text, "bound", theta[k] - bound, bool(optimum.active[k] == side), 0.0))
                rows.append(np.where(np.arange(len(theta)) == k, -float(side), 0.0))
    active = [i for i, held in enumerate(out) if held.active]
    if active:
        found = _multipliers(estimate, np.array(rows)[active])
        for i, value in zip(active, found, strict=True):
            out[i] = out[i]._replace(multiplier=float(value))
    return out


def _multipliers(estimate: Estimate, rows: Floats) -> Floats:
    """The smallest multipliers with half the gradient of -2 log L = rows' multipliers."""
    sizes = estimate.sizes
    scaled = rows * sizes
    norm = np.linalg.norm(scaled, axis=1)
    norm[norm == 0] = 1.0
    found = np.linalg.lstsq((scaled / norm[:, None]).T, 0.5 * estimate.optimum.gradient * sizes, rcond=1e-10)[
        0
    ]
    out: Floats = found / norm
    return out
