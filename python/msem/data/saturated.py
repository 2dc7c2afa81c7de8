"""The saturated (h1) model: unrestricted level-specific covariance matrices and means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.gamma import core_loss
from msem.data.incomplete import Statistics
from msem.data.levelmoments import LevelMoments
from msem.errors import DataError

Method = Literal["scoring", "em"]


@dataclass(frozen=True, eq=False)
class Saturated:
    """Maximum likelihood estimates of the saturated moments as arrays.

    Attributes
    ----------
    within, between : LevelArrays
        A single-level sample has its moments in `between`, and nothing within.
    llf : float
        Log-likelihood of all variables.
    iterations : int
    converged : bool
        Whether the moments are a maximum. With fewer clusters of the largest size than variables there may be none.
    """

    within: LevelArrays
    between: LevelArrays
    llf: float
    iterations: int
    converged: bool = True


def solve_saturated(
    statistics: Statistics, *, method: Method = "scoring", tolerance: float = 1e-12
) -> Saturated:
    """Estimate the saturated moments of single-level or two-level statistics; see `estimate_saturated`.

    Nothing is warned of here: `Saturated.converged` says whether the estimates are a maximum.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be 'scoring' or 'em', not {method!r}")
    s = statistics
    try:
        fit = _core.fit_saturated(core_loss(s), method == "em", 0, tolerance)
    except ValueError as error:
        raise DataError(f"the saturated model cannot be estimated: {error}") from error
    between = (*s.unit[: s.nboth], *s.cluster)
    return Saturated(
        LevelArrays(s.unit, fit["mean_w"], fit["cov_w"], len(s.unit)),
        LevelArrays(between, fit["mean_b"], fit["cov_b"], len(between)),
        fit["loglik"],
        fit["iterations"],
        fit["converged"],
    )


def estimate_saturated(
    statistics: Statistics, *, method: Method = "scoring", tolerance: float = 1e-12
) -> LevelMoments:
    """Maximum likelihood estimates of the saturated two-level moments.

    Parameters
    ----------
    statistics : SampleStatistics
        Of two-level data.
    method : {"scoring", "em"}
        Fisher scoring, in which the between matrix may become indefinite (a higher likelihood, in which every
        two-level model is nested), or EM, which keeps it positive semidefinite. Where that does not bind, both
        agree.
    tolerance : float
        On the decrement g' I^-1 g: neither method stops at a small change of the likelihood.

    Returns
    -------
    LevelMoments
        With `converged` False if no maximum was found.

    Raises
    ------
    DataError
        If the statistics cannot identify the moments.
    """
    return level_moments(solve_saturated(statistics, method=method, tolerance=tolerance), statistics)


def level_moments(solution: Saturated, statistics: Statistics) -> LevelMoments:
    """Saturated two-level estimates as the object a user holds, with the statistics they come from."""
    s = statistics
    sizes = {int(n): int(j) for n, j in zip(s.sizes, s.counts, strict=True)}
    whole = (
        all(n == float(k) for n, k in zip(s.sizes, sizes, strict=True)) and sum(sizes.values()) == s.nclusters
    )
    return LevelMoments(
        solution.within.frame(),
        solution.between.frame(),
        solution.between.series(),
        nobs=s.nobs,
        nclusters=s.nclusters,
        within_mean=solution.within.series(),
        cluster_sizes=sizes if whole and s.source != "moments, N and J only" else None,
        llf=solution.llf,
        data=s,
        iterations=solution.iterations,
        converged=solution.converged,
        incomplete=not s.complete,
    )
