"""Information of the saturated model about its moments; its inverse is Gamma, their asymptotic covariance.

Order of the moments: lower triangle by column of the within covariance matrix, the same of the between one,
means of the unit variables (between level for those at both levels, within level for the others), means of the
between-only variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.cells import Clusters
from msem.data.incomplete import IncompleteStatistics, Statistics
from msem.data.sufficient import SampleStatistics

Floats = NDArray[np.float64]


def vech_index(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the lower triangle of an n x n matrix, column by column."""
    col, row = np.triu_indices(n)
    return row, col


def vech(matrix: Floats) -> Floats:
    """Lower triangle of a symmetric matrix, column by column."""
    return np.asarray(matrix[vech_index(len(matrix))], dtype=np.float64)


def unvech(values: Floats, n: int) -> Floats:
    """Symmetric matrix from its lower triangle by column."""
    out = np.empty((n, n))
    row, col = vech_index(n)
    out[row, col] = values
    out[col, row] = values
    return out


def named_vech(matrix: pd.DataFrame) -> dict[str, Any]:
    """Names and lower triangle of a symmetric matrix, as JSON has them."""
    return {"names": list(matrix.columns), "cov": vech(matrix.to_numpy()).tolist()}


def named_unvech(stored: Mapping[str, Any]) -> pd.DataFrame:
    """Symmetric matrix written by `named_vech`."""
    names = list(stored["names"])
    values = unvech(np.array(stored["cov"], dtype=float), len(names))
    return pd.DataFrame(values, index=names, columns=names)


@overload
def core_loss(statistics: SampleStatistics) -> _core.TwoLevelLoss: ...
@overload
def core_loss(statistics: Statistics) -> _core.TwoLevelLoss | _core.MissingLoss: ...
def core_loss(statistics: Statistics) -> _core.TwoLevelLoss | _core.MissingLoss:
    """The compiled likelihood of these statistics."""
    s = statistics
    if isinstance(s, IncompleteStatistics):
        return s.loss
    return _core.TwoLevelLoss(s.nboth, s.ssw, s.sizes, s.counts, s.means, s.scatter)


@overload
def unit_loss(statistics: SampleStatistics) -> _core.TwoLevelLoss: ...
@overload
def unit_loss(statistics: Statistics) -> _core.TwoLevelLoss | _core.MissingLoss: ...
def unit_loss(statistics: Statistics) -> _core.TwoLevelLoss | _core.MissingLoss:
    """Likelihood of a single-level sample with its variables as unit variables without cluster differences."""
    s = statistics
    if isinstance(s, IncompleteStatistics):
        return s.unit_loss
    return _core.TwoLevelLoss(
        0, s.scatter[0], s.counts, np.ones(1), s.means, np.zeros((1, len(s.cluster), len(s.cluster)))
    )


def moment_names(statistics: Statistics) -> list[str]:
    """Names of the saturated model's parameters, between-level ones with the suffix ``.l2``."""
    s = statistics
    within, between = s.unit, (*s.unit[: s.nboth], *s.cluster)
    names = [f"{within[j]}~~{within[i]}" for i, j in zip(*vech_index(len(within)), strict=True)]
    names += [f"{between[j]}~~{between[i]}.l2" for i, j in zip(*vech_index(len(between)), strict=True)]
    names += [f"{v}~1.l2" if k < s.nboth else f"{v}~1" for k, v in enumerate(s.unit)]
    return names + [f"{v}~1.l2" for v in s.cluster]


def saturated_objective(statistics: Statistics) -> _core.Objective:
    """Objective of the saturated model as a function of its moments, in the order of `moment_names`."""
    s = statistics
    p, nboth, q = len(s.unit), s.nboth, len(s.cluster)
    nb = nboth + q
    first_b, first_mean = p * (p + 1) // 2, p * (p + 1) // 2 + nb * (nb + 1) // 2
    npar = first_mean + p + q
    within = free_block(p, 0, [(i, first_mean + i) for i in range(nboth, p)])
    means_b = [(i, first_mean + i) for i in range(nboth)] + [
        (nboth + i, first_mean + p + i) for i in range(q)
    ]
    between = free_block(nb, first_b, means_b)
    return _core.Objective(npar, [within, between], [(core_loss(s), 0, 1)])


def saturated_core(statistics: Statistics, clusters: Clusters) -> _core.Objective:
    """The saturated model, with the rows of a single level taken together by cluster if the clusters are so."""
    s = statistics
    if s.unit or not clusters.of_units:
        return saturated_objective(s)
    n = len(s.cluster)
    first = n * (n + 1) // 2
    block = free_block(n, 0, [(i, first + i) for i in range(n)])
    return _core.Objective(first + n, [block, free_block(0, 0, [])], [(unit_loss(s), 0, 1)])


def free_block(n: int, first: int, means: list[tuple[int, int]]) -> _core.Block:
    """A block of n observed variables with all covariances free and (variable, parameter) means."""
    row, col = vech_index(n)
    m = len(row)
    return _core.Block(
        n,
        n,
        [1] * m + [2] * len(means),
        [*row, *(i for i, _ in means)],
        [*col, *(0 for _ in means)],
        [*range(first, first + m), *(k for _, k in means)],
        [0.0] * (m + len(means)),
    )


def saturated_information(
    theta: Floats, statistics: Statistics, kind: Literal["observed", "expected"]
) -> Floats:
    """Information matrix of all saturated moments.

    Parameters
    ----------
    theta : ndarray
        The moments, in the order of `moment_names`.
    statistics : SampleStatistics
    kind : {"observed", "expected"}

    Returns
    -------
    ndarray, shape (len(theta), len(theta))
        Empty if the moments are outside the domain of the likelihood.
    """
    objective = saturated_objective(statistics)
    if kind == "observed":
        return objective.observed_information(theta)
    return objective.expected_information(theta)
