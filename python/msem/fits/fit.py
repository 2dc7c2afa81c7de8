"""A fitted model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import normal_halfwidth, normal_pvalue
from msem.estimation.estimate import Estimate, Sample, estimate
from msem.estimation.objective import ImpliedLevels, Objective
from msem.fits.measures import least_squares_measures, measure_inputs
from msem.fits.options import Options
from msem.fits.reporting import LEVEL_NAMES, header, messages, method_rows, title
from msem.inference.discrepancy import LevelDiscrepancy
from msem.inference.fitmeasures import fit_measures
from msem.inference.problems import Problem, status_of
from msem.inference.sampling import Sampling
from msem.inference.standardized import r_squared, standardize
from msem.moments.levelmoments import LevelMoments
from msem.moments.saturated import level_moments
from msem.output.html import render_html
from msem.output.sections import fit_sections
from msem.output.summary import SummaryInputs
from msem.output.tables import estimates_frame, hidden_rows
from msem.output.text import render_text
from msem.table.partable import ParameterTable
from msem.table.special_tables import baseline_table, saturated_table

if TYPE_CHECKING:
    from msem.sample.sufficient import SampleStatistics

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """Estimates of a structural equation model; immutable.

    Made by `msem.sem`, `msem.cfa` and `msem.growth`.

    Attributes
    ----------
    estimate : Estimate
        The objective and where the optimiser stopped.
    sample : Sample
        Statistics and saturated moments.
    sampling : Sampling or None
        Sampling covariance of the estimates; None with ``se="none"``.
    problems : tuple of Problem
        What is wrong with the solution: cause and remedy.
    options : Options
        How the fit was asked for and what the data were.
    discrepancy : LevelDiscrepancy or None
        The least-squares solution and its tests; None for maximum likelihood.
    """

    estimate: Estimate
    sample: Sample
    sampling: Sampling | None
    problems: tuple[Problem, ...]
    options: Options
    discrepancy: LevelDiscrepancy | None = None

    # -- the solution ------------------------------------------------------------------------------------------

    @property
    def converged(self) -> bool:
        """Whether the optimiser reached a stationary point."""
        return self.estimate.optimum.converged

    @property
    def status(self) -> str:
        """The most serious of the problems, or "ok".

        One of "ok", "boundary", "improper", "no_chi_square", "saddle_point", "unidentified", "not_converged".
        """
        return status_of(self.problems)

    @property
    def iterations(self) -> pd.DataFrame:
        """Value, decrement, damping and kind of step of every iteration."""
        return self.estimate.optimum.iterations

    @property
    def objective(self) -> Objective:
        """-2 log L as a function of theta."""
        return self.estimate.objective

    @property
    def table(self) -> ParameterTable:
        """The parameter table."""
        return self.estimate.table

    @property
    def params(self) -> pd.Series:
        """Estimated parameters, one for each shared label; between-level names end in ``.l2``."""
        return pd.Series(self.estimate.theta, index=list(self.table.names()), name="est")

    def cov_params(self) -> pd.DataFrame:
        """Sampling covariance matrix of `params`; nan for parameters without standard errors."""
        names = list(self.table.names())
        vcov = np.full((len(names),) * 2, np.nan) if self.sampling is None else self.sampling.vcov
        return pd.DataFrame(vcov, index=names, columns=names)

    @property
    def bse(self) -> pd.Series:
        """Standard errors of `params`."""
        return pd.Series(self._standard_errors, index=list(self.table.names()), name="se")

    @cached_property
    def _standard_errors(self) -> Floats:
        if self.sampling is None:
            return np.full(self.npar, np.nan)
        variance = self.sampling.vcov.diagonal()
        return np.sqrt(np.where(variance >= 0, variance, np.nan))

    @property
    def tvalues(self) -> pd.Series:
        """Estimates over standard errors, standard normal in large samples."""
        return (self.params / self.bse).rename("z")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of `tvalues`."""
        return pd.Series(normal_pvalue(self.tvalues), index=list(self.table.names()), name="pvalue")

    def conf_int(self, *, level: float = 0.95) -> pd.DataFrame:
        """Wald confidence intervals of `params`, columns ci_lower and ci_upper."""
        half = normal_halfwidth(level) * self.bse
        return pd.DataFrame({"ci_lower": self.params - half, "ci_upper": self.params + half})

    # -- the sample --------------------------------------------------------------------------------------------

    @property
    def statistics(self) -> SampleStatistics:
        """Sufficient statistics the model was fitted to."""
        return self.sample.statistics

    @property
    def nobs(self) -> int:
        """Units."""
        return _whole(self.statistics.nobs)

    @property
    def nclusters(self) -> int | None:
        """Clusters; None for a single-level model."""
        return _whole(self.statistics.nclusters) if self.table.nlevels == 2 else None

    @property
    def npar(self) -> int:
        """Estimated parameters, shared ones counted once."""
        return self.table.npar

    @cached_property
    def saturated(self) -> LevelMoments:
        """Saturated (h1) within and between moments.

        Raises
        ------
        AttributeError
            For a single-level model.
        """
        if self.table.nlevels == 1:
            raise AttributeError("a single-level fit has no level-specific moments")
        return level_moments(self.sample.saturated, self.statistics)

    @property
    def icc(self) -> pd.Series:
        """Intraclass correlations of the variables at both levels; standard errors: `saturated.icc_table()`."""
        return self.saturated.icc

    # -- likelihood and fit ------------------------------------------------------------------------------------

    @property
    def llf(self) -> float:
        """Log-likelihood, given the fixed covariates; nan for least squares."""
        return self.estimate.llf if self.discrepancy is None else np.nan

    @property
    def unrestricted_llf(self) -> float:
        """Log-likelihood of the saturated model."""
        return self.sample.llf - self.objective.covariate_llf

    @property
    def df(self) -> int:
        """Degrees of freedom: saturated less estimated parameters."""
        return saturated_table(self.table).npar - self.npar

    @property
    def chisq(self) -> float:
        """Chi-square against the saturated model."""
        return float(self._measures["chisq"])

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return -2 * self.llf + 2 * self.npar

    @property
    def bic(self) -> float:
        """Bayesian information criterion with ln N, as lavaan and Mplus have it."""
        return -2 * self.llf + self.npar * float(np.log(self.statistics.nobs))

    @cached_property
    def baseline(self) -> Estimate:
        """The independence model of the same variables."""
        return estimate(baseline_table(self.table), self.sample, loss=None)

    @cached_property
    def _measures(self) -> pd.Series:
        if self.discrepancy is not None:
            return least_squares_measures(self.estimate, self.sample, self.discrepancy)
        return fit_measures(measure_inputs(self.estimate, self.sample, self.baseline))

    def fit_measures(self) -> pd.Series:
        """Fit measures under lavaan's names, dots replaced by underscores."""
        return self._measures.copy()

    def tests(self) -> pd.DataFrame:
        """Tests of the model against the saturated one: statistic, df, pvalue, scaling."""
        if self.discrepancy is not None:
            return self.discrepancy.tests()
        row = [self.chisq, float(self.df), float(self._measures["pvalue"]), 1.0]
        return pd.DataFrame(
            [row], index=["likelihood_ratio"], columns=["statistic", "df", "pvalue", "scaling"]
        )

    @property
    def implied(self) -> ImpliedLevels:
        """Model-implied means and covariances by level, of observed and latent variables.

        `implied[1]` and `implied[2]` hold all variables, `implied.within` and `implied.between` the observed ones.
        """
        return self.objective.implied(self.estimate.theta)

    # -- tables ------------------------------------------------------------------------------------------------

    @property
    def _row_values(self) -> tuple[Floats, Floats]:
        """Value and standard error of every row: the error is 0 where nothing is estimated."""
        est = self.objective.row_values(self.estimate.theta)
        free = np.array([r.free for r in self.table.rows])
        return est, np.where(free > 0, np.append(self._standard_errors, 0.0)[free - 1], 0.0)

    @cached_property
    def _variances(self) -> dict[tuple[int, int], dict[str, float]]:
        return {(level, 1): m.variances for level, m in self.objective.moments(self.estimate.theta).items()}

    def estimates(self, *, standardized: bool = False, level: float = 0.95) -> pd.DataFrame:
        """All rows of the parameter table with estimates.

        Parameters
        ----------
        standardized : bool
            Add std_lv, std_all and std_nox, each level standardized by its own variances.
        level : float
            Of the confidence intervals.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est, se, z, pvalue, ci_lower, ci_upper. Rows that are not
            estimated have se 0.
        """
        est, se = self._row_values
        extra: dict[str, Floats] = {}
        if standardized:
            extra = standardize(self.table, est, self._variances)._asdict()
        return estimates_frame(self.table.rows, est, se, ci_level=level, extra=extra)

    def rsquare(self) -> pd.DataFrame:
        """Explained variance of every endogenous variable, by level: columns lhs, level, group, r2."""
        return r_squared(self.table, self._row_values[0], self._variances)

    def summary(
        self,
        *,
        fit_measures: bool = False,
        standardized: bool = False,
        rsquare: bool = False,
        ci: bool = False,
    ) -> str:
        """Text in the layout of lavaan's summary.

        Parameters
        ----------
        fit_measures : bool
            All fit measures instead of the chi-square test only.
        standardized : bool
            Add standardized estimates.
        rsquare : bool
            Add explained variances.
        ci : bool
            Show confidence intervals.

        Returns
        -------
        str
        """
        return render_text(self._summary_inputs(fit_measures, standardized, rsquare, ci))

    def _summary_inputs(self, full: bool, standardized: bool, rsquare: bool, ci: bool) -> SummaryInputs:
        two_level = self.table.nlevels == 2
        return SummaryInputs(
            title=title(self.converged, len(self.estimate.optimum.diary)),
            messages=messages(self.problems, self.options),
            header=header(self.options, self.npar, self.statistics.nobs, self.nclusters),
            fit=fit_sections(self._measures, full=full),
            method=method_rows(self.options),
            levels=LEVEL_NAMES if two_level else {},
            estimates=self.estimates(standardized=standardized),
            hidden=hidden_rows(self.table.rows, self._row_values[0]),
            r2=self.rsquare() if rsquare else None,
            ci=ci,
        )

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<msem.Fit: {self.npar} parameters, log-likelihood {self.llf:.3f}, status {self.status!r}>"

    def _repr_html_(self) -> str:
        return render_html(self._summary_inputs(True, False, False, False))


def _whole(value: float) -> int:
    return round(value)
