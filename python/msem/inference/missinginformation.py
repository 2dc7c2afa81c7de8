"""What holes cost: the part of the information about each parameter that is missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem.estimation.estimate import Estimate
from msem.estimation.objective import build_objective
from msem.estimation.samples import GroupSample, Sample
from msem.inference.nested import implied_statistics
from msem.inference.sampling import Information, sampling_covariance

Floats = NDArray[np.float64]


def missing_information(fit: Estimate, sample: Sample, information: Information) -> Floats:
    """Fraction of missing information of each parameter, 1 - (complete-data variance) / (variance), shape (npar,).

    The complete-data variance is that of the same rows without holes, from the expected information at the estimates
    (Savalei & Rhemtulla, 2012, Structural Equation Modeling, 19, 477-494).

    Parameters
    ----------
    fit : Estimate
    sample : Sample
        With raw data.
    information : {"observed", "expected"}
        Where the variance of the estimates comes from.

    Returns
    -------
    ndarray
        nan for parameters without a standard error.
    """
    statistics = [
        implied_statistics(fit, number, _row_sizes(group)) for number, group in enumerate(sample.groups, 1)
    ]
    whole = build_objective(fit.table, statistics)
    complete = sampling_covariance(whole, fit.theta, "expected", fit.tangent).vcov.diagonal()
    own = sampling_covariance(fit.objective, fit.theta, information, fit.tangent).vcov.diagonal()
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction: Floats = np.where(own > 0, 1 - complete / own, np.nan)
    return fraction


def _row_sizes(group: GroupSample) -> tuple[Floats, Floats]:
    """Distinct cluster sizes in rows, holes or not, and their counts."""
    rows = group.rows
    if not group.statistics.unit:
        return np.ones(1), np.array([float(rows.nobs)])
    assert rows.codes is not None
    sizes, counts = np.unique(np.bincount(rows.codes), return_counts=True)
    return sizes.astype(np.float64), counts.astype(np.float64)
