"""Other places to start from when the optimiser did not get to a maximum from the first.

In small samples the between part of the likelihood has several maxima, and directions in which it rises for ever: a
loading and a residual variance that grow together, or a marker whose loading vanishes. From a start in such a valley
the optimiser follows it; from another one it finds a maximum, mostly a higher one than the valley leads to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from msem.data.sample import Sample
from msem.estimation.objective import Objective
from msem.estimation.optimize import minimize
from msem.estimation.starting import clip, scaled_start, set_intercepts
from msem.model.partable import Parameter

Floats = NDArray[np.float64]

SMALL = 0.05  # share of the total variance that a cautious start gives to the last level
FACTORS = ((1.5, -0.6, 0.9), (-1.2, 0.5, -1.8), (0.4, 1.7, -0.8), (-0.9, -1.3, 0.6))


def restarts(objective: Objective, first: Floats, sample: Sample) -> Iterator[Floats]:
    """Starts other than the first, the most promising first.

    Parameters
    ----------
    objective : Objective
    first : ndarray, shape (npar,)
    sample : Sample
        Saturated moments of each group.

    Yields
    ------
    ndarray, shape (npar,)
    """

    def settled(theta: Floats) -> Floats:
        clip(theta, objective.table)
        set_intercepts(objective, theta, sample)
        return theta

    cautious = settled(cautious_start(objective, first, sample))
    yield cautious
    lower = nonnegative(objective)
    for start in (first, cautious):
        yield minimize(objective, start, max_iterations=60, lower=lower).theta
    for share in (0.5, 0.0):
        yield scaled_start(objective, first, sample, share)
    for factors in FACTORS:
        yield settled(rescaled_loadings(objective, first, factors))


def _changeable(objective: Objective) -> Iterator[tuple[int, Parameter]]:
    """Free parameters of the last level without a start of the user's, with their positions."""
    rows = objective.table.rows
    given = {r.free for r in rows if r.start is not None}
    elsewhere = {r.free for r in rows if r.level < objective.table.nlevels}
    for r in rows:
        if r.free and r.level == objective.table.nlevels and r.free not in given | elsewhere:
            yield r.free - 1, r


def cautious_start(objective: Objective, first: Floats, sample: Sample) -> Floats:
    """Little variance at the last level, equal positive standardized loadings, no covariances or paths there."""
    out = first.copy()
    for number, group in enumerate(sample.groups, 1):
        _cautious_group(objective, out, number, group.total_variance)
    return out


def _cautious_group(objective: Objective, out: Floats, group: int, total: Mapping[str, float]) -> None:
    """The cautious values of one group, written into `out`."""
    rows = objective.table.block(objective.table.nlevels, group)
    fixed_variance = {r.lhs for r in rows if r.op == "~~" and r.lhs == r.rhs and not r.free}
    markers: dict[str, str] = {}
    for r in rows:
        if r.op == "=~" and r.rhs in total:
            markers.setdefault(r.lhs, r.rhs)
    variance = dict(total) | {factor: total[marker] for factor, marker in markers.items()}
    for k, r in _changeable(objective):
        if r.group != group:
            continue
        if r.op == "=~" and r.lhs in variance and r.rhs in variance:
            scale = 1 / SMALL if r.lhs in fixed_variance else variance[r.lhs]
            out[k] = np.sqrt(variance[r.rhs] / scale)
        elif r.op == "~~" and r.lhs == r.rhs and r.lhs in variance:
            out[k] = SMALL * variance[r.lhs]
        elif r.op == "~" or (r.op == "~~" and r.lhs != r.rhs):
            out[k] = 0.0


def rescaled_loadings(objective: Objective, first: Floats, factors: tuple[float, ...]) -> Floats:
    """The first start with the loadings of the last level multiplied by factors in turn."""
    out = first.copy()
    loadings = [k for k, r in _changeable(objective) if r.op == "=~"]
    for i, k in enumerate(loadings):
        out[k] *= factors[i % len(factors)]
    return out


def nonnegative(objective: Objective) -> Floats:
    """Lower bounds that keep variances from being negative, shape (npar,)."""
    lower = np.full(objective.table.npar, -np.inf)
    for r in objective.table.rows:
        if r.free and r.op == "~~" and r.lhs == r.rhs:
            lower[r.free - 1] = 0.0
    return lower
