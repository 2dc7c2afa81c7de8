"""Outcomes predicted from covariates, and from covariates and the random effects of their cluster.

At each level the expectation of the outcomes given covariates x is mu_y + S_yx S_xx^-1 (x - mu_x), with the moments
that the model implies. The upper part of a covariate that is at several levels is not observed: in its place stands its
posterior mean given the covariates of the cluster, which is the expectation of what follows linearly from it. A random
slope is one more outcome of the levels that it is a variable of, and its product with the covariate of each unit, or
cluster, is added where this is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.data.rows import ClusteredData
from msem.errors import DataError, UnsupportedError
from msem.estimation.solution import NOT_YET, Solution
from msem.model.levels import BETWEEN, WITHIN
from msem.model.slopes import Slope
from msem.model.variables import Variables
from msem.postestimation.factor_scores import (
    GroupColumns,
    fitted_model,
    ordered_parts,
    prediction_groups,
    unit_frame,
)
from msem.postestimation.posterior import GroupModel, cluster_scores
from msem.postestimation.rows import ClusterColumns, Rows, cluster_columns, new_rows, some_clusters

Floats = NDArray[np.float64]
ByLevel = dict[int, dict[str, Floats]]  # values of clusters by level and variable


def predict(
    fit: Solution,
    data: Any = None,
    *,
    random_effects: bool = False,
    cluster: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Predict the outcomes: their expectations given covariates, or given covariates and random effects of clusters.

    Outcomes are the observed variables that are not covariates only, indicators of latent variables included. Of an
    ordered one it is the expectation of the variable that thresholds cut into categories, as in lavaan;
    `category_probabilities` has probabilities.

    Parameters
    ----------
    data : data frame, optional
        Rows with the covariates and the group column, and the cluster column where it matters: for random effects, and
        with covariates whose part between clusters is latent. Otherwise every row is by itself, and covariates of
        clusters may vary from row to row. Default: the data of the fit.
    random_effects : bool
        Take the between parts of the variables from their posterior means given all data of the cluster, as
        `random_effects` has them (with ordered variables by least squares, modes, and of the data of the fit only); the
        outcomes must then be in the data too. Otherwise given covariates alone.
    cluster : str or sequence of str, optional
        Columns of clusters of the data, named as in `sem`; default: those of the fit.

    Returns
    -------
    DataFrame
        A row for each row of the data, with their index, and a column for each outcome; nan in rows that were left
        out for a missing value.

    Raises
    ------
    DataError
        If the model was fitted to moments and there are no data, or they lack a variable, the cluster or the group
        column.
    UnsupportedError
        With ordered variables and random effects, of new data or with random slopes.

    Notes
    -----
    Predictions with random effects, random slopes among them, are those of a mixed model (Robinson, 1991, Statistical
    Science, 6, 15-51): best linear unbiased ones with the estimates in the place of the parameters.
    """
    covariates = _covariates(fit)
    _require_given(fit)
    outcomes = [name for name in fit.sample.statistics[0].variables.names if name not in covariates]
    named = random_effects or data is None or cluster is not None
    apart = not named and _clusters_do_not_matter(fit, covariates)
    columns = None if apart else cluster_columns(fit, data, cluster)
    parts = []
    if fit.sample.statistics[0].ordered:
        return _responses(fit, data, outcomes, covariates, columns, random_effects=random_effects)
    if columns is not None and (random_effects or data is None):
        for label, model, rows in prediction_groups(fit, data, columns):
            effects = _effects(model, rows) if random_effects else None
            predicted = _predicted(model, rows.data, outcomes, covariates, effects)
            parts.append(GroupColumns(rows.data, predicted, label))
    else:
        for number, of_group in new_rows(fit, data, covariates, columns).items():
            predicted = _predicted(fitted_model(fit, number), of_group, outcomes, covariates, None)
            parts.append(GroupColumns(of_group, predicted, fit.sample.groups[number].label))
    return unit_frame(parts)


def _responses(
    fit: Solution,
    data: Any,
    outcomes: Sequence[str],
    covariates: Sequence[str],
    columns: ClusterColumns | None,
    *,
    random_effects: bool,
) -> pd.DataFrame:
    """Predictions of models with ordered variables."""
    groups = fit.sample.groups
    if random_effects and data is not None:
        raise UnsupportedError(
            f"predictions of ordered variables with random effects of new data: {NOT_YET}; without random_effects= "
            "they are given covariates alone"
        )
    rows = dict(enumerate(group.rows for group in groups))
    if data is not None:
        rows = new_rows(fit, data, covariates, columns)
    known = ordered_parts(fit, se=False) if random_effects and fit.table.multilevel else None
    parts = []
    for number, of_group in rows.items():
        effects = None if known is None else Upper({fit.table.nlevels: dict(known[number])}, {})
        model = fitted_model(fit, number, responses=True)
        predicted = _predicted(model, of_group, outcomes, covariates, effects)
        parts.append(GroupColumns(of_group, predicted, groups[number].label))
    return unit_frame(parts)


