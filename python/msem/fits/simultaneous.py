"""`sem`, `cfa` and `growth`: from model text and a sample to a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import pandas as pd

from msem.data.clusters import ClusterStatistics
from msem.data.moments import LevelMoments
from msem.data.reading import Means, Source, group_rows, prepare, require_rows_for_holes
from msem.errors import UnsupportedError
from msem.fits.auxiliary import add_auxiliary
from msem.fits.choices import Choices, choose, missing_choice
from msem.fits.fit import Fit
from msem.fits.fitting import FitOptions, fit_table
from msem.fits.options import require_settings
from msem.language.hypotheses import with_constraints
from msem.language.syntax import ModelSyntax
from msem.model.defaults import Fun
from msem.model.groups import group_order
from msem.model.partable import ParameterTable, parameter_table


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
    require_known("sem", unknown)
    options = FitOptions(
        cluster=cluster,
        group=group,
        group_equal=group_equal,
        group_partial=group_partial,
        constraints=constraints,
        sample_cov=sample_cov,
        sample_mean=sample_mean,
        sample_nobs=sample_nobs,
        sample_cov_rescale=sample_cov_rescale,
        missing=missing,
        auxiliary=auxiliary,
        fixed_x=fixed_x,
        std_lv=std_lv,
        orthogonal=orthogonal,
        meanstructure=meanstructure,
        estimator=estimator,
        information=information,
        se=se,
        test=test,
        bootstrap=bootstrap,
        seed=seed,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    return _fit("sem", model, data, options)


def cfa(model: str, data: Any = None, **options: Unpack[FitOptions]) -> Fit:
    """Fit a confirmatory factor analysis; the same as `sem` with the same options."""
    return _fit("cfa", model, data, options)


def growth(model: str, data: Any = None, **options: Unpack[FitOptions]) -> Fit:
    """Fit a growth curve model: as `sem`, but latent means are free and intercepts of indicators are 0.

    At two levels this concerns the between level; the within means of variables at both levels are 0 by definition.
    """
    return _fit("growth", model, data, options)


def _fit(fun: Fun, model: str, data: Any, options: FitOptions) -> Fit:
    require_known(fun, options)
    require_settings(options)
    syntax = with_constraints(model, options.get("constraints"))
    missing = missing_choice(options.get("missing", "listwise"))
    grouping = group_rows(data, options.get("group"))
    source = Source(
        data,
        options.get("cluster"),
        options.get("sample_cov"),
        options.get("sample_mean"),
        options.get("sample_nobs"),
        options.get("sample_cov_rescale", True),
        grouping,
        missing != "listwise",
    )
    require_rows_for_holes(source)
    groups = None if source.labels is None else group_order(syntax, source.labels)
    options = with_cluster(options, data)
    table = table_of(syntax, fun, options, groups)
    choices = choices_of(table, options, data)
    require_least_squares(choices, table, incomplete=source.incomplete)
    table = add_auxiliary(table, source, options.get("auxiliary", ()))
    prepared = prepare(table, source)
    no_group = 0 if grouping is None else grouping.missing
    return fit_table(table, prepared, choices, options, no_group)


def table_of(
    syntax: ModelSyntax, fun: Fun, options: FitOptions, groups: Sequence[str] | None
) -> ParameterTable:
    """The parameter table that the options ask for, without auxiliary variables."""
    modelled = missing_choice(options.get("missing", "listwise")) == "fiml_x"
    return parameter_table(
        syntax,
        fun=fun,
        fixed_x=options.get("fixed_x", True) and not modelled,
        std_lv=options.get("std_lv", False),
        orthogonal=options.get("orthogonal", False),
        meanstructure=wants_means(options),
        groups=groups,
        group_equal=options.get("group_equal", ()),
        group_partial=options.get("group_partial", ()),
    )


def choices_of(table: ParameterTable, options: FitOptions, data: Any = None) -> Choices:
    """Estimator, standard errors and tests that the options ask for, for some data or for data with rows."""
    holes = missing_choice(options.get("missing", "listwise")) != "listwise"
    return choose(
        options.get("estimator", "ML"),
        options.get("se"),
        options.get("information"),
        options.get("test"),
        observed=(table.nlevels == 2 or holes) and not implied_statistics(data),
        design_based=table.nlevels == 1 and options.get("cluster") is not None,
    )


def require_known(fun: Fun, options: Mapping[str, object]) -> None:
    """Refuse options that are misspelt, or that are lavaan's but not ours."""
    unknown = [name for name in options if name not in FitOptions.__annotations__]
    if unknown:
        known = ", ".join(FitOptions.__annotations__)
        raise TypeError(f"{fun}() has no option {unknown[0]!r}; it has: {known}")


def wants_means(options: FitOptions) -> bool | None:
    """Mean structure as asked for; None: as the text says.

    Means that are given are fitted, and so are those of clustered data, as in lavaan.
    """
    asked = options.get("meanstructure")
    given = options.get("sample_mean") is not None or options.get("cluster") is not None
    if missing_choice(options.get("missing", "listwise")) != "listwise":
        if asked is False:
            raise UnsupportedError('missing="fiml" needs means: leave out meanstructure=False')
        return True
    return True if asked is None and given else asked


def implied_statistics(data: Any) -> bool:
    """Whether statistics are expectations under moments, which have no observed information."""
    groups = data.values() if isinstance(data, Mapping) else (data,)
    return any(isinstance(one, LevelMoments) for one in groups)


def with_cluster(options: FitOptions, data: Any) -> FitOptions:
    """The options with the cluster column of statistics of clusters, which counts as if it had been named."""
    groups = list(data.values()) if isinstance(data, Mapping) else [data]
    names = [one.cluster for one in groups if isinstance(one, ClusterStatistics)]
    return {**options, "cluster": names[0]} if names else options


def require_least_squares(choices: Choices, table: ParameterTable, *, incomplete: bool) -> None:
    """Refuse least squares for what it is not made for."""
    if choices.estimator == "ULS" and incomplete:
        raise UnsupportedError('missing="fiml" needs a likelihood: use estimator="ML" or "MLR"')
    if choices.estimator == "ULS" and table.constraints:
        raise UnsupportedError(
            f"'{table.constraints[0].text}': constraints other than bounds need estimator=\"ML\""
        )
    if choices.estimator == "ULS" and table.nlevels == 2:
        raise UnsupportedError(
            'estimator="ULS" is for single-level models; for the levels of a two-level model use '
            'msem.segregated(model, data, method="uls")'
        )
    if choices.estimator == "ULS" and table.ngroups > 1:
        raise UnsupportedError('estimator="ULS" is for one group; fit each group on its own')
