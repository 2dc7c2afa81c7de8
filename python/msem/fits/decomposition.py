"""`saturated` and `segregated`: level-specific moments and what can be fitted to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, get_args

from msem.data.cluster_moments import two_level
from msem.data.clusters import ClusterStatistics
from msem.data.columns import listed
from msem.data.complete import SampleStatistics
from msem.data.frames import Holes, clustered_data
from msem.data.given import what_is_given
from msem.data.grouped_moments import GroupedMoments
from msem.data.grouping import Grouping
from msem.data.levels import chosen_levels, resolve_levels
from msem.data.merging import scaled_together
from msem.data.model_statistics import level_statistics_of_rows
from msem.data.moments import LevelMoments
from msem.data.nested import nested_statistics
from msem.data.reading import (
    by_group,
    given_labels,
    group_rows,
    has_rows,
    read_sample,
    require_rows_for_holes,
    require_rows_of_data,
)
from msem.data.sample import Group, Sample
from msem.data.saturated import Method as SaturatedMethod
from msem.data.saturated import sandwich_root
from msem.data.saturated_moments import estimate_saturated, of_design, with_robust_acov
from msem.data.scaling import scaled_weights
from msem.data.screening import warn_of_codes
from msem.data.statistics import Rows, Statistics
from msem.data.survey import survey_columns
from msem.entry import entry
from msem.errors import ArgumentError, DataError, DataWarning, ModelError, UnsupportedError, warn
from msem.estimation.problems import Problem, border_moments
from msem.fits.one_level import Gamma, Method, fit_level, require_separable
from msem.fits.segregated import SegregatedFit
from msem.fits.sem import table_of, warn_of
from msem.language.syntax import with_constraints
from msem.model.blocks import group_order
from msem.model.levels import number_of_levels
from msem.model.partable import ParameterTable, require_no_slopes
from msem.model.variables import Variables
from msem.settings import Settings, require_choice, several


@entry
def saturated(
    data: Any,
    *,
    cluster: str | Sequence[str] | None = None,
    within: Sequence[str] | None = None,
    between: Sequence[str] | None = None,
    levels: Sequence[Sequence[str]] | None = None,
    method: SaturatedMethod = "scoring",
    gamma: Gamma = "observed",
    space: str = "auto",
    missing: str = "listwise",
    weights: str | None = None,
    cluster_weights: str | Sequence[str | None] | None = None,
    weights_scale: str = "size",
    psu: str | None = None,
    strata: str | None = None,
    fpc: str | None = None,
    single_psu: str = "error",
    threads: int | None = None,
) -> LevelMoments:
    """Estimate unrestricted covariance matrices of every level, and means, by maximum likelihood.

    Parameters
    ----------
    data : data frame, ClusterStatistics or SampleStatistics
        One row per unit, or what `msem.summarize` makes of such data.
    cluster : str or sequence of str
        Column with the cluster ids, or two columns for three levels, the highest clusters first.
    levels : sequence of sequence of str, optional
        Variables of each level, level 1 first; one in several has a part at each. In the place of `within` and
        `between`, which are for two levels. Default: all numeric columns but those of weights and
        the design, each at the lowest level at which it varies and at all above.
    within, between : sequence of str, optional
        Variables of each level; one in both lists is at both levels. Default: all numeric columns, those that are
        constant within clusters at the between level only, the others at both. `within` alone: its variables at both
        levels. `between` alone: its variables, those that vary within clusters at both levels. Not for statistics,
        whose variables have their levels.
    method : {"scoring", "em"}
        Fisher scoring, or EM, for two levels, which keeps the between matrix positive semidefinite.
    gamma : {"observed", "expected", "robust"}
        Asymptotic covariance of the moments. "observed": from the information, computed when asked for. "expected" and
        "robust" (the sandwich over clusters, for variables that are not normal; raw data only) are computed here and
        go wherever the moments go. A sandwich of no more clusters than moments is singular: errors and mean-scaled
        tests come from it all the same, but no `information` and no residual-based test.
    space : {"auto", "natural", "psd"}
        Among which matrices above level 1 the maximum is looked for; see `sem`. Moments on the border of the positive
        semidefinite ones are marked `in_cone` and have no Gamma.
    missing : {"listwise", "fiml"}
        "fiml": maximum likelihood from all values that are observed; see `sem`. Such moments are marked `incomplete`,
        and what is fitted to them takes its errors from their Gamma.
    weights, cluster_weights, weights_scale, psu, strata, fpc, single_psu
        How the data were sampled; see `sem`. Such moments are marked `weighted` and carry the Gamma of the design,
        whatever `gamma` says.
    threads : int, optional
        How many may be used at most; default: one for each processor.

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
        If they are one among positive semidefinite matrices above level 1 only, for want of another.
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
        "threads": threads,
    }
    settings = replace(Settings.read(given), cluster=Settings.read({"cluster": cluster}).cluster)
    if levels is not None and (within is not None or between is not None):
        raise DataError("levels= has the variables of every level: leave out within= and between=")
    if levels is not None:
        _require_levels(levels)
    chosen = (within, between) if levels is None else tuple(map(several, levels))
    with settings.limit():
        return _saturated(data, settings, chosen, method, gamma)


