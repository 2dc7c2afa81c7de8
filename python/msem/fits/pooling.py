"""Fits to multiply imputed data, put together by Rubin's rules.

With m imputations, Q the mean of the estimates, W the mean of their covariance matrices and B the covariance matrix of
the estimates between imputations, the pooled covariance matrix is T = W + (1 + 1/m) B (Rubin, 1987).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import f_pvalue, student_halfwidth, student_pvalue, wald_statistic
from msem.entry import entries, entry
from msem.errors import ModelError, UnsupportedError
from msem.estimation.lookup import parameter_series
from msem.fits.fit import Fit
from msem.fits.saved import SavedFit
from msem.fits.synopsis import named_fits
from msem.language.characters import pieces
from msem.model.functions import compile_expressions
from msem.model.levels import Level, rows_at
from msem.model.partable import ParameterTable
from msem.names import Translated
from msem.printing import frame_html, frame_text
from msem.settings import require_choice, several

Floats = NDArray[np.float64]
RatioMethod = Literal["D2", "D3", "D4"]
KEY = ["lhs", "op", "rhs", "level", "group", "label"]


@dataclass(frozen=True)
class PooledTest:
    """A test that puts those of the imputations together.

    Attributes
    ----------
    method : {"D1", "D2", "D3", "D4"}
    statistic : float
        F with `df` and `df_denominator` degrees of freedom.
    df, df_denominator : float
    pvalue : float
    increase : float
        Average relative increase in variance because of missing values, r.
    """

    method: str
    statistic: float
    df: float
    df_denominator: float
    pvalue: float
    increase: float


def pooled_wald(difference: Floats, within: Floats, between: Floats, m: int) -> PooledTest:
    """D1: the mean estimates against 0 (Li, Raghunathan & Rubin, 1991).

    D1 = d' W^-1 d / [k (1 + r)], r = (1 + 1/m) tr(B W^-1) / k.

    Parameters
    ----------
    difference : ndarray, shape (k,)
        Mean estimates less what the hypothesis says.
    within, between : ndarray, shape (k, k)
        W and B of the estimates.
    m : int
        Imputations.
    """
    k = len(difference)
    inverse = np.linalg.inv(within)
    r = (1 + 1 / m) * float(np.trace(between @ inverse)) / k
    statistic = float(difference @ inverse @ difference) / (k * (1 + r))
    return _tested("D1", statistic, k, _denominator(k, m, r), r)


def pooled_statistics(statistics: Sequence[float], k: float) -> PooledTest:
    """D2: chi-square statistics of the imputations with k degrees of freedom (Li, Meng, Raghunathan & Rubin, 1991).

    D2 = [mean(d) / k - (m + 1) / (m - 1) r] / (1 + r), r = (1 + 1/m) var(sqrt d), with
    k^(-3/m) (m - 1) (1 + 1/r)^2 degrees of freedom.
    """
    d, m = np.asarray(statistics, dtype=np.float64), len(statistics)
    r = (1 + 1 / m) * float(np.var(np.sqrt(d), ddof=1))
    statistic = (float(d.mean()) / k - (m + 1) / (m - 1) * r) / (1 + r)
    df = k ** (-3 / m) * (m - 1) * (1 + 1 / r) ** 2 if r > 0 else np.inf
    return _tested("D2", max(statistic, 0.0), k, df, r)


def pooled_ratio(mean: float, at_pooled: float, k: float, m: int, method: str) -> PooledTest:
    """D3 and D4 from likelihood ratios.

    r = (m + 1) / [k (m - 1)] (mean - at_pooled) and D = at_pooled / [k (1 + r)].

    Parameters
    ----------
    mean : float
        Mean of the likelihood-ratio statistics of the imputations.
    at_pooled : float
        Mean of these statistics at common estimates: the mean estimates for D3 (Meng & Rubin, 1992), those that
        maximise the mean log-likelihood for D4 (Chan & Meng, 2022), so that it cannot be negative.
    k : float
        Degrees of freedom.
    m : int
    method : {"D3", "D4"}
    """
    r = (m + 1) / (k * (m - 1)) * (mean - at_pooled)
    if method == "D4":
        r = max(r, 0.0)
    statistic = at_pooled / (k * (1 + r))
    if method == "D4":  # Chan & Meng (2022): K (m - 1) [(1 + r) / r]^2
        return _tested(method, statistic, k, k * (m - 1) * ((1 + r) / r) ** 2 if r > 0 else np.inf, r)
    return _tested(method, max(statistic, 0.0), k, _denominator(k, m, r), r)


def _denominator(k: float, m: int, r: float) -> float:
    """Degrees of freedom of the denominator of D1 and D3 (Li, Raghunathan & Rubin, 1991)."""
    if r <= 0:
        return np.inf
    t = k * (m - 1)
    if t > 4:
        return 4 + (t - 4) * (1 + (1 - 2 / t) / r) ** 2
    return t * (1 + 1 / k) * (1 + 1 / r) ** 2 / 2


def _tested(method: str, statistic: float, k: float, df: float, r: float) -> PooledTest:
    return PooledTest(method, float(statistic), float(k), float(df), f_pvalue(statistic, k, df), float(r))


@entries
@dataclass(frozen=True, eq=False)
class Pooled(Translated):
    """Fits of one model to multiply imputed data, pooled by Rubin's rules; immutable. Made by `msem.pool`.

    Attributes
    ----------
    fits : tuple of Fit or SavedFit
        One for each imputation.
    """

    fits: tuple[Fit | SavedFit, ...]

    @property
    def m(self) -> int:
        """Imputations."""
        return len(self.fits)

    @property
    def table(self) -> ParameterTable:
        """The parameter table."""
        return self.fits[0].table

    @property
    def nobs(self) -> float:
        """Units of one imputed data set."""
        return float(np.mean([fit.nobs for fit in self.fits]))

    @property
    def npar(self) -> int:
        """Estimated parameters."""
        return self.table.npar

    @cached_property
    def _theta(self) -> Floats:
        return np.array([fit.params.to_numpy() for fit in self.fits])

    @cached_property
    def within(self) -> Floats:
        """Mean of the covariance matrices, W, shape (npar, npar)."""
        return np.asarray(np.mean([fit.cov_params().to_numpy() for fit in self.fits], axis=0))

    @cached_property
    def between(self) -> Floats:
        """Covariance matrix of the estimates between imputations, B, shape (npar, npar)."""
        return np.atleast_2d(np.cov(self._theta, rowvar=False))

    @property
    def params(self) -> pd.Series:
        """Means of the estimates."""
        return parameter_series(self.table, self._theta.mean(axis=0), "est")

    def cov_params(self) -> pd.DataFrame:
        """Pooled covariance matrix W + (1 + 1/m) B."""
        names = list(self.table.names())
        return pd.DataFrame(self.within + (1 + 1 / self.m) * self.between, index=names, columns=names)

    @property
    def bse(self) -> pd.Series:
        """Pooled standard errors."""
        return parameter_series(self.table, np.sqrt(np.diag(self.cov_params())), "se")

    def estimates(self, *, level: Level | None = None, ci_level: float = 0.95) -> pd.DataFrame:
        """All rows of the parameter table, defined parameters last.

        Parameters
        ----------
        level : {1, 2, "within", "between"}, optional
            Rows of this level only.
        ci_level : float
            Coverage of the intervals.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est, se, t, df, pvalue, ci_lower, ci_upper, riv (relative
            increase in variance because of missing values) and fmi (fraction of missing information). df are (m - 1)
            (1 + 1/riv)^2 (Rubin, 1987), and fmi is (riv + 2 / (df + 3)) / (1 + riv).
        """
        frames = [fit.estimates() for fit in self.fits]
        est = np.array([frame["est"] for frame in frames])
        variance = np.array([frame["se"] for frame in frames]) ** 2
        w, b = variance.mean(axis=0), (1 + 1 / self.m) * est.var(axis=0, ddof=1)
        estimated = w > 0
        riv = np.divide(b, w, out=np.full(len(w), np.nan), where=estimated)
        with np.errstate(divide="ignore"):
            df = (self.m - 1) * (1 + 1 / riv) ** 2
        se = np.where(w == 0, 0.0, np.sqrt(w + b))
        t = wald_statistic(est.mean(axis=0), se)
        half = np.where(se == 0, 0.0, student_halfwidth(ci_level, df) * se)
        numbers = {
            "est": est.mean(axis=0),
            "se": se,
            "t": t,
            "df": df,
            "pvalue": student_pvalue(t, df),
            "ci_lower": est.mean(axis=0) - half,
            "ci_upper": est.mean(axis=0) + half,
            "riv": riv,
            "fmi": (riv + np.where(np.isfinite(df), 2 / (df + 3), 0.0)) / (1 + riv),
        }
        frame = frames[0][KEY].assign(**numbers)
        return rows_at(frame, level, self.table)

    def wald_test(self, hypotheses: str | Sequence[str]) -> PooledTest:
        """Test hypotheses about the parameters jointly, by D1.

        Parameters
        ----------
        hypotheses : str or sequence of str
            Equations as in `Fit.wald_test`.

        Returns
        -------
        PooledTest

        Raises
        ------
        ModelError
            If they are not independent, or about unknown parameters.
        """
        texts = [part.strip() for text in several(hypotheses) for part in pieces(text) if part.strip()]
        functions = compile_expressions(self.table, texts)
        theta = self._theta.mean(axis=0)
        slope = functions.jacobian(theta)
        within, between = (slope @ matrix @ slope.T for matrix in (self.within, self.between))
        if not np.isfinite(within).all() or np.linalg.matrix_rank(within) < len(texts):
            raise ModelError(
                "these hypotheses are not independent of each other, or about what has no standard error"
            )
        return pooled_wald(functions.values(theta), within, between, self.m)

    def chisq_test(self, method: Literal["D2", "D4"] = "D4") -> PooledTest:
        """Test the model against the saturated one.

        Parameters
        ----------
        method : {"D4", "D2"}
            "D4" fits the imputations once more, stacked; "D2" needs the chi-squares only, and is a rough one. It is the
            only one with weights, primary sampling units or strata, where it takes the scaled chi-squares.

        Returns
        -------
        PooledTest

        Raises
        ------
        UnsupportedError
            For "D4" of fits that do not know their data, or that are not by maximum likelihood.
        ModelError
            If the model has no degrees of freedom.
        """
        require_choice("method", method, ("D2", "D4"))
        df = self.fits[0].fit_measures()["df"]
        if df == 0:
            raise ModelError("the model has no degrees of freedom: there is nothing to test")
        surveyed = any(fit.options.surveyed for fit in self.fits)
        if surveyed and method != "D2":
            raise UnsupportedError(
                "the likelihood ratio of a sample with weights, primary sampling units or strata is no chi-square: "
                'take method="D2", which pools the scaled ones'
            )
        name = "chisq_scaled" if surveyed else "chisq"
        chisq = [float(fit.fit_measures()[name]) for fit in self.fits]
        if method == "D2":
            return pooled_statistics(chisq, df)
        stacked = self.stacked
        value = 2 * (stacked.unrestricted_llf - stacked.llf) / self.m
        return pooled_ratio(float(np.mean(chisq)), value, df, self.m, "D4")

    def likelihood_ratio(self, smaller: Pooled, method: RatioMethod = "D4") -> PooledTest:
        """Test a smaller model, fitted to the same imputations, against this one.

        Parameters
        ----------
        smaller : Pooled
        method : {"D4", "D3", "D2"}
            "D4" from fits to the stacked imputations (Chan & Meng, 2022), which depends on no parametrisation; "D3" at
            the mean estimates (Meng & Rubin, 1992); "D2" from the statistics alone.

        Returns
        -------
        PooledTest

        Raises
        ------
        ModelError
            If the models do not differ in degrees of freedom in that direction, or have other numbers of imputations.
        UnsupportedError
            For fits without the data that the method needs.
        """
        require_choice("method", method, get_args(RatioMethod))
        if any(fit.options.surveyed for fit in (*self.fits, *smaller.fits)):
            raise UnsupportedError(
                "the likelihood ratio of samples with weights, primary sampling units or strata is no chi-square: use "
                "wald_test"
            )
        k = smaller.fits[0].df - self.fits[0].df
        if k <= 0 or smaller.m != self.m:
            raise ModelError(
                "the other model must have more degrees of freedom and as many imputations: call the larger model's "
                "likelihood_ratio(smaller)"
            )
        ratios = [2 * (a.llf - b.llf) for a, b in zip(self.fits, smaller.fits, strict=True)]
        if method == "D2":
            return pooled_statistics(np.maximum(ratios, 0.0).tolist(), k)
        if method == "D3":
            value = 2 * (self._mean_llf() - smaller._mean_llf())
        else:
            value = 2 * (self.stacked.llf - smaller.stacked.llf) / self.m
        return pooled_ratio(float(np.mean(ratios)), value, k, self.m, method)

    def _mean_llf(self) -> float:
        """Mean of the log-likelihoods at the mean estimates."""
        theta = self._theta.mean(axis=0)
        return float(np.mean([_whole(fit).objective.llf(theta) for fit in self.fits]))

    @cached_property
    def stacked(self) -> Fit:
        """The model fitted to all imputations one below the other, with clusters of each imputation as its own.

        Its estimates maximise the mean log-likelihood; its standard errors take no account of the imputation.
        """
        requests = [_whole(fit).request for fit in self.fits]
        first = requests[0]
        if first is None or any(one is None or not isinstance(one.data, pd.DataFrame) for one in requests):
            raise UnsupportedError(
                'fits of msem.sem to pandas data frames are needed, which they know: use method="D2" or "D3"'
            )
        if first.settings.missing != "listwise" or _whole(self.fits[0]).discrepancy is not None:
            raise UnsupportedError("stacked imputations are fitted by maximum likelihood of complete data")
        frames = [one.data for one in requests if one is not None]
        data = pd.concat(frames, keys=range(self.m), names=["imputation"]).reset_index(level=0)
        options: dict[str, Any] = {"estimator": "ML", "se": "none", "test": None, "information": None}
        if first.settings.cluster is not None:
            ids = data[first.settings.cluster]
            data[first.settings.cluster] = pd.factorize(
                data["imputation"].astype(str) + "/" + ids.astype(str)
            )[0]
            data.loc[ids.isna().to_numpy(), first.settings.cluster] = np.nan
        return first.changed(None, data, None, options)

    def __str__(self) -> str:
        return f"{self.m} imputations, pooled by Rubin's rules\n\n{frame_text(self.estimates())}"

    def __repr__(self) -> str:
        return f"<msem.Pooled: {self.m} fits of {self.npar} parameters>"

    def _repr_html_(self) -> str:
        return frame_html(self.estimates())


def _whole(fit: Fit | SavedFit) -> Fit:
    if not isinstance(fit, Fit):
        raise UnsupportedError('saved fits have no likelihood: use method="D2", or wald_test()')
    return fit


@entry
def pool(*fits: Fit | SavedFit | Sequence[Fit | SavedFit]) -> Pooled:
    """Pool fits of one model to multiply imputed data by Rubin's rules.

    Parameters
    ----------
    *fits : fits, or one list of fits
        Of `msem.sem` to each imputed data set, or read from files: two or more.

    Returns
    -------
    Pooled

    Raises
    ------
    ModelError
        If there are fewer than two, they are of different models, or one has not converged or has no standard errors.

    References
    ----------
    Rubin (1987). Multiple imputation for nonresponse in surveys.
    Li, Raghunathan & Rubin (1991). Large-sample significance levels from multiply imputed data using moment-based
    statistics and an F reference distribution. JASA, 86, 1065-1073.
    Li, Meng, Raghunathan & Rubin (1991). Significance levels from repeated p-values with multiply-imputed data.
    Statistica Sinica, 1, 65-92.
    Meng & Rubin (1992). Performing likelihood ratio tests with multiply-imputed data sets. Biometrika, 79, 103-111.
    Chan & Meng (2022). Multiple improvements of multiple imputation likelihood ratio tests. Statistica Sinica, 32,
    1489-1514.
    """
    given = named_fits("pool", fits, {}, 2)
    wanted: list[tuple[object, ...]] = []
    for name, fit in given.items():
        if not isinstance(fit, Fit | SavedFit):
            raise ModelError(f"{name} is a {type(fit).__name__}: pool takes fits of msem.sem, or saved ones")
        if not fit.converged:
            raise ModelError(
                f"{name} has not converged: leave the imputation out, or give the model start() values"
            )
        if fit.options.se == "none":
            raise ModelError(f"{name} has no standard errors: fit it without se='none'")
        wanted.append(tuple((r.lhs, r.op, r.rhs, r.level, r.group, r.free) for r in fit.table.rows))
        if wanted[-1] != wanted[0]:
            raise ModelError(f"{name} is of another model than model_1: pool fits of one model")
    return Pooled(tuple(given.values()))
