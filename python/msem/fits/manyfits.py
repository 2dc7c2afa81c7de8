"""Estimates of one model in many samples, as tidy frames."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import chisq_pvalues, normal_pvalue, wald_statistic
from msem.errors import ConvergenceWarning, warn
from msem.model.functions import defined_rows
from msem.model.partable import Parameter, ParameterTable
from msem.printing import frame_html, frame_text

Floats = NDArray[np.float64]

NOT_FITTED = ("not_converged", "failed")  # without estimates
CUT = 1e-9  # relative, of a chi-square below zero that is rounding
TOLERATED = 0.01  # share of fits without estimates that is not warned of


@dataclass(frozen=True, eq=False)
class FitArrays:
    """R fits of a model with P parameters, defined ones (``:=``) last.

    Attributes
    ----------
    est, se : ndarray, shape (R, P)
        nan for fits without estimates.
    llf, unrestricted_llf : ndarray, shape (R,)
        Log-likelihood given the fixed covariates, of the model and of the saturated model.
    status, problem : ndarray of object, shape (R,)
    iterations : ndarray of int, shape (R,)
    statistic, pvalue : ndarray, shape (R,)
        Of the test that goes with the estimator or was asked for: that of least squares, a scaled or a corrected one;
        nan where it is the likelihood ratio.
    """

    est: Floats
    se: Floats
    llf: Floats
    unrestricted_llf: Floats
    status: NDArray[np.object_]
    problem: NDArray[np.object_]
    iterations: NDArray[np.intp]
    statistic: Floats = field(default_factory=lambda: np.empty(0))
    pvalue: Floats = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        """Without a statistic there is none for any fit."""
        for name in ("statistic", "pvalue"):
            if len(getattr(self, name)) != len(self.llf):
                object.__setattr__(self, name, np.full(len(self.llf), np.nan))

    def __len__(self) -> int:
        return len(self.llf)

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """Whether there are estimates."""
        return ~np.isin(self.status, NOT_FITTED)

    def chisq(self, df: int) -> Floats:
        """Likelihood-ratio statistics, or those of the test that stands in their place.

        nan where there is no saturated maximum, or without degrees of freedom.
        """
        value = 2 * (self.unrestricted_llf - self.llf)
        rounding = (value < 0) & (value > -CUT * (1 + np.abs(self.llf)))
        value = np.where(rounding, 0.0, value)
        found = np.where((value >= 0) & (df >= 0), value, np.nan)
        return np.where(np.isnan(self.statistic), found, self.statistic)

    def pvalues(self, df: int) -> Floats:
        """Of the tests with these statistics."""
        known = ~np.isnan(self.statistic)
        return np.where(known, self.pvalue, chisq_pvalues(self.chisq(df), df))


def joined(parts: Sequence[FitArrays]) -> FitArrays:
    """Fits one after the other."""
    return FitArrays(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(FitArrays)))


@dataclass(frozen=True, eq=False)
class ManyFits:
    """Fits of one model to many samples; immutable.

    Made by `CompiledModel.fit_many`. Fits that did not converge, and samples that could not be fitted, have a row in
    every table, without estimates; the column `status` tells them, and improper solutions, from the others.

    Attributes
    ----------
    table : ParameterTable
    arrays : FitArrays
    df : int
        Degrees of freedom of the test against the saturated model.
    tested : bool
        Whether the likelihood-ratio statistic is a chi-square; not with weights, PSUs or strata.
    """

    table: ParameterTable
    arrays: FitArrays
    df: int
    tested: bool = True

    def __len__(self) -> int:
        return len(self.arrays)

    @cached_property
    def rows(self) -> tuple[Parameter, ...]:
        """A row of the parameter table for each parameter, the first that has it; defined ones last."""
        first: dict[int, Parameter] = {}
        for row in self.table.rows:
            if row.free:
                first.setdefault(row.free, row)
        return (*(first[k] for k in range(1, self.table.npar + 1)), *defined_rows(self.table))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, defined ones last."""
        return (*self.table.names(), *(row.lhs for row in defined_rows(self.table)))

    @cached_property
    def fits(self) -> pd.DataFrame:
        """A row for each sample: status, converged, llf, chisq, df, pvalue, iterations, problem.

        `chisq` and `pvalue` are those of the test that the estimator has or that was asked for: scaled with robust
        errors. With weights, primary sampling units or strata the likelihood ratio has no p-value.
        """
        a = self.arrays
        chisq = a.chisq(self.df)
        pvalue = a.pvalues(self.df) if self.tested else a.pvalue
        columns = {
            "status": pd.Categorical(a.status),
            "converged": a.fitted,
            "llf": a.llf,
            "chisq": chisq,
            "df": self.df,
            "pvalue": pvalue,
            "iterations": a.iterations,
            "problem": a.problem,
        }
        return pd.DataFrame(columns, index=self._index)

    @property
    def params(self) -> pd.DataFrame:
        """Estimates: a row for each sample, a column for each parameter."""
        return pd.DataFrame(self.arrays.est.copy(), index=self._index, columns=list(self.names))

    @property
    def bse(self) -> pd.DataFrame:
        """Standard errors: a row for each sample, a column for each parameter."""
        return pd.DataFrame(self.arrays.se.copy(), index=self._index, columns=list(self.names))

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """A row for each sample and parameter.

        Columns replicate, status, lhs, op, rhs, level, group, label, est, se, z, pvalue; texts are categorical. A
        parameter that several rows of the model share has one row.
        """
        count, a = len(self), self.arrays
        width = len(self.rows)
        labels = {
            name: _repeated([getattr(row, name) for row in self.rows], count)
            for name in ("lhs", "op", "rhs", "label")
        }
        label = labels.pop("label")
        numbers = {
            name: np.tile([getattr(row, name) for row in self.rows], count) for name in ("level", "group")
        }
        est, se = a.est.ravel(), a.se.ravel()
        z = wald_statistic(est, se)
        return pd.DataFrame(
            {
                "replicate": np.repeat(np.arange(count), width),
                "status": pd.Categorical(np.repeat(a.status, width)),
                **labels,
                **numbers,
                "label": label,
                "est": est,
                "se": se,
                "z": z,
                "pvalue": normal_pvalue(z),
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """`estimates` with what `fits` says of each sample: converged, llf, chisq, df and chisq_pvalue."""
        kept = self.fits[["converged", "llf", "chisq", "df", "pvalue"]].rename(
            columns={"pvalue": "chisq_pvalue"}
        )
        return self.estimates.join(kept, on="replicate")

    @property
    def counts(self) -> pd.Series:
        """How many samples have each status."""
        return _counts(self.arrays.status)

    @property
    def _index(self) -> pd.RangeIndex:
        return pd.RangeIndex(len(self), name="replicate")

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"{len(self)} fits ({listed})\n\n{frame_text(_digest(self))}"

    def _repr_html_(self) -> str:
        return frame_html(_digest(self))

    def __repr__(self) -> str:
        return f"<msem.ManyFits: {len(self)} fits of {len(self.names)} parameters>"


def _counts(status: NDArray[np.object_]) -> pd.Series:
    found = Counter(status.tolist())
    return pd.Series(dict(found.most_common()), name="fits", dtype="int64")


def _repeated(values: Sequence[str], count: int) -> Any:
    """Texts, so many times over."""
    categories = list(dict.fromkeys(values))
    codes = np.array([categories.index(value) for value in values], dtype=np.intp)
    return pd.Categorical.from_codes(np.tile(codes, count), pd.Index(categories))


def _digest(fits: ManyFits) -> pd.DataFrame:
    """Mean and spread of the estimates of all fits that have some, and the mean of their standard errors."""
    a = fits.arrays
    est, se = a.est[a.fitted], a.se[a.fitted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no fits, or one
        columns = {
            "mean": np.nanmean(est, axis=0),
            "sd": np.nanstd(est, axis=0, ddof=1),
            "mean_se": np.nanmean(se, axis=0),
        }
    return pd.DataFrame(columns, index=list(fits.names))


def warn_of_missing(arrays: FitArrays) -> None:
    """Warn when more than one in a hundred fits have no estimates.

    Warns
    -----
    ConvergenceWarning
        With how many of each kind.
    """
    missing = ~arrays.fitted
    if missing.sum() > TOLERATED * len(arrays):
        listed = ", ".join(f"{name} {count}" for name, count in _counts(arrays.status[missing]).items())
        warn(
            f"{missing.sum()} of {len(arrays)} fits have no estimates ({listed}): those of the others are estimates "
            "for samples in which the model can be fitted. See the columns status and problem of ManyFits.fits",
            ConvergenceWarning,
        )
