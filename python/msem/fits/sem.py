"""`sem`, `cfa` and `growth`: from model text and a sample to a fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import pandas as pd

from msem.data.clusters import ClusterStatistics
from msem.data.moments import LevelMoments
from msem.data.reading import Means, Source, group_rows, prepare, require_rows_for_holes
from msem.errors import UnsupportedError
from msem.fits.auxiliary import add_auxiliary
from msem.fits.fit import Fit
from msem.fits.fitting import fit_table
from msem.language.hypotheses import with_constraints
from msem.language.syntax import ModelSyntax
from msem.model.defaults import Fun
from msem.model.groups import group_order
from msem.model.partable import ParameterTable, parameter_table
from msem.settings import ResolvedSettings, Settings

P = ParamSpec("P")
R = TypeVar("R")

ARGUMENTS = ("model", "data", "unknown")  # of `sem`, those that are no options


def with_signature(other: Callable[P, R]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Show the signature of another function, for help and completion, where all options are passed on."""

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        vars(function)["__signature__"] = inspect.signature(other)
        return function

    return decorate


def sem(
    model: str,
    data: Any = None,
    *,
    cluster: str | None = None,
    group: str | None = None,
    group_equal: Sequence[str] = (),
    group_partial: Sequence[str] = (),
    constraints: str | Sequence[str] | None = None,
    sample_cov: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    sample_mean: Means | Mapping[str, Means] | None = None,
    sample_nobs: float | Mapping[str, float] | None = None,
    sample_cov_rescale: bool = True,
    missing: str = "listwise",
    auxiliary: Sequence[str] = (),
    fixed_x: bool = True,
    std_lv: bool = False,
    orthogonal: bool = False,
    meanstructure: bool | None = None,
    estimator: str = "ML",
    information: str | None = None,
    se: str | None = None,
    test: str | Sequence[str] | None = None,
    bootstrap: int | None = None,
    seed: int | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
    **unknown: object,
) -> Fit:
    """Fit a structural equation model by maximum likelihood.

    Parameters
    ----------
    model : str
        Model in lavaan's language, with ``level: 1`` and ``level: 2`` blocks for a two-level model.
    data : data frame, LevelMoments or SampleStatistics
        One row per unit (pandas, polars, pyarrow, anything narwhals reads, or a mapping of arrays), or level-specific
        moments, which give the joint fit of both levels from matrices alone. Moments of several groups: a dict of
        group label to moments.
    cluster : str
        Column with the cluster ids, of any hashable type. Rows without an id are left out, with a warning.
    group : str
        Column with the groups, of any type. One model text is the model of every group; ``group: label`` headers
        give each its own. Categories are groups in their order, other values are sorted, and headers go before
        both. Rows without a group are left out, with a warning.
    group_equal : sequence of str
        What is equal over groups, at each level: "loadings", "intercepts", "means", "regressions", "residuals",
        "residual_covariances", "lv_variances", "lv_covariances". Equal intercepts free the latent means of all
        groups but the first.
    group_partial : sequence of str
        Exceptions, such as "f=~y2" or "y2~1.l2".
    constraints : str or sequence of str, optional
        Definitions (``:=``), equalities and inequalities beside those in the model text.
    sample_cov, sample_mean, sample_nobs
        Covariance matrix (named DataFrame), means and sample size of a single-level sample, instead of data; for
        several groups dicts of group label to each.
    sample_cov_rescale : bool, default True
        Multiply `sample_cov` by (n - 1) / n, as lavaan does: right for the usual unbiased matrix. Say False for a
        matrix that is maximum likelihood already, such as a saturated within or between matrix.
    missing : {"listwise", "fiml", "fiml.x"}, default "listwise"
        "fiml" (also "ml" and "direct"): full-information maximum likelihood, in which every value that is observed has
        its part, units without any and clusters without any excepted; values may be missing at random. Rows without a
        value of a fixed covariate are left out, and so are clusters without one. "fiml.x" (also "ml.x") keeps them by
        modelling the covariates: the same as "fiml" with ``fixed_x=False``.
    auxiliary : sequence of str, optional
        Variables that are no part of the model but tell about missing values. At every level at which they vary they
        are correlated with each other and with all that the model leaves unexplained (saturated correlates; Graham,
        2003), also in the baseline model. Needs ``missing="fiml"``.
    fixed_x : bool, default True
        Take the moments of exogenous covariates from the sample and report the likelihood given them.
    std_lv : bool, default False
        Set the variances of latent variables to 1 instead of their first loadings.
    orthogonal : bool, default False
        Set the covariances of exogenous latent variables to 0.
    meanstructure : bool, optional
        Whether a single-level model has means; default: if there are several groups, the text has an intercept or
        `sample_mean` is given. Two-level models always have.
    estimator : {"ML", "MLR", "MLF", "ULS"}, default "ML"
        Maximum likelihood; "MLR" with robust standard errors and the scaled test of Yuan and Bentler, "MLF" with
        first-order information. "ULS", for single-level models, is unweighted least squares. It has no likelihood; its
        standard errors and chi-square (Browne's residual-based statistic) are those for normal data, where lavaan's
        default takes the discrepancy for a likelihood; incremental and RMSEA-type measures are not defined.
    information : {"observed", "expected", "first_order"}, optional
        What standard errors come from, and the bread of robust ones; default "observed", and "expected" for
        single-level models without robust errors, as in lavaan, and for `LevelMoments`, whose statistics are
        expectations. "first_order" (outer products of cluster scores) needs raw data.
    se : {"standard", "robust", "bootstrap", "none"}, optional
        "robust", also called "sandwich" and "robust.huber.white", takes clusters as independent but not as normal
        (rows, in a single-level model without clusters), and needs raw data. Default with estimator "MLR" and for
        single-level models with `cluster`. "bootstrap" takes the spread of refits to resampled clusters (rows), which
        are kept in `Fit.bootstrapped`.
    test : {"standard", "yuan.bentler", "yuan.bentler.mplus"} or a sequence of them, optional
        The likelihood-ratio test, which is always reported, and scaled ones; dots may be underscores. Default
        "yuan.bentler.mplus" with estimator "MLR" and for single-level models with `cluster`.
    bootstrap : int, optional
        Replicates for ``se="bootstrap"``; default 1000.
    seed : int, optional
        For ``se="bootstrap"``; see `Fit.bootstrap`.
    max_iterations : int, default 500
    tolerance : float, default 1e-12
        Of the optimiser, on the decrement g' I^-1 g: twice the gain in log-likelihood that is still expected.

    Returns
    -------
    Fit

    Raises
    ------
    ModelSyntaxError
        If the text cannot be read; with line and column.
    ModelError
        If it cannot be a model of these data; `UnsupportedError` if it asks for something this version lacks.
    DataError
        If the sample cannot be used.

    Warns
    -----
    ConvergenceWarning, IdentificationWarning, ImproperSolutionWarning
        If `Fit.status` is not "ok".
    SmallSampleWarning
        If there are fewer clusters than between-level parameters.
    """
    options = {**locals(), **unknown}
    settings = Settings.read({name: options[name] for name in options if name not in ARGUMENTS}, "sem")
    return _fit("sem", model, data, settings)


