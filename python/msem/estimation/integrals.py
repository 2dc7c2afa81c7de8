"""How accurate integrals over random slopes are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.estimation.objective import Objective, build_objective


class QuadratureAccuracy(NamedTuple):
    """A rule, and what a finer one says.

    Attributes
    ----------
    nodes, finer : int
        For each slope: of the fit, and 2 nodes + 1.
    change : float
        Of the log-likelihood at the estimates, with the finer rule.
    """

    nodes: int
    finer: int
    change: float


def quadrature_accuracy(objective: Objective, theta: NDArray[np.float64]) -> QuadratureAccuracy | None:
    """Evaluate the log-likelihood with more nodes; None where nothing is integrated over."""
    nodes = min((s.nodes for s in objective.statistics if s.nodes), default=0)
    if not nodes or objective.loss:
        return None
    finer = [s.with_nodes(2 * s.nodes + 1) for s in objective.statistics]
    change = build_objective(objective.table, finer).llf(theta) - objective.llf(theta)
    return QuadratureAccuracy(nodes, 2 * nodes + 1, change)
