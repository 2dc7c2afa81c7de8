"""Fits to multiply imputed data, put together by Rubin's rules.

With m imputations, Q the mean of the estimates, W the mean of their covariance matrices and B the covariance matrix of
the estimates between imputations, the pooled covariance matrix is T = W + (1 + 1/m) B (Rubin, 1987).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import column_lengths
from msem.distributions import SCALES, f_pvalue
from msem.entry import entries, entry
from msem.errors import ModelError, UnsupportedError
from msem.estimation.lookup import parameter_series
from msem.estimation.problems import status_of
from msem.estimation.solution import row_scales
from msem.fits.fit import Fit
from msem.fits.reporting import level_titles, method_rows
from msem.fits.rubin import pooled_frame
from msem.fits.saved import SavedFit
from msem.fits.synopsis import named_fits
from msem.language.characters import pieces
from msem.model.functions import compile_expressions
from msem.model.levels import Level, rows_at
from msem.model.partable import Parameter, ParameterTable
from msem.names import Translated
from msem.output.sections import Section, sample_section
from msem.output.summary import SummaryInputs, render_html, render_text
from msem.output.tables import hidden_rows
from msem.postestimation.constraints import defined
from msem.postestimation.effects import contextual_effects, effects
from msem.postestimation.fit_measures import chosen_measures
from msem.postestimation.icc import icc_table
from msem.postestimation.reliability import reliability
from msem.postestimation.simple_slopes import simple_slopes
from msem.postestimation.standardized import rsquare, standardized
from msem.postestimation.variance_partition import variance_partition
from msem.settings import Reference, ResolvedSettings, require_choice, several
from msem.version import __version__

Floats = NDArray[np.float64]
MEANS = {
    "chisq": "Chi-square",
    "chisq_scaled": "Chi-square, scaled",
    "df": "Degrees of freedom",
    "cfi": "CFI",
    "cfi_robust": "CFI, robust",
    "tli": "TLI",
    "tli_robust": "TLI, robust",
    "rmsea": "RMSEA",
    "rmsea_robust": "RMSEA, robust",
    "srmr": "SRMR",
    "srmr_within": "SRMR, within",
    "srmr_between": "SRMR, between",
    "logl": "Log-likelihood",
    "aic": "AIC",
    "bic": "BIC",
}
MANY = 10_000  # degrees of freedom from which on Student's t is normal to all digits of a summary
_DEFINED = Parameter("", ":=", "", 0, 0)  # what tables have below the rows of the model
RatioMethod = Literal["D2", "D3", "D4"]
Scale = Literal["identity", "log", "fisher", "fisher_root", "logit"]
SCALE_TEXTS = {
    "identity": "",
    "fisher": ", on Fisher's scale",
    "fisher_root": ", on Fisher's scale of their roots",
    "logit": ", on the logit scale",
    "rows": ", correlations on Fisher's scale",
}


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


def _asked(
    question: Callable[..., pd.DataFrame], scale: Scale | Callable[[pd.DataFrame], list[Scale]] = "identity"
) -> Any:
    """The question about a fit as one about pooled fits: what each says, pooled on a scale."""
    name = question.__name__

    @wraps(question)
    def answer(pooled: Pooled, *args: Any, **options: Any) -> pd.DataFrame:
        if options.get("method", "delta") != "delta":
            raise UnsupportedError(
                f"{name}(): intervals of pooled fits are those of Student's t about the pooled estimate, and not "
                f"percentiles of draws: leave out method={options['method']!r}"
            )
        frames = [getattr(fit, name)(*args, **options) for fit in pooled.fits]
        kinds = [scale] * len(frames[0]) if isinstance(scale, str) else scale(frames[0])
        return pooled._frame(frames, kinds, options.get("ci_level", 0.95))

    how = SCALE_TEXTS[scale if isinstance(scale, str) else "rows"]
    note = (
        f"Pooled by Rubin's rules from what each fit says{how}, see `of`:\n    with t, df and pvalue in the place "
        "of z and pvalue, and columns riv and fmi."
    )
    answer.__doc__ = (question.__doc__ or "").replace("\n\n", f"\n\n    {note}\n\n", 1)
    return answer


def _correlations(frame: pd.DataFrame) -> list[Scale]:
    """Correlations of a standardized solution have Fisher's scale, other rows their own."""
    rows = zip(frame["lhs"], frame["op"], frame["rhs"], strict=True)
    return ["fisher" if op == "~~" and lhs != rhs else "identity" for lhs, op, rhs in rows]


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
        """Estimated parameters; see `Fit.npar`."""
        return self.fits[0].npar

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

    def of(
        self,
        question: Callable[[Any], pd.DataFrame],
        *,
        scale: Scale | Sequence[Scale] = "identity",
        ci_level: float = 0.95,
    ) -> pd.DataFrame:
        """Pool what any question about the fits gives.

        Parameters
        ----------
        question : callable
            From a fit to a table with a column se, whose estimate is the column before it:
            ``lambda fit: fit.effects("y", "x")``. What is asked often is a method: `standardized`, `rsquare`,
            `effects`, `contextual_effects`, `defined`, `icc_table`, `reliability`, `variance_partition`.
        scale : {"identity", "log", "fisher", "fisher_root", "logit"}, or one for each row
            Scale on which estimates are averaged and intervals are symmetric: logarithm for what is positive, Fisher's
            z for correlations, Fisher's z of the root for explained variances, logit for shares.
        ci_level : float
            Coverage of the intervals.

        Returns
        -------
        DataFrame
            Columns of the table with t, df and pvalue in the place of z and pvalue, then riv (relative increase in
            variance because of missing values) and fmi (fraction of missing information). Numbers without a standard
            error are means.

        Raises
        ------
        ModelError
            If the tables have other rows, or no standard errors.

        References
        ----------
        Barnard & Rubin (1999). Small-sample degrees of freedom with multiple imputation. Biometrika, 86, 948-955.
        Harel (2009). The estimation of R2 and adjusted R2 in incomplete data sets using multiple imputation. Journal of
        Applied Statistics, 36, 1109-1118.
        """
        if not callable(question):
            raise ModelError(
                f"what is pooled is a function of a fit, such as lambda fit: fit.effects(), not {question!r}"
            )
        frames = [question(fit) for fit in self.fits]
        if any(not isinstance(frame, pd.DataFrame) for frame in frames) or not any(
            str(name) == "se" or str(name).endswith("_se") for name in frames[0]
        ):
            raise ModelError("what is pooled are tables with a column se, such as fit.effects() gives")
        kinds = [scale] * len(frames[0]) if isinstance(scale, str) else list(scale)
        for kind in kinds:
            require_choice("scale", kind, SCALES)
        return self._frame(frames, kinds, ci_level)

    def _frame(
        self,
        frames: Sequence[pd.DataFrame],
        scales: Sequence[str],
        ci_level: float,
        limits: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        most = np.inf if self.design_df is None else self.design_df
        return pooled_frame(frames, scales, complete_df=most, ci_level=ci_level, limits=limits)

    @property
    def design_df(self) -> int | None:
        """Degrees of freedom of a design with which one data set has standard errors; see `Fit.design_df`."""
        found = [fit.design_df for fit in self.fits if fit.design_df is not None]
        return min(found, default=None)

    def estimates(
        self,
        *,
        standardized: bool = False,
        level: Level | None = None,
        ci_level: float = 0.95,
        reference: Reference = "normal",
    ) -> pd.DataFrame:
        """All rows of the parameter table, defined parameters last.

        Parameters
        ----------
        standardized : bool
            Add means of std_lv, std_all and std_nox; standard errors of these are those of `standardized`.
        level : {1, 2, "within", "between"}, optional
            Rows of this level only.
        ci_level : float
            Coverage of the intervals.
        reference : {"normal", "t"}
            Distribution of one data set without missing values. With "t" its degrees of freedom are `Fit.reference_df`.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est, se, t, df, pvalue, ci_lower, ci_upper, riv (relative
            increase in variance because of missing values) and fmi (fraction of missing information). df are (m - 1)
            (1 + 1/riv)^2 (Rubin, 1987), with `reference="t"`, and of designs with primary sampling units, strata or
            replicate weights, those of Barnard and Rubin (1999), which are fewer than one data set has. fmi is
            (riv + 2 / (v + 3)) / (1 + riv), v Rubin's.
        """
        frames = [fit.estimates(standardized=standardized, reference=reference) for fit in self.fits]
        scales = ["identity"] * len(frames[0])
        options, values = self.fits[0].options, np.mean([frame["est"] for frame in frames], axis=0)
        of_rows = row_scales(self.table, values[: len(self.table.rows)], options.ci)
        frame = self._frame(frames, scales, ci_level, [*of_rows, *scales[len(of_rows) :]])
        return rows_at(frame, level, self.table)

    standardized = _asked(standardized, _correlations)
    rsquare = _asked(rsquare, "fisher_root")
    defined = _asked(defined)
    effects, contextual_effects = _asked(effects), _asked(contextual_effects)
    icc_table = _asked(icc_table, "fisher")
    reliability = _asked(reliability, "logit")
    variance_partition = _asked(variance_partition, "fisher_root")
    simple_slopes = _asked(simple_slopes)

    def fit_measures(self, names: str | Sequence[str] | None = None) -> pd.Series:
        """Means of the fit measures of the imputations, as Mplus gives them.

        They are means of what the fits say, no measures of a pooled test; that is `chisq_test`. There are no p-values
        and no intervals among them, whose means mean nothing.

        Parameters
        ----------
        names : str or sequence of str, optional
            Some of the measures; default: all.

        Returns
        -------
        Series

        Raises
        ------
        ModelError
            If there is no such measure.
        """
        frame = pd.DataFrame([fit.fit_measures() for fit in self.fits])
        frame = frame[[name for name in map(str, frame) if "pvalue" not in name and "_ci_" not in name]]
        found = frame.mean().where(frame.notna().all())
        return found if names is None else chosen_measures(found, names)

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
        if not texts:
            raise ModelError('there are no hypotheses: write them as in "a == b"')
        functions = compile_expressions(self.table, texts)
        theta = self._theta.mean(axis=0)
        slope = functions.jacobian(theta)
        within, between = (slope @ matrix @ slope.T for matrix in (self.within, self.between))
        size = column_lengths(np.sqrt(np.abs(within.diagonal()))[None, :])
        if not np.isfinite(within).all() or np.linalg.matrix_rank(within / np.outer(size, size)) < len(texts):
            raise ModelError(
                "these hypotheses are not independent of each other, or about what has no standard error"
            )
        return pooled_wald(functions.values(theta), within, between, self.m)

    @property
    def _statistics(self) -> list[float]:
        """Chi-squares of the imputations, the scaled ones where the fits have them."""
        measures = [fit.fit_measures() for fit in self.fits]
        return [float(one.get("chisq_scaled", one.get("chisq", np.nan))) for one in measures]

    def chisq_test(self, method: Literal["D2", "D4"] = "D4") -> PooledTest:
        """Test the model against the saturated one.

        Parameters
        ----------
        method : {"D4", "D2"}
            "D4" fits the imputations once more, stacked; "D2" needs the chi-squares only, and is a rough one. It is the
            only one with weights, primary sampling units or strata. "D2" takes the scaled chi-squares of fits that have
            such.

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
        if method == "D2":
            return pooled_statistics(self._statistics, df)
        chisq = [float(fit.fit_measures()["chisq"]) for fit in self.fits]
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

    # -- text ----------------------------------------------------------------------------------------------------

    @property
    def nclusters(self) -> float | None:
        """Clusters of one imputed data set; None for a single-level model without any."""
        counts = [fit.nclusters for fit in self.fits if fit.nclusters is not None]
        return float(np.mean(counts)) if counts else None

    @property
    def options(self) -> ResolvedSettings:
        """How the model was read, estimated and tested."""
        return self.fits[0].options

    @property
    def status(self) -> str:
        """The most serious of the problems of any imputation, or "ok"; see `Fit.status`."""
        return status_of([problem for fit in self.fits for problem in fit.problems])

    def summary(self, *, fit_measures: bool = False, standardized: bool = False, ci: bool = False) -> str:
        """Text in the layout of `Fit.summary`.

        Parameters
        ----------
        fit_measures : bool
            Add means of fit measures.
        standardized : bool
            Add means of standardized estimates.
        ci : bool
            Add confidence intervals.
        """
        return render_text(self._shown(fit_measures, standardized, ci))

    def to_html(self, *, fit_measures: bool = True, standardized: bool = False, ci: bool = False) -> str:
        """The summary as one HTML element; see `summary`."""
        return render_html(self._shown(fit_measures, standardized, ci))

    def _shown(self, full: bool, standardized: bool, ci: bool) -> SummaryInputs:
        frame = self.estimates(standardized=standardized).drop(columns="riv")
        frame["df"] = [f"{df:.0f}" if df < MANY else "many" for df in frame["df"]]
        how = (
            ("Estimator", self.options.estimator),
            ("Number of model parameters", self.npar),
            ("Number of imputations", self.m),
        )
        sample = sample_section(nobs=self.nobs, nclusters=self.nclusters, cluster=self.options.cluster)
        single = not self.table.multilevel
        return SummaryInputs(
            title=f"msem {__version__}: {self.m} fits, pooled by Rubin's rules",
            messages=self._messages,
            header=(Section("", how), sample),
            fit=self._test_sections(full),
            method=method_rows(self.options, single_level=single),
            levels=level_titles(self.options, self.table.nlevels),
            groups=dict(enumerate(self.table.group_labels, 1)),
            estimates=frame,
            hidden=hidden_rows(
                (*self.table.rows, *[_DEFINED] * (len(frame) - len(self.table.rows))),
                frame["est"].to_numpy(),
            ),
            ci=ci,
        )

    @property
    def _messages(self) -> tuple[str, ...]:
        """Problems of the fits, each with the imputations that have it."""
        found: dict[str, list[int]] = {}
        for k, fit in enumerate(self.fits, 1):
            for text in map(str, fit.problems):
                found.setdefault(text, []).append(k)
        return tuple(f"imputation {', '.join(map(str, who))}: {text}" for text, who in found.items())

    def _test_sections(self, full: bool) -> tuple[Section, ...]:
        measures = self.fit_measures()
        shown = [name for name in MEANS if full and np.isfinite(measures.get(name, np.nan))]
        means = tuple((MEANS[name], float(measures[name])) for name in shown)
        return (*self._pooled_test, Section("Means of Fit Measures", means))

    @property
    def _pooled_test(self) -> tuple[Section, ...]:
        statistics = self._statistics
        if not np.isfinite(statistics).all() or self.fits[0].df <= 0:
            return ()
        test = pooled_statistics(statistics, self.fits[0].df)
        rows = (
            ("F", test.statistic),
            ("Degrees of freedom", test.df),
            ("Degrees of freedom, denominator", test.df_denominator),
            ("P-value", test.pvalue),
        )
        return (Section("Model Test User Model, D2", rows),)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<msem.Pooled: {self.m} fits of {self.npar} parameters, status {self.status!r}>"

    def _repr_html_(self) -> str:
        return self.to_html()


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
