"""`saturated` and `segregated`: level-specific moments and what can be fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, get_args

from msem.data.clusters import ClusterStatistics, scaled_together, two_level
from msem.data.columns import listed
from msem.data.complete import SampleStatistics, sample_statistics
from msem.data.frames import Holes, clustered_data, inferred_levels, resolve_levels, scaled_weights
from msem.data.incomplete import incomplete_statistics
from msem.data.moments import LevelMoments, estimate_saturated, of_design, robust_acov
from msem.data.reading import has_rows, read_sample, require_rows_for_holes, require_rows_of_data
from msem.data.saturated import Method as SaturatedMethod
from msem.data.statistics import Rows, Statistics
from msem.data.survey import survey_columns
from msem.entry import entry
from msem.errors import DataError, DataWarning, ModelError, UnsupportedError, warn
from msem.estimation.problems import Problem, border_moments
from msem.fits.one_level import Gamma, Method, fit_level, require_separable
from msem.fits.segregated import SegregatedFit
from msem.fits.sem import table_of, warn_of
from msem.language.syntax import parse
from msem.model.blocks import require_one_group
from msem.model.partable import ParameterTable, require_no_slopes, require_two_levels
from msem.model.variables import Variables
from msem.settings import Settings, require_choice


@entry
def saturated(
    data: Any,
    *,
    cluster: str | None = None,
    within: Sequence[str] | None = None,
    between: Sequence[str] | None = None,
    method: SaturatedMethod = "scoring",
    gamma: Gamma = "observed",
    space: str = "auto",
    missing: str = "listwise",
    weights: str | None = None,
    cluster_weights: str | None = None,
    weights_scale: str = "size",
    psu: str | None = None,
    strata: str | None = None,
    fpc: str | None = None,
    single_psu: str = "error",
) -> LevelMoments:
    """Estimate unrestricted within and between covariance matrices and means by maximum likelihood.

    Parameters
    ----------
    data : data frame, ClusterStatistics or SampleStatistics
        One row per unit, or what `msem.summarize` makes of such data.
    cluster : str
        Column with the cluster ids.
    within, between : sequence of str, optional
        Variables of each level; one in both lists is at both levels. Default: all numeric columns, those that are
        constant within clusters at the between level only, the others at both. `within` alone: its variables at both
        levels. `between` alone: its variables, those that vary within clusters at both levels. Not for statistics,
        whose variables have their levels.
    method : {"scoring", "em"}
        See `LevelMoments`; EM keeps the between matrix positive semidefinite.
    gamma : {"observed", "expected", "robust"}
        Asymptotic covariance of the moments. "observed": from the information, computed when asked for. "expected" and
        "robust" (the sandwich over clusters, for variables that are not normal; raw data only) are computed here and
        go wherever the moments go.
    space : {"auto", "natural", "psd"}
        Among which between matrices the maximum is looked for; see `sem`. Moments on the border of the positive
        semidefinite ones are marked `in_cone` and have no Gamma.
    missing : {"listwise", "fiml"}
        "fiml": maximum likelihood from all values that are observed; see `sem`. Such moments are marked `incomplete`,
        and what is fitted to them takes its errors from their Gamma.
    weights, cluster_weights, weights_scale, psu, strata, fpc, single_psu
        How the data were sampled; see `sem`. Such moments are marked `weighted` and carry the Gamma of the design,
        whatever `gamma` says.

    Returns
    -------
    LevelMoments
        Carrying the statistics of the data, from which Gamma is computed when asked for.

    Raises
    ------
    DataError
        If the data cannot identify the moments.

    Warns
    -----
    ConvergenceWarning
        If the moments are no maximum of the likelihood: `LevelMoments.converged` is False.
    ImproperSolutionWarning
        If they are one among positive semidefinite between matrices only, for want of another.
    """
    require_choice("gamma", gamma, get_args(Gamma))
    given = {
        "space": space,
        "missing": missing,
        "weights": weights,
        "cluster_weights": cluster_weights,
        "weights_scale": weights_scale,
        "psu": psu,
        "strata": strata,
        "fpc": fpc,
        "single_psu": single_psu,
    }
    settings = replace(Settings.read(given), cluster=Settings.read({"cluster": cluster}).cluster)
    return _saturated(data, settings, within, between, method, gamma)


Names = Sequence[str] | None


@singledispatch
def _saturated(
    data: Any, settings: Settings, within: Names, between: Names, method: SaturatedMethod, gamma: Gamma
) -> LevelMoments:
    """Saturated moments of the rows of a frame, unless there is a function for the kind of data."""
    require_rows_of_data(data)
    cluster = settings.highest
    if cluster is None:
        raise DataError('name the column with the cluster ids, cluster="..."')
    if settings.inner:
        raise UnsupportedError(
            "moments by level of three levels are not available in this version: name one column of clusters, or fit a "
            "model of three levels and take its fit.unrestricted_moments"
        )
    holes = Holes() if settings.incomplete else None
    within, between = inferred_levels(data, cluster, within, between, holes)
    variables = _variables(within, between)
    given = clustered_data(data, variables.names, cluster, holes, survey_columns(settings))
    (clustered,) = scaled_weights((given,), variables.unit, 2, settings.weights_scale)
    if clustered.dropped_no_cluster:
        warn(
            f"{clustered.dropped_no_cluster} rows have no cluster id ({cluster}) and were left out",
            DataWarning,
        )
    make = sample_statistics if clustered.complete else incomplete_statistics
    statistics = make(clustered, *variables.roles)
    require_identified(statistics)
    moments = _reported(statistics, settings, method)
    if clustered.sampled is not None:
        return designed(moments, clustered, statistics)
    return moments if gamma == "observed" else _carrying(moments, clustered, gamma)


@_saturated.register
def _(
    data: SampleStatistics,
    settings: Settings,
    within: Names,
    between: Names,
    method: SaturatedMethod,
    gamma: Gamma,
) -> LevelMoments:
    if within is not None or between is not None:
        raise DataError("statistics have their levels already: leave out within= and between=")
    _require_no_column(settings)
    moments = _reported(data, settings, method)
    if gamma == "robust":
        raise DataError('gamma="robust" needs raw data: statistics do not tell one cluster from another')
    return moments.with_acov(gamma) if gamma == "expected" else moments


@_saturated.register
def _(
    data: ClusterStatistics,
    settings: Settings,
    within: Names,
    between: Names,
    method: SaturatedMethod,
    gamma: Gamma,
) -> LevelMoments:
    require_rows_for_holes(data, settings)
    _require_no_column(settings)

    def varying(names: Sequence[str]) -> Sequence[str]:
        data.positions(names)  # says which is not there
        return [name for name in names if name in data.varying]

    within, between = resolve_levels(within, between, lambda: data.variables, varying)
    (data,) = scaled_together((data,), 2)
    statistics = two_level(data, *_variables(within, between).roles)
    moments = _reported(statistics, settings, method)
    if data.sampled is not None:
        return designed(moments, data, statistics)
    return moments if gamma == "observed" else _carrying(moments, data, gamma)


def designed(moments: LevelMoments, data: Rows, statistics: Statistics) -> LevelMoments:
    """Moments of weighted data, or of a complex design, with the Gamma of the design; without where it is not known."""
    if data.keeps_products:
        return of_design(moments, statistics.clusters(data))
    return replace(moments, weighted=True)


def _require_no_column(settings: Settings) -> None:
    if settings.cluster is not None:
        raise DataError(
            f"cluster={settings.cluster!r} is for raw data; statistics have their clusters: leave it out"
        )


def _variables(within: Sequence[str], between: Sequence[str]) -> Variables:
    """Variables of two levels."""
    both = [name for name in within if name in set(between)]
    unit = [*both, *(name for name in within if name not in both)]
    if not unit:
        raise ModelError("no variable varies within clusters: there is no within level to estimate")
    return Variables.of_two_levels(unit, [name for name in between if name not in both], len(both))


def _carrying(moments: LevelMoments, data: Rows, gamma: Gamma) -> LevelMoments:
    """Moments of data with their Gamma."""
    if gamma == "observed" or gamma == "expected":
        return moments.with_acov(gamma)
    return replace(moments, known_acov=robust_acov(moments, moments.statistics.clusters(data)))


def require_identified(statistics: Statistics) -> None:
    """Refuse data with holes in which two variables are never observed together.

    Raises
    ------
    DataError
        Naming the moments.
    """
    names = statistics.unidentified
    if names:
        raise DataError(
            f"these moments cannot be estimated, because their variables are never observed together: {listed(names)}; "
            "leave one of each pair out"
        )


def _reported(statistics: Statistics, settings: Settings, method: SaturatedMethod) -> LevelMoments:
    """Saturated moments, with a warning if they are no maximum, or none but in the cone."""
    moments = estimate_saturated(statistics, method=method, space=settings.space)
    if moments.in_cone and settings.space == "auto":
        warn_of((border_moments(),))
    if not moments.converged:
        problem = Problem(
            "not_converged",
            f"the saturated model has not converged after {moments.iterations} {method} steps",
            "A between covariance matrix on the boundary of what the cluster sizes allow, or too few clusters of the "
            "largest size, are the usual causes: take fewer variables to the between level",
        )
        warn_of((problem,))
    return moments


@entry
def segregated(
    model: str,
    data: Any,
    *,
    cluster: str | None = None,
    method: Method = "likelihood",
    gamma: Gamma = "observed",
    missing: str = "listwise",
    weights: str | None = None,
    cluster_weights: str | None = None,
    weights_scale: str = "size",
    psu: str | None = None,
    strata: str | None = None,
    fpc: str | None = None,
    single_psu: str = "error",
    fixed_x: bool = True,
    std_lv: bool = False,
    orthogonal: bool = False,
) -> SegregatedFit:
    """Fit each level of a model by itself to the saturated moments, with standard errors that hold.

    The saturated matrix of a level is an estimate. Fitting it as if it had been observed on J clusters gives between
    standard errors that are too small and a test that rejects true models; these are reported as naive only.

    Parameters
    ----------
    model : str
        A two-level model in lavaan's language.
    data : LevelMoments, data frame, ClusterStatistics or SampleStatistics
        Moments, or data to estimate them from (then with `cluster`).
    cluster : str
        Column with the cluster ids.
    method : {"likelihood", "ml", "uls"}
        "likelihood": the level as specified and the other saturated (Ryu & West, 2009), in the likelihood of the
        statistics that the moments imply; works when the between matrix is not positive definite. "ml": normal
        discrepancy of the level's matrix with sandwich standard errors and adjusted tests (Yuan & Bentler, 2007).
        "uls": least squares on the standardized matrix, with the same corrections.
    gamma : {"observed", "expected", "robust"}
        Gamma, the asymptotic covariance of the moments, that "ml" and "uls" use if the moments do not carry their own:
        the inverse of an information matrix, or the sandwich over clusters, which needs raw data (or moments that
        carry it) and holds for variables that are not normal. "likelihood" uses it only if it is "robust".
    missing : {"listwise", "fiml", "fiml.x"}
        How missing values of data are handled; see `sem`. Moments of data with holes are less precise than their
        sample sizes say: every method then takes its errors and tests from Gamma.
    weights, cluster_weights, weights_scale, psu, strata, fpc, single_psu
        How data were sampled; see `sem`. Errors and tests then come from the Gamma of the design.
    fixed_x, std_lv, orthogonal
        As in `sem`.

    Returns
    -------
    SegregatedFit

    Raises
    ------
    DataError
        If ``method="ml"`` meets a matrix that is not positive definite.
    UnsupportedError
        If the levels share parameters.
    """
    require_choice("method", method, get_args(Method))
    require_choice("gamma", gamma, get_args(Gamma))
    settings = Settings.read(
        {
            "cluster": cluster,
            "missing": missing,
            "weights": weights,
            "cluster_weights": cluster_weights,
            "weights_scale": weights_scale,
            "psu": psu,
            "strata": strata,
            "fpc": fpc,
            "single_psu": single_psu,
            "fixed_x": fixed_x,
            "std_lv": std_lv,
            "orthogonal": orthogonal,
        }
    )
    syntax = parse(model)
    require_one_group(syntax, "segregated fits are")
    table = table_of(syntax, "sem", settings, None)
    require_no_slopes(table, "fits of single levels")
    require_two_levels(table, "segregated fits")
    if not table.multilevel:
        raise ModelError("segregated fits need a model with 'level: 1' and 'level: 2' blocks")
    require_separable(table)
    wanted = None if method == "likelihood" and gamma != "robust" else gamma
    moments = model_moments(table, data, settings, wanted)
    within, between = (fit_level(table, moments, level, method, gamma) for level in (1, 2))
    fit = SegregatedFit(within, between)
    warn_of(dict.fromkeys(fit.problems))
    return fit


def model_moments(
    table: ParameterTable, data: Any, settings: Settings, gamma: Gamma | None = None
) -> LevelMoments:
    """Saturated moments of the variables of a model, from moments of more variables or from data.

    Moments of fewer variables than given keep their part of the whole Gamma, of the kind `gamma` if that is not
    None. A variable at both levels that the model has within only is pooled over levels, as in data: this needs
    new saturated estimates.
    """
    require_rows_for_holes(data, settings)
    survey = survey_columns(settings)
    if survey is not None and not has_rows(data):
        raise DataError(f"{survey.named} names a column of raw data, and these are moments: leave it out")
    return _model_moments(data, table, settings, gamma)


@singledispatch
def _model_moments(data: Any, table: ParameterTable, settings: Settings, gamma: Gamma | None) -> LevelMoments:
    """Moments estimated from data."""
    (group,) = read_sample(data, table, settings).groups
    require_identified(group.statistics)
    moments = estimate_saturated(group.statistics, space="auto")
    if group.sampled is not None:
        return designed(moments, group.require_source(), group.statistics)
    if gamma == "robust" and group.source is not None:
        return _carrying(moments, group.source, gamma)
    return moments


@_model_moments.register
def _(data: LevelMoments, table: ParameterTable, settings: Settings, gamma: Gamma | None) -> LevelMoments:
    cluster = settings.cluster
    if cluster is not None:
        raise DataError(f"cluster={cluster!r} is for raw data; moments have their clusters: leave it out")
    within, between = table.variables.levels
    alone = set(table.variables.names) - set(table.both)  # at one level of the model
    if not alone.isdisjoint(data.both):
        data.require(within, between)
        odd = [name for name in table.variables.cluster if name in data.both]
        if odd:
            raise ModelError(
                f"{', '.join(odd)} varies within clusters in these moments: add it to level 1 of the model, "
                f"for instance {odd[0]} ~~ {odd[0]}"
            )
        return estimate_saturated(data.statistics.with_variables(table.variables), space="auto")
    every = (len(within), len(between)) == (len(data.within_cov), len(data.between_cov))
    whole = data if every or gamma is None or gamma == "robust" else data.with_acov(gamma)
    return whole.restrict(within, between)
