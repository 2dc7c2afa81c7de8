"""Ordered variables: columns of categories as numbers, and what the first stage of estimation makes of them.

The first stage estimates thresholds, means, variances, slopes on fixed covariates, and covariances of the continuous
variables that ordered ones are cut from, one variable and one pair at a time, with the covariance matrix of all of
these estimates (Olsson, 1979; Muthen, 1984). Models are fitted to them by least squares, and the rows are not needed
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.columns import column_names, read_frame, select_columns
from msem.data.complete import SampleStatistics
from msem.data.first_stage import FirstStage, Statistic
from msem.data.rows import ClusteredData
from msem.data.statistics import Saturated, Statistics
from msem.data.survey import Sampled, independent_rows
from msem.distributions import normal_quantile
from msem.errors import DataError, DataWarning, UnsupportedError, warn
from msem.model.variables import Variables

Floats = NDArray[np.float64]

MOST = 20  # categories
NO_VARIANCE = 1e-3  # share of the within variance below which one between clusters is taken for none
DEPENDENT = 0.1  # share of the largest element of a direction that is not told apart
SHOWN = 4  # estimates that a message names
FEW = 7  # distinct whole numbers up to which a variable looks ordered


@dataclass(frozen=True, eq=False)
class OrderedColumns:
    """A frame whose ordered columns are numbers of categories.

    Attributes
    ----------
    data : object
        The frame; what was given if there is nothing ordered.
    categories : mapping of str to sequence
        Of each ordered variable, ascending.
    """

    data: Any
    categories: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def thresholds(self) -> dict[str, int]:
        """How many thresholds each ordered variable has."""
        return {name: len(labels) - 1 for name, labels in self.categories.items()}


def ordered_columns(data: Any, names: Sequence[str], asked: Sequence[str]) -> OrderedColumns:
    """Number the categories of ordered variables.

    Parameters
    ----------
    data : data frame, or what else a user gives
    names : sequence of str
        Variables of the model, latent ones among them.
    asked : sequence of str
        Variables that are ordered. Ordered categorical columns of a pandas frame are, whether asked for or not.

    Raises
    ------
    DataError
        If a variable is not in the model, or has one category only, or more than `MOST`, or an empty one.
    """
    if not asked and isinstance(data, pd.DataFrame) and not any(map(_has_order, data.dtypes)):
        return OrderedColumns(data)
    known = set(map(str, column_names(data)))
    unknown = next((name for name in asked if name not in names or name not in known), None)
    if unknown is not None:
        where = "the model" if unknown not in names else "the data"
        raise DataError(f"ordered names {unknown!r}, which is not a variable of {where}")
    columns = select_columns(data, [name for name in names if name in known])
    chosen = [name for name in columns if name in asked or _is_ordered(columns[name])]
    if not chosen:
        return OrderedColumns(data)
    coded = {name: _coded(name, columns[name]) for name in chosen}
    _point_out(columns, chosen)
    categories = {name: labels for name, (labels, _) in coded.items()}
    return OrderedColumns(
        _with_columns(data, {name: codes for name, (_, codes) in coded.items()}), categories
    )


def _is_ordered(series: nw.Series[Any]) -> bool:
    native = series.to_native()
    return isinstance(native, pd.Series) and _has_order(native.dtype)


def _has_order(kind: object) -> bool:
    return isinstance(kind, pd.CategoricalDtype) and bool(kind.ordered)


def _coded(name: str, series: nw.Series[Any]) -> tuple[Sequence[Any], Floats]:
    """Categories and their numbers, nan where missing."""
    native = series.to_native()
    if not isinstance(native, pd.Series):
        native = pd.Series(series.to_list() if series.dtype == nw.Enum else series.to_numpy())
        if series.dtype == nw.Enum:
            native = native.astype(pd.CategoricalDtype(series.cat.get_categories().to_list(), ordered=True))
    if isinstance(native.dtype, pd.CategoricalDtype):
        labels = list(native.cat.categories)
        codes = native.cat.codes.to_numpy().astype(np.float64)
        codes[codes < 0] = np.nan
        if not native.dtype.ordered and not all(isinstance(label, (int, float)) for label in labels):
            raise DataError(
                f"the categories of {name!r} have no order: make it an ordered categorical, "
                f"pandas.Categorical(..., ordered=True)"
            )
        empty = [label for k, label in enumerate(labels) if not (codes == k).any()]
        if empty and len(empty) < len(labels):
            raise DataError(
                f"category {empty[0]!r} of {name!r} is empty: leave it out with .cat.remove_unused_categories()"
            )
    else:
        present = native[native.notna()]
        try:
            labels = sorted(present.unique().tolist())
        except TypeError:
            raise DataError(
                f"the values of {name!r} cannot be put in order: give numbers or an ordered categorical"
            ) from None
        text = next((value for value in labels if isinstance(value, str)), None)
        if text is not None:
            raise DataError(
                f"the values of {name!r} are texts such as {text!r}, which have no order: make it an ordered "
                "categorical, pandas.Categorical(..., ordered=True)"
            )
        codes = native.map({label: float(k) for k, label in enumerate(labels)}).to_numpy(dtype=np.float64)
    if len(labels) < 2:
        raise DataError(f"{name!r} has one category only{f', {labels[0]!r}' if labels else ''}: leave it out")
    if len(labels) > MOST:
        raise DataError(
            f"{name!r} has {len(labels)} categories, more than {MOST}: take it as continuous, or merge some"
        )
    return labels, codes


def _point_out(columns: Mapping[str, nw.Series[Any]], chosen: Sequence[str]) -> None:
    """Say once which variables look ordered and were not named."""
    found = []
    for name, series in columns.items():
        if name in chosen or not (series.dtype.is_integer() or series.dtype == nw.Boolean):
            continue
        count = series.n_unique()
        if 2 < count <= FEW:
            found.append(f"{name} ({count} values)")
    if found:
        warn(
            f"{', '.join(found)} hold few whole numbers and are taken as continuous: name them in ordered= if they are "
            "categories",
            DataWarning,
        )


def _with_columns(data: Any, columns: Mapping[str, Floats]) -> Any:
    """The frame with other columns of some names."""
    if isinstance(data, pd.DataFrame):
        return data.assign(**columns)
    if isinstance(data, Mapping):
        return {**data, **columns}
    table = read_frame(data)
    frame = table.collect() if isinstance(table, nw.LazyFrame) else table
    new = [nw.new_series(name, values, backend=frame.implementation) for name, values in columns.items()]
    return frame.with_columns(*new).to_native()


@dataclass(frozen=True, eq=False)
class Thresholded(Saturated):
    """Moments of the variables that ordered ones are cut from, with those of their thresholds for starting values.

    Attributes
    ----------
    thresholds : tuple of ndarray
        Of each level, in the order of the model.
    """

    thresholds: tuple[Floats, ...] = ()

    @property
    def moments(self) -> list[tuple[Floats, Floats]]:
        """Means and covariances by level; thresholds are means of variables of their own."""
        out = []
        for (_, m), cuts in zip(sorted(self.levels.items()), self.thresholds, strict=True):
            n, k = len(m.mean), len(cuts)
            cov = np.eye(n + k)
            cov[:n, :n] = m.cov
            out.append((np.append(m.mean, cuts), cov))
        return out


@dataclass(frozen=True, eq=False)
class OrderedStatistics(SampleStatistics):
    """The statistics of a sample of one level with ordered variables: those of the first stage.

    The sums of squares are those of the numbers of the categories, and serve nothing but counts.

    Attributes
    ----------
    stage : FirstStage
    joint : Saturated
        Moments of all variables, joint with the covariates.
    categories : mapping of str to sequence
        Labels of the categories.
    """

    stage: FirstStage = field(kw_only=True)
    joint: Saturated = field(kw_only=True)
    categories: Mapping[str, Sequence[Any]] = field(kw_only=True)

    @property
    def first_stage(self) -> FirstStage:
        """Estimates of thresholds and correlations."""
        return self.stage

    @property
    def ordered(self) -> tuple[str, ...]:
        """Variables whose values are categories."""
        return self.stage.ordered

    @property
    def labels(self) -> Mapping[str, Sequence[Any]]:
        """Their categories, ascending."""
        return self.categories

    @property
    def stand_in(self) -> Saturated:
        """The moments of the first stage."""
        return self.joint

    def likelihood(self, *, by_cluster: bool = False) -> NoReturn:
        """There is none."""
        raise UnsupportedError(
            "this needs a likelihood, and models of ordered variables are fitted by least squares in this version"
        )

    def clusters(self, rows: Any) -> NoReturn:
        """There are no contributions to a likelihood."""
        self.likelihood()

    def centred(self) -> OrderedStatistics:
        """The same: thresholds have no centre."""
        return self

    def marginal(self, names: Sequence[Sequence[str]], rows: Any) -> NoReturn:
        """There are no contributions to a likelihood."""
        self.likelihood()

    def with_variables(self, variables: Variables) -> NoReturn:
        """The first stage is that of all variables."""
        raise UnsupportedError("the statistics of ordered variables are those of one model's variables")

    def redrawn(self, drawn: Any) -> NoReturn:
        """There is nothing to draw from."""
        self.likelihood()

    def design(self, levels: Any, fixed: Sequence[Sequence[str]], *, centred: bool) -> NoReturn:
        """There is nothing to draw from."""
        self.likelihood()


def ordered_statistics(
    statistics: SampleStatistics,
    rows: ClusteredData,
    categories: Mapping[str, Sequence[Any]],
    covariates: Sequence[Sequence[str]],
    thresholds: Sequence[Sequence[tuple[str, str]]],
    place: str = "",
) -> OrderedStatistics:
    """First stage of the rows of one group.

    Parameters
    ----------
    statistics : SampleStatistics
        Of the same rows, with the numbers of categories.
    rows : ClusteredData
        Rows that come in clusters are taken together by cluster for the covariance matrix.
    categories : mapping of str to sequence
        Of the ordered variables.
    covariates : sequence of sequences of str
        Fixed covariates of each level: everything is conditional on them.
    thresholds : sequence of sequences of (str, str)
        Ordered variable and name of each threshold, by level in the order of the model.
    place : str
        Addition to messages that says which group it is.

    Raises
    ------
    DataError
        If a category is empty, covariates separate the categories of a variable, a variable does not vary between
        clusters, or no row has a pair of them.
    """
    columns = _columns(statistics, rows, covariates)
    names = (*columns.unit, *columns.cluster)
    for name, column in zip(names, columns.by_variable, strict=True):
        if name in categories:
            check_counts(name, column[~np.isnan(column)], categories[name], place)
    found = _estimated(columns, categories)
    cuts = {name: len(labels) - 1 for name, labels in categories.items()}
    two = len(covariates) > 1
    keys = first_stage_keys(statistics.variables, covariates, cuts)
    if found["unsettled"]:
        raise _unsettled(names[found["unsettled"][0]], keys, found["estimates"], columns, place)
    pairs = [(names[j], names[i]) for j in range(len(names)) for i in range(j + 1, len(names))]
    if found["unknown"]:
        a, b = pairs[found["unknown"][0]]
        raise DataError(
            f"{a!r} and {b!r} have no covariance{place}: too few rows or clusters have a value of both; leave one of "
            "them out"
        )
    influence = _influence(found, columns.sampled, keys)
    clusters = 0 if two else len(set(columns.codes))
    stage = FirstStage(
        keys,
        found["estimates"],
        _covariance(found, clusters, keys) if influence is None else influence.T @ influence,
        names,
        tuple(name for own in covariates for name in own),
        tuple(name for name in names if name in categories),
        tuple(pairs[k] for k in found["at_bound"]),
        influence,
    )
    own = {f.name: getattr(statistics, f.name) for f in fields(SampleStatistics)}
    of_level1 = rows.overall_weights
    given = covariate_moments((columns.x, columns.z), covariates, (of_level1, columns.cluster_weights))
    joint = joint_moments(stage, statistics.variables, given, covariates, thresholds)
    return OrderedStatistics(**own, stage=stage, joint=joint, categories=categories)


@dataclass(frozen=True, eq=False)
class _Columns:
    """What the first stage is of: variables of units and clusters, and covariates of both.

    Of a single level everything is of units.
    """

    unit: tuple[str, ...]
    cluster: tuple[str, ...]
    both: tuple[str, ...]
    covariates: tuple[tuple[str, ...], ...]
    units: Floats
    cluster_values: Floats
    x: Floats
    z: Floats
    codes: Sequence[int]
    weights: Floats | None = None
    cluster_weights: Floats | None = None
    sampled: Sampled | None = None  # with the number of its PSU for each row of scores

    @property
    def by_variable(self) -> list[Floats]:
        """Values of each variable, of units and then of clusters."""
        return [*self.units.T, *self.cluster_values.T]


def _columns(statistics: Statistics, rows: ClusteredData, covariates: Sequence[Sequence[str]]) -> _Columns:
    def of(names: Sequence[str]) -> Floats:
        return rows.values(tuple(names)) if names else np.zeros((len(next(iter(rows.columns.values()))), 0))

    given = tuple(map(tuple, covariates))
    if len(given) == 1:
        unit = tuple(name for name in statistics.cluster if name not in given[0])
        codes = [] if rows.cluster_count is None else rows.cluster_of_row.tolist()
        sampled = rows.sampled
        if sampled is not None and sampled.psu is not None and not codes:
            psus, own = np.unique(sampled.psu, return_inverse=True)
            codes, sampled = own.tolist(), replace(sampled, psu=psus)
        none = np.zeros((0, 0))
        weights = rows.overall_weights
        return _Columns(
            unit, (), (), given, of(unit), none, of(given[0]), none, codes, weights, None, sampled
        )
    unit = tuple(name for name in statistics.unit if name not in given[0])
    cluster = tuple(name for name in statistics.cluster if name not in given[1])
    codes = rows.cluster_of_row
    clusters = len(rows.clusters)  # the sum of their weights is that only but for rounding

    def of_clusters(names: Sequence[str]) -> Floats:
        out = np.full((clusters, len(names)), np.nan)
        for k, column in enumerate(of(names).T):
            known = ~np.isnan(column)
            out[codes[known], k] = column[known]
        return out

    both = statistics.variables.both
    return _Columns(
        unit,
        cluster,
        both,
        given,
        of(unit),
        of_clusters(cluster),
        of(given[0]),
        of_clusters(given[1]),
        codes.tolist(),
        None if rows.weights is None or (rows.weights == 1).all() else rows.weights,
        None if rows.sampled is None else rows.sampled.weights,
        rows.sampled,
    )


def first_stage_influence(
    statistics: Statistics, rows: ClusteredData, covariates: Sequence[Sequence[str]]
) -> Floats:
    """What each cluster, or each row that comes in none, adds to the estimates of the first stage, shape (J, m).

    As often as it counts; the sum is zero. The estimates are made again: the scores of single units are not kept.

    Parameters
    ----------
    statistics : Statistics
        Of a first stage.
    rows : ClusteredData
        That they are of.
    covariates : sequence of sequences of str
        Fixed covariates of each level.
    """
    first = statistics.first_stage
    assert first is not None
    columns = _columns(statistics, rows, covariates)
    if len(covariates) == 1 and rows.cluster_count is None:
        columns = replace(columns, codes=list(range(len(columns.units))))
    found = _estimated(columns, statistics.labels)
    return _over_bread(found["bread"], found["scores"].T, first.keys).T


def _estimated(columns: _Columns, categories: Mapping[str, Sequence[Any]]) -> _core.FirstStageParts:
    names, nothing = (*columns.unit, *columns.cluster), np.empty(0)
    counts = [len(categories[name]) if name in categories else 0 for name in names]
    of_rows = [columns.weights if name in columns.unit else columns.cluster_weights for name in names]
    starts = [
        _starts(column, k, own) for column, k, own in zip(columns.by_variable, counts, of_rows, strict=True)
    ]
    weights = nothing if columns.weights is None else columns.weights
    if len(columns.covariates) == 1:
        return _core.first_stage(columns.units, columns.x, counts, columns.codes, starts, weights)
    both = [int(name in columns.both) for name in columns.unit]
    return _core.two_level_first_stage(
        columns.units,
        columns.x,
        columns.codes,
        columns.cluster_values,
        columns.z,
        counts,
        both,
        starts,
        weights,
        nothing if columns.cluster_weights is None else columns.cluster_weights,
    )


def _unsettled(
    name: str, keys: Sequence[Statistic], values: Floats, columns: _Columns, place: str
) -> DataError:
    """Why a variable has no maximum."""
    value = dict(zip(keys, values, strict=True))
    within = value.get(Statistic(name, "~~", name, 1), 1.0)
    between = value.get(Statistic(name, "~~", name, 2), np.inf)
    if name in columns.both and between < NO_VARIANCE * within:
        perhaps = (
            " given the covariates, unless these separate its categories" if any(columns.covariates) else ""
        )
        return DataError(
            f"{name!r} does not vary between clusters{perhaps}{place}: its between variance is at 0, so that it has no "
            "part at level 2; leave it out of level 2, so that it is a variable of level 1 only"
        )
    return DataError(
        f"the regression of {name!r} on the covariates has no maximum{place}: they separate its categories, or it does "
        "not vary given them"
    )


def check_counts(name: str, column: Floats, labels: Sequence[Any], place: str) -> None:
    """That every category is there, and whether one is there once.

    Parameters
    ----------
    name : str
    column : ndarray
        Numbers of the categories, none missing.
    labels : sequence
    place : str
        Addition to messages that says which group it is.

    Raises
    ------
    DataError
        If a category is empty.
    """
    count = np.bincount(column.astype(np.intp), minlength=len(labels))
    empty = next((label for label, n in zip(labels, count, strict=True) if n == 0), None)
    if empty is not None:
        raise DataError(
            f"category {empty!r} of {name!r} is empty{place} once rows with missing values are left out: merge it with "
            "a neighbour"
        )
    once = next((label for label, n in zip(labels, count, strict=True) if n == 1), None)
    if once is not None:
        warn(
            f"category {once!r} of {name!r} is seen once{place}: its threshold and correlations rest on one row; "
            "merge it with a neighbour",
            DataWarning,
        )


def _starts(column: Floats, categories: int, weights: Floats | None) -> Floats:
    """Thresholds without covariates."""
    known = ~np.isnan(column)
    own = None if weights is None else weights[known]
    shares = [float(np.average(column[known] <= k, weights=own)) for k in range(categories - 1)]
    return np.array([float(normal_quantile(share)) for share in shares], dtype=np.float64)


def first_stage_keys(
    variables: Variables, covariates: Sequence[Sequence[str]], thresholds: Mapping[str, int]
) -> tuple[Statistic, ...]:
    """What the first stage estimates: variable by variable, then pair by pair.

    Parameters
    ----------
    variables : Variables
    covariates : sequence of sequences of str
        Fixed covariates of each level.
    thresholds : mapping of str to int
        How many each ordered variable has.
    """
    fixed = {name for own in covariates for name in own}
    places = {
        name: tuple(level for level, own in enumerate(variables.levels, 1) if name in own)
        for name in (*variables.unit, *variables.cluster)
        if name not in fixed
    }
    keys: list[Statistic] = []
    for name, own in places.items():
        count = thresholds.get(name, 0)
        keys += [Statistic(name, "|", f"t{k}", own[-1]) for k in range(1, count + 1)] or [
            Statistic(name, "~1", "", own[-1])
        ]
        keys += [Statistic(name, "~", x, level) for level in own for x in covariates[level - 1]]
        keys += [Statistic(name, "~~", name, level) for level in own if not count or level > own[0]]
    names = tuple(places)
    for j, a in enumerate(names):
        for b in names[j + 1 :]:
            keys += [Statistic(a, "~~", b, level) for level in places[a] if level in places[b]]
    return tuple(keys)


def _covariance(found: _core.FirstStageParts, clusters: int, keys: Sequence[Statistic]) -> Floats:
    """Bread^-1 meat bread^-T; with clusters times J / (J - 1), as for other single-level models."""
    half = _over_bread(found["bread"], found["meat"], keys)
    out = _over_bread(found["bread"], half.T, keys)
    correction = clusters / (clusters - 1) if clusters > 1 else 1.0
    result: Floats = 0.5 * correction * (out + out.T)
    return result


def _influence(
    found: _core.FirstStageParts, sampled: Sampled | None, keys: Sequence[Statistic]
) -> Floats | None:
    """With primary sampling units or strata, rows whose outer products are the covariance matrix; else None."""
    if sampled is None or sampled.design is None:
        return None
    return _over_bread(found["bread"], independent_rows(found["scores"], sampled).T, keys).T


def _over_bread(bread: Floats, columns: Floats, keys: Sequence[Statistic]) -> Floats:
    """Bread^-1 times columns.

    Raises
    ------
    DataError
        If there is no inverse.
    """
    known = np.isfinite(bread).all(axis=1) & (np.abs(bread.diagonal()) > 0)
    if not known.all():
        raise DataError(
            f"the first stage has no covariance matrix: the data say nothing about {_shown(keys, ~known)}. Leave the "
            "variable out, or merge categories that hardly occur"
        )
    scale = np.sqrt(np.abs(bread.diagonal()))
    metric = bread / np.outer(scale, scale)
    try:
        out: Floats = np.linalg.solve(metric, columns / scale[:, None])
    except np.linalg.LinAlgError:
        direction = np.abs(np.linalg.svd(metric)[2][-1])
        raise DataError(
            "the first stage has no covariance matrix: what the data say of these depends on each other, "
            f"{_shown(keys, direction > DEPENDENT * direction.max())}. Leave a variable out, or use more clusters"
        ) from None
    return out / scale[:, None]


def _shown(keys: Sequence[Statistic], which: NDArray[np.bool_]) -> str:
    """Some of the estimates in words, the first few."""
    kinds = {
        "|": "the threshold {0}|{1}",
        "~1": "the mean of {0}",
        "~": "the path {0} ~ {1}",
        "~~": "{0} ~~ {1}",
    }
    found = [
        kinds[key.op].format(key.lhs, key.rhs) + (f" of level {key.level}" if key.level > 1 else "")
        for key, one in zip(keys, which, strict=True)
        if one
    ]
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def covariate_moments(
    data: Sequence[Floats], covariates: Sequence[Sequence[str]], weights: Sequence[Floats | None]
) -> dict[int, LevelArrays]:
    """Means and covariances of the covariates of each level, each row as often as it counts."""
    out = {}
    for level, (names, x, given) in enumerate(zip(covariates, data, weights, strict=False), 1):
        k = len(names)
        share = np.full(len(x), 1 / max(len(x), 1)) if given is None else given / given.sum()
        centre = share @ x if k else np.zeros(0)
        cov = (x - centre).T @ (share[:, None] * (x - centre)) if k else np.zeros((0, 0))
        out[level] = LevelArrays(tuple(names), centre, cov, k)
    return out


def joint_moments(
    stage: FirstStage,
    variables: Variables,
    given: Mapping[int, LevelArrays],
    covariates: Sequence[Sequence[str]],
    thresholds: Sequence[Sequence[tuple[str, str]]],
) -> Thresholded:
    """Moments of variables and covariates of each level from those given the covariates."""
    value = dict(stage.items())
    levels, cuts = {}, []
    for level, (names, fixed, cut) in enumerate(
        zip(variables.levels, covariates, thresholds, strict=True), 1
    ):
        own = [name for name in names if name not in fixed]
        residual, slopes = np.eye(len(own)), np.zeros((len(own), len(fixed)))
        mean = np.zeros(len(own))
        for i, a in enumerate(own):
            mean[i] = value.get(Statistic(a, "~1", "", level), 0.0)
            slopes[i] = [value[Statistic(a, "~", c, level)] for c in fixed]
            for j, b in enumerate(own[: i + 1]):
                either = Statistic(b, "~~", a, level), Statistic(a, "~~", b, level)
                residual[i, j] = residual[j, i] = next((value[k] for k in either if k in value), 1.0)
        at = [given[level].at[name] for name in fixed]
        centre, spread = given[level].mean[at], given[level].cov[np.ix_(at, at)]
        cov = np.block(
            [[residual + slopes @ spread @ slopes.T, slopes @ spread], [spread @ slopes.T, spread]]
        )
        order = [[*own, *fixed].index(name) for name in names]
        means = np.append(mean + slopes @ centre, centre)
        levels[level] = LevelArrays(tuple(names), means[order], cov[np.ix_(order, order)], len(names))
        cuts.append(np.array([value[Statistic(a, "|", t, level)] for a, t in cut]))
    return Thresholded(levels, np.nan, 0, thresholds=tuple(cuts))