Names = tuple[Sequence[str] | None, ...]  # by level; None where they are to be inferred


def _require_levels(levels: Any) -> None:
    """Refuse what is not a sequence of the variables of each level."""
    if isinstance(levels, str | Mapping) or not isinstance(levels, Sequence):
        raise ArgumentError(
            f"levels= is a list of the variables of each level, level 1 first, and not {levels!r}"
        )
    for number, own in enumerate(levels, 1):
        if isinstance(own, str | Sequence) and len(own):
            continue
        raise ArgumentError(
            f"levels= names no variable of level {number}: leave out what has no level of its own, or give its "
            f"variables, not {own!r}"
        )


@singledispatch
def _saturated(
    data: Any, settings: Settings, chosen: Names, method: SaturatedMethod, gamma: Gamma
) -> LevelMoments:
    """Saturated moments of the rows of a frame, unless there is a function for the kind of data."""
    require_rows_of_data(data)
    if settings.highest is None:
        raise DataError('name the column with the cluster ids, cluster="..."')
    if settings.crossed:
        raise UnsupportedError(
            "moments by level are those of nested clusters: crossed classifications have their saturated moments in "
            "fit.unrestricted_moments"
        )
    holes = Holes() if settings.incomplete else None
    surveyed = survey_columns(settings)
    beside = () if surveyed is None else surveyed.names
    variables = _variables(chosen_levels(data, settings.cluster_columns, chosen, holes, beside))
    if holes is not None:
        *inner, highest = variables.measured[1:]
        holes = replace(holes, cluster_level=highest, inner_level=tuple(inner))
    given = clustered_data(data, variables.names, settings.highest, holes, surveyed, settings.inner)
    warn_of_codes((given.columns,))
    (clustered,) = scaled_weights((given,), variables, settings.weights_scale)
    if clustered.dropped_no_cluster:
        warn(
            f"{clustered.dropped_no_cluster} rows have no cluster id ({settings.cluster_text}) and were left out",
            DataWarning,
        )
    statistics = level_statistics_of_rows(variables, clustered)
    require_identified(statistics)
    moments = _reported(statistics, settings, method)
    if clustered.sampled is not None:
        return designed(moments, clustered, statistics)
    return moments if gamma == "observed" else _carrying(moments, clustered, gamma)


@_saturated.register
def _(
    data: SampleStatistics, settings: Settings, chosen: Names, method: SaturatedMethod, gamma: Gamma
) -> LevelMoments:
    if any(own is not None for own in chosen):
        raise DataError("statistics have their levels already: leave out within=, between= and levels=")
    _require_no_column(settings)
    moments = _reported(data, settings, method)
    if gamma == "robust":
        raise DataError('gamma="robust" needs raw data: statistics do not tell one cluster from another')
    return moments.with_acov(gamma) if gamma == "expected" else moments


@_saturated.register
def _(
    data: ClusterStatistics, settings: Settings, chosen: Names, method: SaturatedMethod, gamma: Gamma
) -> LevelMoments:
    require_rows_for_holes(data, settings)
    _require_no_column(settings)

    if data.has_inner:
        given = [own for own in chosen if own is not None]
        if given and len(given) != len(data.cluster) + 1:
            raise DataError(
                f"these are statistics of {number_of_levels(len(data.cluster) + 1)}: levels= takes the variables of "
                "each"
            )
        statistics: Statistics = nested_statistics(data, _variables(given) if given else data.known_variables)
    else:
        statistics = _of_two_levels(data, chosen)
        (data,) = scaled_together((data,), 2)
    moments = _reported(statistics, settings, method)
    if data.sampled is not None:
        return designed(moments, data, statistics)
    return moments if gamma == "observed" else _carrying(moments, data, gamma)


