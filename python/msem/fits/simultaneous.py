"""`sem`, `cfa` and `growth`: from model text and a sample to a fit."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack, get_args

import pandas as pd

from msem.errors import (
    ConvergenceWarning,
    IdentificationWarning,
    ImproperSolutionWarning,
    SmallSampleWarning,
    UnsupportedError,
)
from msem.estimation.estimate import estimate
from msem.estimation.samples import Sample
from msem.fits.fit import Fit
from msem.fits.options import Estimator, Options, StandardErrors, require_choice, require_settings
from msem.fits.sources import Means, Prepared, Source, group_rows, prepare
from msem.inference.discrepancy import LevelDiscrepancy
from msem.inference.problems import Problem, find_problems, no_chi_square
from msem.inference.sampling import Information, Sampling, sampling_covariance
from msem.inference.smallsamples import few_clusters
from msem.inference.uls import fit_uls
from msem.language.hypotheses import with_constraints
from msem.moments.levelmoments import LevelMoments
from msem.table.defaults import Fun
from msem.table.groups import group_order
from msem.table.partable import ParameterTable, parameter_table

WARNINGS: dict[str, type[Warning]] = {
    "not_converged": ConvergenceWarning,
    "infeasible": ConvergenceWarning,
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
    constraints: str | None
    sample_cov: pd.DataFrame | Mapping[str, pd.DataFrame] | None
    sample_mean: Means | Mapping[str, Means] | None
    sample_nobs: float | Mapping[str, float] | None
    sample_cov_rescale: bool
    fixed_x: bool
    std_lv: bool
    orthogonal: bool
    meanstructure: bool | None
    estimator: Estimator
    information: Information | None
    se: StandardErrors
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
    constraints: str | None = None,
    sample_cov: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    sample_mean: Means | Mapping[str, Means] | None = None,
    sample_nobs: float | Mapping[str, float] | None = None,
    sample_cov_rescale: bool = True,
    fixed_x: bool = True,
    std_lv: bool = False,
    orthogonal: bool = False,
    meanstructure: bool | None = None,
    estimator: Estimator = "ML",
    information: Information | None = None,
    se: StandardErrors = "standard",
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
    constraints : str, optional
        Definitions (``:=``), equalities and inequalities beside those in the model text.
    sample_cov, sample_mean, sample_nobs
        Covariance matrix (named DataFrame), means and sample size of a single-level sample, instead of data; for
        several groups dicts of group label to each.
    sample_cov_rescale : bool, default True
        Multiply `sample_cov` by (n - 1) / n, as lavaan does: right for the usual unbiased matrix. Say False for a
        matrix that is maximum likelihood already, such as a saturated within or between matrix.
    fixed_x : bool, default True
        Take the moments of exogenous covariates from the sample and report the likelihood given them.
    std_lv : bool, default False
        Set the variances of latent variables to 1 instead of their first loadings.
    orthogonal : bool, default False
        Set the covariances of exogenous latent variables to 0.
    meanstructure : bool, optional
        Whether a single-level model has means; default: if there are several groups, the text has an intercept or
        `sample_mean` is given. Two-level models always have.
    estimator : {"ML", "ULS"}, default "ML"
        Maximum likelihood or, for single-level models, unweighted least squares. The latter has no likelihood; its
        standard errors and chi-square (Browne's residual-based statistic) are those for normal data, where lavaan's
        default takes the discrepancy for a likelihood; incremental and RMSEA-type measures are not defined.
    information : {"observed", "expected", "first_order"}, optional
        What standard errors come from; default "observed", and "expected" for single-level models, as in lavaan,
        and for `LevelMoments`, whose statistics are expectations. "first_order" (outer products of cluster scores)
        needs raw data.
    se : {"standard", "none"}
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
        fixed_x=fixed_x,
        std_lv=std_lv,
        orthogonal=orthogonal,
        meanstructure=meanstructure,
        estimator=estimator,
        information=information,
        se=se,
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
    grouping = group_rows(data, options.get("group"))
    source = Source(
        data,
        options.get("cluster"),
        options.get("sample_cov"),
        options.get("sample_mean"),
        options.get("sample_nobs"),
        options.get("sample_cov_rescale", True),
        grouping,
    )
    table = parameter_table(
        syntax,
        fun=fun,
        fixed_x=options.get("fixed_x", True),
        std_lv=options.get("std_lv", False),
        orthogonal=options.get("orthogonal", False),
        meanstructure=wants_means(options),
        groups=None if source.labels is None else group_order(syntax, source.labels),
        group_equal=options.get("group_equal", ()),
        group_partial=options.get("group_partial", ()),
    )
    information = options.get("information") or default_information(table, data)
    require_choice("estimator", options.get("estimator", "ML"), get_args(Estimator))
    if options.get("estimator") == "ULS" and table.constraints:
        raise UnsupportedError(
            f"'{table.constraints[0].text}': constraints other than bounds need estimator=\"ML\""
        )
    if options.get("estimator") == "ULS" and table.nlevels == 2:
        raise UnsupportedError(
            'estimator="ULS" is for single-level models; for the levels of a two-level model use '
            'msem.segregated(model, data, method="uls")'
        )
    if options.get("estimator") == "ULS" and table.ngroups > 1:
        raise UnsupportedError('estimator="ULS" is for one group; fit each group on its own')
    require_choice("information", information, get_args(Information))
    require_choice("se", options.get("se", "standard"), get_args(StandardErrors))
    prepared = prepare(table, source)
    no_group = 0 if grouping is None else grouping.missing
    return fit_table(table, prepared, information, options, no_group)


def require_known(fun: Fun, options: Mapping[str, object]) -> None:
    """Refuse options that are misspelt, or that are lavaan's but not ours."""
    unknown = [name for name in options if name not in FitOptions.__annotations__]
    if unknown:
        known = ", ".join(FitOptions.__annotations__)
        raise TypeError(f"{fun}() has no option {unknown[0]!r}; it has: {known}")