@with_signature(sem)
def cfa(model: str, data: Any = None, **options: Any) -> Fit:
    """Fit a confirmatory factor analysis; the same as `sem` with the same options."""
    return _fit("cfa", model, data, Settings.read(options, "cfa"))


@with_signature(sem)
def growth(model: str, data: Any = None, **options: Any) -> Fit:
    """Fit a growth curve model: as `sem`, but latent means are free and intercepts of indicators are 0.

    At two levels this concerns the between level; the within means of variables at both levels are 0 by definition.
    """
    return _fit("growth", model, data, Settings.read(options, "growth"))


def _fit(fun: Fun, model: str, data: Any, settings: Settings) -> Fit:
    syntax = with_constraints(model, settings.constraints)
    grouping = group_rows(data, settings.group)
    source = Source(
        data,
        settings.cluster,
        settings.sample_cov,
        settings.sample_mean,
        settings.sample_nobs,
        settings.sample_cov_rescale,
        grouping,
        settings.incomplete,
    )
    require_rows_for_holes(source)
    groups = None if source.labels is None else group_order(syntax, source.labels)
    settings = with_cluster(settings, data)
    table = table_of(syntax, fun, settings, groups)
    resolved = resolve(settings, table, data)
    require_least_squares(resolved, table)
    table = add_auxiliary(table, source, settings.auxiliary)
    prepared = prepare(table, source)
    return fit_table(table, prepared, resolved, 0 if grouping is None else grouping.missing)


def table_of(
    syntax: ModelSyntax, fun: Fun, settings: Settings, groups: Sequence[str] | None
) -> ParameterTable:
    """The parameter table that the settings ask for, without auxiliary variables."""
    return parameter_table(
        syntax,
        fun=fun,
        fixed_x=settings.fixed_covariates,
        std_lv=settings.std_lv,
        orthogonal=settings.orthogonal,
        meanstructure=settings.means,
        groups=groups,
        group_equal=settings.group_equal,
        group_partial=settings.group_partial,
    )


def resolve(settings: Settings, table: ParameterTable, data: Any = None) -> ResolvedSettings:
    """Settings of the fit of a model to some data, or to data with rows."""
    return settings.resolved(
        nlevels=table.nlevels,
        meanstructure=table.meanstructure,
        expectations=implied_statistics(data),
    )


def implied_statistics(data: Any) -> bool:
    """Whether statistics are expectations under moments, which have no observed information."""
    groups = data.values() if isinstance(data, Mapping) else (data,)
    return any(isinstance(one, LevelMoments) for one in groups)


def with_cluster(settings: Settings, data: Any) -> Settings:
    """The settings with the cluster column of statistics of clusters, which counts as if it had been named."""
    groups = list(data.values()) if isinstance(data, Mapping) else [data]
    names = [one.cluster for one in groups if isinstance(one, ClusterStatistics)]
    return replace(settings, cluster=names[0]) if names else settings


def require_least_squares(settings: Settings, table: ParameterTable) -> None:
    """Refuse least squares for what it is not made for."""
    if settings.estimator == "ULS" and settings.incomplete:
        raise UnsupportedError('missing="fiml" needs a likelihood: use estimator="ML" or "MLR"')
    if settings.estimator == "ULS" and table.constraints:
        raise UnsupportedError(
            f"'{table.constraints[0].text}': constraints other than bounds need estimator=\"ML\""
        )
    if settings.estimator == "ULS" and table.nlevels == 2:
        raise UnsupportedError(
            'estimator="ULS" is for single-level models; for the levels of a two-level model use '
            'msem.segregated(model, data, method="uls")'
        )
    if settings.estimator == "ULS" and table.ngroups > 1:
        raise UnsupportedError('estimator="ULS" is for one group; fit each group on its own')
