"""What holes cost: the part of the information about each parameter that is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.sample import Group, Sample, require_simple
from msem.data.statistics import Statistics
from msem.errors import UnsupportedError
from msem.estimation.estimate import Estimate, require_likelihood, require_unpenalized
from msem.estimation.objective import build_objective
from msem.estimation.sampling import sampling_covariance
from msem.estimation.solution import NOT_YET, Solution
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
        nan for parameters without a standard error, and for all without saturated moments. With random slopes, which
        have none, both variances are from expected information, which knows the covariates and the holes only.
    """
    slopes = any(group.statistics.slopes for group in sample.groups)
    if slopes:
        information = "expected"
    elif not sample.converged:
        return np.full(len(fit.theta), np.nan)
    whole = build_objective(
        fit.table,
        [g.statistics.completed(g.rows) if slopes else _filled(g) for g in sample.groups],
    )
    complete, own = (
        sampling_covariance(objective, fit.theta, information, fit.tangent).vcov.diagonal()
        for objective in (whole, fit.objective)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction: Floats = np.where(own > 0, 1 - complete / own, np.nan)
    return fraction


def _filled(group: Group) -> Statistics:
    """Statistics of the rows of a group with its saturated moments, as if nothing were missing."""
    s = group.statistics
    return s.expected(group.levels, s.variables, "saturated", group.rows)


def fmi(fit: Solution) -> pd.Series:
    """Fraction of missing information of every parameter: 1 less complete-data variance over variance.

    The complete-data variance is what the same rows without holes would give at these estimates. 0 for a parameter
    that the holes do not concern; sampling error can make it slightly negative.

    Returns
    -------
    Series
        Indexed as `params`; nan for parameters without a standard error.

    Raises
    ------
    DataError
        Without raw data.
    UnsupportedError
        For least squares, and for likelihoods that are integrals.

    Notes
    -----
    With random slopes there are no saturated moments that the complete rows could have: both variances are then from
    expected information at the estimates, given the covariates and, for the one, the holes.

    References
    ----------
    Savalei & Rhemtulla (2012). Structural Equation Modeling, 19, 477-494.
    """
    if fit.integrates:
        raise UnsupportedError(f"fmi() of a model with ordered variables by maximum likelihood: {NOT_YET}")
    require_likelihood(fit.estimate, "fractions of missing information")
    require_unpenalized(fit.estimate, "fractions of missing information")
    require_simple(
        fit.sample, "fractions of missing information", "they have no meaning under a pseudo-likelihood"
    )
    kind: Information = "expected" if fit.options.information == "expected" else "observed"
    found = missing_information(fit.estimate, fit.sample, kind)
    return pd.Series(found, index=list(fit.table.names()), name="fmi")


def left_out(fit: Solution) -> pd.DataFrame:
    """Rows of the data that had no part in the fit, or only through the cluster variables of their cluster.

    Returns
    -------
    DataFrame
        Columns row (its label in the data) and reason; in order of the data.

    Raises
    ------
    DataError
        Without raw data.
    """
    parts = [_left_out(fit, number) for number in range(len(fit.sample.groups))]
    frame = pd.concat(parts).sort_index(kind="stable")
    index = fit.sample.groups[0].rows.index
    return pd.DataFrame({"row": index[frame.index], "reason": frame.to_numpy()})


def _left_out(fit: Solution, number: int) -> pd.Series:
    group = fit.sample.groups[number]
    rows, s = group.rows, group.statistics
    reasons = [pd.Series(reason, index=where) for reason, where in rows.left_out.items()]
    if not s.complete and s.unit:
        empty = np.logical_and.reduce([np.isnan(rows.columns[name]) for name in s.unit])
        at = np.arange(len(empty)) if rows.rows is None else rows.rows
        reasons.append(pd.Series("no unit-level value; cluster variables used", index=at[empty]))
    return pd.concat(reasons) if reasons else pd.Series([], dtype=object, index=pd.Index([], dtype=int))
