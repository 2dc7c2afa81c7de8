"""Rubin's rules for whatever fits to multiply imputed data say with a standard error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from msem.distributions import (
    from_scale,
    interval_on,
    student_halfwidth,
    student_pvalue,
    to_scale,
    wald_statistic,
)
from msem.errors import ModelError

Floats = NDArray[np.float64]
ROUNDING = 1e-14  # relative increase in variance: estimates that differ by less than 1e-7 of a standard error
TESTS = ("z", "t", "df", "pvalue", "ci_lower", "ci_upper")


class Combined(NamedTuple):
    """Estimates of k quantities over m imputations, each of shape (k,).

    Attributes
    ----------
    est, se : ndarray
        Mean of the estimates, and root of T = W + (1 + 1/m) B; se is 0 for what is estimated in no imputation.
    df : ndarray
        Degrees of freedom of t.
    riv : ndarray
        Relative increase in variance because of missing values.
    fmi : ndarray
        Fraction of missing information.
    """

    est: Floats
    se: Floats
    df: Floats
    riv: Floats
    fmi: Floats


def combined(est: Floats, se: Floats, complete_df: ArrayLike = np.inf) -> Combined:
    """Rubin's rules for quantities one by one.

    Parameters
    ----------
    est, se : ndarray, shape (m, k)
    complete_df : float, or array of shape (k,)
        Degrees of freedom that one data set without missing values would have.

    Notes
    -----
    Degrees of freedom are v = (m - 1) (1 + 1/riv)^2 (Rubin, 1987), and 1 / (1/v + 1/v_obs) where complete data have
    v_com of them, with v_obs = v_com (v_com + 1) / (v_com + 3) / (1 + riv) (Barnard & Rubin, 1999). fmi is
    (riv + 2 / (v + 3)) / (1 + riv).
    """
    m = len(est)
    w, b = np.mean(se**2, axis=0), (1 + 1 / m) * np.var(est, axis=0, ddof=1)
    riv = np.divide(b, w, out=np.full(len(w), np.nan), where=w > 0)
    riv = np.where(riv < ROUNDING, 0.0, riv)
    com = np.broadcast_to(np.asarray(complete_df, dtype=np.float64), w.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        imputed = (m - 1) * (1 + 1 / riv) ** 2
        observed = np.where(np.isinf(com), np.inf, com * (com + 1) / (com + 3)) / (1 + riv)
        df = 1 / (1 / imputed + 1 / observed)
    lost = np.where(np.isfinite(imputed), 2 / (imputed + 3), 0.0)
    return Combined(
        est.mean(axis=0), np.where(w == 0, 0.0, np.sqrt(w + b)), df, riv, (riv + lost) / (1 + riv)
    )


def pooled_frame(
    frames: Sequence[pd.DataFrame],
    scales: Sequence[str],
    *,
    complete_df: float = np.inf,
    ci_level: float = 0.95,
    limits: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The tables that fits to the imputations give for one question, pooled.

    Estimates with their standard errors are pooled by Rubin's rules; a column se belongs to the column before it, one
    such as share_se to share. Other numbers, which have no standard error, are means.

    Parameters
    ----------
    frames : sequence of DataFrame
        One for each imputation, with the same rows.
    scales : sequence of str, shape (k,)
        Scale that each estimate is pooled on, see `distributions.to_scale`: estimates are averaged there and carried
        back. A row of which some imputation has an estimate that is not on the scale, or so near its end that its
        standard error there exceeds 1, is pooled as it is.
    complete_df : float
        Most degrees of freedom of one data set; a column df of the frames says them row by row.
    ci_level : float
        Coverage of the intervals.
    limits : sequence of str, shape (k,), optional
        Scales of the intervals of what is pooled as it is, if these are others.

    Returns
    -------
    DataFrame
        Columns of the frames with t, df and pvalue in the place of z and pvalue, and riv and fmi.

    Raises
    ------
    ModelError
        If the fits give different rows.
    """
    first = frames[0]
    errors = {
        name: name[:-3] for name in map(str, first.columns) if name.endswith("_se") and name[:-3] in first
    }
    if "se" in first:
        errors |= {"se": str(first.columns[list(first.columns).index("se") - 1])}
    names = [str(name) for name in first.columns if name not in TESTS]
    numbers = [name for name in names if pd.api.types.is_float_dtype(first[name])]
    keys = [name for name in names if name not in numbers]
    if any(not frame[keys].equals(first[keys]) for frame in frames[1:]):
        raise ModelError("the imputations give tables of different rows, which cannot be pooled")
    values = {name: np.array([frame[name] for frame in frames], dtype=np.float64) for name in numbers}
    out: dict[str, Any] = {name: first[name] if name in keys else values[name].mean(axis=0) for name in names}
    main = "se" if "se" in errors else next(iter(errors))
    for se, est in errors.items():
        most = np.full(len(first), complete_df)
        if "df" in first:
            own = np.array([frame["df"].to_numpy(dtype=float, na_value=np.nan) for frame in frames])
            most = np.fmin(most, own.mean(axis=0))
        kinds = np.asarray(scales, dtype=object).astype(str)
        centre, slope = to_scale(kinds, values[est])
        with np.errstate(invalid="ignore"):
            usable = (np.isfinite(centre) & (values[se] * slope <= 1)).all(axis=0)
        kinds = np.where(usable, kinds, "identity")
        centre, slope = to_scale(kinds, values[est])
        found = combined(centre, values[se] * slope, most)
        out[est] = from_scale(kinds, found.est)
        out[se] = found.se / to_scale(kinds, out[est])[1]
        if se == main:
            t = wald_statistic(found.est, found.se)
            half = np.where(found.se == 0, 0.0, student_halfwidth(ci_level, found.df) * found.se)
            ends = from_scale(kinds, found.est - half), from_scale(kinds, found.est + half)
            if limits is not None:
                ends = interval_on(np.where(found.se == 0, "identity", limits), found.est, half)
            tests = {"t": t} if "pvalue" in first else {}
            tests["df"] = found.df
            if "pvalue" in first:
                tests["pvalue"] = student_pvalue(t, found.df)
            tests |= dict(zip(("ci_lower", "ci_upper"), ends, strict=True))
            rest = {name: out.pop(name) for name in names[names.index(se) + 1 :]}
            out |= tests | rest
            last = {"riv": found.riv, "fmi": found.fmi}
    return pd.DataFrame(out | last, index=first.index)
