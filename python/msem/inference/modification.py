"""What a model would gain if parameters were added to it or equality constraints released."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.estimation.estimate import Estimate
from msem.estimation.objective import Objective, build_objective
from msem.inference.candidates import Candidate, extended_table
from msem.inference.releases import Equality, released_table
from msem.inference.sampling import whitening_basis
from msem.inference.scoretests import ScorePoint, Single
from msem.inference.standardized import Standardized, standardize
from msem.sample.sufficient import ClusterArrays
from msem.table.partable import ParameterTable

Floats = NDArray[np.float64]

CHUNK = 256  # candidates at a time, which bounds the memory that the information takes

__all__ = ["Extension", "extend", "modify", "standardized_changes"]


class Extension(NamedTuple):
    """A model with further parameters, at the estimates it has without them.

    Attributes
    ----------
    table : ParameterTable
        Parameters of the model, then those of released constraints, then the added ones.
    theta : ndarray, shape (npar,)
        The estimates in its coordinates.
    point : ScorePoint
    further : ndarray, shape (npar, k)
        Directions of the further parameters.
    """

    table: ParameterTable
    theta: Floats
    point: ScorePoint
    further: Floats


def extend(
    fit: Estimate,
    released: Sequence[Equality] = (),
    added: Sequence[Candidate] = (),
    clusters: Sequence[ClusterArrays] | None = None,
    basis: Floats | None = None,
) -> Extension:
    """Extend a model by parameters.

    Parameters
    ----------
    fit : Estimate
    released : sequence of Equality
        Constraints without which the second parameter is one of its own.
    added : sequence of Candidate
        Parameters that are freed.
    clusters : sequence of ClusterArrays, optional
        Of each group, for the generalized score statistic.
    basis : ndarray, shape (npar, m), optional
        As `free_directions` gives it.

    Returns
    -------
    Extension
    """
    table = extended_table(released_table(fit.table, released), added)
    shared = [equality.second.free - 1 for equality in released]
    theta = np.concatenate([fit.theta, fit.theta[shared], [c.row.value for c in added]])
    objective = build_objective(table, fit.objective.statistics)
    inner = free_directions(fit) if basis is None else basis
    free = np.concatenate([inner, inner[shared], np.zeros((len(added), inner.shape[1]))])
    factor, gradient = objective.core.information_factor(theta), -0.5 * objective.gradient(theta)
    scores = None if clusters is None else _scores(objective, theta, clusters)
    point = ScorePoint(gradient, factor, free, scores)
    further = np.eye(len(theta))[:, len(fit.theta) :]
    further[:, : len(shared)] *= -1  # the first parameter of a constraint less the second
    return Extension(table, theta, point, further)


def free_directions(fit: Estimate) -> Floats:
    """Basis of the directions in which a model is free, in which its information is the identity."""
    if not fit.tangent.shape[1]:
        return fit.tangent
    factor = fit.objective.core.information_factor(fit.theta)
    out: Floats = fit.tangent @ whitening_basis(factor @ fit.tangent)[0]
    return out


def modify(
    fit: Estimate, added: Sequence[Candidate], clusters: Sequence[ClusterArrays] | None = None
) -> Single:
    """Modification index and expected change of each candidate on its own (Sörbom, 1989).

    Parameters
    ----------
    fit : Estimate
    added : sequence of Candidate
    clusters : sequence of ClusterArrays, optional
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
    variances = {
        (level, group): m.variances
        for group in range(1, table.ngroups + 1)
        for level, m in fit.objective.moments(fit.theta, group).items()
    }
    where = {row.free - 1: i for i, row in enumerate(table.rows)}
    rows = [where[int(k)] for k in numbers]

    def scaled(own: Floats) -> Floats:
        est = np.array([r.value for r in table.rows])
        free = np.array([r.free for r in table.rows])
        est = np.where(free > 0, np.concatenate([fit.theta, own, [np.nan]])[free - 1], est)
        return np.array(standardize(table, est, variances))[:, rows]

    # Residual variances scale covariances, so those that are candidates themselves keep their values for the others.
    others, own = scaled(np.where(variance, values, changes)), scaled(changes)
    return Standardized(*np.where(variance, own, others))


def _scores(objective: Objective, theta: Floats, clusters: Sequence[ClusterArrays]) -> Floats:
    """Gradients of the log-likelihoods of the clusters of all groups, shape (J, npar)."""
    return np.concatenate(
        [objective.core.scores(theta, c.sizes, c.means, c.within, group) for group, c in enumerate(clusters)]
    )
