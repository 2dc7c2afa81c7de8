"""The fit of one level, and of both levels each by itself, as values with tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.moments import LevelMoments
from msem.estimation.matrices import block_map
from msem.estimation.problems import Problem, status_of
from msem.fits.reporting import segregated_header, tests_section, title
from msem.model.levels import LEVEL_NAMES
from msem.model.partable import Parameter, ParameterTable
from msem.model.references import Names
from msem.output.html import render_html
from msem.output.sections import level_section
from msem.output.summary import SummaryInputs
from msem.output.tables import estimates_frame, hidden_rows
from msem.output.text import render_text
from msem.postestimation.level_fit import measures_of_tests
from msem.postestimation.ram import BlockModel
from msem.postestimation.standardized import KINDS, Kind, rsquare_frame, standardized_frame
from msem.settings import require_choice

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LevelFit:
    """One level of a model fitted by itself.

    Attributes
    ----------
    level : int
        1 (within) or 2 (between).
    method : str
        "likelihood", "ml" or "uls".
    rows : tuple of Parameter
        The level's part of the parameter table, its parameters numbered from 1.
    theta : ndarray, shape (k,)
    vcov, vcov_naive : ndarray, shape (k, k)
        Corrected sampling covariance, and the one that takes the level's saturated matrix for observed data.
    tests : DataFrame
        Tests of the level's structure: statistic, df, pvalue, scaling.
    problems : tuple of Problem
    moments : LevelMoments
        What was fitted.
    srmr : float
        SRMR of the level.
    fit_baseline : callable
        Fits independence of the level in the same way.
    """

    level: int
    method: str
    rows: tuple[Parameter, ...]
    theta: Floats
    vcov: Floats
    vcov_naive: Floats
    tests: pd.DataFrame
    problems: tuple[Problem, ...]
    moments: LevelMoments
    srmr: float = np.nan
    fit_baseline: Callable[[], LevelFit] | None = None

    @property
    def status(self) -> str:
        """The most serious of the problems, or "ok"."""
        return status_of(self.problems)

    @property
    def converged(self) -> bool:
        """Whether the optimiser reached a stationary point."""
        return all(p.name != "not_converged" for p in self.problems)

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        out: dict[int, str] = {}
        for r, name in zip(self.rows, Names(self.rows).shown, strict=True):
            if r.free:
                out.setdefault(r.free, name)
        return [out[k] for k in sorted(out)]

    @property
    def params(self) -> pd.Series:
        """Estimates."""
        return pd.Series(self.theta, index=self.names, name="est")

    @property
    def bse(self) -> pd.Series:
        """Corrected standard errors."""
        return pd.Series(_roots(self.vcov), index=self.names, name="se")

    def cov_params(self) -> pd.DataFrame:
        """Corrected sampling covariance matrix of `params`."""
        return pd.DataFrame(self.vcov, index=self.names, columns=self.names)

    @property
    def row_values(self) -> Floats:
        """Value of every row."""
        return np.array([self.theta[r.free - 1] if r.free else r.value for r in self.rows])

    def estimates(self, *, level: float = 0.95) -> pd.DataFrame:
        """All rows of the level with corrected standard errors, and the naive ones as `se_naive`."""
        se, naive = (self._row_errors(v) for v in (self.vcov, self.vcov_naive))
        return estimates_frame(self.rows, self.row_values, se, ci_level=level, extra={"se_naive": naive})

    @cached_property
    def _measures(self) -> pd.Series:
        baseline = self.fit_baseline().tests if self.fit_baseline is not None else None
        size = self.moments.nclusters if self.level == 2 else self.moments.nobs
        return measures_of_tests(self.tests, baseline, size, self.srmr)

    def fit_measures(self) -> pd.Series:
        """Fit measures of the level, held against independence at the level.

        Returns
        -------
        Series
            chisq, df, pvalue, those of the baseline, CFI and the other incremental measures, RMSEA with interval and
            tests, srmr. Chi-squares are likelihood ratios for ``method="likelihood"``, mean-scaled ones (Satorra &
            Bentler, 1994) otherwise, or with a robust Gamma. Sample size of RMSEA: clusters at the between level, units
            at the within level (Ryu & West, 2009).
        """
        return self._measures.copy()

    @cached_property
    def _model(self) -> BlockModel:
        table = ParameterTable(self.rows, nlevels=2)
        return BlockModel(table, (block_map(table, self.level, 1, table.observed(self.level)),))

    def standardized(self, kind: Kind = "std_all", *, level: float = 0.95) -> pd.DataFrame:
        """Standardized solution in units of the level's own standard deviations.

        Parameters
        ----------
        kind : {"std_all", "std_lv", "std_nox"}
            Which variables have variance 1: all, the latent ones, or all but observed covariates.
        level : float
            Coverage of the intervals.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est_std, se, z, pvalue, ci_lower, ci_upper, with corrected
            standard errors.
        """
        require_choice("kind", kind, KINDS)
        return standardized_frame(self._model, self.theta, self.vcov, kind, level=level)

    def rsquare(self, *, level: float = 0.95) -> pd.DataFrame:
        """Explained variance of every endogenous variable: lhs, level, group, r2, se, ci_lower, ci_upper."""
        return rsquare_frame(self._model, self.theta, self.vcov, level=level)

    def _row_errors(self, vcov: Floats) -> Floats:
        free = np.array([r.free for r in self.rows], dtype=np.intp)
        return np.where(free > 0, np.append(_roots(vcov), 0.0)[free - 1], 0.0)


@dataclass(frozen=True, eq=False)
class SegregatedFit:
    """Both levels of a model, each fitted by itself; made by `msem.segregated`.

    Attributes
    ----------
    within, between : LevelFit
    """

    within: LevelFit
    between: LevelFit

    @property
    def levels(self) -> tuple[LevelFit, LevelFit]:
        """Both levels, within first."""
        return self.within, self.between

    @property
    def method(self) -> str:
        """How the levels were fitted."""
        return self.within.method

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems of either level."""
        return self.within.problems + self.between.problems

    @property
    def status(self) -> str:
        """The most serious problem of either level, or "ok"."""
        return status_of(self.problems)

    @property
    def converged(self) -> bool:
        """Whether both levels converged."""
        return self.within.converged and self.between.converged

    @property
    def params(self) -> pd.Series:
        """Estimates of both levels; between-level names end in ``.l2``."""
        out: pd.Series = pd.concat([fit.params for fit in self.levels])
        return out

    @property
    def bse(self) -> pd.Series:
        """Corrected standard errors of `params`."""
        out: pd.Series = pd.concat([fit.bse for fit in self.levels])
        return out

    @property
    def naive(self) -> SegregatedFit:
        """The same fits with the naive standard errors in place of the corrected ones.

        They take the saturated matrix of a level for observed data; at the between level they are too small.
        """
        return SegregatedFit(*(replace(fit, vcov=fit.vcov_naive) for fit in self.levels))

    def estimates(self, *, level: float = 0.95) -> pd.DataFrame:
        """Estimates of both levels with corrected (`se`) and naive (`se_naive`) standard errors."""
        return pd.concat([fit.estimates(level=level) for fit in self.levels], ignore_index=True)

    def standardized(self, kind: Kind = "std_all", *, level: float = 0.95) -> pd.DataFrame:
        """Standardized solution of both levels, each by its own standard deviations; see `LevelFit.standardized`."""
        return pd.concat([fit.standardized(kind, level=level) for fit in self.levels], ignore_index=True)

    def rsquare(self, *, level: float = 0.95) -> pd.DataFrame:
        """Explained variance of every endogenous variable of both levels; see `LevelFit.rsquare`."""
        return pd.concat([fit.rsquare(level=level) for fit in self.levels], ignore_index=True)

    def tests(self) -> pd.DataFrame:
        """Tests of both levels: indexed by level and test; statistic, df, pvalue, scaling."""
        return pd.concat({fit.level: fit.tests for fit in self.levels}, names=["level", "test"])

    def fit_measures(self) -> pd.DataFrame:
        """Fit measures of both levels; see `LevelFit.fit_measures`.

        Returns
        -------
        DataFrame
            A row for each measure, columns within and between.
        """
        return pd.DataFrame({LEVEL_NAMES[fit.level]: fit.fit_measures() for fit in self.levels})

    def summary(self, *, fit_measures: bool = False) -> str:
        """Text with the estimates and tests of both levels.

        Parameters
        ----------
        fit_measures : bool
            Add the fit measures of the levels.
        """
        return render_text(self._inputs(fit_measures))

    def _inputs(self, full: bool = False) -> SummaryInputs:
        rows = self.within.rows + self.between.rows
        moments = self.within.moments
        return SummaryInputs(
            title=title(self.converged, None),
            messages=tuple(map(str, dict.fromkeys(self.problems))),
            header=segregated_header(self.method, moments),
            fit=(
                *(tests_section(fit.level, fit.tests) for fit in self.levels),
                *(
                    (level_section({"Within": self.within._measures, "Between": self.between._measures}),)
                    if full
                    else ()
                ),
            ),
            method=(("Standard errors", "Corrected"), ("Naive.SE", "as if the matrix had been observed")),
            levels=LEVEL_NAMES,
            estimates=self.estimates(),
            hidden=hidden_rows(rows, np.concatenate([fit.row_values for fit in self.levels])),
        )

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<msem.SegregatedFit: method {self.method!r}, status {self.status!r}>"

    def _repr_html_(self) -> str:
        return render_html(self._inputs())


def _roots(vcov: Floats) -> Floats:
    variance = np.diag(vcov)
    return np.sqrt(np.where(variance >= 0, variance, np.nan))