def wants_means(options: FitOptions) -> bool | None:
    """Mean structure as asked for; means that are given are fitted, as in lavaan; None: as the text says."""
    asked = options.get("meanstructure")
    return True if asked is None and options.get("sample_mean") is not None else asked


def default_information(table: ParameterTable, data: Any) -> Information:
    """Observed for two-level data, expected for one level, as in lavaan, and for moments, which have no other."""
    groups = data.values() if isinstance(data, Mapping) else (data,)
    implied = any(isinstance(one, LevelMoments) for one in groups)
    return "observed" if table.nlevels == 2 and not implied else "expected"


def fit_table(
    table: ParameterTable,
    prepared: Sequence[Prepared],
    information: Information,
    options: FitOptions,
    dropped_no_group: int = 0,
) -> Fit:
    """Fit a parameter table to a prepared sample, given for each group."""
    sample = Sample(tuple(group.sample() for group in prepared))
    most, tolerance = options.get("max_iterations", 500), options.get("tolerance", 1e-12)
    estimator, se = options.get("estimator", "ML"), options.get("se", "standard")
    sampling: Sampling | None = None
    discrepancy: LevelDiscrepancy | None = None
    if estimator == "ULS":
        found, discrepancy, sampling = fit_uls(table, sample, max_iterations=most, tolerance=tolerance)
    else:
        found = estimate(table, sample, max_iterations=most, tolerance=tolerance)
    if discrepancy is None:
        # without standard errors the expected information still tells what is not identified
        kind: Information = "expected" if se == "none" else information
        clusters = sample.clusters if kind == "first_order" else None
        sampling = sampling_covariance(found.objective, found.theta, kind, found.tangent, clusters)
    problems = find_problems(found.objective, found.optimum, sampling)
    if not sample.converged:
        problems = (*problems, no_chi_square())
    problems = (*problems, *few_clusters(table, sample.statistics))
    warn(problems)
    used = Options(
        estimator=estimator,
        information=information,
        se=se,
        cluster=options.get("cluster") or "",
        group=options.get("group") or "",
        given_as=prepared[0].given_as,
        dropped_no_group=dropped_no_group,
        **dropped_rows(prepared),
    )
    return Fit(found, sample, None if se == "none" else sampling, problems, used, discrepancy)


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
