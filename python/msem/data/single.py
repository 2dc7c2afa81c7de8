"""Single-level samples from moments, and the least-squares discrepancy of one level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Real

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.covariance import require_covariance
from msem.data.statistics import expected_statistics
from msem.data.sufficient import SampleStatistics
from msem.errors import DataError

Floats = NDArray[np.float64]


def moment_statistics(
    cov: pd.DataFrame,
    mean: pd.Series | Mapping[str, float] | None,
    nobs: float | None,
    *,
    rescale: bool,
) -> SampleStatistics:
    """Statistics of a single-level sample given by its moments.

    Parameters
    ----------
    cov : DataFrame
    mean : Series, mapping or None
    nobs : float
        Sample size.
    rescale : bool
        Multiply the matrix by (n - 1) / n: right for the usual unbiased estimate, wrong for one that is maximum
        likelihood already.

    Returns
    -------
    SampleStatistics

    Raises
    ------
    DataError
        If the moments are not those of a sample.
    """
    matrix = require_covariance(cov, "sample_cov", positive_definite=True)
    names = tuple(matrix.columns)
    if not isinstance(nobs, Real) or not np.isfinite(nobs) or nobs <= 1:
        raise DataError(f"sample_nobs must be the number of observations behind sample_cov, not {nobs!r}")
    if nobs <= len(names):
        raise DataError(f"sample_nobs is {nobs:g}: {len(names)} variables need more observations than that")
    factor = (nobs - 1) / nobs if rescale else 1.0
    means = np.zeros(len(names)) if mean is None else named_mean(mean, names)
    return expected_statistics(
        np.empty((0, 0)), factor * matrix.to_numpy(), means, [1.0], [nobs], (), names, 0, source="moments"
    )


def named_mean(mean: pd.Series | Mapping[str, float], names: tuple[str, ...]) -> Floats:
    """Means in the order of the variables."""
    if not isinstance(mean, (pd.Series, Mapping)):
        raise DataError("sample_mean must be a Series or mapping from variable to mean")
    given = {str(k): float(v) for k, v in mean.items()}
    missing = [name for name in names if name not in given]
    if missing:
        raise DataError(f"sample_mean has no value for {', '.join(missing)}")
    values = np.array([given[name] for name in names])
    if not np.isfinite(values).all():
        raise DataError("sample_mean must be finite")
    return values


def without_means(statistics: SampleStatistics) -> SampleStatistics:
    """The same sample centred at its means, for models without mean structure."""
    return replace(statistics, means=np.zeros_like(statistics.means))


def least_squares_loss(cov: Floats, mean: Floats | None, variance: Floats) -> _core.LeastSquaresLoss:
    """Unweighted least squares in the metric of standardized variables.

    Parameters
    ----------
    cov : ndarray, shape (p, p)
        Saturated moments to be fitted; need not be positive definite.
    mean : ndarray, shape (p,), or None
        None: means are not fitted.
    variance : ndarray, shape (p,)
        Squared unit of each variable; an element s_ij counts 1 / (variance_i variance_j). All 1 for ordinary ULS.

    Returns
    -------
    _core.LeastSquaresLoss
    """
    weights = 1 / np.outer(variance, variance)
    if mean is None:
        return _core.LeastSquaresLoss(np.zeros(len(cov)), cov, np.zeros(len(cov)), weights)
    return _core.LeastSquaresLoss(mean, cov, 1 / variance, weights)
