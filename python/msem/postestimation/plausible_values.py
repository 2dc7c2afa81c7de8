"""Draws of latent variables from their posterior distribution, jointly for all units and clusters.

Latent variables of the units of a cluster are dependent given the data, through the between parts. A draw with
all these dependences is made of posterior means alone: with (eta*, y*) drawn from the model,

    E(eta | y) + eta* - E(eta | y*)

has the posterior distribution, since eta* - E(eta | y*) does not depend on y* and has the posterior covariance matrix
(Matheron; Hoffman & Ribak, 1991; Durbin & Koopman, 2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, smallest_eigenvalue, square_root
from msem.errors import ModelError
from msem.estimation.solution import Solution
from msem.model.levels import BETWEEN, LEVEL_NAMES, WITHIN, Level
from msem.model.partable import require_two_levels
from msem.postestimation.factor_scores import (
    Columns,
    Group,
    fitted_model,
    latent_frame,
    latent_levels,
    prediction_rows,
)
from msem.postestimation.posterior import GroupModel, posterior
from msem.postestimation.rows import Rows, clusters_of
from msem.settings import require_seed, require_whole

Floats = NDArray[np.float64]
SEMIDEFINITE = -1e-8  # smallest eigenvalue, in the metric of correlations, of a matrix that counts as such
TRIES = 100  # draws of parameters until one is of a distribution


def plausible_values(
    fit: Solution,
    n: int = 10,
    seed: int | None = None,
    *,
    level: Level | None = None,
    draw_parameters: bool = False,
    newdata: Any = None,
    cluster: str | None = None,
) -> list[pd.DataFrame]:
    """Draw latent variables from their posterior distribution given the data.

    Where factor scores are means of that distribution, and vary less than the latent variables do, analyses of
    plausible values recover variances, covariances and regressions of latent variables; those of several draws
    are put together by `msem.pool` (Mislevy, 1991; Asparouhov & Muthen, 2010). Draws are joint: over the latent
    variables of a unit, the units of a cluster, and levels.

    Parameters
    ----------
    n : int
        How many draws.
    seed : int, optional
        From 0 to 2**64 - 1; default: at random. A draw depends on the seed and its number only.
    level : {1, 2, "within", "between"}, optional
        Level of the latent variables; default: all, with one row for each unit.
    draw_parameters : bool
        Draw the parameters too for each draw, from the normal distribution of the estimates, so that what is
        done with the values counts their uncertainty. Draws that are of no distribution, such as negative
        variances, are made again. Default: the estimates are taken as known.
    newdata : data frame, optional
        Rows with the variables of the model, the cluster and the group column; any clusters of any size.
    cluster : str, optional
        Cluster column of the new data; default: that of the fit.

    Returns
    -------
    list of DataFrame
        Each with rows and columns as of `factor_scores`, without standard deviations.

    Raises
    ------
    ModelError
        If there is no latent variable, the estimates are of no distribution (a negative variance), or
        `draw_parameters` finds no standard errors.
    DataError
        If the model was fitted to moments and there are no new data; see `factor_scores`.

    References ---------- Mislevy (1991). Randomization-based inference about latent variables from complex
    samples. Psychometrika, 56, 177-196. Asparouhov & Muthen (2010). Plausible values for latent variables using
    Mplus. Technical report. Durbin & Koopman (2002). A simple and efficient simulation smoother. Biometrika,
    89, 603-616.

    Examples
    --------
    >>> import msem
    >>> fit = msem.sem("f =~ y1 + y2 + y3", msem.load_demo())
    >>> [one.shape for one in fit.plausible_values(2, seed=1)]
    [(2500, 1), (2500, 1)]
    """
    require_two_levels(fit.table, "plausible values")
    count = require_whole("n", n, 1)
    number = None if level is None else fit.table.level(level)
    cluster = cluster or fit.options.cluster
    rows = prediction_rows(fit, newdata, cluster)
    known = _at(fit, rows, fit.estimate.theta)
    levels = latent_levels(known, number)
    means = [_latent(model, part, levels) for _, model, part in known]
    if not draw_parameters:
        _require_distribution(fit, known)
    root = _root_of_estimates(fit) if draw_parameters else None
    draws = []
    for stream in np.random.SeedSequence(require_seed(seed)).spawn(count):
        rng = np.random.default_rng(stream)
        groups, given = known, means
        if root is not None:
            groups = _drawn_models(fit, rows, root, rng)
            given = [_latent(model, part, levels) for _, model, part in groups]
        columns = [_draw(fit, group, of, levels, rng) for group, of in zip(groups, given, strict=True)]
        draws.append(latent_frame(groups, columns, number, cluster))
    return draws


def _at(fit: Solution, rows: dict[int, Rows], theta: Floats) -> list[Group]:
    """Label, model and rows of each group, the models at some parameters."""
    labels = [group.label for group in fit.sample.groups]
    return [(labels[number], fitted_model(fit, number, theta), part) for number, part in rows.items()]


def _latent(model: GroupModel, rows: Rows, levels: Sequence[int]) -> list[Floats]:
    """Posterior means of the latent variables of each level."""
    return [posterior(model, rows, level).mean for level in levels]


def _root_of_estimates(fit: Solution) -> Floats:
    vcov = fit.cov_params().to_numpy()
    if np.isnan(vcov).any():
        raise ModelError(
            "draw_parameters=True needs the covariance matrix of the estimates, which this fit does not have; "
            "leave it out to take the estimates as known"
        )
    return square_root(vcov)


def _drawn_models(
    fit: Solution, rows: dict[int, Rows], root: Floats, rng: np.random.Generator
) -> list[Group]:
    """The models at drawn parameters that are of a distribution."""
    for _ in range(TRIES):
        theta = fit.estimate.theta + root @ rng.standard_normal(len(root))
        groups = _at(fit, rows, theta)
        if not _improper(groups):
            return groups
    raise ModelError(
        f"{TRIES} draws of the parameters were of no distribution: variances are hardly larger than their "
        "standard errors. Leave out draw_parameters=True, or fix such variances at 0"
    )


def _improper(groups: Sequence[Group]) -> int:
    """Level at which the moments are those of no distribution; 0 if there is none."""
    for _, model, _ in groups:
        for level, moments in model.levels.items():
            if len(moments.cov) and smallest_eigenvalue(moments.cov) < SEMIDEFINITE:
                return level
    return 0


def _require_distribution(fit: Solution, groups: Sequence[Group]) -> None:
    level = _improper(groups)
    if level:
        where = f" at the {LEVEL_NAMES[level]} level" if fit.table.multilevel else ""
        raise ModelError(
            f"the estimates{where} are those of no distribution (a variance is negative, or a correlation "
            "beyond 1), so that nothing can be drawn: see fit.problems; fix such a variance at 0, or give it lower(0)"
        )


def _draw(
    fit: Solution, group: Group, means: Sequence[Floats], levels: Sequence[int], rng: np.random.Generator
) -> list[Columns]:
    """One draw for the clusters and units of a group."""
    label, model, rows = group
    data, top, names = rows.data, model.levels[model.top], model.statistics.variables
    codes = data.codes
    of_clusters = _sampled(top, len(data.clusters) if names.unit else data.nobs, rng)
    drawn = {model.top: of_clusters}
    columns = {name: of_clusters[:, top.names.index(name)] for name in names.cluster}
    if names.unit:
        assert codes is not None
        columns = {name: values[codes] for name, values in columns.items()}
        drawn[WITHIN] = _units(fit, model, rows, label, of_clusters, rng)
        for k, name in enumerate(names.unit):
            between = of_clusters[codes, top.names.index(name)] if name in names.both else 0.0
            columns[name] = drawn[WITHIN][:, k] + between
    sampled = {
        name: values if data.complete else np.where(np.isnan(data.columns[name]), np.nan, values)
        for name, values in columns.items()
    }
    part = replace(data, columns={name: np.ascontiguousarray(sampled[name]) for name in data.columns})
    again = Rows(part, clusters_of(model.statistics, part))
    out: list[Columns] = []
    for level, mean, found in zip(levels, means, _latent(model, again, levels), strict=True):
        values = mean + drawn[level][:, model.levels[level].nobserved :] - found
        out.append(dict(zip(model.latent(level), values.T, strict=True)))
    return out


def _sampled(moments: LevelArrays, count: int, rng: np.random.Generator) -> Floats:
    out: Floats = moments.mean + rng.standard_normal((count, len(moments.mean))) @ square_root(moments.cov).T
    return out


def _units(
    fit: Solution, model: GroupModel, rows: Rows, label: str, of_clusters: Floats, rng: np.random.Generator
) -> Floats:
    """Within parts of the variables of units, latent ones too."""
    data, moments = rows.data, model.levels[WITHIN]
    out = _sampled(moments, data.nobs, rng)
    group = next(k for k, one in enumerate(fit.sample.groups, 1) if one.label == label)
    slopes = fit.table.slopes(group)
    if not slopes:
        return out
    # given their covariates, as the likelihood has it
    covariates = dict.fromkeys((*model.fixed[WITHIN], *(slope.covariate for slope in slopes)))
    fixed = [moments.names.index(name) for name in covariates]
    gain = moments.cov[:, fixed] @ np.linalg.pinv(moments.cov[np.ix_(fixed, fixed)], hermitian=True)
    given = np.column_stack([data.columns[name] for name in covariates])
    out = out + (given - out[:, fixed]) @ gain.T
    # the core has products of slope and covariate, of unit variance, between the observed and the latent variables
    reach = np.delete(model.compiled[0][1], moments.nobserved + np.arange(len(slopes)), axis=0)
    effects = reach[:, moments.nobserved : moments.nobserved + len(slopes)].T
    assert data.codes is not None
    top = model.levels[BETWEEN]
    for slope, effect in zip(slopes, effects, strict=True):
        value = of_clusters[data.codes, top.names.index(slope.name)] * data.columns[slope.covariate]
        out += np.outer(value, effect)
    return out
