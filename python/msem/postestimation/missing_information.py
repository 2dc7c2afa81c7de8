"""What holes cost: the part of the information about each parameter that is missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem.data.complete import SampleStatistics, level_statistics
from msem.data.sample import Group, Sample
from msem.estimation.estimate import Estimate
from msem.estimation.objective import build_objective
from msem.estimation.sampling import sampling_covariance
from msem.settings import Information

Floats = NDArray[np.float64]


def missing_information(fit: Estimate, sample: Sample, information: Information) -> Floats:
    """Fraction of missing information of each parameter, 1 - (complete-data variance) / (variance), shape (npar,).

    The complete-data variance is that of the same rows without holes whose moments are the saturated ones, at the same
    estimates (Savalei & Rhemtulla, 2012, Structural Equation Modeling, 19, 477-494): a misfit of the model is in both.

    Parameters
    ----------
    fit : Estimate
    sample : Sample
        With raw data.
    information : {"observed", "expected"}
        Where both variances come from.

    Returns
    -------
    ndarray
        nan for parameters without a standard error, and for all without saturated moments.
    """
    if not sample.converged:
        return np.full(len(fit.theta), np.nan)
    whole = build_objective(fit.table, [_filled(group) for group in sample.groups])
    complete, own = (
        sampling_covariance(objective, fit.theta, information, fit.tangent).vcov.diagonal()
        for objective in (whole, fit.objective)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction: Floats = np.where(own > 0, 1 - complete / own, np.nan)
    return fraction


def _filled(group: Group) -> SampleStatistics:
    """Statistics of the rows of a group with its saturated moments, as if nothing were missing."""
    return level_statistics(group.levels, group.statistics.variables, *_row_sizes(group), "saturated")


def _row_sizes(group: Group) -> tuple[Floats, Floats]:
    """Distinct cluster sizes in rows, holes or not, and their counts."""
    rows = group.rows
    if not group.statistics.unit:
        return np.ones(1), np.array([float(rows.nobs)])
    assert rows.codes is not None
    sizes, counts = np.unique(np.bincount(rows.codes), return_counts=True)
    return sizes.astype(np.float64), counts.astype(np.float64)
