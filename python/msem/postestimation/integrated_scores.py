"""Posterior means of latent variables of models with ordered variables, by the quadrature of their likelihood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.statistics import Integral
from msem.errors import ModelError, UnsupportedError
from msem.estimation.solution import Solution
from msem.model.levels import WITHIN

Floats = NDArray[np.float64]
RELATED = 1e-8  # covariance, in standard deviations of an ordered variable, that is more than rounding
Columns = dict[str, Floats]


class Posterior(NamedTuple):
    """What a group's likelihood is an integral over, with its posterior moments."""

    integral: Integral
    found: _core.OrderedPosterior


def integrated_scores(fit: Solution, level: int | None, *, se: bool) -> pd.DataFrame:
    """Posterior means of the latent variables of a fit by maximum likelihood; see `posterior_frame`."""
    return posterior_frame(fit, _posteriors(fit), level, se=se)


def _posteriors(fit: Solution) -> list[Posterior]:
    posteriors = []
    for number, group in enumerate(fit.sample.groups, 1):
        s = group.statistics.integral
        assert s is not None
        posteriors.append(Posterior(s, s.posterior(fit.objective.observed_moments(fit.theta, number))))
    return posteriors


def posterior_frame(
    fit: Solution, posteriors: Sequence[Posterior], level: int | None, *, se: bool
) -> pd.DataFrame:
    """Posterior means of the latent variables, and their standard deviations.

    Given what is integrated over at the highest level its other variables are normal, and independent of the data of
    the cluster: their posterior moments follow from those of the former.

    Parameters
    ----------
    fit : Solution
    posteriors : sequence of Posterior
        Of each group.
    level : int or None
        None: of all levels, a row for each unit.
    se : bool

    Returns
    -------
    DataFrame
        As that of `factor_scores`.

    Raises
    ------
    ModelError
        If there is no latent variable.
    UnsupportedError
        If a latent variable of level 1 is not among those that are integrated over.
    """

    def values(number: int, own: int) -> Columns:
        s, found = posteriors[number - 1]
        if own == fit.table.nlevels > 1:
            return _highest(fit, number, s, found, fit.table.latent(own, number), se=se)
        return _within(fit.table.latent(WITHIN, number), s, found, se=se)

    return scored_frame(fit, level, values)


def scored_frame(fit: Solution, level: int | None, values: Callable[[int, int], Columns]) -> pd.DataFrame:
    """Columns of latent variables as one frame.

    Parameters
    ----------
    fit : Solution
    level : int or None
        None: of all levels, a row for each unit.
    values : callable
        From the number of a group and a level to columns of units of that level.
    """
    table, groups = fit.table, fit.sample.groups
    top = table.nlevels
    latent = [
        [own for own in range(1, top + 1) if table.latent(own, number)]
        for number in range(1, len(groups) + 1)
    ]
    levels = sorted({own for some in latent for own in some if level in (None, own)})
    if not levels:
        raise ModelError(
            "the model has no latent variable: there are no factor scores"
            if level is None
            else f"the model has no latent variable at level {level}"
        )
    frames = []
    for number, group in enumerate(groups, 1):
        columns: Columns = {}
        rows = group.rows
        for own in levels:
            found = values(number, own)
            if own == top and level is None and top > 1:
                found = {name: one[rows.cluster_of_row] for name, one in found.items()}
            clash = {name: f"{name}.l{own}" if name in columns else name for name in found}
            columns |= {clash[name]: one for name, one in found.items()}
        if level == top and top > 1:
            index = rows.ids_of(top, fit.options.cluster)
        else:
            index = rows.index if rows.rows is None else rows.index[rows.rows]
        frame = pd.DataFrame(columns, index=index)
        if len(groups) > 1 and level == top and top > 1:
            frame.insert(0, "group", group.label)
        frames.append(frame)
    out = pd.concat(frames)
    if level == top and top > 1:
        return out.rename_axis(index=fit.options.cluster or None)
    return out.reindex(groups[0].rows.index) if out.index.is_unique else out


def mean_parts(fit: Solution, *, se: bool) -> list[Columns]:
    """Posterior means of the parts at the highest level of the variables of units, by group."""
    out = []
    for number, (s, found) in enumerate(_posteriors(fit), 1):
        names = fit.sample.groups[number - 1].statistics.variables.both
        out.append(_highest(fit, number, s, found, names, se=se))
    return out


def _within(names: Sequence[str], s: Integral, found: _core.OrderedPosterior, *, se: bool) -> Columns:
    exposed = s.exposed.get(WITHIN, ())
    other = next((name for name in names if name not in exposed), None)
    if other is not None:
        raise UnsupportedError(
            f"'{other}' is not among the latent variables that the likelihood integrates over "
            f"({', '.join(exposed) or 'none'}), and its posterior mean is not available in this version: "
            'method="EBM" has the mode'
        )
    out = {}
    for k, name in enumerate(exposed):
        out[name] = found["within"][k]
        if se:
            out[f"{name}_se"] = np.sqrt(np.maximum(found["within_var"][k], 0.0))
    return out


def _highest(
    fit: Solution, number: int, s: Integral, found: _core.OrderedPosterior, names: Sequence[str], *, se: bool
) -> Columns:
    top = fit.table.nlevels
    moments = fit.objective.moments(fit.theta, number)[top]
    given = [moments.at[name] for name in (*s.given, *s.integrated)]
    own = [moments.at[name] for name in names]
    cov, mean = moments.cov, moments.mean
    paths = np.linalg.solve(cov[np.ix_(given, given)], cov[np.ix_(given, own)]).T
    left = cov[np.ix_(own, own)] - paths @ cov[np.ix_(given, own)]
    _require_nothing_else(fit, number, s, moments, names, paths)
    d, k = len(s.integrated), len(s.given)
    count = found["integrated"].shape[1]
    values = np.zeros((k + d, count))
    if k:
        values[:k] = s.given_values.T
    values[k:] = found["integrated"]
    scores = mean[own][:, None] + paths @ (values - mean[given][:, None])
    spread = found["integrated_cov"].T.reshape(count, d, d)
    reach = paths[:, k:]
    variance = left.diagonal()[:, None] + np.einsum("ai,jib,ab->aj", reach, spread, reach)
    out = {}
    for i, name in enumerate(names):
        out[name] = scores[i]
        if se:
            out[f"{name}_se"] = np.sqrt(np.maximum(variance[i], 0.0))
    return out


def _require_nothing_else(
    fit: Solution,
    number: int,
    s: Integral,
    moments: LevelArrays,
    names: Sequence[str],
    paths: NDArray[Any],
) -> None:
    """Refuse variables that ordered ones of the highest level tell more of than the integral is over."""
    shared = fit.sample.groups[number - 1].statistics.variables.both
    ordered = [n for n in fit.table.ordered.thresholds if n in moments.at and n not in shared]
    given, at = ([moments.at[n] for n in some] for some in ((*s.given, *s.integrated), ordered))
    rest = moments.cov[np.ix_([moments.at[n] for n in names], at)] - paths @ moments.cov[np.ix_(given, at)]
    sd = np.sqrt(np.maximum(moments.cov.diagonal()[at], 0.0))
    odd = np.abs(rest / np.where(sd > 0, sd, 1.0)).max(axis=1, initial=0.0)
    if (odd > RELATED).any():
        raise UnsupportedError(
            f"'{names[int(odd.argmax())]}' is measured by ordered variables, and the likelihood does not integrate "
            'over it: its posterior mean is not available; method="EBM" has the mode'
        )
