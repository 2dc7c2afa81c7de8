"""Slopes at values of the variables that change them, and the values at which they differ from 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import normal_halfwidth, normal_pvalue, wald_statistic
from msem.errors import DataError, ModelError
from msem.estimation.matrices import Numbers
from msem.estimation.solution import Estimated, free_vcov
from msem.model.levels import Level
from msem.postestimation.delta import Derived, Quantity, delta_method
from msem.postestimation.moderation import (
    Moderated,
    Values,
    centre_of,
    chosen_moderator,
    moderated,
    other_settings,
    settings,
)

Floats = NDArray[np.float64]
LINEAR = 1e-8  # second difference of slopes, relative to the slopes, that counts as 0
KEY = ("outcome", "predictor", "level", "group")


def _over(one: Moderated, held: Sequence[Mapping[str, float]]) -> Quantity:
    return lambda theta: np.stack([one.slope_at(theta, each) for each in held], axis=-1)


def derived_slopes(fit: Estimated, one: Moderated, held: Sequence[Mapping[str, float]]) -> Derived:
    """Slopes at settings with their sampling covariance."""
    return delta_method(_over(one, held), fit.theta, free_vcov(fit))


def derived_lines(fit: Estimated, one: Moderated, held: Mapping[str, float], values: Floats) -> Derived:
    """Means of the outcome at values of the predictor, given what is held, with their sampling covariance."""
    centre = one.mean(one.predictor)

    def quantity(theta: Numbers) -> Numbers:
        out: Numbers = one.mean_at(theta, held)[..., None] + one.slope_at(theta, held)[..., None] * (
            values - centre
        )
        return out

    return delta_method(quantity, fit.theta, free_vcov(fit))


def simple_slopes(
    fit: Estimated,
    path: str,
    at: Mapping[str, Values] | None = None,
    *,
    products: Mapping[str, str | Sequence[str]] | None = None,
    level: Level | None = None,
    ci_level: float = 0.95,
) -> pd.DataFrame:
    """Slopes of a path at values of the variables that change it.

    These are predictors of a random slope (cross-level interactions) and the other factors of products.

    Parameters
    ----------
    path : str
        As in the model: ``"y ~ x"``.
    at : mapping of str to float or sequence of float, optional
        Values of moderators: ``{"w": [-1, 0, 1]}``; of several all combinations. Default: mean and one standard
        deviation below and above it, of all. Moderators that are not named while others are stay at their means; those
        through which a named variable changes the slope that does not change it itself are what they are given this.
    products : mapping of str to str or sequence of str, optional
        Columns that are products of others, by their names: ``{"x_w": "x*w"}``. The factors are as they are in the
        data.
    level : {1, 2, "within", "between"}, optional
        Of the path; default: all where something changes it.
    ci_level : float
        Coverage of the intervals.

    Returns
    -------
    DataFrame
        Columns outcome, predictor, level, group, one for each moderator, est, se, z, pvalue, ci_lower, ci_upper: the
        slope of the path, its mean for a random one, by the delta method.

    Raises
    ------
    ModelError
        If there is no such path, or nothing changes its slope.
    DataError
        If values are no numbers.

    References
    ----------
    Aiken & West (1991). Multiple regression: testing and interpreting interactions. Bauer & Curran (2005). Probing
    interactions in fixed and multilevel regression. Multivariate Behavioral Research, 40, 373-400. Preacher, Curran &
    Bauer (2006). Computational tools for probing interactions in multiple linear regression, multilevel modeling, and
    latent curve analysis. Journal of Educational and Behavioral Statistics, 31, 437-448.

    Examples
    --------
    >>> import msem
    >>> model = "level: 1; y1 ~ rv('s')*x1; level: 2; s ~ w1; y1 ~ w1; y1 ~~ s"
    >>> fit = msem.sem(model, msem.load_demo(), cluster="cluster")
    >>> fit.simple_slopes("y1 ~ x1", {"w1": [0, 1]})["est"].round(2).tolist()
    [0.49, 0.46]
    """
    frames = []
    for one in moderated(fit, path, products, level):
        held = settings(one, at)
        found = derived_slopes(fit, one, held)
        z = wald_statistic(found.est, found.se)
        lower, upper = found.interval(ci_level)
        frame = pd.DataFrame(held)
        for k, (name, value) in enumerate(_key(one).items()):
            frame.insert(k, name, value)
        frames.append(
            frame.assign(
                est=found.est, se=found.se, z=z, pvalue=normal_pvalue(z), ci_lower=lower, ci_upper=upper
            )
        )
    return pd.concat(frames, ignore_index=True)


def _key(one: Moderated) -> dict[str, str | int]:
    return {name: getattr(one, name) for name in KEY}


def johnson_neyman(
    fit: Estimated,
    path: str,
    moderator: str | None = None,
    at: Mapping[str, float] | None = None,
    *,
    products: Mapping[str, str | Sequence[str]] | None = None,
    level: Level | None = None,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Values of a moderator at which the slope of a path differs from 0 (Johnson & Neyman, 1936).

    Parameters
    ----------
    path : str
        As in the model: ``"y ~ x"``.
    moderator : str, optional
        Needed where several variables change the slope.
    at : mapping of str to float, optional
        Values of the other moderators; default: their means.
    products, level
        As in `simple_slopes`.
    alpha : float
        Of the two-sided tests at single values.

    Returns
    -------
    DataFrame
        Columns outcome, predictor, level, group, moderator, mean and sd of the moderator, columns of the others, lower
        and upper, where the test changes its mind, and significant: "between" these values, "outside" them,
        "everywhere" or "nowhere" (lower and upper are nan then).

    Raises
    ------
    ModelError
        If there is no such path or moderator, or the slope is not linear in it.

    References
    ----------
    Johnson & Neyman (1936). Tests of certain linear hypotheses and their application to some educational problems.
    Statistical Research Memoirs, 1, 57-93. Bauer & Curran (2005). Multivariate Behavioral Research, 40, 373-400.

    Examples
    --------
    >>> import msem
    >>> model = "level: 1; y1 ~ rv('s')*x1; level: 2; s ~ w1; y1 ~ w1; y1 ~~ s"
    >>> fit = msem.sem(model, msem.load_demo(), cluster="cluster")
    >>> fit.johnson_neyman("y1 ~ x1")[["moderator", "significant"]].to_numpy().tolist()
    [['w1', 'between']]
    """
    if not (isinstance(alpha, Real) and 0 < alpha < 1):
        raise DataError(f"alpha is the level of the tests, between 0 and 1, such as 0.05, not {alpha!r}")
    records = []
    for one in moderated(fit, path, products, level):
        name = chosen_moderator(one, moderator)
        others = other_settings(one, name, at)
        lower, upper, where = _region(fit, one, name, others, normal_halfwidth(1 - alpha))
        mean, sd = centre_of(one, name) if name in one.places else (np.nan, np.nan)
        records.append(
            _key(one)
            | {"moderator": name, "mean": mean, "sd": sd}
            | others
            | {"lower": lower, "upper": upper, "significant": where}
        )
    return pd.DataFrame(records)


