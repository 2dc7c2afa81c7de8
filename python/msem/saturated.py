"""The saturated (h1) model: unrestricted level-specific covariance matrices and means."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np
import pandas as pd

from msem import _core
from msem.errors import ConvergenceWarning, DataError
from msem.gamma import core_loss
from msem.moments import LevelMoments
from msem.sample import SampleStatistics

Method = Literal["scoring", "em"]


def estimate_saturated(
    statistics: SampleStatistics, *, method: Method = "scoring", tolerance: float = 1e-12
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

    Raises
    ------
    DataError
        If the statistics cannot identify the moments.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be 'scoring' or 'em', not {method!r}")
    s = statistics
    try:
        fit = _core.fit_saturated(core_loss(s), method == "em", 0, tolerance)
    except ValueError as error:
        raise DataError(f"the saturated model cannot be estimated: {error}") from error
    if not fit["converged"]:
        warnings.warn(
            f"the saturated model has not converged after {fit['iterations']} {method} steps (decrement "
            f"{fit['decrement']:.2g}): the chi-square test is not valid; a between covariance matrix on the boundary "
            "of what the cluster sizes allow is the usual cause",
            ConvergenceWarning,
            stacklevel=2,
        )
    within, between = list(s.unit), [*s.unit[: s.nboth], *s.cluster]
    sizes = {int(n): int(j) for n, j in zip(s.sizes, s.counts, strict=True)}
    whole = all(n == float(k) for n, k in zip(s.sizes, sizes, strict=True))
    return LevelMoments(
        pd.DataFrame(fit["cov_w"], index=within, columns=within),
        pd.DataFrame(fit["cov_b"], index=between, columns=between),
        pd.Series(fit["mean_b"], index=between),
        nobs=s.nobs,
        nclusters=s.nclusters,
        within_mean=pd.Series(fit["mean_w"], index=within),
        cluster_sizes=sizes if whole and s.source != "moments, N and J only" else None,
        llf=fit["loglik"],
        data=s,
        iterations=fit["iterations"],
    )


def saturated_single(statistics: SampleStatistics) -> tuple[pd.Series, pd.DataFrame, float]:
    """Mean, ML covariance matrix and saturated log-likelihood of a single-level sample."""
    fit = _core.fit_saturated(core_loss(statistics))
    names = list(statistics.cluster)
    cov = pd.DataFrame(fit["cov_b"], index=names, columns=names)
    return pd.Series(np.asarray(fit["mean_b"]), index=names), cov, fit["loglik"]
