"""What a model would gain if parameters were added to it or equality constraints released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem.data.statistics import Clusters
from msem.estimation.estimate import Estimate
from msem.estimation.matrices import row_values
from msem.estimation.objective import build_objective
from msem.estimation.sampling import free_directions
from msem.estimation.scoreproducts import corrected_scores
from msem.model.partable import ParameterTable
from msem.postestimation.candidates import Candidate, extended_table
from msem.postestimation.restrictions import (
    Equality,
    Imposed,
    Restriction,
    imposed_direction,
    imposed_directions,
    released_table,
)
from msem.postestimation.score_tests import ScorePoint, Single
from msem.postestimation.standardized import Standardized, standardize

Floats = NDArray[np.float64]

CHUNK = 256  # candidates at a time, which bounds the memory that the information takes

__all__ = ["Extension", "extend", "modify", "standardized_changes"]


@dataclass(frozen=True, eq=False)
class Extension:
    """A model with further parameters, at the estimates it has without them.

    Attributes
    ----------
    fit : Estimate
        The model without them.
    released : tuple of Equality or Imposed
        Constraints that are dropped, shared parameters first.
    nadded : int
        Number of parameters that are added.
    table : ParameterTable
        Parameters of the model, then the second ones of shared parameters, then the added ones.
    theta : ndarray, shape (npar,)
        The estimates in its coordinates.
    point : ScorePoint
    """

    fit: Estimate
    released: tuple[Restriction, ...]
    nadded: int
    table: ParameterTable
    theta: Floats
    point: ScorePoint

    def spread(self, directions: Floats) -> Floats:
        """Directions of theta, shape (npar, k), in the coordinates of the extended model."""
        shared = [e.second.free - 1 for e in self.released if isinstance(e, Equality)]
        return np.concatenate([directions, directions[shared], np.zeros((self.nadded, directions.shape[1]))])

    @property
    def further(self) -> Floats:
        """Direction of each constraint that is released and each parameter that is added, shape (npar, k).

        Released constraints change by 1, left less right side.
        """
        unit, npar = np.eye(len(self.theta)), len(self.fit.theta)
        split = len(self.theta) - self.nadded
        ways = [imposed_direction(self.fit, e.number) for e in self.released if isinstance(e, Imposed)]
        imposed = self.spread(np.array(ways).reshape(-1, npar).T)
        return np.hstack([-unit[:, npar:split], imposed, unit[:, split:]])

    def together(self, chosen: Sequence[int]) -> Floats:
        """Directions that are there when several of them, by position, are released or added at once."""
        numbers = {k: e.number for k, e in enumerate(self.released) if isinstance(e, Imposed)}
        dropped = [numbers[k] for k in chosen if k in numbers]
        single = self.further[:, [k for k in chosen if k not in numbers]]
        return np.hstack([single, self.spread(imposed_directions(self.fit, dropped))]) if dropped else single


def extend(
    fit: Estimate,
    released: Sequence[Restriction] = (),
    added: Sequence[Candidate] = (),
    clusters: Sequence[Clusters] | None = None,
    basis: Floats | None = None,
) -> Extension:
    """Extend a model by parameters.

    Parameters
    ----------
    fit : Estimate
    released : sequence of Equality or Imposed
        Constraints that are dropped, shared parameters first.
    added : sequence of Candidate
        Parameters that are freed.
    clusters : sequence of ClusterArrays or IncompleteClusters, optional
        Of each group, for the generalized score statistic.
    basis : ndarray, shape (npar, m), optional
        As `free_directions` gives it.

    Returns
    -------
    Extension
    """
    equal = [e for e in released if isinstance(e, Equality)]
    shared = [equality.second.free - 1 for equality in equal]
    table = extended_table(released_table(fit.table, equal), added)
    theta = np.concatenate([fit.theta, fit.theta[shared], [c.row.value for c in added]])
    objective = build_objective(table, fit.objective.statistics)
    inner = free_directions(fit) if basis is None else basis
    free = np.concatenate([inner, inner[shared], np.zeros((len(added), inner.shape[1]))])
    factor, gradient = objective.core.information_factor(theta), -0.5 * objective.gradient(theta)
    scores = None if clusters is None else corrected_scores(objective, theta, clusters)
    intercepts = sorted({row.free - 1 for row in table.rows if row.free and row.op == "~1"})
    point = ScorePoint(gradient, factor, free, scores, np.array(intercepts, dtype=np.intp))
    return Extension(fit, tuple(released), len(added), table, theta, point)


def modify(fit: Estimate, added: Sequence[Candidate], clusters: Sequence[Clusters] | None = None) -> Single:
    """Modification index and expected change of each candidate on its own (Sörbom, 1989).

    Parameters
    ----------
    fit : Estimate
    added : sequence of Candidate
    clusters : sequence of ClusterArrays or IncompleteClusters, optional
        Of each group, for the generalized score statistic.

    Returns
    -------
    Single
        nan for candidates that are not identified.
    """
    parts, basis = [np.zeros((3, 0))], free_directions(fit)
    for first in range(0, len(added), CHUNK):
        extension = extend(fit, (), added[first : first + CHUNK], clusters, basis)
        parts.append(np.array(extension.point.single(extension.further)))
    return Single(*np.concatenate(parts, axis=1))


def standardized_changes(fit: Estimate, added: Sequence[Candidate], changes: Floats) -> Standardized:
    """Expected changes in standard deviation units of the model as it is.

    Parameters
    ----------
    fit : Estimate
    added : sequence of Candidate
    changes : ndarray, shape (candidates,)

    Returns
    -------
    Standardized
        One number for each candidate.
    """
    table = extended_table(fit.table, added)
    numbers = fit.table.npar + np.arange(len(added))
    variance = np.array([c.row.op == "~~" and c.row.lhs == c.row.rhs for c in added], dtype=bool)
    values = np.array([c.row.value for c in added])
    variances = fit.objective.variances(fit.theta)
    where = {row.free - 1: i for i, row in enumerate(table.rows)}
    rows = [where[int(k)] for k in numbers]

    def scaled(own: Floats) -> Floats:
        est = row_values(table, np.concatenate([fit.theta, own]))
        return np.array(standardize(table, est, variances))[:, rows]

    # Residual variances scale covariances, so those that are candidates themselves keep their values for the others.
    others, own = scaled(np.where(variance, values, changes)), scaled(changes)
    return Standardized(*np.where(variance, own, others))
