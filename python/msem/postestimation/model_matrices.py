"""The matrices of LISREL notation that estimates stand in, by level."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import MsemError
from msem.estimation.matrices import INTERCEPT, row_values
from msem.estimation.solution import Solution
from msem.model.levels import Level
from msem.postestimation.ram import Structure, structures


def model_matrices(
    fit: Solution, level: Level | None = None, *, group: int = 1
) -> dict[str, pd.DataFrame | pd.Series]:
    """Matrices of the model of one level, named as in LISREL and by ``lavInspect(fit, "est")``.

    The observed variables are y = nu + lambda eta + e with covariance matrix theta of e, and eta = alpha + beta eta + z
    with covariance matrix psi of z.

    Parameters
    ----------
    level : {1, 2, "within", "between"}, optional
        Default: the first.
    group : int
        Counted from 1.

    Returns
    -------
    dict
        "lambda", observed variables by those of eta, "theta", "psi" and "beta", DataFrames with names, and "nu" and
        "alpha", Series. eta are the latent variables, and then the observed ones that predict others, are predicted
        by observed ones, or covary with such a variable or a latent one: these have loading 1 on themselves. A path
        that is a random slope has its mean. Means of variables at both levels stand at the between level.

    Raises
    ------
    ModelError
        If there is no such level.
    MsemError
        If there is no such group.

    Examples
    --------
    >>> import msem
    >>> fit = msem.sem("f =~ y1 + y2 + y3", msem.load_demo())
    >>> fit.model_matrices()["lambda"].shape
    (3, 1)
    """
    if not 1 <= group <= fit.table.ngroups:
        raise MsemError(f"there is no group {group!r}: the groups are numbered 1 to {fit.table.ngroups}")
    number = 1 if level is None else fit.table.level(level)
    own = structures(fit.model, fit.theta)[number, group]
    block = next(block for block in fit.model.blocks if (block.level, block.group) == (number, group))
    observed = [name for name in fit.table.observed(number, group) if name in own.at]
    latent = [name for name in own.names if name not in observed]
    eta = [*latent, *(name for name in observed if name in _moved(own, observed, latent))]
    residual = [name for name in observed if name not in eta]
    means = np.zeros(len(own.names))
    at = block.slot == INTERCEPT
    means[block.row[at]] = row_values(fit.table, fit.theta)[block.rows[at]]
    intercepts = pd.Series(means, index=list(own.names))
    paths = pd.DataFrame(own.paths, index=list(own.names), columns=list(own.names))
    spread = pd.DataFrame(own.residual, index=list(own.names), columns=list(own.names))
    loadings = paths.loc[observed, eta].copy()
    loadings.loc[[name for name in observed if name in eta]] = 0.0
    for name in eta[len(latent) :]:
        loadings.loc[name, name] = 1.0
    theta = spread.loc[observed, observed].copy()
    theta.loc[[name for name in observed if name not in residual]] = 0.0
    theta.loc[:, [name for name in observed if name not in residual]] = 0.0
    return {
        "lambda": loadings,
        "theta": theta,
        "psi": spread.loc[eta, eta],
        "beta": paths.loc[eta, eta],
        "nu": intercepts[observed].where(~np.isin(observed, eta), 0.0).rename("nu"),
        "alpha": intercepts[eta].rename("alpha"),
    }


def _moved(own: Structure, observed: list[str], latent: list[str]) -> set[str]:
    """Observed variables that stand among the latent ones."""
    y, f = ([own.at[name] for name in names] for names in (observed, latent))
    linked: NDArray[np.bool_] = own.residual != 0
    moved = (own.paths[:, y] != 0).any(axis=0) | (own.paths[np.ix_(y, y)] != 0).any(axis=1)
    moved |= linked[np.ix_(y, f)].any(axis=1)
    while (more := moved | linked[np.ix_(y, y)][:, moved].any(axis=1)).sum() > moved.sum():
        moved = more
    return {name for name, there in zip(observed, moved, strict=True) if there}
