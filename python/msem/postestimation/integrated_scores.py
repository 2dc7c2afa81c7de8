"""Posterior means of latent variables of models with ordered variables, by the quadrature of their likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.statistics import Integral
from msem.errors import ModelError, UnsupportedError
from msem.estimation.solution import Solution
from msem.model.levels import WITHIN

Floats = NDArray[np.float64]
Columns = dict[str, Floats]


def integrated_scores(fit: Solution, level: int | None, *, se: bool) -> pd.DataFrame:
    """Posterior means of the latent variables, and their standard deviations.

    Given what is integrated over at the highest level its other variables are normal, and independent of the data of
    the cluster: their posterior moments follow from those of the former.

    Parameters
    ----------
    fit : Solution
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
        s = group.statistics.integral
        assert s is not None
        found = s.posterior(fit.objective.observed_moments(fit.theta, number))
        columns: Columns = {}
        rows = group.rows
        for own in levels:
            if own == top:
                values = _highest(fit, number, s, found, se=se)
                if level is None and top > 1:
                    values = {name: one[rows.cluster_of_row] for name, one in values.items()}
            else:
                values = _within(table.latent(WITHIN, number), s, found, se=se)
            clash = {name: f"{name}.l{own}" if name in columns else name for name in values}
            columns |= {clash[name]: one for name, one in values.items()}
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


def _within(names: Sequence[str], s: Integral, found: _core.OrderedPosterior, *, se: bool) -> Columns:
    exposed = s.exposed.get(WITHIN, ())
    other = next((name for name in names if name not in exposed), None)
    if other is not None:
        raise UnsupportedError(
            f"'{other}' is not among the latent variables that the likelihood integrates over "
            f"({', '.join(exposed) or 'none'}): its scores are not available in this version"
        )
    out = {}
    for k, name in enumerate(exposed):
        out[name] = found["within"][k]
        if se:
            out[f"{name}_se"] = np.sqrt(np.maximum(found["within_var"][k], 0.0))
    return out


def _highest(fit: Solution, number: int, s: Integral, found: _core.OrderedPosterior, *, se: bool) -> Columns:
    top = fit.table.nlevels
    moments = fit.objective.moments(fit.theta, number)[top]
    names = fit.table.latent(top, number)
    given = [moments.at[name] for name in (*s.given, *s.integrated)]
    own = [moments.at[name] for name in names]
    cov, mean = moments.cov, moments.mean
    paths = np.linalg.solve(cov[np.ix_(given, given)], cov[np.ix_(given, own)]).T
    left = cov[np.ix_(own, own)] - paths @ cov[np.ix_(given, own)]
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
