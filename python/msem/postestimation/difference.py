"""Tests of nested models that were fitted by least squares to the same statistics.

The difference of the two minima is asymptotically a weighted sum of chi-squares, whose weights are the eigenvalues of
U acov(s), with U that of the restriction in the coordinates of the larger model at its estimates (Satorra, 2000). With
the mean of these weights the difference is scaled, with their variance scaled and shifted (Asparouhov & Muthen, 2010).
The difference of two statistics that are shifted already is no chi-square.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import projected
from msem.errors import DataError, ModelError
from msem.estimation.estimate import Estimate
from msem.estimation.least_squares import LeastSquaresSolution, SecondStage
from msem.estimation.moment_vector import Moment
from msem.estimation.objective import build_objective
from msem.estimation.optimize import minimize
from msem.postestimation.likelihood_ratio import LikelihoodRatio, restriction_weights, shifted_ratio
from msem.postestimation.nested import ATTAINED

Floats = NDArray[np.float64]

SAME = 1e-6  # relative difference of statistics of the same data


def difference_test(
    small: LeastSquaresSolution, large: LeastSquaresSolution, *, shifted: bool
) -> LikelihoodRatio:
    """Test a smaller model against a larger one that contains it.

    Parameters
    ----------
    small, large : LeastSquaresSolution
        Of the same statistics with the same weights; see `require_same_statistics`.
    shifted : bool
        Match the variance of the weighted sum, not only its mean.

    Returns
    -------
    LikelihoodRatio
    """
    order = _order(small, large)
    difference = max(small.statistic - large.statistic, 0.0)
    df = large.jacobian.shape[1] - small.jacobian.shape[1]
    if large.exact:
        return LikelihoodRatio(difference, df, 1.0, 0.0, "standard")
    inner, outer = small.jacobian[order], large.jacobian
    # unweighted squares have the units of the variables, and so has what is nearest by them
    unit = 1.0 if large.weighting == "ULS" else np.concatenate([*map(_units, large.stages)])[:, None]
    left = projected(inner / unit, outer / unit, rcond=1e-9)
    middle = outer.T @ large.weight
    tangent = np.eye(outer.shape[1])
    weights = restriction_weights(middle @ outer, middle @ large.gamma @ middle.T, tangent, left)
    if shifted:
        return shifted_ratio(difference, weights, df, "satorra_2000")
    scaling = float(weights.sum()) / df
    scaling = scaling if scaling > 0 else np.nan
    return LikelihoodRatio(difference / scaling, df, scaling, 0.0, "satorra_2000")


def attained(small: LeastSquaresSolution, large: LeastSquaresSolution, larger: Estimate) -> float:
    """The least squares of the larger model against the statistics of the smaller one: 0 if it contains it."""
    order = _order(small, large)
    own = np.zeros(len(order))
    first = 0
    for stage in small.stages:
        own[first + stage.used] = stage.values
        first += stage.total
    implied = (own - small.residual)[order]
    losses, first = [], 0
    for stage in large.stages:
        losses.append(stage.likelihood.with_values(implied[first + stage.used]))
        first += stage.total
    objective = build_objective(larger.table, larger.objective.statistics, losses)
    return float(minimize(objective, larger.theta).value)


def require_same_statistics(
    small: LeastSquaresSolution, large: LeastSquaresSolution, names: tuple[str, str]
) -> None:
    """Refuse to compare fits to different statistics.

    Raises
    ------
    DataError
        If data or variables differ, or the statistics that are not given.
    ModelError
        If they are weighted differently.
    """
    first, second = names
    if small.weighting != large.weighting or small.normal != large.normal:
        raise ModelError(
            f"{first} and {second} are fitted with different weights: give both the same estimator= and se="
        )
    if len(small.stages) != len(large.stages):
        raise DataError(f"{first} and {second} have different numbers of groups")
    for one, two in zip(small.stages, large.stages, strict=True):
        mine, theirs = _values(one), _values(two)
        if mine.keys() != theirs.keys():
            only = next(key for key in [*mine, *theirs] if key not in mine or key not in theirs)
            having, lacking = (first, second) if only in mine else (second, first)
            raise DataError(
                f"{having} is fitted to the statistic {_shown(only)} and {lacking} is not: models are compared for the "
                "same variables, levels and covariates only; keep a variable in the model with its parameters fixed at "
                "0, as in 'y ~ 0*x'"
            )
        scale = max(abs(value) for value in mine.values()) if mine else 1.0
        if any(abs(mine[key] - theirs[key]) > SAME * scale for key in mine):
            raise DataError(f"{first} and {second} were fitted to different data: their statistics differ")


def require_nested(
    small: LeastSquaresSolution, large: LeastSquaresSolution, larger: Estimate, names: tuple[str, str]
) -> None:
    """Refuse two models of which the larger one does not contain the smaller one.

    Raises
    ------
    ModelError
    """
    lower, upper = names
    if small.jacobian.shape[1] == large.jacobian.shape[1]:
        raise ModelError(
            f"{lower} and {upper} have the same degrees of freedom ({small.df}): neither is nested in the other; "
            "compare their estimates with msem.compare"
        )
    gap = attained(small, large, larger)
    if not gap < ATTAINED:
        raise ModelError(
            f"{lower} is not nested in {upper}: fitted to the statistics that {lower} implies, {upper} leaves squares "
            f"of {gap:.3g}, where a model that contains the other leaves 0"
        )


def _shown(key: Moment) -> str:
    return f"'{' '.join(part for part in key[:3] if part)}' of level {key.level}"


def _key(key: Moment) -> Moment:
    """Covariances of two variables in whatever order."""
    if key.op != "~~" or key.lhs <= key.rhs:
        return key
    return key._replace(lhs=key.rhs, rhs=key.lhs)


def _values(stage: SecondStage) -> dict[Moment, float]:
    used = (stage.keys[k] for k in stage.used)
    return {_key(key): float(value) for key, value in zip(used, stage.values, strict=True)}


def _units(stage: SecondStage) -> Floats:
    """Sizes of the variables of each moment, multiplied; those of ordered variables have none."""
    variance: dict[str, float] = {}
    for key, value in _values(stage).items():
        if key.op == "~~" and key.lhs == key.rhs and key.lhs not in stage.scale_levels:
            variance[key.lhs] = variance.get(key.lhs, 0.0) + abs(value)
    unit = {name: np.sqrt(value) for name, value in variance.items() if value > 0}
    return np.array(
        [unit.get(key.lhs, 1.0) * (unit.get(key.rhs, 1.0) if key.op == "~~" else 1.0) for key in stage.keys]
    )


def _order(small: LeastSquaresSolution, large: LeastSquaresSolution) -> NDArray[np.intp]:
    """Where each moment of the larger model is among those of the smaller one."""
    at = {_key(key): k for k, key in enumerate(key for stage in small.stages for key in stage.keys)}
    return np.array([at[_key(key)] for stage in large.stages for key in stage.keys], dtype=np.intp)