def _region(
    fit: Estimated, one: Moderated, moderator: str, others: Mapping[str, float], quantile: float
) -> tuple[float, float, str]:
    """Where a slope a + b u differs from 0: (a + b u)^2 > q^2 Var(a + b u), u the moderator in standard deviations."""
    centre, sd = centre_of(one, moderator)
    held = [{**others, moderator: centre + step * sd} for step in (0.0, 1.0, 2.0)]
    found = derived_slopes(fit, one, held)
    a, b = found.est[0], found.est[1] - found.est[0]
    if abs(found.est[2] - found.est[1] - b) > LINEAR * np.abs(found.est).max():
        raise ModelError(
            f"the slope of {one.outcome} ~ {one.predictor} is no linear function of {moderator!r}: simple_slopes() "
            "has it at any values"
        )
    step = np.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0]])
    v = step @ found.vcov @ step.T
    q = quantile**2
    square, half, constant = b * b - q * v[1, 1], a * b - q * v[0, 1], a * a - q * v[0, 0]
    if not np.isfinite([square, half, constant]).all():
        return np.nan, np.nan, "unknown"
    inside = half * half - square * constant
    if inside <= 0:
        return np.nan, np.nan, "everywhere" if constant > 0 else "nowhere"
    # without cancellation; a leading coefficient of 0 sends one of the ends to infinity
    root = -(half + np.copysign(np.sqrt(inside), half))
    with np.errstate(divide="ignore"):
        ends = sorted(centre + sd * np.array([root / square, constant / root]))
    return float(ends[0]), float(ends[1]), "outside" if square >= 0 else "between"