def fittedvalues(fit: Solution) -> pd.DataFrame:
    """Outcomes predicted from covariates and the random effects of the clusters, for the rows of the fit.

    Returns
    -------
    DataFrame
        See `predict`.
    """
    return predict(fit, random_effects=True)


def resid(fit: Solution) -> pd.DataFrame:
    """Outcomes less their fitted values, for the rows of the fit; residuals of moments are `residuals`.

    Returns
    -------
    DataFrame
        Shaped as `fittedvalues`; nan where the outcome was not observed.

    Raises
    ------
    UnsupportedError
        If an outcome is ordered.
    """
    ordered = fit.sample.statistics[0].ordered
    if ordered:
        raise UnsupportedError(
            f"{ordered[0]!r} is ordered: a category less the mean of what is cut into categories is no residual; "
            "residuals() has those of thresholds and correlations, category_probabilities() what is expected"
        )
    fitted = fittedvalues(fit)
    names = [str(name) for name in fitted]
    values = [
        GroupColumns(group.data, {name: group.data.columns[name] for name in names}, group.label)
        for group in fit.sample.groups
        if group.data is not None
    ]
    return unit_frame(values) - fitted


class Upper(NamedTuple):
    """What is known of the clusters.

    Attributes
    ----------
    means : ByLevel
        Posterior means of the parts of variables, and of random slopes if data of outcomes tell of them.
    joint : mapping of str to ndarray, shape (J,)
        Posterior covariances of random slopes, by name, with the parts between clusters of their covariates, for those
        that have such a part.
    """

    means: ByLevel
    joint: Mapping[str, Floats]


def _parted(model: GroupModel, parts: Collection[str]) -> list[Slope]:
    """Random slopes whose covariates have one of these parts between clusters."""
    return [slope for slope in model.slopes if slope.covariate in parts]


def _effects(model: GroupModel, rows: Rows) -> Upper:
    """Posterior moments of the parts of variables, and of random slopes, at each level above the first."""
    out: ByLevel = {}
    joint = {}
    for level in model.levels:
        unknown = model.parts(level) or any(level in slope.at for slope in model.slopes)
        if level > WITHIN and unknown:
            found = cluster_scores(model, rows, level)
            out[level] = dict(zip(found.names, found.mean.T, strict=True))
            for slope in _parted(model, model.parts(level)):
                pair = found.names.index(slope.name), found.names.index(slope.covariate)
                joint[slope.name] = found.cov[found.which, pair[0], pair[1]]
    return Upper(out, joint)


def _require_given(fit: Solution) -> None:
    """Refuse models in which a covariate of a random slope depends on another random slope."""
    for number in range(fit.table.ngroups):
        model = fitted_model(fit, number, responses=True)
        for level, moments in model.levels.items():
            for slope, effect in model.products(level):
                odd = [s for s, _ in model.products(level) if effect[moments.names.index(s.covariate)]]
                if odd:
                    raise UnsupportedError(
                        f"{odd[0].covariate!r} has the random slope {odd[0].name!r} and depends on the random slope "
                        f"{slope.name!r}: predictions of what depends on a product of slopes are not available in this "
                        "version"
                    )


def _covariates(fit: Solution) -> tuple[str, ...]:
    """Observed variables that only predict, at every level that they are at."""
    names = fit.sample.statistics[0].variables.names
    levels = range(1, fit.table.nlevels + 1)
    answers = {
        name
        for level in levels
        for name in fit.table.observed(level)
        if name not in fit.table.covariates(level)
    }
    return tuple(name for name in names if name not in answers)


