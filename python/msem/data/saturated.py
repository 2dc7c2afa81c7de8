"""The saturated (h1) model: unrestricted level-specific covariance matrices and means."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays, vech_index
from msem.data.checks import scaled_inverse
from msem.data.statistics import Clusters, Saturated, Statistics
from msem.data.survey import independent_rows
from msem.errors import DataError, MsemError
from msem.model.variables import Variables
from msem.settings import Space

Method = Literal["scoring", "em"]


def solve_saturated(
    statistics: Statistics, *, method: Method = "scoring", tolerance: float = 1e-12, cone: bool = False
) -> Saturated:
    """Estimate the saturated moments of single-level or two-level statistics; see `estimate_saturated`.

    With `cone` among positive semidefinite between matrices, which always have a maximum.

    Nothing is warned of here: `Saturated.converged` says whether the estimates are a maximum.
    """
    if method not in get_args(Method):
        raise MsemError(f"method must be 'scoring' or 'em', not {method!r}")
    s = statistics
    if s.stand_in is not None:
        return s.stand_in
    try:
        fit = _core.fit_saturated(s.likelihood(), method == "em", 0, tolerance, cone)
    except ValueError as error:
        raise DataError(f"the saturated model cannot be estimated: {error}") from error
    found = (one for one in fit["levels"] if len(one[0]))  # of those that have variables
    levels = {}
    for level, names in enumerate(s.variables.levels, 1):
        mean, cov = next(found) if names else (np.empty(0), np.empty((0, 0)))
        levels[level] = LevelArrays(names, mean, cov, len(names))
    return Saturated(
        levels,
        fit["loglik"],
        fit["iterations"],
        fit["converged"],
        cone,
    )


Floats = NDArray[np.float64]


def solve_in_space(
    statistics: Statistics, space: Space, *, method: Method = "scoring", tolerance: float = 1e-12
) -> Saturated:
    """Saturated moments with the between matrices that a space allows.

    Parameters
    ----------
    statistics : Statistics
    space : {"auto", "natural", "psd"}
        "natural": all for which the covariance matrices of whole clusters are positive definite. "psd": positive
        semidefinite ones. "auto": those of "natural" where they are a maximum, those of "psd" otherwise.
    method, tolerance
        Of the steps in the natural space.
    """
    found = solve_saturated(statistics, method=method, tolerance=tolerance)
    if space == "natural" or not statistics.variables.both or statistics.unidentified:
        return found
    above = [one.cov for level, one in found.levels.items() if level > 1 and len(one.cov)]
    if found.converged and (space == "auto" or all(np.linalg.eigvalsh(cov)[0] >= 0 for cov in above)):
        return found
    border = solve_saturated(statistics, tolerance=tolerance, cone=True)
    return border if border.converged or space == "psd" else found


def moment_names(variables: Variables) -> list[str]:
    """Names of the saturated model's parameters, those of level 2 with the suffix ``.l2``, and so on.

    Raises
    ------
    DataError
        If two of them would have the same name.
    """
    single = len(variables.levels) == 1
    names = []
    for level, own in enumerate(variables.levels, 1):
        suffix = ".l2" if single else _suffix(level)
        names += [f"{own[j]}~~{own[i]}{suffix}" for i, j in zip(*vech_index(len(own)), strict=True)]
    names += [f"{v}~1{'.l2' if single else _suffix(variables.top(v))}" for v in variables.names]
    if len(set(names)) < len(names):
        several = next(name for k, name in enumerate(names) if name in names[:k])
        raise DataError(
            f"two moments would be called {several!r}, since names above level 1 end in '.l2' and so on: rename the "
            "variables that end so"
        )
    return names


def _suffix(level: int) -> str:
    return f".l{level}" if level > 1 else ""


def saturated_objective(statistics: Statistics) -> _core.Objective:
    """Objective of the saturated model as a function of its moments, in the order of `moment_names`."""
    s, variables = statistics, statistics.variables
    at = {name: k for k, name in enumerate(variables.names)}
    firsts = np.cumsum([0, *(len(own) * (len(own) + 1) // 2 for own in variables.levels)]).tolist()
    blocks = []
    for level, own in enumerate(variables.levels, 1):
        means = [(i, firsts[-1] + at[name]) for i, name in enumerate(own) if variables.top(name) == level]
        blocks.append(free_block(len(own), firsts[level - 1], means))
    return _core.Objective(firsts[-1] + len(at), blocks, [(s.likelihood(), list(range(len(blocks))))])


def saturated_core(statistics: Statistics, clusters: Clusters) -> _core.Objective:
    """The saturated model, with the rows of a single level taken together by cluster if the clusters are so."""
    s = statistics
    if not taken_together(s, clusters):
        return saturated_objective(s)
    n = len(s.cluster)
    first = n * (n + 1) // 2
    block = free_block(n, 0, [(i, first + i) for i in range(n)])
    return _core.Objective(
        first + n, [block, free_block(0, 0, [])], [(s.likelihood(by_cluster=True), [0, 1])]
    )


def taken_together(statistics: Statistics, clusters: Clusters) -> bool:
    """Whether the rows of a single level are taken together by cluster."""
    return len(statistics.variables.levels) < 3 and not statistics.unit and clusters.of_units


def saturated_parts(
    statistics: Statistics, saturated: Saturated, clusters: Clusters
) -> tuple[_core.Likelihood, tuple[LevelArrays, ...]]:
    """Likelihood and saturated moments of two levels or more, as the clusters go with them."""
    by_cluster = taken_together(statistics, clusters)
    moments = tuple(saturated.levels.values())
    if len(moments) == 1:  # of clusters, or of their units where these do not differ
        nothing = LevelArrays((), np.empty(0), np.empty((0, 0)), 0)
        moments = (*moments, nothing) if by_cluster else (nothing, *moments)
    return statistics.likelihood(by_cluster=by_cluster), moments


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


def sandwich(moments: Floats, statistics: Statistics, clusters: Clusters) -> Floats:
    """Covariance matrix of saturated moments whatever the distribution of the variables is; see `sandwich_root`."""
    root = sandwich_root(moments, statistics, clusters)
    covariance: Floats = root.T @ root
    return covariance


def sandwich_root(moments: Floats, statistics: Statistics, clusters: Clusters) -> Floats:
    """Rows whose outer products are the sandwich of saturated moments (Huber, 1967; White, 1982).

    Parameters
    ----------
    moments : ndarray, shape (m,)
        Saturated estimates in the order of `moment_names`.
    statistics : SampleStatistics or IncompleteStatistics
    clusters : ClusterArrays or IncompleteClusters
        Of the same variables. Those of a single-level sample are of single rows, or of clusters of rows with the
        products of all variables in `within`.

    Returns
    -------
    ndarray, shape (units, m)
        Of the clusters of this group, or of the primary sampling units of all groups.
    """
    influence = clusters.saturated_influence(moments, statistics.nobs) if not statistics.unit else None
    if influence is None:
        scores = clusters.scores(saturated_core(statistics, clusters), moments)
        influence = scores @ scaled_inverse(saturated_information(moments, statistics, "observed"))
    return independent_rows(influence, clusters.sampled)
