"""Scores of latent variables of models with ordered variables: posterior modes, and means for fits by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.integrals import integrated_statistics
from msem.data.sample import Group
from msem.errors import ModelError, UnsupportedError
from msem.estimation.integrals import integration_plan
from msem.estimation.objective import build_objective
from msem.estimation.solution import NOT_YET, Solution, cached
from msem.model.levels import WITHIN
from msem.postestimation.integrated_scores import Columns, Posterior, posterior_frame, scored_frame

Floats = NDArray[np.float64]

DEPENDENT = 1e-9  # correlation of residuals that is more than rounding
IMPROPER = 1e-8  # eigenvalue below 0 that is more than rounding
SWEEPS = 100  # of a chain, for a draw
VANISHING = 1e-12  # eigenvalue of a correlation matrix that counts as 0


def posterior_means(fit: Solution, level: int | None, *, se: bool) -> pd.DataFrame:
    """Posterior means of the latent variables of a fit by least squares, by the quadrature of its likelihood.

    Raises
    ------
    UnsupportedError
        If they are integrals over too many variables, or a variable that is needed is missing.
    """
    return posterior_frame(fit, _posteriors(fit), level, se=se)


@cached
def _posteriors(fit: Solution) -> tuple[Posterior, ...]:
    table = fit.table
    ordered = replace(
        table.ordered, parameterization="theta"
    )  # residual variances of "delta" are in the table
    theta_table = replace(table, ordered=ordered)
    top = table.nlevels
    made = []
    for number, group in enumerate(fit.sample.groups, 1):
        low = next((name for name, _ in table.thresholds(WITHIN, number)), "") if top > 1 else ""
        try:
            if low:
                raise UnsupportedError(f"'{low}' is ordered and at the within level only")
            made.append(
                integrated_statistics(
                    group.statistics,
                    group.rows,
                    group.statistics.labels,
                    table.thresholds(top, number),
                    integration_plan(theta_table, number, group.statistics.variables),
                    logistic=False,
                )
            )
        except UnsupportedError as error:
            raise UnsupportedError(
                f'posterior means are integrals: {str(error).split(": leave out estimator=")[0]}; method="EBM" has '
                "posterior modes"
            ) from None
    objective = build_objective(theta_table, tuple(made))
    return tuple(
        Posterior(s, s.posterior(objective.observed_moments(fit.theta, number)))
        for number, s in enumerate(made, 1)
    )


def posterior_modes(fit: Solution, level: int | None, *, se: bool) -> pd.DataFrame:
    """Modes of the joint posterior distribution of all latent variables of a unit or a cluster and its units.

    Standard deviations are those of the normal distribution with the same curvature there (Laplace). Rows in which a
    continuous variable is missing are left out.

    Raises
    ------
    UnsupportedError
        With random slopes, and where residuals of ordered variables are correlated.
    ModelError
        If a residual variance of an ordered variable is not positive.
    """
    if fit.has_slopes:
        raise UnsupportedError('posterior modes are not available with random slopes: method="EAP" has means')
    found = _modes(fit)

    def values(number: int, own: int) -> Columns:
        modes = found[number - 1]
        part = modes.below if own == WITHIN else modes.above
        out: Columns = {}
        for name, value, variance in zip(fit.table.latent(own, number), *part, strict=True):
            out[name] = value
            if se:
                out[f"{name}_se"] = np.sqrt(variance)
        return out

    return scored_frame(fit, level, values)


def mode_parts(fit: Solution, *, se: bool) -> list[Columns]:
    """Modes of the parts at level 2 of the variables of units, by group; see `posterior_modes`."""
    out = []
    for number, modes in enumerate(_modes(fit), 1):
        columns: Columns = {}
        names = fit.sample.groups[number - 1].statistics.variables.both
        for name, value, variance in zip(names, *modes.parts, strict=True):
            columns[name] = value
            if se:
                columns[f"{name}_se"] = np.sqrt(variance)
        out.append(columns)
    return out


class _Modes(NamedTuple):
    """Values and variances of the latent variables of level 1, and of level 2, and of parts there."""

    below: tuple[Floats, Floats]
    above: tuple[Floats, Floats]
    parts: tuple[Floats, Floats]


@cached
def _modes(fit: Solution) -> tuple[_Modes, ...]:
    return tuple(_modes_of_group(fit, number) for number in range(1, len(fit.sample.groups) + 1))


class _Level(NamedTuple):
    """A level given its continuous variables: linear in whitened residuals of these, and in effects.

    Attributes
    ----------
    ordered, parts, latent : list of str
        Ordered variables with residuals of their own, parts that others are made of, latent variables.
    mean : mapping of str to float
    whiten : ndarray
        Of the deviations of the continuous variables from their means.
    slopes : mapping of str to ndarray
        On the whitened ones.
    reach : mapping of str to ndarray
        How effects reach each.
    sd : ndarray
        Of the residuals of the ordered variables.
    """

    ordered: list[str]
    given: list[str]
    mean: dict[str, float]
    whiten: Floats
    slopes: dict[str, Floats]
    reach: dict[str, Floats]
    sd: Floats


def _level(
    moments: LevelArrays, given: Sequence[str], effects: Sequence[str], ordered: Sequence[str], where: str
) -> _Level:
    """Condition on `given`; `effects` are what standard normal effects are made for."""
    at = moments.at
    x, f, o = ([at[name] for name in names] for names in (given, effects, ordered))
    whiten = np.linalg.inv(np.linalg.cholesky(moments.cov[np.ix_(x, x)])) if x else np.zeros((0, 0))
    rest = [*f, *o]
    slopes = moments.cov[np.ix_(rest, x)] @ whiten.T
    cov = moments.cov[np.ix_(rest, rest)] - slopes @ slopes.T
    k = len(f)
    own, across = cov[:k, :k], cov[k:, :k]
    sd = np.sqrt(np.maximum(own.diagonal(), 0.0))
    scale = np.where(sd > 0, sd, 1.0)
    values, vectors = np.linalg.eigh(own / np.outer(scale, scale)) if k else (np.zeros(0), np.zeros((0, 0)))
    if values.min(initial=0.0) < -IMPROPER:
        raise ModelError(
            f"the covariances{where} of {', '.join(effects)} are those of no distribution, which has no "
            "posterior: fix a variance that is negative at 0, or simplify that level"
        )
    kept = values > VANISHING
    root = scale[:, None] * vectors[:, kept] * np.sqrt(values[kept])
    reach = (across / scale) @ (vectors[:, kept] / np.sqrt(values[kept]))
    residual = cov[k:, k:] - reach @ reach.T
    spread = residual.diagonal().copy()
    odd = next((name for name, v in zip(ordered, spread, strict=True) if not v > 0), None)
    if odd is not None:
        raise ModelError(
            f"{odd!r} has no residual variance{where}, and its categories then have no probabilities"
        )
    off = residual / np.sqrt(np.outer(spread, spread))
    np.fill_diagonal(off, 0.0)
    if np.abs(off).max(initial=0.0) > DEPENDENT:
        i, j = np.unravel_index(np.abs(off).argmax(), off.shape)
        raise UnsupportedError(
            f"'{ordered[j]}' and '{ordered[i]}' are ordered and their residuals{where} are correlated: scores need "
            f"a factor in the place of that, as in 'r =~ 1*{ordered[j]} + 1*{ordered[i]}'"
        )
    names = [*effects, *ordered]
    return _Level(
        list(ordered),
        list(given),
        {name: float(moments.mean[at[name]]) for name in (*names, *given)},
        whiten,
        dict(zip(names, slopes, strict=True)),
        dict(zip(names, np.vstack([root, reach]), strict=True)),
        np.sqrt(spread),
    )


def _stack(rows: Sequence[Floats], columns: int) -> Floats:
    return np.array(rows).reshape(len(rows), columns)


class _Above(NamedTuple):
    """Level 2 given its continuous variables, which are known; of one level there is nothing.

    Attributes
    ----------
    level : _Level or None
    parts : list of str
        Variables of level 1 that have a part there.
    latent : tuple of str
    known : ndarray
        Whitened values of the continuous variables, a row for each cluster.
    categories : ndarray
        Of the ordered variables of clusters, a column for each cluster.
    width : int
        Effects.
    """

    level: _Level | None
    parts: list[str]
    latent: tuple[str, ...]
    known: Floats
    categories: Floats
    width: int

    @property
    def ordered(self) -> list[str]:
        """Ordered variables of clusters."""
        return self.level.ordered if self.level else []

    def centre(self, name: str) -> Floats:
        """Mean of a variable of each cluster without effects."""
        assert self.level is not None
        out: Floats = self.level.mean[name] + self.known @ self.level.slopes[name]
        return out

    def reach(self, names: Sequence[str]) -> Floats:
        """How effects reach variables; 0 for those without a part here."""
        none = np.zeros(self.width)
        rows = [self.level.reach.get(name, none) if self.level else none for name in names]
        return _stack(rows, self.width)


def _above(fit: Solution, number: int, moments: LevelArrays | None) -> _Above:
    group = fit.sample.groups[number - 1]
    statistics, rows = group.statistics, group.rows
    if moments is None:
        return _Above(None, [], (), np.zeros((rows.nobs, 0)), np.zeros((0, rows.nobs)), 0)
    ordered = [name for name in statistics.cluster if name in statistics.labels]
    fixed = [name for name in statistics.cluster if name not in statistics.labels]
    parts, latent = list(statistics.variables.both), fit.table.latent(2, number)
    level = _level(moments, fixed, [*parts, *latent], ordered, " between")
    first = np.unique(rows.cluster_of_row, return_index=True)[1]
    known = rows.values(fixed)[first] if fixed else np.zeros((len(first), 0))
    if np.isnan(known).any():
        raise UnsupportedError(
            "posterior modes need the continuous variables of every cluster, and some are missing: leave these "
            "clusters out"
        )
    known = (known - [level.mean[name] for name in fixed]) @ level.whiten.T
    categories = rows.values(ordered)[first].T if ordered else np.zeros((0, len(first)))
    width = len(next(iter(level.reach.values()), np.zeros(0)))
    return _Above(level, parts, tuple(latent), known, categories, width)


class _Units(NamedTuple):
    """Rows whose continuous variables are known, by cluster.

    Attributes
    ----------
    order, cluster : ndarray of int
        Their numbers, and their clusters, ascending.
    zeta : ndarray
        Whitened residuals of the continuous variables without effects, a row for each.
    root : ndarray
        How effects of clusters reach these.
    shift, top : ndarray
        What is added to the ordered variables without effects, and how effects of clusters reach them.
    """

    order: NDArray[np.intp]
    cluster: NDArray[np.int64]
    zeta: Floats
    root: Floats
    shift: Floats
    top: Floats


def _units(group: Group, below: _Level, above: _Above) -> _Units:
    rows = group.rows
    codes = rows.cluster_of_row if above.level else np.arange(rows.nobs)
    values = rows.values(below.given)
    use = np.flatnonzero(~np.isnan(values).any(axis=1))
    order = use[np.argsort(codes[use], kind="stable")]
    own = codes[order]
    away = values[order] - np.array([below.mean[name] for name in below.given])
    for k, name in enumerate(below.given):
        if name in above.parts:
            away[:, k] -= above.centre(name)[own]
    zeta = away @ below.whiten.T
    root = below.whiten @ above.reach([name if name in above.parts else "" for name in below.given])
    shift, top = np.empty((len(below.ordered), len(order))), above.reach(below.ordered)
    for k, name in enumerate(below.ordered):
        shift[k] = below.mean[name] + zeta @ below.slopes[name]
        if name in above.parts:
            shift[k] += above.centre(name)[own]
        top[k] -= below.slopes[name] @ root
    return _Units(order, own, zeta, root, shift, top)


class _Problem(NamedTuple):
    """Latent variables of a group given its data, and what is added to what the core says of effects.

    Attributes
    ----------
    core : _core.LatentGivenOrdered
    units : _Units
    latent : tuple of str
        Of level 1.
    unit_centre : ndarray
        A row for each of these, a column for each row that is used.
    parts : int
        Variables of level 1 that have a part at level 2.
    cluster_centre : ndarray
        A row for each of these parts, and then for each latent variable of level 2.
    """

    core: _core.LatentGivenOrdered
    units: _Units
    latent: tuple[str, ...]
    unit_centre: Floats
    parts: int
    cluster_centre: Floats

    def of_rows(self, values: Floats, count: int) -> Floats:
        """Values of the rows that are used among all rows; nan elsewhere."""
        out = np.full((len(values), count), np.nan)
        out[:, self.units.order] = values
        return out


def _problem(fit: Solution, number: int, theta: Floats) -> _Problem:
    table, group = fit.table, fit.sample.groups[number - 1]
    statistics, rows = group.statistics, group.rows
    moments = fit.objective.moments(theta, number)
    two = table.multilevel
    names = statistics.unit if two else statistics.cluster
    ordered = [name for name in names if name in statistics.labels]
    given = [name for name in names if name not in statistics.labels]
    latent = table.latent(1, number)
    below = _level(moments[1], given, latent, ordered, " within" if two else "")
    above = _above(fit, number, moments[2] if two else None)
    units = _units(group, below, above)
    width = len(next(iter(below.reach.values()), np.zeros(0)))
    cuts = _cuts(fit, number, theta)
    shift = [above.centre(name) for name in above.ordered]
    wanted = [np.append(below.reach[name], -below.slopes[name] @ units.root) for name in latent]
    core = _core.LatentGivenOrdered(
        logistic=table.ordered.residual != 1.0,
        cuts=[cuts[name] for name in ordered],
        reach=_stack([below.reach[name] for name in ordered], width),
        top=units.top,
        sd=below.sd,
        cluster_cuts=[cuts[name] for name in above.ordered],
        cluster_top=above.reach(above.ordered),
        cluster_sd=above.level.sd if above.level else np.zeros(0),
        root=units.root,
        first=np.searchsorted(units.cluster, np.arange(len(above.known) + 1)).tolist(),
        categories=rows.values(ordered)[units.order].T if ordered else np.zeros((0, len(units.order))),
        shift=units.shift,
        zeta=units.zeta.T,
        cluster_categories=above.categories,
        cluster_shift=_stack(shift, len(above.known)),
        unit_map=_stack(wanted, width + above.width),
        cluster_map=above.reach([*above.parts, *above.latent]),
    )
    centre = [below.mean[name] + units.zeta @ below.slopes[name] for name in latent]
    top = [above.centre(name) for name in (*above.parts, *above.latent)]
    return _Problem(
        core,
        units,
        tuple(latent),
        _stack(centre, len(units.order)),
        len(above.parts),
        _stack(top, len(above.known)),
    )


def _modes_of_group(fit: Solution, number: int) -> _Modes:
    problem, count = _problem(fit, number, fit.theta), fit.sample.groups[number - 1].rows.nobs
    found = problem.core.modes()
    if found["unsettled"]:
        raise ModelError("the posterior distribution of some clusters has no mode that could be found")
    mean = problem.of_rows(problem.unit_centre + found["unit"], count)
    variance = problem.of_rows(found["unit_var"], count)
    cluster, spread, k = problem.cluster_centre + found["cluster"], found["cluster_var"], problem.parts
    return _Modes((mean, variance), (cluster[k:], spread[k:]), (cluster[:k], spread[:k]))


def drawn_latent(fit: Solution, level: int | None, theta: Floats, seed: int) -> pd.DataFrame:
    """Latent variables drawn from their posterior distribution at some parameters; see `posterior_modes`.

    Raises
    ------
    UnsupportedError
        With random slopes or ``link="logit"``, and where residuals of ordered variables are correlated.
    ModelError
        If the parameters are those of no distribution.
    """
    if fit.has_slopes or fit.table.ordered.logistic:
        what = "random slopes" if fit.has_slopes else 'link="logit"'
        raise UnsupportedError(f"plausible_values() of ordered variables with {what}: {NOT_YET}")
    drawn = []
    for number, group in enumerate(fit.sample.groups, 1):
        problem = _problem(fit, number, theta)
        unit, cluster = problem.core.draw(seed, number, SWEEPS)
        below = problem.of_rows(problem.unit_centre + unit, group.rows.nobs)
        drawn.append((below, (problem.cluster_centre + cluster)[problem.parts :]))

    def values(number: int, own: int) -> Columns:
        return dict(zip(fit.table.latent(own, number), drawn[number - 1][own > WITHIN], strict=True))

    return scored_frame(fit, level, values)


def _cuts(fit: Solution, number: int, theta: Floats) -> dict[str, Floats]:
    """Thresholds of each ordered variable of a group, ascending.

    Raises
    ------
    ModelError
        If they are not.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for row, value in zip(fit.table.rows, fit.objective.row_values(theta), strict=True):
        if row.op == "|" and row.group == number:
            found.setdefault(row.lhs, []).append((int(row.rhs[1:]), float(value)))
    out = {name: np.array([value for _, value in sorted(own)]) for name, own in found.items()}
    odd = next((name for name, own in out.items() if not (np.diff(own) > 0).all()), None)
    if odd is not None:
        raise ModelError(f"the thresholds of {odd!r} are out of order, and a category has no probability")
    return out
