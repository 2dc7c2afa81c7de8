"""Likelihood-ratio tests of fits of which some were read from files, and know no data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from msem.errors import DataError, DataWarning, ModelError, UnsupportedError, warn
from msem.fits.fit import Fit
from msem.fits.level_comparison import LOWER, warn_of_bounds
from msem.fits.saved import SavedFit
from msem.model.equality import sort_constraints
from msem.postestimation.likelihood_ratio import UNTESTED, LikelihoodRatio
from msem.postestimation.nested import rows_agree

Some = Fit | SavedFit
SAME = 1e-6  # relative difference of saturated log-likelihoods of the same data


def saved_tests(models: Mapping[str, Some], method: str) -> dict[str, LikelihoodRatio]:
    """Tests of each model against that above it, by what files say: log-likelihoods, degrees of freedom and scaling.

    Parameters
    ----------
    models : mapping of str to Fit or SavedFit
        The one with most parameters first.
    method : {"auto", "standard", "satorra_bentler_2001"}

    Raises
    ------
    DataError
        If the models were fitted to different data or variables.
    ModelError
        If one has not converged, is not by maximum likelihood, or two have the same degrees of freedom.
    UnsupportedError
        For methods that need data.
    """
    if method not in ("auto", "standard", "satorra_bentler_2001"):
        raise UnsupportedError(
            f'method="{method}" needs the data, which saved fits do not have: fit the models again'
        )
    for name, fit in models.items():
        if not fit.converged:
            raise ModelError(f"{name} has not converged")
        if not np.isfinite(fit.llf) or fit.options.penalty:
            raise UnsupportedError(
                f"{name} has no likelihood that could be compared: tests of least squares and of penalized fits need "
                "the data, which saved fits do not have"
            )
    return {
        small: _test(models[small], models[large], (small, large), method)
        for large, small in itertools.pairwise(models)
    }


def _test(small: Some, large: Some, names: tuple[str, str], method: str) -> LikelihoodRatio:
    _require_same_data(small, large, names)
    df = small.df - large.df
    if df <= 0:
        raise ModelError(
            f"{names[0]} and {names[1]} have the same degrees of freedom: there is nothing to test"
        )
    ratio = 2 * (large.llf - small.llf)
    if ratio < -LOWER:
        raise ModelError(
            f"{names[1]} has more parameters than {names[0]} and a lower likelihood: it does not contain it, or has "
            "not found its maximum"
        )
    if not (rows_agree(small.table, large.table) and not _constrained(large)):
        warn(
            f"that {names[1]} contains {names[0]} is not seen in their parameters, and saved fits have no data to find "
            "out: the test is one of nested models only",
            DataWarning,
        )
    warn_of_bounds(small, large, names)
    ratio = max(ratio, 0.0)
    robust = small.options.robust or large.options.robust
    if method == "standard" or (method == "auto" and not robust):
        if any(fit.options.surveyed for fit in (small, large)):
            raise UnsupportedError(
                'the likelihood ratio of weighted data is no chi-square: leave out method="standard"'
            )
        return LikelihoodRatio(ratio, df, 1.0, 0.0, "standard")
    scaling = (_trace(small, names[0]) - _trace(large, names[1])) / df
    scaling = scaling if scaling > 0 else np.nan
    return LikelihoodRatio(ratio / scaling, df, scaling, 0.0, "satorra_bentler_2001")


def _trace(fit: Some, name: str) -> float:
    """Degrees of freedom times the scaling factor of the chi-square (Satorra & Bentler, 2001)."""
    if fit.df == 0:
        return 0.0
    factor = fit.fit_measures().get("chisq_scaling_factor", np.nan)
    if not np.isfinite(factor):
        raise UnsupportedError(
            f'{name} has no scaled chi-square, which the test of robust fits takes: fit it with estimator="MLR"'
        )
    return float(fit.df * factor)


def _constrained(fit: Some) -> bool:
    """Whether parameters have constraints beside those that rows show."""
    if isinstance(fit, Fit):
        return bool(fit.table.constraints)
    labels = {row.label for row in fit.table.rows if row.label}
    syntax = fit.table.syntax
    return bool(fit.options.constraints) or (syntax is not None and any(sort_constraints(syntax, labels)[:2]))


def _require_same_data(one: Some, two: Some, names: tuple[str, str]) -> None:
    """Numbers of units and clusters, variables, and the likelihood of the saturated model must agree."""
    first, second = names
    counts = [("units", one.nobs, two.nobs), ("clusters", one.nclusters or 0, two.nclusters or 0)]
    for what, here, there in counts:
        if here != there:
            raise DataError(
                f"{first} and {second} were fitted to different data: {here:g} and {there:g} {what}"
            )
    if one.table.nlevels != two.table.nlevels or one.table.group_labels != two.table.group_labels:
        raise DataError(f"{first} and {second} have different levels or groups")
    blocks = [
        (level, group)
        for level in range(1, one.table.nlevels + 1)
        for group in range(1, one.table.ngroups + 1)
    ]
    for block in blocks:
        odd = set(one.table.observed(*block)) ^ set(two.table.observed(*block))
        if odd:
            raise DataError(
                f"only one of {first} and {second} has {', '.join(map(repr, sorted(odd)))} at level {block[0]}: "
                "likelihoods can be compared for the same variables only"
            )
        if set(one.table.exogenous(*block)) != set(two.table.exogenous(*block)):
            raise ModelError(f"the likelihoods of {first} and {second} are given different fixed covariates")
    mine, theirs = one.unrestricted_llf, two.unrestricted_llf
    if np.isclose(mine, theirs, rtol=SAME, atol=0):
        return
    if np.isfinite([mine, theirs]).all() and not _slopes(one, two):
        raise DataError(
            f"{first} and {second} were fitted to different data: the log-likelihoods of their saturated models are "
            f"{mine:.3f} and {theirs:.3f}"
        )
    warn(
        f"whether {first} and {second} were fitted to the same data is seen by numbers of units and clusters only: "
        "there is no saturated model of both",
        DataWarning,
    )


def _slopes(*fits: Some) -> bool:
    return any(row.slope for fit in fits for row in fit.table.rows)


def saved_row(fit: Some) -> dict[str, Any]:
    """What the table of a comparison says of one model."""
    values = {
        "npar": fit.npar,
        "df": fit.df,
        "llf": fit.llf,
        "aic": fit.aic,
        "bic": fit.bic,
        "chisq": 2 * (fit.unrestricted_llf - fit.llf),
    }
    return {**values, **UNTESTED}
