"""Draws of latent variables from their posterior distribution, jointly for all units and clusters.

Latent variables of the units of a cluster are dependent given the data, through the between parts. A draw with
all these dependences is made of posterior means alone: with (eta*, y*) drawn from the model,

    E(eta | y) + eta* - E(eta | y*)

has the posterior distribution, since eta* - E(eta | y*) does not depend on y* and has the posterior covariance matrix
(Matheron; Hoffman & Ribak, 1991; Durbin & Koopman, 2002).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import smallest_eigenvalue, square_root
from msem.errors import ModelError, UnsupportedError
from msem.estimation.solution import NOT_YET, Solution
from msem.model.levels import WITHIN, Level, level_place
from msem.postestimation.factor_scores import (
    Columns,
    Group,
    fitted_model,
    latent_frame,
    latent_levels,
    prediction_rows,
)
from msem.postestimation.ordered_scores import drawn_latent
from msem.postestimation.posterior import GroupModel, core_order, posterior
from msem.postestimation.rows import Rows, cluster_columns, clusters_of
from msem.settings import require_seed, require_whole

Floats = NDArray[np.float64]
SEMIDEFINITE = -1e-8  # smallest eigenvalue, in the metric of correlations, of a matrix that counts as such
TRIES = 100  # draws of parameters until one is of a distribution
NO_DISTRIBUTION = (
    f"{TRIES} draws of the parameters were of no distribution: variances are hardly larger than their standard errors. "
    "Leave out draw_parameters=True, or fix such variances at 0"
)


def plausible_values(
    fit: Solution,
    n: int = 10,
    seed: int | None = None,
    *,
    level: Level | None = None,
    draw_parameters: bool = False,
    newdata: Any = None,
    cluster: str | Sequence[str] | None = None,
) -> list[pd.DataFrame]:
    """Draw latent variables from their posterior distribution given the data.

    Where factor scores are means of that distribution, and vary less than the latent variables do, analyses of
    plausible values recover variances, covariances and regressions of latent variables; those of several draws
    are put together by `msem.pool` (Mislevy, 1991; Asparouhov & Muthen, 2010). Draws are joint: over the latent
    variables of a unit, the units of a cluster, and levels.

    Random slopes of covariates that are latent or at both levels have no normal posterior distribution. The slopes of
    each cluster are then the end of a Metropolis chain of 60 proposals from a Student t distribution with 4 degrees of
    freedom, the location and the spread of the posterior distribution by quadrature, that starts at one of its nodes
    with the weight of this; everything else is drawn from its normal distribution given the slopes. What is left of
    the start is of the size of the share of rejected proposals to the power of 60.

    Given ordered variables the posterior distribution is not normal either. Each draw is then the end of a Markov
    chain of its own for every cluster, of 100 sweeps: effects of units given those of their cluster and these given
    those of the units by elliptical slice sampling (Murray, Adams & MacKay, 2010), and all of them given what is cut
    into categories, drawn given them (Albert & Chib, 1993). By least squares and maximum likelihood, for the data of
    the fit.

    Parameters
    ----------
    n : int
        How many draws.
    seed : int, optional
        From 0 to 2**64 - 1; default: at random. A draw depends on the seed and its number only.
    level : {1, 2, 3, "within", "between"}, optional
        Level of the latent variables; default: all, with one row for each unit.
    draw_parameters : bool
        Draw the parameters too for each draw, from the normal distribution of the estimates, so that what is
        done with the values counts their uncertainty. Draws that are of no distribution, such as negative
        variances, are made again. Default: the estimates are taken as known.
    newdata : data frame, optional
        Rows with the variables of the model, the cluster and the group column; any clusters of any size.
    cluster : str or sequence of str, optional
        Columns of clusters of the new data, named as in `sem`; default: those of the fit.

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
    UnsupportedError
        With ordered variables, for new data, random slopes, ``link="logit"`` or correlated residuals of these
        variables.

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
    if fit.sample.statistics[0].ordered:
        if newdata is not None:
            raise UnsupportedError(f"plausible_values() of ordered variables for new data: {NOT_YET}")
        return _given_categories(fit, n, seed, level, draw_parameters=draw_parameters)
    integrated = any(s.nodes for s in fit.sample.statistics)
    count = require_whole("n", n, 1)
    wanted = None if level is None else fit.table.level(level)
    columns = cluster_columns(fit, newdata, cluster)
    rows = prediction_rows(fit, newdata, columns)
    known = _at(fit, rows, fit.estimate.theta)
    levels = latent_levels(known, wanted)
    means = [] if integrated else [_latent(model, part, levels) for _, model, part in known]
    if not draw_parameters:
        _require_distribution(fit, known)
    root = _root_of_estimates(fit) if draw_parameters else None
    draws = []
    for stream in np.random.SeedSequence(require_seed(seed)).spawn(count):
        rng = np.random.default_rng(stream)
        groups, given = known, means
        if root is not None:
            groups = _drawn_models(fit, rows, root, rng)
            given = [] if integrated else [_latent(model, part, levels) for _, model, part in groups]
        if integrated:
            found = [_drawn_with_slopes(model, part, levels, rng) for _, model, part in groups]
            draws.append(latent_frame(groups, found, wanted, columns.highest))
            continue
        drawn = [_draw(group, of, levels, rng) for group, of in zip(groups, given, strict=True)]
        draws.append(latent_frame(groups, drawn, wanted, columns.highest))
    return draws


