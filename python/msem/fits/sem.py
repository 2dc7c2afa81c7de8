"""`sem`, `cfa` and `growth`: from the text of a model and a sample to a fit, with what is to be said about it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from msem.data.frames import Holes
from msem.data.levels import varying_within
from msem.data.reading import (
    Means,
    given_labels,
    group_rows,
    implied_statistics,
    read_sample,
    require_rows_for_holes,
    with_cluster,
)
from msem.data.sample import Sample
from msem.entry import entry
from msem.errors import (
    ConvergenceWarning,
    DataError,
    IdentificationWarning,
    ImproperSolutionWarning,
    ModelError,
    MsemWarning,
    SmallSampleWarning,
    UnsupportedError,
    warn,
)
from msem.estimation.deletion import ENOUGH, effective_clusters, one_step_jackknife
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.least_squares import LeastSquaresSolution, fit_least_squares, ordered_problems
from msem.estimation.penalty import penalized
from msem.estimation.problems import (
    Problem,
    find_problems,
    no_chi_square,
    quadrature_problems,
    require_feasible,
    rotation_problems,
    saturated_boundary,
    separation_problems,
    unidentified_by_count,
)
from msem.estimation.sampling import Sampling, sampling_covariance
from msem.estimation.smallsamples import few_clusters
from msem.fits.categories import ordered_of, ordered_options, with_categories
from msem.fits.fit import Fit
from msem.fits.request import Request
from msem.language.syntax import ModelSyntax, with_constraints
from msem.model.blocks import group_order
from msem.model.derived import crosses_levels, saturated_npar, with_auxiliary
from msem.model.drafts import Fun
from msem.model.partable import ParameterTable, parameter_table, require_nested
from msem.resampling.bootstrap import Bootstrap, bootstrap_errors
from msem.resampling.reweighting import replicate_covariance
from msem.settings import DESIGN_BASED, Information, ResolvedSettings, Settings

WARNINGS: dict[str, type[MsemWarning]] = {
    "not_converged": ConvergenceWarning,
    "saddle_point": ConvergenceWarning,
    "no_chi_square": ConvergenceWarning,
    "unidentified": IdentificationWarning,
    "improper": ImproperSolutionWarning,
    "boundary": ImproperSolutionWarning,
    "few_clusters": SmallSampleWarning,
    "several_maxima": SmallSampleWarning,
    "coarse_quadrature": ConvergenceWarning,
}

P = ParamSpec("P")
R = TypeVar("R")

ARGUMENTS = ("model", "data", "unknown")  # of `sem`, those that are no options


def with_signature(other: Callable[P, R]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Show the signature of another function, for help and completion, where all options are passed on."""

    def decorate(function: Callable[..., R]) -> Callable[P, R]:
        vars(function)["__signature__"] = inspect.signature(other)
        return function

    return decorate