def _predicted(
    model: GroupModel,
    data: ClusteredData,
    outcomes: Sequence[str],
    covariates: Sequence[str],
    effects: Upper | None,
) -> dict[str, Floats]:
    """Expectations of the outcomes in every row; `effects` are parts of variables by level and cluster."""
    upper = _parts_of_covariates(model, data, covariates) if effects is None else effects
    known = upper.means
    apart = data.codes is None
    codes = {
        level: np.arange(data.nobs) if level == WITHIN or apart else data.codes_of(level)
        for level in model.levels
    }
    variables, standing = model.statistics.variables, model.slopes
    parts: dict[int, dict[str, Floats]] = {}
    for level in sorted(model.levels, reverse=True):
        moments, first = model.levels[level], np.unique(codes[level], return_index=True)[1]
        own = {}
        for name in covariates:
            if name in variables.measured[level - 1]:
                _require_constant(name, data.columns[name], first[codes[level]])
                above = [at for at, values in known.items() if at > level and name in values]
                own[name] = data.columns[name][first] - sum(known[at][name][codes[at][first]] for at in above)
            elif name in variables.levels[level - 1]:
                own[name] = known[level][name]
        products = model.products(level)
        wanted = [*outcomes, *(slope.name for slope in standing if level in slope.at)]
        wanted += [slope.covariate for slope, _ in products if slope.covariate not in own]
        found = _regressed(moments, list(dict.fromkeys(wanted)), own, len(first))
        found |= {name: values for name, values in known.get(level, {}).items() if name in found}
        for slope, effect in products:
            size = sum(parts[at][slope.name][codes[at][first]] for at in slope.at)
            covariate = own[slope.covariate] if slope.covariate in own else found[slope.covariate]
            product = size * covariate
            if (
                slope.name in upper.joint and slope.covariate in own
            ):  # E s (x - b) = E s (x - E b) - Cov(s, b)
                product = product - upper.joint[slope.name][codes[BETWEEN][first]]
            for name, values in found.items():
                found[name] = values + effect[moments.names.index(name)] * product
        parts[level] = found
    return {
        name: sum(
            (parts[at][name][codes[at]] for at in sorted(parts) if name in parts[at]), np.zeros(data.nobs)
        )
        for name in outcomes
    }


def _clusters_do_not_matter(fit: Solution, covariates: Sequence[str]) -> bool:
    """Whether every covariate stands at the level that it is measured on alone, so that a row says all there is."""
    variables = fit.sample.statistics[0].variables
    measured = {name: level for level, own in enumerate(variables.measured, 1) for name in own}
    return all(variables.top(name) == measured[name] for name in covariates)


def _require_constant(name: str, values: Floats, first: NDArray[np.intp]) -> None:
    """Refuse a covariate of clusters that differs from the first row of its cluster."""
    if not np.array_equal(values, values[first], equal_nan=True):
        raise DataError(
            f"{name!r} is a covariate of clusters, and varies within one: for predictions at several of its values "
            "give the rows different clusters"
        )


def _parts_of_covariates(model: GroupModel, data: ClusteredData, covariates: Sequence[str]) -> Upper:
    """Posterior moments of the parts of covariates above the level that they are measured on, given all covariates."""
    whole = model.statistics.variables
    measured = {name: level for level, own in enumerate(whole.measured, 1) for name in own}
    if all(whole.top(name) == measured[name] for name in covariates):
        return Upper({}, {})
    variables = Variables(tuple(tuple(n for n in names if n in covariates) for names in whole.levels))
    moments = [_part(model.levels[level], names) for level, names in enumerate(variables.levels, 1)]
    core = some_clusters(data, variables).posterior(variables, moments)
    out: ByLevel = {}
    joint = {}
    for level, own in enumerate(variables.levels[1:], 2):
        parts = [name for name in own if name not in variables.measured[level - 1]]
        found = core.cluster_posterior() if level == model.top else core.level_posterior(level)
        out[level] = dict(zip(parts, found[0].T, strict=False))
        for slope in _parted(model, parts):
            paths = _paths(model.levels[level], [slope.name], own)[[own.index(name) for name in parts], 0]
            spread = found[1][:, : len(parts), parts.index(slope.covariate)] @ paths
            joint[slope.name] = spread[found[2]]
    return Upper(out, joint)


def _paths(level: LevelArrays, outcomes: Sequence[str], given: Sequence[str]) -> Floats:
    """Regression of variables of a level on others, shape (given, outcomes)."""
    x, y = ([level.at[name] for name in names] for names in (given, outcomes))
    paths = np.linalg.lstsq(level.cov[np.ix_(x, x)], level.cov[np.ix_(x, y)], rcond=None)[0]
    return np.asarray(paths, dtype=np.float64)


def _part(level: LevelArrays, names: Sequence[str]) -> tuple[Floats, Floats]:
    at = [level.at[name] for name in names]
    return level.mean[at], level.cov[np.ix_(at, at)]


def _regressed(
    level: LevelArrays, outcomes: Sequence[str], covariates: Mapping[str, Floats], count: int
) -> dict[str, Floats]:
    """Expectations of the outcomes of a level given its covariates."""
    here = [name for name in covariates if name in level.at]
    x, y = [level.at[name] for name in here], [name for name in outcomes if name in level.at]
    at = [level.at[name] for name in y]
    paths = _paths(level, y, here)
    deviations = np.column_stack([covariates[name] for name in here]) if here else np.empty((count, 0))
    values = level.mean[at] + (deviations - level.mean[x]) @ paths
    return dict(zip(y, values.T, strict=True))