def _of_two_levels(data: ClusterStatistics, chosen: Names) -> Statistics:
    """Statistics of two levels, variables that are not given by level being found."""

    def varying(names: Sequence[str]) -> Sequence[str]:
        data.positions(names)  # says which is not there
        return [name for name in names if name in data.varying]

    if len(chosen) != 2:
        raise DataError("these are statistics of two levels: levels= takes the variables of both")
    within, between = chosen
    levels = resolve_levels(within, between, lambda: data.variables, varying)
    (scaled,) = scaled_together((data,), 2)
    return two_level(scaled, _variables(levels))


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


def _variables(levels: Sequence[Sequence[str]]) -> Variables:
    """Variables by level."""
    variables = Variables.of_levels(levels)
    if not variables.unit:
        what = "within" if len(levels) == 2 else "first"
        raise ModelError(f"no variable varies within clusters: there is no {what} level to estimate")
    return variables


def _carrying(moments: LevelMoments, data: Rows, gamma: Gamma) -> LevelMoments:
    """Moments of data with their Gamma."""
    if gamma == "observed" or gamma == "expected":
        return moments.with_acov(gamma)
    return with_robust_acov(moments, moments.statistics.clusters(data))


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
            "largest size, are the usual causes: take fewer variables to "
            + ("the between level" if len(moments.levels) == 2 else "the higher levels, levels=[...]"),
        )
        warn_of((problem,))
    return moments


@entry
def segregated(
    model: str,
    data: Any,
    *,
    cluster: str | Sequence[str] | None = None,
    group: str | None = None,
    group_equal: Sequence[str] = (),
    group_partial: Sequence[str] = (),
    constraints: str | Sequence[str] | None = None,
    method: Method = "likelihood",
    gamma: Gamma = "observed",
    missing: str = "listwise",
    weights: str | None = None,
    cluster_weights: str | Sequence[str | None] | None = None,
    weights_scale: str = "size",
    psu: str | None = None,
    strata: str | None = None,
    fpc: str | None = None,
    single_psu: str = "error",
    fixed_x: bool = True,
    std_lv: bool = False,
    orthogonal: bool = False,
    threads: int | None = None,
) -> SegregatedFit:
    """Fit each level of a model by itself to the saturated moments, with standard errors that hold.

    The saturated matrix of a level is an estimate. Fitting it as if it had been observed on J clusters gives
    standard errors above level 1 that are too small and a test that rejects true models; these are reported as naive
    only.

    Parameters
    ----------
    model : str
        A model of two levels or three in lavaan's language.
    data : LevelMoments, data frame, ClusterStatistics or SampleStatistics
        Moments, or data to estimate them from (then with `cluster`). Moments of several groups: a dict of group label
        to moments; the groups are taken as independent.
    cluster : str or sequence of str
        Column with the cluster ids, or two columns for three levels, the highest clusters first.
    group, group_equal, group_partial
        Column with the groups of data, and what is equal over groups at each level; see `sem`.
    constraints : str or sequence of str, optional
        Definitions (``:=``), equalities and inequalities beside those in the model text, each about one level.
    method : {"likelihood", "ml", "uls"}
        "likelihood": the level as specified and the others saturated (Ryu & West, 2009), in the likelihood of the
        statistics that the moments imply; works when a matrix above level 1 is not positive definite. "ml": normal
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
    fixed_x, std_lv, orthogonal, threads
        As in `sem`.

    Returns
    -------
    SegregatedFit

    Raises
    ------
    DataError
        If ``method="ml"`` meets a matrix that is not positive definite.
    UnsupportedError
        If the levels share parameters or constraints.
    """
    require_choice("method", method, get_args(Method))
    require_choice("gamma", gamma, get_args(Gamma))
    settings = Settings.read(
        {
            "cluster": cluster,
            "group": group,
            "group_equal": group_equal,
            "group_partial": group_partial,
            "constraints": constraints,
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
            "threads": threads,
        }
    )
    syntax = with_constraints(model, settings.constraints)
    grouping = group_rows(data, settings.group)
    labels = given_labels(data, settings, grouping)
    groups = None if labels is None else group_order(syntax, labels)
    table = table_of(syntax, "sem", settings, groups)
    require_no_slopes(table, "fits of single levels")
    if not table.multilevel:
        raise ModelError("segregated fits need a model with 'level: 1' and 'level: 2' blocks")
    if settings.crossed:
        raise UnsupportedError("segregated fits are those of nested levels, not of crossed classifications")
    require_separable(table)
    wanted = None if method == "likelihood" and gamma != "robust" else gamma
    numbers = range(1, table.nlevels + 1)
    with settings.limit():
        moments = model_moments(table, data, settings, wanted, grouping)
        fit = SegregatedFit(tuple(fit_level(table, moments, level, method, gamma) for level in numbers))
    warn_of(dict.fromkeys(fit.problems))
    return fit


