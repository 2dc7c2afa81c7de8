"""Defined parameters (``:=``) and other written functions of the estimates: delta method and Monte Carlo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem.distributions import normal_halfwidth
from msem.model.functions import Functions
from msem.postestimation.delta import Derived, Drawn, MonteCarlo, distribution, draw_parameters, propagate

Floats = NDArray[np.float64]


def derive(functions: Functions, theta: Floats, vcov: Floats) -> Derived:
    """Values of functions of the estimates with their delta-method covariance.

    Parameters
    ----------
    functions : Functions
    theta : ndarray, shape (npar,)
    vcov : ndarray, shape (npar, npar)
        nan for parameters without standard errors.
    """
    return propagate(functions.values(theta), functions.jacobian(theta), theta, vcov)


def draw(functions: Functions, theta: Floats, vcov: Floats, level: float, how: MonteCarlo) -> Drawn:
    """Distribution of functions when theta is drawn from its normal sampling distribution.

    After MacKinnon, Lockwood & Williams (2004); see `delta.monte_carlo`.
    """
    normal_halfwidth(level)
    values = functions.values_of_rows(draw_parameters(theta, vcov, how))
    return distribution(values, derive(functions, theta, vcov).se, level)
