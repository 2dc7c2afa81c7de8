"""Loadings of latent variables as matrices, and how exploratory blocks were rotated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import ModelError
from msem.estimation.matrices import row_values
from msem.estimation.solution import Solution
from msem.model.levels import Level
from msem.postestimation.standardized import standardized_quantity

COLUMNS = ("level", "group", "block", "minimum", "criterion", "starts", "converged", "distance")


def rotation(fit: Solution) -> pd.DataFrame:
    """Minima of the rotation criterion of every exploratory block.

    The lowest one is taken. Others with a criterion close to it are other readings of the same loadings, which fit as
    well: look at how far their loadings are away.

    Returns
    -------
    DataFrame
        A row for each distinct minimum: level, group (a number), block, minimum (counted from 1, the lowest first),
        criterion, starts (how many of them ended there), converged, and distance, the largest difference of its
        loadings from those of the lowest, on the scale on which they are rotated and with columns matched.

    Raises
    ------
    ModelError
        If the model has no exploratory blocks.

    Examples
    --------
    >>> import msem
    >>> names = [f"y{k}" for k in range(1, 7)]
    >>> found = msem.efa(msem.load_demo(), {1: 2}, cluster="cluster", variables=names)
    >>> found.fits[2, None].rotation()[["block", "starts", "converged"]].to_numpy().tolist()
    [['within', 30, True]]
    """
    if not fit.estimate.rotated:
        raise ModelError(
            'the model has no exploratory blocks: write efa("block")*f1 + efa("block")*f2 =~ ...'
        )
    rows = [
        (
            one.block.level,
            one.block.group,
            one.block.label,
            k,
            minimum.value,
            minimum.starts,
            minimum.converged,
            minimum.distance,
        )
        for one in fit.estimate.rotated
        for k, minimum in enumerate(one.minima, 1)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def loadings(fit: Solution, level: Level = 1, *, group: int = 1, std: bool = True) -> pd.DataFrame:
    """Loadings of one level as a matrix: the pattern matrix.

    Parameters
    ----------
    level : {1, 2, "within", "between"}
    group : int
        Counted from 1.
    std : bool
        Completely standardized; otherwise as estimated.

    Returns
    -------
    DataFrame
        Indicators by latent variables; 0 where there is no loading.

    Raises
    ------
    ModelError
        If the level has no latent variables.
    """
    number = fit.table.level(level)
    rows = [
        i
        for i, r in enumerate(fit.table.rows)
        if r.op == "=~" and r.level == number and r.group == _group(fit, group)
    ]
    if not rows:
        raise ModelError(f"there are no latent variables at level {number}")
    quantity = standardized_quantity(fit.model, "std_all") if std else partial(row_values, fit.table)
    values = quantity(fit.theta)
    own = [fit.table.rows[i] for i in rows]
    return _matrix([(r.rhs, r.lhs) for r in own], values[rows])


def factor_correlations(fit: Solution, level: Level = 1, *, group: int = 1) -> pd.DataFrame:
    """Model-implied correlations of the latent variables of one level.

    Parameters
    ----------
    level : {1, 2, "within", "between"}
    group : int
        Counted from 1.

    Returns
    -------
    DataFrame
    """
    number = fit.table.level(level)
    names = list(fit.table.latent(number, _group(fit, group)))
    if not names:
        raise ModelError(f"there are no latent variables at level {number}")
    cov = fit.objective.implied(fit.theta, group)[number].cov.loc[names, names]
    scale = np.sqrt(np.diag(cov))
    return pd.DataFrame(cov.to_numpy() / np.outer(scale, scale), index=names, columns=names)


def _group(fit: Solution, group: int) -> int:
    if group not in range(1, fit.table.ngroups + 1):
        raise ModelError(f"there is no group {group!r}: they are numbered from 1 to {fit.table.ngroups}")
    return group


def _matrix(places: Sequence[tuple[str, str]], values: NDArray[np.float64]) -> pd.DataFrame:
    rows, cols = (list(dict.fromkeys(place[k] for place in places)) for k in (0, 1))
    out = pd.DataFrame(0.0, index=rows, columns=cols)
    for (row, col), value in zip(places, values, strict=True):
        out.loc[row, col] = value
    return out