def model_moments(
    table: ParameterTable,
    data: Any,
    settings: Settings,
    gamma: Gamma | None = None,
    grouping: Grouping | None = None,
) -> GroupedMoments:
    """Saturated moments of the variables of a model in each group, from moments of more variables or from data.

    Moments of fewer variables than given keep their part of the whole Gamma, of the kind `gamma` if that is not
    None. A variable at both levels that the model has within only is pooled over levels, as in data: this needs
    new saturated estimates.
    """
    require_rows_for_holes(data, settings)
    survey = survey_columns(settings)
    if survey is not None and not has_rows(data):
        raise DataError(f"{survey.named} names a column of raw data, and these are moments: leave it out")
    given = {label: own for label, (own, _) in by_group(data, settings).items()} or {"": data}
    found = {label: what_is_given(own).moments_of_levels for label, own in given.items()}
    known: dict[str, LevelMoments] = {label: own for label, own in found.items() if own is not None}
    if not known:
        return _estimated_moments(read_sample(data, table, settings, grouping), gamma)
    other = next((label for label in given if label not in known), None)
    if other is not None:
        raise DataError(
            f"the moments of group {next(iter(known))!r} are LevelMoments, and group {other!r} has a "
            f"{type(given[other]).__name__}: give msem.saturated of that"
        )
    labels = table.group_labels or ("",)
    return GroupedMoments(
        labels, tuple(_restricted(known[label], label, table, settings, gamma) for label in labels)
    )


def _estimated_moments(sample: Sample, gamma: Gamma | None) -> GroupedMoments:
    """Moments estimated from data."""
    groups = sample.groups
    for group in groups:
        require_identified(group.statistics)
    found = GroupedMoments(
        tuple(group.label for group in groups), tuple(_estimated(group, gamma) for group in groups)
    )
    if sample.design is None or any(one.known_acov is None for one in found.groups):
        return found
    # members of a unit or a stratum may be in several groups
    pairs = zip(found.groups, groups, strict=True)
    return replace(
        found,
        influence=tuple(
            sandwich_root(one.vector.to_numpy(), group.statistics, group.clusters) for one, group in pairs
        ),
    )


def _estimated(group: Group, gamma: Gamma | None) -> LevelMoments:
    moments = estimate_saturated(group.statistics, space="auto")
    if group.sampled is not None:
        return designed(moments, group.require_source(), group.statistics)
    if gamma == "robust" and group.source is not None:
        return _carrying(moments, group.source, gamma)
    return moments


def _restricted(
    data: LevelMoments, label: str, table: ParameterTable, settings: Settings, gamma: Gamma | None
) -> LevelMoments:
    """Given moments of a group as those of the variables of the model."""
    try:
        return _of_variables(data, table, settings, gamma)
    except DataError as error:
        raise DataError(f"group {label!r}: {error}") if label else error from None


def _of_variables(
    data: LevelMoments, table: ParameterTable, settings: Settings, gamma: Gamma | None
) -> LevelMoments:
    cluster = settings.cluster
    if cluster is not None:
        raise DataError(f"cluster={cluster!r} is for raw data; moments have their clusters: leave it out")
    levels, known = table.variables.levels, data.variables.levels
    depth = len(known)
    if len(levels) != depth:
        raise ModelError(
            f"the model has {number_of_levels(len(levels))}, and these are moments of {number_of_levels(depth)}"
        )
    data.require(*levels)
    every = [len(own) for own in levels] == [len(own) for own in known]
    fewer = False
    for name in table.variables.names:
        mine, theirs = ([name in own for own in some] for some in (levels, known))
        fewer |= mine != theirs
        lowest = theirs.index(True)
        if mine.index(True) > lowest:
            raise ModelError(
                f"{name} varies within clusters{'' if depth == 2 else f' of level {lowest + 2}'} in these moments: add "
                f"it to level {lowest + 1} of the model, for instance {name} ~~ {name}"
            )
    if fewer:  # parts that the model does not have are pooled with the others, as in data
        return estimate_saturated(data.statistics.with_variables(table.variables), space="auto")
    whole = data if every or gamma is None or gamma == "robust" else data.with_acov(gamma)
    return whole.restrict(*levels)