@entry
def sem(
    model: str,
    data: Any = None,
    *,
    cluster: str | Sequence[str] | None = None,
    group: str | None = None,
    group_equal: Sequence[str] = (),
    group_partial: Sequence[str] = (),
    constraints: str | Sequence[str] | None = None,
    sample_cov: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    sample_mean: Means | Mapping[str, Means] | None = None,
    sample_nobs: float | Mapping[str, float] | None = None,
    sample_cov_rescale: bool = True,
    missing: str = "listwise",
    weights: str | None = None,
    cluster_weights: str | Sequence[str | None] | None = None,
    weights_scale: str = "size",
    psu: str | None = None,
    strata: str | None = None,
    fpc: str | None = None,
    single_psu: str = "error",
    replicate_weights: Sequence[str] = (),
    replicate_scale: str | float | Sequence[float] | None = None,
    auxiliary: Sequence[str] = (),
    ordered: Sequence[str] | bool = (),
    parameterization: str | None = None,
    link: str = "probit",
    fixed_x: bool = True,
    std_lv: bool = False,
    orthogonal: bool = False,
    meanstructure: bool | None = None,
    penalty: str | None = None,
    rotation: str | None = None,
    rotation_args: Mapping[str, Any] | None = None,
    estimator: str | None = None,
    information: str | None = None,
    se: str | None = None,
    test: str | Sequence[str] | None = None,
    ci: str = "wald",
    bootstrap: int | None = None,
    seed: int | None = None,
    space: str = "auto",
    starts: int = 0,
    nodes: int = 0,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
    threads: int | None = None,
    **unknown: object,
) -> Fit:
    """Fit a structural equation model by maximum likelihood.

    Parameters
    ----------
    model : str
        Model in lavaan's language, with ``level: 1`` and ``level: 2`` blocks for a two-level model.
    data : data frame, LevelMoments, OrderedMoments or SampleStatistics
        One row per unit (pandas, polars, pyarrow, anything narwhals reads, or a mapping of arrays), or level-specific
        moments, which give the joint fit of both levels from matrices alone. Moments of several groups: a dict of
        group label to moments.
    cluster : str, or sequence of two
        Column with the cluster ids, of any hashable type. Rows without an id are left out, with a warning. Two columns
        for a model of three levels, the highest clusters first, ``["school", "class"]``; ids of classes may repeat in
        other schools (see `docs/three-levels.md`). ``"pupil * lecturer"`` for crossed classifications.
    group : str
        Column with the groups, of any type. One model text is the model of every group; ``group: label`` headers
        give each its own. Categories are groups in their order, other values are sorted, and headers go before
        both. Rows without a group are left out, with a warning.
    group_equal : sequence of str
        What is equal over groups, at each level: "loadings", "intercepts", "means", "regressions", "residuals",
        "residual_covariances", "lv_variances", "lv_covariances", "thresholds". Equal intercepts or thresholds free the
        latent means of all groups but the first.
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
    missing : {"listwise", "fiml", "fiml.x", "pairwise"}, default "listwise"
        "fiml" (also "ml" and "direct"): full-information maximum likelihood, in which every value that is observed has
        its part, units without any and clusters without any excepted; values may be missing at random. Rows without a
        value of a fixed covariate are left out, and so are clusters without one. "fiml.x" (also "ml.x") keeps them by
        modelling the covariates: the same as "fiml" with ``fixed_x=False``. "pairwise" (also "available.cases") is for
        models with ordered variables: each variable and each pair is estimated from all rows that have them.
    weights : str, optional
        Column with the sampling weights of units: at several levels those within their cluster (1 over the probability
        of the unit given its cluster). The likelihood is then the weighted pseudo-likelihood (Asparouhov, 2006;
        Rabe-Hesketh & Skrondal, 2006). Rows with weight 0 are left out. With weights, `psu`, `strata` or `fpc` standard
        errors are the sandwich and tests are scaled. See `docs/survey-weights.md`.
    cluster_weights : str or sequence of (str or None), optional
        Column with the sampling weights of clusters, the same in all rows of a cluster. For three levels one for each
        column of `cluster`, the highest first, ``["school_weight", "class_weight"]``, None where there are none; the
        weights of classes are those within their school. One name is that of the highest clusters.
    weights_scale : {"size", "effective", "none"}, default "size"
        What the weights of the units of a cluster add up to: its number of units, its effective number
        (sum w)^2 / sum w^2, or what they add up to as given; at three levels also those of the classes of a school. At
        one level the same over the whole sample. Estimates of models of several levels depend on it.
    psu : str, optional
        Column with the primary sampling units, where they are not the clusters: these are then what is independent. A
        single-level model without `cluster` takes rows together by them.
    strata : str, optional
        Column with the strata that primary sampling units were drawn in.
    fpc : str, optional
        Column with the sampling fraction of each stratum's primary sampling units, or their number in its population.
    single_psu : {"error", "centre", "certainty"}, default "error"
        What a stratum with one primary sampling unit adds to variances: its deviation from the mean of all, or nothing.
    replicate_weights : sequence of str, optional
        Columns with replicate weights, in place of `psu` and `strata`: standard errors then come from refits with each
        (``se="replicate"``), and tests are scaled by the spread of the scores over the replicates. At two levels they
        are weights of units and clusters together, and the weight of a cluster is multiplied by how much they change
        the sum over its units.
    replicate_scale : {"brr", "fay", "jackknife1", "jackknife2", "jackknife2_both"}, float or sequence of them
        How they were made, or the factors of the squared deviations: balanced repeated replication 1 / R, with Fay's
        factor 0.5 (PISA) 4 / R, jackknife (R - 1) / R, paired jackknife 1 or, with two replicates for each pair, 1 / 2.
    auxiliary : sequence of str, optional
        Variables that are no part of the model but tell about missing values. At every level at which they vary they
        are correlated with each other and with all that the model leaves unexplained (saturated correlates; Graham,
        2003), also in the baseline model. Needs ``missing="fiml"``.
    ordered : sequence of str or bool, optional
        Variables whose values are categories with an order, binary ones among them; True for all observed variables but
        those that only predict; ordered categorical columns of a pandas frame are without being named, unless it is
        False. They are continuous variables cut at thresholds (``y | t1 + t2``), and the model is fitted by "WLSMV",
        unless another estimator is asked for: another least squares, or full maximum likelihood, "ML" or "MLR". See
        `docs/ordered.md`.
    parameterization : {"delta", "theta"}, optional
        What is 1 of the variables that ordered ones are cut from: their variances given the covariates, the default at
        one level, or their residual variances, within clusters at two levels and by maximum likelihood. Under "delta"
        the text may have scaling factors, ``u1 ~*~ c(1, NA)*u1``.
    link : {"probit", "logit"}, default "probit"
        Distribution of the residuals of ordered variables by maximum likelihood: normal of variance 1, or logistic of
        variance pi^2 / 3.
    fixed_x : bool, default True
        Take the moments of exogenous covariates from the sample and report the likelihood given them.
    std_lv : bool, default False
        Set the variances of latent variables to 1 instead of their first loadings.
    orthogonal : bool, default False
        Set the covariances of exogenous latent variables to 0.
    meanstructure : bool, optional
        Whether a single-level model has means; default: if there are several groups, the text has an intercept or
        `sample_mean` is given. Two-level models always have.
    penalty : {"between"}, optional
        Maximise log L + log|S_b| / 2, S_b the residual covariances of the between level, on the scale of the
        indicators, so that markers do not matter (Chung et al., 2013, 2015). It keeps between variances off 0 and
        correlations off 1 with few clusters, and vanishes beside the likelihood as their number grows. There is no
        chi-square then. See `docs/penalty.md`.
    rotation : str, optional
        Of the loadings of exploratory blocks, ``efa("block")*f1 + efa("block")*f2 =~ ...``: "geomin" (default),
        "oblimin", "quartimin", "varimax", "quartimax", "crawford_ferguson", "target". See
        `docs/exploratory.md`.
    rotation_args : dict, optional
        "epsilon" (geomin), "gamma" (oblimin), "kappa" (Crawford-Ferguson), "target"; "orthogonal", "kaiser", "std_ov";
        "starts" and "seed" of the search for the lowest minimum.
    estimator : str, optional
        "ML", maximum likelihood, the default without ordered variables; "MLR" with robust standard errors and the
        scaled test of Yuan and Bentler, "MLM" with those of Satorra and Bentler (1994), which are for complete data
        (``se="robust", information="expected", test="yuan.bentler"``), "MLF" with first-order information. Least
        squares on saturated moments: "WLS", weighted by the inverse of their covariance matrix; "DWLS", by their
        variances, which with robust standard errors is "WLSM" (mean-scaled test), "WLSMV" (scaled and shifted) or
        "WLSMVS" (Satterthwaite); "ULS", unweighted, likewise "ULSM", "ULSMV" and "ULSMVS"; "GLS", weighted as if the
        variables were normal. "ULS" by itself has errors and a chi-square (Browne's residual-based statistic) that hold
        for normal data. See `docs/least-squares.md`.
    information : {"observed", "expected", "first_order"}, optional
        What standard errors come from, and the bread of robust ones; default "observed", and "expected" for
        single-level models without robust errors, as in lavaan, and for `LevelMoments`, whose statistics are
        expectations. "first_order" (outer products of cluster scores) needs raw data.
    se : {"standard", "robust", "jackknife1", "replicate", "bootstrap", "none"}, optional
        "robust", also called "sandwich" and "robust.huber.white", takes clusters as independent but not as normal
        (rows, in a single-level model without clusters), and needs raw data. Default with estimator "MLR" and for
        single-level models with `cluster`. "bootstrap" takes the spread of refits to resampled clusters (rows), which
        are kept in `Fit.bootstrapped`. "jackknife1": the one-step jackknife over clusters or primary sampling units,
        the default of two-level models with weights that leave fewer than 100 effective clusters.
    test : str or sequence of str, optional
        The likelihood-ratio test, "standard", which is always reported, and others; dots may be underscores. For
        variables that are not normal: "yuan.bentler", "yuan.bentler.mplus"; the latter is the default with estimator
        "MLR" and for single-level models with `cluster`. For least squares: "mean.scaled" (or "satorra.bentler"),
        "scaled.shifted", "mean.variance.adjusted" (or "mean.var.adjusted", "satterthwaite"). For few clusters:
        "yuan.tian.yanagihara" (or "yty"), "bartlett", "swain", and for both "hotelling". See `docs/few-clusters.md`.
    ci : {"wald", "transformed"}
        Confidence intervals that are symmetric about the estimates, or on the scales on which they hold in small
        samples: variances on the logarithmic one, correlations and standardized loadings by Fisher's z, shares of
        variance by the logit; those of defined parameters from Monte Carlo draws. See `docs/few-clusters.md`.
    bootstrap : int, optional
        Replicates for ``se="bootstrap"``; default 1000.
    seed : int, optional
        For ``se="bootstrap"``; see `Fit.bootstrap`.
    space : {"auto", "natural", "psd"}, default "auto"
        Where the maximum is looked for, of the model and of the saturated model alike. "natural": where the covariance
        matrices of whole clusters are positive definite, which allows negative variances and may have no maximum.
        "psd": where variances are not negative and the covariance matrices of residuals and latent variables at each
        level are positive semidefinite; there always is one. "auto": the natural maximum where both models have one
        and the covariance matrix of the latent variables is possible, else that in "psd" with status "boundary". See
        `docs/small-samples.md`.
    starts : int, default 0
        Random starts beside the usual ones. 0: eight, where few clusters, an improper solution or one at bounds make
        several maxima likely; none for crossed classifications, whose likelihood takes long.
    nodes : int, default 0
        Of adaptive quadrature, in each dimension: for the random slopes, where a covariate with one is latent or stands
        at both levels, and for what clusters have in common by maximum likelihood with ordered variables. 0: as many as
        are accurate by experience (15, 9 or 7 in one, two or three dimensions). The log-likelihood is evaluated with
        twice as many and one more, and the summary has the difference. 1000 at most, and fewer in several dimensions.
    max_iterations : int, default 500
    tolerance : float, default 1e-12
        Of the optimiser, on the decrement g' I^-1 g: twice the gain in log-likelihood that is still expected.
    threads : int, optional
        How many the fit, and whatever is asked of it, may use; default: one for each processor. Results do not depend
        on it.

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
    given = {**locals(), **unknown}  # before any other name is bound: the arguments as they came
    settings = Settings.read({name: given[name] for name in given if name not in ARGUMENTS})
    return _fit("sem", model, data, settings)


@with_signature(sem)
@entry
def cfa(model: str, data: Any = None, **options: Any) -> Fit:
    """Fit a confirmatory factor analysis.

    The defaults are those of `sem`.

    Parameters
    ----------
    model : str
        Model in lavaan's language.
    data : data frame, LevelMoments, OrderedMoments or SampleStatistics
        One row per unit, or moments; see `sem`.
    **options
        Those of `sem`.

    Returns
    -------
    Fit

    Raises
    ------
    ModelSyntaxError, ModelError, DataError
        See `sem`.
    """
    return _fit("cfa", model, data, Settings.read(options, "cfa"))


@with_signature(sem)
@entry
def growth(model: str, data: Any = None, **options: Any) -> Fit:
    """Fit a growth curve model: latent means are free, and intercepts of their indicators are 0.

    At two levels this concerns the between level; the within means of variables at both levels are 0 by definition.

    Parameters
    ----------
    model : str
        Model in lavaan's language.
    data : data frame, LevelMoments, OrderedMoments or SampleStatistics
        One row per unit, or moments; see `sem`.
    **options
        Those of `sem`.

    Returns
    -------
    Fit

    Raises
    ------
    ModelSyntaxError, ModelError, DataError
        See `sem`.
    """
    return _fit("growth", model, data, Settings.read(options, "growth"))


def fit_again(fit: Fit, model: str, settings: Settings) -> Fit:
    """Fit another model of the same variables, or one with other equalities, to the sample of a fit.

    What the sample knows already, its saturated moments above all, is not computed again.
    """
    request = fit.request
    assert request is not None
    return _fit(request.fun, model, request.data, settings, fit.sample)


def _fit(fun: Fun, model: str, data: Any, settings: Settings, sample: Sample | None = None) -> Fit:
    with settings.limit():
        syntax = with_constraints(model, settings.constraints)
        grouping = group_rows(data, settings.group)
        require_rows_for_holes(data, settings)
        labels = given_labels(data, settings, grouping)
        groups = None if labels is None else group_order(syntax, labels)
        request = Request(fun, model, data, settings, _fit)
        columns = ordered_of(syntax, data, settings)
        if columns.categories:
            settings = replace(settings.for_ordered(), ordered=tuple(columns.categories))
        else:
            settings = settings.for_continuous()
        data = columns.data
        given, settings = settings, with_cluster(settings, data)
        table = table_of(syntax, fun, settings, groups, columns.thresholds)
        require_exploratory(settings, table)
        require_penalty(settings, table)
        resolved = resolve(settings, table, data)
        require_least_squares(resolved, table)
        table = add_auxiliary(table, data, given)
        if sample is None:
            sample = with_categories(
                read_sample(data, table, given, grouping), table, columns.categories, given
            )
        fit = fit_table(table, sample, resolved)
        return replace(fit, request=request)


def table_of(
    syntax: ModelSyntax,
    fun: Fun,
    settings: Settings,
    groups: Sequence[str] | None,
    thresholds: Mapping[str, int] | None = None,
) -> ParameterTable:
    """The parameter table that the settings ask for, without auxiliary variables.

    `thresholds` are how many each ordered variable has; None where ordered variables cannot be.
    """
    if thresholds is None and settings.ordered:
        raise UnsupportedError("ordered variables are for fits to rows of raw data")
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
        rotation=settings.rotated,
        ordered=ordered_options(thresholds, settings),
        clusters=settings.cluster_columns,
        crossed=settings.crossed,
    )


def resolve(settings: Settings, table: ParameterTable, data: Any = None) -> ResolvedSettings:
    """Settings of the fit of a model to some data, or to data with rows."""
    return settings.resolved(
        nlevels=table.nlevels,
        meanstructure=table.meanstructure,
        expectations=implied_statistics(data),
    )


def require_exploratory(settings: Settings, table: ParameterTable) -> None:
    """Refuse a rotation where there is nothing to rotate, and targets that do not fit."""
    given = settings.rotation is not None or settings.rotation_args is not None
    if given and not table.exploratory:
        raise ModelError(
            'rotation= has no effect without exploratory blocks, efa("block")*f1 + efa("block")*f2 =~ ...: leave it out'
        )
    if table.rotation.method == "target":
        for block in table.exploratory:
            table.rotation.target_of(block)


def require_penalty(settings: Settings, table: ParameterTable) -> None:
    """Refuse a penalty where there is nothing that it is for."""
    if settings.penalty and not table.multilevel:
        raise ModelError(
            'penalty="between" is for models of two levels and more, and this one has one: leave it out'
        )
    if settings.penalty:
        require_nested(table, 'penalties on levels above the first (penalty="between")')
    if settings.penalty and (settings.weighting is not None or settings.ordered):
        raise UnsupportedError('penalty= is of a likelihood: it needs estimator="ML" or "MLR"')
    if settings.penalty and settings.surveyed:
        raise UnsupportedError("penalty= is not available with weights, primary sampling units and strata")
    if settings.penalty and table.slopes():
        raise UnsupportedError('penalty="between" is not available for models with random slopes')
    if settings.penalty and settings.space == "psd":
        raise ModelError(
            'penalty="between" keeps variances positive by itself: leave out one of penalty= and space="psd"'
        )


def require_least_squares(settings: Settings, table: ParameterTable) -> None:
    """Refuse least squares for what it is not made for."""
    if settings.weighting is None:
        return
    require_nested(table, f'fits with estimator="{settings.estimator}"')
    slopes = [slope.name for group in range(1, table.ngroups + 1) for slope in table.slopes(group)]
    if slopes:
        raise UnsupportedError(
            f"random slope {slopes[0]!r}: least squares needs saturated moments, which models with random slopes have "
            'none of; use estimator="ML" or "MLR"'
        )
    if settings.auxiliary:
        raise UnsupportedError('auxiliary variables need estimator="ML" or "MLR"')


def add_auxiliary(table: ParameterTable, data: Any, settings: Settings) -> ParameterTable:
    """Add auxiliary variables to a model: at both levels those that vary within clusters, at the between level others.

    Parameters
    ----------
    table : ParameterTable
    data : data frame
        With holes.
    settings : Settings
        Which say what variables are auxiliary.

    Raises
    ------
    DataError
        If a variable is in the model already or not in the data, or holes were not asked for.
    """
    names = settings.auxiliary
    if not names:
        return table
    if not settings.incomplete:
        raise DataError(
            'auxiliary variables tell about missing values, and rows with any are left out: add missing="fiml", or '
            "leave out auxiliary="
        )
    for group in range(1, table.ngroups + 1):
        for level in range(1, table.nlevels + 1):
            known = (*table.observed(level, group), *table.latent(level, group))
            for name in names:
                if name in known:
                    raise DataError(
                        f"{name!r} is a variable of the model and cannot be auxiliary too: leave it out"
                    )
    if not table.multilevel or settings.highest is None:
        return with_auxiliary(table, names)
    unit = varying_within(data, settings.highest, names, Holes())
    return with_auxiliary(table, unit, [name for name in names if name not in unit])


def fit_table(table: ParameterTable, sample: Sample, settings: ResolvedSettings) -> Fit:
    """Fit a parameter table to a sample, and warn of what is wrong with the solution.

    Raises
    ------
    DataError
        If robust inference is asked for and the sample has no single clusters.
    """
    if settings.by_cluster:
        require_raw(sample, settings)
    _require_tests(table, sample, settings)
    if settings.penalty:
        table = penalized(table, sample)
    # least squares takes the saturated moments for estimates with a covariance matrix: no bound may hold them
    sample = sample.in_space("natural" if settings.weighting is not None else settings.space)
    discrepancy: LeastSquaresSolution | None = None
    if settings.weighting is not None:
        solution, discrepancy, sampling = fit_least_squares(table, sample, settings.weighting, settings)
        require_feasible(solution.objective, solution.optimum)
    else:
        solution, sampling = _most_likely(table, sample, settings)
        if solution.optimum.border is not None:
            sample = sample.in_space("psd")
    if not np.isnan(sampling.vcov).all():
        sampling, settings = _by_design(solution, table, sample, sampling, settings, discrepancy)
    settings = replace(settings, se_open=False)
    df = saturated_npar(solution.table) - solution.nfree
    sampling = unidentified_by_count(solution.objective, solution.theta, sampling, df)
    problems = find_problems(solution.objective, solution.optimum, sampling)
    replicates: Bootstrap | None = None
    if settings.se == "bootstrap":
        replicates, sampling = bootstrap_errors(
            solution, sample, sampling, settings.bootstrap, settings.seed, discrepancy
        )
    if settings.penalty:
        pass  # of the likelihood itself there is no maximum to be tested
    elif not sample.converged and not table.slopes() and not _integrated(table, settings):
        problems = (*problems, no_chi_square(sample.unidentified, sample.shortage))
    elif settings.space == "auto" and sample.in_cone and discrepancy is None:
        problems = (*problems, saturated_boundary(solution.optimum))
    problems = (*problems, *rotation_problems(solution.rotated), *few_clusters(table, sample.statistics))
    problems = (*problems, *quadrature_problems(solution.quadrature))
    if _integrated(table, settings):
        separated = tuple(separation_problems(solution.objective, solution.theta, sampling))
        if separated:  # which is why the search has not converged, if it has not
            problems = (*separated, *(one for one in problems if one.name != "not_converged"))
    if discrepancy is not None:
        problems = (*ordered_problems(solution, discrepancy), *problems)
    warn_of(problems)
    return Fit(
        solution,
        sample,
        None if settings.se == "none" else sampling,
        problems,
        settings,
        discrepancy,
        replicates,
    )


def _integrated(table: ParameterTable, settings: ResolvedSettings) -> bool:
    """Whether ordered variables have a likelihood, which has no saturated model."""
    return bool(table.ordered.thresholds) and settings.weighting is None


def _require_tests(table: ParameterTable, sample: Sample, settings: ResolvedSettings) -> None:
    """Refuse tests for small samples where they do not apply, and expected information that has no closed form."""
    if settings.information == "expected" and any(s.nodes for s in sample.statistics):
        raise UnsupportedError(
            "the likelihood is an integral over clusters' variables, for which expected information is no closed form: "
            'leave out information="expected"'
        )
    if "hotelling" in settings.test:
        sample.clusters  # noqa: B018  refused where no clusters are independent
    if not sample.simple and (settings.corrected_tests or "hotelling" in settings.test):
        raise UnsupportedError(
            "tests for small samples know nothing of weights, PSUs and strata: take the scaled test of "
            'estimator="MLR"'
        )
    if settings.corrected_tests and crosses_levels(table):
        raise UnsupportedError(
            f"test={settings.corrected_tests[0]!r} corrects the between share of the chi-square, and "
            f"{', '.join(crosses_levels(table))} belongs to both levels, so that there is none: leave the test out"
        )


def _most_likely(
    table: ParameterTable, sample: Sample, settings: ResolvedSettings
) -> tuple[Estimate, Sampling]:
    """Maximum likelihood estimates and their sampling covariance matrix."""
    solution = estimate(
        table,
        sample,
        max_iterations=settings.max_iterations,
        tolerance=settings.tolerance,
        random_starts=settings.starts,
    )
    require_feasible(solution.objective, solution.optimum)
    # without standard errors the expected information still tells what is not identified
    robust = settings.se in DESIGN_BASED
    kind: Information = "expected" if settings.se == "none" else settings.information
    clusters = sample.clusters if robust or kind == "first_order" else None
    sampling = sampling_covariance(
        solution.objective,
        solution.theta,
        kind,
        solution.tangent,
        clusters,
        robust=robust,
        border=solution.optimum.border,
    )
    return solution, sampling


def _by_design(
    solution: Estimate,
    table: ParameterTable,
    sample: Sample,
    sampling: Sampling,
    settings: ResolvedSettings,
    discrepancy: LeastSquaresSolution | None,
) -> tuple[Sampling, ResolvedSettings]:
    """Replicates or the one-step jackknife in place of the sandwich.

    The jackknife where it was asked for, or weights leave few clusters.
    """
    if settings.se == "replicate":
        vcov = replicate_covariance(solution, table, sample, discrepancy)
        return replace(sampling, vcov=np.where(np.isnan(sampling.vcov), np.nan, vcov)), settings
    few = settings.se_open and settings.se == "robust" and effective_clusters(sample) < ENOUGH
    if not few and settings.se != "jackknife1":
        return sampling, settings
    vcov = np.where(np.isnan(sampling.vcov), np.nan, one_step_jackknife(solution, sample))
    return replace(sampling, vcov=vcov), replace(settings, se="jackknife1")


def require_raw(sample: Sample, settings: ResolvedSettings) -> None:
    """Refuse robust inference without rows."""
    # the first stage of ordered variables has its covariance matrix with it
    sources = [group.source for group in sample.groups if group.statistics.first_stage is None]
    if any(source is None for source in sources):
        what = "robust standard errors" if settings.se == "robust" else "scaled tests"
        raise DataError(
            f"{what} need raw data: moments and statistics do not tell one cluster from another. Use "
            'estimator="ML", se="standard" and test="standard", or msem.segregated(..., gamma="robust") with moments '
            "that msem.saturated made from raw data"
        )
    if any(source is not None and not source.keeps_products for source in sources):
        other = (
            'se="standard" and test="standard", which take the rows of a single-level model for independent'
        )
        if settings.surveyed:
            other = 'se="none" and test="standard", for estimates alone'
        raise DataError(
            "robust standard errors and scaled tests need the statistics of the single clusters, which were not kept: "
            f"summarize with keep_clusters=True, or ask for {other}"
        )


def warn_of(problems: Iterable[Problem]) -> None:
    """Warn of every problem once."""
    for problem in problems:
        warn(str(problem), WARNINGS[problem.name])
