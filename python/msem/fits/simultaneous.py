"""`sem`, `cfa` and `growth`: from model text and a sample to a fit."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import pandas as pd

from msem.errors import (
    ConvergenceWarning,
    DataError,
    IdentificationWarning,
    ImproperSolutionWarning,
    SmallSampleWarning,
    UnsupportedError,
)
from msem.estimation.estimate import estimate
from msem.estimation.samples import Sample
from msem.fits.choices import Choices, choose, missing_choice
from msem.fits.fit import Fit
from msem.fits.options import Options, require_settings
from msem.fits.resampled import bootstrap_errors
from msem.fits.sources import (
    Means,
    Prepared,
    Source,
    group_rows,
    prepare,
    require_rows_for_holes,
)
from msem.inference.discrepancy import LevelDiscrepancy
from msem.inference.problems import Problem, find_problems, no_chi_square, require_feasible
from msem.inference.sampling import Information, Sampling, sampling_covariance
from msem.inference.smallsamples import few_clusters
from msem.inference.uls import fit_uls
from msem.language.hypotheses import with_constraints
from msem.moments.levelmoments import LevelMoments
from msem.resampling.bootstrap import Bootstrap
from msem.table.defaults import Fun
from msem.table.groups import group_order
from msem.table.partable import ParameterTable, parameter_table

WARNINGS: dict[str, type[Warning]] = {
    "not_converged": ConvergenceWarning,
    "saddle_point": ConvergenceWarning,
    "no_chi_square": ConvergenceWarning,
    "unidentified": IdentificationWarning,
    "improper": ImproperSolutionWarning,
    "boundary": ImproperSolutionWarning,
    "few_clusters": SmallSampleWarning,
}


class FitOptions(TypedDict, total=False):
    """Keyword options of `sem`, `cfa` and `growth`; see `sem`."""

    cluster: str | None
    group: str | None
    group_equal: Sequence[str]
    group_partial: Sequence[str]
    constraints: str | Sequence[str] | None
    sample_cov: pd.DataFrame | Mapping[str, pd.DataFrame] | None
    sample_mean: Means | Mapping[str, Means] | None
    sample_nobs: float | Mapping[str, float] | None
    sample_cov_rescale: bool
    missing: str
    auxiliary: Sequence[str]
    fixed_x: bool
    std_lv: bool
    orthogonal: bool
    meanstructure: bool | None
    estimator: str
    information: str | None
    se: str | None
    test: str | Sequence[str] | None
    bootstrap: int | None
    seed: int | None
    max_iterations: int
    tolerance: float


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
    table = parameter_table(
        syntax,
        fun=fun,
        fixed_x=options.get("fixed_x", True) and missing != "fiml_x",
        std_lv=options.get("std_lv", False),
        orthogonal=options.get("orthogonal", False),
        meanstructure=wants_means(options),
        groups=None if source.labels is None else group_order(syntax, source.labels),
        group_equal=options.get("group_equal", ()),
        group_partial=options.get("group_partial", ()),
    )
    choices = choose(
        options.get("estimator", "ML"),
        options.get("se"),
        options.get("information"),
        options.get("test"),
        observed=(table.nlevels == 2 or source.incomplete) and not implied_statistics(data),
        design_based=table.nlevels == 1 and options.get("cluster") is not None,
    )
    require_least_squares(choices, table)
    prepared = prepare(table, source)
    no_group = 0 if grouping is None else grouping.missing
    return fit_table(table, prepared, choices, options, no_group)


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


def require_least_squares(choices: Choices, table: ParameterTable) -> None:
    """Refuse least squares for what it is not made for."""
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


def fit_table(
    table: ParameterTable,
    prepared: Sequence[Prepared],
    choices: Choices,
    options: FitOptions,
    dropped_no_group: int = 0,
) -> Fit:
    """Fit a parameter table to a prepared sample, given for each group."""
    if choices.tests != ("standard",) or choices.se == "robust":
        require_raw(prepared, choices)
    sample = Sample(tuple(group.sample() for group in prepared))
    most, tolerance = options.get("max_iterations", 500), options.get("tolerance", 1e-12)
    sampling: Sampling | None = None
    discrepancy: LevelDiscrepancy | None = None
    if choices.estimator == "ULS":
        found, discrepancy, sampling = fit_uls(table, sample, max_iterations=most, tolerance=tolerance)
    else:
        found = estimate(table, sample, max_iterations=most, tolerance=tolerance)
        require_feasible(found.objective, found.optimum)
    if discrepancy is None:
        # without standard errors the expected information still tells what is not identified
        robust = choices.se == "robust"
        kind: Information = "expected" if choices.se == "none" else choices.information
        clusters = sample.clusters if robust or kind == "first_order" else None
        sampling = sampling_covariance(
            found.objective, found.theta, kind, found.tangent, clusters, robust=robust
        )
    problems = find_problems(found.objective, found.optimum, sampling)
    replicates: Bootstrap | None = None
    if choices.se == "bootstrap" and sampling is not None:
        replicates, sampling = bootstrap_errors(
            found, sample, sampling, options.get("bootstrap"), options.get("seed")
        )
    if not sample.converged:
        problems = (*problems, no_chi_square(sample.unidentified))
    problems = (*problems, *few_clusters(table, sample.statistics))
    warn(problems)
    used = Options(
        estimator=choices.estimator,
        information=choices.information,
        se=choices.se,
        tests=choices.tests,
        cluster=options.get("cluster") or "",
        group=options.get("group") or "",
        given_as=prepared[0].given_as,
        missing=missing_choice(options.get("missing", "listwise")),
        dropped_no_group=dropped_no_group,
        **dropped_rows(prepared),
    )
    return Fit(
        found, sample, None if choices.se == "none" else sampling, problems, used, discrepancy, replicates
    )


def require_raw(prepared: Sequence[Prepared], choices: Choices) -> None:
    """Refuse robust inference without rows."""
    if any(group.data is None for group in prepared):
        what = "robust standard errors" if choices.se == "robust" else "scaled tests"
        raise DataError(
            f"{what} need raw data: moments and statistics do not tell one cluster from another. Use "
            'estimator="ML", se="standard" and test="standard", or msem.segregated(..., gamma="robust") with moments '
            "that msem.saturated made from raw data"
        )


class Dropped(TypedDict):
    """Rows left out; see `Options`."""

    dropped_rows: int
    dropped_no_cluster: int
    dropped: Mapping[str, int]


def dropped_rows(prepared: Sequence[Prepared]) -> Dropped:
    """What was left out of the data of all groups."""
    rows = [group.data for group in prepared if group.data is not None]
    missing = Counter[str]()
    for data in rows:
        missing.update(data.dropped)
    return Dropped(
        dropped_rows=sum(data.dropped_rows for data in rows),
        dropped_no_cluster=sum(data.dropped_no_cluster for data in rows),
        dropped=dict(missing),
    )


def warn(problems: Iterable[Problem], stacklevel: int = 5) -> None:
    """Warn of every problem once, at the line of the user that many calls up."""
    for problem in problems:
        warnings.warn(str(problem), WARNINGS[problem.name], stacklevel=stacklevel)