def _given_categories(
    fit: Solution, n: int, seed: int | None, level: Level | None, *, draw_parameters: bool
) -> list[pd.DataFrame]:
    """Draws given ordered variables; see `drawn_latent`."""
    count = require_whole("n", n, 1)
    wanted = None if level is None else fit.table.level(level)
    root = _root_of_estimates(fit) if draw_parameters else None
    out = []
    for stream in np.random.SeedSequence(require_seed(seed)).spawn(count):
        rng = np.random.default_rng(stream)
        own = int(rng.integers(2**63))
        if root is None:
            out.append(drawn_latent(fit, wanted, fit.theta, own))
            continue
        for _ in range(TRIES):
            theta = fit.theta + root @ rng.standard_normal(len(root))
            try:
                out.append(drawn_latent(fit, wanted, theta, own))
                break
            except ModelError:
                continue
        else:
            raise ModelError(NO_DISTRIBUTION)
    return out


def _drawn_with_slopes(
    model: GroupModel, rows: Rows, levels: Sequence[int], rng: np.random.Generator
) -> list[Columns]:
    """One draw for the clusters and units of a group whose slopes are integrated over."""
    seed = int(rng.integers(2**63))
    clusters, units = model.data(rows).draw(*model.units(rows), seed)
    out: list[Columns] = []
    for level in levels:
        if level == WITHIN:
            values, names = units, core_order(model, level)
        else:
            values, names = clusters[:, len(model.parts(level)) :], list(model.latent(level))
        found = dict(zip(names, values.T, strict=True))
        out.append({name: found[name] for name in model.latent(level)})
    return out


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
    raise ModelError(NO_DISTRIBUTION)


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
        where = level_place(level, fit.table.nlevels)
        raise ModelError(
            f"the estimates{where} are those of no distribution (a variance is negative, or a correlation "
            "beyond 1), so that nothing can be drawn: see fit.problems; fix such a variance at 0, or give it lower(0)"
        )


def _draw(
    group: Group, means: Sequence[Floats], levels: Sequence[int], rng: np.random.Generator
) -> list[Columns]:
    """One draw for the clusters and units of a group."""
    _, model, rows = group
    data, variables = rows.data, model.statistics.variables
    codes = {level: None if level == WITHIN else data.codes_of(level) for level in model.levels}
    drawn: dict[int, Floats] = {}  # variables of each level, latent ones too
    for level in sorted(model.levels, reverse=True):
        drawn[level] = _parts(model, rows, level, drawn, rng)
    columns = {}
    for level, own in enumerate(variables.measured, 1):
        for name in own:
            places = {
                at: m.names.index(name) for at, m in model.levels.items() if name in m.names[: m.nobserved]
            }
            parts = [_of_units(drawn[at][:, k], codes[at]) for at, k in places.items() if at >= level]
            columns[name] = sum(parts[1:], parts[0])
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


def _of_units(values: Floats, codes: NDArray[np.int64] | None) -> Floats:
    return values if codes is None else values[codes]


def _parts(
    model: GroupModel, rows: Rows, level: int, above: Mapping[int, Floats], rng: np.random.Generator
) -> Floats:
    """The variables of a level, given those of the levels above, in its units or clusters."""
    data, moments = rows.data, model.levels[level]
    codes = None if level == WITHIN else data.codes_of(level)
    first = np.arange(data.nobs) if codes is None else np.unique(codes, return_index=True)[1]
    out = moments.mean + rng.standard_normal((len(first), len(moments.mean))) @ square_root(moments.cov).T
    products = model.products(level)
    if not products:
        return out
    # given their covariates, as the likelihood has it
    covariates = dict.fromkeys((*model.fixed[level], *(slope.covariate for slope, _ in products)))
    fixed = [moments.names.index(name) for name in covariates]
    gain = moments.cov[:, fixed] @ np.linalg.pinv(moments.cov[np.ix_(fixed, fixed)], hermitian=True)
    given = np.column_stack([data.columns[name][first] for name in covariates])
    out = out + (given - out[:, fixed]) @ gain.T
    for slope, effect in products:
        value = np.zeros(len(first))
        for at in slope.at:
            value += above[at][:, model.levels[at].names.index(slope.name)][data.codes_of(at)[first]]
        out += np.outer(value * data.columns[slope.covariate][first], effect)
    return out
