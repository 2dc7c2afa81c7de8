"""What a user may give as a sample, read into the statistics of a model's variables.

A new kind of source is one function registered with `read_statistics`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

import pandas as pd

from msem.data.cluster_moments import single_level, two_level
from msem.data.clusters import ClusterStatistics
from msem.data.columns import column_names, listed
from msem.data.complete import SampleStatistics, moment_statistics
from msem.data.frames import clustered_data
from msem.data.given import each_given, what_is_given
from msem.data.grouping import Grouping, grouped_data, read_groups, text_of
from msem.data.model_statistics import allowed_holes, nested_of, statistics_of_rows, statistics_of_slopes
from msem.data.moments import LevelMoments
from msem.data.ordered_moments import OrderedMoments
from msem.data.rows import ClusteredData
from msem.data.sample import Group, Sample
from msem.data.scaling import scaled_weights, with_replication
from msem.data.screening import Finding, dependent, refuse, warn_of_codes
from msem.data.statistics import Statistics
from msem.data.survey import replication_scale, survey_columns
from msem.errors import DataError, DataWarning, ModelError, UnsupportedError, warn
from msem.model.blocks import header_levels
from msem.model.levels import DEEPEST, LEVEL_HEADERS, NUMBERS, number_of_levels
from msem.model.partable import ParameterTable, fixed_covariates, require_two_levels
from msem.model.variables import Variables
from msem.settings import Settings

GIVEN_AS = {
    "data": "raw data",
    "moments": "moments with cluster sizes",
    "moments, N and J only": "moments with N and J only",
    "clusters": "statistics of clusters",
}
Means = pd.Series | Mapping[str, float]

MANY = 0.05  # share of rows that are deleted listwise
NAMED = 4  # variables that are named then


def read_sample(
    data: Any, table: ParameterTable, settings: Settings, grouping: Grouping | None = None
) -> Sample:
    """Statistics of the variables of a model, for each group.

    Parameters
    ----------
    data : data frame, LevelMoments, SampleStatistics, ClusterStatistics, mapping of label to one of these, or None
    table : ParameterTable
    settings : Settings
        The cluster column, moments of a single-level sample in place of data, and whether rows with holes are kept.
    grouping : Grouping, optional
        The groups of the rows of data.

    Raises
    ------
    ModelError
        If model and sample do not have the same number of levels, or a latent variable is a column of the data.
    DataError
        If the sample cannot be used; see `clustered_data`, `grouped_data`, `sample_statistics` and `LevelMoments`.
    """
    given = by_group(data, settings)
    parts = [own for own, _ in given.values()] or [data]
    first, *others = map(what_is_given, parts)
    if not first.has_rows and all(type(own) is type(first) for own in others):
        parts = list(first.scaled_with(others, table.nlevels))
        data = parts[0]
        given = {
            label: (own, options) for (label, (_, options)), own in zip(given.items(), parts, strict=False)
        }
    by_cluster = settings.sample_cov is None and all(what_is_given(own).keeps_products for own in parts)
    if table.slopes() and not by_cluster:
        raise UnsupportedError(
            "random slopes need rows of raw data, or statistics of single clusters, msem.summarize(..., "
            "keep_clusters=True): moments and statistics by cluster size do not have the products of covariates within "
            "single clusters"
        )
    if given:
        groups = tuple(_of_group(table, label, *given[label]) for label in table.group_labels)
    else:
        groups = _read_groups(data, table, settings, grouping)
    if settings.nodes:
        groups = tuple(
            replace(group, statistics=group.statistics.with_nodes(settings.nodes)) for group in groups
        )
    refuse([group.findings for group in groups], [group.label for group in groups])
    require_regular_covariates(groups, table)
    sample = Sample(groups, 0 if grouping is None else grouping.missing)
    if given:
        return sample
    for count, what in left_out(sample, settings, grouping):
        warn(f"{count} rows have no {what} and were left out", DataWarning)
    deleted = deleted_listwise(sample, settings, full=not table.ordered.thresholds)
    if deleted:
        warn(deleted, DataWarning)
    return sample


def deleted_listwise(sample: Sample, settings: Settings, *, full: bool) -> str:
    """What to say of rows that were left out for missing values; "" if they are few.

    `full`: whether there is full information for such a model.
    """
    if settings.incomplete or all(group.data is None for group in sample.groups):
        return ""
    origin = sample.origin
    if not origin.nrows or origin.dropped_rows <= MANY * origin.nrows:
        return ""
    most = sorted(origin.dropped.items(), key=lambda item: -item[1])[:NAMED]
    more = ", ..." if len(origin.dropped) > NAMED else ""
    return (
        f"{origin.dropped_rows} of {origin.nrows} rows ({origin.dropped_rows / origin.nrows:.0%}) have missing "
        f"values and were deleted listwise ({', '.join(f'{name} {count}' for name, count in most)}{more}): "
        "results are biased unless values are missing completely at random"
        + ('; missing="fiml" uses all values that are observed' if full else "")
    )


def _read_groups(
    data: Any, table: ParameterTable, settings: Settings, grouping: Grouping | None
) -> tuple[Group, ...]:
    """Groups of one source, with what they could not be used for by themselves."""
    _require_used(data, table, settings)
    if settings.sample_cov is None:
        groups = read_statistics(data, table, settings, grouping)
    else:
        groups = (_of_covariance(data, table, settings),)
    return _centred_groups(groups, table)


def _centred_groups(groups: tuple[Group, ...], table: ParameterTable) -> tuple[Group, ...]:
    """Without means, if the model has none."""
    if table.meanstructure:
        return groups
    return tuple(replace(group, statistics=group.statistics.centred()) for group in groups)


def read_alike(data: Any, table: ParameterTable, settings: Settings) -> Sample:
    """Read a sample of the same kind (`Given.kind`) as one that `read_sample` has read.

    What is left to be asked is whether its fixed covariates are regular (`require_regular_covariates`).
    """
    return Sample(_centred_groups(read_statistics(data, table, settings, None), table))


def require_regular_covariates(groups: Sequence[Group], table: ParameterTable) -> None:
    """Refuse fixed covariates of one level that others determine: the likelihood given them has no single maximum.

    Raises
    ------
    DataError
    """
    for number, group in enumerate(groups, 1):
        names = fixed_covariates(table, group.statistics.variables, number)
        if all(len(among) < 2 for among in names):
            continue
        for among, cov in zip(names, group.statistics.covariances(*names), strict=True):
            for one in dependent(cov, among, ""):
                raise one.error(group.label)


@singledispatch
def read_statistics(
    data: Any, table: ParameterTable, settings: Settings, grouping: Grouping | None
) -> tuple[Group, ...]:
    """Statistics of what a user gives: of the rows of a frame, unless there is a function for its kind.

    What is found in them goes with the groups, for `refuse`.
    """
    column = settings.cluster_of(multilevel=table.multilevel)
    if data is None and table.multilevel:
        raise DataError("no data: give a data frame with cluster=, or msem.LevelMoments")
    if data is None:
        raise DataError("no data: give a data frame, or sample_cov= with sample_nobs=")
    require_rows_of_data(data)
    columns = frozenset(column_names(data))
    _require_latent_names(table, columns)
    _warn_of_products(table, columns)
    require_cluster_columns(table, settings)
    variables = table.variables.names
    holes = allowed_holes(table, pairwise=settings.missing == "pairwise") if settings.incomplete else None
    if settings.replicate_weights and not table.multilevel:
        column = None
    survey = survey_columns(settings)
    if settings.cluster_weights is not None and not table.multilevel:
        raise DataError(
            "cluster_weights= are for models of several levels: a single-level model has weights= of its rows"
        )
    if grouping is None:
        parts: tuple[ClusteredData, ...] = (
            clustered_data(data, variables, column, holes, survey, settings.inner, crossed=settings.crossed),
        )
    else:
        parts = grouped_data(
            data,
            variables,
            column,
            grouping,
            table.group_labels,
            holes,
            survey,
            settings.inner,
            crossed=settings.crossed,
            whole=table.multilevel,
        )
    warn_of_codes([part.columns for part in parts])
    if settings.replicate_weights:
        _require_replicates_alone(settings, table)
        scale = replication_scale(settings.replicate_scale, len(settings.replicate_weights))
    scaled = parts if survey is None else scaled_weights(parts, table.variables, settings.weights_scale)
    parts = with_replication(parts, scaled, scale) if settings.replicate_weights else scaled
    if settings.method == "MLR":
        parts = tuple(replace(part, by_cluster=True) for part in parts)
    if grouping is None:
        return (_of_rows(table, "", parts[0]),)
    groups = []
    for number, (label, rows) in enumerate(zip(table.group_labels, parts, strict=True), 1):
        try:
            groups.append(_of_rows(table, label, rows, number))
        except DataError as error:
            raise DataError(f"group {label!r}: {error}") from None
    return tuple(groups)


def _of_rows(table: ParameterTable, label: str, data: ClusteredData, number: int = 1) -> Group:
    found: list[Finding] = []
    statistics = statistics_of_rows(table, data, number, found if label else None)
    return Group(statistics, label, data, findings=tuple(found))


@read_statistics.register
def _(
    data: LevelMoments, table: ParameterTable, settings: Settings, grouping: Grouping | None
) -> tuple[Group, ...]:
    depth = len(data.levels)
    if not table.multilevel:
        blocks = " and ".join(f"'level: {level}'" for level in range(1, depth + 1))
        raise ModelError(
            f"the model has one level but LevelMoments have {NUMBERS[depth]}: add {blocks} blocks, or give one "
            "level's matrix as sample_cov="
        )
    if table.nlevels != depth:
        raise ModelError(
            f"the model has {number_of_levels(table.nlevels)} and these moments have {NUMBERS[depth]}: give a matrix "
            "for every level of the model, msem.LevelMoments.of_levels([...], units=...)"
        )
    data.require(*table.variables.levels)
    if data.weighted:
        raise DataError(
            "these moments were estimated from data with weights or a complex design, and a joint fit would take its "
            "errors from numbers of units and clusters: fit the data with weights=, or each level by itself with "
            "msem.segregated(model, moments), whose errors come from the moments' Gamma"
        )
    if data.incomplete:
        raise DataError(
            "these moments were estimated from data with holes, and a joint fit would take them for moments of "
            'complete data, with errors that are too small: fit the data with missing="fiml", or each level by '
            "itself with msem.segregated(model, moments), whose errors hold"
        )
    part = data.expected_statistics.with_variables(table.variables)
    return (Group(part, given_as=data.given_as, maximum=data.converged),)


@read_statistics.register
def _(
    data: OrderedMoments, table: ParameterTable, settings: Settings, grouping: Grouping | None
) -> tuple[Group, ...]:
    require_two_levels(table, "moments of ordered variables")
    cuts = [table.thresholds(level) for level in range(1, table.nlevels + 1)]
    statistics = data.statistics(table.variables, cuts)
    data.require_covariates([table.exogenous(level) for level in range(1, table.nlevels + 1)])
    return (Group(statistics, given_as="moments of ordered variables"),)


@read_statistics.register
def _(
    data: ClusterStatistics, table: ParameterTable, settings: Settings, grouping: Grouping | None
) -> tuple[Group, ...]:
    found: list[Finding] = []
    require_levels_of_clusters(data, table.nlevels)
    statistics: Statistics
    if data.has_inner:
        statistics = nested_of(table, data, 1, found)
    elif table.slopes():
        statistics = statistics_of_slopes(table, data)
    elif table.multilevel:
        statistics = two_level(data, table.variables, found=found)
    else:
        statistics = single_level(data, table.observed(1), found=found)
    return (Group(statistics, summary=data, given_as=GIVEN_AS["clusters"], findings=tuple(found)),)


@read_statistics.register
def _(
    data: SampleStatistics, table: ParameterTable, settings: Settings, grouping: Grouping | None
) -> tuple[Group, ...]:
    if not table.multilevel:
        given_as = GIVEN_AS.get(data.source, "statistics")
        return (Group(data.with_variables(table.variables), given_as=given_as),)
    require_two_levels(table, "statistics by cluster size")
    if not data.unit:
        raise ModelError("the model has two levels but these are statistics of a single-level sample")
    return (Group(data.with_variables(table.variables), given_as=GIVEN_AS.get(data.source, data.source)),)


def require_levels_of_clusters(data: ClusterStatistics, nlevels: int) -> None:
    """Refuse statistics of clusters of other kinds than a model has.

    Raises
    ------
    ModelError
    """
    words, kinds = number_of_levels(nlevels), len(data.cluster) if data.has_inner else 1
    if kinds == max(nlevels - 1, 1):
        return
    if data.has_inner:
        raise ModelError(
            f"the model has {words} and these are statistics of clusters within clusters, {data.cluster_text}: a model "
            f"of them has blocks up to 'level: {kinds + 1}'; for fewer levels summarize by fewer columns, such as "
            f"cluster={data.cluster[0]!r}"
        )
    raise ModelError(
        f"the model has {words} and these are statistics of clusters of one kind, {data.cluster_text}: summarize by "
        "those of all kinds, msem.summarize(data, cluster=[...], keep_clusters=True)"
    )


def _require_replicates_alone(settings: Settings, table: ParameterTable) -> None:
    """Refuse a design beside the replicate weights that stand for it."""
    for role in ("psu", "strata", "fpc", *(() if table.multilevel else ("cluster",))):
        if getattr(settings, role):
            raise DataError(
                f"replicate weights say how units were drawn: leave out {role}={getattr(settings, role)!r}"
            )


def require_columns_of_levels(table: ParameterTable, settings: Settings) -> None:
    """Refuse more or fewer columns of clusters than a model has levels above the first.

    Raises
    ------
    ModelError
    """
    columns = settings.cluster_columns
    above = table.nlevels - 1
    if above == 1 and not columns:
        raise ModelError('the model has two levels: name the column with the cluster ids, cluster="..."')
    if above > 1 and len(columns) < above:
        given = (
            f"cluster={settings.cluster_text} names {NUMBERS[len(columns)]}"
            if columns
            else "cluster= names none"
        )
        every, example = "both", '["school", "class"]'
        if above > 2:
            every, example = "all", '["district", "school", "class"]' if above == 3 else "[...]"
        raise ModelError(
            f"the model has {number_of_levels(table.nlevels)}, which takes {NUMBERS[above]} columns of clusters, and "
            f"{given}: name {every}, the highest first, as in cluster={example}"
            + ("; or, if neither lies within the other, cluster='pupil * school'" if above == 2 else "")
        )
    if len(columns) > max(table.nlevels - 1, 1):
        most = max(table.nlevels - 1, 1)
        lacking = " and ".join(f"'level: {k}'" for k in range(table.nlevels + 1, len(columns) + 2))
        raise ModelError(
            f"cluster={settings.cluster_text} names {len(columns)} columns, and the model has "
            f"{number_of_levels(table.nlevels)}: "
            + (
                f"add {lacking} to the model, or name {most} column{'s' if most > 1 else ''} only"
                if len(columns) < DEEPEST
                else f"models have up to {NUMBERS[DEEPEST]} levels; leave out a column"
            )
        )


def require_cluster_columns(table: ParameterTable, settings: Settings) -> None:
    """Refuse a model that has other levels than there are columns of clusters, or has them in another order.

    Raises
    ------
    ModelError
    """
    require_columns_of_levels(table, settings)
    if table.syntax is None or table.nlevels < 2:
        return
    columns = settings.cluster_columns
    named = {column: table.nlevels - k for k, column in enumerate(columns)}
    headers = header_levels(table.syntax)
    plain = {header for header in headers if header.isdigit() or header.casefold() in LEVEL_HEADERS}
    beside = [header for header in headers if header in named]
    for header, level in headers.items():
        block = next(one for one in table.syntax.blocks if header in (one.level, one.block))
        if named.get(header, level) != level:
            message = (
                f"'{header}' is the column of the clusters of level {named[header]}, and this is level {level}: levels "
                f"without a number are taken in order, the lowest first; write 'level: {named[header]}'"
            )
            raise ModelError(table.syntax.locate(block.at, message))
        if header in plain or header in named:
            continue
        # of two levels, names of the user's own cannot be taken for another level
        near = difflib.get_close_matches(header, named, n=1) if table.nlevels > 2 else []
        near += difflib.get_close_matches(
            header.casefold(), ("within", "between")[: 4 - table.nlevels], n=1, cutoff=0.8
        )
        if near or (level > 1 and table.nlevels > 2 and beside):
            known = ", ".join(map(repr, reversed(named)))
            meant = f"did you mean 'level: {near[0]}'?" if near else f"the columns of clusters are {known}"
            message = (
                f"'level: {header}' is neither the number of a level nor a column of cluster={settings.cluster_text}: "
                f"{meant}"
            )
            raise ModelError(table.syntax.locate(block.at, message))


def has_rows(data: Any) -> bool:
    """Whether data have rows, rather than being moments or statistics, or some of them by group."""
    return all(one.has_rows for one in each_given(data))


def known_categories(data: Any) -> dict[str, Any]:
    """Categories of ordered variables that moments know; empty for what else is given."""
    found = [one.known_categories for one in each_given(data) if one.known_categories]
    for one in found[1:]:
        for name, labels in found[0].items():
            if len(one.get(name, ())) != len(labels):
                raise DataError(f"{name!r} does not have the same categories in the moments of all groups")
    return dict(found[0]) if found else {}


def implied_statistics(data: Any) -> bool:
    """Whether statistics are expectations under moments, which have no observed information."""
    return any(one.expectations for one in each_given(data))


def with_cluster(settings: Settings, data: Any) -> Settings:
    """The settings with what statistics of clusters know of their rows, which counts as if it had been named."""
    known = next((one.known_options for one in each_given(data) if one.known_options), None)
    return settings if known is None else replace(settings, **known)


def by_group(data: Any, settings: Settings) -> Mapping[str, tuple[Any, Settings]]:
    """Moments of each group by its label, with the settings about them, where they are given so; empty otherwise.

    Raises
    ------
    DataError
        If they are not given for the same groups.
    """
    if isinstance(data, Mapping) and not has_rows(data):
        labels = _labels({"data": data})
        _require_told_apart(labels)
        return {text_of(label): (data[label], settings) for label in labels}
    if not isinstance(settings.sample_cov, Mapping):
        return {}
    names = ("sample_cov", "sample_nobs", "sample_mean")
    given = {name: getattr(settings, name) for name in names}
    out = {}
    labels = _labels(given)
    _require_told_apart(labels)
    for label in labels:
        own = {name: one[label] for name, one in given.items() if one is not None}
        out[text_of(label)] = data, replace(settings, **own)
    return out


def given_labels(data: Any, settings: Settings, grouping: Grouping | None) -> tuple[str, ...] | None:
    """Labels of the groups of a sample; None for one group."""
    return tuple(by_group(data, settings)) or None if grouping is None else grouping.labels


def require_rows_for_holes(data: Any, settings: Settings) -> None:
    """Refuse full information from moments, which have no holes.

    Raises
    ------
    DataError
    """
    if settings.incomplete and (settings.sample_cov is not None or not has_rows(data)):
        raise DataError(
            f'missing="{settings.missing}" is for raw data: moments have no missing values; leave it out'
        )


def _labels(given: Mapping[str, Any]) -> list[Any]:
    """Labels that all mappings have; None stands for what is not given."""
    (first, whole), *others = given.items()
    for name, part in others:
        if part is not None and (not isinstance(part, Mapping) or set(part) != set(whole)):
            raise DataError(
                f"{first} is given for the groups {listed(list(whole))}: give {name} for the same groups, as a dict"
            )
    if len(whole) == 1:
        raise DataError(f"{first} is given for one group only, {listed(list(whole))}: give it without a dict")
    for label, one in whole.items():
        if what_is_given(one).has_rows and not isinstance(one, pd.DataFrame):
            raise DataError(f"{first} of group {label!r} is a {type(one).__name__}; all groups need moments")
    return list(whole)


def _require_told_apart(labels: Sequence[Any]) -> None:
    """Refuse labels that are different keys of a dict and the same text."""
    texts = [text_of(label) for label in labels]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise DataError(f"two groups have the label {twice!r}: give them labels that are different as text")


def _of_group(table: ParameterTable, label: str, data: Any, settings: Settings) -> Group:
    try:
        (group,) = _read_groups(data, table, settings, None)
    except DataError as error:
        raise DataError(f"group {label!r}: {error}") from None
    return replace(group, label=label)


def left_out(sample: Sample, settings: Settings, grouping: Grouping | None) -> Iterator[tuple[int, str]]:
    """How many rows have no group, no cluster id or, with holes, nothing or not what they must have."""
    if grouping is not None and grouping.missing:
        yield grouping.missing, f"group ({grouping.column})"
    if all(group.data is None for group in sample.groups):
        return
    origin = sample.origin
    if origin.dropped_no_cluster:
        yield origin.dropped_no_cluster, f"cluster id ({settings.cluster_text})"
    if settings.incomplete and origin.dropped_empty:
        yield origin.dropped_empty, "observed value"
    if settings.incomplete and origin.dropped_rows:
        counts = ", ".join(f"{name} {count}" for name, count in origin.dropped.items())
        integrated = settings.parameterization == "theta" and settings.weighting is None
        needed = (
            "continuous variable, as ordered ones by maximum likelihood need"
            if integrated
            else "fixed covariate"
        )
        yield origin.dropped_rows, f"value of a {needed} ({counts})"


def group_rows(data: Any, column: str | None) -> Grouping | None:
    """The groups of data; None if no column is named.

    Raises
    ------
    DataError
        If the data have no rows, or see `read_groups`.
    """
    if column is None:
        return None
    if data is None or not what_is_given(data).has_rows:
        raise DataError(
            f"group={column!r} names a column of raw data; give moments of several groups as a dict: "
            '{"one": moments, "other": moments}'
        )
    if not has_rows(data):
        raise DataError(
            f"group={column!r} names a column of raw data; moments by group have labels: leave it out"
        )
    return read_groups(data, column)


def _require_used(data: Any, table: ParameterTable, settings: Settings) -> None:
    """Refuse arguments that would have no effect."""
    moments = not what_is_given(data).has_rows
    if moments and settings.cluster is not None:
        raise DataError(
            f"cluster={settings.cluster!r} is for raw data; moments have their clusters: leave it out"
        )
    survey = survey_columns(settings)
    if survey is not None and (moments or settings.sample_cov is not None):
        raise DataError(f"{survey.named} names a column of raw data, and these are moments: leave it out")
    given = {
        "sample_mean": settings.sample_mean is not None,
        "sample_nobs": settings.sample_nobs is not None,
        "sample_cov_rescale": not settings.sample_cov_rescale,
    }
    unused = [name for name, is_given in given.items() if is_given and settings.sample_cov is None]
    if unused and (table.multilevel or data is not None):
        what = "moments" if moments else "data"
        raise DataError(f"{unused[0]} belongs to sample_cov and has no effect on {what}: leave it out")


def require_rows_of_data(data: Any) -> None:
    """Refuse a covariance matrix, or several data sets, in the place of data.

    Raises
    ------
    DataError
        If the rows of a data frame are named as its columns are.
    """
    if isinstance(data, list | tuple) and not len(data):
        raise DataError("the data are an empty list: give a data frame")
    if isinstance(data, list | tuple):
        raise DataError(
            "these are several data sets: fit the model to each and pool the fits, "
            "msem.pool([msem.sem(model, data) for data in imputations])"
        )
    if isinstance(data, pd.DataFrame) and not isinstance(data.index, pd.RangeIndex):
        rows, columns = list(data.index), list(data.columns)
        if rows and len(rows) == len(columns) and set(rows) == set(columns):
            raise DataError(
                "the rows of the data are named as the columns are, so this is a covariance matrix: give it as "
                "sample_cov= with sample_nobs=, or a matrix for each level of a model as msem.LevelMoments"
            )


def _require_latent_names(table: ParameterTable, columns: Collection[str]) -> None:
    """Refuse latent variables with the name of a column: one of the two is meant, and which is not known."""
    for row in table.rows:
        name, what = (row.slope, "random slope") if row.slope else (row.lhs, "latent variable")
        if (row.slope or row.op == "=~") and name in columns:
            message = (
                f"'{name}' is a {what} of the model and a column of the data; give the {what} another name, or leave "
                "the column out of the data"
            )
            if table.syntax is not None and row.at is not None:
                message = table.syntax.locate(row.at, message)
            raise ModelError(message)


def _warn_of_products(table: ParameterTable, columns: Collection[str]) -> None:
    """Point out a label that is used nowhere else and is a column of the data: it may be meant as a factor."""
    expressions = [one.text for one in table.syntax.constraints] if table.syntax is not None else []
    paths: dict[str, set[tuple[int, str, str]]] = {}
    for row in table.rows:
        if row.label in columns:
            paths.setdefault(row.label, set()).add(
                (row.level, row.lhs, row.rhs) if row.op == "~" else (0, "", "")
            )
    for label, found in paths.items():
        (_, lhs, rhs), *others = found
        if (
            lhs
            and not others
            and not any(re.search(rf"\b{re.escape(label)}\b", text) for text in expressions)
        ):
            warn(
                f"in '{lhs} ~ {label}*{rhs}' {label!r} is the label of the path from {rhs!r}, and not the column of "
                f"the data: a product of variables is a column to be added, such as {label}_{rhs}, and a random slope "
                f'is rv("{label}")*{rhs}',
                DataWarning,
            )


def _of_covariance(data: Any, table: ParameterTable, settings: Settings) -> Group:
    """Statistics of a single-level sample given by its moments."""
    if table.multilevel:
        raise ModelError(
            "sample_cov is for single-level models; give the matrices of a two-level model as "
            "msem.LevelMoments(within_cov=..., between_cov=..., nobs=..., nclusters=...)"
        )
    if data is not None:
        raise DataError("give either data or sample_cov, sample_mean and sample_nobs, not both")
    if settings.cluster is not None:
        raise DataError(
            f"cluster={settings.cluster!r} names a column of raw data: leave it out with sample_cov"
        )
    if table.meanstructure and settings.sample_mean is None:
        raise DataError(
            "the model has a mean structure: give sample_mean=, or drop the intercepts from the model (several "
            "groups have means unless meanstructure=False)"
        )
    whole = moment_statistics(
        settings.sample_cov, settings.sample_mean, settings.sample_nobs, rescale=settings.sample_cov_rescale
    )
    names = table.observed(1)
    absent = [name for name in names if name not in whole.cluster]
    if absent:
        raise DataError(f"sample_cov has no variable {absent[0]!r}; it has {', '.join(whole.cluster)}")
    return Group(whole.with_variables(Variables.of_one_level(names)), given_as="sample covariance matrix")
